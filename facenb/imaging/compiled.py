"""Compile kernels with numba, and cache the machine code in a folder that this user can write to."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from numba import config, njit

from data_download.folders import cache_folders


def compiled(**options) -> Callable:
    """Return a decorator that compiles a function without the GIL and caches its machine code."""
    return njit(cache=bool(config.CACHE_DIR), nogil=True, error_model="numpy", **options)


def _cache_folder() -> str:
    """Return NUMBA_CACHE_DIR, a folder next to the source, or a folder at home or among the temporary files.

    Only this user may write into it, because numba runs the code that it finds there. Return "" if there is none.
    """
    own = [folder.with_name(f"{folder.name}-numba") for folder in cache_folders()]
    for folder in (Path(config.CACHE_DIR or Path(__file__).parent / "__pycache__"), *own):
        with suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = folder.lstat()
            if os.access(folder, os.W_OK) and status.st_uid == os.getuid() and not status.st_mode & 0o022:
                return str(folder)
    return ""


config.CACHE_DIR = _cache_folder()
