"""A table of rows too large for memory: one memory-mapped `.npy` file per field, and a card that says what it is.

`card.json` holds the fields, the number of rows, how the table was made, and whether it is complete. A table is written
block by block: a run that was killed continues after the last whole block. The operating system keeps the rows in
memory that are read often.
"""

import json
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from numpy.lib import format as npy
from torch import Tensor
from tqdm import tqdm

from facenb.errors import AssetError, RunError
from facenb.files import write_json

FORMAT = "facenb-table-1"
CARD = "card.json"
REMAKE = "Remove the folder and run again to make it anew."

Block = dict[str, Tensor]


@dataclass(frozen=True)
class Table:
    """A complete table. Rows are numbered from 0."""

    folder: Path
    made: dict  # how the table was made
    fields: dict[str, dict]  # name to dtype, shape of one row, and CRC-32 of all rows
    rows: int
    _open: dict[str, np.ndarray] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return self.rows

    def __getstate__(self) -> dict:
        in_memory = self.folder == Path()
        return {**self.__dict__, "_open": self._open if in_memory else {}}  # another process maps the files itself

    def column(self, name: str) -> np.ndarray:
        """Return a whole field, memory-mapped. The first call compares the file with its checksum.

        Raises KeyError for an unknown field, AssetError if the file is damaged.
        """
        if name not in self.fields:
            raise KeyError(f"{self.folder} has no field {name!r}; it has {', '.join(self.fields)}")
        if name not in self._open:
            self._open[name] = _checked(self.folder, name, self.fields[name], self.rows)
        return self._open[name]

    def read(self, rows: Int[Tensor, " rows"], names: Sequence[str] | None = None) -> Block:
        """Return these rows, in this order, of the named fields (None: all). Raises IndexError for an unknown row."""
        index = rows.numpy()
        if len(index) and not (0 <= index.min() and index.max() < self.rows):
            raise IndexError(f"Expected rows 0 to {self.rows - 1} of {self.folder}, got {index.min()} to {index.max()}")
        names = self.fields if names is None else names
        return {name: torch.from_numpy(self.column(name)[index]) for name in names}


def memory_table(columns: Block) -> Table:
    """Return a table of tensors in memory, with equally many rows in each."""
    arrays = {name: tensor.numpy() for name, tensor in columns.items()}
    fields = {name: {"dtype": array.dtype.name, "shape": list(array.shape[1:])} for name, array in arrays.items()}
    table = Table(Path(), {}, fields, len(next(iter(arrays.values()))))
    table._open.update(arrays)
    return table


def read_table(folder: str | Path) -> Table:
    """Return the complete table in a folder. Raises AssetError if there is none, or a file is missing or cut short."""
    folder = Path(folder)
    card = _read_card(folder)
    if card is None:
        raise AssetError(f"{folder} holds no table: there is no {CARD}. Run the notebook or function that makes it.")
    if not card["complete"]:
        raise AssetError(f"The table in {folder} is unfinished. Run what makes it again; it continues.")
    for name, facts in card["fields"].items():
        _mapped(folder, name, facts, card["rows"])
    return Table(folder, card["made"], card["fields"], card["rows"])


def build_table(
    folder: str | Path,
    made: dict,
    make: Callable[[int], Iterable[Block]],
    blocks: int | None = None,
    quiet: bool = True,
) -> Table:
    """Return the table that `made` describes: read it if it is complete, otherwise compute the blocks that are missing.

    `make(first)` yields the blocks from number `first` on: tensors by field, with equally many rows (an empty block has
    no rows, and counts). `made` must hold all that the rows depend on, in types of JSON. `blocks` is their number, for
    the progress bar. A second process that builds the same folder waits for the first one.
    Raises RunError if the folder holds another table, cannot be written, or there are no rows at all.
    """
    folder, made = Path(folder), json.loads(json.dumps(made))
    card = _matching_card(folder, made)
    if card is None or not card["complete"]:
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            card = _matching_card(folder, made) or {
                "format": FORMAT,
                "complete": False,
                "rows": 0,
                "blocks": 0,
                "fields": {},
                "made": made,
            }
            if not card["complete"]:
                _build(folder, card, make, blocks, quiet)
    return read_table(folder)


def differences(kept: dict, wanted: dict) -> str:
    """Return where two descriptions differ, for an error message: `size is [64, 64], not [112, 96]`."""
    keys = [key for key in {**kept, **wanted} if kept.get(key) != wanted.get(key)]
    return "; ".join(f"{key} is {_short(kept.get(key))}, not {_short(wanted.get(key))}" for key in keys)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]} ..."


def _read_card(folder: Path) -> dict | None:
    """Return the card of a folder, None without one."""
    path = folder / CARD
    if not path.exists():
        if (folder / "index.json").exists():
            raise AssetError(f"{folder} holds a set in the format of an earlier edition of facenb. {REMAKE}")
        return None
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        if card["format"] != FORMAT:
            raise AssetError(f"{path} has format {card['format']!r}, not {FORMAT!r}. {REMAKE}")
        return {key: card[key] for key in ("format", "complete", "rows", "blocks", "fields", "made")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AssetError(f"{path} is not the card of a table ({error!r}). {REMAKE}") from error


def _matching_card(folder: Path, made: dict) -> dict | None:
    card = _read_card(folder)
    if card is not None and (changes := differences(card["made"], made)):
        raise RunError(f"{folder} holds a table made otherwise: {changes}. Choose another folder or remove this one.")
    return card


def _build(folder: Path, card: dict, make: Callable, blocks: int | None, quiet: bool) -> None:
    for name, facts in card["fields"].items():
        _checked(folder, name, facts, card["rows"])  # what an earlier run left must be whole
    hide = quiet or not sys.stderr.isatty()
    first = card["blocks"]
    for block in tqdm(make(first), folder.name, total=blocks, initial=first, disable=hide, leave=False):
        with _writing(folder):
            card = _append(folder, card, block)
    if not card["rows"]:
        raise RunError(f"No rows were made for {folder}; a table needs at least one.")
    with _writing(folder):
        write_json(folder / CARD, {**card, "complete": True})


def _append(folder: Path, card: dict, block: Block) -> dict:
    """Write a block behind the rows that the card counts; return the new card. The card is written last."""
    arrays = {name: np.ascontiguousarray(tensor.detach().cpu().numpy()) for name, tensor in block.items()}
    if len({len(array) for array in arrays.values()}) > 1:
        raise ValueError(f"A block must have equally many rows in all fields, got {_lengths(arrays)}")
    fields = {
        name: {"dtype": array.dtype.name, "shape": list(array.shape[1:]), "crc32": 0} for name, array in arrays.items()
    }
    known = card["fields"] or fields
    if block and {name: {**facts, "crc32": 0} for name, facts in known.items()} != fields:
        raise ValueError(f"A block does not match the rows before it: {differences(known, fields)}")
    rows = card["rows"] + (len(next(iter(arrays.values()))) if block else 0)
    for name, array in arrays.items():
        with (folder / f"{name}.npy").open("r+b" if card["rows"] else "w+b") as file:
            header = {"descr": npy.dtype_to_descr(array.dtype), "fortran_order": False}
            npy.write_array_header_1_0(file, {**header, "shape": (rows, *array.shape[1:])})
            file.seek(card["rows"] * array[:1].nbytes, 1)  # NumPy pads its header, so that its length never changes
            file.truncate()
            file.write(array.data)
            file.flush()
            os.fsync(file.fileno())  # before the card counts these rows
        fields[name]["crc32"] = zlib.crc32(array.data, known[name]["crc32"])
    card = {**card, "rows": rows, "blocks": card["blocks"] + 1, "fields": fields if block else card["fields"]}
    write_json(folder / CARD, card)
    return card


def _lengths(arrays: dict[str, np.ndarray]) -> dict[str, int]:
    return {name: len(array) for name, array in arrays.items()}


def _mapped(folder: Path, name: str, facts: dict, rows: int) -> np.ndarray:
    """Return the first `rows` rows of a field, memory-mapped."""
    path = folder / f"{name}.npy"
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise AssetError(f"{path} is missing. {REMAKE}") from error
    except (OSError, ValueError, EOFError) as error:
        raise AssetError(f"{path} is damaged or cut short ({error}). {REMAKE}") from error
    if array.dtype != facts["dtype"] or list(array.shape[1:]) != facts["shape"] or len(array) < rows:
        expected = f"{facts['dtype']} {[rows, *facts['shape']]}"
        raise AssetError(f"{path} is damaged: expected {expected}, got {array.dtype} {list(array.shape)}. {REMAKE}")
    return np.asarray(array[:rows])  # a plain array over the map: np.memmap's own bookkeeping slows small reads


def _checked(folder: Path, name: str, facts: dict, rows: int) -> np.ndarray:
    array = _mapped(folder, name, facts, rows)
    if zlib.crc32(array.data) != facts["crc32"]:
        raise AssetError(f"{folder / name}.npy is damaged: its checksum differs from the card's. {REMAKE}")
    return array


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"Cannot write to {folder} ({error}). Free space there or choose another folder.") from error


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process builds this table."""
    with (folder / ".lock").open("w") as file:
        with suppress(ImportError, OSError):  # Windows, and network disks without locks
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield
