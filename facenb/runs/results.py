"""A notebook's run: its parameters, the folder for its results, and one record for every number that it measures.

A run folder holds `executed/` (notebooks), `records/` (a line of JSON for each number), figures, networks and sets.
"""

import errno
import io
import json
import os
import platform
import shlex
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, SupportsFloat

import torch
from IPython import display
from PIL import Image
from pooch import file_hash

import facenb
from data_download.folders import data_folder, environment_folder, explained
from data_download.install import MARKER
from facenb.errors import RunError
from facenb.evaluation.claims import Claim
from facenb.files import atomic_write
from facenb.runs import DATA, DEVICES, PROFILES
from facenb.runs.recorded import problems, read_records

__all__ = ["DATA", "DEVICES", "PROFILES", "Run", "read_records"]
LOCK = ".lock"  # of a run folder: held by `run all`, or shared by single notebooks
PACKAGES = ("facenb", "torch", "numpy", "scipy", "numba", "libigl", "onnxruntime", "k3d", "mediapipe", "papermill")


def repository() -> Path | None:
    """Return the checkout that the library runs from, or None if it is installed without its notebooks."""
    root = Path(facenb.__file__).resolve().parents[1]
    return root if (root / "notebooks").is_dir() else None


@cache
def commit() -> str:
    """Return the checkout's commit, with `+` if files differ from it. Empty without a git checkout."""
    root = repository()
    command = ["git", "-C", root, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
    if root is None or not (root / ".git").exists():
        return ""
    try:
        return subprocess.check_output(command, stderr=subprocess.DEVNULL, text=True).strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def device_name(device: torch.device) -> str:
    """Return the name of the hardware: the GPU's name, or the processor architecture and the number of cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()}, {os.cpu_count()} cores"


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that can change a number."""
    numbers = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            numbers[package] = version(package)
    return numbers


def checksums(folder: Path) -> dict[str, str]:
    """Return a checksum by name for each asset of this machine and each complete set of a run folder.

    A checksum is the first 16 digits of a SHA-256: for an asset that of its manifest, for a set that of its card, which
    describes the content.
    """
    cards = [path for path in sorted(folder.glob("sets/*/card.json")) if '"complete": false' not in path.read_text()]
    digests = {f"sets/{card.parent.name}": file_hash(card)[:16] for card in cards}
    for path in sorted(data_folder().glob(f"*/{MARKER}")):
        with suppress(OSError, ValueError, KeyError):  # an asset that is not ready
            digests[path.parent.name] = json.loads(path.read_text(encoding="utf-8"))["manifest"][:16]
    return digests


def check_choice(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    """Return the value. Raise RunError unless it is one of those allowed."""
    if value not in allowed:
        raise RunError(f"{name} is {value!r}. Choose one of: {', '.join(allowed)}.")
    return value


def check_run(seed: Any, device: str) -> None:
    """Raise RunError if the seed is not a whole number from 0 to 2**63 - 1, or if a GPU is asked for and missing."""
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
        raise RunError(f"seed is {seed!r}. Expected a whole number from 0 to 2**63 - 1.")
    if check_choice("device", device, DEVICES) == "cuda" and not torch.cuda.is_available():
        raise RunError("device is 'cuda', but torch sees no GPU. Use 'auto' or 'cpu'.")


def run_folder(folder: str | Path, profile: str, data: str) -> Path:
    """Return the run folder as an absolute path. `~` is expanded.

    The default is the folder `PROFILE-DATA` in FACENB_RUNS. Without FACENB_RUNS it is in `runs/` of the checkout, or
    else of the current folder.
    """
    if folder:
        return Path(folder).expanduser().absolute()
    base = environment_folder("FACENB_RUNS") or (repository() or Path.cwd()) / "runs"
    return base / f"{profile}-{data}"


class Run:
    """The parameters of one notebook and the folder for its results.

    The environment variables FACENB_PROFILE and FACENB_RUNS replace `profile` and the default place of `folder`. They
    are for tools that cannot pass parameters (nbval). Raise RunError for an unknown value, a folder that cannot be
    written, and a GPU that is asked for and missing.
    """

    def __init__(self, notebook: str, profile="quick", data="synthetic", seed=0, device="auto", folder=""):
        self.notebook = notebook
        self.profile = check_choice("profile", os.environ.get("FACENB_PROFILE") or profile, PROFILES)
        self.data = check_choice("data", data, DATA)
        check_run(seed, device)
        self.seed = seed
        self.device = torch.device("cuda" if torch.cuda.is_available() and device != "cpu" else "cpu")
        self.folder = run_folder(folder, self.profile, self.data)
        self.id = f"{time.strftime('%Y%m%dT%H%M%S')}-{uuid.uuid4().hex[:6]}"
        self.records = self.path(f"records/{notebook}.{self.id}.jsonl")

    def __repr__(self) -> str:
        return f"{self.notebook}: {self.profile} profile, {self.data} data, seed {self.seed}"

    def path(self, name: str) -> Path:
        """Return the path of a file in the run folder and make its folder. Raise RunError if it cannot be written."""
        path = self.folder / name
        with explained(self.folder, RunError, "Choose another run folder."):
            path.parent.mkdir(parents=True, exist_ok=True)
            if not os.access(path.parent, os.W_OK):
                raise PermissionError(errno.EACCES, "no permission", str(path.parent))
        return path

    def choose(self, *, smoke: Any, quick: Any, full: Any) -> Any:
        """Return the value for this run's profile."""
        return {"smoke": smoke, "quick": quick, "full": full}[self.profile]

    def serves(self, *data: str, why: str) -> None:
        """Raise RunError with the reason unless this run's data is one of those given."""
        if self.data not in data:
            raise RunError(f"{self.notebook} does not serve data={self.data!r}: {why}. Use one of: {', '.join(data)}.")

    def record(
        self,
        metric: str,
        value: SupportsFloat,
        unit: str,
        *,
        experiment: str,
        method: str,
        data: str,
        protocol: str = "",
        n: SupportsFloat | None = None,
        interval: Sequence | None = None,
        **details: Any,
    ) -> float:
        """Append one measured number to the records, with everything that says how it was measured. Return it.

        `data` is the name of the set; `n` is how many items were averaged; `interval` is a 95 % interval; `details` are
        whatever else distinguishes it. A number that is not finite is written as missing (null). Raise RunError for a
        record that could not be read back. Each line is appended in one write, so a killed run leaves complete lines
        only.
        """
        n = int(n) if n is not None and float(n).is_integer() else n
        interval = None if interval is None else list(map(float, interval))
        record = {"experiment": experiment, "data": data, "protocol": protocol, "method": method, "metric": metric}
        record |= {"value": float(value), "unit": unit, "n": n, "interval": interval, **details}
        record |= {"seed": self.seed, "profile": self.profile, "device": device_name(self.device)}
        record |= {"notebook": self.notebook, "run": self.id, "time": time.strftime("%Y-%m-%dT%H:%M:%S")}
        record |= {"commit": commit(), "versions": versions(), "checksums": checksums(self.folder)}
        text = json.dumps(record, default=lambda number: number.tolist())  # of numpy or torch
        record = json.loads(text, parse_constant=lambda _: None)  # not finite: null
        if None in (record["interval"] or []):
            record["interval"] = None
        if problem := problems(record):
            raise RunError(f"The record of {metric!r} cannot be written: {problem}.")
        line = (json.dumps(record) + "\n").encode()
        with explained(self.records, RunError, "Run the cell again."), self.records.open("ab", buffering=0) as file:
            if file.write(line) != len(line):
                raise OSError(errno.ENOSPC, "the disk is full", str(self.records))
        return float(value)

    def claim(self, claim: Claim, *, experiment: str, data: str, method: str = "", **details: Any) -> Claim:
        """Record a claim (effect, interval, p, verdict) under the metric `claim NAME`. Return it."""
        effect = claim.effect
        facts = {"experiment": experiment, "method": method, "data": data, "n": effect.subjects, "drawn": effect.drawn}
        facts |= {"interval": (effect.low, effect.high), "level": effect.level, "p": claim.p_value}
        facts |= {"verdict": claim.verdict, "statement": claim.statement, "at_least": claim.at_least}
        self.record(f"claim {claim.name}", effect.value, claim.unit, **facts, **details)
        return claim

    def need(self, name: str, notebook: str) -> Path:
        """Return a file or folder that an earlier notebook made. Raise RunError with the command that makes it."""
        path = self.folder / name
        if path.exists():
            return path
        source = (repository() or Path.cwd()) / f"notebooks/{notebook}.ipynb"
        words = [sys.executable, "-m", "facenb", "run", str(source), "--profile", self.profile, "--data", self.data]
        command = shlex.join([*words, "--seed", str(self.seed), "--run-folder", str(self.folder)])
        raise RunError(
            f"{self.notebook} needs {path}, which notebook {notebook} makes. Make it with\n    {command}\n"
            "in a terminal, or in a cell here with ! in front. Then run this cell again."
        )

    def figure(self, fig, name: str) -> display.Image:
        """Save a matplotlib figure as `figures/NAME.png`, optimised in size, and return it as the cell's picture."""
        picture = png(fig)
        with atomic_write(self.path(f"figures/{name}.png")) as partial:
            partial.write_bytes(picture)
        return display.Image(picture, format="png", alt=f"figure: {name}")


def png(fig) -> bytes:
    """Return a matplotlib figure as a PNG of 256 colours, less than half the size of full colour. Close the figure."""
    full, small = io.BytesIO(), io.BytesIO()
    fig.savefig(full, format="png", dpi=100, bbox_inches="tight", facecolor="white")
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close(fig)
    # Not dithered: Pillow's dithering turns white to grey, speckles faces and makes files a tenth larger.
    Image.open(full).convert("RGB").quantize(256, kmeans=1).save(small, "PNG", optimize=True)
    return small.getvalue()
