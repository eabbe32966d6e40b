"""Verification: do two images show the same person? The ROC curve, its measures, and folds (Huang et al. 2007).

A high score means the same person. A pair is accepted if `score >= threshold`. Rates are fractions.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facenb.datasets.pictures.lfw import Pairs


class ROC(NamedTuple):
    """False and true accept rates, from the threshold that accepts no pair (inf) to the one that accepts all pairs.

    If pairs have weights, there is one curve for each row of weights, over the same thresholds.
    """

    far: Float[Tensor, "*draws steps"]
    tar: Float[Tensor, "*draws steps"]
    thresholds: Float[Tensor, " steps"]

    def area(self) -> Float[Tensor, "*draws"]:
        """Return the area under the curve: the probability that a genuine pair scores above an impostor pair."""
        return torch.trapezoid(self.tar, self.far)

    def equal_error_rate(self) -> Float[Tensor, "*draws"]:
        """Return the rate at which false accepts equal false rejects, by linear interpolation between thresholds."""
        excess = self.far + self.tar - 1  # false accept rate minus false reject rate: rises from -1 to 1
        after = (excess >= 0).long().argmax(-1, keepdim=True).clamp(min=1)
        (low, high), (start, end) = [[x.gather(-1, after - 1), x.gather(-1, after)] for x in (excess, self.far)]
        return (start + (end - start) * -low / (high - low))[..., 0]

    def tar_at(self, far: float) -> Float[Tensor, "*draws"]:
        """Return the highest true accept rate at a false accept rate of at most `far`, without interpolation.

        With n pairs of different people, any `far` below 1/n means that no such pair is accepted.
        """
        best = torch.where(self.far <= far, self.tar, 0.0).amax(-1)
        return torch.where((self.far + self.tar)[..., -1].isnan(), math.nan, best)


# The curve's measures in the order and under the names of the paper's tables, as fractions.
CURVE_MEASURES: dict[str, Callable[[ROC], Tensor]] = {
    "100-EER": lambda curve: 1 - curve.equal_error_rate(),
    "AUC": ROC.area,
    "TAR-10%": lambda curve: curve.tar_at(0.1),
    "TAR-1%": lambda curve: curve.tar_at(0.01),
}
MEASURES = ("accuracy", *CURVE_MEASURES)
# A sixth measure for large sets. A fold of LFW has only 300 pairs of different people, so a rate of at most 0.1 % means
# that none of them is accepted.
STRICT_MEASURES = {**CURVE_MEASURES, "TAR-0.1%": lambda curve: curve.tar_at(0.001)}


def lengths(features: Float[Tensor, "rows features"], name: str = "feature") -> Float[Tensor, " rows"]:
    """Return the length of each feature. Raise ValueError with its row if one is zero or not finite."""
    length = features.norm(dim=1)
    bad = ~(length.isfinite() & (length > 0))
    if bad.any():
        raise ValueError(
            f"{name} {int(bad.nonzero()[0])} has no direction: it is zero or not finite ({int(bad.sum())} such); leave "
            "such features out and report how many there are"
        )
    return length


def cosine(first: Float[Tensor, "pairs features"], second: Float[Tensor, "pairs features"]) -> Float[Tensor, " pairs"]:
    """Return the cosine between the two features of each pair. Raise ValueError as `lengths` does."""
    one, other = first.double(), second.double()
    return ((one * other).sum(1) / (lengths(one) * lengths(other))).to(first.dtype)


def check_pairs(scores: Float[Tensor, " pairs"], same: Bool[Tensor, " pairs"], where: str = "the pairs") -> None:
    """Raise ValueError unless all scores are finite and there are pairs of both kinds. The error names `where`."""
    if not scores.isfinite().all():
        row = int((~scores.isfinite()).nonzero()[0])
        raise ValueError(f"the score of pair {row} in {where} is {float(scores[row])}; leave out missing pairs")
    if same.all() or not same.any():
        kind = "of one person" if len(same) and same.all() else "of two people"
        raise ValueError(f"{where} ({len(same)}) are all {kind}; a rate needs pairs of both kinds")


def roc(
    scores: Float[Tensor, " pairs"],
    same: Bool[Tensor, " pairs"],
    weights: Float[Tensor, "draws pairs"] | None = None,
) -> ROC:
    """Return the ROC curve with one threshold for each distinct score, in float64.

    `weights` (0 or more) say how often each pair counts. A row of weights without pairs of both kinds gives NaN. Raise
    ValueError for scores that are not finite, or pairs of one kind only.
    """
    check_pairs(scores, same)
    ranked, order = scores.double().sort(descending=True)
    last = torch.cat([ranked[1:] != ranked[:-1], same.new_ones(1)])  # True at the last of equal scores
    weights = torch.ones(len(scores)).to(ranked) if weights is None else weights.double()
    mass = weights[..., order]
    rates = []
    for kind in (~same[order], same[order]):
        taken = torch.where(kind, mass, 0.0).cumsum(-1)[..., last]
        rate = taken / taken[..., -1:]
        rates.append(torch.cat([torch.zeros_like(rate[..., :1]), rate], -1))
    return ROC(*rates, torch.cat([ranked.new_full((1,), math.inf), ranked[last]]))


def area_under_roc(scores: Float[Tensor, " pairs"], same: Bool[Tensor, " pairs"]) -> float:
    """Return the area under the ROC curve of the pairs."""
    return float(roc(scores, same).area())


def best_threshold(scores: Float[Tensor, " pairs"], same: Bool[Tensor, " pairs"]) -> float:
    """Return the threshold with the highest accuracy, midway between the two scores that it separates.

    If several are equally good, return the middle one, since it generalises better to new pairs. It is -inf if
    accepting all pairs is best, and inf if accepting none is best.
    """
    check_pairs(scores, same)
    ranked, order = scores.double().sort()
    positive = same[order].long()
    # Number of correct decisions if the lowest k scores are rejected, k = 0 .. n.
    refused = torch.cat([positive.new_zeros(1), (1 - positive).cumsum(0)])
    right = refused + torch.cat([positive.flip(0).cumsum(0).flip(0), positive.new_zeros(1)])
    apart = torch.cat([ranked[1:] != ranked[:-1], same.new_ones(1)])
    apart = torch.cat([same.new_ones(1), apart])
    best = torch.where(apart, right, -1)
    best = (best == best.max()).nonzero()[:, 0]
    cut = int(best[(len(best) - 1) // 2])
    if cut in (0, len(ranked)):
        return -math.inf if cut == 0 else math.inf
    low, high = float(ranked[cut - 1]), float(ranked[cut])
    middle = low / 2 + high / 2
    return middle if low < middle <= high else high  # no float lies between neighbouring floats


@dataclass(frozen=True)
class Verification:
    """The measures of each fold as fractions, with thresholds, decisions and scores."""

    folds: tuple[int, ...]
    values: Float[Tensor, "folds measures"]  # in the order of `measures`
    thresholds: tuple[float, ...]  # each chosen on the other folds
    right: Bool[Tensor, " pairs"]  # whether each pair was decided correctly
    scores: Float[Tensor, " pairs"]  # score of each pair in its fold
    measures: tuple[str, ...] = MEASURES

    def mean(self) -> dict[str, float]:
        """Return the mean over the folds, as fractions."""
        return dict(zip(self.measures, self.values.mean(0).tolist(), strict=True))

    def std(self) -> dict[str, float]:
        """Return the standard deviation over the folds (n - 1), as the papers print it after the mean."""
        return dict(zip(self.measures, self.values.std(0).tolist(), strict=True))

    def table(self) -> pd.DataFrame:
        """Return a table of the folds, their mean and standard deviation, in per cent."""
        rows = torch.cat([self.values, self.values.mean(0)[None], self.values.std(0)[None]])
        return pd.DataFrame(100 * rows.numpy(), [*self.folds, "mean", "std"], list(self.measures)).rename_axis("fold")

    def __repr__(self) -> str:
        spread = self.std()
        return ", ".join(f"{name} {100 * value:.2f} ± {100 * spread[name]:.2f}" for name, value in self.mean().items())

    def _repr_html_(self) -> str:
        return self.table().style.format("{:.2f}").to_html()

    @classmethod
    def join(cls, verifications: Sequence["Verification"]) -> "Verification":
        """Join verifications of different folds into one. Use it if different networks test different folds.

        Raise ValueError if a fold occurs twice.
        """
        folds = tuple(fold for verification in verifications for fold in verification.folds)
        if len(set(folds)) != len(folds):
            raise ValueError(f"each fold must occur once, got {folds}")
        thresholds = tuple(threshold for verification in verifications for threshold in verification.thresholds)
        arrays = (torch.cat([getattr(x, name) for x in verifications]) for name in ("values", "right", "scores"))
        values, right, scores = arrays
        return cls(folds, values, thresholds, right, scores, verifications[0].measures)


def verify(
    scores: Float[Tensor, " pairs"] | Callable[[Bool[Tensor, " pairs"]], Float[Tensor, " pairs"]],
    same: Bool[Tensor, " pairs"],
    fold: Int[Tensor, " pairs"],
    measures: Mapping[str, Callable[[ROC], Tensor]] = CURVE_MEASURES,
) -> Verification:
    """Test each fold with the threshold that is best on all other folds (LFW View 2, Huang et al. 2007).

    The measures of the curve need no threshold. `scores` may also be a function, if the scores have learned parts, for
    example a mean to subtract or the weight of a sum. For each fold it gets a mask of the pairs in all other folds. It
    may learn from them, and returns the scores of all pairs. No person may be in two folds, otherwise the scores would
    be learned from test people. Raise ValueError if there is only one fold, if a fold has pairs of one kind only, or if
    scores are not finite.
    """
    same, fold = same.cpu(), fold.cpu()
    folds = fold.unique().tolist()
    if len(folds) < 2:
        raise ValueError(f"got {len(folds)} fold, but the threshold comes from other folds; pass at least two folds")
    right, judged, thresholds, rows = torch.zeros_like(same), [], [], []
    for number in folds:
        here = fold == number
        found = (scores(~here) if callable(scores) else scores).cpu()
        for other in folds:
            check_pairs(found[fold == other], same[fold == other], f"fold {other}")
        threshold = best_threshold(found[~here], same[~here])
        right[here] = (found[here].double() >= threshold) == same[here]
        curve = roc(found[here], same[here])
        rows.append([float(right[here].double().mean()), *(float(of(curve)) for of in measures.values())])
        thresholds.append(threshold)
        judged.append(torch.where(here, found, 0))
    values = torch.tensor(rows, dtype=torch.float64)
    return Verification(
        tuple(folds), values, tuple(thresholds), right, torch.stack(judged).sum(0), ("accuracy", *measures)
    )


def draw_pairs(subject: Int[Tensor, " pictures"], each: int, folds: int = 10, seed: int = 0) -> Pairs:
    """Draw pairs like LFW's, for a set without a list of pairs.

    Each fold has `each` pairs of the same person and `each` pairs of different people. No person is in two folds, and
    no pair occurs twice. As many people of a fold as possible have a same-person pair. Raise ValueError, with the
    numbers, if there are too few people or images.
    """
    random = np.random.default_rng(seed)
    labels = subject.cpu().numpy()
    people = random.permutation(np.unique(labels))
    if each < 1 or folds < 1 or len(people) < 2 * folds:
        raise ValueError(f"{folds} folds of {each} pairs cannot be drawn from {len(people)} people")
    rows = []
    for number, members in enumerate(np.array_split(people, folds)):
        pictures = [np.flatnonzero(labels == person) for person in members]
        single = [random.permutation(p[np.stack(np.triu_indices(len(p), 1), 1)]) for p in pictures]
        turn = np.concatenate([np.arange(len(p)) + random.random() for p in single])  # one pair per person first
        alike = np.concatenate(single)[np.argsort(turn, kind="stable")][:each]
        owner, everyone = np.repeat(np.arange(len(pictures)), [len(p) for p in pictures]), np.concatenate(pictures)
        possible = (len(everyone) ** 2 - sum(len(p) ** 2 for p in pictures)) // 2
        if len(alike) < each or 2 * each > possible:
            raise ValueError(
                f"fold {number} has {len(members)} people, {len(everyone)} images, {sum(map(len, single))} pairs of "
                f"one person and {possible} of two: too few to draw {each} of each; draw fewer pairs or folds"
            )
        unlike: dict[tuple, None] = {}
        while len(unlike) < each:
            a, b = sorted(random.integers(len(everyone), size=2).tolist())
            if owner[a] != owner[b]:
                unlike[a, b] = None
        unlike = everyone[np.array(list(unlike))]
        rows += [(alike, True, number), (unlike, False, number)]
    both = torch.from_numpy(np.concatenate([pairs for pairs, _, _ in rows]))
    same = torch.tensor([kind for _, kind, _ in rows]).repeat_interleave(each)
    return Pairs(both[:, 0], both[:, 1], same, torch.tensor([fold for *_, fold in rows]).repeat_interleave(each))
