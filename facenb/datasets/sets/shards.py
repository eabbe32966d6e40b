"""A set of rows too large for memory: safetensors files of stacked rows, and an index that is written last.

A folder without `index.json` is no set. While it is made, `unfinished.json` tells which shards are whole, so that a
run that was killed goes on from there. Rows are read through memory maps: the system keeps what is read often and lets
it go when memory is needed.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from facenb.errors import AssetError, RunError
from facenb.files import atomic_write, digest, write_json

FORMAT = "facenb-shards-1"
INDEX, UNFINISHED = "index.json", "unfinished.json"
KINDS = {"U8": "uint8", "I32": "int32", "I64": "int64", "F32": "float32", "F64": "float64", "BOOL": "bool"}
AGAIN = "make the set again (remove its folder first)"


def differences(kept: dict, asked: dict) -> str:
    """Where two cards differ, as words: `size is [64, 64], not [112, 96]`."""
    keys = [key for key in {**kept, **asked} if kept.get(key) != asked.get(key)]
    return "; ".join(f"{key} is {_short(kept.get(key))}, not {_short(asked.get(key))}" for key in keys)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]} ..."


def _read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise AssetError(f"{path} is of format {content['format']!r}, not {FORMAT!r}; {AGAIN}")
        content["card"], content["shards"], content["fields"]
        return content
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AssetError(f"{path} is no readable index of a set ({error!r}); {AGAIN}") from error


class ShardWriter:
    """Writes a set batch by batch; `card` (JSON-able) says what it is.

    A shard takes whole batches until it has `rows_per_shard` rows or more. `done` tells how many batches an earlier,
    interrupted run of the same card has left whole: go on with the one after. Use as a context manager: the index is
    written on leaving without an exception. Raises RunError where the folder holds a finished set, an unfinished one of
    another card, or cannot be written. `reopen` takes a finished one for an unfinished one.
    """

    def __init__(self, folder: str | Path, card: dict, rows_per_shard: int = 4096, reopen: bool = False):
        if rows_per_shard < 1:
            raise ValueError(f"rows_per_shard is {rows_per_shard}; it must be 1 or more")
        self.folder, self.rows_per_shard = Path(folder), rows_per_shard
        self.card = json.loads(json.dumps(card))
        self._fields: dict[str, dict] = {}
        self._shards: list[dict] = []
        self._waiting: list[dict[str, Tensor]] = []
        if reopen and (self.folder / INDEX).exists():
            os.replace(self.folder / INDEX, self.folder / UNFINISHED)
        if (self.folder / INDEX).exists():
            raise RunError(f"{self.folder} holds a finished set already; choose another folder or remove it")
        if (self.folder / UNFINISHED).exists():
            self._go_on(_read_json(self.folder / UNFINISHED))

    def _go_on(self, kept: dict) -> None:
        asked = {**self.card, "rows_per_shard": self.rows_per_shard}
        wrong = differences({**kept["card"], "rows_per_shard": kept["rows_per_shard"]}, asked)
        if wrong:
            raise RunError(
                f"{self.folder} holds an unfinished set of another kind ({wrong}); remove it, or choose another"
            )
        self._fields = kept["fields"]
        for shard in kept["shards"]:
            path = self.folder / shard["name"]
            if not path.is_file() or path.stat().st_size != shard["bytes"]:
                break
            self._shards.append(shard)

    @property
    def done(self) -> int:
        """Batches that lie in whole shards."""
        return sum(shard["batches"] for shard in self._shards)

    def keep(self, batches: int) -> None:
        """Forget the shards after the first `batches` batches, as where a second set written beside has fewer."""
        while self._shards and self.done > batches:
            self._shards.pop()

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind, error, trace) -> None:
        if kind is None:
            self.close()

    def append(self, batch: dict[str, Tensor]) -> None:
        """Add rows: a tensor a field, as many rows in each. ValueError where fields, shapes or kinds do not fit.

        An empty dictionary is a batch that has no rows; it counts.
        """
        if not batch:
            self._waiting.append(batch)
            return
        counts = {name: len(tensor) for name, tensor in batch.items()}
        if len(set(counts.values())) != 1 or not next(iter(counts.values())):
            raise ValueError(f"a batch needs as many rows in each field, and one at least; it has {counts}")
        fields = {
            name: {"shape": list(tensor.shape[1:]), "dtype": str(tensor.dtype).removeprefix("torch.")}
            for name, tensor in batch.items()
        }
        unknown = [name for name, one in fields.items() if one["dtype"] not in KINDS.values()]
        if unknown:
            raise ValueError(f"{unknown[0]} is {fields[unknown[0]]['dtype']}; a set holds {', '.join(KINDS.values())}")
        if fields != (self._fields or fields):
            raise ValueError(f"this batch does not go with the rows before: {differences(self._fields, fields)}")
        self._fields = fields
        self._waiting.append(batch)
        if sum(len(next(iter(one.values()))) for one in self._waiting if one) >= self.rows_per_shard:
            self._write()

    def _write(self) -> None:
        whole = {
            name: torch.cat([one[name] for one in self._waiting if one]).cpu().contiguous() for name in self._fields
        }
        name = f"shard-{len(self._shards):05d}.safetensors"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(self.folder / name) as partial:
                save_file(whole, partial, {"format": FORMAT})
                shard = {"name": name, "rows": len(next(iter(whole.values()))), "batches": len(self._waiting),
                         "bytes": partial.stat().st_size, "sha256": digest(partial)}  # fmt: skip
            write_json(self.folder / UNFINISHED, self._content([*self._shards, shard]))
        except (OSError, SafetensorError) as error:
            raise RunError(
                f"cannot write {self.folder / name} ({error}); free space there or choose another"
            ) from error
        self._shards.append(shard)
        self._waiting = []

    def _content(self, shards: list[dict]) -> dict:
        return {"format": FORMAT, "rows": sum(one["rows"] for one in shards), "fields": self._fields,
                "rows_per_shard": self.rows_per_shard, "shards": shards, "card": self.card}  # fmt: skip

    def close(self, **more: Any) -> None:
        """Write what waits, and the index; `more` is added to the card. RunError if there are no rows."""
        if any(self._waiting):
            self._write()
        if not self._shards:
            raise RunError(f"no rows were given for {self.folder}; a set needs one at least")
        self.card |= json.loads(json.dumps(more))
        try:
            write_json(self.folder / INDEX, self._content(self._shards))
            (self.folder / UNFINISHED).unlink(missing_ok=True)
            listed = {shard["name"] for shard in self._shards}
            for left in self.folder.glob("*shard-*"):  # by killed runs
                if left.name not in listed:
                    left.unlink()
        except OSError as error:
            raise RunError(f"cannot write {self.folder / INDEX} ({error}); free space there") from error


@dataclass(frozen=True)
class Shards:
    """A finished set. Rows are numbered from 0 through all shards."""

    folder: Path
    card: dict
    fields: dict[str, dict]  # name to shape of a row and dtype
    shards: list[dict]
    check: bool = True
    _starts: np.ndarray = field(init=False, repr=False, compare=False)
    _open: dict[int, dict[str, np.ndarray]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self):
        object.__setattr__(self, "_starts", np.cumsum([0, *(shard["rows"] for shard in self.shards)]))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_open": {}}  # another process maps the files itself

    def read(self, rows: Int[Tensor, " rows"], names: Sequence[str] | None = None) -> dict[str, Tensor]:
        """The rows asked for, in that order, of all fields or those named.

        A shard's checksum is computed when the first of its rows is read (see `read_shards`). Raises IndexError for a
        row that is not there, KeyError for an unknown field, AssetError naming a damaged shard.
        """
        names = list(self.fields) if names is None else list(names)
        unknown = [name for name in names if name not in self.fields]
        if unknown:
            raise KeyError(f"{self.folder} has no field {unknown[0]!r}; it has {', '.join(self.fields)}")
        index = rows.numpy()
        if len(index) and not (0 <= index.min() and index.max() < len(self)):
            raise IndexError(f"rows {index.min()} to {index.max()} were asked for; {self.folder} has {len(self)}")
        owner = np.searchsorted(self._starts, index, side="right") - 1
        found = {
            name: np.empty((len(index), *self.fields[name]["shape"]), self.fields[name]["dtype"]) for name in names
        }
        for shard in np.unique(owner):
            at, maps = np.flatnonzero(owner == shard), self._map(int(shard))
            for name in names:
                found[name][at] = maps[name][index[at] - self._starts[shard]]
        return {name: torch.from_numpy(values) for name, values in found.items()}

    def column(self, name: str) -> Tensor:
        """A whole field, in memory: for small ones."""
        return self.read(torch.arange(len(self)), [name])[name]

    def verify(self) -> None:
        """Compute every shard's checksum now. AssetError naming the first that is damaged."""
        for shard in range(len(self.shards)):
            self._verify(shard)

    def _verify(self, number: int) -> None:
        path = self.folder / self.shards[number]["name"]
        try:
            found = digest(path)
        except OSError as error:
            raise AssetError(f"{path} cannot be read ({error.strerror}); {AGAIN}") from error
        if found != self.shards[number]["sha256"]:
            raise AssetError(f"{path} is damaged: its checksum is not the one in {INDEX}; {AGAIN}")

    def _map(self, number: int) -> dict[str, np.ndarray]:
        if number not in self._open:
            if self.check:
                self._verify(number)
            self._open[number] = self._parse(self.folder / self.shards[number]["name"], self.shards[number]["rows"])
        return self._open[number]

    def _parse(self, path: Path, rows: int) -> dict[str, np.ndarray]:
        """The file's tensors as views of one memory map: safetensors itself reads ranges of rows only, not lists."""
        try:
            data = np.memmap(path, np.uint8, "r")
            size = int(data[:8].view("<u8")[0])
            header = json.loads(bytes(data[8 : 8 + size]))
            views = {}
            for name, one in self.fields.items():
                begin, end = header[name]["data_offsets"]
                kind, shape = KINDS[header[name]["dtype"]], header[name]["shape"]
                if kind != one["dtype"] or shape != [rows, *one["shape"]]:
                    raise ValueError(f"{name} is {kind} {shape}")
                # A plain array over the map: np.memmap's own bookkeeping costs more than small reads.
                views[name] = np.asarray(data[8 + size + begin : 8 + size + end]).view(kind).reshape(shape)
            return views
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise AssetError(f"{path} is no shard of this set ({error}); {AGAIN}") from error


def read_shards(folder: str | Path, check: bool = True) -> Shards:
    """A finished set. Every shard must be there in its full size; its checksum is computed when it is first read.

    With `check` False it is not (for sets so large that reading them once more costs too much; `Shards.verify` does it
    at any time). Raises AssetError naming what is missing, of another size, or no index.
    """
    folder = Path(folder)
    if not (folder / INDEX).is_file():
        state = (
            "holds an unfinished set; run what makes it again, it goes on"
            if (folder / UNFINISHED).is_file()
            else "holds no set"
        )
        raise AssetError(f"{folder} {state} (there is no {INDEX})")
    content = _read_json(folder / INDEX)
    for shard in content["shards"]:
        path = folder / shard["name"]
        if not path.is_file():
            raise AssetError(f"{path} is missing; {AGAIN}")
        if path.stat().st_size != shard["bytes"]:
            raise AssetError(f"{path} has {path.stat().st_size} bytes, not {shard['bytes']}: cut short; {AGAIN}")
    return Shards(folder, content["card"], content["fields"], content["shards"], check)
