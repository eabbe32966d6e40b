"""Unpacking archives that may be hostile: nothing outside the folder, no links, no devices, no bombs."""

import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from facenb.errors import AssetError

MEMBERS = 500_000
BROKEN = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, NotImplementedError, RuntimeError)


def safe_path(folder: Path, name: str, archive: Path) -> Path:
    """Where a member goes inside `folder`. Raises AssetError for one that would go elsewhere."""
    parts = PurePosixPath(name).parts
    absolute = name.startswith(("/", "\\")) or re.match(r"^[A-Za-z]:", name)
    if absolute or "\\" in name or "\0" in name or ".." in parts:
        raise AssetError(f"{archive} holds {name!r}, a path outside its folder; nothing of it was kept")
    target = folder.joinpath(*parts)
    if not target.resolve().is_relative_to(folder.resolve()):
        raise AssetError(f"{archive} holds {name!r}, a path outside its folder; nothing of it was kept")
    return target


def _tar_members(archive: Path) -> Iterator[tuple[str, bool, IO[bytes] | None]]:
    with tarfile.open(archive, "r:*") as tar:
        for member in tar:
            if not (member.isreg() or member.isdir()):
                kind = "a link" if member.issym() or member.islnk() else "a device or another special file"
                raise AssetError(f"{archive} holds {member.name!r}, which is {kind}; nothing of it was kept")
            yield member.name, member.isdir(), None if member.isdir() else tar.extractfile(member)


def _zip_members(archive: Path) -> Iterator[tuple[str, bool, IO[bytes] | None]]:
    with zipfile.ZipFile(archive) as packed:
        for member in packed.infolist():
            mode = member.external_attr >> 16  # Unix file type, zero where the archive was made elsewhere
            if mode & 0o170000 not in (0, 0o040000, 0o100000):
                raise AssetError(f"{archive} holds {member.filename!r}, a link or a device; nothing of it was kept")
            if member.is_dir():
                yield member.filename, True, None
                continue
            with packed.open(member) as reader:
                yield member.filename, False, reader


def unpack(archive: Path, folder: Path, kind: str, limit: int) -> list[Path]:
    """Unpack a tar (also .gz, .bz2, .xz) or zip into `folder`; returns the files.

    `limit` is the most bytes it may hold, counted while they are written, not as the archive claims. Raises AssetError
    for a damaged archive, a member outside the folder, a link, a device, the same file twice, or too much.
    """
    members = {"tar": _tar_members, "zip": _zip_members}.get(kind)
    if members is None:
        raise AssetError(f"{archive}: cannot unpack the kind {kind!r}; there are tar and zip")
    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    written = 0
    try:
        for count, (name, is_folder, reader) in enumerate(members(archive)):
            if count >= MEMBERS:
                raise AssetError(f"{archive} holds more than {MEMBERS} files; nothing of it was kept")
            target = safe_path(folder, name, archive)
            if is_folder:
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as writer:
                while block := reader.read(1 << 20):
                    written += len(block)
                    if written > limit:
                        raise AssetError(f"{archive} unpacks to more than {limit} bytes; nothing of it was kept")
                    writer.write(block)
            files.append(target)
    except FileExistsError as error:
        raise AssetError(f"{archive} holds {name!r} twice; nothing of it was kept") from error
    except BROKEN as error:
        raise AssetError(f"{archive} is a damaged {kind} archive ({error}); get it again") from error
    if not files:
        raise AssetError(f"{archive} is an empty {kind} archive; get it again")
    return files
