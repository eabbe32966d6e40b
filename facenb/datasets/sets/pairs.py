"""Pairs for a Siamese network: one person in two poses, two people in one pose.

So pose cannot tell the two kinds apart, and the network has to look at who it is.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facenb.errors import RunError

SLACK = 1e-5  # radians: turns exactly at a limit, as angles on a grid have them, count whatever the rounding


@dataclass(frozen=True)
class PairData:
    """Pairs of images as rows; implements the protocol of `facenb.training`.

    A row is a first image; its second is drawn from the batch's generator. In the first half of a batch it shows the
    same person, turned by `apart` or more; in the second half another person, turned by `near` at most from the first.
    Only images with partners of both kinds come first. A batch holds the first images, then the second, and `same`.

    A triplet of each row is two pairs: from `torch.cat([rows, rows])`, the first half are drawn with the same person
    and the second half with another. Rows may be given more often for further partners.
    """

    pictures: Any  # images of known people: a FaceSet, or anything with `labels`, a length and `load`
    yaw: Float[Tensor, " images"]  # radians; of the fit, because the truth is for evaluation
    apart: float  # radians
    near: float  # radians

    @classmethod
    def of(
        cls, pictures: Any, yaw: Float[Tensor, " images"], apart: float | int = 30.0, near: float | int = 10.0
    ) -> "PairData":
        """Return pairs of these images: `yaw` in radians, `apart` and `near` in degrees, both included.

        Raises RunError if no pair can be drawn.
        """
        if not 0 <= near < apart:
            raise ValueError(f"Expected 0 <= near < apart, got near {near} and apart {apart} degrees")
        limits = torch.tensor([float(apart), float(near)]).deg2rad().tolist()
        pairs = cls(pictures, yaw, limits[0] - SLACK, limits[1] + SLACK)
        if not len(pairs.anchors):
            people = len(pictures.labels.unique())
            raise RunError(
                f"None of {len(pictures)} images of {people} people has both another image of its person turned by "
                f"{apart:g} degrees or more and one of somebody else within {near:g}. Add people and poses, lower "
                "`apart` or raise `near`."
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

        The first half of `rows`, the larger one, is drawn with the same person; all partners of a kind are equally
        likely. Raises ValueError for one row only.
        """
        if len(rows) < 2:
            raise ValueError(f"A batch of {len(rows)} pairs cannot hold both kinds; use two or more")
        first, half = self.anchors[rows], (len(rows) + 1) // 2
        partners = [*map(self._turned, first[:half].tolist()), *map(self._others, first[half:].tolist())]
        chance = torch.rand(len(rows), generator=generator, dtype=torch.float64).tolist()
        second = torch.stack([images[int(part * len(images))] for images, part in zip(partners, chance, strict=True)])
        return first, second, torch.arange(len(rows)) < half

    @cached_property
    def anchors(self) -> Int[Tensor, " anchors"]:
        """The images that have partners of both kinds."""
        rows = [row for row in range(len(self.pictures)) if len(self._turned(row)) and len(self._others(row))]
        return torch.tensor(rows, dtype=torch.int64)

    def _turned(self, row: int) -> Int[Tensor, " partners"]:
        """Return the images of the same person that are turned far enough."""
        person, images = self._by_person
        same = images[person[row]]
        return same[(self.yaw[same] - self.yaw[row]).abs() >= self.apart]

    def _others(self, row: int) -> Int[Tensor, " partners"]:
        """Return the images of other people in nearly the same pose."""
        order, low, high = self._by_yaw
        window = order[low[row] : high[row]]
        return window[self.pictures.labels[window] != self.pictures.labels[row]]

    @cached_property
    def _by_person(self) -> tuple[list[int], tuple[Tensor, ...]]:
        """Who is on each image, people counted from 0, and the images of each person."""
        _, person, counts = self.pictures.labels.unique(return_inverse=True, return_counts=True)
        return person.tolist(), torch.argsort(person, stable=True).split(counts.tolist())

    @cached_property
    def _by_yaw(self) -> tuple[Int[Tensor, " images"], list[int], list[int]]:
        """Images by yaw, and the stretch of them that is near each image."""
        order = torch.argsort(self.yaw, stable=True)
        line = self.yaw[order].contiguous()
        low = torch.searchsorted(line, self.yaw - self.near)
        return order, low.tolist(), torch.searchsorted(line, self.yaw + self.near, right=True).tolist()
