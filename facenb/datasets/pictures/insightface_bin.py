"""InsightFace's binary files, read without mxnet: record files to train on, `.bin` sets to verify on.

A `.bin` file (`lfw.bin`, `cfp_fp.bin`, `agedb_30.bin`, `calfw.bin`, `cplfw.bin`) is a pickle file, written by Python 2
or 3. It holds two lists. The first holds the images as whole JPEG files, pair by pair. The second says whether each
pair shows one person. The file is read without running any of its code (`safe_pickle`). All images have 112 x 112
pixels, aligned on five points (`crops`).

`train.rec` and `train.idx` have the RecordIO format. A record has one or more parts. Each part has a header of 8 bytes
and its content, padded to a multiple of four bytes. The header holds a magic number, 3 bits for the kind (whole record,
first, middle or last part) and 29 bits for the length. If the magic number occurs inside the content, the record is
split there and the number is left out. The record of an image begins with flag (uint32), label (float32), id and id2
(uint64). If the flag is n > 0, n float32 values follow. They are the label. `train.idx` gives each record's key and
offset. In InsightFace's sets, record 0 is not an image. Its label says which keys belong to images.
"""

import io
import mmap
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int, UInt8
from PIL import Image
from torch import Tensor

from facenb.datasets.folders import AGAIN, find_folder
from facenb.datasets.pictures.lfw import Pairs
from facenb.errors import AssetError, ModelFileError
from facenb.morphable.formats.safe_pickle import read_plain

MAGIC = 0xCED7230A
FOLDS = 10
WHOLE, FIRST, MIDDLE, LAST = range(4)
HEAD = struct.Struct("<IfQQ")


class FaceBin(NamedTuple):
    """Images 2k and 2k + 1 are pair k. Images are decoded when they are asked for."""

    path: Path
    images: tuple[bytes, ...]
    pairs: Pairs  # in ten folds in the order of the file, as in InsightFace's script and LFW's list

    def batch(self, rows: Int[Tensor, " rows"]) -> UInt8[Tensor, "rows height width 3"]:
        """Return RGB images. Raises AssetError naming one that is damaged or differs in size from the first."""
        images = [_decode(self.images[row], f"Image {row} of {self.path}") for row in rows.tolist()]
        for row, image in zip(rows.tolist(), images, strict=True):
            if image.shape != images[0].shape:
                sizes = f"{tuple(image.shape[:2])}, not {tuple(images[0].shape[:2])}"
                raise AssetError(f"Image {row} of {self.path} has another size: {sizes}")
        return torch.stack(images)


def read_bin(path: str | Path) -> FaceBin:
    """Return a verification set from its file. Raises AssetError for any other content; no code in it is ever run."""
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
    fold = torch.arange(len(same)) * FOLDS // len(same)
    pairs = Pairs(*torch.arange(len(images)).view(-1, 2).T, torch.tensor(same).bool(), fold)
    return FaceBin(path, images, pairs)


def _jpeg(file: object, name: str) -> bytes:
    """Return the bytes of an image, however they were pickled: bytes, text of Python 2, or an array of uint8."""
    if isinstance(file, str):
        return file.encode("latin-1")
    if isinstance(file, np.ndarray) and file.dtype == np.uint8 and file.ndim == 1:
        return file.tobytes()
    if isinstance(file, (bytes, bytearray)):
        return bytes(file)
    raise AssetError(f"{name} is of type {type(file).__name__}, not an image file")


@dataclass(frozen=True)
class Records:
    """Images and labels of a record file, in the order of the keys. A record is read only when it is needed."""

    path: Path
    keys: tuple[int, ...]  # of the images
    offsets: dict[int, int]  # byte where each record begins

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def _bytes(self) -> mmap.mmap:
        with self.path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    @cached_property
    def labels(self) -> Int[Tensor, " images"]:
        """The number of the person in each image. Raises AssetError naming a record whose head is damaged."""
        labels = [self._read(key)[1] for key in self.keys]
        for key, label in zip(self.keys, labels, strict=True):
            if not (label >= 0 and label.is_integer()):
                raise self._damaged(key, f"its label is {label}, not the number of a person")
        return torch.tensor(labels).long()

    def image(self, index: int) -> UInt8[Tensor, "height width 3"]:
        """Return image `index` (from 0), RGB. Raises AssetError for a damaged record."""
        key = self.keys[index]
        return _decode(self._read(key)[2], f"The image of record {key} of {self.path}")

    def _read(self, key: int) -> tuple[int, float, bytes]:
        """Return the flag of a record, its (first) label, and the bytes of its image."""
        try:
            content = self._content(key)
            flag, label, _, _ = HEAD.unpack_from(content)
            if flag:
                (label,) = struct.unpack_from("<f", content, HEAD.size)
        except struct.error as error:
            raise self._damaged(key, f"it ends too early ({error})") from error
        return flag, label, content[HEAD.size + 4 * flag :]

    def _content(self, key: int) -> bytes:
        """Return a record with its parts joined."""
        offset, parts = self.offsets[key], []
        while True:
            magic, word = struct.unpack_from("<II", self._bytes, offset)
            kind, length = word >> 29, word & (1 << 29) - 1
            if magic != MAGIC:
                raise self._damaged(key, "no record begins where the index says")
            if offset + 8 + length > len(self._bytes):
                raise self._damaged(key, "the file ends before this record does")
            if (kind in (WHOLE, FIRST)) == bool(parts) or kind > LAST:
                raise self._damaged(key, "its parts do not fit together")
            parts.append(self._bytes[offset + 8 : offset + 8 + length])
            if kind in (WHOLE, LAST):
                return struct.pack("<I", MAGIC).join(parts)
            offset += 8 + (length + 3) // 4 * 4

    def _damaged(self, key: int, reason: str) -> AssetError:
        return AssetError(f"Record {key} of {self.path} is damaged: {reason}. {AGAIN}")


def read_records(path: str | Path) -> Records:
    """Return the record file of a path, or `train.rec` in a folder or below it.

    Raises AssetError if a line of the index is wrong, or if an image that record 0 announces is missing.
    """
    path = Path(path)
    if path.is_dir():
        path = find_folder(path, "", lambda inner: (inner / "train.rec").is_file(), "train.rec") / "train.rec"
    index = path.with_suffix(".idx")
    for file in (path, index):
        if not file.is_file() or not file.stat().st_size:
            raise AssetError(f"{file} is missing or empty; a record file needs both .rec and .idx")
    try:
        offsets = dict(np.loadtxt(index, np.int64, delimiter="\t", ndmin=2).tolist())
    except ValueError as error:
        raise AssetError(f"{index} does not hold a key and an offset in each line ({error}). {AGAIN}") from error
    keys = _image_keys(Records(path, (), offsets))
    missing = [key for key in keys if key not in offsets]
    if missing or not keys:
        problem = f"lacks announced record {missing[0]} ({len(missing)} are missing)" if missing else "lists no images"
        raise AssetError(f"{index} {problem}. {AGAIN}")
    return Records(path, tuple(keys), offsets)


def _image_keys(records: Records) -> list[int]:
    """Return the keys of the images: those that record 0 announces, or all keys if there is no such record 0."""
    keys = sorted(records.offsets)
    if keys[:1] != [0]:
        return keys
    flag, end, _ = records._read(0)
    return list(range(1, int(end))) if flag else keys


def _decode(content: bytes, name: str) -> UInt8[Tensor, "height width 3"]:
    """Return the RGB image in the bytes of an image file. Raises AssetError with `name` if it cannot be decoded."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            return torch.from_numpy(np.array(image.convert("RGB")))
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise AssetError(f"{name} cannot be decoded ({error}). {AGAIN}") from error
