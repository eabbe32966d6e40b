"""A network's codes and shapes, and their errors against the truth."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facenb.datasets.sets.faces import FaceSet
from facenb.datasets.sets.lfw_pairs import TestPairs
from facenb.evaluation.shape import shape_errors
from facenb.methods.liu18.material import Material
from facenb.networks.joint import Codes, JointNetwork, ShapeParts
from facenb.runs.results import Run

TOGETHER = 256  # pictures at a time where nothing is learned


@torch.no_grad()
def encode(network: JointNetwork, subset: FaceSet, rows: Int[Tensor, " rows"] | None = None) -> Codes:
    """Codes of a subset's pictures as they are, on the CPU."""
    device = network.mean_shape.device
    rows = torch.arange(len(subset)) if rows is None else rows
    plain = replace(subset, augmentation=type(subset.augmentation)())
    network.eval()
    found = [network.encode(plain.load(some)["image"].to(device)) for some in rows.split(TOGETHER)]
    return Codes(*(torch.cat(part).float().cpu() for part in zip(*found, strict=True)))


@torch.no_grad()
def encode_pairs(network: JointNetwork, pairs: TestPairs, mirror: bool = False) -> Float[Tensor, "photos identity"]:
    """c_id of LFW's test crops; with `mirror`, of photo and mirrored photo side by side (the usual LFW script)."""
    device = network.mean_shape.device
    network.eval()
    sides = [
        torch.cat([network.encode(pairs.inputs(some, flip).to(device)).identity.float().cpu()
                   for some in torch.arange(len(pairs.image)).split(TOGETHER)])
        for flip in ((False, True) if mirror else (False,))
    ]  # fmt: skip
    return torch.cat(sides, 1)


@torch.no_grad()
def shapes(network: JointNetwork, codes: Codes) -> ShapeParts:
    """What the decoders make of codes, on the CPU."""
    device = network.mean_shape.device
    return ShapeParts(*(part.float().cpu() for part in network.shape(Codes(*(code.to(device) for code in codes)))))


@dataclass(frozen=True)
class TestErrors:
    """Errors of the test pictures, mm: mean vertex distance within 95 mm of the nose tip, aligned on 68 landmarks."""

    whole: Float[Tensor, " test"]  # with expression
    whole_rms: Float[Tensor, " test"]
    identity: Float[Tensor, " test"]  # the face at rest

    __test__ = False  # no test of pytest's


def measure(material: Material, make: Callable[[Int[Tensor, " rows"]], tuple[Tensor, Tensor]]) -> TestErrors:
    """Errors against the truth of whatever `make(rows)` gives: whole and identity shapes (rows, V, 3) of test rows."""
    whole, rms, identity = [], [], []
    landmarks = material.model.landmarks
    for rows in torch.arange(len(material.test)).split(TOGETHER):
        one, two = make(rows)
        found = shape_errors(one, material.truth[rows], landmarks)
        whole.append(found.mean)
        rms.append(found.rms)
        identity.append(shape_errors(two, material.neutral[rows], landmarks).mean)
    return TestErrors(torch.cat(whole), torch.cat(rms), torch.cat(identity))


def measure_network(material: Material, network: JointNetwork, codes: Codes) -> TestErrors:
    """`measure` of the decoders' shapes."""

    def make(rows: Tensor) -> tuple[Tensor, Tensor]:
        parts = shapes(network, Codes(codes.identity[rows], codes.residual[rows]))
        return parts.whole, network.mean_shape.cpu() + parts.identity

    return measure(material, make)


def measure_model(material: Material, network: JointNetwork, codes: Codes) -> TestErrors:
    """`measure` of the 3DMM's own shapes for the codes: what phase I predicts, before there are decoders."""

    def make(rows: Tensor) -> tuple[Tensor, Tensor]:
        device = network.mean_shape.device
        found = network.coefficients(Codes(codes.identity[rows].to(device), codes.residual[rows].to(device)))
        identity, residual = (part.detach().cpu() for part in found)
        return material.model.shape(identity, residual), material.model.shape(identity)

    return measure(material, make)


def need_network(run: Run, name: str, notebook: str, like: dict[str, Any] | None = None) -> JointNetwork:
    """A network that an earlier notebook saved, on the run's device; RunError that says which command makes it."""
    path = run.need(f"networks/{name}.safetensors", notebook)
    return JointNetwork.load(path, like).to(run.device)
