"""Labeled Faces in the Wild: a folder for each person, and `pairs.txt` (View 2, ten folds; Huang et al. 2007).

Each photo is named after one person. The face in its centre is that person's. Other people may be beside it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from jaxtyping import Bool, Int
from torch import Tensor

from facenb.datasets.folders import AGAIN, files_in, find_folder, folders_in
from facenb.errors import AssetError


class Pair(NamedTuple):
    """Two photos and whether they show the same person."""

    first: Path
    second: Path
    same: bool
    fold: int  # from 0


class Pairs(NamedTuple):
    """The rows of the two images of each pair, whether they show the same person, and the fold from 0."""

    first: Int[Tensor, " pairs"]
    second: Int[Tensor, " pairs"]
    same: Bool[Tensor, " pairs"]
    fold: Int[Tensor, " pairs"]


@dataclass(frozen=True)
class LFW:
    """The photos of each person and the pairs of View 2. People and photos are in alphabetical order."""

    people: dict[str, tuple[Path, ...]]
    pairs_file: Path

    def with_at_least(self, count: int) -> dict[str, tuple[Path, ...]]:
        """Return the people with `count` photos or more."""
        return {name: photos for name, photos in self.people.items() if len(photos) >= count}

    def pairs(self) -> list[Pair]:
        """Return the pairs by fold. In each fold, the pairs of one person come first.

        Raises AssetError naming what is wrong.
        """
        lines = self.pairs_file.read_text(encoding="utf-8").splitlines()
        try:
            folds, each = (int(word) for word in lines[0].split())
        except (ValueError, IndexError) as error:
            raise AssetError(f"{self.pairs_file} does not begin with the number of folds and pairs") from error
        rows = [line.split() for line in lines[1:] if line.strip()]
        if len(rows) != folds * each * 2:
            raise AssetError(f"{self.pairs_file} announces {folds * each * 2} pairs, but holds {len(rows)}")
        photos = {photo.stem: photo for several in self.people.values() for photo in several}
        pairs = []
        for number, row in enumerate(rows):
            fold, within = divmod(number, 2 * each)
            same = within < each
            try:
                name, first, other, second = (row[0], row[1], row[0], *row[2:]) if same else row
                stems = f"{name}_{int(first):04d}", f"{other}_{int(second):04d}"
                pairs.append(Pair(photos[stems[0]], photos[stems[1]], same, fold))
            except (ValueError, IndexError) as error:
                raise AssetError(f"{self.pairs_file}, line {number + 2}, is not a pair: {' '.join(row)}") from error
            except KeyError as error:
                raise AssetError(f"{self.pairs_file} names {error.args[0]}, which is missing. {AGAIN}") from error
        return pairs


def read_lfw(folder: str | Path | None = None) -> LFW:
    """Return LFW from a folder with the unpacked archive and pairs.txt (None: the asset). Raises AssetError."""
    inner = find_folder(folder, "lfw", _holds_people, "folders of people with images like Ann_Bee/Ann_Bee_0001.jpg")
    lists = find_folder(folder, "lfw", lambda folder: (folder / "pairs.txt").is_file(), "pairs.txt")
    people = {person.name: tuple(files_in(person)) for person in folders_in(inner)}
    return LFW({name: photos for name, photos in people.items() if photos}, lists / "pairs.txt")


def _holds_people(folder: Path) -> bool:
    return any(
        photo.stem.startswith(f"{person.name}_") for person in folders_in(folder) for photo in files_in(person)[:1]
    )
