"""A table that is too large for memory: one memory-mapped `.npy` file per field, and a card that describes it.

`card.json` holds how the table was made, the number of rows, a checksum of each field, and whether it is complete. A
table is written block by block: after a kill, the next run continues after the last complete block. The operating
system keeps frequently read rows in memory.
"""

import json
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from numpy.lib import format as npy
from torch import Tensor
from tqdm import tqdm

from data_download.folders import explained
from facenb.errors import AssetError, RunError
from facenb.files import hold, write_json

FORMAT = "facenb-table-1"
CARD = "card.json"
REMAKE = "Remove the folder and run again to make it anew."

Block = dict[str, Tensor]


@dataclass(frozen=True)
class Table:
    """A complete table. Rows are numbered from 0."""

    folder: Path
    made: dict  # how the table was made
    columns: dict[str, np.ndarray]  # all rows of each field

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def read(self, rows: Int[Tensor, " rows"], names: Sequence[str] | None = None) -> Block:
        """Return these rows, in this order, of the named fields (None: all)."""
        names = self.columns if names is None else names
        return {name: torch.from_numpy(self.columns[name][rows.numpy()]) for name in names}


def read_table(folder: str | Path) -> Table:
    """Return the complete table in a folder. Raises AssetError if there is none, or a file is missing or damaged."""
    folder = Path(folder)
    card = _read_card(folder)
    if card is None:
        raise AssetError(f"{folder} holds no table: there is no {CARD}. Run the notebook or function that makes it.")
    if not card["complete"]:
        raise AssetError(f"The table in {folder} is unfinished. Run what makes it again; it continues.")
    return Table(folder, card["made"], _columns(folder, card))


def build_table(
    folder: str | Path, made: dict, make: Callable[[int], Iterable[Block]], blocks: int | None = None
) -> Table:
    """Return the table that `made` describes: read it if it is complete, otherwise compute the blocks that are missing.

    `make(first)` yields the blocks from number `first` on: the same fields in each, with equally many rows (an empty
    block has no rows, but counts). `made` must hold everything that the rows depend on, as JSON types. `blocks` is the
    number of blocks, for the progress bar on a terminal. A second process that builds the same folder waits for the
    first one. Raises RunError if the folder holds another table, cannot be written, or there are no rows at all.
    """
    folder, made = Path(folder), json.loads(json.dumps(made))
    with explained(folder, RunError, "Choose another folder."):
        card = _read_card(folder, made)
        if card and card["complete"]:
            return read_table(folder)
        with hold(folder / ".lock"):
            new = {"format": FORMAT, "complete": False, "rows": 0, "blocks": 0, "fields": {}, "made": made}
            card = _read_card(folder, made) or new  # another process may have made it in the meantime
            _columns(folder, card)  # the rows of an earlier run must be complete
            first, hide = card["blocks"], not sys.stderr.isatty()
            missing = [] if card["complete"] else make(first)
            for block in tqdm(missing, folder.name, total=blocks, initial=first, disable=hide, leave=False):
                card = _append(folder, card, block)
            if not card["rows"]:
                raise RunError(f"No rows were made for {folder}; a table needs at least one.")
            write_json(folder / CARD, {**card, "complete": True})
    return read_table(folder)


def _read_card(folder: Path, made: dict | None = None) -> dict | None:
    """Return the card of a folder, or None if it has none. Raise RunError unless `made` describes the card's table."""
    path = folder / CARD
    if not path.exists() and not (folder / "index.json").exists():  # a file in sets of the first edition
        return None
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        if card["format"] != FORMAT:
            raise ValueError(f"its format is {card['format']!r}")
        card = {key: card[key] for key in ("format", "complete", "rows", "blocks", "fields", "made")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AssetError(f"{path} is damaged or of an earlier edition of facenb ({error!r}). {REMAKE}") from error
    kept, wanted = card["made"], card["made"] if made is None else made
    if changed := [key for key in {**kept, **wanted} if kept.get(key) != wanted.get(key)]:
        changes = "; ".join(f"{key} is {kept.get(key)!r:.200}, not {wanted.get(key)!r:.200}" for key in changed)
        raise RunError(f"{folder} holds a table made otherwise: {changes}. Choose another folder or remove this one.")
    return card


def _append(folder: Path, card: dict, block: Block) -> dict:
    """Append a block after the rows that the card counts, and return the new card. The card is written last."""
    fields, before, rows = dict(card["fields"]), card["rows"], card["rows"]
    for name, tensor in block.items():
        array = np.ascontiguousarray(tensor.detach().cpu().numpy())
        rows = before + len(array)
        with (folder / f"{name}.npy").open("r+b" if before else "w+b") as file:
            header = {"descr": npy.dtype_to_descr(array.dtype), "fortran_order": False}
            npy.write_array_header_1_0(file, {**header, "shape": (rows, *array.shape[1:])})
            file.seek(before * array[:1].nbytes, 1)  # NumPy pads its header, so that its length never changes
            file.truncate()
            file.write(array.data)
            file.flush()
            os.fsync(file.fileno())  # before the card counts these rows
        fields[name] = {"crc32": zlib.crc32(array.data, fields.get(name, {"crc32": 0})["crc32"])}
    card = {**card, "rows": rows, "blocks": card["blocks"] + 1, "fields": fields}
    write_json(folder / CARD, card)
    return card


def _columns(folder: Path, card: dict) -> dict[str, np.ndarray]:
    """Return the rows that the card counts, memory-mapped. Raise AssetError unless they have the card's checksums."""
    columns = {}
    for name, facts in card["fields"].items():
        path = folder / f"{name}.npy"
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)[: card["rows"]]
            if len(array) < card["rows"] or zlib.crc32(array.data) != facts["crc32"]:
                raise ValueError("its rows are not those that the card counts")
        except (OSError, ValueError, EOFError) as error:
            raise AssetError(f"{path} is missing, damaged or cut short ({error}). {REMAKE}") from error
        columns[name] = np.asarray(array)  # a plain array over the map: np.memmap's own bookkeeping slows small reads
    return columns
