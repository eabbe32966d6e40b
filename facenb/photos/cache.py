"""Folders for results that can be made again: a data folder that may only be read is no reason to stop."""

import os
import tempfile
from pathlib import Path

from data_download.folders import data_folder


def cache_folders(name: str) -> list[Path]:
    """Return the folders in which cached results called `name` may lie, in the order in which to look.

    The first is in the data folder, where a class may share it. The others are in the user's own cache folder (unless
    the user has no home) and in the temporary folder.
    """
    folders = [data_folder() / ".cache"]
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if os.path.isabs(home):
        folders.append(Path(home) / "facenb")
    folders.append(Path(tempfile.gettempdir()) / f"facenb-{os.getuid()}")
    return [folder / name for folder in folders]


def writable_folder(name: str) -> Path:
    """Return the first of `cache_folders` that can be written to, made if it is not there; else the last."""
    *_, last = folders = cache_folders(name)
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    return last
