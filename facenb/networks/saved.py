"""Networks of this library as one safetensors file each: weights, configuration and card.

A network that is saved so has `config`, fit for JSON, from which its class makes it again (`from_config`), and `card`:
what is known of its training.
"""

import json
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from facenb.errors import RunError
from facenb.files import atomic_write

FACTS = {"architecture": str, "card": dict, "config": dict, "layout": int}  # what a saved network tells of itself
Network = TypeVar("Network", bound=nn.Module)


def save_network(network: nn.Module, path: str | Path, card: dict[str, Any], layout: int) -> Path:
    """Write weights, configuration and card (fit for JSON), whole or not at all.

    `layout`: raised by a change that old files do not fit. Raises RunError for a card that JSON does not hold, and
    where the file cannot be written.
    """
    path = Path(path)
    facts = {"architecture": type(network).__name__, "layout": layout, "config": network.config, "card": card}
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in network.state_dict().items()}
    try:
        metadata = {"facenb": json.dumps(facts)}
    except (TypeError, ValueError) as error:
        raise RunError(f"the card of {path} holds what JSON does not: {error}") from error
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as partial:
            save_file(tensors, partial, metadata)
    except (OSError, SafetensorError) as error:
        raise RunError(f"cannot write {path} ({error}); make room there, or choose another folder") from error
    return path


def load_network(kind: type[Network], path: str | Path, like: dict[str, Any] | None, layout: int) -> Network:
    """A saved network of this class on the CPU, in eval mode, with its `card`.

    `like`: the configuration that is expected; the parts of a layout in their order. Raises RunError, naming the file
    and both sides, for another architecture, layout or configuration, and for a file that is missing, damaged, or no
    saved network.
    """
    facts, tensors = _read(Path(path), kind.__name__)
    if facts["architecture"] != kind.__name__ or facts["layout"] != layout:
        raise RunError(
            f"{path} holds a {facts['architecture']} of layout {facts['layout']}, and {kind.__name__} of layout "
            f"{layout} is needed: train it again, or use the version of facenb that wrote it"
        )
    if like is not None and (differ := _differences(facts["config"], like)):
        raise RunError(f"{path} holds another network than asked for: {differ}; train it again, or ask for that one")
    try:
        network = kind.from_config(facts["config"])
    except (RunError, MemoryError):
        raise
    except Exception as error:  # torch's own, of many types, for sizes that cannot be
        raise RunError(
            f"{path} holds a configuration that makes no {kind.__name__} ({type(error).__name__}: {error}); "
            "it is damaged: train the network again"
        ) from error
    own = network.state_dict()
    told = {name: tuple(value.shape) for name, value in tensors.items()}
    if differ := _differences(told, {name: tuple(value.shape) for name, value in own.items()}):
        raise RunError(f"{path} does not hold the tensors of its own configuration: {differ}; it is damaged")
    network.load_state_dict(tensors)
    network.card = facts["card"]
    return network.eval()


def _read(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Facts and tensors of a saved network."""
    if not path.is_file():
        raise RunError(f"there is no {path}; train the network first, or give the path of one that was saved")
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {}).get("facenb", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, ValueError) as error:
        raise RunError(f"{path} is no whole safetensors file ({error}); train the network again") from error
    facts = facts if isinstance(facts, dict) else {}
    if missing := [name for name, form in FACTS.items() if not isinstance(facts.get(name), form)]:
        raise RunError(f"{path} was not saved by {kind}.save: it does not tell its {', '.join(missing)}")
    return facts, tensors


def _differences(found: dict[str, Any], expected: dict[str, Any]) -> str:
    """What differs, each as `name: found, expected`."""
    found, expected = _flat(found), _flat(expected)
    names = [name for name in {**expected, **found} if found.get(name) != expected.get(name)]
    some = [f"{name}: there {found.get(name)}, needed {expected.get(name)}" for name in names[:4]]
    return "; ".join(some + ([f"and {len(names) - 4} more"] if len(names) > 4 else []))


def _flat(facts: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Nested names with a dot between; the `parts` of a layout as one list, since their order counts."""
    flat = {}
    for name, value in facts.items():
        value = list(value.items()) if name == "parts" and isinstance(value, dict) else value
        flat |= _flat(value, f"{before}{name}.") if isinstance(value, dict) else {before + name: value}
    return flat
