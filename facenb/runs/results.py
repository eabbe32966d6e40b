"""A notebook's run: where it writes, what it was asked for, and one record for every number it measured.

A run folder holds `executed/` (the notebooks), `records/` (one line of JSON a number), `figures/`, `models/`, `sets/`.
"""

import hashlib
import json
import math
import os
import platform
import shlex
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, SupportsFloat

import numpy as np
import torch

import facenb
from data_download.entries import load_entries
from data_download.folders import data_folder
from data_download.install import is_ready, marker
from facenb.errors import RunError
from facenb.evaluation.claims import Claim
from facenb.files import atomic_write
from facenb.runs.recorded import mixed, read_records

__all__ = ["Picture", "Run", "assets", "commit", "default_folder", "mixed", "read_records", "repository", "versions"]
PROFILES = ("smoke", "quick", "full")
DATA = ("synthetic", "photos", "paper")
DEVICES = ("auto", "cpu", "cuda")
PACKAGES = ("facenb", "torch", "numpy", "scipy", "numba", "libigl", "onnxruntime", "k3d", "mediapipe", "papermill")


def repository() -> Path | None:
    """The checkout the library runs from, or None where it is installed without its notebooks."""
    root = Path(facenb.__file__).resolve().parents[1]
    return root if (root / "notebooks").is_dir() else None


@cache
def commit() -> str:
    """The checkout's commit, with `+` where files differ from it; empty where there is no git checkout."""
    root = repository()
    if root is None or not (root / ".git").exists():
        return ""
    try:
        head = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run(["git", "-C", root, "status", "--porcelain", "-uno"], capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def device_name(device: torch.device) -> str:
    """The hardware's own name, for records: the GPU's, or the processor architecture and core count."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()}, {os.cpu_count()} cores"


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a number."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def assets() -> dict[str, str]:
    """What tells each data set and released model of this machine from any other copy: its manifest's SHA-256."""
    ready = {name: marker(entry) for name, entry in load_entries().items() if is_ready(entry)}
    return {name: found["manifest"] for name, found in ready.items() if found}


def check_choice(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    """The value, if it is one of those allowed; RunError naming them otherwise."""
    if value not in allowed:
        raise RunError(f"{name} is {value!r}; choose one of {', '.join(allowed)}")
    return value


def default_folder(profile: str, data: str) -> Path:
    """`runs/<profile>-<data>` under FACENB_RUNS, the checkout, or the current folder, whichever comes first."""
    base = os.environ.get("FACENB_RUNS")
    root = repository() or Path.cwd()
    return (Path(base) if base else root / "runs") / f"{profile}-{data}"


class Picture:
    """A saved figure as a cell's value: shows the PNG, prints the name."""

    def __init__(self, path: Path, name: str):
        self.path, self.name = path, name

    def _repr_png_(self) -> bytes:
        return self.path.read_bytes()

    def __repr__(self) -> str:
        return f"figure: {self.name}"


class Run:
    """What one notebook was asked for, and the folder its results go to.

    The environment variables FACENB_PROFILE and FACENB_RUNS stand in for `profile` and the base of `folder` where a
    tool cannot pass parameters (nbval). Raises RunError for an unknown value, a folder that cannot be written, and a
    GPU asked for where there is none.
    """

    def __init__(self, notebook: str, profile="quick", data="synthetic", seed=0, device="auto", folder=""):
        self.notebook = notebook
        self.profile = check_choice("profile", os.environ.get("FACENB_PROFILE") or profile, PROFILES)
        self.data = check_choice("data", data, DATA)
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise RunError(f"seed is {seed!r}; give a whole number from 0 up")
        self.seed = seed
        gpu = torch.cuda.is_available()
        if check_choice("device", device, DEVICES) == "cuda" and not gpu:
            raise RunError("device is 'cuda', but torch sees no GPU here; use device 'auto' or 'cpu'")
        self.device = torch.device("cuda" if gpu and device != "cpu" else "cpu")
        self.folder = Path(folder).expanduser() if folder else default_folder(self.profile, self.data)
        self.id = f"{time.strftime('%Y%m%dT%H%M%S')}-{uuid.uuid4().hex[:6]}"
        self.records = self.path(f"records/{notebook}.{self.id}.jsonl")
        self._data: tuple[list, dict[str, str]] = ([], {})

    def __repr__(self) -> str:
        return f"{self.notebook}: {self.profile} profile, {self.data} data, seed {self.seed}"

    def path(self, name: str) -> Path:
        """A file's place in the run folder, its parent made. RunError where that cannot be written."""
        path = self.folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot write to run folder {self.folder} ({error.strerror}); choose another") from error
        if not os.access(path.parent, os.W_OK):
            raise RunError(f"no permission to write to {path.parent}; choose another run folder")
        return path

    def choose(self, *, smoke: Any, quick: Any, full: Any) -> Any:
        """The value that belongs to this run's profile."""
        return {"smoke": smoke, "quick": quick, "full": full}[self.profile]

    def serves(self, *data: str, why: str) -> None:
        """RunError, saying why and what works, unless this run's data is among those given."""
        if self.data not in data:
            raise RunError(f"{self.notebook} does not serve data={self.data!r}: {why}. Use one of: {', '.join(data)}")

    def checksums(self) -> dict[str, str]:
        """What tells the data of this moment from any other: the assets that are ready, the sets of the run folder.

        SHA-256, the first 16 digits: of an asset's manifest, and of a set's index, which holds those of its shards.
        """
        indices = sorted(self.folder.glob("sets/*/index.json"))
        files = [*indices, *sorted(data_folder().glob("*/.facenb.json"))]
        seen = [(str(path), path.stat().st_mtime_ns) for path in files]
        if seen != self._data[0]:
            found = {f"sets/{path.parent.name}": hashlib.sha256(path.read_bytes()).hexdigest() for path in indices}
            self._data = seen, {name: digest[:16] for name, digest in (found | assets()).items()}
        return self._data[1]

    def record(
        self, metric: str, value: SupportsFloat, unit: str, *, experiment: str, method: str, data: str,
        protocol: str = "", n: int | None = None, interval: Sequence | None = None, **more: Any,
    ) -> float:  # fmt: skip
        """Append one measured number with all that tells how it came about, and return it.

        `data` is the set's name as a reader knows it; `n` how many things were averaged; `interval` a 95 % interval;
        `more` whatever else tells it from its neighbours. What is no finite number is written as missing (null).
        The line is written by one append, so a killed run leaves whole lines only.
        """
        value = float(value)
        line = {
            "experiment": experiment, "data": data, "protocol": protocol, "method": method, "metric": metric,
            "value": value, "unit": unit, "n": n, "interval": None if interval is None else list(map(float, interval)),
            **more, "seed": self.seed, "profile": self.profile, "device": device_name(self.device),
            "notebook": self.notebook, "run": self.id, "time": time.strftime("%Y-%m-%dT%H:%M:%S"),
            "commit": commit(), "versions": versions(), "checksums": self.checksums(),
        }  # fmt: skip
        text = (json.dumps(_finite(json.loads(json.dumps(line, default=_plain)))) + "\n").encode()
        try:
            descriptor = os.open(self.records, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                written = os.write(descriptor, text)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise RunError(f"cannot write the record to {self.records} ({error.strerror}); free space there") from error
        if written != len(text):
            raise RunError(f"the record in {self.records} was cut short; the disk is full: free space, run again")
        return value

    def claim(self, claim: Claim, *, experiment: str, data: str, method: str = "", **more: Any) -> Claim:
        """Record a claim under the metric `claim <name>`: effect, interval, p, verdict; give it back for the cell."""
        effect = claim.effect
        self.record(
            f"claim {claim.name}", effect.value, claim.unit, experiment=experiment, method=method, data=data,
            n=effect.subjects, drawn=effect.drawn, interval=(effect.low, effect.high), level=effect.level,
            p=claim.p_value, verdict=claim.verdict, statement=claim.statement, at_least=claim.at_least, **more,
        )  # fmt: skip
        return claim

    def need(self, name: str, notebook: str) -> Path:
        """A file or folder of the run folder that an earlier notebook made; RunError with the command that makes it."""
        path = self.folder / name
        if path.exists():
            return path
        root = repository()
        source = (root / "notebooks" if root else Path("notebooks")) / f"{notebook}.ipynb"
        command = shlex.join(
            ["python", "-m", "facenb.runs.batch", str(source), "--profile", self.profile, "--data", self.data,
             "--seed", str(self.seed), "--run-folder", str(self.folder.absolute())]
        )  # fmt: skip
        raise RunError(
            f"{self.notebook} needs {path}, which notebook {notebook} makes. Make it with\n    {command}\n"
            "in a terminal, or in a cell here with ! in front, and run this cell again"
        )

    def figure(self, fig, name: str) -> Picture:
        """Save a matplotlib figure as `figures/<name>.png` and give it back as the cell's picture."""
        path = self.path(f"figures/{name}.png")
        # pictures stored in notebooks swell a repository: the smallest file that loses nothing
        smallest = {"optimize": True}
        with atomic_write(path) as partial:
            fig.savefig(partial, format="png", dpi=110, bbox_inches="tight", facecolor="white", pil_kwargs=smallest)
        if "matplotlib.pyplot" in sys.modules:
            sys.modules["matplotlib.pyplot"].close(fig)
        return Picture(path, name)


def _plain(value: Any) -> Any:
    """Numbers of numpy and torch, and paths, as JSON writes them."""
    if isinstance(value, (np.generic, np.ndarray, torch.Tensor)):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot go into a record")


def _finite(value: Any) -> Any:
    """A JSON value with null for what is no finite number; an interval that lacks an end is null as a whole."""
    if isinstance(value, dict):
        value = {name: _finite(part) for name, part in value.items()}
        return value | {"interval": None} if None in (value.get("interval") or ()) else value
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
