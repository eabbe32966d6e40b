"""Identification, one against many: who of a gallery is on a probe, and is it anybody at all?

Scores are cosines. They are made block by block of probes and dropped again: what stays is three numbers a probe, from
which every rate follows exactly, without bins. Memory does not grow with the number of scores.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

BLOCK = 2**25  # scores held at a time (128 MB)
RANKS = (1, 5, 10)
FARS = (0.01, 0.1)


@dataclass(frozen=True)
class Identification:
    """What the search of a gallery says of each probe."""

    known: Bool[Tensor, " probes"]  # whether the probe's person is in the gallery ("mated")
    rank: Int[Tensor, " probes"]  # place of the right person, 1 is first; 0 where there is none
    own: Float[Tensor, " probes"]  # score of the right person; NaN where there is none
    other: Float[Tensor, " probes"]  # best score of anybody else
    people: int  # in the gallery

    def rank_rate(self, rank: int = 1) -> float:
        """Closed set: the share of known probes whose person is among the first `rank`. ValueError without any."""
        if rank < 1:
            raise ValueError(f"ranks count from 1, got {rank}")
        if not self.known.any():
            raise ValueError("no probe's person is in the gallery; a rank needs one that is")
        return float((self.rank[self.known] <= rank).double().mean())

    def threshold_at(self, far: float) -> float:
        """The score that a probe's best must *exceed* to be accepted, so that at most this share of strangers is."""
        if not 0 <= far <= 1:
            raise ValueError(f"a false accept rate is a fraction between 0 and 1, not {far}")
        if self.known.all():
            raise ValueError("every probe's person is in the gallery; a false accept rate needs strangers")
        strangers = self.other[~self.known].sort(descending=True).values
        count = len(strangers)
        accepted = int(np.searchsorted(np.arange(count + 1) / count, far, side="right")) - 1
        return -math.inf if accepted == count else float(strangers[accepted])

    def found_at(self, far: float, rank: int = 1) -> Bool[Tensor, " known"]:
        """Of each known probe: is its person among the first `rank`, with a score that keeps to the rate?"""
        return (self.rank[self.known] <= rank) & (self.own[self.known] > self.threshold_at(far))

    def dir_at(self, far: float, rank: int = 1) -> float:
        """Open set: detection and identification rate at a false accept rate (Phillips, Grother, Micheals 2011).

        DIR: the share of known probes whose person is among the first `rank` and accepted. FAR: the share of strangers
        for whom anybody is accepted. With n strangers, rates below 1/n all mean that none is.
        """
        return float(self.found_at(far, rank).double().mean())

    def table(self, ranks: tuple[int, ...] = RANKS, fars: tuple[float, ...] = FARS) -> pd.Series:
        """Rank rates, and DIR where there are strangers, in per cent."""
        rates = {f"rank-{rank}": 100 * self.rank_rate(rank) for rank in ranks}
        if not self.known.all():
            rates |= {f"DIR at FAR {100 * far:g}%": 100 * self.dir_at(far) for far in fars}
        return pd.Series(rates)


def identify(
    gallery: Float[Tensor, "templates features"],
    gallery_person: Int[Tensor, " templates"],
    probe: Float[Tensor, "probes features"],
    probe_person: Int[Tensor, " probes"],
    block: int = BLOCK,
) -> Identification:
    """Search every probe in the gallery, by cosine.

    A person with several templates scores by the best of them and takes one place. Equal scores count against the right
    person, so that features which say nothing find nobody. `block`: scores held at a time. Features may be tensors on a
    file (`torch.from_file`); neither is copied whole. Raises ValueError for an empty gallery or probe, and for a
    feature that is zero or not finite, by number: what is missing must be counted, not skipped.
    """
    for name, features, person in (("gallery", gallery, gallery_person), ("probe", probe, probe_person)):
        if not len(features) or len(features) != len(person):
            raise ValueError(f"the {name} has {len(features)} features of {len(person)} people; it needs one of each")
    names, column = gallery_person.unique(return_inverse=True)
    single = len(names) == len(gallery)
    order = column.argsort(stable=True)
    starts = torch.searchsorted(column[order], torch.arange(len(names))).numpy()
    place = torch.searchsorted(names, probe_person).clamp(max=len(names) - 1)
    known = names[place] == probe_person
    mine = order[place] if single else place  # column of the probe's own person
    gallery_length = _lengths(gallery, "gallery", block)
    probe_length = _lengths(probe, "probe", block)
    rank = torch.empty(len(probe), dtype=torch.int64)
    own, other = gallery.new_empty(len(probe)), gallery.new_empty(len(probe))
    count = max(1, block // len(gallery))
    for some in torch.arange(len(probe)).split(count):
        scores = (probe[some] / probe_length[some, None]) @ gallery.T
        scores /= gallery_length
        if not single:
            scores = torch.from_numpy(np.maximum.reduceat(scores[:, order].numpy(), starts, axis=1))
        here = known[some]
        score = scores.gather(1, mine[some, None])[:, 0]
        own[some] = torch.where(here, score, math.nan)
        rank[some] = torch.where(here, (scores >= score[:, None]).sum(1), 0)
        scores[torch.arange(len(some))[here], mine[some][here]] = -math.inf
        other[some] = scores.amax(1)
    return Identification(known, rank, own, other, len(names))


def _lengths(features: Tensor, name: str, block: int) -> Float[Tensor, " templates"]:
    rows = max(1, block // features.shape[1])
    length = torch.cat([part.norm(dim=1) for part in features.split(rows)])
    bad = ~(length.isfinite() & (length > 0))
    if bad.any():
        number, count = int(bad.nonzero()[0]), int(bad.sum())
        raise ValueError(
            f"{name} feature {number} has no direction: it is zero or not finite ({count} such); what is missing must "
            "be counted: give it the features of a failure, or leave it out and say so"
        )
    return length
