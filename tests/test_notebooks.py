"""The notebooks as committed: their form, that every cell runs, and that 01 to 03 still print what is stored."""

import ast
import os
import re
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import nbformat
import pytest

from facenb.runs.papers import COMPARISONS
from facenb.runs.recorded import read_records
from facenb.runs.report import WAITING, Report

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
_PARTS = tomllib.loads((ROOT / "course/course.toml").read_text(encoding="utf-8"))["part"]
COURSE = {row["file"]: row for part in _PARTS for row in part["notebook"]}
STRICT = [path for path in NOTEBOOKS if path.name[:2] in ("01", "02", "03")]
PARAMETERS = {"profile": "quick", "data": "synthetic", "seed": 0, "device": "auto", "run_folder": ""}
# A home, a mount or a temporary folder in a text that readers see; /dev, /usr and the like tell of no machine.
OF_A_MACHINE = re.compile(r"(?<![\w.])(/(home|root|work|tmp|Users|mnt|var|opt|data|scratch)/[\w.-]+|[A-Z]:\\\\Users)")


def named(paths):
    return {"argvalues": paths, "ids": [path.stem for path in paths]}


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def code(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def headings(notebook) -> list[str]:
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return re.findall(r"(?m)^#{1,6} +(.+)$", text)


@pytest.mark.parametrize("path", **named(NOTEBOOKS))
class TestForm:
    def test_valid(self, path):
        nbformat.validate(read(path))

    def test_parameters(self, path):
        """One cell, tagged, with the five parameters and their types, as papermill reads them."""
        tagged = [cell for cell in read(path).cells if "parameters" in cell.metadata.get("tags", [])]
        assert len(tagged) == 1
        [cell] = tagged
        values = {
            target.id: ast.literal_eval(line.value) for line in ast.parse(cell.source).body for target in line.targets
        }
        assert values.items() >= PARAMETERS.items()
        for line in cell.source.splitlines():
            assert re.match(r"\w+ = .+# type: (str|int|float|bool)\b", line), f"no type is named: {line}"

    def test_kernel(self, path):
        assert read(path).metadata["kernelspec"]["name"] == "python3"

    def test_starts_with_a_title_and_has_exercise_and_summary(self, path):
        first = read(path).cells[0]
        assert first.cell_type == "markdown" and re.match(r"# \S", first.source)
        titles = headings(read(path))
        assert any("exercise" in title.lower() for title in titles), titles
        assert any("summary" in title.lower() for title in titles), titles

    def test_reads_as_a_chapter(self, path):
        """Every code cell was run, in order and from the first; at least one picture shows the point."""
        cells = code(read(path))
        assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
        outputs = [output for cell in cells for output in cell.outputs]
        assert any("image/png" in output.get("data", {}) for output in outputs)

    def test_no_error_is_stored(self, path):
        for number, cell in enumerate(read(path).cells, 1):
            for output in cell.get("outputs", []):
                assert output.output_type != "error", f"cell {number} shows {output.ename}"
                assert output.get("name") != "stderr", f"cell {number} shows stderr: {output.text[:200]}"

    def test_names_no_machine(self, path):
        for number, cell in enumerate(read(path).cells, 1):
            texts = [cell.source]
            for output in cell.get("outputs", []):
                texts += [output.get("text", "")]
                texts += [value for kind, value in output.get("data", {}).items() if kind.startswith("text/")]
            for text in texts:
                found = OF_A_MACHINE.search(text)
                assert not found, f"cell {number} names {found[0]}"
        assert "papermill" not in read(path).metadata, "an executed copy was committed; its metadata names folders"

    def test_serves_the_data_that_the_course_says(self, path):
        """The kinds of data in course.toml are those of the notebook's own call of `run.serves`."""
        calls = [
            [word.value for word in call.args]
            for cell in code(read(path))
            if "run.serves(" in cell.source
            for call in ast.walk(ast.parse(cell.source))
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "run.serves"
        ]
        assert calls == ([COURSE[path.stem]["data"]] if "data" in COURSE[path.stem] else [])

    def test_size(self, path):
        assert path.stat().st_size < 3e6


def test_repository_is_small():
    """Under 60 MB with all that git would commit: the default people and their model are 16 of them."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("needs a git checkout")
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    assert sum(file.stat().st_size for file in files if file.is_file()) < 60e6


def test_the_course_names_every_notebook():
    """`make notebooks` runs what course.toml lists, and a notebook needs only earlier ones."""
    assert list(COURSE) == [path.stem for path in NOTEBOOKS]
    assert all(need < name for name, row in COURSE.items() for need in row["needs"])


@pytest.fixture(scope="session")
def runs(tmp_path_factory) -> Path:
    """One base of run folders for all workers: what 01 made, the others find."""
    shared = tmp_path_factory.getbasetemp()
    return (shared.parent if os.environ.get("PYTEST_XDIST_WORKER") else shared) / "runs"


@pytest.mark.slow
@pytest.mark.parametrize("path", **named(STRICT))
def test_prints_what_is_stored(path, runs):
    """nbval compares every cell, at the profile that the notebook's parameters name. FACENB_RUNS is the base folder."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "-c", os.devnull]
    command += ["--rootdir", ROOT / "notebooks", "--nbval", "--nbval-cell-timeout", "400"]
    command += ["--nbval-sanitize-with", ROOT / "tests/nbval_sanitize.cfg", path]
    variables = {"FACENB_PROFILE": "", "FACENB_RUNS": str(runs), "FACENB_HEADLESS": "1"}
    result = subprocess.run(command, cwd=ROOT / "notebooks", env=os.environ | variables, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]


@pytest.mark.slow
def test_a_whole_run_at_smoke_is_whole(tmp_path):
    """Every cell of every notebook runs, no record is dropped, and nothing that ran is "not run yet"."""
    folder = tmp_path / "smoke-synthetic"
    command = [sys.executable, "-m", "facenb", "run", "all", "--profile", "smoke", "--run-folder", folder]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-6000:]
    executed = {path.stem for path in (folder / "executed").glob("*.ipynb")}
    assert executed == {path.stem for path in NOTEBOOKS}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a record that is dropped
        assert set(read_records(folder).notebook) >= {name for name in COURSE if name != "17_report"}
    report = Report(folder)
    missing = [c for section in COMPARISONS.values() for c in section if report.here(c).empty and not c.closed]
    assert not missing
    assert not (report.headline() == WAITING).any(axis=None)
    assert WAITING not in (folder / "report.html").read_text(encoding="utf-8")
