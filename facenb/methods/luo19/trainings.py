"""The trainings of Luo et al. 2019: plain regression first, then arms that differ only in the added losses."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from facenb.losses import contrastive_loss, feature_identity_loss, vdc, wpdc
from facenb.methods import liu18
from facenb.methods.luo19.measures import judge
from facenb.methods.luo19.network import Siamese
from facenb.methods.luo19.targets import PairMaterial
from facenb.networks.resnet import ResNet
from facenb.networks.sphereface import SphereFace
from facenb.training import History, Settings, train

Cost = Callable[..., Tensor]  # wpdc or vdc


def pair_loss(cost: Cost, contrast: float = 0.0, margin: float = 1.0, identity: float = 0.0) -> Callable[..., dict]:
    """Return the loss of an arm. `cost` is WPDC or VDC; the weights are w_c (`contrast`) and w_i (`identity`)."""

    def loss(modules: dict[str, nn.Module], batch: dict[str, Tensor]) -> dict[str, Tensor]:
        face = modules["face"]
        features, predicted = modules["network"](batch["image"])
        losses = {"L_param": cost(predicted, face.whiten(batch["flat"]), face)}
        total = losses["L_param"]
        if contrast:
            alpha = predicted[:, face.layout.slices["identity"]]
            losses["contrastive"] = contrastive_loss(*alpha.chunk(2), batch["same"], margin)
            total = total + contrast * losses["contrastive"]
        if identity:
            losses["identity"] = feature_identity_loss(*features.chunk(2), batch["same"])
            total = total + identity * losses["identity"]
        return {"loss": total, **losses}

    return loss


def new_network(pairs: PairMaterial, seed: int, encoder: nn.Module | None = None) -> Siamese:
    """Return a network with this encoder and an untrained head. Without one, the encoder is untrained too.

    The untrained encoder is ResNet-50 (as in 2DASL) at the profile `full`, else the SphereFace of the plan.
    """
    material, layout = pairs.material, pairs.reduction.layout
    sizes = len(material.model.identity_basis), len(material.model.expression_basis)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if encoder is None:
            encoder = ResNet() if material.run.profile == "full" else SphereFace(**material.plan.encoder)
        network = Siamese(copy.deepcopy(encoder).cpu(), layout, sizes)
    network.set_targets(pairs.reduction, pairs.fitted)
    return network


def _train(
    pairs: PairMaterial, name: str, start: Siamese, cost: Cost, settings: Settings, **options: float
) -> tuple[Siamese, History]:
    """Train a copy of `start`, or load it if it was trained before. Return the network and its history."""
    run, network = pairs.material.run, copy.deepcopy(start)
    facts = {"layout": str(start.layout), "options": options}
    folder = liu18.training_folder(pairs.material, f"10_{name}", settings, {"network": start}, **facts)
    modules = {"network": network.to(run.device), "face": pairs.face(settings.seed).to(run.device)}
    return network, train(modules, pair_loss(cost, **options), pairs.data, settings, folder, device=run.device)


def train_start(pairs: PairMaterial, untrained: Siamese) -> tuple[Siamese, History]:
    """Train with WPDC alone (plain regression). All arms start from this network."""
    return _train(pairs, "WPDC", untrained, wpdc, pairs.plan.start)


def train_arm(pairs: PairMaterial, start: Siamese, **options: float) -> tuple[Siamese, History]:
    """Train one arm with VDC. `options` are those of `pair_loss`; without any, it is plain regression.

    Arms from one start see the same pairs in the same order.
    """
    return _train(pairs, "VDC", start, vdc, pairs.plan.arm, **options)


@dataclass
class Sweep:
    """Short trainings with VDC, judged on the validation people: AUC and NME (%) of each setting."""

    pairs: PairMaterial
    start: Siamese
    networks: dict[tuple[float, ...], Siamese] = field(default_factory=dict)  # by w_c and m, w_i, or () for plain
    plain: tuple[float, float] = (0.0, 0.0)
    contrasts: dict[tuple[float, float], tuple[float, float]] = field(default_factory=dict)  # by w_c and m
    identities: dict[float, tuple[float, float]] = field(default_factory=dict)  # by w_i

    def run(self) -> dict[str, float]:
        """Train all settings of the plan's grids. Return the chosen contrast, margin and identity."""
        plan = self.pairs.plan
        self.plain = self._tried()
        self.contrasts = {(w, m): self._tried(contrast=w, margin=m) for w in plan.contrasts for m in plan.margins}
        contrast, margin = self.best_of(self.contrasts)
        self.identities = {w: self._tried(identity=w) for w in plan.identities}
        return {"contrast": contrast, "margin": margin, "identity": self.best_of(self.identities)}

    def _tried(self, **options: float) -> tuple[float, float]:
        network, _ = _train(self.pairs, "sweep", self.start, vdc, self.pairs.plan.sweep, **options)
        self.networks[tuple(options.values())] = network
        return judge(self.pairs, network)

    def best_of(self, table: dict[Any, tuple[float, float]]) -> Any:
        """Return the setting with the highest AUC among those whose NME is within the tolerance of plain's."""
        limit = (1 + self.pairs.plan.tolerance) * self.plain[1]
        allowed = {key: value for key, value in table.items() if value[1] <= limit}
        return max(allowed or table, key=lambda key: table[key][0])


def arms(contrast: float, margin: float, identity: float) -> dict[str, dict[str, float]]:
    """Return the options of the four arms by their names."""
    pair, feature = {"contrast": contrast, "margin": margin}, {"identity": identity}
    return {"plain regression": {}, "+ contrastive": pair, "+ identity": feature, "+ both": pair | feature}
