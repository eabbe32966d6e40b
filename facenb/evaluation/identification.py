"""Identification, one against many: who of a gallery is on a probe image, and is it anybody of the gallery at all?

Scores are cosines, computed for a block of probes at a time. Three numbers per probe are kept, from which every rate
follows exactly, without bins. Memory does not grow with the number of scores.
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
    """The result of searching a gallery for each probe."""

    mated: Bool[Tensor, " probes"]  # whether the probe's person is in the gallery
    rank: Int[Tensor, " probes"]  # of the probe's person, 1 is first; 0 where it is not in the gallery
    genuine: Float[Tensor, " probes"]  # score of the probe's person; NaN where it is not in the gallery
    other: Float[Tensor, " probes"]  # best score of anybody else
    people: int  # in the gallery

    def rank_rate(self, rank: int = 1) -> float:
        """Return the share of mated probes whose person is among the first `rank` (closed set)."""
        return float((self.rank[self.mated] <= rank).double().mean())

    def threshold_at(self, far: float) -> float:
        """Return the score that a probe's best must *exceed* so that at most this share of strangers is accepted.

        Raise ValueError where every probe's person is in the gallery.
        """
        if self.mated.all():
            raise ValueError("every probe's person is in the gallery; a false accept rate needs strangers")
        strangers = self.other[~self.mated].sort(descending=True).values
        count = len(strangers)
        accepted = int(np.searchsorted(np.arange(count + 1) / count, far, side="right")) - 1
        return -math.inf if accepted == count else float(strangers[accepted])

    def dir_at(self, far: float) -> float:
        """Return the detection and identification rate at a false accept rate (Phillips, Grother, Micheals 2011).

        DIR: the share of mated probes whose person comes first and is accepted (open set). FAR: the share of strangers
        for whom anybody is accepted. With n strangers, rates below 1/n all mean that none is.
        """
        return float(self.found_at(far).double().mean())

    def found_at(self, far: float) -> Bool[Tensor, " mated"]:
        """Return for each mated probe whether its person comes first, with a score accepted at this rate."""
        return (self.rank[self.mated] == 1) & (self.genuine[self.mated] > self.threshold_at(far))

    def table(self) -> pd.Series:
        """Return rank rates, and DIR where there are strangers, in per cent."""
        rates = {f"rank-{rank}": 100 * self.rank_rate(rank) for rank in RANKS}
        if not self.mated.all():
            rates |= {f"DIR at FAR {100 * far:g}%": 100 * self.dir_at(far) for far in FARS}
        return pd.Series(rates)


def identify(
    gallery: Float[Tensor, "templates features"],
    gallery_person: Int[Tensor, " templates"],
    probe: Float[Tensor, "probes features"],
    probe_person: Int[Tensor, " probes"],
    block: int = BLOCK,
) -> Identification:
    """Search for every probe in the gallery, by cosine.

    A person with several templates scores by the best of them and takes one rank. Equal scores count against the
    probe's person, so that features without information find nobody. `block`: scores held at a time. Features may be
    tensors on a file (`torch.from_file`); neither is copied whole. Raise ValueError for an empty gallery or probe, and
    for a feature that is zero or not finite: what is missing must be counted, not skipped.
    """
    for name, features, person in (("gallery", gallery, gallery_person), ("probe", probe, probe_person)):
        if not len(features) or len(features) != len(person):
            raise ValueError(f"the {name} has {len(features)} features of {len(person)} people; it needs one of each")
    names, column = gallery_person.unique(return_inverse=True)
    single = len(names) == len(gallery)
    order = column.argsort(stable=True)
    starts = torch.searchsorted(column[order], torch.arange(len(names))).numpy()
    nearest = torch.searchsorted(names, probe_person).clamp(max=len(names) - 1)
    mated = names[nearest] == probe_person
    target = order[nearest] if single else nearest  # column of the probe's own person
    gallery_length = _lengths(gallery, "gallery", block)
    probe_length = _lengths(probe, "probe", block)
    rank = torch.empty(len(probe), dtype=torch.int64)
    genuine, other = gallery.new_empty(len(probe)), gallery.new_empty(len(probe))
    for rows in torch.arange(len(probe)).split(max(1, block // len(gallery))):
        scores = (probe[rows] / probe_length[rows, None]) @ gallery.T
        scores /= gallery_length
        if not single:
            scores = torch.from_numpy(np.maximum.reduceat(scores[:, order].numpy(), starts, axis=1))
        here = mated[rows]
        score = scores.gather(1, target[rows, None])[:, 0]
        genuine[rows] = torch.where(here, score, math.nan)
        rank[rows] = torch.where(here, (scores >= score[:, None]).sum(1), 0)
        scores[torch.arange(len(rows))[here], target[rows][here]] = -math.inf
        other[rows] = scores.amax(1)
    return Identification(mated, rank, genuine, other, len(names))


def _lengths(features: Tensor, name: str, block: int) -> Float[Tensor, " templates"]:
    rows = max(1, block // features.shape[1])
    length = torch.cat([chunk.norm(dim=1) for chunk in features.split(rows)])
    bad = ~(length.isfinite() & (length > 0))
    if bad.any():
        number, count = int(bad.nonzero()[0]), int(bad.sum())
        raise ValueError(
            f"{name} feature {number} has no direction: it is zero or not finite ({count} such); what is missing must "
            "be counted: give it the features of a failure, or leave it out and say so"
        )
    return length
