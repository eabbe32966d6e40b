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
FILE, FOLDER, OTHER = "file", "folder", "link or device"


def _tar_kind(member: tarfile.TarInfo) -> str:
    return FILE if member.isreg() else FOLDER if member.isdir() else OTHER


def _zip_kind(member: zipfile.ZipInfo) -> str:
    kind = (member.external_attr >> 16) & 0o170000  # Unix file type; zero from other systems
    return OTHER if kind not in (0, 0o040000, 0o100000) else FOLDER if member.is_dir() else FILE


def _check(archive: Path, members: list[tuple[str, str, int]], limit: int) -> None:
    """Raise AssetError unless all members (name, kind, bytes) may be unpacked."""
    files = [PurePosixPath(name) for name, kind, _ in members if kind == FILE]
    problems = [f"{name!r}, a {kind}" for name, kind, _ in members if kind == OTHER]
    problems += [
        f"{name!r}, a path outside its folder"
        for name, *_ in members
        if name.startswith("/") or ".." in name.split("/") or re.search(r"\\|\0|^[A-Za-z]:", name)
    ]
    if len(set(files)) < len(files):
        problems.append("a file twice")
    if sum(size for *_, size in members) > limit:
        problems.append(f"more than {limit} bytes")
    if problems:
        raise AssetError(f"{archive} holds {problems[0]}. It was not unpacked.")
    if not files:
        raise AssetError(f"{archive} is empty. Get it again.")


def unpack(archive: Path, folder: Path, kind: str, limit: int) -> None:
    """Unpack a tar (also .gz, .bz2, .xz) or zip archive of at most `limit` bytes into `folder`.

    Raise AssetError for a damaged or empty archive, a path outside the folder, a link, a device, a file that occurs
    twice, or too much data.
    """
    try:
        if kind == "zip":
            with zipfile.ZipFile(archive) as packed:
                _check(archive, [(m.filename, _zip_kind(m), m.file_size) for m in packed.infolist()], limit)
                packed.extractall(folder)  # reads no more of a member than the size it declares
        else:
            with tarfile.open(archive) as packed:
                _check(archive, [(m.name, _tar_kind(m), m.size) for m in packed], limit)
                packed.extractall(folder, filter="data")
    except DAMAGED as error:
        raise AssetError(f"{archive} is a damaged {kind} archive ({error}). Get it again.") from error
