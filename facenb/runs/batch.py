"""A notebook as a job: parameters in, executed notebook and run record out (Linux, macOS, WSL).

    python -m facenb.runs.batch all --profile quick                 every notebook, through notebooks/Snakefile
    python -m facenb.runs.batch notebooks/01_morphable_model.ipynb  one notebook

In the run folder, `executed/<notebook>.ipynb` appears only when every cell ran; `<notebook>.failed.ipynb` shows how far
a failed one came. `records/<notebook>.run.json` is the run record. Each is written beside and renamed, so a job may be
killed at any moment and started again.
"""

import argparse
import difflib
import errno
import fcntl
import os
import platform
import re
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import nbformat
import papermill
import torch
from papermill.exceptions import PapermillExecutionError

from facenb.runs import graph, results
from facenb.errors import FacenbError, RunError
from facenb.files import digest, write_json
from facenb.runs.kernel import PeakMemory, private_kernel

CHOICES = {"profile": results.PROFILES, "data": results.DATA, "device": results.DEVICES}
DEFAULTS = {"profile": "quick", "data": "synthetic", "seed": 0, "device": "auto"}
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
TYPES = {"int": int, "float": (int, float), "bool": bool, "str": str}


class NotebookError(FacenbError):
    """A notebook did not run to its end."""


class Interrupted(KeyboardInterrupt):
    """The job was asked to end (SIGTERM), or what started it has gone."""


# Parameters ---------------------------------------------------------------------------------------------------------


def read_notebook(path: str | Path) -> nbformat.NotebookNode:
    """The notebook of a file. RunError where there is none, or the file is something else."""
    try:
        return nbformat.read(path, as_version=4)
    except OSError as error:
        raise RunError(f"cannot read notebook {path}: {error.strerror}") from error
    except Exception as error:  # nbformat raises many kinds, for text that is no JSON and JSON that is no notebook
        raise RunError(f"{path} is no notebook ({type(error).__name__}); get it again from the repository") from error


def closest(name: Any, allowed: list[str] | tuple[str, ...]) -> str:
    """The end of a message: what was probably meant, and what there is."""
    match = difflib.get_close_matches(str(name), allowed, n=1, cutoff=0.5)
    return (f"did you mean {match[0]!r}? " if match else "") + f"There is: {', '.join(allowed)}"


def check_parameters(path: str | Path, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters as the notebook takes them; RunError names one that is misspelt, of another type, or out of range.

    Text is read as the type the notebook's `parameters` cell names (`# type: int`), as it comes from a command line.
    """
    read_notebook(path)
    known = papermill.inspect_notebook(str(path))
    if not known:
        raise RunError(f"{path} has no cell tagged `parameters`; it cannot be run as a job")
    checked = {}
    for name, value in parameters.items():
        if name not in known:
            raise RunError(f"{Path(path).name} has no parameter {name!r}; {closest(name, sorted(known))}")
        checked[name] = check_value(name, value, known[name]["inferred_type_name"])
    return checked


def check_value(name: str, value: Any, kind: str) -> Any:
    """One parameter's value, of the type `kind` ("int", "float", "bool", "str", or "None" where it is not told)."""
    if isinstance(value, str) and kind in ("int", "float", "bool"):
        read = {"int": int, "float": float, "bool": {"true": True, "false": False}.__getitem__}[kind]
        try:
            value = read(value.lower())
        except (ValueError, KeyError):
            raise RunError(f"parameter {name} is {value!r}, which is no {kind}") from None
    if kind in TYPES and (not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "bool")):
        raise RunError(f"parameter {name} is {value!r}, of type {type(value).__name__}; it takes {kind}")
    if name in CHOICES and value not in CHOICES[name]:
        raise RunError(f"parameter {name} is {value!r}; {closest(value, CHOICES[name])}")
    if name == "seed" and not 0 <= value < 2**63:
        raise RunError(f"parameter seed is {value}; it takes a whole number from 0 to 2**63 - 1")
    if name == "device" and value == "cuda" and not torch.cuda.is_available():
        raise RunError("parameter device is 'cuda', but torch sees no GPU here; use 'auto' or 'cpu'")
    return value


# The run folder -----------------------------------------------------------------------------------------------------


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns what the system says of a folder that cannot be written into RunError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE:
            raise RunError(
                f"no space left for run folder {folder} ({error.strerror}); free some, then go on"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise RunError(
                f"cannot write to run folder {folder}: {error.strerror} ({error.filename}); "
                "choose another with --run-folder"
            ) from error
        raise


def lock(path: Path, what: str, patience: float = 0) -> IO[str]:
    """Hold `path` until the file given back is closed or the process ends, however it ends; no lock is left stale.

    Raises RunError that names the process that holds it, after `patience` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+")
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() < until:
                time.sleep(0.2)
                continue
            file.seek(0)
            holder = file.read().strip() or "another process"
            file.close()
            raise RunError(
                f"{what} is in use by {holder}. Wait for it, end it, or choose another folder with --run-folder"
            ) from None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
    file.flush()
    return file


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file under `models/` and `sets/`: what this run's notebooks hand to one another."""
    files = [path for part in ("models", "sets") for path in sorted((folder / part).rglob("*")) if path.is_file()]
    found = {}
    for path in files:
        with suppress(FileNotFoundError):  # one that another notebook just renamed
            found[str(path.relative_to(folder))] = digest(path)
    return found


# One notebook -------------------------------------------------------------------------------------------------------


class Place:
    """Which cell was the last to start, as a reader of the notebook counts: all cells, from 1."""

    def __init__(self):
        self.cell, self.heading, self.cells = 0, "", []

    def __call__(self, cell: nbformat.NotebookNode, cell_index: int) -> None:
        before = self.cells[: cell_index + 1]
        added = sum("injected-parameters" in one.metadata.get("tags", []) for one in before)
        self.cell = cell_index + 1 - added
        titles = [
            line for one in before if one.cell_type == "markdown" for line in re.findall("(?m)^#+ .*", one.source)
        ]
        self.heading = titles[-1].lstrip("# ").strip() if titles else ""

    def __str__(self) -> str:
        return f"in cell {self.cell}" + (f' (under "{self.heading}")' if self.heading else "")


def execute(source: Path, target: Path, parameters: Mapping[str, Any], timeout: int | None, place: Place) -> int:
    """Run all cells, in the notebook's own folder as JupyterLab does; gives the kernel's peak memory, bytes."""

    def at_start(notebook):
        place.cells = notebook.cells

    with private_kernel() as kind:
        memory = PeakMemory(kind.started)
        memory.start()
        try:
            papermill.execute_notebook(
                source, target, parameters=parameters, cwd=source.parent, progress_bar=False, start_timeout=120,
                execution_timeout=timeout, kernel_manager_class=kind, on_notebook_start=at_start, on_cell_start=place,
            )  # fmt: skip
        finally:
            memory.done.set()
            memory.join()
    return memory.peak


def run_notebook(
    path: str | Path,
    parameters: Mapping[str, Any] | None = None,
    run_folder: str | Path | None = None,
    *,
    timeout: int | None = None,
    alone: bool = True,
    go_on: str = "",
) -> dict[str, Any]:
    """Run one notebook with these parameters and give its run record.

    `timeout` is the limit for a cell, seconds. `alone` holds the whole run folder; a job of the graph, where others
    work beside it, holds its own notebook only. `go_on` is the command a failure's message names. Raises RunError for
    what could not begin (a parameter, the folder, another run in it), NotebookError for a cell that failed.
    """
    source = Path(path).resolve()
    wanted = check_parameters(source, {**DEFAULTS, **(parameters or {})})
    folder = Path(run_folder or results.default_folder(wanted["profile"], wanted["data"])).expanduser().resolve()
    wanted |= check_parameters(source, {"run_folder": str(folder)})
    name = source.stem
    with ExitStack() as held, writing(folder):
        for part in ("executed", "records"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        if alone:
            held.enter_context(lock(folder / ".lock", f"run folder {folder}"))
        # A killed job's last process may need a moment to notice.
        held.enter_context(lock(folder / f"executed/.{name}.lock", f"{name} in {folder}", patience=20))
        return _run(source, wanted, folder, timeout, go_on)


def _run(source: Path, parameters: dict[str, Any], folder: Path, timeout: int | None, go_on: str) -> dict[str, Any]:
    name, begun = source.stem, time.monotonic()
    partial, done, failed = (folder / f"executed/{name}{end}.ipynb" for end in (".partial", "", ".failed"))
    cuda = parameters["device"] != "cpu" and torch.cuda.is_available()
    commit = results.commit()
    record = {
        "notebook": name, "status": "running", "parameters": parameters, "seed": parameters["seed"],
        "notebook_sha256": digest(source),
        "commit": commit.rstrip("+"), "changed": commit.endswith("+"), "versions": results.versions(),
        "device": results.device_name(torch.device("cuda" if cuda else "cpu")), "machine": platform.platform(),
        "process": os.getpid(), "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "data_before": checksums(folder),
    }  # fmt: skip
    report = folder / f"records/{name}.run.json"
    write_json(report, record)
    place, error = Place(), None
    try:
        peak = execute(source, partial, parameters, timeout, place)
        record |= {"status": "done", "peak_memory_mb": round(peak / 1e6)}
    except KeyboardInterrupt:
        record |= {"status": "interrupted", "error": f"interrupted {place}"}
        raise
    except Exception as found:
        error = found
        record |= {"status": "failed", "error": describe(found), "cell": place.cell, "heading": place.heading}
        if isinstance(found, OSError) and found.errno is not None:  # of the folder, not of a cell: see `writing`
            raise
    finally:
        record |= {"ended": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "wall_seconds": round(time.monotonic() - begun, 2)}
        record |= {"data": checksums(folder), "assets": results.assets()}
        with suppress(OSError) if record["status"] == "failed" else ExitStack():
            write_json(report, record)
    if error is not None:
        if partial.exists():
            os.replace(partial, failed)
        raise NotebookError(
            f"{name} failed {place}: {record['error']}\n"
            f"  how far it came: {failed}\n  to go on once that is mended: {go_on}"
        ) from error
    os.replace(partial, done)
    failed.unlink(missing_ok=True)
    return record


def describe(error: Exception) -> str:
    """An exception in one line: of a cell, the cell's own."""
    if isinstance(error, PapermillExecutionError):
        return f"{error.ename}: {error.evalue}"
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


# Command line -------------------------------------------------------------------------------------------------------


def run_graph(options: argparse.Namespace, further: list[str]) -> None:
    """Become Snakemake on the graph of notebooks; does not return. The folder's lock goes along."""
    for name in ("profile", "data", "device"):
        check_value(name, getattr(options, name), "str")
    options.seed = check_value("seed", options.seed, "int")
    folder = Path(options.run_folder or results.default_folder(options.profile, options.data)).expanduser().resolve()
    command = graph.command(options, folder, int(options.device != "cpu" and torch.cuda.is_available()), further)
    with writing(folder):
        held = lock(folder / ".lock", f"run folder {folder}")
    os.set_inheritable(held.fileno(), True)
    print(f"run folder {folder}: executed/ holds the notebooks, records/ and figures/ the results", flush=True)
    os.execv(command[0], command)


def raise_interrupted(*_) -> None:
    raise Interrupted


def end_with_parent(check: Callable[[], int] = os.getppid) -> None:
    """End this process, kernel first, when the one that started it has gone: nobody waits for the result then."""
    parent = check()

    def watch():
        while check() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def parser() -> argparse.ArgumentParser:
    about = argparse.ArgumentParser(
        prog="python -m facenb.runs.batch", description=__doc__.splitlines()[0], allow_abbrev=False
    )
    about.add_argument(
        "notebook", help="a notebook's file, or `all`: every notebook, in order, what is up to date left"
    )
    for name, value in DEFAULTS.items():
        about.add_argument(f"--{name}", default=value, help=", ".join(CHOICES.get(name, ["a whole number"])))
    about.add_argument("--run-folder", default="", help="default: runs/<profile>-<data>")
    about.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="a further parameter"
    )
    about.add_argument("--timeout", type=int, help="limit for one cell, seconds")
    about.add_argument("--cores", type=int, help="all: cores to share (default: every one)")
    about.add_argument("--notebooks", help="all: folder of the notebooks and their Snakefile")
    about.add_argument("--graph-job", metavar="COMMAND", help=argparse.SUPPRESS)  # from the Snakefile
    return about


def main(arguments: list[str]) -> int:
    """0: done; 1: a notebook failed; 2: it could not begin; 130: interrupted. After `--`: arguments to Snakemake."""
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    options = parser().parse_args(arguments[:cut])
    signal.signal(signal.SIGTERM, raise_interrupted)
    try:
        if options.notebook == "all":
            run_graph(options, arguments[cut + 1 :])
        if options.graph_job:
            end_with_parent()
        parameters = {name: getattr(options, name) for name in DEFAULTS} | dict(options.p)
        again = options.graph_job or shlex.join(["python", "-m", "facenb.runs.batch", *arguments])
        record = run_notebook(
            options.notebook, parameters, options.run_folder, timeout=options.timeout, alone=not options.graph_job,
            go_on=again,
        )  # fmt: skip
    except NotebookError as error:
        print(error, file=sys.stderr)
        return 1
    except FacenbError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{Path(options.notebook).stem}: interrupted", file=sys.stderr)
        return 130
    print(f"{record['notebook']}: done in {record['wall_seconds']:.1f} s, {record['peak_memory_mb']} MB", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
