"""pyproject.toml, environment.yml and constraints.txt tell of the same set, and it is the set the code uses."""

import ast
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# Modules whose name is not the name of the package that holds them.
PACKAGE_OF = {"PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit-learn", "igl": "libigl", "ipykernel": "jupyterlab"}
# Always there, because something in the list cannot do without them: named so that nobody adds a second list.
COMES_WITH = {
    "IPython": "ipywidgets",
    "cv2": "mediapipe",
    "ipykernel": "jupyterlab",
    "jsonschema": "jupyterlab",
    "jupyter_client": "papermill",
    "nbclient": "papermill",
    "nbconvert": "jupyterlab",
    "nbformat": "papermill",
    "packaging": "matplotlib",
    "requests": "pooch",
    "traitlets": "ipywidgets",
    "yaml": "papermill",
}


def declared(*tools: str) -> dict[str, Requirement]:
    """What an environment holds, and the extras `tools`: `bake` makes shipped data and is never installed beside."""
    extras = {
        name: lines for name, lines in PROJECT["optional-dependencies"].items() if name != "bake" or name in tools
    }
    lists = [PROJECT["dependencies"], *extras.values()]
    requirements = [Requirement(line) for one in lists for line in one]
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def conda() -> tuple[list[str], dict[str, Requirement], list[str]]:
    """Its conda lines, its pip requirements, its pip options."""
    lines = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    [section] = [line["pip"] for line in lines if isinstance(line, dict)]
    requirements = [Requirement(line) for line in section if not line.startswith("-")]
    by_name = {canonicalize_name(requirement.name): requirement for requirement in requirements}
    assert len(by_name) == len(requirements), "a package is named twice in environment.yml"
    return [line for line in lines if isinstance(line, str)], by_name, [line for line in section if line[0] == "-"]


def constraints() -> dict[str, Version]:
    lines = [line.strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pin) == 2 for pin in pins), "constraints.txt holds lines of the form name==version only"
    return {canonicalize_name(name): Version(version) for name, version in pins}


def test_conda_gives_the_same_names_and_lower_bounds():
    _, packages, options = conda()
    assert {name: str(one.specifier) for name, one in packages.items()} == {
        name: str(one.specifier) for name, one in declared().items()
    }
    assert options == ["-c constraints.txt", "-e ."]


def test_conda_gives_the_same_python():
    lines, _, _ = conda()
    [python] = [line.removeprefix("python").strip() for line in lines if line.startswith("python")]
    assert set(python.split(",")) == set(PROJECT["requires-python"].split(","))


def test_constraints_satisfy_every_lower_bound():
    pins = constraints()
    for name, requirement in declared().items():
        assert name in pins, f"{name} of pyproject.toml has no pin in constraints.txt"
        assert requirement.specifier.contains(pins[name]), f"{name}=={pins[name]} does not meet {requirement}"


def test_constraints_name_no_machine():
    for name, version in constraints().items():
        assert version.local is None, f"{name}=={version}: a build of one machine cannot be installed elsewhere"
    assert "://" not in (ROOT / "constraints.txt").read_text() + (ROOT / "environment.yml").read_text()


def imported_by(folder: Path) -> set[str]:
    """Top-level modules that the .py files of a folder import, at any depth of a function."""
    found = set()
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(), filename=str(file))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("folder", ["facenb", "data_download", "tests", "benchmarks", "bake"])
def test_every_import_is_declared(folder):
    own = {"facenb", "data_download", "benchmarks", "tests", "conftest"} | {
        file.stem for file in (ROOT / folder).rglob("*.py")
    }
    for module in imported_by(ROOT / folder) - sys.stdlib_module_names - own:
        package = canonicalize_name(COMES_WITH.get(module) or PACKAGE_OF.get(module, module))
        assert package in declared("bake"), f"{folder}/ imports {module}, which pyproject.toml does not name"


def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["make", "--no-print-directory", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_gives_its_commands_absolute_folders():
    """JupyterLab's kernels work in notebooks/, where a relative path would be another folder."""
    variables = {"PATH": os.environ["PATH"], "HOME": "/home/me", "FACENB_DATA": "~/my data", "FACENB_RUNS": "runs"}
    lines = make("-np", "help", **variables).stdout.splitlines()
    assert "FACENB_DATA := /home/me/my data" in lines and f"FACENB_RUNS := {ROOT / 'runs'}" in lines


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize(
    ("version", "words", "says"),
    [("3.9.2", [], "make PYTHON="), ("3.14.0", ["PYTHON=python3"], "PYTHON=python3 is Python 3.14.0")],
)
def test_make_refuses_a_python_before_anything_is_made(tmp_path, version, words, says):
    """A machine whose Python is too old, or one that was chosen and is too new."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("bash", "sh", "grep", "sed", "touch", "make"):
        (tools / tool).symlink_to(shutil.which(tool))
    script = f'if [ "$1" = --version ]; then echo "Python {version}"; else exit 1; fi'
    (tools / "python3").write_text(f"#!{shutil.which('bash')}\n{script}\n")
    (tools / "python3").chmod(0o755)
    result = make("setup", f"VENV={tmp_path}/venv", *words, PATH=str(tools))
    assert result.returncode != 0 and not (tmp_path / "venv").exists()
    assert "needs Python 3.11, 3.12 or 3.13" in result.stderr and f"Python {version}" in result.stderr
    assert says in result.stderr
