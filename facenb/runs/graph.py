"""All notebooks in order: the call of Snakemake on `notebooks/Snakefile`, and what became of each notebook."""

import argparse
import json
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
import torch

from data_download.folders import explained
from facenb.errors import RunError
from facenb.runs import results
from facenb.runs.options import DEFAULTS

LOCKS, HOST = ".snakemake/locks", ".snakemake/host"


def is_running(folder: Path) -> bool:
    """Return whether a Snakemake of this machine works in the run folder."""
    for process in psutil.process_iter(["cmdline", "cwd"]):
        if process.info["cwd"] == str(folder.resolve()) and "snakemake" in (process.info["cmdline"] or []):
            return True
    return False


def _unlock_abandoned(folder: Path, snakemake: Sequence[str]) -> None:
    """Remove the lock of a run that was killed on this machine. Snakemake would leave this to the user."""
    host = folder / HOST
    if any((folder / LOCKS).glob("*")) and host.exists() and host.read_text() == socket.gethostname():
        if not is_running(folder):
            subprocess.run([*snakemake, "--unlock", "--quiet", "all"], check=False)
    host.parent.mkdir(parents=True, exist_ok=True)
    host.write_text(socket.gethostname())


def go_on(options: argparse.Namespace, folder: Path, further: Sequence[str]) -> str:
    """Return the shell command that continues this run."""
    words = [sys.executable, "-m", "facenb", "run", "all", "--run-folder", str(folder)]
    for name, default in {**DEFAULTS, "cores": None}.items():
        value = getattr(options, name)
        words += [f"--{name}", str(value)] if value != default else []
    words += ["--notebooks", str(Path(options.notebooks).resolve())] if options.notebooks else []
    return shlex.join([*words, *(["--", *further] if further else [])])


def run_all(options: argparse.Namespace, further: Sequence[str]) -> None:
    """Become Snakemake on the graph of notebooks. Does not return. `further` are arguments to Snakemake.

    Raise RunError if there is no Snakefile or the run folder cannot be written.
    """
    root = results.repository() or Path.cwd()
    notebooks = Path(options.notebooks).resolve() if options.notebooks else root / "notebooks"
    if not (notebooks / "Snakefile").is_file():
        raise RunError(f"There is no {notebooks / 'Snakefile'}. Run from a checkout, or use --notebooks FOLDER.")
    folder = results.run_folder(options.run_folder, options.profile, options.data)
    gpus = int(options.device != "cpu" and torch.cuda.is_available())
    config = {name: getattr(options, name) for name in DEFAULTS} | {"gpu": gpus}
    snakemake = [sys.executable, "-m", "snakemake", "--snakefile", str(notebooks / "Snakefile")]
    snakemake += ["--directory", str(folder), "--config", *(f"{name}={value}" for name, value in config.items())]
    snakemake += ["--cores", str(options.cores or "all"), "--resources", f"gpu={gpus}"]
    with explained(folder, RunError, "--run-folder names another folder."):
        _unlock_abandoned(folder, snakemake)
    print(f"run folder {folder}: executed/ holds the notebooks, records/ and figures/ the results", flush=True)
    os.environ["FACENB_GO_ON"] = go_on(options, folder, further)  # read by the Snakefile
    quiet = ["--quiet", "host", "progress", "reason", "rules"]
    os.execv(sys.executable, [*snakemake, *quiet, "--keep-going", "--rerun-incomplete", *further])


def _outcome(record_path: Path) -> tuple[str, str]:
    """Return the status of a run record and a remark."""
    if not record_path.exists():
        return "not run", ""
    try:
        record = json.loads(record_path.read_text(encoding="utf-8"))
        status = record["status"]
        if status == "done":
            return "done", f"{record['wall_seconds']:7.1f} s {record['peak_memory_mb']:6d} MB"
        if status == "running":
            return "killed", "by the system, perhaps because memory ran out"
        return f"{status:s}", str(record.get("error", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        return "damaged", f"record {record_path}; run the notebook again"


def summary(folder: Path, needs: Mapping[str, Sequence[str]]) -> str:
    """Return what became of each notebook (name -> the notebooks it needs) and where the results are."""
    lines, without = [], set()
    for name, needed in needs.items():
        status, remark = _outcome(folder / f"records/{name}.run.json")
        missing = [need for need in needed if need in without]
        if missing:
            status, remark = "held back", f"needs {', '.join(missing)}"
        if status not in ("done", "damaged"):
            without.add(name)
        lines.append(f"  {name:28} {status:11} {remark}".rstrip())
    lines.append(f"executed notebooks: {folder / 'executed'}")
    lines.append(f"results: {folder / 'records'} and {folder / 'figures'}")
    return "\n".join(lines)
