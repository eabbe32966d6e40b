"""Losses of the Siamese reconstruction of Luo et al. 2019.

The paper's equations are not public. WPDC and VDC come from Zhu et al. 2016 (3DDFA); 2DASL, from the same laboratory as
Luo19, uses them too. We wrote the contrastive and the identity loss after the paper's abstract:
`L = L_param + w_c [y d^2 + (1 - y) max(0, m - d)^2] + w_i |f_1 - f_2|^2 / F`, where the last term is for pairs of one
person and F is the number of features. WPDC and VDC are computed in float32, even if the training uses 16 bits. Each
loss of an empty batch is 0.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from facenb.fitting.posed import PosedModel
from facenb.losses.common import mean


def wpdc_weights(
    predicted: Float[Tensor, "batch coefficients"], target: Float[Tensor, "batch coefficients"], face: PosedModel
) -> Float[Tensor, "batch coefficients"]:
    """Return for each coefficient how far its error alone moves the points of the face in the image, in pixels.

    `w_i = |V(p^d(i)) - V(p^g)|`, where p^d(i) is the target with its i-th coefficient taken from the prediction. V is
    linear in each coefficient, so we need not compute any points. Both vectors are whitened.
    """
    predicted, target = predicted.to(face.mean), target.to(face.mean)
    with torch.autocast(target.device.type, enabled=False):
        truth = face.flat(target)
        parts = face.layout.split(truth)
        shape, turn = face.shape(parts), parts["pose"].unflatten(1, (3, 4))[:, :, :3]
        length = shape.square().sum(1).sqrt()  # (batch, 3): norm of each coordinate over the points
        shift = length.new_full((len(length), 1), len(face.mean) ** 0.5)
        weights = {"pose": torch.cat([length, shift], 1).repeat(1, 3)}
        metric = turn.mT @ turn  # gives squared image lengths of displacements in mm
        for name in ("identity", "expression"):
            basis = getattr(face, f"{name}_basis")
            weights[name] = torch.einsum("bij,kij->bk", metric, basis.mT @ basis).clamp_min(0).sqrt()
        return face.layout.join(weights) * (face.deviation * (predicted - target)).abs()


def wpdc(
    predicted: Float[Tensor, "batch coefficients"], target: Float[Tensor, "batch coefficients"], face: PosedModel
) -> Float[Tensor, ""]:
    """Return the weighted parameter distance cost, `sum_i w_i (p_i - p^g_i)^2`, mean over images (Zhu et al. 2016).

    w is `wpdc_weights` divided by the largest weight of the image. No gradient flows through w. The coefficients that
    move the points most are learned first. Both vectors are whitened.
    """
    weights = wpdc_weights(predicted.detach(), target, face)
    weights = weights / weights.amax(1, keepdim=True).clamp_min(1e-12)
    with torch.autocast(target.device.type, enabled=False):
        return mean((weights * (predicted.to(weights) - target.to(weights)).square()).sum(1))


def vdc(
    predicted: Float[Tensor, "batch coefficients"], target: Float[Tensor, "batch coefficients"], face: PosedModel
) -> Float[Tensor, ""]:
    """Return the vertex distance cost in pixels^2: mean squared distance of V(p) and V(p^g) (Zhu et al. 2016).

    Depth has the same weight as u and v. Both vectors are whitened.
    """
    predicted, target = predicted.to(face.mean), target.to(face.mean)
    with torch.autocast(predicted.device.type, enabled=False):
        return mean((face(face.flat(predicted)) - face(face.flat(target))).square().sum(2))


def contrastive_loss(
    first: Float[Tensor, "pairs codes"],
    second: Float[Tensor, "pairs codes"],
    same: Bool[Tensor, " pairs"],
    margin: float,
) -> Float[Tensor, ""]:
    """Return `y d^2 + (1 - y) max(0, m - d)^2`, mean over pairs; d is the Euclidean distance (Hadsell et al. 2006).

    Codes of one person (y = 1) attract each other. Codes of two people repel each other up to a distance of `margin`.
    The gradient is finite even for two equal codes.
    """
    square = (first - second).square().sum(1)
    distance = square.clamp_min(1e-12).sqrt()
    return mean(torch.where(same, square, (margin - distance).clamp_min(0).square()))


def feature_identity_loss(
    first: Float[Tensor, "pairs features"], second: Float[Tensor, "pairs features"], same: Bool[Tensor, " pairs"]
) -> Float[Tensor, ""]:
    """Return `|f_1 - f_2|^2 / F` averaged over the pairs of one person; 0 if there are none.

    Because of the mean over features, a weight means the same for encoders of any width.
    """
    square = (first - second).square().mean(1)
    return mean(torch.where(same, square, 0.0), same)
