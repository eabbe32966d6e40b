"""InsightFace's verification sets (`lfw.bin`, `cfp_fp.bin`, `agedb_30.bin`, `calfw.bin`, `cplfw.bin`), without mxnet.

Such a file is a pickle, written by Python 2 or 3, of two lists: the pictures as whole JPEG files, pair after pair, and
whether each pair is of one person. It is read without running anything of it (`safe_pickle`). The pictures are
112 x 112 pixels, aligned on five points (`crops.ALIGNED`).
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt8
from PIL import Image
from torch import Tensor

from facenb.errors import AssetError, ModelFileError
from facenb.morphable.formats.safe_pickle import read_plain


@dataclass(frozen=True)
class FaceBin:
    """Pictures 2k and 2k + 1 are pair k. Pictures are decoded when they are asked for."""

    path: Path
    pictures: tuple[bytes, ...]
    same: Bool[Tensor, " pairs"]

    @property
    def first(self) -> Int[Tensor, " pairs"]:
        """Row of each pair's first picture."""
        return torch.arange(0, len(self.pictures), 2)

    @property
    def second(self) -> Int[Tensor, " pairs"]:
        """Row of each pair's second picture."""
        return torch.arange(1, len(self.pictures), 2)

    def fold(self, folds: int = 10) -> Int[Tensor, " pairs"]:
        """Folds of equally many pairs in the order of the file, as InsightFace's script and LFW's list have them."""
        if not 2 <= folds <= len(self.same):
            raise ValueError(f"{len(self.same)} pairs cannot be cut into {folds} folds")
        return torch.arange(len(self.same)) * folds // len(self.same)

    def picture(self, row: int) -> UInt8[Tensor, "height width 3"]:
        """A picture, RGB. AssetError naming one that cannot be decoded."""
        try:
            with Image.open(io.BytesIO(self.pictures[row])) as image:
                return torch.from_numpy(np.array(image.convert("RGB")))
        except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
            raise AssetError(f"picture {row} of {self.path} cannot be decoded ({error}); get the file again") from error

    def batch(self, rows: Int[Tensor, " rows"]) -> UInt8[Tensor, "rows height width 3"]:
        """Several pictures; AssetError naming the first whose size is another than the first one's."""
        images = [self.picture(row) for row in rows.tolist()]
        for row, image in zip(rows.tolist(), images, strict=True):
            if image.shape != images[0].shape:
                sizes = f"{tuple(image.shape[:2])}, others {tuple(images[0].shape[:2])}"
                raise AssetError(f"picture {row} of {self.path} has another size than the others: {sizes}")
        return torch.stack(images)


def read_bin(path: str | Path) -> FaceBin:
    """A verification set from its file.

    Raises AssetError for a file that is missing, no such set, or names code in its pickle, of which nothing is run.
    """
    path = Path(path)
    if not path.is_file():
        raise AssetError(f"there is no {path}; place the .bin file of InsightFace's set there")
    try:
        content = read_plain(path)
    except ModelFileError as error:
        raise AssetError(str(error)) from error
    lists = (list, tuple)
    if not isinstance(content, lists) or len(content) != 2 or not all(isinstance(part, lists) for part in content):
        raise AssetError(f"{path} holds no pair of lists (pictures, same or not); it is no verification set")
    pictures, same = content
    if len(pictures) != 2 * len(same) or not same:
        raise AssetError(f"{path} holds {len(pictures)} pictures for {len(same)} pairs; each pair has two")
    kinds = [bool(kind) for kind in same if isinstance(kind, (bool, np.bool_, int, np.integer)) and kind in (0, 1)]
    if len(kinds) != len(same):
        raise AssetError(f"{path} says of {len(same) - len(kinds)} pairs neither that they are the same nor not")
    return FaceBin(path, tuple(_jpeg(row, one, path) for row, one in enumerate(pictures)), torch.tensor(kinds))


def _jpeg(row: int, one: object, path: Path) -> bytes:
    """The bytes of a picture, however they were pickled: bytes, text of Python 2, or an array of uint8."""
    if isinstance(one, str):
        return one.encode("latin-1")
    if isinstance(one, np.ndarray) and one.dtype == np.uint8 and one.ndim == 1:
        return one.tobytes()
    if isinstance(one, (bytes, bytearray)):
        return bytes(one)
    raise AssetError(f"picture {row} of {path} is a {type(one).__name__}, no file of a picture")
