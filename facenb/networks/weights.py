"""Files of released weights: read without running code, and loaded by name."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from facenb.errors import ModelFileError


def read_weights(path: Path, part: str = "") -> dict[str, Tensor]:
    """Return the tensors in a file of weights (.safetensors or .pth), or in the `state_dict` in it, by name.

    `part`: which of several state dicts in one file. Raise ModelFileError if the file is missing, damaged, would run
    code, has no such part, or holds anything but tensors.
    """
    if not path.is_file():
        raise ModelFileError(f"there is no file {path}; give the path of a .safetensors or .pth file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # torch raises nearly anything for a damaged file
        if type(error).__name__ == "UnpicklingError":
            raise ModelFileError(
                f"{path} is damaged, or holds more than weights and could run code; get its state_dict alone"
            ) from error
        raise ModelFileError(f"{path} is not a readable file of weights ({error!r}); get it again") from error
    if part and not (isinstance(content, dict) and isinstance(content.get(part), dict)):
        raise ModelFileError(f"{path} has no part {part}")
    content = content[part] if part else content
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):  # saved beside an epoch's number
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ModelFileError(f"{path} holds no state_dict (names and tensors), but a {type(content).__name__}")
    return {name.removeprefix("module."): value for name, value in content.items()}  # DataParallel adds the prefix


def take_over(
    network: nn.Module, weights: Mapping[str, Tensor], path: Path, names: Mapping[str, str] | None = None
) -> None:
    """Load the weights of a file. `names`: the file's name of each of the network's tensors, if they differ.

    Raise ModelFileError, and change nothing, if tensors are missing, unknown, of another shape or not finite. Old
    files lack the counts of batches of batch normalisation, which nothing uses.
    """
    expected = {(names or {}).get(name, name): value for name, value in network.state_dict().items()}
    counts = {name: value for name, value in expected.items() if name.endswith("num_batches_tracked")}
    weights = counts | dict(weights)
    if weights.keys() != expected.keys():
        missing, extra = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
        raise ModelFileError(
            f"{path} does not fit this {type(network).__name__}: missing {_some(missing)}; unknown {_some(extra)}"
        )
    for name, value in expected.items():
        if weights[name].shape != value.shape:
            shapes = f"{tuple(weights[name].shape)}, the network's {tuple(value.shape)}"
            raise ModelFileError(f"{path}: {name} has shape {shapes}")
        if not weights[name].isfinite().all():
            raise ModelFileError(f"{path}: {name} holds values that are not finite; get the file again")
    network.load_state_dict({name: weights[(names or {}).get(name, name)] for name in network.state_dict()})


def _some(names: list[str]) -> str:
    """Return the first names of a list, for an error message."""
    return (", ".join(names[:6]) or "nothing") + (f" and {len(names) - 6} more" if len(names) > 6 else "")
