"""InsightFace's verification sets (`lfw.bin`, `cfp_fp.bin`, `agedb_30.bin`, `calfw.bin`, `cplfw.bin`), without mxnet.

Such a file is a pickle, written by Python 2 or 3, of two lists: the images as whole JPEG files, pair after pair, and
whether each pair is of one person. It is read without running any of its code (`safe_pickle`). The images have
112 x 112 pixels and are aligned on five points (`crops.ALIGNED`).
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

from facenb.datasets.pictures.records import decode
from facenb.errors import AssetError, ModelFileError
from facenb.morphable.formats.safe_pickle import read_plain


class FaceBin(NamedTuple):
    """Images 2k and 2k + 1 are pair k. Images are decoded when they are asked for."""

    path: Path
    images: tuple[bytes, ...]
    first: Int[Tensor, " pairs"]  # row of each pair's first image
    second: Int[Tensor, " pairs"]
    same: Bool[Tensor, " pairs"]

    def fold(self, folds: int = 10) -> Int[Tensor, " pairs"]:
        """Return folds of equally many pairs in the order of the file, as InsightFace's script and LFW's list do."""
        return torch.arange(len(self.same)) * folds // len(self.same)

    def batch(self, rows: Int[Tensor, " rows"]) -> UInt8[Tensor, "rows height width 3"]:
        """Return several images, RGB. Raises AssetError naming one that is damaged, or not as large as the first."""
        images = [decode(self.images[row], f"Image {row} of {self.path}") for row in rows.tolist()]
        for row, image in zip(rows.tolist(), images, strict=True):
            if image.shape != images[0].shape:
                sizes = f"{tuple(image.shape[:2])}, not {tuple(images[0].shape[:2])}"
                raise AssetError(f"Image {row} of {self.path} has another size: {sizes}")
        return torch.stack(images)


def read_bin(path: str | Path) -> FaceBin:
    """Return a verification set from its file.

    Raises AssetError for a file that is missing, is not such a set, or names code, of which nothing is run.
    """
    path = Path(path)
    if not path.is_file():
        raise AssetError(f"There is no {path}. Place the .bin file of InsightFace's set there.")
    try:
        content = read_plain(path)
    except ModelFileError as error:
        raise AssetError(str(error)) from error
    lists = (list, tuple)
    if not isinstance(content, lists) or len(content) != 2 or not all(isinstance(part, lists) for part in content):
        raise AssetError(f"{path} is not a verification set: expected two lists (images, same or not)")
    files, same = content
    if len(files) != 2 * len(same) or not same:
        raise AssetError(f"{path} holds {len(files)} images for {len(same)} pairs; each pair has two")
    if not all(isinstance(answer, (bool, np.bool_, int, np.integer)) and answer in (0, 1) for answer in same):
        raise AssetError(f"{path} has a pair whose answer is neither 0 (different) nor 1 (same)")
    images = tuple(_jpeg(file, f"Image {row} of {path}") for row, file in enumerate(files))
    rows = torch.arange(len(images)).unflatten(0, (-1, 2))
    return FaceBin(path, images, *rows.unbind(1), torch.tensor([bool(answer) for answer in same]))


def _jpeg(file: object, name: str) -> bytes:
    """Return the bytes of an image, however they were pickled: bytes, text of Python 2, or an array of uint8."""
    if isinstance(file, str):
        return file.encode("latin-1")
    if isinstance(file, np.ndarray) and file.dtype == np.uint8 and file.ndim == 1:
        return file.tobytes()
    if isinstance(file, (bytes, bytearray)):
        return bytes(file)
    raise AssetError(f"{name} is of type {type(file).__name__}, not an image file")
