"""Notebooks as jobs: tiny notebooks run, fail, are refused, killed and taken up again."""

import hashlib
import json
import os
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

from facenb.errors import RunError
from facenb.files import write_json
from facenb.runs import batch, graph, kernel, results

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
def notebook(tmp_path) -> Path:
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
        [sys.executable, "-m", "facenb.runs.batch", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **keywords,
    )  # fmt: skip


class TestParameters:
    @pytest.mark.parametrize(
        ("given", "says"),
        [
            ({"sede": 1}, "no parameter 'sede'; did you mean 'seed'"),
            ({"profile": "quik"}, "profile is 'quik'; did you mean 'quick'"),
            ({"data": "photo"}, "data is 'photo'; did you mean 'photos'"),
            ({"device": "gpu"}, "device is 'gpu'"),
            ({"seed": -1}, "seed is -1"),
            ({"seed": 2**63}, "seed is 9223372036854775808"),
            ({"seed": "one"}, "seed is 'one', which is no int"),
            ({"seed": 1.5}, "seed is 1.5, of type float"),
            ({"seed": True}, "seed is True, of type bool"),
            ({"rate": "half"}, "rate is 'half', which is no float"),
            ({"fast": "yes"}, "fast is 'yes', which is no bool"),
            ({"run_folder": 3}, "run_folder is 3, of type int"),
        ],
    )
    def test_refused(self, notebook, given, says):
        with pytest.raises(RunError, match="parameter") as caught:
            batch.check_parameters(notebook, given)
        assert says in str(caught.value)

    def test_text_is_read_as_the_notebook_says(self, notebook):
        given = {"seed": "7", "rate": "0.25", "fast": "true", "profile": "smoke"}
        assert batch.check_parameters(notebook, given) == {"seed": 7, "rate": 0.25, "fast": True, "profile": "smoke"}

    @pytest.mark.skipif(batch.torch.cuda.is_available(), reason="a GPU is there")
    def test_a_gpu_that_is_not_there(self, notebook):
        with pytest.raises(RunError, match="no GPU"):
            batch.check_parameters(notebook, {"device": "cuda"})

    def test_refused_before_anything_is_written(self, notebook, tmp_path):
        with pytest.raises(RunError):
            batch.run_notebook(notebook, {"sede": 1}, tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_no_parameters_cell(self, tmp_path):
        with pytest.raises(RunError, match="no cell tagged"):
            batch.check_parameters(write_notebook(tmp_path / "a.ipynb", "1", parameters=None), {})

    def test_no_notebook(self, tmp_path):
        with pytest.raises(RunError, match=r"none\.ipynb: No such file"):
            batch.check_parameters(tmp_path / "none.ipynb", {})

    @pytest.mark.parametrize("content", ["", "no json", "[]", '{"cells": 3}'])
    def test_a_file_that_is_no_notebook(self, tmp_path, content):
        path = tmp_path / "foreign.ipynb"
        path.write_text(content)
        with pytest.raises(RunError, match=r"foreign\.ipynb is no notebook"):
            batch.check_parameters(path, {})


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
            (Path(run_folder) / "models").mkdir()
            (Path(run_folder) / "models/model.bin").write_bytes(b"abc")
            import time; time.sleep(0.3)
            """,
        )
        made = batch.run_notebook(source, {"profile": "smoke", "seed": 3, "rate": 0.25}, tmp_path / "run")
        lines = printed(tmp_path / "run/executed/01_small.ipynb").splitlines()
        assert lines[0] == "smoke 3 0.25 None"
        assert lines[1] == sys.executable
        assert lines[2] == str(tmp_path)
        if Path("/proc/net/unix").exists():
            assert lines[3] == "True", "the kernel does not listen in its own folder"
        assert record(tmp_path / "run", "01_small") == made
        assert made["status"] == "done"
        assert made["parameters"]["run_folder"] == str(tmp_path / "run")
        assert made["seed"] == 3 and made["versions"]["torch"] and made["device"]
        assert made["commit"] == results.commit().rstrip("+")
        assert 200 < made["peak_memory_mb"] < 2000
        assert 0.3 < made["wall_seconds"] < 60
        sha = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, "abc"
        assert made["data"] == {"models/model.bin": sha} and made["data_before"] == {}
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
        with pytest.raises(batch.NotebookError) as caught:
            batch.run_notebook(source, {}, run, go_on="make notebooks")
        message = str(caught.value)
        assert '02_bad failed in cell 5 (under "The bad part"): ValueError: no face' in message
        assert "to go on once that is mended: make notebooks" in message
        assert str(run / "executed/02_bad.failed.ipynb") in message
        assert printed(run / "executed/02_bad.failed.ipynb").startswith("one\ntwo\n")
        assert (run / "executed/02_bad.ipynb").read_text() == "from a better day"
        assert record(run, "02_bad")["status"] == "failed" and record(run, "02_bad")["cell"] == 5
        assert not kernels(sockets)

    @pytest.mark.parametrize(
        ("cell", "error"),
        [("import os; os._exit(3)", "DeadKernelError"), ("import time; time.sleep(60)", "CellTimeoutError")],
    )
    def test_kernel_that_dies_or_hangs(self, tmp_path, sockets, cell, error):
        source = write_notebook(tmp_path / "03_dies.ipynb", cell)
        with pytest.raises(batch.NotebookError, match=f"in cell 3 .*{error}"):
            batch.run_notebook(source, {}, tmp_path / "run", timeout=2)
        assert record(tmp_path / "run", "03_dies")["status"] == "failed"
        assert not (tmp_path / "run/executed/03_dies.ipynb").exists()
        assert not kernels(sockets)

    @pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
    def test_asked_to_end(self, tmp_path, sockets, how):
        cell = "import time; open(run_folder + '/here', 'w').close(); time.sleep(100)"
        process = job(write_notebook(tmp_path / "04_long.ipynb", cell), "--run-folder", tmp_path / "run")
        wait_until((tmp_path / "run/here").exists)
        assert kernels(sockets)
        process.send_signal(how)
        assert "interrupted" in process.communicate(timeout=30)[0]
        assert process.returncode == 130
        assert not kernels(sockets)
        assert record(tmp_path / "run", "04_long")["status"] == "interrupted"

    def test_killed_job_takes_its_kernel_along(self, tmp_path, sockets):
        cell = "import time; open(run_folder + '/here', 'w').close(); time.sleep(100)"
        process = job(write_notebook(tmp_path / "04_long.ipynb", cell), "--run-folder", tmp_path / "run")
        wait_until((tmp_path / "run/here").exists)
        assert kernels(sockets)
        process.kill()
        process.wait()
        wait_until(lambda: not kernels(sockets), 10)

    def test_long_temporary_folder(self, tmp_path, monkeypatch):
        """A socket's path may have about 100 characters; elsewhere the kernel could not start."""
        deep = tmp_path / ("deep" * 30)
        deep.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(deep))
        with kernel.private_kernel() as kind:
            assert len(str(kind.folder)) < 80
        assert not kind.folder.exists()


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
    def test_no_permission(self, tmp_path, sockets):
        source = write_notebook(sockets / "01_small.ipynb", "1")
        sockets.chmod(0o755)
        (sockets / "run").mkdir(mode=0o555)
        batch.check_parameters(source, {})
        with (
            as_somebody(),
            pytest.raises(RunError, match=r"cannot write to run folder .*/run: Permission denied") as caught,
        ):
            batch.run_notebook(source, {}, sockets / "run")
        assert "--run-folder" in str(caught.value)
        assert not list((sockets / "run").iterdir())

    def test_a_file_where_the_folder_should_be(self, notebook, tmp_path):
        (tmp_path / "run").write_text("precious")
        with pytest.raises(RunError, match="cannot write to run folder"):
            batch.run_notebook(notebook, {}, tmp_path / "run")
        assert (tmp_path / "run").read_text() == "precious"

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
    @pytest.mark.parametrize("file", ["executed/01_small.partial.ipynb", "records/.01_small.run.json.{pid}.partial"])
    def test_full_disk(self, notebook, tmp_path, sockets, file):
        """Where a file is written, there is a device that is always full."""
        place = tmp_path / "run" / file.format(pid=os.getpid())
        place.parent.mkdir(parents=True)
        place.symlink_to("/dev/full")
        with pytest.raises(RunError, match=r"no space left for run folder .*free some"):
            batch.run_notebook(notebook, {}, tmp_path / "run")
        assert not (tmp_path / "run/executed/01_small.ipynb").exists()
        assert not kernels(sockets)

    def test_two_runs_and_one_that_was_killed(self, notebook, tmp_path):
        holder = subprocess.Popen(
            [sys.executable, "-c",
             "import sys, time; from pathlib import Path; from facenb.runs.batch import lock\n"
             "held = lock(Path(sys.argv[1]), 'it'); print('held', flush=True); time.sleep(100)",
             tmp_path / "run/.lock"], stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunError, match=f"in use by process {holder.pid} on") as caught:
            batch.run_notebook(notebook, {}, tmp_path / "run")
        assert str(tmp_path / "run") in str(caught.value)
        assert not (tmp_path / "run/executed/01_small.ipynb").exists()
        holder.kill()
        holder.wait()
        with batch.lock(tmp_path / "run/.lock", "it"):  # nothing stale is left
            pass

    def test_record_is_whole_or_as_it_was(self, tmp_path):
        write_json(tmp_path / "a.json", {"x": 1})
        with pytest.raises(TypeError):
            write_json(tmp_path / "a.json", {"x": object()})
        assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1}
        assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def course(folder: Path, table: dict[str, list[str]]) -> Path:
    """A folder with the repository's Snakefile, its table replaced."""
    text = (ROOT / "notebooks/Snakefile").read_text()
    start, rest = text.split("GRAPH = [", 1)
    _, end = rest.split("\n]\n", 1)
    rows = "".join(f"\n    ({name!r}, {needs!r}, 0)," for name, needs in table.items())
    folder.mkdir(exist_ok=True)
    (folder / "Snakefile").write_text(f"{start}GRAPH = [{rows}\n]\n{end}")
    return folder


@pytest.fixture
def library(tmp_path, monkeypatch) -> Path:
    """A copy of the library that the jobs import: an edit of the real one meanwhile would make them run again."""
    copy = tmp_path / "library/facenb"
    shutil.copytree(Path(results.__file__).parents[1], copy, ignore=shutil.ignore_patterns("__pycache__"))
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
        folder, run = course(tmp_path / "course", table), tmp_path / "run"
        for name in table:
            write_notebook(folder / f"{name}.ipynb", "# Work", "print(profile)" if name != "02_b" else "1 / 0")
        status, text = run_course(folder, run)
        assert status == 1
        assert f"executed notebooks: {run / 'executed'}" in text
        assert '02_b failed in cell 4 (under "Work"): ZeroDivisionError: division by zero' in text
        again = f"-m facenb.runs.batch all --profile smoke --data synthetic --run-folder {run} --notebooks {folder}"
        assert again in text
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
        assert not kernels(sockets)

    def test_killed_and_started_again(self, tmp_path, sockets, library):
        """SIGKILL to Snakemake alone, which can tell nobody; what it had started must notice and go."""
        folder, run = course(tmp_path / "course", {"01_a": [], "02_b": ["01_a"]}), tmp_path / "run"
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

    @pytest.fixture
    def refused(self, tmp_path, monkeypatch, capsys):
        """Calls the command line, which must not come to the point of becoming Snakemake; gives what it says."""

        def call(*further) -> str:
            assert batch.main(["all", "--run-folder", str(tmp_path / "run"), *map(str, further)]) == 2
            assert not (tmp_path / "run/executed").exists()
            return capsys.readouterr().err

        monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("it was not refused"))
        monkeypatch.setattr(signal, "signal", lambda *_: None)
        return call

    def test_two_in_one_folder(self, tmp_path, refused):
        with batch.lock(tmp_path / "run/.lock", "it"):
            assert f"in use by process {os.getpid()}" in refused(
                "--notebooks", course(tmp_path / "course", {"01_a": []})
            )

    def test_a_missing_graph(self, tmp_path, refused):
        assert f"there is no {tmp_path / 'Snakefile'}" in refused("--notebooks", tmp_path)

    @pytest.mark.parametrize(
        ("given", "says"),
        [
            (("--profile", "quik"), "did you mean 'quick'"),
            (("--seed", "x"), "seed is 'x'"),
            (("--data", "p"), "data is 'p'"),
        ],
    )
    def test_a_parameter_out_of_range(self, refused, given, says):
        assert says in refused(*given)

    @pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
    def test_the_lock_goes_along(self, tmp_path, monkeypatch):
        """The folder stays held while this process is Snakemake."""
        called = []
        monkeypatch.setattr(signal, "signal", lambda *_: None)
        monkeypatch.setattr(os, "execv", lambda _, command: called.append((command, held())))

        def held() -> bool:
            with pytest.raises(RunError, match="in use"):
                batch.lock(tmp_path / "run/.lock", "it")
            return any(
                os.get_inheritable(int(fd)) and os.path.realpath(f"/proc/self/fd/{fd}") == str(tmp_path / "run/.lock")
                for fd in os.listdir("/proc/self/fd")
                if os.path.exists(f"/proc/self/fd/{fd}")
            )

        options = batch.parser().parse_args(["all", "--run-folder", str(tmp_path / "run")])
        batch.run_graph(options, ["--dry-run"])
        [(command, inherited)] = called
        assert inherited
        assert command[-1] == "--dry-run" and str(ROOT / "notebooks/Snakefile") in command

    def test_a_missing_notebook_is_named(self, tmp_path):
        folder = course(tmp_path / "course", {"01_a": []})
        status, text = run_course(folder, tmp_path / "run")
        assert status == 1 and "01_a.ipynb" in text

    def test_what_a_notebook_serves_is_read_from_its_call(self, tmp_path):
        path, book = tmp_path / "01_a.ipynb", nbformat.v4.new_notebook()
        nbformat.write(book, path)
        assert graph.serves(path, "paper")
        book.cells = [nbformat.v4.new_code_cell('run.serves(\n    "synthetic", "photos", why="no paper here")')]
        nbformat.write(book, path)
        assert [graph.serves(path, data) for data in ("synthetic", "photos", "paper")] == [True, True, False]

    @pytest.mark.parametrize(
        ("code", "served"),
        [
            ("run.serves('synthetic', why='it')", [True, False]),
            ('# run.serves("photos", why="it")\nrun.serves("synthetic", why="it")', [True, False]),
            ('print("""run.serves("photos", why=""")\nrun.serves("synthetic", why="it")', [True, False]),
            ('other.serves("photos", why="it")', [True, True]),
            ('run.serves(*SERVED, why="it")', [True, True]),
            ('run.serves("synthetic", more, why="it")', [True, True]),
            ('%matplotlib inline\nrun.serves("synthetic", why="it")', [True, True]),
        ],
    )
    def test_only_the_call_itself_counts(self, tmp_path, code, served):
        path, output = tmp_path / "01_a.ipynb", nbformat.v4.new_output("stream", text='run.serves("photos", why="")')
        cells = [new_markdown_cell('`run.serves("photos", why="")`'), new_code_cell("1", outputs=[output])]
        nbformat.write(new_notebook(cells=[*cells, new_code_cell("!ls"), new_code_cell(code)]), path)
        assert [graph.serves(path, data) for data in ("synthetic", "photos")] == served

    @pytest.mark.parametrize("content", ["{", "[]", '{"cells": [{"cell_type": "code"}]}'])
    def test_a_file_that_is_no_notebook_is_left_to_its_job(self, tmp_path, content):
        (tmp_path / "01_a.ipynb").write_text(content)
        assert graph.serves(tmp_path / "01_a.ipynb", "paper")

    def test_library_checksum_follows_the_library(self, library, monkeypatch):
        monkeypatch.setattr(results, "__file__", str(library / "runs/results.py"))
        before = graph.library_checksum()
        assert graph.library_checksum() == before
        (library / "errors.py").write_text((library / "errors.py").read_text() + "\n")
        assert graph.library_checksum() != before

    def test_summary_tells_who_was_killed(self, tmp_path):
        write_json(tmp_path / "a.json", {"status": "running"})
        (tmp_path / "records").mkdir()
        (tmp_path / "a.json").rename(tmp_path / "records/01_a.run.json")
        lines = graph.summary(tmp_path, {"01_a": [], "02_b": ["01_a"], "03_c": []}).splitlines()
        assert [line.split()[1] for line in lines[:3]] == ["killed", "held", "not"]

    @pytest.mark.parametrize("content", ['{"status": "do', "[]", "{}", '{"status": "done"}', '{"status": null}'])
    def test_summary_names_a_damaged_record_and_goes_on(self, tmp_path, content):
        (tmp_path / "records").mkdir()
        (tmp_path / "records/01_a.run.json").write_text(content)
        write_json(tmp_path / "records/02_b.run.json", {"status": "done", "wall_seconds": 1.0, "peak_memory_mb": 2})
        lines = graph.summary(tmp_path, {"01_a": [], "02_b": ["01_a"]}).splitlines()
        assert "damaged" in lines[0] and str(tmp_path / "records/01_a.run.json") in lines[0]
        assert lines[1].split()[1] == "done"


class TestGoOn:
    """The command to go on with asks for what was asked for."""

    @pytest.fixture
    def again(self, tmp_path):
        """Options as given to the command line, and as they come back through the command to go on."""

        def call(*words: str):
            options = batch.parser().parse_args(["all", *words])
            options.seed = int(options.seed)
            folder = options.run_folder or results.default_folder(options.profile, options.data)
            given = shlex.split(graph.go_on(options, Path(folder), ["--jobs", "2", "--set-resources", "a:b='c d'"]))
            if given[0] == "make":
                asked = ["make", "-n", "-C", ROOT, *given[1:]]
                path = {"PATH": os.environ["PATH"]}  # and no variables of a make that runs the tests
                shown = subprocess.run(asked, capture_output=True, text=True, env=path).stdout
                [given] = [line for line in shown.replace("\\\n", " ").splitlines() if "facenb.runs.batch all" in line]
                given = shlex.split(given)
            cut = given.index("--")
            assert given[cut + 1 :] == ["--jobs", "2", "--set-resources", "a:b='c d'"]
            found = batch.parser().parse_args(given[given.index("facenb.runs.batch") + 1 : cut])
            default = results.default_folder(found.profile, found.data)  # without FACENB_RUNS: see PATH above
            found.seed, found.run_folder = int(found.seed), found.run_folder or str(default)
            options.run_folder = str(folder)
            return options, found

        return call

    @pytest.mark.parametrize(
        "words",
        [
            (),
            ("--profile", "full", "--data", "photos"),
            ("--cores", "2", "--seed", "3", "--device", "cpu", "--run-folder", "/tmp/elsewhere"),
            ("--notebooks", "/tmp/course", "--cores", "2", "--seed", "3", "--device", "cpu"),
            ("--run-folder", "/tmp/a folder"),
        ],
    )
    def test_it_is_the_same_run(self, again, monkeypatch, words):
        monkeypatch.delenv("FACENB_RUNS", raising=False)
        asked, found = again(*words)
        assert found == asked

    def test_make_takes_a_run_folder_with_a_blank(self):
        asked = ["make", "-n", "-C", ROOT, "notebooks", "RUN_FOLDER=/tmp/my runs"]
        assert '--run-folder "/tmp/my runs" ' in subprocess.run(asked, capture_output=True, text=True).stdout

    def test_a_base_of_ones_own(self, again, monkeypatch, tmp_path):
        monkeypatch.setenv("FACENB_RUNS", str(tmp_path))
        asked, found = again()
        assert found == asked

    def test_the_notebooks_are_found_from_anywhere(self, again, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        assert again("--notebooks", "course")[1].notebooks == str(tmp_path / "course")


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
