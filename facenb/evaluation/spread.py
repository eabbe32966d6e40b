"""Compute the variance of codes within one person and between people."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


def within_and_between(
    codes: Float[Tensor, "pictures features"], person: Int[Tensor, " pictures"]
) -> tuple[Float[Tensor, " people"], Float[Tensor, "people features"], Float[Tensor, " people"]]:
    """Return the variance, mean and number of images of each person with at least two images, sorted by person.

    The variance is the unbiased mean of the squared distance from the person's mean, summed over the features. People
    with one image are left out. Raise ValueError if nobody has two images, or if a code is not finite.
    """
    if not codes.isfinite().all():
        raise ValueError("the codes are not finite; leave out images without a code, and count them")
    who, images = person.unique(return_inverse=True, return_counts=True)[1:]
    several = images[who] > 1
    if not several.any():
        raise ValueError(f"none of the {len(images)} people has two images; a spread needs two or more")
    who, values = who[several].unique(return_inverse=True)[1], codes[several].double()
    count = torch.bincount(who).double()
    mean = torch.zeros(len(count), values.shape[1], dtype=torch.float64).index_add_(0, who, values) / count[:, None]
    square = torch.zeros_like(count).index_add_(0, who, (values - mean[who]).square().sum(1))
    return square / (count - 1), mean, count


def ratio_of(
    within: Float[Tensor, " people"], mean: Float[Tensor, "people features"], count: Float[Tensor, " people"]
) -> Callable[[np.ndarray], np.ndarray]:
    """Return the ratio of between to within as a statistic for `intervals.bootstrap`, from `within_and_between`.

    The statistic is the rms distance between images of two people, divided by the rms distance within one person. It
    equals sqrt(1 + variance between people / variance within a person). Means of few images differ by chance, and this
    part of the variance is subtracted. So codes without information about identity give 1. The statistic takes weights
    (rows, people).
    """
    within, mean, count = (array.double().numpy() for array in (within, mean, count))

    def statistic(weights: np.ndarray) -> np.ndarray:
        share = weights / weights.sum(1, keepdims=True)
        spread = share @ (mean**2).sum(1) - ((share @ mean) ** 2).sum(1)  # variance of the people's means
        chance = share @ (within / count)
        return np.sqrt(np.clip(1 + (spread - chance) / (share @ within), 0, None))

    return statistic
