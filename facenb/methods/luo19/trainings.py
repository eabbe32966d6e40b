"""The trainings of Luo et al. 2019: plain regression first, then arms that differ only in the added losses.

Short trainings choose the margin and the weights of these losses on validation people (`Sweep`).
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

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
EXTENSIONS = 2  # how often a grid is extended if the best setting lies at its edge
Table = dict[tuple[float, ...], tuple[float, float]]  # AUC and NME (%) of each setting


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


def train_copy(
    pairs: PairMaterial, name: str, start: Siamese, cost: Cost, settings: Settings, **options: float
) -> tuple[Siamese, History]:
    """Train a copy of `start`, or load it if it was trained before. Return the network and its history.

    `options` are those of `pair_loss`; without any, it is plain regression.
    """
    run, network = pairs.material.run, copy.deepcopy(start)
    facts = {"layout": str(start.layout), "options": options}
    folder = liu18.training_folder(pairs.material, f"10_{name}", settings, {"network": start}, **facts)
    modules = {"network": network.to(run.device), "face": pairs.face(settings.seed).to(run.device)}
    return network, train(modules, pair_loss(cost, **options), pairs.data, settings, folder, device=run.device)


def train_start(pairs: PairMaterial, untrained: Siamese) -> tuple[Siamese, History]:
    """Train with WPDC alone (plain regression). All arms start from this network."""
    return train_copy(pairs, "WPDC", untrained, wpdc, pairs.plan.start)


def train_arm(pairs: PairMaterial, start: Siamese, **options: float) -> tuple[Siamese, History]:
    """Train one arm with VDC. Arms from one start see the same pairs in the same order."""
    return train_copy(pairs, "VDC", start, vdc, pairs.plan.arm, **options)


# Chosen with an earlier training, on 40 validation people. Used only where there is no reference.
CHOICE = {"contrast": 0.4, "margin": 6.0, "identity": 0.1}


def arms(contrast: float, margin: float, identity: float) -> dict[str, dict[str, float]]:
    """Return the options of the four arms by their names."""
    pair, feature = {"contrast": contrast, "margin": margin}, {"identity": identity}
    return {"plain regression": {}, "+ contrastive": pair, "+ identity": feature, "+ both": pair | feature}


@dataclass
class Sweep:
    """Short trainings with VDC from one start, judged on the validation people by AUC and NME (%)."""

    pairs: PairMaterial
    start: Siamese
    plain: tuple[float, float] = (0.0, 0.0)
    tables: dict[str, Table] = field(default_factory=dict)  # "contrast, margin" by (w_c, m), "identity" by (w_i,)
    edges: list[str] = field(default_factory=list)  # the options whose chosen value lies at an edge
    networks: dict[tuple[float, ...], Siamese] = field(default_factory=dict)  # by (), (w_c, m) or (w_c, m, w_i)
    histories: list[History] = field(default_factory=list)

    def run(self) -> dict[str, float]:
        """Train the settings of the plan's grids. Return the chosen contrast, margin and identity.

        w_c and m are chosen together, then w_i beside them.
        """
        plan = self.pairs.plan
        self.plain = self._tried({})
        pair = self._search({"contrast": plan.contrasts, "margin": plan.margins}, {})
        return pair | self._search({"identity": plan.identities}, pair)

    def best_of(self, table: Table) -> tuple[float, ...]:
        """Return the setting of highest AUC whose NME is within the tolerance, else the setting of lowest NME."""
        limit = (1 + self.pairs.plan.tolerance) * self.plain[1]
        allowed = [key for key, (_, error) in table.items() if error <= limit]
        if not allowed:
            return min(table, key=lambda key: table[key][1])
        return max(allowed, key=lambda key: table[key][0])

    def _search(self, grids: Mapping[str, Sequence[float]], fixed: Mapping[str, float]) -> dict[str, float]:
        """Return the best setting of a grid, which is extended where the best one lies at an edge."""
        table = self.tables[", ".join(grids)] = {}
        waiting = list(product(*grids.values()))
        for rounds_left in reversed(range(EXTENSIONS + 1)):
            for values in waiting:
                table[values] = self._tried({**fixed, **dict(zip(grids, values, strict=True))})
            best = self.best_of(table)
            beyond = {name: beyond_edge(best, place, table) for place, name in enumerate(grids)}
            waiting = [values for values in beyond.values() if values]
            if not waiting or not rounds_left:
                break
        self.edges += [name for name, values in beyond.items() if values]
        return dict(zip(grids, best, strict=True))

    def _tried(self, options: Mapping[str, float]) -> tuple[float, float]:
        network, history = train_copy(self.pairs, "sweep", self.start, vdc, self.pairs.plan.sweep, **options)
        self.networks[tuple(options.values())] = network
        self.histories.append(history)
        return judge(self.pairs, network)


def beyond_edge(best: tuple[float, ...], place: int, table: Table) -> tuple[float, ...] | None:
    """Return the setting one step beyond the edge at which `best` lies on an axis, or None if it lies at none."""
    values = sorted({key[place] for key in table})
    if len(values) < 2 or best[place] not in (values[0], values[-1]):
        return None
    last, before = (values[0], values[1]) if best[place] == values[0] else (values[-1], values[-2])
    return (*best[:place], float(f"{last * last / before:.2g}"), *best[place + 1 :])
