"""ORL faces (AT&T) in their official layout: s1 to s40, each with 1.pgm to 10.pgm of 92 x 112 grey pixels.

Of copies that circulate, one has two other people as s1 and s2 (`python -m data_download where orl`).
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from facenb.assets import asset
from facenb.errors import AssetError
from facenb.photos.images import read_image

PEOPLE, PHOTOS = 40, 10


@dataclass(frozen=True)
class ORL:
    """Ten photos of each of forty people, in the order of their numbers."""

    people: tuple[tuple[Path, ...], ...]

    def images(self, person: int) -> Float[Tensor, "10 112 92 3"]:
        """A person's ten photos (person from 0), RGB alike."""
        return torch.stack([read_image(path) for path in self.people[person]])


def read_orl(folder: str | Path | None = None) -> ORL:
    """ORL from the folder that holds s1 ... s40, or one above it; None: the asset `orl`.

    Raises AssetError naming the first photo that is missing.
    """
    root = Path(folder) if folder is not None else asset("orl")
    inner = next((path.parent for path in sorted(root.rglob("s1")) if path.is_dir()), root)
    people = tuple(
        tuple(inner / f"s{person}" / f"{photo}.pgm" for photo in range(1, PHOTOS + 1))
        for person in range(1, PEOPLE + 1)
    )
    missing = [path for photos in people for path in photos if not path.is_file()]
    if missing:
        raise AssetError(f"{missing[0]} is missing; get it with `python -m data_download get orl`")
    return ORL(people)
