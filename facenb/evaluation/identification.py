"""Identification: which person of a gallery does a probe image show, if any?

Scores are cosines, computed for one block of probes at a time. We keep three numbers per probe. All rates can be
computed from them exactly, without bins. So memory does not grow with the number of scores.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facenb.evaluation.recognition import lengths

BLOCK = 2**25  # scores held at a time (128 MB)
RANKS = (1, 5, 10)
FARS = (0.01, 0.1)


@dataclass(frozen=True)
class Identification:
    """The result of searching a gallery for each probe."""

    mated: Bool[Tensor, " probes"]  # whether the probe's person is in the gallery
    rank: Int[Tensor, " probes"]  # of the probe's person, 1 is first; 0 if this person is not in the gallery
    genuine: Float[Tensor, " probes"]  # score of the probe's person; NaN if this person is not in the gallery
    other: Float[Tensor, " probes"]  # best score of any other person
    people: int  # in the gallery

    def rank_rate(self, rank: int = 1) -> float:
        """Return the share of mated probes whose person is among the first `rank` (closed set)."""
        return float((self.rank[self.mated] <= rank).double().mean())

    def dir_at(self, far: float) -> float:
        """Return the detection and identification rate at a false accept rate (Phillips, Grother, Micheals 2011).

        DIR is the share of mated probes whose person comes first and is accepted (open set). FAR is the share of
        strangers that are accepted as anybody. A probe is accepted if its best score is *above* a threshold, here the
        lowest that accepts at most the share `far` of the strangers. With n strangers, any rate below 1/n means that no
        stranger is accepted. Raise ValueError if every probe's person is in the gallery.
        """
        if self.mated.all():
            raise ValueError("every probe's person is in the gallery; a false accept rate needs probes of other people")
        strangers = self.other[~self.mated].sort(descending=True).values
        count = len(strangers)
        accepted = int(np.searchsorted(np.arange(count + 1) / count, far, side="right")) - 1
        threshold = -math.inf if accepted == count else float(strangers[accepted])
        found = (self.rank[self.mated] == 1) & (self.genuine[self.mated] > threshold)
        return float(found.double().mean())

    def table(self) -> pd.Series:
        """Return the rank rates, and DIR if there are strangers, in per cent."""
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
    """Search the gallery for every probe, by cosine.

    If a person has several templates, the best of them gives the score, and the person takes one rank. Equal scores
    count against the probe's person, so constant features find nobody. `block` is how many scores are in memory at a
    time. Features may be memory-mapped (`torch.from_file`); they are never copied as a whole. Raise ValueError for an
    empty gallery or probe set, and for a feature that is zero or not finite.
    """
    for name, features, person in (("gallery", gallery, gallery_person), ("probe", probe, probe_person)):
        if not len(features) or len(features) != len(person):
            raise ValueError(
                f"the {name} has {len(features)} features but {len(person)} people; pass one person for each feature"
            )
    names, column = gallery_person.unique(return_inverse=True)
    single = len(names) == len(gallery)
    order = column.argsort(stable=True)
    starts = torch.searchsorted(column[order], torch.arange(len(names))).numpy()
    nearest = torch.searchsorted(names, probe_person).clamp(max=len(names) - 1)
    mated = names[nearest] == probe_person
    target = order[nearest] if single else nearest  # column of the probe's own person
    gallery_length, probe_length = lengths(gallery, "gallery feature"), lengths(probe, "probe feature")
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
