"""Claims and their verdicts: the size of an effect, its interval, and whether that decides the claim.

Intervals and p-values come from `intervals`: over people, and over seeds where a method was trained several times.
Where several claims are judged together, `holm` and `decide` correct for their number.
"""

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from facenb.evaluation import intervals
from facenb.evaluation.intervals import Effect, Sample, bootstrap, draw, draw_weights, with_seeds
from facenb.evaluation.recognition import CURVE_MEASURES, Verification, roc


def _numpy(values: ArrayLike) -> np.ndarray:
    return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)


def _people(subject: ArrayLike) -> tuple[np.ndarray, int]:
    """Return each row's person as a number from 0, and how many people there are."""
    names, index = np.unique(_numpy(subject), return_inverse=True)
    return index, len(names)


def mean_of(values: ArrayLike, subject: ArrayLike, draws: int = 5000, seed: int = 0) -> Effect:
    """Return the mean over the people's own means with its interval; every person counts the same.

    `values` (images), or (seeds, images) of a method trained several times: then trainings are resampled as well as
    people (`with_seeds`), and the interval is for new people *and* new trainings. Raise ValueError for values that are
    not finite, or of another number than the subjects.
    """
    values = np.atleast_2d(_numpy(values).astype(np.float64))
    if not np.isfinite(values).all():
        row = int(np.argwhere(~np.isfinite(values))[0, -1])
        raise ValueError(f"a value of row {row} is not finite; what is missing must be counted, not left in the mean")
    index, people = _people(subject)
    if values.shape[1] != len(index):
        raise ValueError(f"there are {values.shape[1]} values, but the subjects of {len(index)} images")
    count = np.bincount(index, minlength=people)
    means = np.stack([np.bincount(index, row, people) / count for row in values])
    over_seeds = means.mean(0)
    effect = bootstrap(lambda weights: weights @ over_seeds / weights.sum(1), people, draws, seed)
    return effect if len(means) == 1 else with_seeds(effect, means.mean(1), seed)


def paired_difference(first: ArrayLike, second: ArrayLike, subject: ArrayLike, seed: int = 0) -> Effect:
    """Return first - second, image by image, as the mean over the people's own means (`mean_of`).

    Both hold the same images in the same order, (images) or (seeds, images). Several seeds are paired one by one, or
    all with the only one of a method without training. Raise ValueError for different images or seeds.
    """
    first, second = (np.atleast_2d(_numpy(values).astype(np.float64)) for values in (first, second))
    if first.shape[1] != second.shape[1] or (len(first) != len(second) and 1 not in (len(first), len(second))):
        raise ValueError(f"a paired difference needs the same seeds and images, got {first.shape} and {second.shape}")
    return mean_of(first - second, subject, seed=seed)


def bootstrap_pairs(
    statistic: Callable[[np.ndarray], np.ndarray],
    first_person: ArrayLike,
    second_person: ArrayLike,
    draws: int = 2000,
    seed: int = 0,
) -> Effect:
    """Return value and interval of a figure of pairs, by resampling the people they are made of.

    `statistic` takes weights (rows, pairs); the other two name the people of each pair. In a sample that holds person i
    w_i times, a pair of i alone counts w_i times, and a pair of i and j w_i w_j times (Owen 2007). That is
    right for what a person does to all their pairs, but counts the chance of a single pair three times where people are
    in few pairs, as in LFW. So the draws are shrunk towards the value until their variance is the one of dyadic data,
    `sum over people - sum over pairs` (Aronow, Samii, Assenova 2015), never below that of resampled pairs.
    """
    index, people = _people(np.concatenate([_numpy(first_person), _numpy(second_person)]))
    left, right = np.split(index, 2)
    single = left == right

    def of_people(weights: np.ndarray) -> np.ndarray:
        return statistic(np.where(single, weights[:, left], weights[:, left] * weights[:, right]))

    value, drawn, without = draw(of_people, people, len(left), draws, seed)
    both, unlike = (_variance_of_pairs(statistic, which, draws, seed) for which in (single | True, ~single))
    variance = np.nanvar(drawn)
    shrink = math.sqrt(min(1.0, max(variance - 2 * unlike, both) / variance)) if variance > 0 else 1.0
    return Effect.of(Sample.of(value, value + (drawn - value) * shrink, without), people)


def _variance_of_pairs(
    statistic: Callable[[np.ndarray], np.ndarray], which: np.ndarray, draws: int, seed: int
) -> float:
    """Return the variance of the statistic where the pairs of `which` are resampled and the others stay."""
    if which.sum() < 2:
        return 0.0
    random, rows = np.random.default_rng(seed + 1), max(1, intervals.CHUNK // len(which))
    values = []
    for start in range(0, draws, rows):
        weights = np.ones((min(rows, draws - start), len(which)))
        weights[:, which] = draw_weights(int(which.sum()), len(weights), random)
        values.append(statistic(weights))
    return float(np.nanvar(np.concatenate(values)))


def difference_of_scores(
    measure: str,
    first: Tensor,
    second: Tensor,
    same: Tensor,
    first_person: ArrayLike,
    second_person: ArrayLike,
    fold: Tensor,
    draws: int = 2000,
    seed: int = 0,
) -> Effect:
    """Return how much a measure of the curve is higher with the first scores than the second, as a fraction.

    `measure` is one of CURVE_MEASURES; the scores are of the same pairs. The figure is the mean over the folds as
    `verify` gives it; the interval is over people (`bootstrap_pairs`).
    """
    of = CURVE_MEASURES[measure]
    first, second, same = first.cpu(), second.cpu(), same.cpu()
    folds = [fold.cpu() == number for number in fold.unique().tolist()]

    def statistic(weights: np.ndarray) -> np.ndarray:
        weights = torch.from_numpy(weights)
        gains = [
            of(roc(first[fold], same[fold], weights[:, fold])) - of(roc(second[fold], same[fold], weights[:, fold]))
            for fold in folds
        ]
        return torch.stack(gains).mean(0).numpy()

    return bootstrap_pairs(statistic, first_person, second_person, draws, seed)


def difference_of_accuracy(
    first: Verification | Sequence[Verification],
    second: Verification | Sequence[Verification],
    first_person: ArrayLike,
    second_person: ArrayLike,
    draws: int = 2000,
    seed: int = 0,
) -> Effect:
    """Return how many more of the pairs the first method decides correctly than the second, as a fraction.

    The thresholds stay as `verify` chose them on other folds: what is resampled is the people they are used on. Every
    pair counts the same, so with folds of one size this is the difference of the folds' means. Methods trained several
    times give one verification per seed, paired one by one; then the seeds are resampled too (`with_seeds`).
    """
    firsts, seconds = ([x] if isinstance(x, Verification) else list(x) for x in (first, second))
    gains = np.stack(
        [a.right.double().numpy() - b.right.double().numpy() for a, b in zip(firsts, seconds, strict=True)]
    )
    gain = gains.mean(0)

    def statistic(weights: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return weights @ gain / weights.sum(1)

    effect = bootstrap_pairs(statistic, first_person, second_person, draws, seed)
    return effect if len(gains) == 1 else with_seeds(effect, gains.mean(1), seed)


def verdict(effect: Effect, at_least: float = 0.0) -> str:
    """Return whether "more than `at_least`" holds, does not hold, or is not decided by the effect's interval.

    It holds where the whole interval lies above, and does not where none of it does. An interval that is NaN decides
    nothing. A claim of "less than" is one of "more than" about the opposite difference.
    """
    if effect.low > at_least:
        return "holds"
    return "does not hold" if effect.high <= at_least else "not decided"


def holm(p_values: ArrayLike) -> list[float]:
    """Return the p-values corrected for their number (Holm 1979).

    If all below 0.05 are believed, at most one in twenty such families contains an error. The k-th smallest of m is
    multiplied by m - k + 1; it is never less than the one before, and at most 1. A claim without a p-value (NaN) was
    asked too: it counts among the m, and stays NaN.
    """
    values = np.asarray(p_values, dtype=np.float64)
    adjusted, so_far = np.full(len(values), math.nan), 0.0
    finite = np.flatnonzero(~np.isnan(values))
    for rank, row in enumerate(finite[np.argsort(values[finite], kind="stable")]):
        so_far = max(so_far, min(1.0, (len(values) - rank) * values[row]))
        adjusted[row] = so_far
    return adjusted.tolist()


def decide(value: float, at_least: float, adjusted: float, level: float = 0.95) -> str:
    """Return the verdict on "more than `at_least`" after `holm`: never stronger than the interval's own.

    `value` is the effect, `adjusted` its corrected p. Without a p (NaN) nothing is decided.
    """
    if not 1 - adjusted > level:
        return "not decided"
    return "holds" if value > at_least else "does not hold"


@dataclass(frozen=True)
class Claim:
    """A statement of the paper, the effect that was measured for it, and how large it has to be."""

    name: str  # as the report lists it, for instance "L2"
    statement: str
    effect: Effect
    unit: str
    at_least: float = 0.0

    @property
    def verdict(self) -> str:
        """`verdict` of the effect, by itself: not corrected for the number of claims."""
        return verdict(self.effect, self.at_least)

    @property
    def p_value(self) -> float:
        """`Effect.p_value` of the claim."""
        return self.effect.p_value(self.at_least)

    @property
    def measured(self) -> str:
        """The effect in words: value, interval, how many people, and the required size."""
        effect, unit = self.effect, f" {self.unit}" if self.unit else ""
        over = f"{effect.subjects} {effect.drawn}"
        ends = f"{effect.low:.3g} to {effect.high:.3g}{unit}"
        seeds = f" and {effect.seeds} seeds" if effect.seeds > 1 else ""
        return (
            f"{effect.value:.3g}{unit}, {100 * effect.level:g} % interval {ends} over {over}{seeds}; "
            f"asked for: more than {self.at_least:g}{unit}"
        )

    @classmethod
    def of_all(cls, name: str, statement: str, claims: Sequence["Claim"]) -> "Claim":
        """Return the claim that requires all of the claims, represented by the one that is least likely to hold.

        So it holds where every claim does, and does not hold where one does not. A rejection at 5 % needs no correction
        for the number of claims (intersection-union test, Berger 1982).
        """

        def support(claim: "Claim") -> float:
            """Return one minus the one-sided p of the claim; a half without draws."""
            p = 1.0 if math.isnan(claim.p_value) else claim.p_value
            return 1 - p / 2 if claim.effect.value > claim.at_least else p / 2

        least = min(claims, key=support)
        return cls(name, f"{statement} (decided by the weaker: {least.name})", least.effect, least.unit, least.at_least)

    def __repr__(self) -> str:
        return f"{self.name} {self.verdict}: {self.statement}\n{self.measured}"

    def _repr_html_(self) -> str:
        colour = {"holds": "#007A5A", "does not hold": "#B04A00", "not decided": "#666666"}[self.verdict]
        return (
            f'<div style="border-left: 4px solid {colour}; padding: 0.3em 0.8em">'
            f'<b>{html.escape(self.name)}</b> <b style="color: {colour}">{self.verdict}</b>: '
            f"{html.escape(self.statement)}<br><small>{html.escape(self.measured)}</small></div>"
        )
