"""Make an asset ready: fetch, check and unpack beside its folder, then rename, so that a folder is complete or absent.

The last file written is `.facenb.json`. Beside it, `manifest.sha256` lists every file in the form of `sha256sum -c`.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from pathlib import Path

import pooch

from data_download import AssetError
from data_download.entries import Entry, File, Source
from data_download.fetch import check, download, unpack
from data_download.folders import data_folder, explained, mirror_folder

MARKER, MANIFEST = ".facenb.json", "manifest.sha256"


def _fingerprint(source: Source) -> str:
    files = [(f.source, f.target, f.sha256, f.md5, f.unpack) for f in source.files]
    return hashlib.sha256(json.dumps([source.is_mirror, files]).encode()).hexdigest()


def marker(entry: Entry) -> dict:
    """Return what the asset's folder records about itself.

    Empty if the folder is not complete, or comes from a source that its entry no longer names.
    """
    try:
        record = json.loads((data_folder() / entry.name / MARKER).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return {}
    return record if record["fingerprint"] in map(_fingerprint, entry.sources) else {}


def problems(entry: Entry) -> list[str]:
    """Return what is missing or wrong with the asset at first sight. An empty list means that it is ready."""
    folder, wrong = data_folder() / entry.name, []
    if not (entry.places or marker(entry)):
        wrong.append(f"{folder} is missing, not complete, or from an entry that has changed since")
    for place in entry.places:
        paths = [path for path in sorted(folder.glob(place.path)) if path.is_file()]
        if len(paths) < place.least:
            wrong.append(f"{folder / place.path}: {len(paths)} of {place.least} files are there ({place.what})")
        for path in paths:
            with path.open("rb") as file:
                begin = file.read(len(place.starts)).decode("latin-1")
            if path.stat().st_size < place.size_least:
                wrong.append(f"{path} has {path.stat().st_size} bytes, fewer than {place.size_least}")
            elif begin != place.starts:
                wrong.append(f"{path} does not begin like {place.what}: it is another kind of file")
    return wrong


def ready_folder(entry: Entry) -> Path:
    """Return the asset's folder. Raise AssetError with what is wrong and the command to run if it is not ready."""
    if wrong := problems(entry):
        command = f"where {entry.name}` says whom to ask" if entry.places else f"get {entry.name}` gets it"
        raise AssetError(f"{entry.title} is not ready: {'; '.join(wrong)}. `python -m data_download {command}.")
    return data_folder() / entry.name


def usable_sources(entry: Entry) -> list[Source]:
    """Return the mirror alone if the mirror folder has the asset, else the addresses on the web in order."""
    mirror = mirror_folder()
    for source in entry.sources:
        if source.is_mirror and mirror and (mirror / source.base.removeprefix("mirror:")).is_dir():
            return [source]
    return [source for source in entry.sources if not source.is_mirror]


def install(entry: Entry, again: bool = False) -> Path:
    """Make the asset ready from its first usable source and return its folder. Do nothing if it is ready.

    Raise AssetError for a missing source, a wrong checksum, a damaged archive or a full disk. An older folder then
    stays as it was.
    """
    if entry.places or not (again or problems(entry)):
        return ready_folder(entry)
    root, sources = data_folder(), usable_sources(entry)
    if not sources:
        raise AssetError(f"No address holds {entry.title}. Set FACENB_MIRROR to a mirror folder that has it.")
    with explained(root, AssetError, "FACENB_DATA names another folder for data."):
        root.mkdir(parents=True, exist_ok=True)
        with (root / f".{entry.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed
            if not (again or problems(entry)):  # another process was faster
                return root / entry.name
            for leftover in root.glob(f".{entry.name}.*.partial"):  # of a process that was killed
                shutil.rmtree(leftover, ignore_errors=True)
            for source in sources[:-1]:
                with contextlib.suppress(AssetError):
                    return _install_from(source, entry, root)
            return _install_from(sources[-1], entry, root)


def _install_from(source: Source, entry: Entry, root: Path) -> Path:
    folder = root / entry.name
    with tempfile.TemporaryDirectory(
        prefix=f".{entry.name}.", suffix=".partial", dir=root, ignore_cleanup_errors=True
    ) as work:
        new = Path(work, "new")
        new.mkdir()
        for file in source.files:
            _add(source, file, root / ".downloads", new)
        manifest = _manifest(new)
        for name, sha256 in source.inside.items():
            if not re.search(f"^{sha256}  .*{re.escape(name)}$", manifest, re.MULTILINE):
                raise AssetError(f"{source.base} holds no {name} with the sha256 {sha256}. It is another version.")
        (new / MANIFEST).write_text(manifest, encoding="utf-8", newline="\n")
        record = {"asset": entry.name, "source": source.base, "holds": source.holds}
        record |= {"manifest": pooch.file_hash(str(new / MANIFEST)), "fingerprint": _fingerprint(source)}
        (new / MARKER).write_text(json.dumps(record, indent=1), encoding="utf-8")
        if folder.exists():
            if not (folder / MARKER).is_file() and any(folder.iterdir()):
                raise AssetError(f"{folder} holds files that data_download did not write. Move them to another folder.")
            os.rename(folder, new.with_name("old"))  # removed with the rest of the work
        os.rename(new, folder)
    return folder


def _add(source: Source, file: File, cache: Path, folder: Path) -> None:
    """Get one file of a source, check it, and put it or its members into `folder`."""
    address, target = source.base + file.source, folder / file.target
    if source.is_mirror:
        path = mirror_folder() / address.removeprefix("mirror:")
        if not path.is_file():
            raise AssetError(f"The mirror has no file {path}. Use a complete mirror folder, or unset FACENB_MIRROR.")
        check(path, str(path), file.sha256, file.md5)
    else:
        path = cache / f"{hashlib.sha256(address.encode()).hexdigest()[:16]}.{Path(address).name}.partial"
        download(address, file, path)
    if file.unpack:
        unpack(path, target, file)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    if not source.is_mirror:
        path.unlink()


def _manifest(folder: Path) -> str:
    """Return a line for each file of the asset, in the form of `sha256sum`."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in (MARKER, MANIFEST))
    return "".join(f"{pooch.file_hash(str(path))}  {path.relative_to(folder).as_posix()}\n" for path in paths)


def verify(entry: Entry) -> list[str]:
    """Return what is wrong with the asset on this machine. An empty list means that every file has its checksum."""
    if entry.places or problems(entry):
        return problems(entry)
    folder = data_folder() / entry.name
    manifest = folder / MANIFEST
    if not manifest.is_file() or pooch.file_hash(str(manifest)) != marker(entry)["manifest"]:
        return [f"{manifest} is missing or was changed"]
    lines = set(manifest.read_text(encoding="utf-8").splitlines()) - set(_manifest(folder).splitlines())
    return [f"{folder / line.split('  ', 1)[1]} is missing or was changed" for line in sorted(lines)]
