"""Files of released weights, read without ever running what is in them."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from facenb.errors import ModelFileError


def read_weights(path: Path, part: str = "") -> dict[str, Tensor]:
    """The tensors of a file of weights (or of the `state_dict` in it), by name; code in it is never run.

    `part`: the name of the one wanted in a file of several state dicts. Raises ModelFileError for a file that is
    missing, damaged, would run code, has no such part, or holds anything else.
    """
    if not path.is_file():
        raise ModelFileError(f"there is no {path}; give the path of a file of weights, .safetensors or .pth")
    try:
        if path.suffix == ".safetensors" and not part:
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # torch raises nearly anything for a damaged file
        if type(error).__name__ == "UnpicklingError":  # pickle's own, for what is not plain weights
            raise ModelFileError(
                f"{path} holds more than weights, or is damaged, and is not read: it could run code; "
                "save its state_dict alone, or get it as .safetensors"
            ) from error
        told = f"{type(error).__name__}: {error}"
        raise ModelFileError(f"{path} is no readable file of weights ({told}); get it again") from error
    if part:
        if not isinstance(found, dict) or not isinstance(found.get(part), dict):
            told = some_of(sorted(map(str, found))) if isinstance(found, dict) else f"a {type(found).__name__}"
            raise ModelFileError(f"{path} has no part {part}; it holds {told}")
        found = found[part]
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):  # as a training saves it, with its epoch
        found = found["state_dict"]
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ModelFileError(f"{path} holds no state_dict (names and tensors), but a {type(found).__name__}")
    return dict(found)


def some_of(names: list[str], shown: int = 6) -> str:
    """The first names of a list, for an error message."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return (", ".join(names[:shown]) or "nothing") + more
