"""Settings of a training, and the learning rate of each step."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from facenb.errors import RunError

CHOICES = {"optimiser": ("sgd", "adamw"), "precision": ("auto", "32-true", "bf16-mixed")}
LEAST = dict.fromkeys(("steps", "batch", "accumulate", "save_every", "log_every", "threads"), 1)
LEAST |= dict.fromkeys(("seed", "validate_every", "weight_decay", "warm_up", "clip"), 0)
# These settings change the speed of a training, not what it learns, so they may change when it is resumed.
# (Several parts of a batch give the same mean gradient as one, up to rounding. Augmentation is drawn for each part.)
FREE = ("accumulate", "save_every", "validate_every", "log_every", "threads")


@dataclass(frozen=True)
class Settings:
    """How to train. Raise RunError for a value that makes no sense."""

    steps: int  # updates of the weights
    batch: int = 256  # rows of one update, over all processes; as SphereFace
    rate: float = 0.1  # the highest learning rate: SphereFace's value for sgd; use about 1e-3 for adamw
    optimiser: str = "sgd"  # with momentum 0.9; or "adamw"
    weight_decay: float = 5e-4  # SphereFace's; only on weights with two or more dimensions, not on biases and norms
    warm_up: int = 0  # steps in which the rate rises linearly; then it falls to 0 as a cosine
    clip: float = 0.0  # largest norm of the gradient; 0: no clipping
    accumulate: int = 1  # parts of a batch, computed one after the other to save memory
    precision: str = "auto"  # bf16-mixed on a GPU that supports it, else 32-true
    seed: int = 0  # of the order of rows, the augmentation, and the network's own random numbers
    save_every: int = 500  # steps between checkpoints; a killed run loses at most this many
    validate_every: int = 500  # steps between validations; 0: only at the end
    log_every: int = 50  # steps between rows of the log
    threads: int = 1  # number of threads that load batches

    def __post_init__(self):
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise RunError(f"The setting {name} is {getattr(self, name)!r}. Choose one of {', '.join(choices)}.")
        for name, least in LEAST.items():
            if not getattr(self, name) >= least:
                raise RunError(f"The setting {name} is {getattr(self, name)}. Give a number of at least {least}.")
        if not (self.rate > 0 and math.isfinite(self.rate)):
            raise RunError(f"The setting rate is {self.rate}. Give a number above 0.")

    def rate_at(self, step: int) -> float:
        """Return the learning rate of a step (from 0)."""
        if step < self.warm_up:
            return self.rate * (step + 1) / self.warm_up
        return self.rate * (1 + math.cos(math.pi * (step - self.warm_up) / max(self.steps - self.warm_up, 1))) / 2

    def as_dict(self) -> dict[str, Any]:
        """Return the settings for JSON."""
        return asdict(self)

    def differences(self, saved: dict[str, Any]) -> str:
        """Return a list, as text, of settings not in FREE that differ from the saved ones; empty if there are none."""
        changed = [name for name, value in asdict(self).items() if name not in FREE and value != saved.get(name)]
        return ", ".join(f"{name} {getattr(self, name)!r} (saved: {saved.get(name)!r})" for name in changed)
