"""Crops of people's faces with all that is known of each: the only container of images for training and tests.

The targets are results of a fit. The truth (SynthFace) lies in fields named `true_...`, which training never reads.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from facenb.datasets.sets.augmentation import MIRRORED_68, NONE, Augmentation, Draw, network_input
from facenb.datasets.sets.table import Table, read_table
from facenb.errors import AssetError, RunError
from facenb.morphable.model import MorphableModel

TRUE, TURNED = "true_", "_mirrored"  # prefix of fields with the truth; suffix of mirrored targets
TARGETS = ("identity", "expression")  # whitened coefficients of the fit


@dataclass(frozen=True)
class FaceSet:
    """Some rows of a table of faces; implements the protocol of `facenb.training`.

    Every table has `image` (uint8 crops) and `subject` (who it shows). Further fields of batches may be `identity`,
    `expression` and `pose` ([f R | t] of the fit in the crop, facenb.fitting.posed), or `landmarks` (pixels).
    """

    table: Table
    rows: Int[Tensor, " rows"]  # of the table
    augmentation: Augmentation = NONE

    @classmethod
    def in_memory(cls, **columns: Tensor) -> "FaceSet":
        """Return a set of tensors: image, subject and further fields, with equally many rows."""
        table = Table(Path(), {}, {name: tensor.numpy() for name, tensor in columns.items()})
        return cls(table, torch.arange(len(table)))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def card(self) -> dict:
        """How the whole set was made: model, images, size, names of people."""
        return self.table.made

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the crops."""
        return self.table.columns["image"].shape[1:3]

    @cached_property
    def subjects(self) -> Int[Tensor, " rows"]:
        """The subject number of each image, as in its source."""
        return self.read(["subject"])["subject"]

    @cached_property
    def people(self) -> Int[Tensor, " people"]:
        """The subject numbers that occur, sorted."""
        return self.subjects.unique()

    @cached_property
    def labels(self) -> Int[Tensor, " rows"]:
        """The class of each image: 0 to classes - 1 without gaps, in the order of the subject numbers."""
        return torch.searchsorted(self.people, self.subjects)

    @property
    def classes(self) -> int:
        """How many people there are."""
        return len(self.people)

    @property
    def truth(self) -> dict[str, Tensor]:
        """The true values of each image (angles, expression, ...), for evaluation only. Raises RunError if absent."""
        names = [name for name in self.table.columns if name.startswith(TRUE)]
        if not names:
            raise RunError(f"{self.table.folder} holds no ground truth; only images of SynthFace come with it")
        return {name.removeprefix(TRUE): values for name, values in self.read(names).items()}

    @property
    def left_out(self) -> tuple[int, list[str]]:
        """Return how many images of the source are not in the table, and the names of people without one."""
        names, everybody = self.card.get("names", []), set(self.table.columns["subject"].tolist())
        absent = [name for number, name in enumerate(names) if number not in everybody]
        return self.card.get("pictures_given", len(self.table)) - len(self.table), absent

    def read(self, names: Sequence[str], rows: Int[Tensor, " batch"] | None = None) -> dict[str, Tensor]:
        """Return the stored values of these fields. `rows` are numbered within this set (None: all rows)."""
        return self.table.read(self.rows if rows is None else self.rows[rows], names)

    @property
    def image(self) -> UInt8[Tensor, "images height width 3"]:
        """All crops, as bytes."""
        return self.read(["image"])["image"]

    def pictures(self, rows: Int[Tensor, " batch"] | None = None) -> Float[Tensor, "_images height width 3"]:
        """Return crops for display, RGB in [0, 1]."""
        return self.read(["image"], rows)["image"].float() / 255

    def inputs(self, rows: Int[Tensor, " batch"]) -> Float[Tensor, "batch 3 height width"]:
        """Return crops as network inputs: RGB in [-1, 1], channels first."""
        return network_input(self.read(["image"], rows)["image"], None)

    def load(self, rows: Int[Tensor, " batch"], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Return a batch: image (B, 3, H, W) in [-1, 1], the further fields, `label`, and `row` in the table.

        Random changes are drawn from `generator` alone; without one, images are not changed.
        """
        draw = None if generator is None else self.augmentation.draw(len(rows), generator)
        every = self.table.columns
        names = [name for name in every if not name.startswith(TRUE) and not name.endswith(TURNED)]
        mirrored = [f"{name}{TURNED}" for name in names if f"{name}{TURNED}" in every]
        stored = self.read([*names, *(mirrored if draw and self.augmentation.mirror else [])], rows)
        batch = {name: self._changed(name, stored, draw) for name in names}
        image = network_input(stored["image"], draw)
        return {**batch, "image": image, "label": self.labels[rows], "row": self.rows[rows]}

    def _changed(self, name: str, stored: dict[str, Tensor], draw: Draw | None) -> Tensor:
        """Return a field of the images after mirroring and shifting."""
        values = stored[name]
        if draw is None:
            return values
        if f"{name}{TURNED}" in stored:
            values = torch.where(draw.flip[:, None], stored[f"{name}{TURNED}"], values)
        if name == "landmarks":
            turned = torch.tensor([self.size[1], 0.0]) + torch.tensor([-1.0, 1.0]) * values[:, MIRRORED_68]
            values = torch.where(draw.flip[:, None, None], turned, values) + draw.shift[:, None]
        if name == "pose":
            values = values.clone()
            values[:, [3, 7]] += draw.shift
        return values

    def augmented(self, **options: Any) -> "FaceSet":
        """Return the same images with random changes (Augmentation). Raises RunError if targets cannot be mirrored."""
        augmentation = replace(self.augmentation, **options)
        fitted = [name for name in (*TARGETS, "pose") if name in self.table.columns]
        if augmentation.mirror and not all(f"{name}{TURNED}" in self.table.columns for name in fitted):
            raise RunError(f"{self.table.folder} holds no targets of mirrored faces, so images cannot be mirrored")
        return replace(self, augmentation=augmentation)

    def take(self, rows: Tensor) -> "FaceSet":
        """Return some of the images, given by row or by a mask."""
        return replace(self, rows=self.rows[rows])

    def of(self, people: Sequence[int] | Tensor) -> "FaceSet":
        """Return the images of these subjects. Raises RunError naming a subject who is not there."""
        wanted = torch.as_tensor(people, dtype=torch.int64).unique()
        absent = wanted[~torch.isin(wanted, self.people)]
        if len(absent) or not len(wanted):
            what = f"subject {int(absent[0])}" if len(absent) else "nobody"
            raise RunError(f"{self.table.folder} has {self.classes} people, but not the one asked for: {what}")
        return self.take(torch.isin(self.subjects, wanted))

    def split(
        self, validation: float = 0.1, test: float = 0.2, seed: int = 0, without: Collection[str] = ()
    ) -> "Split":
        """Return training, validation and test people, drawn by seed; each person is in one of them only.

        `validation` and `test` are fractions of the people; 0 gives an empty set. People named in `without` are in no
        set. Raises RunError if a set of a larger fraction would be empty.
        """
        apart = [number for number, name in enumerate(self.card.get("names", [])) if name in without]
        people = self.people[~torch.isin(self.people, torch.tensor(apart, dtype=torch.int64))]
        order = people[torch.randperm(len(people), generator=torch.Generator().manual_seed(seed))]
        counts = [round(test * len(order)), round(validation * len(order))]
        tested, watched, taught = order.split([*counts, len(order) - sum(counts)])
        for name, part, share in (("test", tested, test), ("validation", watched, validation), ("training", taught, 1)):
            if not len(part) and share:
                raise RunError(f"The split leaves no {name} people of {len(order)}; change its shares")
        return Split(*(self.take(torch.isin(self.subjects, part)) for part in (taught, watched, tested)))


class Split(NamedTuple):
    """Three sets of images without common people: nobody is in two of the sets."""

    train: FaceSet
    validation: FaceSet
    test: FaceSet


def describe(model: MorphableModel) -> dict:
    """Return the description, for a set's card, of the model whose coefficients the set holds."""
    bases = {"identity": len(model.identity_basis), "expression": len(model.expression_basis)}
    return {"name": model.name, "source": model.source, "vertices": len(model.mean), **bases}


def read_faces(folder: str | Path) -> FaceSet:
    """Return a set that a builder made. Raises AssetError if the folder holds none, or a damaged or another one."""
    table = read_table(folder)
    lacks = [name for name in ("image", "subject") if name not in table.columns]
    if lacks:
        fields = ", ".join(table.columns)
        raise AssetError(f"{folder} holds no faces: it has no {' and no '.join(lacks)}, only {fields}")
    return FaceSet(table, torch.arange(len(table)))
