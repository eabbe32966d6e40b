"""Read released weights without running code; save and load our own networks with their configuration."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn

from facenb import savefile
from facenb.errors import ModelFileError
from facenb.morphable.model import MorphableModel


class Saved:
    """Add `save` and `load` to a network.

    The network has `kind`, `config` (JSON types) and `from_config`, which rebuilds the network. `probe` returns a few
    outputs for a fixed image, which change if the code computes something else. A loaded network also has `card`, the
    facts of its training.
    """

    kind: str  # its name and a number; raise the number when old files no longer fit
    card: dict[str, Any]

    def save(self, path: str | Path, card: dict[str, Any]) -> Path:
        """Write weights, configuration and card. Raise ModelFileError if the file cannot be written."""
        return savefile.save(path, self.kind, self.state_dict(), {"config": self.config, "card": card})

    @classmethod
    def load(cls, path: str | Path, like: dict[str, Any] | None = None) -> "Saved":
        """Return a saved network on the CPU, in eval mode, with its `card`.

        Raise ModelFileError if the file is missing, damaged, of another kind, or its configuration differs from `like`.
        """
        tensors, facts = savefile.load(path, cls.kind)
        config = facts["config"]
        if changed := [name for name, value in (like or {}).items() if config.get(name) != value]:
            differ = ", ".join(f"{name} is {config.get(name)}, not {like[name]}" for name in changed)
            raise ModelFileError(f"{path} holds a network of another size: {differ}. Train it again.")
        network = cls.from_config(config)
        network.load_state_dict(tensors)
        network.card = facts["card"]
        return network.eval()

    def to_ship(self, model: MorphableModel) -> dict[str, Tensor]:
        """Return the tensors that a file must hold so that `from_shipped` restores the network."""
        return self.state_dict()

    def from_shipped(self, tensors: Mapping[str, Tensor], model: MorphableModel) -> None:
        """Load the tensors of `to_ship`. Raise RuntimeError if they do not fit."""
        self.load_state_dict(tensors)


def fixed_image(size: Sequence[int]) -> Float[Tensor, "1 3 height width"]:
    """Return an image of waves for `probe`, RGB in [-1, 1]."""
    across, down = torch.linspace(0, 9, size[1]), torch.linspace(0, 6, size[0])[:, None]
    return torch.stack([torch.sin(across + k * down) for k in (1, 2, 3)])[None]


def read_weights(path: Path, part: str = "") -> dict[str, Tensor]:
    """Return the named tensors in a file of weights (.safetensors or .pth), or in the `state_dict` that it contains.

    `part`: the name of one of several state dicts in the file. Raise ModelFileError if the file is missing or damaged,
    could run code when it is read, has no such part, or holds anything but tensors.
    """
    if not path.is_file():
        raise ModelFileError(f"There is no file {path}. Give the path of a .safetensors or .pth file.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # torch raises nearly anything for a damaged file
        if type(error).__name__ == "UnpicklingError":
            problem = "is damaged, or holds Python objects that could run code. Get the weights (state_dict) alone"
            raise ModelFileError(f"{path} {problem}.") from error
        raise ModelFileError(f"{path} is damaged or not a file of weights ({error!r}). Get it again.") from error
    if part:
        content = content.get(part) if isinstance(content, dict) else None
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):  # saved together with the epoch
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        within = f" in its part {part!r}" if part else ""
        raise ModelFileError(f"{path} holds no named tensors{within}. Get a file with the network's state_dict.")
    return {name.removeprefix("module."): value for name, value in content.items()}  # DataParallel adds the prefix


def take_over(
    network: nn.Module, weights: Mapping[str, Tensor], path: Path, names: Mapping[str, str] | None = None
) -> None:
    """Load the weights of a file. `names` maps the network's tensor names to the file's names, if they differ.

    Raise ModelFileError, and change nothing, if tensors are missing, unknown, of another shape or not finite. Old
    files lack the batch counters of batch normalisation. Nothing uses them, so they may be missing.
    """
    expected = {(names or {}).get(name, name): value for name, value in network.state_dict().items()}
    counts = {name: value for name, value in expected.items() if name.endswith("num_batches_tracked")}
    weights = counts | dict(weights)
    problems = [f"it lacks {name}" for name in sorted(expected.keys() - weights.keys())]
    problems += [f"it has an unknown tensor {name}" for name in sorted(weights.keys() - expected.keys())]
    for name in sorted(expected.keys() & weights.keys()):
        shape, needed = tuple(weights[name].shape), tuple(expected[name].shape)
        if shape != needed:
            problems.append(f"{name} has shape {shape}, not {needed}")
        elif not weights[name].isfinite().all():
            problems.append(f"{name} has values that are not finite")
    if problems:
        shown = "; ".join(problems[:6]) + f"; and {len(problems) - 6} more" * (len(problems) > 6)
        advice = "Get the file again, or give another network."
        raise ModelFileError(f"{path} does not fit this {type(network).__name__}: {shown}. {advice}")
    network.load_state_dict({name: weights[(names or {}).get(name, name)] for name in network.state_dict()})
