"""The curves of a training in a notebook, redrawn in place while it runs."""

import time
from typing import Any

import numpy as np
import pandas as pd
from IPython import get_ipython
from IPython.display import display
from matplotlib.figure import Figure

from facenb.runs.results import png
from facenb.show.figures import COLOURS, figure, headless


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


class Live:
    """Show a training while it runs, in one output that is redrawn: `train(..., watch=Live("phase I"))`.

    Lines are training losses; dots are the same losses on the validation set. Values that exist only for the validation
    set have their own axes. Nothing is shown outside a notebook. With FACENB_HEADLESS only the final curves are drawn.
    The output's text contains no times, so it is the same in every run.
    """

    every = 2.0  # least seconds between drawings; the pause is also at least ten times a drawing's duration

    def __init__(self, title: str):
        self.title, self.due, self.handle = title, 0.0, None
        self.rows: list[dict[str, float]] = []  # as in the log: step, losses, and "validation ..." at some steps

    def __call__(self, state: Any) -> None:
        """Draw a `facenb.training.Progress` if it is time."""
        validation = {f"validation {name}": value for name, value in state.validation.items()}
        self.rows.append({"step": state.step, **state.losses, **validation})
        words = [f"step {state.step:,} of {state.steps:,}", f"{state.images_per_second:,.0f} images/s"]
        words += [_duration(state.seconds) if state.done else f"{_duration(state.seconds_left)} left"]
        if state.done or not headless():
            self._draw(", ".join(words + [state.note] * bool(state.note)), state.done)

    def finish(self, log: pd.DataFrame) -> None:
        """Draw the whole log of a training, including the steps before it was resumed."""
        if log.empty:
            return
        self.rows = log.drop(columns=["rate", "images_per_second", "waiting", "seconds"]).to_dict("records")
        self._draw(f"{self.rows[-1]['step']:,} steps, {_duration(log['seconds'].iloc[-1])}", True)

    def figure(self, words: str = "") -> Figure:
        """Return the curves so far under `title: words`."""
        table = pd.DataFrame(self.rows).set_index("step")
        lines = {name: table[name].dropna() for name in table if not name.startswith("validation ")}
        dots = {name.removeprefix("validation "): table[name].dropna() for name in table if name not in lines}
        apart = [name for name in dots if name not in lines]
        fig, axes = figure(columns=2 if apart else 1, width=8.0 if apart else 6.0, height=2.6, squeeze=False)
        colours = [COLOURS[name] for name in ("truth", "fit", "between", "best possible", "second", "landmark")] * 4
        colour_of = dict(zip(dict.fromkeys([*lines, *dots]), colours, strict=False))
        for number, (name, values) in enumerate(lines.items()):
            style = "-" if number < 6 else "--"  # there are six colours
            axes[0, 0].plot(values, style, color=colour_of[name], lw=1.2, label=name)
        for name, values in dots.items():
            axis, style = (axes[0, 1], "o-") if name in apart else (axes[0, 0], "o")
            label = name if name in apart else None
            axis.plot(values, style, color=colour_of[name], ms=4, lw=0.8, label=label)
        for axis, label in zip(axes.flat, ("loss", "validation"), strict=False):
            drawn = np.concatenate([line.get_ydata() for line in axis.lines] or [[1.0]])
            log = label == "loss" and drawn.min() > 0 and drawn.max() > 5 * drawn.min()
            axis.set(xlabel="step", ylabel=label, yscale="log" if log else "linear", xlim=(0, None))
            beside = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)} if len(axis.lines) > 4 else {}
            axis.legend(fontsize=8, frameon=False, **beside)
        title = f"{self.title}: {words}" + "\ndots: validation" * (len(dots) > len(apart))
        fig.suptitle(title, fontsize=10, x=0.02, ha="left")
        return fig

    def _draw(self, words: str, last: bool) -> None:
        began, shell = time.monotonic(), get_ipython()
        if not hasattr(shell, "kernel") or began < self.due and not last:
            return
        text = f"training: {self.title}, {self.rows[-1]['step']:,} steps"  # for viewers that show no images
        picture = {"image/png": png(self.figure(words)), "text/plain": text}
        if self.handle is None:
            self.handle = display(picture, raw=True, display_id=True)
        else:
            self.handle.update(picture, raw=True)
        now = time.monotonic()
        self.due = now + max(self.every, 10 * (now - began))
