"""What a training reports while it runs: its losses, JSON lines, a bar on a terminal, TensorBoard."""

import json
import math
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from facenb.errors import RunError
from facenb.files import atomic_write
from facenb.training.checkpoint import list_checkpoints
from facenb.training.feed import Feed

ADVICE = {
    "loss": "Lower the rate, set clip, or check the loss",
    "gradient": "Look in the loss for a root, a norm or a division at 0",
}


@dataclass(frozen=True)
class Progress:
    """The state of a training at one report."""

    step: int  # steps done
    steps: int
    losses: dict[str, float]  # means over the steps since the last report
    validation: dict[str, float]  # empty unless this step is validated
    rate: float
    images_per_second: float
    waiting: float  # fraction of the time spent waiting for data
    seconds: float  # of training, over all starts
    seconds_left: float

    @property
    def done(self) -> bool:
        """Whether all steps are done."""
        return self.step == self.steps

    @property
    def note(self) -> str:
        """A warning that the user should act on; empty if there is none."""
        slow = f"waiting for data {100 * self.waiting:.0f} % of the time: the loader is the bottleneck"
        return slow if self.waiting > 1 / 3 else ""


Watch = Callable[[Progress], Any]


@dataclass(frozen=True)
class History:
    """The result of `train`: the log of all starts, and facts of this call."""

    log: pd.DataFrame = field(repr=False)
    resumed_from: int  # step; 0 if the training began anew
    seconds: float  # of this call


def read_log(folder: Path) -> pd.DataFrame:
    """Return the log of a training, one row for each report; empty if there is none yet."""
    return pd.DataFrame(_rows(folder / "log.jsonl"))


def _rows(path: Path) -> list[dict[str, Any]]:
    """Return the complete lines. The last line may be incomplete if the process was killed."""
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.is_file() else []


class Readout:
    """A queue of the numbers of each step, copied from the device. Reading them one step late keeps a GPU busy."""

    def __init__(self, feed: Feed, folder: Path):
        self.feed, self.folder = feed, folder
        self.queue: deque[tuple] = deque()
        self.losses: dict[str, list[float]] = defaultdict(list)  # since the last report

    def add(self, step: int, losses: Iterable[str], trained: Iterable[str], values: Float[Tensor, " values"]) -> None:
        """Queue the numbers of a step: its losses, how many processes should stop, the norm of each gradient."""
        event = None
        if values.is_cuda:
            values = torch.empty(values.shape, pin_memory=True).copy_(values, non_blocking=True)
            event = torch.cuda.Event()
            event.record()
        self.queue.append((step, list(losses), list(trained), values, event))

    def read(self, late: bool = False) -> bool:
        """Read all queued steps (with `late`, all but the newest one), and return whether a process should stop.

        Raise RunError if a loss or a gradient is not finite.
        """
        stop = False
        while len(self.queue) > late:
            step, losses, trained, values, event = self.queue.popleft()
            if event is not None:
                event.synchronize()
            means, (stops,), norms = (part.tolist() for part in values.split([len(losses), 1, len(trained)]))
            self._check(step, "loss", losses, means)
            self._check(step, "gradient", trained, norms)
            for name, value in zip(losses, means, strict=True):
                self.losses[name].append(value)
            stop |= stops > 0
        return stop

    def means(self) -> dict[str, float]:
        """Return the mean of each loss since the last call, over the steps that have it."""
        means = {name: sum(values) / len(values) for name, values in self.losses.items()}
        self.losses.clear()
        return means

    def _check(self, step: int, kind: str, names: list[str], numbers: list[float]) -> None:
        bad = [name for name, number in zip(names, numbers, strict=True) if not math.isfinite(number)]
        if not bad:
            return
        rows, causes = [], []
        for part in self.feed.mine:  # load them again: the same rows with the same random changes
            part_rows, batch = self.feed.load(step, part)
            rows += part_rows.tolist()
            for name, tensor in batch.items():
                harmed = ~tensor.isfinite().reshape(len(tensor) if tensor.ndim else 1, -1).all(1)
                where = f" of rows {part_rows[harmed].tolist()}" if len(harmed) == len(part_rows) else ""
                causes += [name + where] * bool(harmed.any())
        cause = f"In its data {'; '.join(causes)} is not finite" if causes else f"Its data is finite. {ADVICE[kind]}"
        checkpoints = list_checkpoints(self.folder)
        last = f"The last good checkpoint is {checkpoints[0]}" if checkpoints else "There is no checkpoint yet"
        problem = f"The {kind} of step {step + 1} is not finite: {', '.join(bad[:4])} ({len(bad)} of {len(names)})"
        raise RunError(f"{problem}. Its batch is rows {rows}. {cause}. {last}.")


class Log:
    """The file `log.jsonl`: one JSON object per line. Rows after `step`, where the training resumes, are deleted."""

    def __init__(self, folder: Path, step: int):
        self.path = folder / "log.jsonl"
        rows = [row for row in _rows(self.path) if row["step"] <= step]
        with atomic_write(self.path) as partial:
            partial.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def __call__(self, state: Progress) -> None:
        validation = {f"validation {name}": value for name, value in state.validation.items()}
        row = {"step": state.step, "rate": state.rate, **state.losses, **validation}
        row |= {name: getattr(state, name) for name in ("images_per_second", "waiting", "seconds")}
        with open(self.path, "a") as file:
            file.write(json.dumps(row) + "\n")


class Bar:
    """Show loss, throughput and time left on a terminal; show nothing if stderr is not a terminal."""

    def __init__(self, steps: int, done: int):
        self.bar = tqdm(total=steps, initial=done, unit="step", disable=None)

    def __call__(self, state: Progress) -> None:
        self.bar.set_postfix_str(
            f"loss {state.losses['loss']:.4g}, {state.images_per_second:.0f} images/s {state.note}"
        )
        self.bar.update(state.step - self.bar.n)


class TensorBoard:
    """Curves for TensorBoard, in a folder: `train(..., watch=TensorBoard(folder))`."""

    def __init__(self, folder: str | Path):
        self.folder, self.writer = folder, None

    def __call__(self, state: Progress) -> None:
        if self.writer is None:
            from torch.utils.tensorboard import SummaryWriter  # takes seconds to import

            self.writer = SummaryWriter(str(self.folder), purge_step=state.step)  # hides lost steps of a killed run
        validation = {f"validation/{name}": value for name, value in state.validation.items()}
        for name, value in {"rate": state.rate, **state.losses, **validation}.items():
            self.writer.add_scalar(name, value, state.step)
        self.writer.flush()
