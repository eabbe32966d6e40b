"""A table of rows too large for memory: one memory-mapped `.npy` file per field, and a card that says what it is.

`card.json` holds the fields, the number of rows, how the table was made, and whether it is complete. A table is written
block by block: a run that was killed continues after the last whole block. The operating system keeps the rows in
memory that are read often.
"""

import fcntl
import json
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

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
    fields: dict[str, dict]  # name to dtype, shape of a row, and CRC-32 of all rows
    rows: int
    _open: dict[str, np.ndarray] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return self.rows

    def column(self, name: str) -> np.ndarray:
        """Return a whole field, memory-mapped. The first call compares the file with its checksum.

        Raises KeyError for an unknown field, AssetError if the file is damaged.
        """
        if name not in self._open:
            self._open[name] = _mapped(self.folder, name, self.fields[name], self.rows, check=True)
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
    table = Table(Path(), {}, {name: _facts(array) for name, array in arrays.items()}, len(next(iter(arrays.values()))))
    table._open.update(arrays)
    return table


def _facts(array: np.ndarray) -> dict:
    return {"dtype": array.dtype.name, "shape": list(array.shape[1:]), "crc32": 0}


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
    folder: str | Path, made: dict, make: Callable[[int], Iterable[Block]], blocks: int | None = None
) -> Table:
    """Return the table that `made` describes: read it if it is complete, otherwise compute the blocks that are missing.

    `make(first)` yields the blocks from number `first` on: tensors by field, with equally many rows (an empty block has
    no rows, and counts). `made` must hold all that the rows depend on, in types of JSON. `blocks` is their number, for
    the progress bar, which a terminal shows. A second process that builds the same folder waits for the first one.
    Raises RunError if the folder holds another table, cannot be written, or there are no rows at all.
    """
    folder, made = Path(folder), json.loads(json.dumps(made))
    try:
        card = _matching_card(folder, made)
        if card is None or not card["complete"]:
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / ".lock").open("w") as lock:
                with suppress(OSError):  # network disks may have no locks
                    fcntl.flock(lock, fcntl.LOCK_EX)
                new = {"format": FORMAT, "complete": False, "rows": 0, "blocks": 0, "fields": {}, "made": made}
                _build(folder, _matching_card(folder, made) or new, make, blocks)
    except OSError as error:
        raise RunError(f"Cannot write to {folder} ({error}). Free space there or choose another folder.") from error
    return read_table(folder)


def differences(kept: dict, wanted: dict) -> str:
    """Return where two descriptions differ, for an error message: `size is [64, 64], not [112, 96]`."""
    keys = [key for key in {**kept, **wanted} if kept.get(key) != wanted.get(key)]
    return "; ".join(f"{key} is {kept.get(key)!r:.200}, not {wanted.get(key)!r:.200}" for key in keys)


def _read_card(folder: Path) -> dict | None:
    """Return the card of a folder, None without one."""
    path = folder / CARD
    if not path.exists() and not (folder / "index.json").exists():  # which the sets of the first edition have
        return None
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        if card["format"] != FORMAT:
            raise ValueError(f"its format is {card['format']!r}")
        return {key: card[key] for key in ("format", "complete", "rows", "blocks", "fields", "made")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AssetError(f"{path} is damaged or of an earlier edition of facenb ({error!r}). {REMAKE}") from error


def _matching_card(folder: Path, made: dict) -> dict | None:
    card = _read_card(folder)
    if card is not None and (changes := differences(card["made"], made)):
        raise RunError(f"{folder} holds a table made otherwise: {changes}. Choose another folder or remove this one.")
    return card


def _build(folder: Path, card: dict, make: Callable[[int], Iterable[Block]], blocks: int | None) -> None:
    """Compute the blocks that the card does not count yet."""
    if card["complete"]:
        return
    for name, facts in card["fields"].items():
        _mapped(folder, name, facts, card["rows"], check=True)  # what an earlier run left must be whole
    first, hide = card["blocks"], not sys.stderr.isatty()
    for block in tqdm(make(first), folder.name, total=blocks, initial=first, disable=hide, leave=False):
        card = _append(folder, card, block)
    if not card["rows"]:
        raise RunError(f"No rows were made for {folder}; a table needs at least one.")
    write_json(folder / CARD, {**card, "complete": True})


def _append(folder: Path, card: dict, block: Block) -> dict:
    """Write a block behind the rows that the card counts; return the new card. The card is written last."""
    arrays = {name: np.ascontiguousarray(tensor.detach().cpu().numpy()) for name, tensor in block.items()}
    fields = {name: _facts(array) for name, array in arrays.items()}
    sums = {name: facts["crc32"] for name, facts in card["fields"].items()}
    before = {name: {**facts, "crc32": 0} for name, facts in card["fields"].items()} or fields
    counts = {len(array) for array in arrays.values()} or {0}
    if len(counts) > 1 or (block and before != fields):
        raise ValueError(f"A block has {counts} rows, and fields other than before: {differences(before, fields)}")
    rows = card["rows"] + counts.pop()
    for name, array in arrays.items():
        with (folder / f"{name}.npy").open("r+b" if card["rows"] else "w+b") as file:
            header = {"descr": npy.dtype_to_descr(array.dtype), "fortran_order": False}
            npy.write_array_header_1_0(file, {**header, "shape": (rows, *array.shape[1:])})
            file.seek(card["rows"] * array[:1].nbytes, 1)  # NumPy pads its header, so that its length never changes
            file.truncate()
            file.write(array.data)
            file.flush()
            os.fsync(file.fileno())  # before the card counts these rows
        fields[name]["crc32"] = zlib.crc32(array.data, sums.get(name, 0))
    card = {**card, "rows": rows, "blocks": card["blocks"] + 1, "fields": fields or card["fields"]}
    write_json(folder / CARD, card)
    return card


def _mapped(folder: Path, name: str, facts: dict, rows: int, check: bool = False) -> np.ndarray:
    """Return the first `rows` rows of a field, memory-mapped. `check` compares all of them with the card's checksum."""
    path = folder / f"{name}.npy"
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.dtype != facts["dtype"] or list(array.shape[1:]) != facts["shape"] or len(array) < rows:
            raise ValueError(f"it holds {array.dtype} {list(array.shape)}")
        if check and zlib.crc32(array[:rows].data) != facts["crc32"]:
            raise ValueError("its checksum differs from the card's")
    except (OSError, ValueError, EOFError) as error:
        raise AssetError(f"{path} is missing, damaged or cut short ({error}). {REMAKE}") from error
    return np.asarray(array[:rows])  # a plain array over the map: np.memmap's own bookkeeping slows small reads
