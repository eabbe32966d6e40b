"""What the losses of all papers share."""

from jaxtyping import Bool, Float
from torch import Tensor


def mean(costs: Float[Tensor, "..."], counted: Bool[Tensor, "..."] | None = None) -> Float[Tensor, ""]:
    """The mean; 0 where there is nothing to take it of, which torch's mean makes NaN. `counted`: of those alone.

    What is not counted must be 0 in `costs`. A loss of nothing is 0, so that a batch without a pair, a target or a
    pixel of skin teaches nothing, rather than spoil every weight.
    """
    if counted is not None:
        return costs.sum() / counted.sum().clamp_min(1)
    return costs.mean() if costs.numel() else costs.sum()


def check_alike(names: tuple[str, str], first: Tensor, second: Tensor) -> None:
    """Raise ValueError where two shapes differ: broadcasting would give a number, and a wrong one."""
    if first.shape != second.shape:
        raise ValueError(f"{names[0]} {tuple(first.shape)} and {names[1]} {tuple(second.shape)} differ in shape")
