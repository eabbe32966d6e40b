"""Settings of a training, and the rate at each step."""

import math
import operator
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from facenb.errors import RunError
from facenb.runs.results import check_choice

OPTIMISERS = ("sgd", "adamw")
SCHEDULES = ("cosine", "steps", "constant")
PRECISIONS = ("auto", "32-true", "bf16-mixed")
# What may differ when a training goes on: it decides how fast and how far, not what is learned. (Parts of a batch,
# whether by accumulation or over processes, give the same mean gradient up to rounding. Steps are free, too, but a
# cosine that is stretched has other rates: going on to more steps is then another training than that many at once.)
FREE = ("steps", "accumulate", "devices", "nodes", "save_every", "validate_every", "log_every", "prefetch", "threads",
        "tensorboard")  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """How to train. RunError where a value makes no sense."""

    steps: int  # updates of the weights
    batch: int = 256  # rows of one update, over all its parts and processes: SphereFace's
    rate: float = 0.1  # the highest learning rate: SphereFace's; about 1e-3 for adamw
    optimiser: str = "sgd"  # with momentum 0.9, or "adamw"
    weight_decay: float = 5e-4  # SphereFace's; on weights of two dimensions and more, not on biases, norms and slopes
    warm_up: int = 0  # steps over which the rate rises from nothing
    schedule: str = "cosine"  # to 0 at the end; "steps": a tenth from each milestone on; "constant"
    milestones: Sequence[int] = ()  # steps, for schedule "steps"; SphereFace: 16000, 24000 (of 28000)
    clip: float = 0.0  # greatest norm of the gradient; 0: as it comes
    accumulate: int = 1  # parts in which a process works through its share of the batch, where memory is short
    precision: str = "auto"  # bf16-mixed on a GPU that has it, 32-true elsewhere
    seed: int = 0  # of the order, of alterations of the data, and of random numbers in the network
    save_every: int = 500  # steps between checkpoints: what a kill can cost
    validate_every: int = 500  # steps between validations; 0: at the end only
    log_every: int = 50  # steps between reports
    prefetch: int = 4  # batches loaded ahead
    threads: int = 1  # that load them
    devices: int = 1  # processes a node, each with a GPU of its own where there are GPUs; torchrun's number counts
    nodes: int = 1
    tensorboard: bool = True

    def __post_init__(self):
        object.__setattr__(self, "milestones", tuple(self.milestones))  # a list, as JSON gives it, is welcome
        check_choice("optimiser", self.optimiser, OPTIMISERS)
        check_choice("schedule", self.schedule, SCHEDULES)
        check_choice("precision", self.precision, PRECISIONS)
        for name in ("steps", "batch", "accumulate", "save_every", "log_every", "prefetch", "threads", "devices",
                     "nodes"):  # fmt: skip
            self._whole(name, 1)
        for name in ("seed", "validate_every"):
            self._whole(name, 0)
        for name in ("weight_decay", "warm_up", "clip"):
            if not getattr(self, name) >= 0:
                raise RunError(f"{name} is {getattr(self, name)}; give a number from 0 up")
        if not (self.rate > 0 and math.isfinite(self.rate)):
            raise RunError(f"rate is {self.rate}; give a number above 0")
        if (self.schedule == "steps") != bool(self.milestones):
            raise RunError(
                f"schedule is {self.schedule!r} and milestones are {self.milestones}; milestones belong to schedule "
                "'steps', which needs at least one"
            )

    def _whole(self, name: str, least: int) -> None:
        """Make a field a plain int (numpy's are welcome, and JSON does not know them); RunError where it is none."""
        value = getattr(self, name)
        try:
            whole = operator.index(value)
        except TypeError:
            whole = least - 1
        if whole < least:
            raise RunError(f"{name} is {value!r}; give a whole number from {least} up")
        object.__setattr__(self, name, whole)

    def rate_at(self, step: int) -> float:
        """The learning rate of a step (from 0)."""
        if step < self.warm_up:
            return self.rate * (step + 1) / self.warm_up
        if self.schedule == "cosine":
            return self.rate * (1 + math.cos(math.pi * (step - self.warm_up) / max(self.steps - self.warm_up, 1))) / 2
        return self.rate * 0.1 ** sum(step >= milestone for milestone in self.milestones)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"milestones": list(self.milestones)}

    def differences(self, other: dict[str, Any]) -> str:
        """What `as_dict` of other settings says otherwise about what is learned, in words; empty where nothing."""
        own = self.as_dict()
        names = [field.name for field in fields(self) if field.name not in FREE]
        return ", ".join(
            f"{name} {own[name]!r} (then {other.get(name)!r})" for name in names if own[name] != other.get(name)
        )
