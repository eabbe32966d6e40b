"""Checkpoints of a training, and digests that distinguish one training from another.

A checkpoint is one file. It is written under a temporary name and then renamed. So if the process is killed, all
checkpoints are complete.
"""

import hashlib
import json
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from facenb.errors import RunError
from facenb.files import atomic_write

KEPT = 2  # the newest one, and the one before it in case the newest is damaged


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, newest first, including damaged ones."""
    steps = [path.stem.removeprefix("checkpoint-") for path in folder.glob("checkpoint-*.pt")]
    return [folder / f"checkpoint-{step}.pt" for step in sorted(map(int, filter(str.isdigit, steps)), reverse=True)]


def save_checkpoint(folder: Path, content: dict[str, Any]) -> Path:
    """Write `checkpoint-<step>.pt`, delete all but the newest two, and return its path.

    Raise RunError if the folder cannot be written; earlier checkpoints are kept.
    """
    path = folder / f"checkpoint-{content['step']}.pt"
    try:
        with atomic_write(path) as partial:
            torch.save(content, partial)
    except (OSError, RuntimeError) as error:
        raise RunError(f"Cannot write {path} ({error}). Make room, then start the training again.") from error
    for old in list_checkpoints(folder)[KEPT:]:
        old.unlink(missing_ok=True)
    return path


def latest_checkpoint(folder: str | Path) -> dict[str, Any] | None:
    """Return the newest complete checkpoint, tensors on the CPU, or None if the folder holds none.

    If a checkpoint is damaged, warn and try the one before it. Raise RunError if all are damaged.
    """
    paths = list_checkpoints(Path(folder))
    for path in paths:
        try:
            with zipfile.ZipFile(path) as archive:  # torch.load does not compare the checksums
                if damaged := archive.testzip():
                    raise zipfile.BadZipFile(f"checksum of {damaged}")
            return torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
            warnings.warn(f"{path} is damaged ({error}). Trying the checkpoint before it.", stacklevel=2)
    if paths:
        raise RunError(f"Every checkpoint in {folder} is damaged. Give another folder, or delete this one.")
    return None


def weights_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return a SHA-256 of tensors and their names; the same on every device and for every memory order."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)  # as bytes: numpy has no bfloat16
        digest.update(name.encode() + content.numpy().tobytes())
    return digest.hexdigest()


def training_name(name: str, facts: Mapping[str, Any], modules: Mapping[str, nn.Module]) -> str:
    """Return `name` with a digest of what a training depends on: facts (as JSON) and the weights of modules.

    So a notebook that is run again resumes its training, and a changed notebook starts a new one. The facts should
    include everything that distinguishes one loss from another.
    """
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    for key, module in modules.items():
        digest.update(weights_digest({f"{key}.{part}": value for part, value in module.state_dict().items()}).encode())
    return f"{name}-{digest.hexdigest()[:10]}"
