"""How far what is said of one person's pictures lies apart, and how far what is said of people does."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

Parts = tuple[Float[Tensor, " people"], Float[Tensor, "people features"], Float[Tensor, " people"]]


def within_and_between(codes: Float[Tensor, "pictures features"], person: Int[Tensor, " pictures"]) -> Parts:
    """Of each person with two pictures or more, in the order of their numbers: variance, mean, number of pictures.

    The variance is the squared distance from the person's own mean, summed over the features and unbiased. People of
    one picture are left out: they have no spread. Raises ValueError where nobody has two, or for codes that are not
    finite or of other pictures.
    """
    if len(codes) != len(person):
        raise ValueError(f"there are {len(codes)} codes, and the people of {len(person)} pictures")
    if not codes.isfinite().all():
        raise ValueError("the codes are not finite; leave out pictures of which nothing can be said, and count them")
    who, pictures = person.unique(return_inverse=True, return_counts=True)[1:]
    several = pictures[who] > 1
    if not several.any():
        raise ValueError(f"none of the {len(pictures)} people has two pictures: there is no spread")
    who, values = who[several].unique(return_inverse=True)[1], codes[several].double()
    count = torch.bincount(who).double()
    mean = torch.zeros(len(count), values.shape[1], dtype=torch.float64).index_add_(0, who, values) / count[:, None]
    square = torch.zeros_like(count).index_add_(0, who, (values - mean[who]).square().sum(1))
    return square / (count - 1), mean, count


def between_to_within(
    codes: Float[Tensor, "pictures features"], person: Int[Tensor, " pictures"]
) -> tuple[Callable[[np.ndarray], np.ndarray], int]:
    """Distance (rms) between pictures of two people over that between two of one person, for `intervals.bootstrap`.

    Comes as a statistic of weights (rows, people) and the number of people: sqrt(1 + variance between people / variance
    within). What chance adds to the means of few pictures is taken off, so codes that know nothing of people give 1.
    Raises ValueError as `within_and_between`.
    """
    within, mean, count = (part.numpy() for part in within_and_between(codes, person))

    def statistic(weights: np.ndarray) -> np.ndarray:
        share = weights / weights.sum(1, keepdims=True)
        spread = share @ (mean**2).sum(1) - ((share @ mean) ** 2).sum(1)  # of the people's means
        chance = share @ (within / count)
        return np.sqrt(np.clip(1 + (spread - chance) / (share @ within), 0, None))

    return statistic, len(within)
