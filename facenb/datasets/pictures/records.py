"""InsightFace's record files (`train.rec` with `train.idx`, or `property` beside), read without mxnet.

RecordIO: a record is one part or several, each 8 bytes of head (a magic number; then 3 bits that say whole, first,
middle or last, and 29 bits of length) and its bytes, filled up to a multiple of four. Where the magic number occurs in
the bytes themselves the record is cut in parts there and the number left out. A picture's record begins with flag
(uint32), label (float32), id and id2 (uint64); where the flag is not 0 so many float32 follow as label. `train.idx`
gives each record's key and place. Record 0 of InsightFace's sets is no picture: its label tells which keys are.
"""

import io
import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, UInt8
from PIL import Image
from torch import Tensor

from facenb.errors import AssetError

MAGIC = 0xCED7230A
WHOLE, FIRST, MIDDLE, LAST = range(4)
HEAD = struct.Struct("<IfQQ")
AGAIN = "get the file again, whole"


@dataclass(frozen=True)
class Records:
    """Pictures and labels of a record file. Picture i is the i-th by key; nothing is read before it is asked for."""

    path: Path
    keys: tuple[int, ...]  # of the pictures
    places: dict[int, int]  # byte where each record begins

    def __len__(self) -> int:
        return len(self.keys)

    def __getstate__(self) -> dict:
        return {"path": self.path, "keys": self.keys, "places": self.places}  # another process opens the file itself

    @cached_property
    def _bytes(self) -> mmap.mmap:
        with self.path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    @cached_property
    def labels(self) -> Int[Tensor, " pictures"]:
        """The number of the person in each picture. AssetError naming a record whose head is damaged."""
        return torch.tensor([self._label(key) for key in self.keys], dtype=torch.int64)

    @property
    def gaps(self) -> list[int]:
        """Numbers between the lowest and the highest label that no picture has."""
        there = self.labels.unique()
        span = torch.arange(int(there[0]), int(there[-1]) + 1)
        return span[~torch.isin(span, there)].tolist()

    def _label(self, key: int) -> int:
        values, _ = _label_of(self._record(key, HEAD.size + 64), self._damaged(key))
        if not (np.isfinite(values[0]) and values[0] >= 0 and values[0] == int(values[0])):
            raise self._damaged(key)(f"its label is {values[0]}, no number of a person")
        return int(values[0])

    def picture(self, index: int) -> UInt8[Tensor, "height width 3"]:
        """Picture `index` (from 0), RGB. IndexError beyond the last; AssetError naming a damaged record."""
        if not 0 <= index < len(self):
            raise IndexError(f"picture {index} was asked for; {self.path} has {len(self)}")
        key = self.keys[index]
        content = self._record(key)
        _, begin = _label_of(content, self._damaged(key))
        try:
            with Image.open(io.BytesIO(content[begin:])) as image:
                return torch.from_numpy(np.array(image.convert("RGB")))
        except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
            raise self._damaged(key)(f"its picture cannot be decoded: {error}") from error

    def _damaged(self, key: int) -> Callable[[str], AssetError]:
        return lambda why: AssetError(f"record {key} of {self.path} is damaged ({why}); {AGAIN}")

    def _record(self, key: int, most: int | None = None) -> bytes:
        """The record's bytes, its parts put together; only about the first `most` of them where that is enough."""
        damaged, place, parts = self._damaged(key), self.places[key], []
        while True:
            if place + 8 > len(self._bytes):
                raise damaged("the file ends before it")
            magic, word = struct.unpack_from("<II", self._bytes, place)
            kind, length = word >> 29, word & (1 << 29) - 1
            if magic != MAGIC:
                raise damaged("no record begins where it should")
            if place + 8 + length > len(self._bytes):
                raise damaged("the file ends in it")
            if (kind in (WHOLE, FIRST)) == bool(parts) or kind > LAST:
                raise damaged("its parts do not go together")
            parts.append(self._bytes[place + 8 : place + 8 + min(length, most or length)])
            if kind in (WHOLE, LAST) or (most and len(parts[0]) >= most):
                return struct.pack("<I", MAGIC).join(parts)
            place += 8 + (length + 3) // 4 * 4


def _label_of(content: bytes, damaged: Callable[[str], AssetError]) -> tuple[tuple[float, ...], int]:
    """Label values of a record and where what follows them begins."""
    if len(content) < HEAD.size:
        raise damaged("it is shorter than its head")
    flag, label, _, _ = HEAD.unpack_from(content)
    if not flag:
        return (label,), HEAD.size
    end = HEAD.size + 4 * flag
    first = content[HEAD.size : min(end, HEAD.size + 8)]  # two values at most are ever needed
    if len(first) < min(4 * flag, 8):
        raise damaged(f"it is shorter than the {flag} values of its label")
    return struct.unpack(f"<{len(first) // 4}f", first), end


def read_records(path: str | Path) -> Records:
    """A record file, or the folder that holds `train.rec` and `train.idx`.

    Raises AssetError naming a file that is missing, empty or no record file, a line of the index that is none, and a
    first record that tells of pictures that are not there.
    """
    path = Path(path)
    rec = path / "train.rec" if path.is_dir() else path
    idx = rec.with_suffix(".idx")
    for file in (rec, idx):
        if not file.is_file() or not file.stat().st_size:
            raise AssetError(f"{file} is missing or empty; a record file needs both, .rec and .idx")
    places: dict[int, int] = {}
    for number, line in enumerate(idx.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        try:
            key, place = line.split("\t")
            places[int(key)] = int(place)
        except ValueError as error:
            raise AssetError(f"{idx}, line {number}, is no key and place: {line[:60]!r}; {AGAIN}") from error
    records = Records(rec, (), places)
    keys = sorted(places)
    if keys and keys[0] == 0:  # InsightFace's head; a file without has pictures from its first record on
        content = records._record(0, HEAD.size + 64)
        flag = HEAD.unpack_from(content)[0] if len(content) >= HEAD.size else 0
        if flag:
            values, _ = _label_of(content, records._damaged(0))
            keys = list(range(1, int(values[0])))
    missing = [key for key in keys if key not in places]
    if missing or not keys:
        what = f"no record {missing[0]}, of {len(missing)} that the first record tells of" if missing else "no pictures"
        raise AssetError(f"{idx} names {what}; {AGAIN}")
    return Records(rec, tuple(keys), places)
