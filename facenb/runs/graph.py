"""All notebooks in order: the call of Snakemake on `notebooks/Snakefile`, and what became of each notebook."""

import argparse
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from data_download.folders import explained
from facenb.errors import RunError
from facenb.files import hold
from facenb.runs import DEFAULTS, results
from facenb.runs.recorded import read_run


def run_all(options: argparse.Namespace, words: Sequence[str], further: Sequence[str]) -> None:
    """Become Snakemake on the graph of notebooks. Does not return. `words` are the arguments of this command.

    `further` are arguments to Snakemake. Raise RunError if there is no Snakefile, the run folder cannot be written, or
    another run is at work in it.
    """
    root = results.repository() or Path.cwd()
    notebooks = Path(options.notebooks).resolve() if options.notebooks else root / "notebooks"
    if not (notebooks / "Snakefile").is_file():
        raise RunError(f"There is no {notebooks / 'Snakefile'}. Run from a checkout, or use --notebooks FOLDER.")
    folder = results.run_folder(options.run_folder, options.profile, options.data)
    with explained(folder, RunError, "--run-folder names another folder."):
        lock = hold(folder / results.LOCK, f"Another run is at work in {folder}. Wait for it, or use --run-folder.")
    os.set_inheritable(lock.fileno(), True)  # Snakemake holds it until it ends, however it ends
    gpus = int(options.device != "cpu" and torch.cuda.is_available())
    config = {name: getattr(options, name) for name in DEFAULTS} | {"gpu": gpus}
    snakemake = [sys.executable, "-m", "snakemake", "--snakefile", str(notebooks / "Snakefile"), "--nolock"]
    snakemake += ["--directory", str(folder), "--config", *(f"{name}={value}" for name, value in config.items())]
    snakemake += ["--cores", str(options.cores or "all"), "--resources", f"gpu={gpus}"]
    snakemake += ["--quiet", "host", "progress", "reason", "rules", "--keep-going", "--rerun-incomplete"]
    print(f"run folder {folder}: executed/ holds the notebooks, records/ and figures/ the results", flush=True)
    os.environ["FACENB_GO_ON"] = go_on(words)  # read by the Snakefile
    os.execv(sys.executable, [*snakemake, *further])


def go_on(words: Sequence[str]) -> str:
    """Return the shell command that continues a run with these arguments."""
    return f"{shlex.join(['cd', os.getcwd()])} && {shlex.join([sys.executable, '-m', 'facenb', *words])}"


def _outcome(record_path: Path) -> tuple[str, str]:
    """Return the status of a run record and a remark."""
    record = read_run(record_path)
    remarks = {
        "done": f"{record.get('wall_seconds', 0.0):7.1f} s {record.get('peak_memory_mb', 0):6d} MB",
        "running": "by the system, perhaps because memory ran out",
        "damaged": f"record {record_path}; run the notebook again",
    }
    status = record["status"]
    return "killed" if status == "running" else status, remarks.get(status, record.get("error", ""))


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
