"""Compare arms on the same test people: paired effects, with intervals over people, and over seeds if several.

`plain` is plain regression and `other` is another arm. Both have one entry for each seed.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from facenb.evaluation.claims import bootstrap_seeds, mean_of, paired_difference
from facenb.evaluation.intervals import Effect
from facenb.evaluation.landmarks import yaw_bin
from facenb.evaluation.spread import ratio_of
from facenb.methods.luo19.measures import Measured

METRICS = ("NME 0-30", "NME 30-60", "NME 60-90", "NME mean of bins")
LARGE_YAW = "more at large yaw"
FALLS = {  # first: NME of plain regression in the three bins of yaw (draws, 3); second: NME of another arm
    **{metric: lambda first, second, k=k: 1 - second[:, k] / first[:, k] for k, metric in enumerate(METRICS[:3])},
    METRICS[3]: lambda first, second: 1 - second.mean(1) / first.mean(1),
    LARGE_YAW: lambda first, second: second[:, 0] / first[:, 0] - second[:, 2] / first[:, 2],
}
Seeds = Sequence[Measured]


def spread(arm: Seeds, name: str) -> Effect:
    """Return the mean spread within a person: `name` is "spread" (deviations) or "shapes" (mm)."""
    values = torch.stack([getattr(seed, name) for seed in arm])
    return mean_of(values, np.arange(values.shape[1]))


def spread_less(plain: Seeds, other: Seeds, name: str) -> Effect:
    """Return by how much the mean spread of plain regression is larger (see `spread`)."""
    first, second = (torch.stack([getattr(seed, name) for seed in arm]) for arm in (plain, other))
    return paired_difference(first, second, np.arange(first.shape[1]))


def ratio(arm: Seeds) -> Effect:
    """Return the ratio of between to within."""
    return bootstrap_seeds([ratio_of(*seed.people) for seed in arm], len(arm[0].within))


def ratio_more(plain: Seeds, other: Seeds) -> Effect:
    """Return by how much the ratio of between to within is higher than plain regression's."""

    def gain(first: Measured, second: Measured) -> Callable[[np.ndarray], np.ndarray]:
        before, after = ratio_of(*first.people), ratio_of(*second.people)
        return lambda weights: after(weights) - before(weights)

    return bootstrap_seeds([gain(*pair) for pair in zip(plain, other, strict=True)], len(plain[0].within))


def nme_falls(plain: Seeds, other: Seeds, labels: str, yaw: Tensor, faces: Tensor) -> dict[str, Effect]:
    """Return, for each key of FALLS, by how many % the NME is lower than plain regression's.

    The last one is the difference, in points, of the falls at 60-90 and at 0-30 degrees. `yaw` (radians) and `faces`
    (the person) have shape (images).
    """
    pairs = [(first.nme[labels], second.nme[labels]) for first, second in zip(plain, other, strict=True)]
    seen = ~torch.stack([error.isnan() for pair in pairs for error in pair]).any(0)
    who = np.unique(faces[seen].numpy(), return_inverse=True)[1]
    cell = 3 * who + yaw_bin(yaw[seen]).numpy()  # a person's images in a bin

    def sums(values: Tensor) -> np.ndarray:
        """Return the sum over each cell, shape (people, 3)."""
        return np.bincount(cell, values[seen].double().numpy(), 3 * who.max() + 3).reshape(-1, 3)

    count, totals = sums(torch.ones_like(yaw)), [(sums(first), sums(second)) for first, second in pairs]

    def fall(measure: Callable, both: tuple[np.ndarray, np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
        def statistic(weights: np.ndarray) -> np.ndarray:
            with np.errstate(invalid="ignore"):
                return 100 * measure(*(weights @ total / (weights @ count) for total in both))

        return statistic

    return {
        name: bootstrap_seeds([fall(measure, both) for both in totals], len(count)) for name, measure in FALLS.items()
    }
