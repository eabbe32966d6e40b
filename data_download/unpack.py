"""Unpack archives that may be hostile: nothing outside the folder, no links or devices, a limit on the size."""

import lzma
import re
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from data_download.errors import AssetError

DAMAGED = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, NotImplementedError)
DAMAGED += (RuntimeError, FileExistsError, NotADirectoryError)  # encrypted; a file where a folder should be
OUTSIDE = re.compile(r"^/|^[A-Za-z]:|\\|\0|(^|/)\.\.(/|$)")  # names that leave the folder on some system
UNIX_TYPES = (0, 0o040000, 0o100000)  # of a zip's member: from another system, a folder, a file


def _check(archive: Path, members: list[tuple[str, bool, int]], limit: int) -> None:
    """Raise AssetError unless all members (name, whether it is a file or folder, bytes) may be unpacked."""
    names = [PurePosixPath(name) for name, *_ in members if not name.endswith("/")]
    problems = [f"{name!r}, a link or device" for name, plain, _ in members if not plain]
    problems += [f"{name!r}, a path outside its folder" for name, *_ in members if OUTSIDE.search(name)]
    problems += ["a file twice"] if len(set(names)) < len(names) else []
    problems += [f"more than {limit} bytes"] if sum(size for *_, size in members) > limit else []
    problems += [] if names else ["no file"]
    if problems:
        raise AssetError(f"{archive} holds {problems[0]}. It was not unpacked.")


def unpack(archive: Path, folder: Path, kind: str, limit: int) -> None:
    """Unpack a tar (also .gz, .bz2, .xz) or zip archive of at most `limit` bytes into `folder`.

    Raise AssetError for a damaged or empty archive, a path outside the folder, a link, a device, a file that occurs
    twice, or too much data.
    """
    try:
        if kind == "zip":
            with zipfile.ZipFile(archive) as packed:
                rows = [(m.filename, m.external_attr >> 16 & 0o170000, m.file_size) for m in packed.infolist()]
                _check(archive, [(name, unix in UNIX_TYPES, size) for name, unix, size in rows], limit)
                packed.extractall(folder)  # reads no more of a member than the size it declares
        else:
            with tarfile.open(archive) as packed:
                # A folder's name gets a slash, as in a zip.
                rows = [(m.name + "/" * m.isdir(), m.isreg() or m.isdir(), m.size) for m in packed]
                _check(archive, rows, limit)
                packed.extractall(folder, filter="data")
    except DAMAGED as error:
        raise AssetError(f"{archive} is a damaged {kind} archive ({error}). Get it again.") from error
