"""The graph of notebooks as `notebooks/Snakefile` tells it: what is out of date, the command, what became of each."""

import argparse
import hashlib
import json
import os
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from facenb import results
from facenb.errors import RunError


def library_checksum() -> str:
    """SHA-256 over the library's source: a notebook is out of date when the library has changed."""
    package = Path(results.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def serves(notebook: str | Path, data: str) -> bool:
    """Whether a notebook serves a kind of data: what its call of `Run.serves` says, and any where it has none."""
    call = re.search(r"run\.serves\((.*?)why=", Path(notebook).read_text(encoding="utf-8"), re.DOTALL)
    return call is None or f'\\"{data}\\"' in call.group(1)


def summary(folder: str | Path, needs: Mapping[str, list[str]]) -> str:
    """What became of each notebook of the graph (name -> the notebooks it needs), and where the results are."""
    folder, lines, bad = Path(folder), [], set()
    for name, needed in needs.items():
        report = folder / f"records/{name}.run.json"
        record = json.loads(report.read_text()) if report.exists() else {"status": "not run"}
        status, text = record["status"], record.get("error", "")
        missing = [need for need in needed if need in bad]
        if missing:
            status, text = "held back", f"needs {', '.join(missing)}"
        elif status == "done":
            text = f"{record['wall_seconds']:7.1f} s {record['peak_memory_mb']:6d} MB"
        elif status == "running":  # it did not live to tell
            status, text = "killed", "by the system, for want of memory perhaps"
        if status != "done":
            bad.add(name)
        lines.append(f"  {name:28} {status:11} {text}".rstrip())
    return "\n".join(
        [
            *lines,
            f"executed notebooks: {folder / 'executed'}",
            f"results: {folder / 'records'} and {folder / 'figures'}",
        ]
    )


def go_on(options: argparse.Namespace, folder: Path) -> str:
    """The command that takes up again what is left of a run of the graph."""
    words = ["make", "notebooks", f"PROFILE={options.profile}", f"DATA={options.data}"]
    words += [f"SEED={options.seed}"] if options.seed else []
    words += [f"DEVICE={options.device}"] if options.device != "auto" else []
    words += [f"RUN_FOLDER={folder}"] if folder != results.default_folder(options.profile, options.data) else []
    return shlex.join(words)


def command(options: argparse.Namespace, folder: Path, gpus: int) -> list[str]:
    """The Snakemake call for these options (profile, data, seed, device, cores, notebooks), working in `folder`.

    Snakemake's own lock is off, since it outlives a killed run; the caller holds the folder instead. Raises RunError
    where there is no Snakefile.
    """
    notebooks = Path(options.notebooks or (results.repository() or Path.cwd()) / "notebooks").resolve()
    if not (notebooks / "Snakefile").is_file():
        raise RunError(f"there is no {notebooks / 'Snakefile'}; run from a checkout, or give --notebooks FOLDER")
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    config = {
        "profile": options.profile, "data": options.data, "seed": options.seed, "device": options.device, "gpu": gpus,
        "go_on": go_on(options, folder),
    }  # fmt: skip
    return [
        sys.executable, "-m", "snakemake", "--snakefile", str(notebooks / "Snakefile"), "--directory", str(folder),
        "--config", *(f"{name}={json.dumps(value)}" for name, value in config.items()),
        "--quiet", "host", "progress", "reason", "rules", "--keep-going", "--rerun-incomplete", "--nolock",
        "--resources", f"gpu={gpus}", "--cores", str(options.cores or available),
    ]  # fmt: skip
