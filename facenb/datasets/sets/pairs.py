"""Pairs for a Siamese network: one person in two poses, two people in one pose.

So pose cannot tell the two kinds apart, and a network that is asked to has to look at who it is.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facenb.errors import RunError

TRIES = 16  # draws of another person in the same pose at once; rarely are all of them the first person again
SLACK = 1e-5  # radians: turns exactly at a limit, as angles on a grid have them, count whatever the rounding


@runtime_checkable
class Pictures(Protocol):
    """What pairs are made of: pictures of known people, as `facenb.datasets.sets.training_set.Subset` has them."""

    labels: Tensor  # whole numbers, one for each person

    def __len__(self) -> int: ...

    def load(self, rows: Int[Tensor, " batch"], generator: torch.Generator | None = None) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class PairData:
    """Pairs of pictures as rows; implements the protocol of `facenb.training`.

    A row is a first picture, with its second drawn from the batch's generator: in the first half of a batch the same
    person, turned by `apart` or more, in the second half another person, turned by `near` at most from the first.
    First is whoever has partners of both kinds. A batch holds the first pictures, then the second, and `same`.

    A triplet of each row is two pairs of it: from `torch.cat([rows, rows])` the first half are drawn with the same
    person, the second half with another. Rows may be given more often for further partners.
    """

    pictures: Pictures
    yaw: Float[Tensor, " pictures"]  # radians; of the fit: the truth is for evaluation
    apart: float  # radians
    near: float  # radians

    @classmethod
    def of(
        cls, pictures: Pictures, yaw: Float[Tensor, " pictures"], apart: float | int = 30.0, near: float | int = 10.0
    ) -> "PairData":
        """Pairs of these pictures: `yaw` in radians, `apart` and `near` in degrees, both included.

        Raises RunError where no pair can be drawn: one person only, or one pose only. ValueError for a yaw that is not
        finite, beyond pi or of another number of pictures, an `apart` that is not above `near`, and labels that are
        not one whole number for each picture.
        """
        if yaw.shape != (len(pictures),) or not yaw.isfinite().all():
            raise ValueError(f"yaw {tuple(yaw.shape)} of {len(pictures)} pictures must be one finite angle for each")
        if len(yaw) and yaw.abs().max() > math.pi + SLACK:
            raise ValueError(
                f"a yaw of {float(yaw.abs().max()):g} is no angle in radians; convert degrees by deg2rad()"
            )
        if not 0 <= near < apart:
            raise ValueError(f"near is {near} and apart {apart} degrees; give 0 <= near < apart")
        limits = torch.tensor([float(apart), float(near)]).deg2rad().tolist()
        made = cls(pictures, yaw, limits[0] - SLACK, limits[1] + SLACK)
        made._check(float(apart), float(near))
        return made

    def __len__(self) -> int:
        return len(self.anchors)

    def load(self, rows: Int[Tensor, " batch"], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """What `pictures` give for the first pictures and then the second, twice as many rows, and `same` of each pair.

        `subject` of each picture is its label, unless `pictures` give another. Raises ValueError for fewer than two
        rows (there must be both kinds), IndexError for a row that is not there.
        """
        first, second, same = self.draw(rows, generator)
        both = torch.cat([first, second])
        return {"subject": self._labels[both], **self.pictures.load(both, generator), "same": same}

    def draw(
        self, rows: Int[Tensor, " batch"], generator: torch.Generator | None = None
    ) -> tuple[Int[Tensor, " batch"], Int[Tensor, " batch"], Bool[Tensor, " batch"]]:
        """First and second picture (rows of `pictures`) of each pair, and whether they show one person.

        The first half of `rows`, the larger one, is drawn with the same person. Raises as `load`.
        """
        if len(rows) < 2:
            raise ValueError(f"a batch of {len(rows)} pairs cannot hold both kinds; take two or more")
        if not (0 <= int(rows.min()) and int(rows.max()) < len(self)):
            raise IndexError(f"rows {int(rows.min())} to {int(rows.max())} were asked for; there are {len(self)}")
        first, half = self.anchors[rows], (len(rows) + 1) // 2
        second = torch.cat([self._turned(first[:half], generator), self._others(first[half:], generator)])
        return first, second, torch.arange(len(rows)) < half

    def _turned(self, first: Tensor, generator: torch.Generator | None) -> Tensor:
        """Another picture of the same person, far enough turned, all such alike likely."""
        found = self._own(first)  # (B, most)
        chance = torch.rand(found.shape, generator=generator).masked_fill(~self._far(first, found), -1.0)
        return found.gather(1, chance.argmax(1, keepdim=True))[:, 0]

    def _others(self, first: Tensor, generator: torch.Generator | None) -> Tensor:
        """A picture of somebody else from nearly the same side, all such alike likely."""
        order, low, high = self._sorted
        start, count = low[first, None], (high - low)[first, None]
        chance = torch.rand(len(first), TRIES, generator=generator, dtype=torch.float64)
        tried = order[start + (chance * count).long().clamp(max=count - 1)]
        other = self._labels[tried] != self._labels[first, None]
        second = tried.gather(1, other.int().argmax(1, keepdim=True))[:, 0]
        for k in (~other.any(1)).nonzero()[:, 0].tolist():
            window = order[int(low[first[k]]) : int(high[first[k]])]
            window = window[self._labels[window] != self._labels[first[k]]]
            second[k] = window[torch.randint(len(window), (), generator=generator)]
        return second

    @cached_property
    def anchors(self) -> Int[Tensor, " anchors"]:
        """Pictures that have partners of both kinds."""
        every = torch.arange(len(self.pictures))
        return every[self._has_turned & self._has_other]

    @cached_property
    def _has_turned(self) -> Tensor:
        parts = torch.arange(len(self.pictures)).split(8192)
        return torch.cat([self._far(some, self._own(some)).any(1) for some in parts])

    @cached_property
    def _has_other(self) -> Tensor:
        """Whether a window holds more pictures than those of its own person."""
        order, low, high = self._sorted
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order))
        within = []
        for some in torch.arange(len(self.pictures)).split(8192):
            own = self._own(some)
            where = place[own]
            within.append(((own >= 0) & (low[some, None] <= where) & (where < high[some, None])).sum(1))
        return high - low > torch.cat(within)

    @cached_property
    def _labels(self) -> Int[Tensor, " pictures"]:
        """The pictures' labels, checked."""
        try:
            labels = torch.as_tensor(self.pictures.labels)
        except (TypeError, ValueError, RuntimeError):  # names, for instance
            labels = torch.zeros(0)
        if labels.shape != (len(self.pictures),) or labels.is_floating_point() or labels.is_complex():
            raise ValueError(
                f"the labels of {len(self.pictures)} pictures must be one whole number for each, the same for all of a "
                f"person; these are {type(self.pictures.labels).__name__} {self.pictures.labels!r:.80}"
            )
        return labels.long()

    @cached_property
    def _person(self) -> Int[Tensor, " pictures"]:
        """Who is on each picture, people counted from 0, whatever numbers the labels are."""
        return self._labels.unique(return_inverse=True)[1]

    @cached_property
    def _groups(self) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures person by person, where each person's begin, and how many they are."""
        counts = torch.bincount(self._person)
        return torch.argsort(self._person, stable=True), counts.cumsum(0) - counts, counts

    def _own(self, rows: Tensor) -> Int[Tensor, "rows most"]:
        """All pictures of each row's person, -1 where there are fewer than the most a person has."""
        order, start, counts = self._groups
        label = self._person[rows]
        place = torch.arange(int(counts.max()))
        own = order[(start[label, None] + place).clamp(max=len(order) - 1)]
        return own.where(place < counts[label, None], -torch.ones_like(own))

    def _far(self, rows: Tensor, own: Tensor) -> Bool[Tensor, "rows most"]:
        return (own >= 0) & ((self.yaw[own] - self.yaw[rows, None]).abs() >= self.apart)

    @cached_property
    def _sorted(self) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures by yaw, and the stretch of them that is near each picture."""
        order = torch.argsort(self.yaw, stable=True)
        line = self.yaw[order].contiguous()
        low = torch.searchsorted(line, self.yaw - self.near)
        return order, low, torch.searchsorted(line, self.yaw + self.near, right=True)

    def _check(self, apart: float, near: float) -> None:
        people = len(self._labels.unique())
        if people < 2:
            raise RunError(f"pairs need two people or more, and these {len(self.pictures)} pictures show {people}")
        if not self._has_turned.any():
            raise RunError(
                f"nobody has two pictures turned by {apart:g} degrees or more against each other: pictures of one pose "
                "only give no pairs of one person in two poses; add others, or lower `apart`"
            )
        if not len(self.anchors):
            raise RunError(
                f"no picture has both another of its person {apart:g} degrees away and one of somebody else within "
                f"{near:g}; lower `apart` or raise `near`"
            )
