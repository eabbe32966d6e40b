"""The four arms of the ablation: one code, two codes, the method, and softmax alone (Liu18, section 4.3).

All arms of a seed see the same images in the same order. (b) and (c) start from one phase I. (a) has a phase I of its
own, because its code is different. (d) trains with the class loss only, for as many steps as phase I and (c) together.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from facenb.datasets.sets.faces import FaceSet
from facenb.losses import coefficient_loss
from facenb.methods.liu18.material import Material, training_folder
from facenb.methods.liu18.measures import TOGETHER, encode, measure_network, of_errors, shapes
from facenb.methods.liu18.phases import phase_one, phase_three
from facenb.methods.liu18.recognition import Gallery, of_test
from facenb.networks.joint import Codes, JointNetwork
from facenb.networks.sphereface import SphereFace
from facenb.training import History, Settings, train

ARMS = {"a": "(a) one code", "b": "(b) two codes", "c": "(c) the method", "d": "(d) softmax only"}


class OneCode(nn.Module):
    """Map fitted coefficients to one code of the whole shape, and give the decoder of this code.

    The code holds the principal components of the displacements `x B` of the fits, with `B = [A; E]`. The Cholesky
    factor of `B B^T = L L^T` has `|x B| = |x L|`, so a PCA of `x L` is a PCA of the shapes. Each code is in [-1, 1].
    """

    def __init__(self, material: Material):
        super().__init__()
        basis = torch.cat([material.model.identity_basis, material.model.expression_basis]).flatten(1).double()
        gram = basis @ basis.T
        factor = torch.linalg.cholesky(gram + 1e-9 * gram.diagonal().mean() * torch.eye(len(gram)))
        stored = material.train.read(["identity", "expression"])
        rows = torch.cat([stored["identity"], stored["expression"]], 1).double() @ factor
        mean = rows.mean(0)
        strength, directions = torch.linalg.svd(rows - mean, full_matrices=False)[1:]  # strongest first
        directions = directions[strength > 1e-5 * strength[0]]  # few images have few components
        low, high = ((rows - mean) @ directions.T).aminmax(dim=0)
        half = (high - low) / 2
        self.register_buffer("turn", (factor @ directions.T / half).float())
        self.register_buffer("shift", (((high + low) / 2 + mean @ directions.T) / half).float())
        to_vertices = torch.linalg.solve(factor, basis)  # from `rows` to the vertices
        self.basis = (directions @ to_vertices).float().unflatten(1, (-1, 3))  # (codes, vertices, 3), mm
        self.offset, self.low, self.high = (mean @ to_vertices).float(), low.float(), high.float()

    def forward(self, coefficients: Float[Tensor, "batch coefficients"]) -> Float[Tensor, "batch codes"]:
        """Return the codes of identity and expression coefficients, side by side."""
        return coefficients @ self.turn - self.shift


@torch.no_grad()
def network_of_one_code(material: Material, code: OneCode, seed: int) -> JointNetwork:
    """Return an untrained network with one code, whose decoder is already exact."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = JointNetwork(SphereFace(**material.plan.encoder), len(code.basis), 0, len(material.model.mean))
    network.identity_scaling.span(torch.stack([code.low, code.high]))
    network.set_mean_shape(material.model.mean)
    network.identity_decoder.set_basis(code.basis, network.identity_scaling)
    network.identity_decoder.fc.bias += code.offset
    return network


def network_of_two_codes(material: Material, seed: int) -> JointNetwork:
    """Return an untrained network with two codes and the decoders of phase II in closed form."""
    network = material.new_network(seed)
    network.set_bases(material.model.identity_basis, material.model.expression_basis)
    return network


def phase_one_of_one_code(modules: dict[str, nn.Module], batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the loss of phase I for the network of one code."""
    target = modules["code"](torch.cat([batch["identity"], batch["expression"]], 1))
    return {"loss": coefficient_loss(modules["network"].encode(batch["image"]).identity, target)}


@torch.no_grad()
def distance_to_fit(
    material: Material, network: JointNetwork, subset: FaceSet, kind: str
) -> tuple[Float[Tensor, " images"], Int[Tensor, " images"]]:
    """Return the squared distance of predicted shapes from the fitted shapes, mm^2, and the person in each image.

    It is a mean over the vertices. `kind` is whole or identity. About 800 images are used at most, without changes.
    """
    rows = torch.arange(0, len(subset), max(1, len(subset) // 800))
    codes, supervision, values = encode(network, subset, rows), material.supervision(), []
    for chunk in torch.arange(len(rows)).split(TOGETHER):
        shape = shapes(network, Codes(*(code[chunk] for code in codes)))
        target = supervision(subset.read(["identity", "expression"], rows[chunk]))
        difference = shape.identity - target[0]
        if kind == "whole":
            difference = shape.identity + shape.residual - sum(target)
        values.append(difference.square().sum(2).mean(1))
    return torch.cat(values), subset.subjects[rows]


def measure_arms(material: Material, networks: dict[str, JointNetwork]) -> dict[str, Tensor]:
    """Return the measures of the four arms: errors, scores and decisions of pairs, and distances from the fits."""
    gallery = Gallery.of(material)
    measures = of_test(gallery)
    for arm, network in networks.items():
        identity = gallery.codes(network)
        measures[f"{arm}/score"] = gallery.scores(identity)
        measures[f"{arm}/right"] = gallery.verify(identity).right
        if arm == "d":
            continue
        if material.test is not None:
            measures |= of_errors(arm, measure_network(material, network, encode(network, material.test)))
        for who, subset in (("seen", material.train), ("unseen", material.test or material.validation)):
            for kind in ("whole", "identity") if arm != "a" else ("whole",):
                measures[f"{arm}/fit/{kind}/{who}"], people = distance_to_fit(material, network, subset, kind)
            measures[f"people/{who}"] = people
    return measures


class Ablation:
    """The trainings of one seed. `reports` are the arguments `validate` and `watch` of `train` for the arms."""

    def __init__(self, material: Material, seed: int, **reports: Any):
        self.material, self.seed, self.reports = material, seed, reports
        self.settings = replace(material.plan.ablation, seed=seed)
        self.histories: dict[str, History] = {}

    def starts(self) -> dict[str, JointNetwork]:
        """Train both phases I. Return the network from which each arm starts."""
        code = OneCode(self.material)
        single = network_of_one_code(self.material, code, self.seed)
        self.train("a_I", {"network": single, "code": code}, phase_one_of_one_code, self.settings, {})
        double = network_of_two_codes(self.material, self.seed)
        self.train("bc_I", {"network": double}, phase_one, self.settings, {})
        twin, untrained = (network_of_two_codes(self.material, self.seed) for _ in range(2))
        twin.load_state_dict(double.state_dict())
        return {"a": single, "b": double, "c": twin, "d": untrained}

    def arms(self) -> dict[str, JointNetwork]:
        """Train the four arms and return their networks."""
        networks = self.starts()
        for arm, network in networks.items():
            self.train_arm(arm, network)
        return networks

    def train_arm(self, arm: str, network: JointNetwork, factor: float = 1.0) -> History:
        """Train one arm in place; the weight of its L_R is multiplied by `factor`."""
        settings = replace(self.settings, steps=(1 + (arm == "d")) * self.settings.steps)
        modules = {"network": network, "targets": self.material.supervision()}
        if arm in "cd":
            modules["head"] = self.material.new_head(self.seed, *self.material.plan.head)
        loss = phase_three(settings.steps, reconstruction=arm != "d", identification=arm in "cd", factor=factor)
        return self.train(arm, modules, loss, settings, {"factor": factor} if factor != 1 else {}, **self.reports)

    def train(
        self, name: str, modules: dict[str, nn.Module], loss: Callable, settings: Settings, facts: dict, **reports: Any
    ) -> History:
        run, data = self.material.run, self.material.train
        folder = training_folder(self.material, f"09_{name}_seed{self.seed}", settings, modules, **facts)
        modules = {key: module.to(run.device) for key, module in modules.items()}
        self.histories[name] = train(modules, loss, data, settings, folder, device=run.device, **reports)
        return self.histories[name]
