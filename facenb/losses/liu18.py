"""The losses of Liu et al. 2018, one function per equation, symbols as in the paper."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from facenb.losses.common import mean


def coefficient_loss(
    predicted: Float[Tensor, "batch codes"], target: Float[Tensor, "batch codes"]
) -> Float[Tensor, ""]:
    """Return the mean squared difference of codes: the Euclidean loss of phase I.

    The mean over dimensions gives a long code the same weight as a short one. The paper does not print the factor of
    this loss.
    """
    return mean((predicted - target).square())


def shape_loss(
    predicted: Float[Tensor, "batch vertices 3"], target: Float[Tensor, "batch vertices 3"]
) -> Float[Tensor, ""]:
    """Return L_R in mm^2: the mean squared distance of vertices over images and vertices."""
    return 3 * functional.mse_loss(predicted, target)  # one pass over large tensors


def joint_loss(
    reconstruction: Float[Tensor, ""], identification: Float[Tensor, ""], weight: float
) -> Float[Tensor, ""]:
    """Return L = lambda_R L_R + L_C of phase III; `weight` is lambda_R: in the paper first 0.5, then 1."""
    return weight * reconstruction + identification
