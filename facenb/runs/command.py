"""The command `python -m facenb run`: one notebook, or all in order by Snakemake on `notebooks/Snakefile`."""

import argparse
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from data_download.folders import explained
from facenb.errors import FacenbError, RunError
from facenb.files import hold
from facenb.runs import DATA, DEFAULTS, DEVICES, PROFILES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `run`."""
    parser.add_argument("notebook", help="a notebook's file, or `all`: every notebook that is not up to date, in order")
    parser.add_argument("--profile", choices=PROFILES, default=DEFAULTS["profile"])
    parser.add_argument("--data", choices=DATA, default=DEFAULTS["data"])
    parser.add_argument("--seed", type=int, default=DEFAULTS["seed"])
    parser.add_argument("--device", choices=DEVICES, default=DEFAULTS["device"])
    parser.add_argument("--run-folder", default="", help="default: runs/PROFILE-DATA")
    parser.add_argument("--cores", type=int, help="all: cores to share (default: every core)")
    parser.add_argument("--notebooks", default="", help="all: folder of the notebooks and their Snakefile")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="another parameter")
    parser.add_argument("--timeout", type=int, help="one notebook: limit for one cell in seconds")
    parser.add_argument("--in-graph", action="store_true", help=argparse.SUPPRESS)  # from the Snakefile


def run(options: argparse.Namespace, words: Sequence[str], further: Sequence[str]) -> int:
    """Return the exit code: 0 if done, 1 if a notebook failed, 2 if it could not start, 130 if interrupted.

    `words` are all arguments of the command, `further` the arguments for Snakemake.
    """
    from facenb.runs import notebook, results

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        results.check_run(options.seed, options.device)
        parameters = {name: getattr(options, name) for name in DEFAULTS}
        if options.notebook == "all":
            folder = results.run_folder(options.run_folder, options.profile, options.data)
            with_gpu = options.device != "cpu" and results.torch.cuda.is_available()
            _run_all(options, folder, parameters | {"gpu": int(with_gpu)}, words, further)
        if options.in_graph:
            _end_with_parent()
        parameters |= dict(options.p)
        run_folder, timeout = options.run_folder, options.timeout
        record = notebook.run_notebook(options.notebook, parameters, run_folder, timeout, options.in_graph)
    except notebook.NotebookError as error:
        print(error, file=sys.stderr)
        return 1
    except FacenbError as error:
        print(f"facenb: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{Path(options.notebook).stem}: interrupted", file=sys.stderr)
        return 130
    print(f"{record['notebook']}: done in {record['wall_seconds']:.1f} s, {record['peak_memory_mb']} MB", flush=True)
    return 0


def _run_all(options, folder: Path, config: Mapping, words: Sequence[str], further: Sequence[str]) -> None:
    """Replace this process by Snakemake on the graph of notebooks. This function does not return.

    Raise RunError if there is no Snakefile, the run folder cannot be written, or another run is at work in it.
    """
    from facenb.runs.results import LOCK, repository

    notebooks = Path(options.notebooks or (repository() or Path.cwd()) / "notebooks").resolve()
    if not (notebooks / "Snakefile").is_file():
        raise RunError(f"There is no {notebooks / 'Snakefile'}. Run from a checkout, or use --notebooks FOLDER.")
    with explained(folder, RunError, "--run-folder names another folder."):
        lock = hold(folder / LOCK, f"Another run is at work in {folder}. Wait for it, or use --run-folder.")
    os.set_inheritable(lock.fileno(), True)  # Snakemake keeps the lock until it ends, however it ends
    snakemake = [sys.executable, "-m", "snakemake", "--snakefile", str(notebooks / "Snakefile"), "--nolock"]
    snakemake += ["--directory", str(folder), "--config", *(f"{name}={value}" for name, value in config.items())]
    snakemake += ["--cores", str(options.cores or "all"), "--resources", f"gpu={config['gpu']}"]
    snakemake += ["--quiet", "host", "progress", "reason", "rules", "--keep-going", "--rerun-incomplete"]
    print(f"run folder {folder}: executed/ holds the notebooks, records/ and figures/ the results", flush=True)
    os.environ["FACENB_GO_ON"] = go_on(words)  # read by the Snakefile
    os.execv(sys.executable, [*snakemake, *further])


def go_on(words: Sequence[str]) -> str:
    """Return the shell command that continues a run with these arguments."""
    return f"{shlex.join(['cd', os.getcwd()])} && {shlex.join([sys.executable, '-m', 'facenb', *words])}"


def _end_with_parent() -> None:
    """End this process, its kernel first, when its parent process has ended."""
    parent = os.getppid()

    def watch():
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def summary(folder: Path, needs: Mapping[str, Sequence[str]]) -> str:
    """Return the status of each notebook and the folders of the results. `needs`: name -> the notebooks it needs."""
    from facenb.runs.recorded import read_run

    lines, without = [], set()
    for name, needed in needs.items():
        record = read_run(folder / f"records/{name}.run.json")
        status, remark = record["status"], record.get("error", "")
        if status == "done":
            remark = f"{record.get('wall_seconds', 0.0):7.1f} s {record.get('peak_memory_mb', 0):6d} MB"
        elif status == "running":
            status, remark = "killed", "by the system, perhaps because memory ran out"
        if missing := [need for need in needed if need in without]:
            status, remark = "held back", f"needs {', '.join(missing)}"
        if status not in ("done", "damaged"):
            without.add(name)
        lines.append(f"  {name:28} {status:11} {remark}".rstrip())
    lines.append(f"executed notebooks: {folder / 'executed'}")
    lines.append(f"results: {folder / 'records'} and {folder / 'figures'}")
    return "\n".join(lines)
