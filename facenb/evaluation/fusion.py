"""Fuse two scores of the same pairs: shape and texture (Liu et al. 2018, section 4.2)."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facenb.evaluation.recognition import (
    CURVE_MEASURES,
    ROC,
    Verification,
    area_under_roc,
    verify,
    verify_by_fold,
)

STEPS = 20  # of the weight, from 0 to 1


def fuse(
    first: Float[Tensor, "*scores"], second: Float[Tensor, "*scores"], weight: float = 0.5
) -> Float[Tensor, "*scores"]:
    """Return `(1 - weight) first + weight second`. The default sorts pairs in the same order as the paper's sum.

    Both scores should be of one kind (cosines). A score ten times as large as the other would decide alone.
    """
    return (1 - weight) * first + weight * second


def best_weight(first: Float[Tensor, " pairs"], second: Float[Tensor, " pairs"], same: Bool[Tensor, " pairs"]) -> float:
    """Return the weight of the second score, in steps of a twentieth, with the largest area under the curve of `fuse`.

    If several weights are equally good, return the middle one. Do not use test pairs here.
    """
    areas = torch.tensor([area_under_roc(fuse(first, second, step / STEPS), same) for step in range(STEPS + 1)])
    best = (areas == areas.max()).nonzero()[:, 0]
    return int(best[(len(best) - 1) // 2]) / STEPS


def verify_fused(
    first: Float[Tensor, " pairs"],
    second: Float[Tensor, " pairs"],
    same: Bool[Tensor, " pairs"],
    fold: Int[Tensor, " pairs"],
    weigh: bool = False,
    measures: Mapping[str, Callable[[ROC], Tensor]] = CURVE_MEASURES,
) -> Verification:
    """Run `verify` on the sum of two scores. With `weigh`, learn each fold's weight on all other folds."""
    if not weigh:
        return verify(fuse(first, second), same, fold, measures)

    def scores_for(others: Bool[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
        return fuse(first, second, best_weight(first[others], second[others], same[others]))

    return verify_by_fold(scores_for, same, fold, measures)
