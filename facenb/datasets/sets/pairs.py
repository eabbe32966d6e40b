"""Pairs for a Siamese network: one person in two poses, two people in one pose.

So the pose does not distinguish the two kinds of pairs, and the network has to use the identity.
"""

import math
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facenb.errors import RunError

SLACK = 1e-5  # radians: differences exactly at a limit, as for angles on a grid, count in spite of rounding


class PairData:
    """Pairs of images as rows; implements the protocol of `facenb.training`.

    A row is a first image that has partners of both kinds. Its second image is drawn with the batch's generator. In the
    first half of a batch, the second image shows the same person, and the yaw differs by `apart` or more. In the second
    half, it shows another person, and the yaw differs by `near` at most. For triplets, draw from
    `torch.cat([rows, rows])`. Repeat rows for further partners.
    """

    def __init__(self, images: Any, yaw: Float[Tensor, " images"], apart: float | int = 30.0, near: float | int = 10.0):
        """Pair images of known people: a FaceSet, or anything with `labels`, a length and `load`.

        `yaw` (radians) comes from the fit, because the truth is for evaluation only. `apart` and `near` are in degrees;
        both limits are included. Raises RunError if no pair can be drawn.
        """
        self.images, self.yaw = images, yaw
        self.apart, self.near = math.radians(apart) - SLACK, math.radians(near) + SLACK
        _, person, counts = images.labels.unique(return_inverse=True, return_counts=True)
        self._person = person.tolist()  # the person on each image, numbered from 0
        self._of_person = torch.argsort(person, stable=True).split(counts.tolist())  # the images of each person
        self._order = torch.argsort(yaw, stable=True)
        line = yaw[self._order].contiguous()
        self._low = torch.searchsorted(line, yaw - self.near).tolist()  # the part of `_order` near each image
        self._high = torch.searchsorted(line, yaw + self.near, right=True).tolist()
        rows = [row for row in range(len(images)) if len(self._turned(row)) and len(self._others(row))]
        self.anchors = torch.tensor(rows, dtype=torch.int64)  # the images that have partners of both kinds
        if not rows:
            raise RunError(
                f"None of {len(images)} images of {len(counts)} people has both another image of its person turned "
                f"by {apart:g} degrees or more and one of somebody else within {near:g}. Add people and poses, lower "
                "`apart` or raise `near`."
            )

    def __len__(self) -> int:
        return len(self.anchors)

    def load(self, rows: Int[Tensor, " batch"], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Return the batch of all first images, then all second images, with `subject` (labels) and `same`."""
        first, second, same = self.draw(rows, generator)
        both = torch.cat([first, second])
        return {**self.images.load(both, generator), "subject": self.images.labels[both], "same": same}

    def draw(
        self, rows: Int[Tensor, " batch"], generator: torch.Generator | None = None
    ) -> tuple[Int[Tensor, " batch"], Int[Tensor, " batch"], Bool[Tensor, " batch"]]:
        """Return first and second image (rows of `images`) of each pair, and whether they show one person.

        The first half of `rows`, which is the larger one, gets second images of the same person. All partners of a kind
        are equally likely.
        """
        first, half = self.anchors[rows], (len(rows) + 1) // 2
        partners = [*map(self._turned, first[:half].tolist()), *map(self._others, first[half:].tolist())]
        chance = torch.rand(len(rows), generator=generator, dtype=torch.float64).tolist()
        second = torch.stack([images[int(part * len(images))] for images, part in zip(partners, chance, strict=True)])
        return first, second, torch.arange(len(rows)) < half

    def _turned(self, row: int) -> Int[Tensor, " partners"]:
        """Return the images of the same person that are turned far enough."""
        same = self._of_person[self._person[row]]
        return same[(self.yaw[same] - self.yaw[row]).abs() >= self.apart]

    def _others(self, row: int) -> Int[Tensor, " partners"]:
        """Return the images of other people in nearly the same pose."""
        window = self._order[self._low[row] : self._high[row]]
        return window[self.images.labels[window] != self.images.labels[row]]
