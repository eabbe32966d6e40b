"""ORL faces (AT&T): s1 to s40, each with images 1 to 10 of 92 x 112 grey pixels.

In one copy of the set, s1 and s2 are two other people (`python -m data_download where orl`).
"""

from pathlib import Path

from facenb.datasets.folders import AGAIN, files_in, find_folder
from facenb.errors import AssetError

PEOPLE, PHOTOS = 40, 10


def read_orl(folder: str | Path | None = None) -> list[list[Path]]:
    """Return the ten photos of each person, s1 to s40, by number. Raises AssetError naming a photo that is missing."""
    inner = find_folder(folder, "orl", lambda inner: (inner / "s1").is_dir(), "folders s1 to s40")
    return [_photos(inner / f"s{person}") for person in range(1, PEOPLE + 1)]


def _photos(folder: Path) -> list[Path]:
    photos = {photo.stem: photo for photo in files_in(folder)}
    try:
        return [photos[str(number)] for number in range(1, PHOTOS + 1)]
    except KeyError as error:
        raise AssetError(f"{folder / error.args[0]}.pgm is missing. {AGAIN}") from error
