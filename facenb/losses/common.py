"""What the losses of all papers share."""

from jaxtyping import Bool, Float
from torch import Tensor


def mean(costs: Float[Tensor, "..."], counted: Bool[Tensor, "..."] | None = None) -> Float[Tensor, ""]:
    """Return the mean, or the mean over `counted` entries; the others must be 0 in `costs`.

    The mean of nothing is 0, not NaN as in torch, so that a batch without a pair or a skin pixel changes no weight.
    """
    if counted is not None:
        return costs.sum() / counted.sum().clamp_min(1)
    return costs.mean() if costs.numel() else costs.sum()
