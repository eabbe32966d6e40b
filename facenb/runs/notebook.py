"""One notebook as a job: parameters in; executed notebook and run record out.

In the run folder, `executed/NAME.ipynb` appears only if every cell ran. `executed/NAME.failed.ipynb` shows how far a
failed notebook came. `records/NAME.run.json` is the run record. A job may be killed at any moment and started again.
"""

import os
import platform
import re
import resource
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import nbformat
import papermill
import torch
from papermill.exceptions import PapermillExecutionError

from data_download.folders import explained
from facenb.errors import FacenbError, RunError
from facenb.files import digest, hold, write_json
from facenb.runs import DEFAULTS, results
from facenb.runs.kernel import PrivateKernel

READERS = {"int": int, "float": float, "bool": lambda text: {"true": True, "false": False}[text.lower()]}
PYTHON = {"name": "python3", "display_name": "Python 3", "language": "python"}


class NotebookError(FacenbError):
    """A notebook did not run to its end."""


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """Return a notebook that runs with this Python, whatever kernel it names. Raise RunError if it cannot be read."""
    try:
        notebook = nbformat.read(path, as_version=4)
        notebook.metadata.kernelspec = PYTHON
        return notebook
    except OSError as error:
        raise RunError(f"Cannot read notebook {path}: {error.strerror}.") from error
    except Exception as error:  # nbformat raises many kinds
        raise RunError(
            f"{path} is not a notebook ({type(error).__name__}). Get it again from the repository."
        ) from error


def read_parameters(notebook: nbformat.NotebookNode, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters. Text is read as the type that the notebook's `parameters` cell names (`# type: int`).

    Raise RunError for a name that the notebook does not have, and for text of another type.
    """
    notebook.metadata.language_info = {"name": "python"}
    types = {name: facts["inferred_type_name"] for name, facts in papermill.inspect_notebook(notebook).items()}
    values = {}
    for name, value in given.items():
        if name not in types:
            raise RunError(f"The notebook has no parameter {name!r}. It has: {', '.join(types) or 'none'}.")
        try:
            values[name] = READERS.get(types[name], str)(value) if isinstance(value, str) else value
        except (ValueError, KeyError):
            raise RunError(f"Parameter {name} is {value!r}, expected a value of type {types[name]}.") from None
    return values


def run_notebook(
    path: str | Path,
    parameters: Mapping[str, Any],
    run_folder: str | Path,
    timeout: int | None = None,
    in_graph: bool = False,
) -> dict[str, Any]:
    """Run a notebook and return its run record.

    `timeout` is the limit for one cell in seconds. `in_graph`: as a job of `run all`, which waits until the same job of
    a killed run has ended. Raise RunError if it cannot start, NotebookError if a cell fails.
    """
    source = Path(path).resolve()
    notebook = read_notebook(source)
    values = read_parameters(notebook, {**DEFAULTS, **parameters})
    folder = results.run_folder(run_folder, values["profile"], values["data"])
    values |= read_parameters(notebook, {"run_folder": str(folder)})
    ask = "Wait for it, or use --run-folder."
    with explained(folder, RunError, "--run-folder names another folder."), ExitStack() as locks:
        if not in_graph:
            busy = f"`run all` is at work in {folder}. {ask}"
            locks.enter_context(hold(folder / results.LOCK, busy, shared=True))
        busy = "" if in_graph else f"{source.stem} is already running in {folder}. {ask}"
        locks.enter_context(hold(folder / f"executed/.{source.stem}.lock", busy))
        return _run(source, notebook, values, folder, timeout)


def _run(source: Path, notebook, parameters: dict[str, Any], folder: Path, timeout: int | None) -> dict[str, Any]:
    name, start, cells = source.stem, time.monotonic(), [-1]
    partial, done, failed = (folder / f"executed/{name}{end}.ipynb" for end in (".partial", "", ".failed"))
    record, record_path = _first_record(source, parameters), folder / f"records/{name}.run.json"
    record_path.parent.mkdir(exist_ok=True)
    write_json(record_path, record)
    try:
        papermill.execute_notebook(
            notebook,
            str(partial).replace("{", "{{").replace("}", "}}"),  # papermill fills in names in braces
            parameters=parameters,
            cwd=source.parent,  # as in JupyterLab
            progress_bar=False,
            start_timeout=120,
            execution_timeout=timeout,
            kernel_manager_class=PrivateKernel,
            on_cell_start=lambda cell, cell_index: cells.append(cell_index),
        )
        record["status"] = "done"
    except KeyboardInterrupt:
        record["status"] = "interrupted"
        raise
    except Exception as error:
        record |= {"status": "failed", "error": _one_line(error)}
        if isinstance(error, OSError) and error.errno is not None:  # of the run folder, not of a cell
            raise
        if partial.exists():
            os.replace(partial, failed)
        message = f"{name} failed {_where(source, cells[-1])}: {record['error']}\n  the cells until then: {failed}"
        raise NotebookError(message) from error
    finally:
        record |= _last_record(folder, start)
        write_json(record_path, record)
    os.replace(partial, done)
    failed.unlink(missing_ok=True)
    return record


def _first_record(source: Path, parameters: Mapping[str, Any]) -> dict[str, Any]:
    cuda = parameters["device"] != "cpu" and torch.cuda.is_available()
    return {
        "notebook": source.stem,
        "status": "running",
        "parameters": parameters,
        "notebook_sha256": digest(source),
        "commit": results.commit(),
        "versions": results.versions(),
        "device": results.device_name(torch.device("cuda" if cuda else "cpu")),
        "machine": platform.platform(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _last_record(folder: Path, start: float) -> dict[str, Any]:
    kilobytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return {
        "ended": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "wall_seconds": round(time.monotonic() - start, 2),
        "peak_memory_mb": round(kilobytes / 1000),  # of the largest process: as a rule the kernel
        "checksums": results.checksums(folder),
        "networks": {path.stem: digest(path) for path in sorted(folder.glob("networks/*.safetensors"))},
    }


def _one_line(error: Exception) -> str:
    if isinstance(error, PapermillExecutionError):
        return f"{error.ename}: {error.evalue}"
    return f"{type(error).__name__}: {(str(error).strip() or '-').splitlines()[0]}"


def _where(source: Path, index: int) -> str:
    """Return which cell papermill's cell `index` is, counted from 1 among all cells of the source, and its heading."""
    cells = nbformat.read(source, as_version=4).cells
    parameters = next((i for i, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", [])), -1)
    index -= index > parameters  # papermill adds a cell after it
    text = "\n".join(cell.source for cell in cells[: index + 1] if cell.cell_type == "markdown")
    headings = re.findall(r"(?m)^#+ +(.+)", text)
    return f"in cell {index + 1}" + (f' (under "{headings[-1]}")' if headings else "")
