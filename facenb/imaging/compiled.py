"""Compile kernels with numba, and cache the machine code in a folder that this user can write to."""

import functools
import os
from collections.abc import Callable
from pathlib import Path

from numba import config, njit

from data_download.folders import cache_folders


def compiled(**options) -> Callable:
    """Return a decorator that compiles a function without the GIL and caches its machine code."""
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
    """Set numba's cache folder, unless NUMBA_CACHE_DIR is set or the folder of the source can be written.

    Only this user may have access to it, because numba runs the code that it finds there.
    """
    first = Path(config.CACHE_DIR) if config.CACHE_DIR else Path(__file__).parent / "__pycache__"
    if not _is_writable(first):
        folders = [folder.with_name(f"{folder.name}-numba") for folder in cache_folders()]
        config.CACHE_DIR = next((str(folder) for folder in folders if _is_writable(folder) and _is_private(folder)), "")


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _is_private(folder: Path) -> bool:
    status = folder.lstat()
    return status.st_uid == os.getuid() and not status.st_mode & 0o022
