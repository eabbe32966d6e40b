"""Labeled Faces in the Wild in its official layout: a folder a person, and pairs.txt (View 2, ten folds).

The person a photo is named after is the face in its centre; others may stand beside.
"""

from dataclasses import dataclass
from pathlib import Path

from facenb.assets import asset
from facenb.errors import AssetError

FOLDERS = ("lfw-deepfunneled", "lfw_funneled", "lfw-funneled", "lfw")


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
        """People with `count` photos or more."""
        return {name: photos for name, photos in self.people.items() if len(photos) >= count}

    def photo(self, name: str, number: int) -> Path:
        """A photo as pairs.txt counts them, from 1. AssetError naming the file if it is not there."""
        path = self.folder / name / f"{name}_{number:04d}.jpg"
        if not path.is_file():
            raise AssetError(f"{self.pairs_file} names {path}, which is not there; get LFW again")
        return path

    def pairs(self) -> list[Pair]:
        """The pairs, fold after fold, same before different (Huang et al. 2007). AssetError where a line is wrong."""
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
        fold, place = divmod(number, 2 * each)
        try:
            if place < each:
                name, first, second = row
                return Pair(self.photo(name, int(first)), self.photo(name, int(second)), True, fold)
            name, first, other, second = row
            return Pair(self.photo(name, int(first)), self.photo(other, int(second)), False, fold)
        except ValueError as error:
            raise AssetError(f"{self.pairs_file}, line {number + 2}, is no pair: {' '.join(row)}") from error


def read_lfw(folder: str | Path | None = None) -> LFW:
    """LFW from a folder that holds the unpacked archive and pairs.txt; None: the asset `lfw`.

    Raises AssetError naming what is missing.
    """
    root = Path(folder) if folder is not None else asset("lfw")
    found = next((root / name for name in FOLDERS if (root / name).is_dir()), None)
    if found is None:
        raise AssetError(f"{root} holds none of {', '.join(FOLDERS)}; get it with `python -m data_download get lfw`")
    if not (root / "pairs.txt").is_file():
        raise AssetError(f"there is no {root / 'pairs.txt'}; get it with `python -m data_download get lfw`")
    people = {person.name: tuple(sorted(person.glob("*.jpg"))) for person in sorted(found.iterdir()) if person.is_dir()}
    return LFW(found, {name: photos for name, photos in people.items() if photos}, root / "pairs.txt")
