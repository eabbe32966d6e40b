"""Making an asset ready: fetched, checked, unpacked beside, then renamed, so that a folder is whole or absent.

The last file written is `.facenb.json`; beside it `manifest.sha256` lists every file as `sha256sum -c` reads it.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from data_download.entries import Entry, File, Source
from data_download.fetch import check, copy_from_mirror, download
from data_download.unpack import unpack
from facenb.errors import AssetError
from facenb.files import digest

MARKER, MANIFEST = ".facenb.json", "manifest.sha256"


def data_folder() -> Path:
    """FACENB_DATA, or `~/.cache/facenb/data`."""
    return Path(os.environ.get("FACENB_DATA") or Path.home() / ".cache" / "facenb" / "data")


def mirror_folder() -> Path | None:
    """FACENB_MIRROR; None if it is not set. Raises AssetError if it names no folder."""
    value = os.environ.get("FACENB_MIRROR")
    if value and not Path(value).is_dir():
        raise AssetError(f"FACENB_MIRROR is {value}, which is no folder; correct it or unset it")
    return Path(value) if value else None


def _fingerprint(source: Source) -> str:
    files = [(f.source, f.target, f.sha256, f.md5, f.unpack) for f in source.files]
    return hashlib.sha256(json.dumps([source.base.split(":")[0] == "mirror", files]).encode()).hexdigest()


def marker(entry: Entry) -> dict | None:
    """What the ready folder says of itself; None if there is no folder that looks whole."""
    try:
        return json.loads((data_folder() / entry.name / MARKER).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None


def is_ready(entry: Entry) -> bool:
    """Was the asset made ready from one of the sources that its entry names today, or placed as it says?"""
    if entry.needs_registration:
        return not placed_problems(entry)
    found = marker(entry)
    return found is not None and found.get("fingerprint") in {_fingerprint(source) for source in entry.sources}


def ready_folder(entry: Entry) -> Path:
    """The asset's folder. Raises AssetError saying how to get it."""
    folder = data_folder() / entry.name
    if is_ready(entry):
        return folder
    if entry.needs_registration:
        problems = "; ".join(placed_problems(entry))
        raise AssetError(f"{entry.title} is not in place: {problems}. `python -m data_download where {entry.name}` "
                         "says where to ask for it and what to place")  # fmt: skip
    raise AssetError(f"{entry.title} is not in {folder}; get it with `python -m data_download get {entry.name}`")


def placed_problems(entry: Entry) -> list[str]:
    """What is missing or wrong among the files a person has to place by hand."""
    folder, problems = data_folder() / entry.name, []
    for place in entry.places:
        found = [path for path in sorted(folder.glob(place.path)) if path.is_file()] if folder.is_dir() else []
        if len(found) < place.least:
            problems.append(f"{folder / place.path}: {len(found)} of {place.least} there ({place.what})")
        for path in found:
            if path.stat().st_size < place.size_least:
                problems.append(f"{path} has {path.stat().st_size} bytes, fewer than {place.size_least}: not whole")
            elif place.starts:
                with path.open("rb") as file:
                    if file.read(len(place.starts)) != place.starts:
                        problems.append(f"{path} does not begin as {place.what} does: another kind of file")
    return problems


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """A full disk or a folder without permission as an AssetError that names the folder."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise AssetError(f"no space left under {folder}; free some or set FACENB_DATA to another disk") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise AssetError(f"cannot write under {folder} ({error.strerror}: {error.filename}); "
                             "set FACENB_DATA to a folder you may write to") from error  # fmt: skip
        raise


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Only one process at a time; where the system has no file locks, unique names and the rename still hold."""
    with path.open("a") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        except ImportError:
            pass
        yield


def _obtain(source: Source, file: File, cache: Path, work: Path, quiet: bool) -> Path:
    """The checked file at a temporary place."""
    if source.is_mirror:
        target = work / "incoming"
        copy_from_mirror(mirror_folder(), source.base.removeprefix("mirror:") + file.source, file, target)
        return target
    url = source.base + file.source
    partial = cache / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}.{Path(file.source).name}.partial"
    download(url, file, partial, quiet)
    return partial


def _write_marker(entry: Entry, source: Source, folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{digest(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / MANIFEST).write_text("".join(lines), encoding="utf-8", newline="\n")
    text = {"asset": entry.name, "source": source.base, "holds": source.holds, "files": len(files),
            "manifest": digest(folder / MANIFEST), "fingerprint": _fingerprint(source)}  # fmt: skip
    with (folder / MARKER).open("w", encoding="utf-8") as file:
        json.dump(text, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def _check_unpublished(source: Source, accept: bool) -> None:
    unknown = [file.source for file in source.files if not (file.sha256 or file.md5)]
    if unknown and not accept:
        raise AssetError(f"no checksum is known for {source.base}{unknown[0]}; if you trust the address, say so with "
                         "--accept-unverified: its checksum is then recorded")  # fmt: skip


def usable_sources(entry: Entry) -> list[Source]:
    """The mirror alone where it is set and has the asset's folder, else the addresses on the web in order."""
    mirror = mirror_folder()
    for source in entry.sources:
        if source.is_mirror and mirror and (mirror / source.base.removeprefix("mirror:")).is_dir():
            return [source]
    web = [source for source in entry.sources if not source.is_mirror]
    if not web:
        raise AssetError(f"{entry.title} has no address on the web that holds it as it is used here, and FACENB_MIRROR "
                         "is not set to a mirror folder that has it")  # fmt: skip
    return web


def install(entry: Entry, again: bool = False, accept_unverified: bool = False, quiet: bool = False) -> Path:
    """Make the asset ready from its first usable source and return its folder; nothing happens where it is ready.

    Raises AssetError: no source, a wrong checksum, a damaged archive, a full disk; then the old folder, if there was
    one, is as it was.
    """
    if entry.needs_registration or (is_ready(entry) and not again):
        return ready_folder(entry)
    root = data_folder()
    sources = usable_sources(entry)
    for source in sources:
        _check_unpublished(source, accept_unverified)
    with _explained(root):
        root.mkdir(parents=True, exist_ok=True)
        with _lock(root / f".{entry.name}.lock"):
            if is_ready(entry) and not again:  # another process was faster
                return root / entry.name
            _clear_leftovers(entry, root)
            for source in sources:
                try:
                    _install_from(source, entry, root, quiet)
                    break
                except AssetError:  # the next address may do; the last one's error is the one to see
                    if source is sources[-1]:
                        raise
    return root / entry.name


def _install_from(source: Source, entry: Entry, root: Path, quiet: bool) -> None:
    work = Path(tempfile.mkdtemp(prefix=f".{entry.name}.", suffix=".partial", dir=root))
    try:
        _assemble(entry, source, root / ".downloads", work, quiet)
        _swap(work / "folder", root / entry.name)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _clear_leftovers(entry: Entry, root: Path) -> None:
    """Remove what a killed process left; if it was killed amid the exchange, the old folder comes back."""
    for leftover in root.glob(f".{entry.name}.*.partial"):
        if (leftover / "old").is_dir() and not (root / entry.name).exists():
            os.rename(leftover / "old", root / entry.name)
        shutil.rmtree(leftover, ignore_errors=True)


def _assemble(entry: Entry, source: Source, cache: Path, work: Path, quiet: bool) -> None:
    folder = work / "folder"
    folder.mkdir()
    for file in source.files:
        incoming = _obtain(source, file, cache, work, quiet)
        if file.unpack:
            unpack(incoming, folder / file.target, file.unpack, file.unpacked_limit)
            incoming.unlink()
        else:
            (folder / file.target).parent.mkdir(parents=True, exist_ok=True)
            os.replace(incoming, folder / file.target)
    missing = [path for path in entry.ready if not (folder / path).exists()]
    if missing:
        raise AssetError(f"{source.base} came without {missing[0]}; it is another version than the entry describes")
    _write_marker(entry, source, folder)


def _swap(new: Path, folder: Path) -> None:
    """Put the whole new folder in the old one's place; the old one is gone only after that."""
    old = new.with_name("old")
    if folder.exists():
        if not (folder / MARKER).is_file() and any(folder.iterdir()):
            raise AssetError(f"{folder} holds files that were not put there by data_download; move them away first")
        os.rename(folder, old)
    try:
        os.rename(new, folder)
    except OSError:
        if old.exists():
            os.rename(old, folder)
        raise


def verify(entry: Entry) -> list[str]:
    """What is wrong with the asset on this machine, a line each; empty: all files are as they were checked."""
    if entry.needs_registration:
        return placed_problems(entry)
    folder, found = data_folder() / entry.name, marker(entry)
    if found is None or not is_ready(entry):
        return [f"{folder} is not there, not whole, or from an entry that has changed since"]
    manifest = folder / MANIFEST
    if not manifest.is_file() or digest(manifest) != found["manifest"]:
        return [f"{manifest} is missing or was changed"]
    problems = []
    for line in manifest.read_text(encoding="utf-8").splitlines():
        expected, _, name = line.partition("  ")
        try:
            check(folder / name, File(name, name, None, expected, "", "", 0), str(folder / name))
        except AssetError as error:
            problems.append(str(error))
        except OSError:
            problems.append(f"{folder / name} is missing")
    return problems
