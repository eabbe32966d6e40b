"""Networks in one file each: weights, configuration and card (`facenb.savefile`).

Such a network has `kind`, `config` (fit for JSON), from which `from_config` builds it again, and `card`, the facts of
its training.
"""

from pathlib import Path
from typing import Any

from facenb import savefile
from facenb.errors import ModelFileError


class Saved:
    """Adds `save` and `load` to a network that has `kind`, `config` and `from_config`."""

    kind: str  # its name and a number, raised by a change that old files do not fit
    card: dict[str, Any]

    def save(self, path: str | Path, card: dict[str, Any]) -> Path:
        """Write weights, configuration and card. Raise ModelFileError if the file cannot be written."""
        return savefile.save(path, self.kind, self.state_dict(), {"config": self.config, "card": card})

    @classmethod
    def load(cls, path: str | Path, like: dict[str, Any] | None = None) -> "Saved":
        """Return a saved network on the CPU, in eval mode, with its `card`.

        Raise ModelFileError if the file is missing, damaged, of another kind, or configured otherwise than `like`.
        """
        tensors, facts = savefile.load(path, cls.kind)
        config = facts["config"]
        if changed := [name for name, value in (like or {}).items() if config.get(name) != value]:
            differ = ", ".join(f"{name} {config.get(name)} (needed: {like[name]})" for name in changed)
            raise ModelFileError(f"{path} holds another network: {differ}; train it again")
        network = cls.from_config(config)
        network.load_state_dict(tensors)
        network.card = facts["card"]
        return network.eval()
