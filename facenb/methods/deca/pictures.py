"""Images for analysis by synthesis: several faces of each person, with 68 landmarks like a detector's.

Training uses nothing else: no coefficients, no camera, no light. SynthFace's true values are stored for evaluation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from facenb.datasets.sets.augmentation import MIRRORED_68
from facenb.datasets.sets.build_synthetic import build_faces, noise_of
from facenb.datasets.sets.faces import TRUE, FaceSet
from facenb.errors import RunError
from facenb.synthface.people import VERSION, SynthFace
from facenb.synthface.photographs import photograph

LARGER = 1.2  # side of a photograph, divided by the side of the image that is cut out of it
RAISED = 0.04  # the cut's centre is this fraction of a side above the landmarks' middle, to show the forehead
TOGETHER = 100  # images in memory at once
TURN, MOVE, ZOOM = 0.15, 0.06, 0.1  # largest changes in `vary`: radians, half sides, logarithm of the scale
NOISE = 111  # number of the random stream for the noise of these landmarks


@dataclass(frozen=True)
class PicturePairs:
    """Images in pairs of one person; implements the protocol of `facenb.training`."""

    faces: FaceSet
    vectors: Float[Tensor, "rows vector"] | None = None  # of each image, if known; a batch then has "vector"
    varied: bool = False  # whether `load` mirrors, turns, moves and scales the images, as `vary` does

    def __post_init__(self):
        if self.varied and self.vectors is not None:
            raise ValueError("Varied images no longer fit their vectors. Leave out one of the two.")

    def __len__(self) -> int:
        return len(self.faces)

    def load(self, rows: Int[Tensor, " batch"], generator: torch.Generator) -> dict[str, Tensor]:
        """Return the images of the rows, and then another image of the same person for each."""
        both = torch.cat([rows, self.partners(rows, generator)])
        batch = self.faces.load(both)
        if self.vectors is not None:
            batch["vector"] = self.vectors[both]
        return vary(batch, generator) if self.varied else batch

    def partners(self, rows: Int[Tensor, " batch"], generator: torch.Generator) -> Int[Tensor, " batch"]:
        """Return for each row another image of the same person, drawn at random. Raise RunError if there is none."""
        order, place, first, count = self._grouped
        label, place = self.faces.labels[rows], place[rows]
        if len(alone := rows[count[label] < 2]):
            subject = int(self.faces.subjects[alone[0]])
            raise RunError(f"Subject {subject} has one image only. A pair needs two images of a person.")
        further = 1 + (torch.rand(len(rows), generator=generator) * (count[label] - 1)).long()
        return order[first[label] + (place - first[label] + further) % count[label]]

    @cached_property
    def _grouped(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the rows in the order of their people, each row's place in it, each person's first place and size."""
        order, count = self.faces.labels.argsort(stable=True), self.faces.labels.bincount()
        return order, order.argsort(), count.cumsum(0) - count, count


def vary(batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Return the square images, randomly turned, moved and scaled; a pair is mirrored with probability 1/2.

    TURN, MOVE and ZOOM are the largest changes. The landmarks and `bare` are moved with the image. In a mirrored image,
    left and right landmarks are exchanged.
    """
    image, landmarks = batch["image"], batch["landmarks"]
    count, extent = len(image), torch.tensor([image.shape[3], image.shape[2]]).to(landmarks)
    mirrored = (torch.rand(count // 2, generator=generator) < 0.5).repeat(2)
    points = 2 * landmarks / extent - 1  # -1 to 1
    points = torch.where(mirrored[:, None, None], points[:, MIRRORED_68] * torch.tensor([-1.0, 1.0]), points)
    angle, grow, u, v = 2 * torch.rand(4, count, generator=generator) - 1
    angle, grow, shift = TURN * angle, (ZOOM * grow).exp(), MOVE * torch.stack([u, v], -1)
    # From the new image to the old, as `grid_sample` needs it. A mirrored image is read from right to left.
    onto = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).view(-1, 2, 2) * grow[:, None, None]
    points = torch.linalg.solve(onto, (points - shift[:, None]).mT).mT
    read = torch.cat([onto, shift[..., None]], 2)
    read[:, 0] *= torch.where(mirrored, -1.0, 1.0)[:, None]
    grid = functional.affine_grid(read, list(image.shape), align_corners=False)
    image, bare = (
        functional.grid_sample(values, grid, padding_mode="border", align_corners=False)
        for values in (image, batch["bare"][:, None].float())
    )
    changed = {"image": image, "bare": bare[:, 0] > 0.99, "landmarks": (points + 1) / 2 * extent}
    return batch | changed


def build_pictures(
    folder: str | Path,
    seed: int,
    people: Sequence[int],
    pictures: int = 6,
    side: int = 112,
    yaw_limit: float | int = 50.0,
    landmark_noise: float | int = 1.0,
    workers: int = 1,
) -> FaceSet:
    """Return photographs 0 to `pictures` - 1 of SynthFace's `people`, cut out around the landmarks to `side` pixels.

    `bare` is 1 where an image shows the head without hair: it stands in for the face segmentation that DECA uses. The
    landmarks are the true ones with noise of `landmark_noise` mm (standard deviation of each coordinate), like a
    detector's output. If the folder holds a finished set of the same kind, read it. Raise RunError if the folder holds
    another set. `workers` processes share the work.
    """
    people, each = [int(k) for k in people], max(1, TOGETHER // pictures)
    options = {"pictures": pictures, "side": side}
    options |= {"yaw_limit": float(yaw_limit), "landmark_noise": float(landmark_noise)}
    card = {"kind": "pictures 2", "population": VERSION, "seed": seed, "people": people, **options}
    blocks = [people[first : first + each] for first in range(0, len(people), each)]
    return build_faces(folder, card, partial(_rows, SynthFace(seed), **options), blocks, workers)


def _rows(
    synth: SynthFace, people: list[int], pictures: int, side: int, yaw_limit: float, landmark_noise: float
) -> dict[str, Tensor]:
    subjects, large = [k for k in people for _ in range(pictures)], round(LARGER * side)
    numbers = list(range(pictures)) * len(people)
    shots = photograph(synth, subjects, numbers, (large, large), yaw_limit, supersample=1)
    low, high = shots.landmarks.amin(1), shots.landmarks.amax(1)
    corner = (low + high) / 2 - side / 2 - torch.tensor([0.0, RAISED * side])
    corner = corner.round().long().clamp(0, large - side)  # whole pixels, so that nothing is resampled
    crops = [image[v : v + side, u : u + side] for image, (u, v) in zip(shots.image, corner.tolist(), strict=True)]
    offset = torch.cat([noise_of(synth, k, pictures, NOISE) for k in people])
    landmarks = shots.landmarks - corner[:, None] + landmark_noise * shots.camera.scale[:, None, None] * offset
    bare = [mask[v : v + side, u : u + side] for mask, (u, v) in zip(shots.bare, corner.tolist(), strict=True)]
    truth = {f"{TRUE}expression": shots.expression, f"{TRUE}angles": shots.angles}
    image = (torch.stack(crops) * 255).round().to(torch.uint8)
    columns = {"image": image, "bare": torch.stack(bare).to(torch.uint8)}
    return columns | {"subject": shots.subject, "landmarks": landmarks, **truth}
