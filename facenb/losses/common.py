"""A function that the losses of all papers use."""

from jaxtyping import Bool, Float
from torch import Tensor


def mean(costs: Float[Tensor, "..."], counted: Bool[Tensor, "..."] | None = None) -> Float[Tensor, ""]:
    """Return the mean of `costs`, or the mean over the `counted` entries. All other entries of `costs` must be 0.

    The mean over no entries is 0, not NaN as in torch. So a batch without pairs or skin pixels does not change the
    network.
    """
    if counted is not None:
        return costs.sum() / counted.sum().clamp_min(1)
    return costs.mean() if costs.numel() else costs.sum()
