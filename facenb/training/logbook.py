"""What a training tells while it runs: a table (CSV), TensorBoard, a bar on a terminal, and who watches."""

import csv
import io
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from facenb.files import atomic_write

SLOW = 1 / 3  # share of time spent waiting for data above which the loader is called the bottleneck


@dataclass(frozen=True)
class Progress:
    """Where a training stands."""

    step: int  # steps done
    steps: int
    epoch: float  # times each row was seen
    losses: dict[str, float]  # means over the steps since the last report
    validation: dict[str, float]  # the latest; empty before the first
    rate: float
    pictures_per_second: float
    waiting: float  # share of the time spent waiting for data
    seconds: float  # spent training, over all its starts
    seconds_left: float
    done: bool

    @property
    def note(self) -> str:
        """What somebody should do something about; empty where there is nothing."""
        if self.waiting <= SLOW:
            return ""
        return f"waiting for data {self.waiting:.0%} of the time: the loader is the bottleneck".replace("%", " %")


@dataclass(frozen=True)
class History:
    """What `train` gives back: the table of the log, and how this call went."""

    log: pd.DataFrame = field(repr=False)
    resumed_from: int  # step; 0 where the training began anew
    seconds: float  # of this call
    note: str = ""  # the last report's

    @property
    def last(self) -> dict[str, Any]:
        """The last row of the log."""
        return {} if self.log.empty else self.log.iloc[-1].to_dict()


class Log:
    """`log.csv` and `tensorboard/` in the training's folder; rows after the step that is gone back to are dropped."""

    def __init__(self, folder: Path, step: int, tensorboard: bool):
        self.path = folder / "log.csv"
        self.rows = [row for row in _read(self.path) if int(row["step"]) <= step] if step else []
        self.names = list(self.rows[0]) if self.rows else []
        self._rewrite()
        self.writer = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter  # seconds to import

            for old in [] if step else (folder / "tensorboard").glob("events.out.tfevents.*"):
                old.unlink()
            self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def add(self, state: Progress, validated: bool) -> None:
        """Append a row; a name that was never there before becomes a new column. `validated`: in this very step."""
        row = {"step": state.step, "epoch": state.epoch, "rate": state.rate, **state.losses}
        if validated:
            row |= {f"validation {name}": value for name, value in state.validation.items()}
        row |= {"pictures_per_second": state.pictures_per_second, "waiting": state.waiting}
        row |= {"seconds": state.seconds, "note": state.note}
        self.rows.append({name: str(value) for name, value in row.items()})
        new = [name for name in row if name not in self.names]
        if new:
            self.names += new
            self._rewrite()
        else:
            with open(self.path, "a", newline="") as file:
                file.write(_lines(self.rows[-1:], self.names))
        if self.writer is not None:
            for name, value in row.items():
                if isinstance(value, float):
                    self.writer.add_scalar(name.replace(" ", "/"), value, state.step)
            self.writer.flush()

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()

    def _rewrite(self) -> None:
        text = _lines([dict(zip(self.names, self.names, strict=True)), *self.rows], self.names) if self.names else ""
        with atomic_write(self.path) as partial:
            partial.write_text(text, newline="")


def read_log(folder: Path) -> pd.DataFrame:
    """The table of a training, a row a report; empty where there is none yet."""
    try:
        table = pd.read_csv(folder / "log.csv")
    except (FileNotFoundError, pd.errors.EmptyDataError):
        return pd.DataFrame()
    table["note"] = table["note"].astype(object).where(table["note"].notna(), "")
    return table


def _lines(rows: list[dict[str, str]], names: list[str]) -> str:
    text = io.StringIO(newline="")
    csv.DictWriter(text, names, restval="", lineterminator="\n").writerows(rows)
    return text.getvalue()


def _read(path: Path) -> list[dict[str, str]]:
    """Whole lines only: a kill may have cut the last one short."""
    if not path.is_file():
        return []
    whole = path.read_text()
    return list(csv.DictReader(whole[: whole.rfind("\n") + 1].splitlines()))


class Bar:
    """Throughput, loss and time left on a terminal; silent where stderr is none."""

    def __init__(self, steps: int, done: int):
        self.bar = tqdm(total=steps, initial=done, unit="step", disable=not sys.stderr.isatty(), file=sys.stderr)

    def __call__(self, state: Progress) -> None:
        self.bar.set_postfix_str(
            f"loss {state.losses.get('loss', float('nan')):.4g}, {state.pictures_per_second:.0f} pictures/s"
            + (f", {state.note}" if state.note else "")
        )
        self.bar.update(state.step - self.bar.n)

    def close(self) -> None:
        self.bar.close()


Watch = Callable[[Progress], Any]
