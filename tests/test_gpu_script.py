"""`benchmarks/gpu.sh`: without a GPU it stops; with one it appends each measurement, the failed ones included."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks/gpu.sh"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_without_a_gpu_it_says_so_and_stops(tmp_path):
    done = subprocess.run(
        [SCRIPT, tmp_path / "page.md"], env=os.environ | {"PYTHON": sys.executable}, capture_output=True, text=True
    )
    assert done.returncode == 3 and "No GPU" in done.stdout and not (tmp_path / "page.md").exists()


def test_with_a_gpu_it_appends_under_its_name(tmp_path):
    """A stand-in for Python and make: names a GPU, prints a line for each script, fails for the teacher."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "python").write_text(
        '#!/bin/sh\n[ "$1" = -c ] && echo "A GPU" && exit\necho "ran $*"\n[ "$1" != benchmarks/teacher.py ]\n'
    )
    (tools / "make").write_text('#!/bin/sh\necho "made $*"\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    variables = os.environ | {"PYTHON": str(tools / "python"), "PATH": f"{tools}:{os.environ['PATH']}"}
    page = tmp_path / "page.md"
    page.write_text("before\n")
    subprocess.run([SCRIPT, page], env=variables, check=True, capture_output=True)
    text = page.read_text()
    assert text.startswith("before\n") and "## On a GPU: A GPU" in text
    for script in ("render", "fitting", "liu18_network"):
        assert f"ran benchmarks/{script}.py" in text
    assert text.count("It ended with exit code 1") == 1 and "made notebooks PROFILE=smoke DEVICE=cuda" in text


def test_it_takes_less_than_ten_minutes():
    limits = [int(line.split('"')[2].split()[0]) for line in SCRIPT.read_text().splitlines() if '    measure "' in line]
    assert len(limits) == 5 and sum(limits) < 600
