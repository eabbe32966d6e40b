"""The training set of Liu et al. 2018: crops with identity and fitted coefficients, split by subject, as batches.

Targets are what the fit found, never the ground truth; that lies in a folder of its own (`TrainingSet.truth`), for
evaluation only.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facenb.datasets.sets.augmentation import NONE, Augmentation, Draw, network_input
from facenb.datasets.sets.scaling import Scaling, TargetScaling
from facenb.datasets.sets.shards import Shards, read_shards
from facenb.errors import AssetError, RunError
from facenb.morphable.model import MorphableModel

FIELDS = ("image", "subject", "identity", "expression")
MIRRORED = ("identity_mirrored", "expression_mirrored")
POSE = "pose"  # [f R | t] of the fit in the crop (facenb.fitting.posed); sets made before it was kept lack it
TRUTH = "truth"


@dataclass(frozen=True)
class Subset:
    """Some people's pictures as batches for a network; implements the protocol of `facenb.training`."""

    set: "TrainingSet"
    rows: Int[Tensor, " rows"]  # of the whole set
    labels: Int[Tensor, " rows"]  # 0 to classes - 1, without gaps
    scaling: TargetScaling
    augmentation: Augmentation = NONE
    posed: bool = False  # batches come with the pose

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def classes(self) -> int:
        """How many people."""
        return int(self.labels.max()) + 1 if len(self.labels) else 0

    @property
    def subjects(self) -> Int[Tensor, " rows"]:
        """The set's subject number of each row."""
        return self.set.subjects[self.rows]

    @property
    def truth(self) -> dict[str, Tensor]:
        """The small true values of each row (angles, expression, ...), for evaluation only. RunError without any."""
        return self.set.truth_of(self.rows)

    def augmented(self, **options: Any) -> "Subset":
        """The same pictures with random changes (see Augmentation). RunError where mirrored targets are not there."""
        asked = replace(self.augmentation, **options)
        if asked.mirror and not self.set.has_mirrored:
            raise RunError(f"{self.set.folder} holds no targets of mirrored faces, so pictures cannot be mirrored")
        return replace(self, augmentation=asked)

    def with_pose(self) -> "Subset":
        """The same, its batches with `pose` (B, 12) as well. RunError for a set that was made without."""
        if POSE not in self.set.shards.fields:
            raise RunError(
                f"{self.set.folder} was made before sets kept the pose of each fit; remove this folder and run again: "
                "it is then made anew"
            )
        return replace(self, posed=True)

    @property
    def poses(self) -> Float[Tensor, "rows 12"]:
        """[f R | t] of each row's fit in its crop, pictures as they are. RunError for a set that was made without."""
        return self.with_pose().set.shards.read(self.rows, [POSE])[POSE]

    def load(self, rows: Int[Tensor, " batch"], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """A batch: image (B, 3, H, W) in [-1, 1], identity and residual codes, label, and row in the whole set.

        `rows` count within this subset. The augmentation draws from `generator` alone; without one, or with all off,
        pictures come as they are. Raises IndexError for a row that is not there.
        """
        if len(rows) and not (0 <= int(rows.min()) and int(rows.max()) < len(self)):
            raise IndexError(f"rows {int(rows.min())} to {int(rows.max())} were asked for; there are {len(self)}")
        draw = None if generator is None else self.augmentation.draw(len(rows), generator)
        mirrored = MIRRORED if self.augmentation.mirror and draw else ()
        pose = [POSE] * self.posed + [f"{POSE}_mirrored"] * (self.posed and bool(mirrored))
        read = self.set.shards.read(self.rows[rows], [*FIELDS, *mirrored, *pose])
        identity, expression = read["identity"], read["expression"]
        if mirrored:
            identity = torch.where(draw.flip[:, None], read["identity_mirrored"], identity)
            expression = torch.where(draw.flip[:, None], read["expression_mirrored"], expression)
        image = network_input(read["image"], draw)
        batch = {
            "image": image, "identity": self.scaling.identity.to_codes(identity),
            "residual": self.scaling.expression.to_codes(expression), "label": self.labels[rows],
            "row": self.rows[rows],
        }  # fmt: skip
        return batch | ({POSE: self._pose(read, draw)} if self.posed else {})

    @staticmethod
    def _pose(read: dict[str, Tensor], draw: Draw | None) -> Float[Tensor, "batch 12"]:
        """The pose in the picture as it was altered: mirrored, then shifted."""
        pose = read[POSE]
        if draw is None:
            return pose
        if f"{POSE}_mirrored" in read:
            pose = torch.where(draw.flip[:, None], read[f"{POSE}_mirrored"], pose)
        moved = pose.clone()
        moved[:, [3, 7]] += draw.shift
        return moved


@dataclass(frozen=True)
class Split:
    """People apart: nobody is in two of the subsets. The scaling is of the training people alone."""

    train: Subset
    validation: Subset
    test: Subset

    @property
    def scaling(self) -> TargetScaling:
        return self.train.scaling


@dataclass(frozen=True)
class TrainingSet:
    """Crops with subject and fitted, whitened coefficients, as `read_training_set` or a builder gives it."""

    shards: Shards

    @property
    def folder(self) -> Path:
        return self.shards.folder

    @property
    def card(self) -> dict:
        """What the set is: model, pictures, how they were made, who was left out."""
        return self.shards.card

    def __len__(self) -> int:
        return len(self.shards)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the crops."""
        return tuple(self.shards.fields["image"]["shape"][:2])

    @property
    def has_mirrored(self) -> bool:
        """Whether targets of the mirrored pictures are there."""
        return all(name in self.shards.fields for name in MIRRORED)

    @cached_property
    def subjects(self) -> Int[Tensor, " rows"]:
        """The subject number of each row, as its source counts."""
        return self.shards.column("subject")

    @cached_property
    def people(self) -> Int[Tensor, " people"]:
        """The subject numbers there are, sorted."""
        return self.subjects.unique()

    @property
    def labels(self) -> Int[Tensor, " rows"]:
        """Class of each row: 0 to people - 1 without gaps, whatever the subject numbers are."""
        return torch.searchsorted(self.people, self.subjects)

    @cached_property
    def truth(self) -> Shards:
        """True values, row by row, for evaluation only. RunError where none are known (photos)."""
        if not (self.folder / TRUTH).is_dir():
            raise RunError(f"{self.folder} holds no ground truth; only pictures of SynthFace come with it")
        return read_shards(self.folder / TRUTH, self.shards.check)

    def truth_of(self, rows: Int[Tensor, " rows"]) -> dict[str, Tensor]:
        """True values of these rows."""
        return self.truth.read(rows)

    @property
    def left_out(self) -> tuple[int, list[str]]:
        """How many of the pictures given showed no face that could be used, and the names of people not here at all."""
        names = self.card.get("names", [])
        there = set(self.people.tolist())
        absent = [name for number, name in enumerate(names) if number not in there]
        return self.card.get("pictures_given", len(self)) - len(self), absent

    def of(self, people: Sequence[int] | Tensor, scaling: TargetScaling | None = None) -> Subset:
        """The pictures of these subjects; labels count them in sorted order. Scaling: None makes it of them.

        RunError naming a subject that is not there.
        """
        asked = torch.as_tensor(people, dtype=torch.int64).unique()
        absent = asked[~torch.isin(asked, self.people)]
        if len(absent) or not len(asked):
            what = f"subject {int(absent[0])}" if len(asked) else "an empty list of subjects"
            raise RunError(f"{self.folder} has no {what}; it has {len(self.people)} people, {self._range()}")
        rows = torch.isin(self.subjects, asked).nonzero()[:, 0]
        if scaling is None:
            scaling = self._scaling(rows)
        return Subset(self, rows, torch.searchsorted(asked, self.subjects[rows]), scaling)

    def _range(self) -> str:
        return f"{int(self.people[0])} to {int(self.people[-1])}"

    def _scaling(self, rows: Tensor) -> TargetScaling:
        """Of these rows' targets, a part at a time; not finite ones show in the ends."""
        ends = []
        for name in ("identity", "expression"):
            parts = (self.shards.read(some, [name])[name] for some in rows.split(65536))
            ends.append(torch.cat([torch.stack([part.amin(0), part.amax(0)]) for part in parts]))
        return TargetScaling(*map(Scaling.of, ends))

    def numbers(self, names: Collection[str]) -> Int[Tensor, " people"]:
        """Subject numbers of the people of these names; a name that is not in the set is passed over."""
        wanted, listed = set(names), self.card.get("names", [])
        chosen = torch.tensor([k for k, name in enumerate(listed) if name in wanted], dtype=torch.int64)
        return chosen[torch.isin(chosen, self.people)]

    def split(
        self, validation: float = 0.1, test: float | Sequence[int] = 0.2, seed: int = 0, without: Collection[str] = ()
    ) -> Split:
        """Training, validation and test people, drawn by seed; each person is in one of them only.

        `test`: a share of the people, or the subjects themselves. Validation is a share of all people, of those that
        are left; a share of 0 gives an empty subset. People named in `without` are in none (those of LFW's pairs).
        RunError where another part would be empty, or a person of the training has one picture only.
        """
        people = self.people[~torch.isin(self.people, self.numbers(without))]
        order = people[torch.randperm(len(people), generator=torch.Generator().manual_seed(seed))]
        shared = isinstance(test, (float, int))
        if not 0 <= validation <= 1 or shared and not 0 <= test <= 1:
            raise ValueError(f"validation is {validation} and test {test}; shares lie between 0 and 1")
        chosen = order[: round(test * len(order))] if shared else torch.as_tensor(test, dtype=torch.int64)
        rest = order[~torch.isin(order, chosen)]
        count = round(validation * len(order))
        parts = {"training": (rest[count:], 1), "validation": (rest[:count], validation), "test": (chosen, test)}
        for name, (some, share) in parts.items():
            if not len(some) and share != 0:
                raise RunError(f"the split leaves no {name} people of {len(order)}; change its shares")
        self._check_pictures(rest[count:])
        train = self.of(rest[count:])
        return Split(train, self._part(rest[:count], train), self._part(chosen, train))

    def _part(self, people: Tensor, train: Subset) -> Subset:
        if len(people):
            return self.of(people, train.scaling)
        return replace(train, rows=train.rows[:0], labels=train.labels[:0])

    def _check_pictures(self, people: Tensor) -> None:
        """A class of one picture teaches nothing about what stays the same in a person."""
        counts = torch.bincount(self.labels)
        alone = people[counts[torch.searchsorted(self.people, people)] < 2]
        if len(alone):
            raise RunError(
                f"subject {int(alone[0])} of {self.folder} has one picture only ({len(alone)} such people); "
                "build the set with at least two pictures a person"
            )


def describe(model: MorphableModel) -> dict:
    """What a set's card says of the model whose coefficients it holds."""
    return {"name": model.name, "source": model.source, "vertices": len(model.mean),
            "identity": len(model.identity_basis), "expression": len(model.expression_basis)}  # fmt: skip


def read_training_set(folder: str | Path, model: MorphableModel | None = None, check: bool = True) -> TrainingSet:
    """A set that a builder made. With `model`, its targets must be coefficients of that very model.

    Raises AssetError where the folder holds no finished set, a damaged one or one without the fields of training;
    RunError, naming both models, where the targets are another model's.
    """
    shards = read_shards(folder, check)
    missing = [name for name in FIELDS if name not in shards.fields]
    if missing:
        raise AssetError(
            f"{folder} is no training set: it has no {', '.join(missing)}, only {', '.join(shards.fields)}"
        )
    if model is not None and shards.card.get("model") != describe(model):
        raise RunError(
            f"the targets in {folder} are of the model {shards.card.get('model')}, not {describe(model)}; "
            "build the set with this model, or use that one"
        )
    return TrainingSet(shards)
