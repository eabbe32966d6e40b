"""Results that can be made again, kept in a cache: a data folder that may only be read is no reason to stop."""

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from torch import Tensor

from data_download.folders import data_folder
from facenb import savefile
from facenb.errors import ModelFileError


def cache_folders() -> list[Path]:
    """Return the cache folders in the order in which they are tried.

    The first is in the data folder, where a class may share it. The others are in the user's own cache folder (unless
    the user has no home) and in the temporary folder.
    """
    folders = [data_folder() / ".cache"]
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if os.path.isabs(home):
        folders.append(Path(home) / "facenb")
    return [*folders, Path(tempfile.gettempdir()) / f"facenb-{os.getuid()}"]


def kept(name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the tensors called `name` from a cache folder; otherwise make them, and keep them if a folder takes them.

    A damaged file is made again. `name` must hold all that the tensors depend on.
    """
    files = [folder / f"{name}.safetensors" for folder in cache_folders()]
    for file in files:
        with suppress(ModelFileError):
            return savefile.load(file, "cache")[0]
    tensors = make()
    for file in files:
        with suppress(ModelFileError):
            savefile.save(file, "cache", tensors, {})
            break
    return tensors
