"""Folders for results that can be made again: never a reason to stop where the data folder is read-only."""

import os
import tempfile
from pathlib import Path

from data_download.folders import data_folder


def cache_folders(name: str) -> list[Path]:
    """Return the folders in which cached results called `name` may lie, in the order in which to look.

    The first is in the data folder, where a class may share it. The others are in the user's own cache folder, and in
    the temporary folder for a user without a home.
    """
    bases = [data_folder() / ".cache"]
    try:
        bases.append(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "facenb")
    except RuntimeError:  # this user id has no home
        pass
    bases.append(Path(tempfile.gettempdir()) / f"facenb-{os.getuid()}")
    return [base / name for base in bases]


def writable_folder(name: str) -> Path | None:
    """Return the first of `cache_folders` that can be written to, made if it is not there; None if there is none."""
    for folder in cache_folders(name):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    return None
