"""Save tensors and a JSON card in one safetensors file, for this library's models and networks.

Each file names its kind, and a file of another kind is refused. Reading it never runs code.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from facenb.errors import ModelFileError
from facenb.files import atomic_write


def save(path: str | Path, kind: str, tensors: Mapping[str, Tensor], card: Mapping[str, Any]) -> Path:
    """Write tensors and a card (valid JSON) and return the path. The file appears complete or not at all.

    Raise ModelFileError if it cannot be written. An older file is then unchanged.
    """
    path = Path(path)
    header = {"kind": kind, "card": json.dumps(card)}
    # Copies, because safetensors refuses tensors that share memory and tensors that are not contiguous.
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial:
            partial.touch()
            mode = partial.stat().st_mode  # what the user's umask allows; safetensors keeps its files to their owner
            save_file(copies, partial, header)
            partial.chmod(mode)
    except (OSError, SafetensorError) as error:
        raise ModelFileError(f"cannot write {path} ({error}); free space there, or choose another folder") from error
    return path


def load(path: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors, on the CPU, and the card of a file.

    Raise ModelFileError if it is missing, damaged, of another format, or of another kind.
    """
    path = Path(path)
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"{path} is not a complete safetensors file ({error}); make it again") from error
    if header.get("kind") != kind:
        raise ModelFileError(f"{path} holds {header.get('kind', 'no kind known here')!r}, not {kind!r}; make it again")
    return tensors, json.loads(header["card"])
