"""Procrustes alignment: the rotation, shift and optional scale from points to their targets (Umeyama 1991)."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from facenb.errors import LandmarkError


class Similarity(NamedTuple):
    """A batch of similarities `x -> scale * R x + shift`; points are rows."""

    scale: Float[Tensor, " batch"]
    rotation: Float[Tensor, "batch dimensions dimensions"]
    shift: Float[Tensor, "batch dimensions"]

    def apply(self, points: Float[Tensor, "_batch points dimensions"]) -> Float[Tensor, "batch points dimensions"]:
        """Return the moved points, computed in float64, in the dtype of `points`. A batch of one is broadcast."""
        turned = points.double() @ self.rotation.transpose(1, 2)
        return (self.scale[:, None, None] * turned + self.shift[:, None]).to(points.dtype)


def similarity(
    source: Float[Tensor, "_batch points dimensions"],
    target: Float[Tensor, "_targets points dimensions"],
    scale: bool = True,
) -> Similarity:
    """Return the similarity from source to target with the smallest squared distances (Umeyama 1991, Eq. 40-42).

    Without `scale` it is a rigid motion. It is never a reflection. Works in float64; a batch of one is broadcast. If
    all points lie on a line, the rotation about this line is arbitrary. Raise LandmarkError with the row if points are
    not finite or all equal.
    """
    source, target = torch.broadcast_tensors(source.double(), target.double())
    middle, aim = source.mean(1, keepdim=True), target.mean(1, keepdim=True)
    variance = (source - middle).square().sum((1, 2))
    usable = (variance > 0) & variance.isfinite() & target.isfinite().all(2).all(1)
    if not usable.all():
        row = int((~usable).nonzero()[0])
        raise LandmarkError(f"points {row} of {len(usable)} cannot be aligned: they are not finite or all equal")
    left, singular, right = torch.linalg.svd((target - aim).transpose(1, 2) @ (source - middle))
    sign = torch.ones_like(singular)
    sign[:, -1] = torch.linalg.det(left @ right).sign()
    rotation = (left * sign[:, None]) @ right
    factor = (singular * sign).sum(1) / variance if scale else torch.ones_like(variance)
    shift = aim[:, 0] - factor[:, None] * (rotation @ middle.transpose(1, 2))[..., 0]
    return Similarity(factor, rotation, shift)


def align(
    source: Float[Tensor, "_batch points dimensions"],
    target: Float[Tensor, "_targets points dimensions"],
    scale: bool = True,
) -> Float[Tensor, "_aligned points dimensions"]:
    """Return the source points after alignment with the target by `similarity`."""
    return similarity(source, target, scale).apply(source)
