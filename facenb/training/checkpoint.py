"""Checkpoints of a training: tensors in a safetensors file, everything else in a JSON file beside it.

Both are written beside and renamed, the JSON last, with the other's size and SHA-256 in it: `checkpoint-<step>.json`
that fits its tensors is a whole checkpoint, whatever moment the training was killed at.
"""

import json
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from facenb.errors import RunError
from facenb.files import atomic_write, digest, write_json

LAYOUT = 1  # of these files; a change that old files do not fit raises it
KEPT = 2  # the newest, and the one before should the disk have harmed it
NAME = re.compile(r"checkpoint-(\d+)\.json")


class OtherLayout(RunError):
    """A checkpoint is whole, but of another version of the library."""


@dataclass(frozen=True)
class Checkpoint:
    """What a training was at one step: all its tensors by name, and facts that JSON can hold."""

    step: int
    tensors: dict[str, Tensor]
    facts: dict[str, Any]
    path: Path  # of the JSON file


def save_checkpoint(folder: str | Path, step: int, tensors: dict[str, Tensor], facts: dict[str, Any]) -> Path:
    """Write the checkpoint of a step, drop all but the newest two, and return the path of its JSON file.

    Raises RunError where the folder cannot be written; the checkpoints already there stay.
    """
    folder = Path(folder)
    path = folder / f"checkpoint-{step}.json"
    weights = path.with_suffix(".safetensors")
    # Copies: safetensors takes neither memory shared between two names nor other strides than a plain array's.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(weights) as partial:
            save_file(tensors, partial)
        text = {"layout": LAYOUT, "step": step, "size": weights.stat().st_size, "sha256": digest(weights), **facts}
        write_json(path, text)
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"cannot write {weights} ({error}); make room in {folder} and start the training again: "
            "it goes on from the last checkpoint there"
        ) from error
    for old in list_checkpoints(folder)[KEPT:]:
        _remove(old)
    return path


def load_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint. RunError, naming the file and what is wrong, where it is damaged or of another layout."""
    weights = path.with_suffix(".safetensors")
    try:
        facts = json.loads(path.read_text())
        layout, step, size, sha256 = (facts.pop(key) for key in ("layout", "step", "size", "sha256"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path} is no whole checkpoint ({type(error).__name__}: {error})") from error
    if layout != LAYOUT:
        raise OtherLayout(
            f"{path} has layout {layout}, and this version of facenb reads layout {LAYOUT}; "
            "train in another folder, or with the version that wrote it"
        )
    if not weights.is_file():
        raise RunError(f"{weights} is missing beside {path.name}")
    if weights.stat().st_size != size:
        raise RunError(f"{weights} has {weights.stat().st_size} bytes where {path.name} tells of {size}")
    if digest(weights) != sha256:
        raise RunError(f"{weights} is not what was written: its SHA-256 is not that in {path.name}")
    return Checkpoint(step, load_file(weights), facts, path)


def latest_checkpoint(folder: str | Path) -> Checkpoint | None:
    """The newest checkpoint that is whole; None where the folder holds none at all.

    A damaged one is named in a warning and passed over. Raises RunError where all are damaged, rather than train anew
    over them, and where the newest whole one is of another layout.
    """
    paths = list_checkpoints(Path(folder))
    for path in paths:
        try:
            return load_checkpoint(path)
        except OtherLayout:
            raise
        except RunError as error:
            warnings.warn(f"{error}; looking for the checkpoint before", stacklevel=2)
    if paths:
        raise RunError(f"no checkpoint in {folder} is whole; give another folder, or fresh=True to begin anew there")
    return None


def list_checkpoints(folder: Path) -> list[Path]:
    """The JSON files of the checkpoints in a folder, newest first; whether they are whole is not looked at."""
    found = [path for path in folder.glob("checkpoint-*.json") if NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(NAME.fullmatch(path.name)[1]), reverse=True)


def clear(folder: Path, everything: bool = False) -> None:
    """Remove what a killed training left half written; with `everything`, its checkpoints too. Other files stay."""
    for partial in folder.glob(".checkpoint-*.partial"):
        partial.unlink(missing_ok=True)
    if everything:
        for path in list_checkpoints(folder):
            _remove(path)
    told = {path.stem for path in list_checkpoints(folder)}
    for weights in folder.glob("checkpoint-*.safetensors"):
        if NAME.fullmatch(weights.with_suffix(".json").name) and weights.stem not in told:
            weights.unlink(missing_ok=True)


def _remove(path: Path) -> None:
    """The JSON first: without it the rest is no checkpoint."""
    path.unlink(missing_ok=True)
    path.with_suffix(".safetensors").unlink(missing_ok=True)
