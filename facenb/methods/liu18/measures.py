"""A network's codes and shapes, and their errors against the truth."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from facenb.datasets.sets.augmentation import network_input
from facenb.datasets.sets.faces import FaceSet
from facenb.errors import RunError
from facenb.evaluation.intervals import Effect, bootstrap
from facenb.evaluation.shape import shape_errors
from facenb.methods.liu18.material import Material
from facenb.networks.joint import Codes, JointNetwork, ShapeParts
from facenb.photos.photo import ict_fitter
from facenb.reference.shipment import read_part
from facenb.runs.results import Run
from facenb.synthface.model import course_model

TOGETHER = 256  # images at a time, without training


@torch.no_grad()
def encode(network: JointNetwork, subset: FaceSet, rows: Int[Tensor, " rows"] | None = None) -> Codes:
    """Return the codes of a set's images without augmentation, on the CPU."""
    rows = torch.arange(len(subset)) if rows is None else rows
    network.eval()
    inputs = (subset.inputs(batch).to(network.mean_shape.device) for batch in rows.split(TOGETHER))
    codes = [network.encode(batch) for batch in inputs]
    return Codes(*(torch.cat(code).float().cpu() for code in zip(*codes, strict=True)))


@torch.no_grad()
def encode_crops(
    network: JointNetwork, crops: UInt8[Tensor, "photos height width 3"], mirror: bool = False
) -> Float[Tensor, "photos identity"]:
    """Return c_id of crops. If `mirror`, append c_id of the mirrored crop, as LFW's usual script does."""
    if mirror:
        return torch.cat([encode_crops(network, crops), encode_crops(network, crops.flip(2))], 1)
    network.eval()
    inputs = (network_input(batch, None).to(network.mean_shape.device) for batch in crops.split(TOGETHER))
    return torch.cat([network.encode(batch).identity for batch in inputs]).float().cpu()


@torch.no_grad()
def shapes(network: JointNetwork, codes: Codes) -> ShapeParts:
    """Return the decoders' shapes of codes, on the CPU."""
    device = network.mean_shape.device
    return ShapeParts(*(part.float().cpu() for part in network.shape(Codes(*(code.to(device) for code in codes)))))


@dataclass(frozen=True)
class TestErrors:
    """Errors of the test images in mm, from `shape_errors`: mean distances, or rms distances if the name has rms."""

    whole: Float[Tensor, " test"]  # with expression
    whole_rms: Float[Tensor, " test"]
    identity: Float[Tensor, " test"]  # the neutral face

    __test__ = False  # not a test for pytest


def of_errors(name: str, errors: TestErrors) -> dict[str, Tensor]:
    """Return the errors of a method under its name, for a file of measures."""
    return {f"{name}/{kind}": values.float() for kind, values in vars(errors).items()}


def measure(material: Material, make: Callable[[Int[Tensor, " rows"]], tuple[Tensor, Tensor]]) -> TestErrors:
    """Return the errors of predictions: `make(rows)` returns whole and identity shapes (rows, V, 3) of test rows."""
    errors = []
    for rows in torch.arange(len(material.test)).split(TOGETHER):
        whole, identity = make(rows)
        with_expression = shape_errors(whole, material.truth[rows], material.model)
        neutral = shape_errors(identity, material.neutral[rows], material.model)
        errors.append((with_expression.mean, with_expression.rms, neutral.mean))
    return TestErrors(*map(torch.cat, zip(*errors, strict=True)))


def measure_network(material: Material, network: JointNetwork, codes: Codes) -> TestErrors:
    """Return the errors of the decoders' shapes."""

    def make(rows: Tensor) -> tuple[Tensor, Tensor]:
        decoded = shapes(network, Codes(codes.identity[rows], codes.residual[rows]))
        return decoded.whole, network.mean_shape.cpu() + decoded.identity

    return measure(material, make)


def measure_coefficients(material: Material, identity: Tensor, expression: Tensor) -> TestErrors:
    """Return the errors of the 3DMM's shapes for whitened coefficients of each test image."""
    shape = material.model.shape
    return measure(material, lambda rows: (shape(identity[rows], expression[rows]), shape(identity[rows])))


@torch.no_grad()
def measure_model(material: Material, network: JointNetwork, codes: Codes) -> TestErrors:
    """Return the errors of the 3DMM's shapes for the codes: phase I's predictions, when there are no decoders yet."""
    device = network.mean_shape.device
    coefficients = network.coefficients(Codes(*(code.to(device) for code in codes)))
    return measure_coefficients(material, *(values.cpu() for values in coefficients))


def need_network(run: Run, name: str, notebook: str, like: dict[str, Any] | None = None) -> JointNetwork:
    """Return a network that an earlier notebook saved, on the run's device. Raise RunError if it is missing."""
    return JointNetwork.load(run.need(f"networks/{name}.safetensors", notebook), like).to(run.device)


def reference_network(run: Run, name: str, part: str = "liu18") -> JointNetwork | None:
    """Return a network of the reference trainings, on the run's device, or None if there is none for the run's data.

    Raise ModelFileError if its file is damaged.
    """
    try:
        trained = read_part(part, run.data)
    except RunError:
        return None
    if name not in trained.card["networks"]:  # networks trained on LFW do not ship
        return None
    model = course_model() if run.data == "synthetic" else ict_fitter().model
    return trained.network(name, JointNetwork, model).to(run.device)


def phase_network(run: Run, phase: str, suffix: str = "") -> JointNetwork:
    """Return the network after phase I or III: of the reference trainings, or else of notebook 06 or 08.

    Raise RunError if there is neither.
    """
    notebook = {"I": "06_phase_one_encoder", "III": "08_phase_three_joint"}[phase]
    trained = reference_network(run, f"phase_{phase}{suffix}")
    return trained or need_network(run, f"liu18_{phase}{suffix}", notebook)


def mean_face(material: Material) -> TestErrors:
    """Return the errors of the mean face."""
    return measure(material, lambda rows: (material.model.mean.expand(len(rows), -1, -1),) * 2)


def fitted_shapes(material: Material) -> TestErrors:
    """Return the errors of the fit to all images of each test person: the kind of target that the network learns."""
    return measure_coefficients(material, **material.test.read(["identity", "expression"]))


def gap_closed(mean: Tensor, network: Tensor, fitted: Tensor, subject: Int[Tensor, " images"]) -> Effect:
    """Return how much of the gap from the mean face to the fitted targets a network closes, in %.

    The three errors have shape (images). Each person has the same weight, and the interval is over people.
    """
    people = subject.unique(return_inverse=True)[1]
    count = torch.bincount(people)
    errors = [(torch.bincount(people, values.double()) / count).numpy() for values in (mean, network, fitted)]

    def share(weights: np.ndarray) -> np.ndarray:
        far, own, near = (weights @ error for error in errors)
        return 100 * (far - own) / (far - near)

    return bootstrap(share, len(count))


def watch_codes(material: Material) -> Callable[[dict[str, nn.Module]], dict[str, float]]:
    """Return a `validate` function for phase I: the explained variance of the codes, for seen and unseen people.

    Each number is `1 - (squared error) / (squared distance from the training people's mean code)`, over all dimensions.
    The images are not altered. The training people are as many images as the validation people.
    """
    network, count, targets = material.new_network(), min(1024, len(material.validation)), {}
    for name, subset in (("unseen", material.validation), ("seen", material.train)):
        rows = torch.arange(0, len(subset), max(1, len(subset) // count))[:count]
        targets[name] = subset, rows, network.codes(**subset.read(["identity", "expression"], rows))
    fitted = material.train.read(["identity", "expression"])
    means = network.codes(**{name: values.mean(0)[None] for name, values in fitted.items()})

    def validate(modules: dict[str, nn.Module]) -> dict[str, float]:
        explained = {}
        for name, (subset, rows, target) in targets.items():
            codes = encode(modules["network"], subset, rows)
            for part in Codes._fields:
                aim = getattr(target, part)
                blind = (aim - getattr(means, part)).square().sum()
                explained[f"{part}, {name}"] = float(1 - (getattr(codes, part) - aim).square().sum() / blind)
        return explained

    return validate
