"""Claims and their verdicts: the size of an effect, its interval, and whether that decides the claim.

Intervals and p-values come from `intervals`. They cover new people, and also new seeds if a method was trained several
times. If several claims are judged together, `holm` and `decide` correct for their number.
"""

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from facenb.evaluation.intervals import Effect, Sample, bootstrap, resample, with_seeds
from facenb.evaluation.recognition import CURVE_MEASURES, roc


def _numpy(values: ArrayLike) -> np.ndarray:
    return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)


def _people(subject: ArrayLike) -> tuple[np.ndarray, int]:
    """Return each row's person as a number from 0, and how many people there are."""
    names, index = np.unique(_numpy(subject), return_inverse=True)
    return index, len(names)


def mean_of(values: ArrayLike, subject: ArrayLike, draws: int = 5000, seed: int = 0) -> Effect:
    """Return the mean over people of each person's mean value, with its interval. Every person has the same weight.

    `values` has shape (images), or (seeds, images) for a method that was trained several times. In the second case the
    interval covers new people *and* new trainings (`with_seeds`). `subject` has shape (images): the person in each.
    Raise ValueError if a value is not finite.
    """
    values = np.atleast_2d(_numpy(values).astype(np.float64))
    if not np.isfinite(values).all():
        row = int(np.argwhere(~np.isfinite(values))[0, -1])
        raise ValueError(f"the value in row {row} is not finite; remove missing values and report how many there are")
    index, people = _people(subject)
    count = np.bincount(index, minlength=people)
    means = np.stack([np.bincount(index, row, people) / count for row in values])
    over_seeds = means.mean(0)
    effect = bootstrap(lambda weights: weights @ over_seeds / weights.sum(1), people, draws, seed)
    return effect if len(means) == 1 else with_seeds(effect, means.mean(1), seed)


def bootstrap_seeds(statistics: Sequence[Callable[[np.ndarray], np.ndarray]], people: int) -> Effect:
    """Return the mean over seeds of a statistic with its interval. `statistics` holds one for each seed.

    Each takes weights (rows, people), as in `bootstrap`. With several seeds, the interval also covers new trainings.
    """
    effect = bootstrap(lambda weights: np.mean([of(weights) for of in statistics], 0), people)
    every = np.ones((1, people))
    return effect if len(statistics) == 1 else with_seeds(effect, [float(of(every)[0]) for of in statistics])


def paired_difference(first: ArrayLike, second: ArrayLike, subject: ArrayLike, seed: int = 0) -> Effect:
    """Return the mean of first - second, taken image by image, with its interval over people (`mean_of`).

    Both have shape (images) or (seeds, images), with the same images in the same order. Seed k of one is paired with
    seed k of the other. A method without training has one row, which is paired with every seed. Raise ValueError if the
    numbers of images or seeds do not match.
    """
    return mean_of(np.subtract(_numpy(first), _numpy(second), dtype=np.float64), subject, seed=seed)


def bootstrap_pairs(
    statistic: Callable[[np.ndarray], np.ndarray],
    first_person: ArrayLike,
    second_person: ArrayLike,
    draws: int = 2000,
    seed: int = 0,
) -> Effect:
    """Return a statistic of pairs of images, with an interval from resampling the people in these pairs.

    `statistic` takes weights (rows, pairs). The next two arguments give the two people of each pair. Suppose that
    person i occurs w_i times in a sample. Then a pair of two images of i has weight w_i, and a pair of i and j has
    weight w_i w_j (Owen 2007). This is right for effects that all pairs of a person share. But if each person is in few
    pairs, as in LFW, the noise of a single pair counts three times. So we shrink the draws towards the value. Then they
    have the variance for dyadic data, `sum over people - sum over pairs` (Aronow, Samii, Assenova 2015). We never
    shrink it below the variance from resampling pairs.
    """
    index, people = _people(np.concatenate([_numpy(first_person), _numpy(second_person)]))
    left, right = np.split(index, 2)
    single = left == right

    def of_people(weights: np.ndarray) -> np.ndarray:
        return statistic(np.where(single, weights[:, left], weights[:, left] * weights[:, right]))

    def variance_of(which: np.ndarray) -> float:
        """Return the variance of the statistic if only the pairs in `which` are resampled."""
        if which.sum() < 2:
            return 0.0

        def of_pairs(weights: np.ndarray) -> np.ndarray:
            every = np.ones((len(weights), len(which)))
            every[:, which] = weights
            return statistic(every)

        return float(np.nanvar(resample(of_pairs, int(which.sum()), len(which), draws, seed + 1)))

    sample = Sample.of(of_people, people, max(people, len(left)), draws, seed)
    variance = sample.draws.var()
    wanted = max(variance - 2 * variance_of(~single), variance_of(single | True))
    shrink = math.sqrt(min(1.0, wanted / variance)) if variance > 0 else 1.0
    return Effect.of(replace(sample, draws=sample.value + (sample.draws - sample.value) * shrink), people)


def mean_of_pairs(
    values: ArrayLike, first_person: ArrayLike, second_person: ArrayLike, draws: int = 2000, seed: int = 0
) -> Effect:
    """Return the mean of one value for each pair of images, with an interval over people (`bootstrap_pairs`).

    `values` has shape (pairs), or (seeds, pairs) for a method that was trained several times (`with_seeds`). The values
    may be `Verification.right`. They may also be the difference of two such tensors; then the mean is a difference in
    accuracy. In both cases the thresholds stay as `verify` chose them on the other folds. Only the test people are
    resampled.
    """
    values = np.atleast_2d(_numpy(values).astype(np.float64))
    over_seeds = values.mean(0)

    def statistic(weights: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return weights @ over_seeds / weights.sum(1)

    effect = bootstrap_pairs(statistic, first_person, second_person, draws, seed)
    return effect if len(values) == 1 else with_seeds(effect, values.mean(1), seed)


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
    """Return a measure of the ROC curve for the first scores minus the same measure for the second, as a fraction.

    `measure` is one of CURVE_MEASURES. Both scores belong to the same pairs. The effect is the mean over the folds, as
    in `verify`. The interval is over people (`bootstrap_pairs`).
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

    return bootstrap_pairs(statistic, first_person, second_person, draws, seed).within(-1, 1)


def holm(p_values: ArrayLike) -> list[float]:
    """Return the p-values corrected for their number (Holm 1979).

    If we accept all claims with a corrected p-value below 0.05, at most one in twenty families (claims corrected
    together) contains a false claim. The k-th smallest of m p-values is multiplied by m - k + 1. The result is at most
    1, and never less than the result before it. A claim without a p-value (NaN) counts among the m too, and stays NaN.
    """
    values = np.asarray(p_values, dtype=np.float64)
    adjusted, so_far = np.full(len(values), math.nan), 0.0
    finite = np.flatnonzero(~np.isnan(values))
    for rank, row in enumerate(finite[np.argsort(values[finite], kind="stable")]):
        so_far = max(so_far, min(1.0, (len(values) - rank) * values[row]))
        adjusted[row] = so_far
    return adjusted.tolist()


def decide(value: float, at_least: float, adjusted: float, level: float = 0.95) -> str:
    """Return the verdict on the claim effect > `at_least` after the correction by `holm`.

    `value` is the effect and `adjusted` its corrected p-value. If this is NaN, the claim is not decided. The correction
    can turn a verdict into "not decided", but never the other way round.
    """
    if not 1 - adjusted > level:
        return "not decided"
    return "holds" if value > at_least else "does not hold"


@dataclass(frozen=True)
class Claim:
    """A statement of a paper, the effect that we measured to test it, and the size that the effect must exceed."""

    name: str  # as the report lists it, for instance "L2"
    statement: str
    effect: Effect
    unit: str
    at_least: float = 0.0

    @property
    def verdict(self) -> str:
        """Return "holds", "does not hold" or "not decided" for this claim alone, whatever other claims there are.

        The claim effect > `at_least` holds if the whole interval lies above `at_least`. It does not hold if no part of
        the interval does. If the interval is NaN, it is not decided. To test "less than", change the signs of effect
        and `at_least`.
        """
        if self.effect.low > self.at_least:
            return "holds"
        return "does not hold" if self.effect.high <= self.at_least else "not decided"

    @property
    def p_value(self) -> float:
        """Return the two-sided p-value of the claim (`Effect.p_value`)."""
        return self.effect.p_value(self.at_least)

    @property
    def measured(self) -> str:
        """Return a sentence with the effect, its interval, the number of people and the required size."""
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
        """Return the claim that all of the given claims hold. Its effect is that of the claim least likely to hold.

        It holds if every claim holds, and it does not hold if one of them does not. A test at 5 % needs no correction
        for the number of claims (intersection-union test, Berger 1982).
        """

        def support(claim: "Claim") -> float:
            """Return one minus the one-sided p-value of the claim, or 0.5 if there are no draws."""
            p = 1.0 if math.isnan(claim.p_value) else claim.p_value
            return 1 - p / 2 if claim.effect.value > claim.at_least else p / 2

        least = min(claims, key=support)
        return cls(name, f"{statement}; least supported part: {least.name}", least.effect, least.unit, least.at_least)

    def __repr__(self) -> str:
        return f"{self.name} {self.verdict}: {self.statement}\n{self.measured}"

    def _repr_html_(self) -> str:
        colour = {"holds": "#007A5A", "does not hold": "#B04A00", "not decided": "#666666"}[self.verdict]
        return (
            f'<div style="border-left: 4px solid {colour}; padding: 0.3em 0.8em">'
            f'<b>{html.escape(self.name)}</b> <b style="color: {colour}">{self.verdict}</b>: '
            f"{html.escape(self.statement)}<br><small>{html.escape(self.measured)}</small></div>"
        )
