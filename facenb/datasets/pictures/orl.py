"""ORL faces (AT&T): s1 to s40, each with images 1 to 10 of 92 x 112 grey pixels.

One copy that circulates has two other people as s1 and s2 (`python -m data_download where orl`).
"""

from dataclasses import dataclass
from pathlib import Path

from facenb.assets import asset
from facenb.datasets.layout import files_in, find_folder
from facenb.errors import AssetError

PEOPLE, PHOTOS = 40, 10
GET = "`python -m data_download get orl` gets it"


@dataclass(frozen=True)
class ORL:
    """Ten photos of each of forty people, in the order of their numbers."""

    people: tuple[tuple[Path, ...], ...]


def read_orl(folder: str | Path | None = None) -> ORL:
    """Return ORL from the folder that holds s1 ... s40, or one above it. None: the asset `orl`.

    Raises AssetError naming the first photo that is missing.
    """
    root = Path(folder) if folder is not None else asset("orl")
    inner = find_folder(root, lambda found: (found / "s1").is_dir(), f"folders s1 to s40 ({GET})")
    people = []
    for person in range(1, PEOPLE + 1):
        photos = {photo.stem: photo for photo in files_in(inner / f"s{person}")}
        missing = [number for number in range(1, PHOTOS + 1) if str(number) not in photos]
        if missing:
            raise AssetError(f"{inner / f's{person}' / str(missing[0])}.pgm is missing; {GET}")
        people.append(tuple(photos[str(number)] for number in range(1, PHOTOS + 1)))
    return ORL(tuple(people))
