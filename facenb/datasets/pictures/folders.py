"""A folder of pictures with one directory a person, as most sets of faces are handed on."""

from dataclasses import dataclass
from pathlib import Path

from facenb.errors import AssetError

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".pgm", ".ppm", ".tif", ".tiff"}


@dataclass(frozen=True)
class PictureFolder:
    """The pictures of each person, people and pictures in alphabetical order."""

    folder: Path
    people: dict[str, tuple[Path, ...]]

    def __len__(self) -> int:
        """How many pictures."""
        return sum(map(len, self.people.values()))

    def with_at_least(self, count: int) -> dict[str, tuple[Path, ...]]:
        """People with `count` pictures or more."""
        return {name: pictures for name, pictures in self.people.items() if len(pictures) >= count}


def read_folder(folder: str | Path) -> PictureFolder:
    """The people of a folder: its directories that hold pictures (by suffix), hidden ones and other files left out.

    Raises AssetError where there is no such folder, pictures lie beside the directories instead of in them, or a
    directory holds none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise AssetError(f"there is no folder {folder}; give one that holds a directory of pictures for each person")
    loose = next(
        (file for file in sorted(folder.iterdir()) if file.suffix.lower() in SUFFIXES and file.is_file()), None
    )
    if loose is not None:
        raise AssetError(f"{loose} lies beside the people; put each picture in the directory of its person")
    people = {one.name: _pictures(one) for one in sorted(folder.iterdir()) if one.is_dir() and one.name[0] != "."}
    empty = [name for name, pictures in people.items() if not pictures]
    if empty or not people:
        what = f"{folder / empty[0]} holds no pictures" if empty else f"{folder} holds no directories"
        raise AssetError(
            f"{what}; there must be a directory for each person, with pictures ({', '.join(sorted(SUFFIXES))})"
        )
    return PictureFolder(folder, people)


def _pictures(folder: Path) -> tuple[Path, ...]:
    files = (file for file in sorted(folder.iterdir()) if file.suffix.lower() in SUFFIXES and file.name[0] != ".")
    return tuple(file for file in files if file.is_file())
