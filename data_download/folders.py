"""Where data lies: the environment variables FACENB_DATA and FACENB_MIRROR, and what holds where they are not set."""

import getpass
import os
import tempfile
from pathlib import Path

from data_download.errors import AssetError


def environment_folder(variable: str) -> Path | None:
    """Return the folder that an environment variable names, or None if it is unset or empty.

    `~` is expanded and a relative path is made absolute. The variable is set to the result, so that later calls and
    child processes use the same folder, whatever their working directory. Raise AssetError if `~` cannot be expanded.
    """
    value = os.environ.get(variable)
    if not value:
        return None
    try:
        folder = Path(value).expanduser().absolute()
    except RuntimeError as error:
        raise AssetError(f"{variable} is {value}, but there is no such home folder. Use an absolute path.") from error
    os.environ[variable] = str(folder)
    return folder


def data_folder() -> Path:
    """Return the folder of all data: FACENB_DATA, or `.cache/facenb/data` in the home folder.

    Without a home folder that can be used, it is a folder of this user among the temporary files.
    """
    if folder := environment_folder("FACENB_DATA"):
        return folder
    try:
        cache = Path.home() / ".cache/facenb"
    except RuntimeError:  # a user id without a home folder
        cache = _temporary_folder()
    usable = cache.is_dir() or _can_write(cache)  # a folder that is there may be read-only
    return (cache if usable else _temporary_folder()) / "data"


def _can_write(folder: Path) -> bool:
    """Return whether files can be written into the folder, or it can be made."""
    return os.access(next(path for path in (folder, *folder.parents) if path.exists()), os.W_OK)


def _temporary_folder() -> Path:
    return Path(tempfile.gettempdir()) / f"facenb-{os.getuid()}"


def ensure_home() -> None:
    """Set HOME, XDG_CACHE_HOME and LOGNAME for a user id without a home folder that can be written, or without a name.

    Jupyter, Snakemake and torch do not start otherwise. What they keep goes into a temporary folder.
    """
    try:
        home = Path.home()
    except RuntimeError:
        home = _temporary_folder()
        home.mkdir(exist_ok=True)
        os.environ["HOME"] = str(home)
    if not _can_write(home / ".cache"):
        os.environ.setdefault("XDG_CACHE_HOME", str(_temporary_folder()))
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = str(os.getuid())


def mirror_folder() -> Path | None:
    """Return the mirror folder FACENB_MIRROR, or None if it is not set. Raise AssetError if it is not a folder."""
    folder = environment_folder("FACENB_MIRROR")
    if folder and not folder.is_dir():
        raise AssetError(f"FACENB_MIRROR is {folder}, which is not a folder. Correct the variable or unset it.")
    return folder
