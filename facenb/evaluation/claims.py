"""Claims and their verdicts: how large an effect is, between which bounds, and whether that decides the claim.

Intervals and p-values are those of `intervals`: over people, and over seeds where a method was trained several times.
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

__all__ = ["Claim", "Effect", "bootstrap", "bootstrap_pairs", "decide", "difference_of_accuracy",
           "difference_of_scores", "draw_weights", "holm", "mean_of", "paired_difference", "verdict",
           "with_seeds"]  # fmt: skip


def _array(name: str, values: ArrayLike) -> np.ndarray:
    """(seeds, pictures), of one seed where there is no such level."""
    array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.float64)
    if array.ndim not in (1, 2) or array.shape[0] < array.ndim - 1:
        raise ValueError(f"{name} must be one value a picture (or pair), or (seeds, pictures), got shape {array.shape}")
    if not np.isfinite(array).all():
        row = int(np.argwhere(~np.isfinite(array))[0, -1])
        bad = np.atleast_2d(array)[:, row]
        bad = bad[~np.isfinite(bad)][0]
        raise ValueError(f"{name}, row {row}, is {bad}; what is missing must be counted, not left in the mean")
    return np.atleast_2d(array)


def _people(subject: ArrayLike, rows: int) -> tuple[np.ndarray, int]:
    """Each row's person as a number from 0, and how many people there are."""
    labels = np.asarray(subject.cpu() if isinstance(subject, Tensor) else subject)
    if labels.shape != (rows,):
        raise ValueError(f"there are {rows} values, but the subjects have shape {labels.shape}")
    names, index = np.unique(labels, return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"an interval over people needs two or more, there is {len(names)}")
    return index, len(names)


def mean_of(values: ArrayLike, subject: ArrayLike, draws: int = 5000, seed: int = 0, level: float = 0.95) -> Effect:
    """Mean over the people's own means, with its interval; every person counts alike, however many pictures.

    `values` (pictures) or, of a method trained several times, (seeds, pictures): then trainings are drawn as well as
    people (`with_seeds`), and the interval is about people *and* trainings not seen yet.
    """
    values = _array("values", values)
    index, people = _people(subject, values.shape[1])
    count = np.bincount(index, minlength=people)
    own = np.stack([np.bincount(index, row, people) / count for row in values])
    middle = own.mean(0)
    effect = bootstrap(lambda weights: weights @ middle / weights.sum(1), people, draws, seed, level)
    return effect if len(own) == 1 else with_seeds(effect, own.mean(1), seed)


def paired_difference(
    first: ArrayLike, second: ArrayLike, subject: ArrayLike, draws: int = 5000, seed: int = 0, level: float = 0.95
) -> Effect:
    """first - second, picture by picture, as the mean over the people's own means (`mean_of`).

    Both must be of the same pictures in the same order, (pictures) or (seeds, pictures); several seeds are paired one
    by one, or all with the one that a method without training has. Raises ValueError for arrays that do not fit,
    values that are not finite, or fewer than two people.
    """
    first, second = _array("first", first), _array("second", second)
    if first.shape[1] != second.shape[1]:
        counts = f"{first.shape[1]} and {second.shape[1]}"
        raise ValueError(f"a paired difference needs the same pictures in both, got {counts}")
    if len(first) != len(second) and 1 not in (len(first), len(second)):
        raise ValueError(f"seeds are paired one by one, got {len(first)} and {len(second)}")
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

    value, drawn, without = draw(of_people, people, len(one), draws, seed)
    both, unlike = (_variance_of_pairs(statistic, which, draws, seed) for which in (single | True, ~single))
    found = np.nanvar(drawn)
    pull = math.sqrt(min(1.0, max(found - 2 * unlike, both) / found)) if found > 0 else 1.0
    return Effect.of(Sample.of(value, value + (drawn - value) * pull, without), people, level)


def _variance_of_pairs(statistic: Callable[[np.ndarray], np.ndarray], which: np.ndarray, draws: int, seed: int):
    """Variance of the statistic where the pairs of `which` are drawn by themselves and the others stay."""
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
    first: Verification | Sequence[Verification], second: Verification | Sequence[Verification], one: ArrayLike,
    other: ArrayLike, draws: int = 2000, seed: int = 0, level: float = 0.95,
) -> Effect:  # fmt: skip
    """How much more of the pairs the first method decides rightly than the second, as a fraction.

    The thresholds stay as `verify` chose them on other folds: what is drawn is the people they are used on. Every pair
    counts alike, so with folds of one size it is the difference of the folds' means. Methods trained several times give
    one verification a seed, paired one by one; then the seeds are drawn too (`with_seeds`).
    """
    firsts, seconds = ([x] if isinstance(x, Verification) else list(x) for x in (first, second))
    if len(firsts) != len(seconds) or not firsts:
        raise ValueError(f"seeds are paired one by one, got {len(firsts)} and {len(seconds)}")
    for pair in zip(firsts, seconds, strict=True):
        if not len(pair[0].right) == len(pair[1].right) == len(one):
            counts = f"{len(pair[0].right)} and {len(pair[1].right)} pairs, and there are the names of {len(one)}"
            raise ValueError(f"the two were verified on {counts}; all must be of the same pairs")
    gains = np.stack(
        [a.right.double().numpy() - b.right.double().numpy() for a, b in zip(firsts, seconds, strict=True)]
    )
    gain = gains.mean(0)

    def statistic(weights: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return weights @ gain / weights.sum(1)

    effect = bootstrap_pairs(statistic, one, other, draws, seed, level)
    return effect if len(gains) == 1 else with_seeds(effect, gains.mean(1), seed)


def verdict(effect: Effect, at_least: float = 0.0) -> str:
    """Whether "more than `at_least`" holds, does not hold, or is not decided by the effect's interval.

    It holds where the whole interval lies above, and does not where none of it does. An interval that is NaN decides
    nothing. A claim of "less than" is one of "more than" about the difference the other way round.
    """
    if effect.low > at_least:
        return "holds"
    return "does not hold" if effect.high <= at_least else "not decided"


def holm(p_values: ArrayLike) -> list[float]:
    """The p-values corrected for how many there are (Holm 1979): below 0.05, at most one in twenty such families errs.

    The k-th smallest of m is multiplied by m - k + 1, never less than the one before, at most 1. What has no p-value
    (NaN) was asked too: it counts among the m, and stays NaN. Raises ValueError for what is no p-value.
    """
    values = np.asarray(p_values, dtype=np.float64)
    if values.ndim != 1 or ((values < 0) | (values > 1)).any():
        raise ValueError(f"a p-value lies between 0 and 1, got {values.tolist()}")
    adjusted, so_far = np.full(len(values), math.nan), 0.0
    known = np.flatnonzero(~np.isnan(values))
    for place, row in enumerate(known[np.argsort(values[known], kind="stable")]):
        so_far = max(so_far, min(1.0, (len(values) - place) * values[row]))
        adjusted[row] = so_far
    return adjusted.tolist()


def decide(value: float, at_least: float, adjusted: float, level: float = 0.95) -> str:
    """The verdict on "more than `at_least`" that is left after `holm`: never stronger than the interval's own.

    `value` is the effect, `adjusted` its corrected p. Without a p (NaN) nothing is decided.
    """
    if not 1 - adjusted > level:
        return "not decided"
    return "holds" if value > at_least else "does not hold"


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
        """`verdict` of the effect, by itself: not corrected for the number of claims."""
        return verdict(self.effect, self.at_least)

    @property
    def p_value(self) -> float:
        """`Effect.p_value` of the claim."""
        return self.effect.p_value(self.at_least)

    @property
    def measured(self) -> str:
        """The effect in words: value, interval, how many people, and what was asked for."""
        effect, unit = self.effect, f" {self.unit}" if self.unit else ""
        over = f"{effect.subjects} {effect.drawn}"
        ends = f"{effect.low:.3g} to {effect.high:.3g}{unit}"
        seeds = f" and {effect.seeds} seeds" if effect.seeds > 1 else ""
        return (
            f"{effect.value:.3g}{unit}, {100 * effect.level:g} % interval {ends} over {over}{seeds}; "
            f"asked for: more than {self.at_least:g}{unit}"
        )

    @classmethod
    def of_all(cls, name: str, statement: str, parts: Sequence["Claim"]) -> "Claim":
        """The claim that asks for all of the parts: that one of them stands for it which is least likely to hold.

        So it holds where every part does, and does not hold where one does not. A rejection at 5 % needs no correction
        for the number of parts (intersection-union test, Berger 1982). Raises ValueError where there is no part.
        """
        if not parts:
            raise ValueError(f"{name} asks for nothing: give the claims that it is made of")

        def held(part: "Claim") -> float:
            """One-sided: how sure the draws are of the part; without draws, not at all either way."""
            p = 1.0 if math.isnan(part.p_value) else part.p_value
            return 1 - p / 2 if part.effect.value > part.at_least else p / 2

        least = min(parts, key=held)
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
