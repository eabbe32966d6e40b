"""Labeled Faces in the Wild: a folder for each person, and `pairs.txt` (View 2, ten folds; Huang et al. 2007).

The person a photo is named after is the face in its centre; other people may stand beside.
"""

from dataclasses import dataclass
from pathlib import Path

from facenb.datasets.layout import files_in, find_folder, folders_in
from facenb.errors import AssetError


@dataclass(frozen=True)
class Pair:
    """Two photos and whether they show the same person."""

    first: Path
    second: Path
    same: bool
    fold: int  # from 0


@dataclass(frozen=True)
class LFW:
    """The photos of each person, both in alphabetical order, and the pairs of View 2."""

    folder: Path
    people: dict[str, tuple[Path, ...]]
    pairs_file: Path

    def with_at_least(self, count: int) -> dict[str, tuple[Path, ...]]:
        """Return the people with `count` photos or more."""
        return {name: photos for name, photos in self.people.items() if len(photos) >= count}

    def photo(self, name: str, number: int) -> Path:
        """Return a photo as pairs.txt counts them, from 1. Raises AssetError naming the file if it is missing."""
        stem = f"{name}_{number:04d}"
        for photo in self.people.get(name, ()):
            if photo.stem == stem:
                return photo
        raise AssetError(f"{self.pairs_file} names {self.folder / name / stem}, which is missing. Get LFW again.")

    def pairs(self) -> list[Pair]:
        """Return the pairs, fold after fold, same before different. Raises AssetError naming a line that is wrong."""
        lines = self.pairs_file.read_text(encoding="utf-8").splitlines()
        try:
            folds, each = (int(word) for word in lines[0].split())
        except (ValueError, IndexError) as error:
            raise AssetError(f"{self.pairs_file} does not begin with the number of folds and pairs") from error
        rows = [line.split() for line in lines[1:] if line.strip()]
        if len(rows) != folds * each * 2:
            raise AssetError(f"{self.pairs_file} announces {folds * each * 2} pairs, but holds {len(rows)}")
        return [self._pair(row, number, each) for number, row in enumerate(rows)]

    def _pair(self, row: list[str], number: int, each: int) -> Pair:
        fold, within = divmod(number, 2 * each)
        try:
            if within < each:
                name, first, second = row
                return Pair(self.photo(name, int(first)), self.photo(name, int(second)), True, fold)
            name, first, other, second = row
            return Pair(self.photo(name, int(first)), self.photo(other, int(second)), False, fold)
        except ValueError as error:
            raise AssetError(f"{self.pairs_file}, line {number + 2}, is not a pair: {' '.join(row)}") from error


def read_lfw(folder: str | Path | None = None) -> LFW:
    """Return LFW from a folder with the unpacked archive and pairs.txt, at any depth to three. None: the asset `lfw`.

    Raises AssetError with what was expected and what was found.
    """
    inner = find_folder(folder, "lfw", _holds_people, "folders of people with images like Ann_Bee/Ann_Bee_0001.jpg")
    lists = find_folder(folder, "lfw", lambda folder: (folder / "pairs.txt").is_file(), "pairs.txt")
    people = {person.name: tuple(files_in(person)) for person in folders_in(inner)}
    return LFW(inner, {name: photos for name, photos in people.items() if photos}, lists / "pairs.txt")


def _holds_people(folder: Path) -> bool:
    return any(
        photo.stem.startswith(f"{person.name}_") for person in folders_in(folder) for photo in files_in(person)[:1]
    )
