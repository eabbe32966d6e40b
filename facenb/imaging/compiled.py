"""Compile kernels with numba, and keep their machine code in a folder that this user may write."""

import functools
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from numba import config, njit


def compiled(**options) -> Callable:
    """Return a decorator that compiles a function to run without the GIL, and keeps the machine code for later."""
    choose_cache_folder()
    options |= {"nogil": True, "error_model": "numpy"}

    def compile_one(function: Callable) -> Callable:
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:  # numba found no folder for its cache
            return njit(**options)(function)

    return compile_one


@functools.cache
def choose_cache_folder() -> None:
    """Point numba to a folder of our choice, unless NUMBA_CACHE_DIR or the folder beside the source can be written.

    The choice is the user's cache folder, else one among the temporary files. It must belong to this user alone, since
    numba runs what it finds there.
    """
    beside = Path(__file__).parent / "__pycache__"
    if _is_writable(Path(config.CACHE_DIR) if config.CACHE_DIR else beside):
        return
    home = Path(os.path.expanduser("~"))  # "~" itself where nobody knows the home folder
    candidates = [home / ".cache" / "numba"] if home.is_absolute() else []
    candidates.append(Path(tempfile.gettempdir()) / f"facenb-numba-{os.getuid()}")
    config.CACHE_DIR = next((str(folder) for folder in candidates if _is_writable(folder) and _is_private(folder)), "")


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def _is_private(folder: Path) -> bool:
    status = folder.lstat()
    return status.st_uid == os.getuid() and not status.st_mode & 0o022
