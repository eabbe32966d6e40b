"""One notebook as a job: parameters in; executed notebook and run record out.

In the run folder, `executed/NAME.ipynb` appears only if every cell ran. `executed/NAME.failed.ipynb` holds the outputs
of a failed notebook up to the error. `records/NAME.run.json` is the run record. A job may be killed at any moment and
started again.
"""

import os
import platform
import re
import resource
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import nbformat
import papermill
import torch
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from papermill.exceptions import PapermillExecutionError
from pooch import file_hash

from data_download.folders import environment_folder, explained
from facenb.errors import FacenbError, RunError
from facenb.files import hold, write_json
from facenb.runs import DEFAULTS, results

READERS = {"int": int, "float": float, "bool": lambda text: {"true": True, "false": False}[text.lower()]}
COMMAND = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
PYTHON = {"name": "python3", "display_name": "Python 3", "language": "python"}


class NotebookError(FacenbError):
    """A notebook did not run to its end."""


class PrivateKernel(AsyncKernelManager):
    """A kernel of this Python, whose sockets lie in a temporary folder of its own.

    Kernels that start at the same time over TCP sometimes choose the same port. Files cannot collide in this way.
    """

    kernel_spec = KernelSpec(argv=COMMAND, display_name="Python 3", language="python")

    def __init__(self, **keywords):
        super().__init__(**keywords)
        # The path of a socket must stay below about 100 characters. A long TMPDIR would exceed this.
        short = None if len(tempfile.gettempdir()) < 60 else "/tmp"
        self.sockets = tempfile.TemporaryDirectory(prefix="facenb-", dir=short, ignore_cleanup_errors=True)
        self.connection_file = f"{self.sockets.name}/kernel.json"
        self.transport, self.ip = "ipc", f"{self.sockets.name}/s"

    async def _async_pre_start_kernel(self, **keywords):
        environment_folder("FACENB_DATA")  # absolute from here on: the kernel works in another folder
        environment_folder("FACENB_MIRROR")
        # Remove the variables that replace the parameters under nbval: here the run's parameters apply.
        names = os.environ.keys() - {"FACENB_PROFILE", "FACENB_RUNS"}
        keywords["env"] = {name: os.environ[name] for name in names} | {"FACENB_HEADLESS": "1"}
        return await super()._async_pre_start_kernel(**keywords)

    async def _async_cleanup_resources(self, restart: bool = False) -> None:
        await super()._async_cleanup_resources(restart)
        self.sockets.cleanup()


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """Return a notebook that runs with this Python, whatever kernel it names. Raise RunError if it cannot be read."""
    try:
        notebook = nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat raises many kinds
        raise RunError(f"{path} is not a notebook that can be read ({_one_line(error)}).") from error
    notebook.metadata.update(kernelspec=PYTHON, language_info={"name": "python"})
    return notebook


def read_parameters(notebook: nbformat.NotebookNode, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters. Text is converted to the type in the notebook's `parameters` cell (`# type: int`).

    Raise RunError for a name that the notebook does not have, and for text of another type.
    """
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

    `timeout` is the limit for one cell in seconds. `in_graph` means a job of `run all`; it waits if the same job of a
    killed run has not ended yet. Raise RunError if it cannot start, NotebookError if a cell fails.
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
    record_path = folder / f"records/{name}.run.json"
    record_path.parent.mkdir(exist_ok=True)
    cuda = parameters["device"] != "cpu" and torch.cuda.is_available()
    record = {"notebook": name, "status": "running", "parameters": parameters, "notebook_sha256": file_hash(source)}
    record |= {"commit": results.commit(), "versions": results.versions(), "machine": platform.platform()}
    record |= {"device": results.device_name(torch.device("cuda" if cuda else "cpu")), "started": _now()}
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
        if isinstance(error, OSError) and error.errno is not None:  # an error of the run folder, not of a cell
            raise
        if partial.exists():
            os.replace(partial, failed)
        message = f"{name} failed {_where(source, cells[-1])}: {record['error']}\n  the cells until then: {failed}"
        raise NotebookError(message) from error
    finally:
        kilobytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (1024 if sys.platform == "darwin" else 1)
        record |= {"ended": _now(), "wall_seconds": round(time.monotonic() - start, 2)}
        record["peak_memory_mb"] = round(kilobytes / 1000)  # of the largest process, usually the kernel
        record["checksums"] = results.checksums(folder)
        record["networks"] = {path.stem: file_hash(path) for path in sorted(folder.glob("networks/*.safetensors"))}
        write_json(record_path, record)
    os.replace(partial, done)
    failed.unlink(missing_ok=True)
    return record


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


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
