"""Pictures for analysis by synthesis: faces with the 68 landmarks of a detector, several of each person.

Nothing else of them is known to the training: no coefficients, no camera, no light. The truth behind SynthFace's
lies in a folder of its own, for evaluation only.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from facenb.datasets.sets.augmentation import MIRRORED_68
from facenb.datasets.sets.shards import INDEX, Shards, ShardWriter, differences, read_shards
from facenb.datasets.sets.training_set import TRUTH
from facenb.errors import AssetError, RunError
from facenb.morphable.synthetic import SynthFace
from facenb.synthface.photographs import photograph

FIELDS = ("image", "subject", "landmarks")
LARGER = 1.2  # a photograph is so much larger than the picture cut out of it
RAISED = 0.04  # of the picture's side: above the middle of the landmarks there is a forehead
TOGETHER = 100  # pictures in memory at once
NOISE = 111  # part of a subject's random numbers that the noise of these landmarks uses


@dataclass(frozen=True)
class FacePictures:
    """Some people's pictures, a batch of pairs at a time; implements the protocol of `facenb.training`."""

    shards: Shards
    subjects: Int[Tensor, " all"]  # of every row of the set
    rows: Int[Tensor, " rows"]  # those that belong to this part
    vectors: Float[Tensor, "all vector"] | None = None  # of every row of the set, where they are known: "vector"
    varied: bool = False  # whether `load` mirrors, turns, moves and scales them, as `vary` does

    def __post_init__(self):
        if self.varied and self.vectors is not None:
            raise ValueError("varied pictures no longer fit the vectors known of them; take one or the other")

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def subject(self) -> Int[Tensor, " rows"]:
        """Whose picture each is."""
        return self.subjects[self.rows]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return tuple(self.shards.fields["image"]["shape"][:2])

    def of(self, people: Sequence[int]) -> "FacePictures":
        """The pictures of these people only. RunError naming who is not there."""
        people = [int(k) for k in people]
        absent = sorted(set(people) - set(self.subject.tolist()))
        if absent or not len(people):
            raise RunError(f"{self.shards.folder} has no pictures of {absent[:4] or 'nobody'}; choose among its people")
        return replace(self, rows=self.rows[torch.isin(self.subject, torch.as_tensor(people))])

    def read(self, rows: Int[Tensor, " batch"]) -> dict[str, Tensor]:
        """Image (B, 3, H, W) in [-1, 1], landmarks in pixels and subject, of rows counted within this part."""
        found = dict(self.shards.read(self.rows[rows], FIELDS))
        if self.vectors is not None:
            found["vector"] = self.vectors[self.rows[rows]]
        return {**found, "image": (found["image"].permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous()}

    def truth(self, rows: Int[Tensor, " batch"]) -> dict[str, Tensor]:
        """True expression values and angles, for evaluation only. RunError where nothing is known."""
        if not (self.shards.folder / TRUTH).is_dir():
            raise RunError(f"{self.shards.folder} holds no ground truth; only pictures of SynthFace come with it")
        return read_shards(self.shards.folder / TRUTH, self.shards.check).read(self.rows[rows])

    def load(self, rows: Int[Tensor, " batch"], generator: torch.Generator) -> dict[str, Tensor]:
        """Twice as many pictures as rows: those, and then of each its partner, another picture of the same person."""
        batch = self.read(torch.cat([rows, self.partners(rows, generator)]))
        return vary(batch, generator) if self.varied else batch

    def partners(self, rows: Int[Tensor, " batch"], generator: torch.Generator) -> Int[Tensor, " batch"]:
        """For each row another picture of the same person, drawn from `generator`. RunError where there is none."""
        subject = self.subject
        other = (subject == subject[rows, None]) & (torch.arange(len(subject)) != rows[:, None])  # (B, rows)
        if not (found := other.any(1)).all():
            alone = int(subject[rows[~found][0]])
            raise RunError(f"subject {alone} has one picture only, and a pair needs two of a person")
        return torch.rand(other.shape, generator=generator).masked_fill(~other, -1.0).argmax(1)


def vary(
    batch: dict[str, Tensor], generator: torch.Generator, turn: float = 0.15, move: float = 0.06, zoom: float = 0.1
) -> dict[str, Tensor]:
    """The same pictures, half of the pairs mirrored; each turned (radians), moved (half a side), scaled at most so far.

    The landmarks go with them; those of a mirrored picture change sides. ValueError for pictures that are no pairs, or
    not square.
    """
    image, landmarks = batch["image"], batch["landmarks"]
    if len(image) % 2 or image.shape[2] != image.shape[3]:
        raise ValueError(f"pictures {tuple(image.shape)} must be pairs, and square: a turn would shear others")
    count, extent = len(image), torch.tensor([image.shape[3], image.shape[2]]).to(landmarks)
    mirrored = (torch.rand(count // 2, generator=generator) < 0.5).repeat(2)
    place = 2 * landmarks / extent - 1  # -1 to 1
    place = torch.where(mirrored[:, None, None], place[:, MIRRORED_68] * torch.tensor([-1.0, 1.0]), place)
    image = torch.where(mirrored[:, None, None, None], image.flip(-1), image)
    angle, grow, u, v = 2 * torch.rand(4, count, generator=generator) - 1
    angle, grow, shift = turn * angle, (zoom * grow).exp(), move * torch.stack([u, v], -1)
    onto = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).view(-1, 2, 2)
    onto = onto * grow[:, None, None]  # from the new picture to the old, as `grid_sample` asks
    grid = functional.affine_grid(torch.cat([onto, shift[..., None]], 2), list(image.shape), align_corners=False)
    image = functional.grid_sample(image, grid, padding_mode="border", align_corners=False)
    place = torch.linalg.solve(onto, (place - shift[:, None]).mT).mT
    return {**batch, "image": image, "landmarks": (place + 1) / 2 * extent}


def read_pictures(folder: str | Path) -> FacePictures:
    """A set that `build_pictures` made, or one of the same fields. AssetError where it is missing or of another."""
    shards = read_shards(folder)
    if missing := [name for name in FIELDS if name not in shards.fields]:
        raise AssetError(f"{folder} holds no pictures for this: it has no {', '.join(missing)}")
    subjects = shards.column("subject")
    return FacePictures(shards, subjects, torch.arange(len(subjects)))


def build_pictures(
    folder: str | Path, seed: int, people: Sequence[int], pictures: int = 6, side: int = 112,
    yaw_limit: float | int = 50.0, landmark_noise: float | int = 1.0,
) -> FacePictures:  # fmt: skip
    """Photographs 0 to `pictures` - 1 of SynthFace's `people`, cut out around the landmarks to `side` pixels.

    The landmarks are the true ones with noise of `landmark_noise` mm (standard deviation of each coordinate), as a
    detector's. A finished set of the same card is read. RunError where the folder holds another; ValueError for less
    than two pictures a person, or nobody.
    """
    folder, people = Path(folder), [int(k) for k in people]
    if pictures < 2 or not people or len({*people}) < len(people):
        raise ValueError(
            f"{len({*people})} people in {len(people)} places with {pictures} pictures each: give one person or more, "
            "each once, with two pictures or more"
        )
    card = {"kind": "pictures", "seed": seed, "people": people, "pictures": pictures, "side": side,
            "yaw_limit": float(yaw_limit), "landmark_noise": float(landmark_noise)}  # fmt: skip
    if (folder / INDEX).is_file():
        kept = read_pictures(folder)
        if wrong := differences({key: kept.shards.card.get(key) for key in card}, card):
            raise RunError(f"{folder} holds pictures of another kind ({wrong}); choose another folder or remove it")
        return kept
    each = max(1, TOGETHER // pictures)
    batches = [people[first : first + each] for first in range(0, len(people), each)]
    writers = [ShardWriter(folder, card, 1024), ShardWriter(folder / TRUTH, card, 1024, reopen=True)]
    first = min(writer.done for writer in writers)
    for writer in writers:
        writer.keep(first)
    synth = SynthFace(seed)
    for some in batches[first:]:
        for writer, rows in zip(writers, _take(synth, some, pictures, side, yaw_limit, landmark_noise), strict=True):
            writer.append(rows)
    for writer in reversed(writers):  # the pictures last: once they have their index, all of it is there
        writer.close()
    return read_pictures(folder)


def _take(synth, people, pictures, side, yaw_limit, noise) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    subjects, large = [k for k in people for _ in range(pictures)], round(LARGER * side)
    shots = photograph(
        synth, subjects, list(range(pictures)) * len(people), (large, large), float(yaw_limit), supersample=1
    )
    low, high = shots.landmarks.amin(1), shots.landmarks.amax(1)
    corner = (low + high) / 2 - side / 2 - torch.tensor([0.0, RAISED * side])
    corner = corner.round().long().clamp(0, large - side)  # whole pixels: nothing is resampled
    cut = [image[v : v + side, u : u + side] for image, (u, v) in zip(shots.image, corner.tolist(), strict=True)]
    wrong = noise * shots.camera.scale[:, None, None] * torch.cat([_noise(synth.seed, k, pictures) for k in people])
    rows = {"image": (torch.stack(cut) * 255).round().to(torch.uint8), "subject": shots.subject,
            "landmarks": shots.landmarks - corner[:, None] + wrong}  # fmt: skip
    return rows, {"expression": shots.expression, "angles": shots.angles}


def _noise(seed: int, subject: int, pictures: int) -> Float[Tensor, "pictures 68 2"]:
    """Of one person's own generator: the same in any batch."""
    draw = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, subject, 0, NOISE])))
    return torch.from_numpy(draw.standard_normal((pictures, 68, 2)).astype(np.float32))
