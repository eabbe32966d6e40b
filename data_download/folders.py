"""Folders of data and caches: the environment variables FACENB_DATA and FACENB_MIRROR, and the default folders."""

import errno
import getpass
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_download import AssetError, FacenbError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}


def environment_folder(variable: str) -> Path | None:
    """Return the folder that an environment variable names, or None if it is unset or empty.

    The variable is set to its absolute path, so that later calls and child processes use the same folder, whatever
    their working directory. Raise AssetError if `~` cannot be expanded.
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

    If the home folder cannot be used, return this user's folder in the system's temporary folder.
    """
    if folder := environment_folder("FACENB_DATA"):
        return folder
    cache = Path(os.path.expanduser("~/.cache/facenb"))  # "~" stays for a user id without a home folder
    usable = cache.is_absolute() and (cache.is_dir() or _can_write(cache))  # an existing one may be read-only
    return (cache if usable else cache_folders()[-1]) / "data"


def cache_folders() -> list[Path]:
    """Return this user's cache folders in the order in which to try them: at home, then among the temporary files."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    temporary = Path(tempfile.gettempdir()) / f"facenb-{os.getuid()}"
    return [home / "facenb", temporary] if home.is_absolute() else [temporary]


def mirror_folder() -> Path | None:
    """Return the mirror folder FACENB_MIRROR, or None if it is not set. Raise AssetError if it is not a folder."""
    folder = environment_folder("FACENB_MIRROR")
    if folder and not folder.is_dir():
        raise AssetError(f"FACENB_MIRROR is {folder}, which is not a folder. Correct the variable or unset it.")
    return folder


def ensure_home() -> None:
    """Set HOME, XDG_CACHE_HOME and LOGNAME if the user has no writable home folder or no user name.

    Jupyter, Snakemake and torch do not start otherwise. They then write their files to a temporary folder.
    """
    temporary = cache_folders()[-1]
    if not os.path.isabs(os.path.expanduser("~")):
        os.environ["HOME"] = str(temporary)
        temporary.mkdir(exist_ok=True)
    if not _can_write(Path.home() / ".cache"):
        os.environ.setdefault("XDG_CACHE_HOME", str(temporary))
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = str(os.getuid())


@contextmanager
def explained(folder: Path, kind: type[FacenbError], advice: str) -> Iterator[None]:
    """Convert the system's errors for a full disk or missing permission into `kind`; its message adds `advice`."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL | REFUSED:
            raise
        advice = f"Free some space. {advice}" if error.errno in FULL else advice
        raise kind(f"Cannot write to {folder}: {error.strerror} ({error.filename}). {advice}") from error


def _can_write(folder: Path) -> bool:
    """Return whether the folder is writable or can be created."""
    return os.access(next(path for path in (folder, *folder.parents) if path.exists()), os.W_OK)
