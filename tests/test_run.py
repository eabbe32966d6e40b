"""Notebooks as jobs: small notebooks run, fail, are refused, are killed and continued."""

import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from contextlib import contextmanager
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from facenb.__main__ import main
from facenb.errors import RunError
from facenb.files import write_json
from facenb.runs import command, notebook, results

ROOT = Path(__file__).resolve().parents[1]
PARAMETERS = """
profile = "quick"    # type: str
data = "synthetic"   # type: str
seed = 0             # type: int
device = "auto"      # type: str
run_folder = ""      # type: str
rate = 0.5           # type: float
fast = False         # type: bool
"""


def write_notebook(path: Path, *cells: str, parameters: str | None = PARAMETERS) -> Path:
    """Cells that begin with # and a space are headings."""
    made = [new_markdown_cell("# A small notebook")]
    if parameters:
        made.append(new_code_cell(parameters.strip(), metadata={"tags": ["parameters"]}))
    for cell in map(textwrap.dedent, cells):
        made.append((new_markdown_cell if cell.startswith("# ") else new_code_cell)(cell))
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=made, metadata={"kernelspec": kernel}), path)
    return path


def printed(path: Path) -> str:
    cells = nbformat.read(path, as_version=4).cells
    return "".join(out.get("text", "") for cell in cells if cell.cell_type == "code" for out in cell.outputs)


def record(folder: Path, name: str) -> dict:
    return json.loads((folder / f"records/{name}.run.json").read_text())


@pytest.fixture
def small(tmp_path) -> Path:
    return write_notebook(tmp_path / "01_small.ipynb", "print('ran')")


@pytest.fixture
def sockets(monkeypatch):
    """A temporary folder of this test's own, short enough for sockets: whose path no process may name afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="fb-", dir="/tmp"))
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def kernels(sockets: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(str(sockets) in word for word in process.info["cmdline"] or []):
            found.append(process)
    return found


def wait_until(condition, seconds: float = 30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def job(*arguments, **keywords) -> subprocess.Popen:
    """The command line as its own process group; it takes SIGINT even where a shell started the tests ignoring it."""
    return subprocess.Popen(
        [sys.executable, "-m", "facenb", "run", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **keywords,
    )


def long_job(folder: Path) -> subprocess.Popen:
    """A job whose only cell has begun and would take 100 seconds."""
    cell = "import time; open(run_folder + '/here', 'w').close(); time.sleep(100)"
    process = job(write_notebook(folder / "04_long.ipynb", cell), "--run-folder", folder / "run")
    wait_until((folder / "run/here").exists)
    return process


class TestParameters:
    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"sede": 1}, "no parameter 'sede'. It has: profile, data, seed"),
            ({"seed": "one"}, "seed is 'one', expected a value of type int"),
            ({"seed": "1.5"}, "seed is '1.5', expected a value of type int"),
            ({"rate": "half"}, "rate is 'half', expected a value of type float"),
            ({"fast": "yes"}, "fast is 'yes', expected a value of type bool"),
        ],
    )
    def test_refused_before_anything_is_written(self, small, tmp_path, given, message):
        with pytest.raises(RunError) as caught:
            notebook.run_notebook(small, given, tmp_path / "run")
        assert message in str(caught.value) and not (tmp_path / "run").exists()

    def test_text_is_read_as_the_notebook_says(self, small):
        given = {"seed": "7", "rate": "0.25", "fast": "true", "profile": "smoke"}
        read = notebook.read_parameters(notebook.read_notebook(small), given)
        assert read == {"seed": 7, "rate": 0.25, "fast": True, "profile": "smoke"}

    @pytest.mark.parametrize(
        "words", [["--profile", "quik"], ["--data", "photo"], ["--device", "gpu"], ["--seed", "x"], ["--sed", "1"]]
    )
    def test_a_misspelt_option_ends_with_2(self, words, capsys):
        with pytest.raises(SystemExit) as stop:
            main(["run", "all", *words])
        assert stop.value.code == 2 and words[0] in capsys.readouterr().err

    @pytest.mark.parametrize("target", ["all", "01.ipynb"])
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--seed", "-1"], "seed is -1"),
            (["--seed", str(2**63)], "seed is 9223372036854775808"),
            pytest.param(
                ["--device", "cuda"],
                "no GPU",
                marks=pytest.mark.skipif(results.torch.cuda.is_available(), reason="a GPU is there"),
            ),
        ],
    )
    def test_a_value_out_of_range(self, target, words, message, capsys, monkeypatch):
        monkeypatch.setattr(signal, "signal", lambda *_: None)
        assert main(["run", target, *words]) == 2
        assert message in capsys.readouterr().err

    def test_no_parameters_cell(self, tmp_path):
        path = write_notebook(tmp_path / "a.ipynb", "1", parameters=None)
        with pytest.raises(RunError, match="It has: none"):
            notebook.run_notebook(path, {}, tmp_path / "run")

    @pytest.mark.parametrize("content", [None, "", "no json", "[]", '{"cells": 3}'])
    def test_a_file_that_is_not_a_notebook(self, tmp_path, content):
        path = tmp_path / "foreign.ipynb"
        if content is not None:
            path.write_text(content)
        with pytest.raises(RunError, match=r"foreign\.ipynb is not a notebook that can be read"):
            notebook.run_notebook(path, {}, tmp_path / "run")


class TestOneNotebook:
    def test_done(self, tmp_path, sockets, monkeypatch):
        monkeypatch.setenv("FACENB_PROFILE", "full")  # what nbval uses must not overrule a parameter
        source = write_notebook(
            tmp_path / "01_small.ipynb",
            """
            import os, sys, psutil
            from pathlib import Path
            block = b"x" * 200_000_000
            print(profile, seed, rate, os.environ.get("FACENB_PROFILE"))
            print(sys.executable)
            print(os.getcwd())
            print(any(line.split()[-1].startswith(os.environ["TMPDIR"]) for line in open("/proc/net/unix")))
            (Path(run_folder) / "sets/pairs").mkdir(parents=True)
            (Path(run_folder) / "sets/pairs/card.json").write_bytes(b"abc")
            (Path(run_folder) / "networks").mkdir()
            (Path(run_folder) / "networks/encoder.safetensors").write_bytes(b"abc")
            import time; time.sleep(0.3)
            """,
        )
        made = notebook.run_notebook(source, {"profile": "smoke", "seed": 3, "rate": 0.25}, tmp_path / "run")
        lines = printed(tmp_path / "run/executed/01_small.ipynb").splitlines()
        assert lines[0] == "smoke 3 0.25 None"
        assert lines[1] == sys.executable
        assert lines[2] == str(tmp_path)
        if Path("/proc/net/unix").exists():
            assert lines[3] == "True", "the kernel does not listen in its own folder"
        assert record(tmp_path / "run", "01_small") == made
        assert made["status"] == "done"
        assert made["parameters"]["run_folder"] == str(tmp_path / "run")
        assert made["parameters"]["seed"] == 3 and made["versions"]["torch"] and made["device"]
        assert made["commit"] == results.commit()
        assert 200 < made["peak_memory_mb"] < 6000
        assert 0.3 < made["wall_seconds"] < 60
        sha = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, "abc"
        assert made["checksums"]["sets/pairs"] == sha[:16] and made["networks"] == {"encoder": sha}
        assert not kernels(sockets) and not list(sockets.glob("facenb-*"))
        left = {path.name for path in (tmp_path / "run/executed").iterdir()}
        assert left == {"01_small.ipynb", ".01_small.lock"}

    def test_failed(self, tmp_path, sockets):
        source = write_notebook(
            tmp_path / "02_bad.ipynb",
            "print('one')",
            "# The bad part",
            "print('two')\nraise ValueError('no face')",
            "3",
        )
        run = tmp_path / "run"
        (run / "executed").mkdir(parents=True)
        (run / "executed/02_bad.ipynb").write_text("from a better day")
        with pytest.raises(notebook.NotebookError) as caught:
            notebook.run_notebook(source, {}, run)
        message = str(caught.value)
        assert '02_bad failed in cell 5 (under "The bad part"): ValueError: no face' in message
        assert str(run / "executed/02_bad.failed.ipynb") in message
        assert printed(run / "executed/02_bad.failed.ipynb").startswith("one\ntwo\n")
        assert (run / "executed/02_bad.ipynb").read_text() == "from a better day"
        assert record(run, "02_bad")["status"] == "failed"
        assert not kernels(sockets)

    @pytest.mark.parametrize(
        ("cell", "error"),
        [("import os; os._exit(3)", "DeadKernelError"), ("import time; time.sleep(60)", "CellTimeoutError")],
    )
    def test_kernel_that_dies_or_hangs(self, tmp_path, sockets, cell, error):
        source = write_notebook(tmp_path / "03_dies.ipynb", cell)
        with pytest.raises(notebook.NotebookError, match=f"in cell 3 .*{error}"):
            notebook.run_notebook(source, {}, tmp_path / "run", timeout=2)
        assert record(tmp_path / "run", "03_dies")["status"] == "failed"
        assert not (tmp_path / "run/executed/03_dies.ipynb").exists()
        assert not kernels(sockets)

    @pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
    def test_asked_to_end(self, tmp_path, sockets, how):
        process = long_job(tmp_path)
        assert kernels(sockets)
        process.send_signal(how)
        assert "interrupted" in process.communicate(timeout=30)[0]
        assert process.returncode == 130
        assert not kernels(sockets)
        assert record(tmp_path / "run", "04_long")["status"] == "interrupted"

    def test_killed_job_takes_its_kernel_along(self, tmp_path, sockets):
        process = long_job(tmp_path)
        assert kernels(sockets)
        process.kill()
        process.wait()
        wait_until(lambda: not kernels(sockets), 10)

    def test_long_temporary_folder(self, tmp_path, monkeypatch):
        """A socket's path may have about 100 characters; elsewhere the kernel could not start."""
        deep = tmp_path / ("deep" * 30)
        deep.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(deep))
        folder = Path(notebook.PrivateKernel().connection_file).parent
        assert folder.parent == Path("/tmp") and len(str(folder)) < 80


@contextmanager
def as_somebody():
    """Without root's right to write everywhere."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


class TestFolder:
    def test_no_permission(self, sockets):
        source = write_notebook(sockets / "01_small.ipynb", "1")
        sockets.chmod(0o755)
        (sockets / "run").mkdir(mode=0o555)
        with as_somebody(), pytest.raises(RunError, match=r"Cannot write to .*/run: .* --run-folder"):
            notebook.run_notebook(source, {}, sockets / "run")
        assert not list((sockets / "run").iterdir())

    def test_a_file_where_the_folder_should_be(self, small, tmp_path):
        (tmp_path / "run").write_text("precious")
        with pytest.raises(RunError, match="Cannot write to"):
            notebook.run_notebook(small, {}, tmp_path / "run")
        assert (tmp_path / "run").read_text() == "precious"

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
    @pytest.mark.parametrize("file", ["executed/01_small.partial.ipynb", "records/.01_small.run.json.{pid}.partial"])
    def test_full_disk(self, small, tmp_path, sockets, file):
        """Where a file is written, there is a device that is always full."""
        path = tmp_path / "run" / file.format(pid=os.getpid())
        path.parent.mkdir(parents=True)
        path.symlink_to("/dev/full")
        with pytest.raises(RunError, match=r"No space left .*Free some"):
            notebook.run_notebook(small, {}, tmp_path / "run")
        assert not (tmp_path / "run/executed/01_small.ipynb").exists()
        assert not kernels(sockets)

    def test_one_notebook_twice_and_one_that_was_killed(self, tmp_path, sockets):
        process, source = long_job(tmp_path), tmp_path / "04_long.ipynb"
        with pytest.raises(RunError, match=f"04_long is already running in {tmp_path / 'run'}"):
            notebook.run_notebook(source, {}, tmp_path / "run")
        process.kill()
        process.wait()
        write_notebook(source, "1")
        assert notebook.run_notebook(source, {}, tmp_path / "run")["status"] == "done"


class TestKernel:
    """Notebooks run with this Python, whatever kernel they name."""

    @pytest.mark.parametrize("metadata", [{}, {"kernelspec": {"name": "conda-env-x-py", "display_name": "x"}}])
    def test_another_kernel_or_none(self, tmp_path, metadata):
        path = write_notebook(tmp_path / "01_small.ipynb", "import sys\nprint(sys.executable)")
        content = nbformat.read(path, as_version=4)
        content.metadata = nbformat.from_dict(metadata)
        nbformat.write(content, path)
        notebook.run_notebook(path, {}, tmp_path / "run")
        assert printed(tmp_path / "run/executed/01_small.ipynb").strip() == sys.executable

    def test_papermill_itself_runs_a_notebook_of_the_course(self, tmp_path):
        """As README prints it, from the repository's root."""
        [words] = re.findall(r"`(papermill notebooks/.+?)`", (ROOT / "README.md").read_text())
        _, source, _, *options = shlex.split(words)
        command = [sys.executable, "-m", "papermill", ROOT / source, tmp_path / "out.ipynb", *options]
        command += ["-p", "run_folder", tmp_path / "run"]
        subprocess.run(list(map(str, command)), check=True, cwd=tmp_path, capture_output=True)
        assert list((tmp_path / "run/records").glob("*.jsonl"))


def course(folder: Path, table: dict[str, list[str]]) -> Path:
    """A folder of notebooks with the repository's Snakefile, and a course.toml beside it."""
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "notebooks/Snakefile", folder)
    (folder.parent / "course").mkdir()
    rows = "".join(f"[[part.notebook]]\nfile = {name!r}\nneeds = {needs!r}\ngpu = 0\n" for name, needs in table.items())
    (folder.parent / "course/course.toml").write_text('[[part]]\ntitle = "A"\n' + rows)
    return folder


@pytest.fixture
def library(tmp_path, monkeypatch) -> Path:
    """A copy of the library, which others do not change: else a notebook that is up to date would run again."""
    copy = tmp_path / "library/facenb"
    shutil.copytree(Path(results.__file__).parents[1], copy, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "data_download", copy.parent / "data_download")
    monkeypatch.setenv("PYTHONPATH", str(copy.parent))
    return copy


def run_course(folder: Path, run: Path, *further) -> tuple[int, str]:
    process = job("all", "--notebooks", folder, "--run-folder", run, "--profile", "smoke", *further, cwd=folder)
    text, _ = process.communicate(timeout=120)
    return process.returncode, text


STEP = """
import hashlib, time
from pathlib import Path
out = Path(run_folder, "models/{name}.txt")
before = "".join(path.read_text() for path in sorted(out.parent.glob("*.txt")) if path != out)
lines = []
for step in range(4):
    lines.append(hashlib.sha256((before + str(seed) + str(step)).encode()).hexdigest())
    out.parent.mkdir(parents=True, exist_ok=True)
    Path(run_folder, "at.{name}").write_text(str(step))
    time.sleep({pause})
out.with_suffix(".partial").write_text("\\n".join(lines))
out.with_suffix(".partial").rename(out)
"""


class TestGraph:
    def test_a_failure_stops_what_needs_it_and_nothing_else(self, tmp_path, sockets, library):
        table = {"01_a": [], "02_b": [], "03_c": ["02_b"]}
        folder, run = course(tmp_path / "books", table), tmp_path / "run"
        for name in table:
            write_notebook(folder / f"{name}.ipynb", "# Work", "print(profile)" if name != "02_b" else "1 / 0")
        status, text = run_course(folder, run)
        assert status == 1
        assert f"executed notebooks: {run / 'executed'}" in text
        assert '02_b failed in cell 4 (under "Work"): ZeroDivisionError: division by zero' in text
        assert f"cd {folder} && {sys.executable} -m facenb run all --notebooks {folder} --run-folder {run}" in text
        assert "03_c                         held back   needs 02_b" in text
        done = {path.name for path in (run / "executed").glob("[0-9]*.ipynb")}
        assert done == {"01_a.ipynb", "02_b.failed.ipynb"}

        first = record(run, "01_a")
        write_notebook(folder / "02_b.ipynb", "# Work", "print(1 / 1)")
        status, text = run_course(folder, run)
        assert status == 0, text
        done = {path.name for path in (run / "executed").glob("[0-9]*.ipynb")}
        assert done == {f"{name}.ipynb" for name in table}
        assert record(run, "01_a") == first, "what was up to date ran again"
        assert not [path for path in folder.iterdir() if path.suffix not in (".ipynb", "") or path.name[0] == "."]

        status, text = run_course(folder, run)
        assert status == 0 and "01_a: done in" not in text
        assert "Nothing to be done" in text and f"run folder {run}: executed/ holds the notebooks" in text

        (library / "errors.py").touch()  # a newer time alone does not count, another content does
        assert "Nothing to be done" in run_course(folder, run, "--", "-n")[1]
        (library / "errors.py").write_text((library / "errors.py").read_text() + "\n")
        assert "Nothing to be done" not in run_course(folder, run, "--", "-n")[1]
        assert not kernels(sockets)

    @pytest.mark.slow
    def test_killed_and_started_again(self, tmp_path, sockets, library):
        """SIGKILL to Snakemake alone, which can tell nobody; what it had started must notice and go."""
        folder, run = course(tmp_path / "books", {"01_a": [], "02_b": ["01_a"]}), tmp_path / "run"
        write_notebook(folder / "01_a.ipynb", STEP.format(name="01_a", pause=0.0))
        write_notebook(folder / "02_b.ipynb", STEP.format(name="02_b", pause=1.0))
        process = job("all", "--notebooks", folder, "--run-folder", run, "--profile", "smoke", "--seed", 5, cwd=folder)
        wait_until(lambda: (run / "at.02_b").exists() and (run / "at.02_b").read_text() == "1", 60)
        process.kill()
        process.wait()
        first = record(run, "01_a")
        assert not (run / "executed/02_b.ipynb").exists() and not (run / "models/02_b.txt").exists()
        status, text = run_course(folder, run, "--seed", "5")
        assert status == 0, text
        a = [sha256(f"5{step}") for step in range(4)]
        b = [sha256("\n".join(a) + f"5{step}") for step in range(4)]
        assert (run / "models/01_a.txt").read_text().splitlines() == a
        assert (run / "models/02_b.txt").read_text().splitlines() == b
        assert record(run, "01_a") == first, "what was done ran again"
        assert record(run, "02_b")["status"] == "done"
        wait_until(lambda: not kernels(sockets), 5)

    @pytest.mark.slow
    def test_two_in_one_folder(self, tmp_path, sockets, library):
        """A second run is refused, and one notebook in the folder of a run as well."""
        folder, run = course(tmp_path / "books", {"01_a": []}), tmp_path / "run"
        wait = "from pathlib import Path\nimport time\nopen(run_folder + '/here', 'w').close()\n"
        wait += "while not Path(run_folder, 'go').exists(): time.sleep(0.1)"
        write_notebook(folder / "01_a.ipynb", wait)
        first = job("all", "--notebooks", folder, "--run-folder", run, "--profile", "smoke", cwd=folder)
        wait_until((run / "here").exists, 60)
        status, text = run_course(folder, run)
        assert status == 2 and f"Another run is at work in {run}" in text
        second = job(folder / "01_a.ipynb", "--run-folder", run)
        assert f"`run all` is at work in {run}" in second.communicate()[0] and second.returncode == 2
        (run / "go").touch()
        assert first.wait(60) == 0

    def test_a_missing_graph(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(signal, "signal", lambda *_: None)
        assert main(["run", "all", "--notebooks", str(tmp_path), "--run-folder", str(tmp_path / "run")]) == 2
        assert f"There is no {tmp_path / 'Snakefile'}" in capsys.readouterr().err

    def test_a_missing_notebook_is_named(self, tmp_path):
        folder = course(tmp_path / "books", {"01_a": []})
        status, text = run_course(folder, tmp_path / "run")
        assert status == 1 and "01_a.ipynb" in text

    def test_summary_tells_who_was_killed(self, tmp_path):
        (tmp_path / "records").mkdir()
        write_json(tmp_path / "records/01_a.run.json", {"status": "running"})
        lines = command.summary(tmp_path, {"01_a": [], "02_b": ["01_a"], "03_c": []}).splitlines()
        assert [line.split()[1] for line in lines[:3]] == ["killed", "held", "not"]

    @pytest.mark.parametrize("content", ['{"status": "do', "[]", "{}", '{"status": null}'])
    def test_summary_names_a_damaged_record_and_goes_on(self, tmp_path, content):
        (tmp_path / "records").mkdir()
        (tmp_path / "records/01_a.run.json").write_text(content)
        write_json(tmp_path / "records/02_b.run.json", {"status": "done", "wall_seconds": 1.0, "peak_memory_mb": 2})
        lines = command.summary(tmp_path, {"01_a": [], "02_b": ["01_a"]}).splitlines()
        assert "damaged" in lines[0] and str(tmp_path / "records/01_a.run.json") in lines[0]
        assert lines[1].split()[1] == "done"


class TestGoOn:
    """The printed command continues the same run when it is pasted into a shell."""

    @pytest.mark.parametrize("name", ["a folder", "rün2", "it's", 'so "called"', "a{b}c", "$HOME", "a;b&c"])
    def test_it_asks_for_the_same_run(self, tmp_path, monkeypatch, name):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        words = ["run", "all", "--profile", "full", "--run-folder", name, "--", "--set-resources", "a:b='c d'"]
        printing = command.go_on(words).replace(sys.executable, "printf '%s\\0' \"$PWD\"")
        pasted = subprocess.run(["bash", "-c", printing], capture_output=True, text=True, cwd="/").stdout.split("\0")
        assert pasted[:-1] == [str(tmp_path / name), "-m", "facenb", *words]

    @pytest.mark.slow
    def test_a_run_in_a_folder_of_any_name(self, tmp_path, library):
        """It fails, prints the command, and the command finishes it."""
        folder = course(tmp_path / "books", {"01_a": []})
        write_notebook(folder / "01_a.ipynb", "1 / 0")
        run = tmp_path / "rün 'a' \"b\" {c} $d"
        status, text = run_course(folder, run)
        assert status == 1
        write_notebook(folder / "01_a.ipynb", "1 / 1")
        [command] = [line.removeprefix("to go on: ") for line in text.splitlines() if line.startswith("to go on: ")]
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd="/")
        assert done.returncode == 0, done.stdout + done.stderr
        assert (run / "executed/01_a.ipynb").exists()

    @pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
    def test_make_takes_a_run_folder_with_a_blank(self):
        asked = ["make", "-n", "-C", ROOT, "notebooks", "RUN_FOLDER=/tmp/my runs"]
        assert '--run-folder "/tmp/my runs" ' in subprocess.run(asked, capture_output=True, text=True).stdout


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.skipif(shutil.which("setpriv") is None or os.geteuid() != 0, reason="needs root and setpriv")
@pytest.mark.parametrize("home", [None, "/nonexistent"])
def test_a_user_id_without_a_home_folder(tmp_path, sockets, home):
    """As in a container with an arbitrary user id. Root's right to read files stays, since Python itself needs it."""
    sockets.chmod(0o777)
    source = write_notebook(sockets / "01_small.ipynb", "from data_download.folders import data_folder\nprint('ran')")
    source.chmod(0o644)
    right = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    somebody = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", *right]
    variables = {name: value for name, value in os.environ.items() if name not in ("HOME", "FACENB_DATA")}
    variables |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(ROOT)} | ({"HOME": home} if home else {})
    run = [sys.executable, "-m", "facenb", "run", source, "--run-folder", sockets / "run"]
    done = subprocess.run([*somebody, *map(str, run)], env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert printed(sockets / "run/executed/01_small.ipynb").endswith("ran\n")
    dry = [sys.executable, "-m", "facenb", "run", "all", "--run-folder", sockets / "all", "--", "-n"]
    done = subprocess.run([*somebody, *map(str, dry)], env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
