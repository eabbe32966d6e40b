"""Claims and their verdicts: how large an effect is, between which bounds, and whether that decides the claim.

What is drawn again and again is people, never pictures: pictures of one person are alike, and a claim is about people
not seen yet. Intervals are bias-corrected and accelerated (BCa, Efron 1987), their levels widened for small numbers of
people as Student's t is wider than the normal distribution (Hesterberg 2015); both vanish as the number grows.
"""

import html
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri, stdtrit
from torch import Tensor

from facenb.evaluation.recognition import CURVE_MEASURES, Verification, roc

CHUNK = 2**22  # weights held at a time


@dataclass(frozen=True)
class Effect:
    """A measured quantity and the interval it lies in."""

    value: float
    low: float
    high: float
    subjects: int  # people behind it
    level: float = 0.95

    def __repr__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}] ({100 * self.level:g} %, {self.subjects} people)"

    def percent(self) -> "Effect":
        """The same, of fractions, in per cent."""
        return replace(self, value=100 * self.value, low=100 * self.low, high=100 * self.high)


class _Sample(NamedTuple):
    """The value itself, its draws, and its values with one person left out."""

    value: float
    draws: np.ndarray
    without: np.ndarray


def _array(name: str, values: ArrayLike) -> np.ndarray:
    array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"{name} must be one value a picture (or pair), got shape {array.shape}")
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array))[0])
        raise ValueError(f"{name}, row {row}, is {array[row]}; what is missing must be counted, not left in the mean")
    return array


def _people(subject: ArrayLike, rows: int) -> tuple[np.ndarray, int]:
    """Each row's person as a number from 0, and how many people there are."""
    labels = np.asarray(subject.cpu() if isinstance(subject, Tensor) else subject)
    if labels.shape != (rows,):
        raise ValueError(f"there are {rows} values, but the subjects have shape {labels.shape}")
    names, index = np.unique(labels, return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"an interval over people needs two or more, there is {len(names)}")
    return index, len(names)


def draw_weights(people: int, draws: int, random: np.random.Generator) -> np.ndarray:
    """How often each person is in a sample of as many, drawn with replacement: (draws, people)."""
    drawn = random.integers(people, size=(draws, people))
    drawn += people * np.arange(draws)[:, None]
    return np.bincount(drawn.ravel(), minlength=draws * people).reshape(draws, people).astype(np.float64)


def _sample(statistic: Callable[[np.ndarray], np.ndarray], people: int, width: int, draws: int, seed: int) -> _Sample:
    """The statistic of everybody, of `draws` samples, and without each person; `width`: weights it makes of a draw."""
    if draws < 100:
        raise ValueError(f"{draws} draws say nothing about the ends of an interval; give 100 or more")
    random = np.random.default_rng(seed)
    rows = max(1, CHUNK // max(width, people))
    drawn = [statistic(draw_weights(people, min(rows, draws - start), random)) for start in range(0, draws, rows)]
    everyone = np.arange(people)
    left = [  # the jackknife, by weights as well
        statistic((everyone[start : start + rows, None] != everyone).astype(np.float64))
        for start in range(0, people, rows)
    ]
    value = float(statistic(np.ones((1, people)))[0])
    return _Sample(value, np.concatenate(drawn), np.concatenate(left))


def _interval(sample: _Sample, level: float) -> tuple[float, float]:
    """The BCa interval of a sample, with levels widened for few people; draws without a value (NaN) are left out."""
    if not 0 < level < 1:
        raise ValueError(f"a level lies between 0 and 1, not at {level}")
    draws = np.sort(sample.draws[np.isfinite(sample.draws)])
    without = sample.without[np.isfinite(sample.without)]
    people = len(sample.without)
    if len(draws) < len(sample.draws) / 2 or not math.isfinite(sample.value):
        return math.nan, math.nan
    below = ((draws < sample.value).mean() + (draws <= sample.value).mean()) / 2
    bias = ndtri(np.clip(below, 0.5 / len(draws), 1 - 0.5 / len(draws)))
    influence = without.mean() - without
    spread = (influence**2).sum() ** 1.5
    # Differences that are rounding only have no skew to speak of.
    rounding = 1e-12 * max(1.0, abs(sample.value))
    acceleration = (influence**3).sum() / (6 * spread) if np.abs(influence).max() > rounding else 0.0
    ends = []
    for tail in ((1 - level) / 2, (1 + level) / 2):
        wider = math.sqrt(people / (people - 1)) * stdtrit(people - 1, tail)
        place = bias + (bias + wider) / (1 - acceleration * (bias + wider))
        ends.append(float(np.quantile(draws, ndtr(place))))
    return ends[0], ends[1]


def bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray], people: int, draws: int = 5000, seed: int = 0, level: float = 0.95
) -> Effect:
    """Value and interval of any figure that can be computed with a weight for each person.

    `statistic` takes weights (rows, people), how often each person counts, and gives a value a row (NaN where a row
    leaves nothing to compute); ones give the figure itself. Raises ValueError for fewer than two people or 100 draws.
    """
    if people < 2:
        raise ValueError(f"an interval over people needs two or more, there is {people}")
    sample = _sample(statistic, people, people, draws, seed)
    return Effect(sample.value, *_interval(sample, level), people, level)


def mean_of(values: ArrayLike, subject: ArrayLike, draws: int = 5000, seed: int = 0, level: float = 0.95) -> Effect:
    """Mean over the people's own means, with its interval; every person counts alike, however many pictures."""
    values = _array("values", values)
    index, people = _people(subject, len(values))
    own = np.bincount(index, values, people) / np.bincount(index, minlength=people)
    return bootstrap(lambda weights: weights @ own / weights.sum(1), people, draws, seed, level)


def paired_difference(
    first: ArrayLike, second: ArrayLike, subject: ArrayLike, draws: int = 5000, seed: int = 0, level: float = 0.95
) -> Effect:
    """first - second, picture by picture, as the mean over the people's own means (`mean_of`).

    Both must be of the same pictures in the same order; several seeds of one method are averaged picture by picture
    first. Raises ValueError for arrays that do not fit, values that are not finite, or fewer than two people.
    """
    first, second = _array("first", first), _array("second", second)
    if len(first) != len(second):
        raise ValueError(f"a paired difference needs the same pictures in both, got {len(first)} and {len(second)}")
    return mean_of(first - second, subject, draws, seed, level)


def bootstrap_pairs(
    statistic: Callable[[np.ndarray], np.ndarray], one: ArrayLike, other: ArrayLike, draws: int = 2000, seed: int = 0,
    level: float = 0.95,
) -> Effect:  # fmt: skip
    """Value and interval of a figure of pairs, by drawing the people they are made of.

    `one` and `other` name the two people of each pair; `statistic` takes weights (rows, pairs). In a sample that holds
    person i w_i times, a pair of i alone counts w_i times, and a pair of i and j w_i w_j times (Owen 2007). That is
    right for what a person does to all pairs with it, but counts the chance of a single pair three times where people
    are in few pairs, as in LFW. So the draws are pulled towards the value until their variance is the one of dyadic
    data, `sum over people - sum over pairs` (Aronow, Samii, Assenova 2015), never below that of pairs drawn by
    themselves.
    Raises ValueError for names that do not fit, or fewer than two people.
    """
    one, other = (np.asarray(x.cpu() if isinstance(x, Tensor) else x) for x in (one, other))
    if one.shape != other.shape or one.ndim != 1:
        raise ValueError(f"each pair has two people, got names of shapes {one.shape} and {other.shape}")
    index, people = _people(np.concatenate([one, other]), 2 * len(one))
    left, right = index[: len(one)], index[len(one) :]
    single = left == right

    def of_people(weights: np.ndarray) -> np.ndarray:
        return statistic(np.where(single, weights[:, left], weights[:, left] * weights[:, right]))

    sample = _sample(of_people, people, len(one), draws, seed)
    both, unlike = (_variance_of_pairs(statistic, which, draws, seed) for which in (single | True, ~single))
    found = np.nanvar(sample.draws)
    pull = math.sqrt(min(1.0, max(found - 2 * unlike, both) / found)) if found > 0 else 1.0
    sample = sample._replace(draws=sample.value + (sample.draws - sample.value) * pull)
    return Effect(sample.value, *_interval(sample, level), people, level)


def _variance_of_pairs(statistic: Callable[[np.ndarray], np.ndarray], which: np.ndarray, draws: int, seed: int):
    """Variance of the statistic where the pairs of `which` are drawn by themselves and the others stay."""
    if which.sum() < 2:
        return 0.0
    random, rows = np.random.default_rng(seed + 1), max(1, CHUNK // len(which))
    values = []
    for start in range(0, draws, rows):
        weights = np.ones((min(rows, draws - start), len(which)))
        weights[:, which] = draw_weights(int(which.sum()), len(weights), random)
        values.append(statistic(weights))
    return float(np.nanvar(np.concatenate(values)))


def difference_of_scores(
    measure: str, first: Tensor, second: Tensor, same: Tensor, one: ArrayLike, other: ArrayLike,
    fold: Tensor | None = None, draws: int = 2000, seed: int = 0, level: float = 0.95,
) -> Effect:  # fmt: skip
    """How much higher a measure of the curve (100-EER, AUC, TAR-10%, TAR-1%) is with the first scores than the second.

    The scores are of the same pairs; a fraction comes back. With `fold`, the mean over the folds as `verify` gives it;
    without, of all pairs together. The interval is over people (`bootstrap_pairs`). Raises ValueError for an unknown
    measure, or what `roc` and `bootstrap_pairs` refuse.
    """
    if measure not in CURVE_MEASURES:
        raise ValueError(f"{measure!r} is no measure of the curve; there are {', '.join(CURVE_MEASURES)}")
    if not len(first) == len(second) == len(same):
        raise ValueError(f"each pair needs all three: {len(first)} scores, {len(second)} scores, {len(same)} kinds")
    if len(one) != len(same):
        raise ValueError(f"there are {len(same)} pairs, but the names of {len(one)}")
    of = CURVE_MEASURES[measure]
    first, second, same = first.cpu(), second.cpu(), same.cpu()
    parts = [slice(None)] if fold is None else [fold.cpu() == number for number in fold.unique().tolist()]

    def statistic(weights: np.ndarray) -> np.ndarray:
        weights = torch.from_numpy(weights)
        gains = [
            of(roc(first[part], same[part], weights[:, part])) - of(roc(second[part], same[part], weights[:, part]))
            for part in parts
        ]
        return torch.stack(gains).mean(0).numpy()

    return bootstrap_pairs(statistic, one, other, draws, seed, level)


def difference_of_accuracy(
    first: Verification, second: Verification, one: ArrayLike, other: ArrayLike, draws: int = 2000, seed: int = 0,
    level: float = 0.95,
) -> Effect:  # fmt: skip
    """How much more of the pairs the first method decides rightly than the second, as a fraction.

    The thresholds stay as `verify` chose them on other folds: what is drawn is the people they are used on. Every pair
    counts alike, so with folds of one size it is the difference of the folds' means.
    """
    if not len(first.right) == len(second.right) == len(one):
        counts = f"{len(first.right)} and {len(second.right)} pairs, and there are the names of {len(one)}"
        raise ValueError(f"the two were verified on {counts}; all must be of the same pairs")
    gain = first.right.double().numpy() - second.right.double().numpy()

    def statistic(weights: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return weights @ gain / weights.sum(1)

    return bootstrap_pairs(statistic, one, other, draws, seed, level)


def verdict(effect: Effect, at_least: float = 0.0) -> str:
    """Whether "more than `at_least`" holds, does not hold, or is not decided by the effect's interval.

    It holds where the whole interval lies above, and does not where none of it does. An interval that is NaN decides
    nothing. A claim of "less than" is one of "more than" about the difference the other way round.
    """
    if effect.low > at_least:
        return "holds"
    return "does not hold" if effect.high <= at_least else "not decided"


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper, the effect that was measured for it, and how large it has to be."""

    name: str  # as the report lists it, for instance "L2"
    statement: str
    effect: Effect
    unit: str
    at_least: float = 0.0

    @property
    def verdict(self) -> str:
        """`verdict` of the effect."""
        return verdict(self.effect, self.at_least)

    @property
    def measured(self) -> str:
        """The effect in words: value, interval, people, and what was asked for."""
        effect, unit = self.effect, f" {self.unit}" if self.unit else ""
        ends = f"{effect.low:.3g} to {effect.high:.3g}{unit}"
        return (
            f"{effect.value:.3g}{unit}, {100 * effect.level:g} % interval {ends} over {effect.subjects} people; "
            f"asked for: more than {self.at_least:g}{unit}"
        )

    def __repr__(self) -> str:
        return f"{self.name} {self.verdict}: {self.statement}\n{self.measured}"

    def _repr_html_(self) -> str:
        colour = {"holds": "#007A5A", "does not hold": "#B04A00", "not decided": "#666666"}[self.verdict]
        return (
            f'<div style="border-left: 4px solid {colour}; padding: 0.3em 0.8em">'
            f'<b>{html.escape(self.name)}</b> <b style="color: {colour}">{self.verdict}</b>: '
            f"{html.escape(self.statement)}<br><small>{html.escape(self.measured)}</small></div>"
        )
