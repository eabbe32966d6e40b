"""Losses of the Siamese reconstruction of Luo et al. 2019.

The paper's equations are not public. WPDC and VDC are those of Zhu et al. 2016 (3DDFA), as the same laboratory's 2DASL
uses them; contrastive and identity loss are ours, after the paper's abstract:
`L = L_param + w_c [y d^2 + (1 - y) max(0, m - d)^2] + w_i |f_1 - f_2|^2 / F`, the last for pairs of one
person and F features.
WPDC and VDC are computed in the face's precision (32 bits), also where a training runs in 16. Of an empty batch every
loss is 0.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from facenb.fitting.posed import PosedModel
from facenb.losses.common import check_alike, mean
from facenb.networks.precision import full_precision


def wpdc_weights(
    predicted: Float[Tensor, "batch coefficients"], target: Float[Tensor, "batch coefficients"], face: PosedModel
) -> Float[Tensor, "batch coefficients"]:
    """How far the points of `face` move in the picture if one coefficient alone is as wrong as predicted, in pixels.

    `w_i = |V(p^d(i)) - V(p^g)|`, where p^d(i) has its i-th coefficient from the prediction and all others from the
    target. V is linear in each coefficient, so nothing has to be moved. Both vectors are whitened. Raises ValueError as
    `wpdc`.
    """
    predicted, target = _checked(predicted, target, face)
    with full_precision(target):
        return _weights(predicted, target, face)


def _weights(predicted: Tensor, target: Tensor, face: PosedModel) -> Tensor:
    truth = face.flat(target)
    parts = face.layout.split(truth)
    shape, turn = face.shape(parts), parts["pose"].unflatten(1, (3, 4))[:, :, :3]
    length = shape.square().sum(1).sqrt()  # (B, 3): a step of the matrix moves every point by its own coordinate
    shift = length.new_full((len(length), 1), len(face.mean) ** 0.5)
    weights = {"pose": torch.cat([length, shift], 1).repeat(1, 3)}
    metric = turn.mT @ turn  # of what the pose does to a displacement
    for name in ("identity", "expression"):
        basis = getattr(face, f"{name}_basis")
        spread = basis.mT @ basis  # (K, 3, 3)
        weights[name] = torch.einsum("bij,kij->bk", metric, spread).clamp_min(0).sqrt()
    return face.layout.join(weights) * (face.deviation * (predicted - target)).abs()


def wpdc(
    predicted: Float[Tensor, "batch coefficients"], target: Float[Tensor, "batch coefficients"], face: PosedModel
) -> Float[Tensor, ""]:
    """Weighted parameter distance cost, `sum_i w_i (p_i - p^g_i)^2`, the mean over pictures (Zhu et al. 2016).

    w as `wpdc_weights` gives it, divided by a picture's largest and taken as constant: what does most harm in the
    picture is learned first. Both vectors are whitened. Raises ValueError for vectors of another layout than `face`'s,
    or of different shapes.
    """
    predicted, target = _checked(predicted, target, face)
    with torch.no_grad(), full_precision(target):
        weights = _weights(predicted, target, face)
        weights = weights / weights.amax(1, keepdim=True).clamp_min(1e-12)
    return mean((weights * (predicted - target).square()).sum(1))


def vdc(
    predicted: Float[Tensor, "batch coefficients"], target: Float[Tensor, "batch coefficients"], face: PosedModel
) -> Float[Tensor, ""]:
    """Vertex distance cost in pixels^2: squared distance of `face`'s points, V(p) to V(p^g), mean (Zhu et al. 2016).

    Depth counts as u and v do. Both vectors are whitened. Raises ValueError as `wpdc`.
    """
    predicted, target = _checked(predicted, target, face)
    with full_precision(predicted):
        return mean((face(face.flat(predicted)) - face(face.flat(target))).square().sum(2))


def contrastive_loss(
    first: Float[Tensor, "pairs codes"], second: Float[Tensor, "pairs codes"], same: Bool[Tensor, " pairs"],
    margin: float,
) -> Float[Tensor, ""]:  # fmt: skip
    """`y d^2 + (1 - y) max(0, m - d)^2`, the mean over pairs, d the Euclidean distance (Hadsell et al. 2006).

    Pairs of one person (y = 1) are pulled together, others pushed apart until they are `margin` apart. The gradient is
    finite where two codes are alike. Raises ValueError for a margin that is not positive or shapes that differ.
    """
    if not margin > 0:
        raise ValueError(f"the margin is {margin}; a distance that people are to keep must be positive")
    _check_pairs(first, second, same)
    square = (first - second).square().sum(1)
    distance = square.clamp_min(1e-12).sqrt()
    return mean(torch.where(same, square, (margin - distance).clamp_min(0).square()))


def feature_identity_loss(
    first: Float[Tensor, "pairs features"], second: Float[Tensor, "pairs features"], same: Bool[Tensor, " pairs"]
) -> Float[Tensor, ""]:
    """`|f_1 - f_2|^2` of pairs of one person, mean over those and over the features; 0 where there are none.

    A mean over features, so that the weight means the same for encoders of any width. ValueError for other shapes.
    """
    _check_pairs(first, second, same)
    square = (first - second).square().mean(1)
    return mean(torch.where(same, square, torch.zeros_like(square)), same)


def _checked(predicted: Tensor, target: Tensor, face: PosedModel) -> tuple[Tensor, Tensor]:
    """Both in the face's precision."""
    face.layout.check(predicted, "the prediction")
    face.layout.check(target, "the target")
    check_alike(("predicted", "target"), predicted, target)
    return predicted.to(face.mean.dtype), target.to(face.mean.dtype)


def _check_pairs(first: Tensor, second: Tensor, same: Tensor) -> None:
    if first.shape != second.shape or same.shape != first.shape[:1]:
        shapes = [tuple(one.shape) for one in (first, second, same)]
        raise ValueError(f"first {shapes[0]}, second {shapes[1]} and same {shapes[2]} are not of the same pairs")
