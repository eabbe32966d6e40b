"""The losses of Liu et al. 2018, one short pure function each, symbols as in the paper."""

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from facenb.losses.common import check_alike, mean


def coefficient_loss(
    predicted: Float[Tensor, "batch codes"],
    target: Float[Tensor, "batch codes"],
    counted: Bool[Tensor, " batch"] | None = None,
) -> Float[Tensor, ""]:
    """Squared difference of codes, the mean over pictures and dimensions: the Euclidean loss of phase I.

    A mean over dimensions, so that a long code weighs no more than a short one; the paper does not print its factor.
    `counted`: pictures that have a target; the mean is theirs alone, 0 where there is none. Raises ValueError for
    shapes that differ.
    """
    return mean(_squares(predicted, target, counted).mean(1), counted)


def shape_loss(
    predicted: Float[Tensor, "batch vertices 3"],
    target: Float[Tensor, "batch vertices 3"],
    counted: Bool[Tensor, " batch"] | None = None,
) -> Float[Tensor, ""]:
    """L_R in mm^2: squared Euclidean distance of vertices, the mean over pictures and vertices; `counted` as above."""
    if counted is None and predicted.shape == target.shape and predicted.numel():
        return 3 * functional.mse_loss(predicted, target)  # the same in one pass over what is large
    return mean(_squares(predicted, target, counted).sum(2).mean(1), counted)


def joint_loss(
    reconstruction: Float[Tensor, ""], identification: Float[Tensor, ""], weight: float
) -> Float[Tensor, ""]:
    """`L = lambda_R L_R + L_C` (phase III), with `weight` lambda_R: 0.5 in the paper, then 1.0."""
    return weight * reconstruction + identification


def _squares(predicted: Tensor, target: Tensor, counted: Tensor | None) -> Tensor:
    check_alike(("predicted", "target"), predicted, target)
    if counted is None:
        return (predicted - target).square()
    if counted.shape != predicted.shape[:1]:
        raise ValueError(f"counted {tuple(counted.shape)} for {len(predicted)} pictures")
    # Replaced before the difference is taken: a target that is not there may be NaN, and NaN times 0 is NaN.
    there = counted.view(-1, *[1] * (predicted.ndim - 1))
    return (predicted - target.where(there, predicted.detach())).square()
