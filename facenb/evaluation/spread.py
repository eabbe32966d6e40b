"""Spread of codes within people and between people."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


def within_and_between(
    codes: Float[Tensor, "pictures features"], person: Int[Tensor, " pictures"]
) -> tuple[Float[Tensor, " people"], Float[Tensor, "people features"], Float[Tensor, " people"]]:
    """Return variance, mean and number of images of each person with two images or more, in order of their numbers.

    The variance is the squared distance from the person's own mean, summed over the features and unbiased. People with
    one image have no spread and are left out. Raise ValueError where nobody has two, or for codes that are not finite.
    """
    if not codes.isfinite().all():
        raise ValueError("the codes are not finite; leave out images without a code, and count them")
    who, images = person.unique(return_inverse=True, return_counts=True)[1:]
    several = images[who] > 1
    if not several.any():
        raise ValueError(f"none of the {len(images)} people has two images: there is no spread")
    who, values = who[several].unique(return_inverse=True)[1], codes[several].double()
    count = torch.bincount(who).double()
    mean = torch.zeros(len(count), values.shape[1], dtype=torch.float64).index_add_(0, who, values) / count[:, None]
    square = torch.zeros_like(count).index_add_(0, who, (values - mean[who]).square().sum(1))
    return square / (count - 1), mean, count


def between_to_within(
    codes: Float[Tensor, "pictures features"], person: Int[Tensor, " pictures"]
) -> tuple[Callable[[np.ndarray], np.ndarray], int]:
    """Return the ratio of distances (rms) between two people's images and one person's, for `intervals.bootstrap`.

    Returns a statistic of weights (rows, people) and the number of people: sqrt(1 + variance between people / variance
    within). The part of the variance of means that comes from few images is subtracted, so codes that know nothing of
    people give 1. Raise ValueError as `within_and_between`.
    """
    within, mean, count = (array.numpy() for array in within_and_between(codes, person))

    def statistic(weights: np.ndarray) -> np.ndarray:
        share = weights / weights.sum(1, keepdims=True)
        spread = share @ (mean**2).sum(1) - ((share @ mean) ** 2).sum(1)  # of the people's means
        chance = share @ (within / count)
        return np.sqrt(np.clip(1 + (spread - chance) / (share @ within), 0, None))

    return statistic, len(within)
