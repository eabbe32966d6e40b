"""Pairs for a Siamese network: one person in two poses, two people in one pose.

So pose cannot tell the two kinds apart, and the network has to look at who it is.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facenb.errors import RunError

TRIES = 16  # draws of another person in the same pose at once; rarely are all of them the first person again
SLACK = 1e-5  # radians: turns exactly at a limit, as angles on a grid have them, count whatever the rounding
TOGETHER = 8192  # images compared with all others of their person at once


@runtime_checkable
class Pictures(Protocol):
    """What pairs are made of: images of known people, such as a FaceSet."""

    labels: Int[Tensor, " images"]  # one number for each person

    def __len__(self) -> int: ...

    def load(self, rows: Int[Tensor, " batch"], generator: torch.Generator | None = None) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class PairData:
    """Pairs of images as rows; implements the protocol of `facenb.training`.

    A row is a first image; its second is drawn from the batch's generator. In the first half of a batch it shows the
    same person, turned by `apart` or more; in the second half another person, turned by `near` at most from the first.
    Only images with partners of both kinds come first. A batch holds the first images, then the second, and `same`.

    A triplet of each row is two pairs: from `torch.cat([rows, rows])`, the first half are drawn with the same person
    and the second half with another. Rows may be given more often for further partners.
    """

    pictures: Pictures
    yaw: Float[Tensor, " images"]  # radians; of the fit, because the truth is for evaluation
    apart: float  # radians
    near: float  # radians

    @classmethod
    def of(
        cls, pictures: Pictures, yaw: Float[Tensor, " images"], apart: float | int = 30.0, near: float | int = 10.0
    ) -> "PairData":
        """Return pairs of these images: `yaw` in radians, `apart` and `near` in degrees, both included.

        Raises RunError if no pair can be drawn: one person only, or one pose only.
        """
        if not 0 <= near < apart:
            raise ValueError(f"Expected 0 <= near < apart, got near {near} and apart {apart} degrees")
        limits = torch.tensor([float(apart), float(near)]).deg2rad().tolist()
        pairs = cls(pictures, yaw, limits[0] - SLACK, limits[1] + SLACK)
        people = len(pictures.labels.unique())
        if people < 2:
            raise RunError(f"Pairs need two people or more, but these {len(pictures)} images show {people}")
        if not pairs._has_turned.any():
            raise RunError(
                f"Nobody has two images turned by {apart:g} degrees or more against each other: images of one pose "
                "give no pairs of one person in two poses. Add others, or lower `apart`."
            )
        if not len(pairs.anchors):
            raise RunError(
                f"No image has both another of its person {apart:g} degrees away and one of somebody else within "
                f"{near:g}. Lower `apart` or raise `near`."
            )
        return pairs

    def __len__(self) -> int:
        return len(self.anchors)

    def load(self, rows: Int[Tensor, " batch"], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Return what `pictures` load for the first images and then the second, `subject` (labels), and `same`."""
        first, second, same = self.draw(rows, generator)
        both = torch.cat([first, second])
        return {**self.pictures.load(both, generator), "subject": self.pictures.labels[both], "same": same}

    def draw(
        self, rows: Int[Tensor, " batch"], generator: torch.Generator | None = None
    ) -> tuple[Int[Tensor, " batch"], Int[Tensor, " batch"], Bool[Tensor, " batch"]]:
        """Return first and second image (rows of `pictures`) of each pair, and whether they show one person.

        The first half of `rows`, the larger one, is drawn with the same person. Raises ValueError for one row only.
        """
        if len(rows) < 2:
            raise ValueError(f"A batch of {len(rows)} pairs cannot hold both kinds; use two or more")
        first, half = self.anchors[rows], (len(rows) + 1) // 2
        second = torch.cat([self._draw_turned(first[:half], generator), self._draw_other(first[half:], generator)])
        return first, second, torch.arange(len(rows)) < half

    def _draw_turned(self, first: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return another image of the same person, turned far enough; all such are equally likely."""
        candidates = self._images_of_person(first)  # (B, most)
        chance = torch.rand(candidates.shape, generator=generator).masked_fill(~self._far(first, candidates), -1.0)
        return candidates.gather(1, chance.argmax(1, keepdim=True))[:, 0]

    def _draw_other(self, first: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return an image of another person in nearly the same pose; all such are equally likely."""
        order, low, high = self._by_yaw
        start, count = low[first, None], (high - low)[first, None]
        chance = torch.rand(len(first), TRIES, generator=generator, dtype=torch.float64)
        tried = order[start + (chance * count).long().clamp(max=count - 1)]
        other = self._person[tried] != self._person[first, None]
        second = tried.gather(1, other.int().argmax(1, keepdim=True))[:, 0]
        for row in (~other.any(1)).nonzero()[:, 0].tolist():
            window = order[int(low[first[row]]) : int(high[first[row]])]
            window = window[self._person[window] != self._person[first[row]]]
            second[row] = window[torch.randint(len(window), (), generator=generator)]
        return second

    @cached_property
    def anchors(self) -> Int[Tensor, " anchors"]:
        """The images that have partners of both kinds."""
        return (self._has_turned & self._has_other).nonzero()[:, 0]

    @cached_property
    def _has_turned(self) -> Bool[Tensor, " images"]:
        blocks = torch.arange(len(self.pictures)).split(TOGETHER)
        return torch.cat([self._far(rows, self._images_of_person(rows)).any(1) for rows in blocks])

    @cached_property
    def _has_other(self) -> Bool[Tensor, " images"]:
        """Whether more images are near in yaw than those of the same person."""
        order, low, high = self._by_yaw
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order))
        same = []
        for rows in torch.arange(len(self.pictures)).split(TOGETHER):
            images = self._images_of_person(rows)
            ranks = rank[images]
            same.append(((images >= 0) & (low[rows, None] <= ranks) & (ranks < high[rows, None])).sum(1))
        return high - low > torch.cat(same)

    @cached_property
    def _person(self) -> Int[Tensor, " images"]:
        """Who is on each image, people counted from 0."""
        return self.pictures.labels.unique(return_inverse=True)[1]

    @cached_property
    def _by_person(self) -> tuple[Tensor, Tensor, Tensor]:
        """Images person by person, where each person's begin, and how many they are."""
        counts = torch.bincount(self._person)
        return torch.argsort(self._person, stable=True), counts.cumsum(0) - counts, counts

    def _images_of_person(self, rows: Tensor) -> Int[Tensor, "rows most"]:
        """Return all images of each row's person, -1 behind the last."""
        order, start, counts = self._by_person
        person, column = self._person[rows], torch.arange(int(counts.max()))
        images = order[(start[person, None] + column).clamp(max=len(order) - 1)]
        return images.where(column < counts[person, None], -torch.ones_like(images))

    def _far(self, rows: Tensor, images: Tensor) -> Bool[Tensor, "rows most"]:
        return (images >= 0) & ((self.yaw[images] - self.yaw[rows, None]).abs() >= self.apart)

    @cached_property
    def _by_yaw(self) -> tuple[Tensor, Tensor, Tensor]:
        """Images by yaw, and the stretch of them that is near each image."""
        order = torch.argsort(self.yaw, stable=True)
        line = self.yaw[order].contiguous()
        low = torch.searchsorted(line, self.yaw - self.near)
        return order, low, torch.searchsorted(line, self.yaw + self.near, right=True)
