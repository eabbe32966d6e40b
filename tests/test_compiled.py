"""Kernels run from a checkout that nobody may write, for a user without a home."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

IMAGING = Path(__file__).resolve().parents[1] / "facenb" / "imaging"
SCRIPT = """
from numba import config
from facenb.imaging.raster_numba import _is_not_top_left
import facenb.imaging.render
print(config.CACHE_DIR, _is_not_top_left(0, 1))
"""


@pytest.mark.parametrize("temporary", [True, False])
def test_kernels_run_without_a_folder_beside_the_source_or_at_home(tmp_path, temporary):
    """Files stand where the folders should be: they stop root as well, who may write anywhere."""
    shutil.copytree(IMAGING.parent, tmp_path / "facenb", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("facenb/imaging/__pycache__", "home", "file"):
        (tmp_path / name).write_text("no folder")
    (tmp_path / "temporary").mkdir()
    environment = os.environ | {
        "HOME": str(tmp_path / "home"),
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{IMAGING.parents[1]}",
    }
    environment |= {"NUMBA_CACHE_DIR": str(tmp_path / "file"), "TMPDIR": str(tmp_path / "temporary")}
    environment.pop("XDG_CACHE_HOME", None)
    script = SCRIPT if temporary else f"import tempfile\ntempfile.tempdir = {str(tmp_path / 'file')!r}\n{SCRIPT}"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "1"
    cached = list((tmp_path / "temporary").rglob("*.nbi"))
    assert bool(cached) == temporary and not (tmp_path / "~").exists()
