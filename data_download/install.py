"""Make an asset ready: fetch, check and unpack beside its folder, then rename, so that a folder is complete or absent.

The last file written is `.facenb.json`. Beside it, `manifest.sha256` lists every file in the form of `sha256sum -c`.
"""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pooch

from data_download.entries import Entry, File, Place, Source
from data_download.errors import AssetError, explained
from data_download.fetch import check, copy_from_mirror, download
from data_download.folders import data_folder, mirror_folder
from data_download.unpack import unpack

MARKER, MANIFEST = ".facenb.json", "manifest.sha256"


def _fingerprint(source: Source) -> str:
    files = [(f.source, f.target, f.sha256, f.md5, f.unpack) for f in source.files]
    return hashlib.sha256(json.dumps([source.is_mirror, files]).encode()).hexdigest()


def marker(entry: Entry) -> dict:
    """Return what the asset's folder records about itself. Empty if the folder is not complete."""
    try:
        return json.loads((data_folder() / entry.name / MARKER).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return {}


def is_ready(entry: Entry) -> bool:
    """Return whether the asset comes from a source that its entry still names, or was placed as the entry says."""
    if entry.needs_registration:
        return not placed_problems(entry)
    return marker(entry).get("fingerprint") in map(_fingerprint, entry.sources)


def ready_folder(entry: Entry) -> Path:
    """Return the asset's folder. Raise AssetError with the command that gets it if it is not ready."""
    folder = data_folder() / entry.name
    if is_ready(entry):
        return folder
    if entry.needs_registration:
        raise AssetError(
            f"{entry.title} is not in place: {'; '.join(placed_problems(entry))}. "
            f"`python -m data_download where {entry.name}` says where to ask for it and what to place."
        )
    raise AssetError(f"{entry.title} is not in {folder}. Get it with `python -m data_download get {entry.name}`.")


def placed_problems(entry: Entry) -> list[str]:
    """Return what is missing or wrong among the files that a person has to place."""
    return [problem for rule in entry.places for problem in _place_problems(rule, data_folder() / entry.name)]


def _place_problems(rule: Place, folder: Path) -> Iterator[str]:
    paths = [path for path in sorted(folder.glob(rule.path)) if path.is_file()]
    if len(paths) < rule.least:
        yield f"{folder / rule.path}: {len(paths)} of {rule.least} files are there ({rule.what})"
    starts = rule.starts.encode("latin-1")
    for path in paths:
        with path.open("rb") as file:
            begin = file.read(len(starts))
        if path.stat().st_size < rule.size_least:
            yield f"{path} has {path.stat().st_size} bytes, fewer than {rule.size_least}: it is not complete"
        elif begin != starts:
            yield f"{path} does not begin like {rule.what}: it is another kind of file"


def mirror_source(entry: Entry) -> Source | None:
    """Return the entry's source in the mirror folder, or None if the mirror does not have it."""
    mirror = mirror_folder()
    sources = [source for source in entry.sources if source.is_mirror and mirror]
    return next((source for source in sources if (mirror / source.base.removeprefix("mirror:")).is_dir()), None)


def usable_sources(entry: Entry) -> list[Source]:
    """Return the mirror alone if it has the asset, else the addresses on the web in order."""
    if mirror := mirror_source(entry):
        return [mirror]
    if sources := [source for source in entry.sources if not source.is_mirror]:
        return sources
    raise AssetError(
        f"No address on the web holds {entry.title} in the form that is used here. "
        "Set FACENB_MIRROR to a mirror folder that has it."
    )


def install(entry: Entry, again: bool = False, quiet: bool = False) -> Path:
    """Make the asset ready from its first usable source and return its folder. Do nothing if it is ready.

    Raise AssetError for a missing source, a wrong checksum, a damaged archive or a full disk. An older folder then
    stays as it was.
    """
    if entry.needs_registration or (is_ready(entry) and not again):
        return ready_folder(entry)
    root, sources = data_folder(), usable_sources(entry)
    with explained(root, AssetError, "FACENB_DATA names another folder for data."):
        root.mkdir(parents=True, exist_ok=True)
        with (root / f".{entry.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed
            if is_ready(entry) and not again:  # another process was faster
                return root / entry.name
            _clear_leftovers(entry, root)
            for source in sources:
                try:
                    _install_from(source, entry, root, quiet)
                    break
                except AssetError:
                    if source is sources[-1]:
                        raise
    return root / entry.name


def _clear_leftovers(entry: Entry, root: Path) -> None:
    """Remove what a killed process left. Bring back the old folder if the process was killed during the exchange."""
    for leftover in root.glob(f".{entry.name}.*.partial"):
        if (leftover / "old").is_dir() and not (root / entry.name).exists():
            os.rename(leftover / "old", root / entry.name)
        shutil.rmtree(leftover, ignore_errors=True)


def _install_from(source: Source, entry: Entry, root: Path, quiet: bool) -> None:
    with tempfile.TemporaryDirectory(
        prefix=f".{entry.name}.", suffix=".partial", dir=root, ignore_cleanup_errors=True
    ) as work:
        folder = Path(work, "folder")
        folder.mkdir()
        for file in source.files:
            _add(source, file, root / ".downloads", folder, quiet)
        for name, sha256 in (dict.fromkeys(entry.ready, "") | source.inside).items():
            path = next(folder.glob(f"**/{name}"), None)
            if path is None:
                raise AssetError(f"{source.base} does not hold {name}. It is another version than the entry describes.")
            check(path, File(name, name, sha256=sha256), f"{name} from {source.base}")
        _write_marker(entry, source, folder)
        _exchange(folder, root / entry.name)


def _add(source: Source, file: File, cache: Path, folder: Path, quiet: bool) -> None:
    """Get one file of a source, check it, and put it or its members into `folder`."""
    incoming, target = folder.with_name("incoming"), folder / file.target
    if source.is_mirror:
        copy_from_mirror(mirror_folder() / source.base.removeprefix("mirror:") / file.source, file, incoming)
    else:
        url = source.base + file.source
        incoming = cache / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}.{Path(url).name}.partial"
        download(url, file, incoming, quiet)
    if file.unpack:
        unpack(incoming, target, file.unpack, file.unpacked_limit)
        incoming.unlink()
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(incoming, target)


def _write_marker(entry: Entry, source: Source, folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{pooch.file_hash(str(path))}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / MANIFEST).write_text("".join(lines), encoding="utf-8", newline="\n")
    record = {"asset": entry.name, "source": source.base, "holds": source.holds}
    record |= {"manifest": pooch.file_hash(str(folder / MANIFEST)), "fingerprint": _fingerprint(source)}
    with (folder / MARKER).open("w", encoding="utf-8") as file:
        json.dump(record, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def _exchange(new: Path, folder: Path) -> None:
    """Replace `folder` by the complete new one. The old folder is removed with the rest of the work."""
    old = new.with_name("old")
    if folder.exists():
        if not (folder / MARKER).is_file() and any(folder.iterdir()):
            raise AssetError(f"{folder} holds files that data_download did not write. Move them to another folder.")
        os.rename(folder, old)
    try:
        os.rename(new, folder)
    except OSError:
        if old.exists():
            os.rename(old, folder)
        raise


def verify(entry: Entry) -> list[str]:
    """Return what is wrong with the asset on this machine. An empty list means that every file has its checksum."""
    if entry.needs_registration:
        return placed_problems(entry)
    folder = data_folder() / entry.name
    if not is_ready(entry):
        return [f"{folder} is missing, not complete, or from an entry that has changed since"]
    manifest = folder / MANIFEST
    if not manifest.is_file() or pooch.file_hash(str(manifest)) != marker(entry)["manifest"]:
        return [f"{manifest} is missing or was changed"]
    problems = []
    for line in manifest.read_text(encoding="utf-8").splitlines():
        sha256, _, name = line.partition("  ")
        try:
            check(folder / name, File(name, name, sha256=sha256), str(folder / name))
        except AssetError as error:
            problems.append(str(error))
        except OSError:
            problems.append(f"{folder / name} is missing")
    return problems
