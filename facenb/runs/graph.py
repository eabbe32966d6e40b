"""The graph of notebooks as `notebooks/Snakefile` tells it: what is out of date, the command, what became of each."""

import argparse
import ast
import hashlib
import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from facenb.runs import results
from facenb.errors import RunError


def library_checksum() -> str:
    """SHA-256 over the library's source: a notebook is out of date when the library has changed."""
    package = Path(results.__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _calls(notebook: Path) -> Iterator[ast.Call]:
    """The calls of `run.serves` in a notebook's code; cells with magics are left out, as is a file that is none."""
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    except (ValueError, KeyError, TypeError):  # what is wrong with the file its job says
        return
    for text in code:
        try:
            found = ast.walk(ast.parse(text))
        except (SyntaxError, ValueError):
            continue
        for node in found:
            match node:
                case ast.Call(func=ast.Attribute(attr="serves", value=ast.Name(id="run"))):
                    yield node


def serves(notebook: str | Path, data: str) -> bool:
    """Whether a notebook serves a kind of data: what its call of `run.serves` says, and any where it has none.

    What is no constant in the call cannot be known here; the notebook itself then says.
    """
    for call in _calls(Path(notebook)):
        given = [word.value if isinstance(word, ast.Constant) else None for word in call.args]
        if None not in given and data not in given:
            return False
    return True


def _became(report: Path) -> tuple[str, str]:
    """Status of a run record, and what to say of it."""
    if not report.exists():
        return "not run", ""
    try:
        record = json.loads(report.read_text(encoding="utf-8"))
        status = record["status"]
        if status == "done":
            return status, f"{record['wall_seconds']:7.1f} s {record['peak_memory_mb']:6d} MB"
        if status == "running":  # it did not live to tell
            return "killed", "by the system, for want of memory perhaps"
        return f"{status:s}", str(record.get("error", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        again = report.parents[1] / "executed" / report.name.replace(".run.json", ".ipynb")
        return "damaged", f"record {report}; to run the notebook again, remove {again}"


def summary(folder: str | Path, needs: Mapping[str, list[str]]) -> str:
    """What became of each notebook of the graph (name -> the notebooks it needs), and where the results are."""
    folder, lines, bad = Path(folder), [], set()
    for name, needed in needs.items():
        status, text = _became(folder / f"records/{name}.run.json")
        missing = [need for need in needed if need in bad]
        if missing:
            status, text = "held back", f"needs {', '.join(missing)}"
        if status not in ("done", "damaged"):
            bad.add(name)
        lines.append(f"  {name:28} {status:11} {text}".rstrip())
    return "\n".join(
        [
            *lines,
            f"executed notebooks: {folder / 'executed'}",
            f"results: {folder / 'records'} and {folder / 'figures'}",
        ]
    )


def go_on(options: argparse.Namespace, folder: Path, further: Sequence[str] = ()) -> str:
    """The command that takes up again what is left of a run of the graph.

    `make notebooks` for the checkout's own notebooks; for others, and for a path that a shell has to be careful with,
    the command beneath it.
    """
    root, path = results.repository(), str(folder)
    given = {"profile": options.profile, "data": options.data}
    given |= {"seed": options.seed} if options.seed else {}
    given |= {"device": options.device} if options.device != "auto" else {}
    given |= {"cores": options.cores} if options.cores else {}
    if options.notebooks or root is None or shlex.quote(path) != path:
        given |= {"run-folder": path}
        given |= {"notebooks": Path(options.notebooks).resolve()} if options.notebooks else {}
        words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
        return shlex.join([sys.executable, "-m", "facenb.runs.batch", "all", *words, *(["--", *further] if further else [])])
    plain = folder == root / f"runs/{options.profile}-{options.data}" and not os.environ.get("FACENB_RUNS")
    given |= {} if plain else {"run_folder": path}
    given |= {"snakemake": shlex.join(further).replace("$", "$$")} if further else {}
    return shlex.join(["make", "notebooks", *(f"{name.upper()}={value}" for name, value in given.items())])


def command(options: argparse.Namespace, folder: Path, gpus: int, further: Sequence[str] = ()) -> list[str]:
    """The Snakemake call for these options (profile, data, seed, device, cores, notebooks), working in `folder`.

    `further` are arguments to Snakemake itself.
    Snakemake's own lock is off, since it outlives a killed run; the caller holds the folder instead. Raises RunError
    where there is no Snakefile.
    """
    notebooks = Path(options.notebooks or (results.repository() or Path.cwd()) / "notebooks").resolve()
    if not (notebooks / "Snakefile").is_file():
        raise RunError(f"there is no {notebooks / 'Snakefile'}; run from a checkout, or give --notebooks FOLDER")
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    config = {
        "profile": options.profile, "data": options.data, "seed": options.seed, "device": options.device, "gpu": gpus,
        "go_on": go_on(options, folder, further),
    }  # fmt: skip
    return [
        sys.executable, "-m", "snakemake", "--snakefile", str(notebooks / "Snakefile"), "--directory", str(folder),
        "--config", *(f"{name}={json.dumps(value)}" for name, value in config.items()),
        "--quiet", "host", "progress", "reason", "rules", "--keep-going", "--rerun-incomplete", "--nolock",
        "--resources", f"gpu={gpus}", "--cores", str(options.cores or available), *further,
    ]  # fmt: skip
