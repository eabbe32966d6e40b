"""Install an asset: fetch, check and unpack it elsewhere, then rename, so that its folder is complete or absent.

The last file written is `.facenb.json`. Beside it, `manifest.sha256` lists every file in the form of `sha256sum -c`.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

import pooch
import requests

from data_download import AssetError
from data_download.entries import Entry, File, Source
from data_download.folders import data_folder, explained, mirror_folder

MARKER, MANIFEST = ".facenb.json", "manifest.sha256"
ATTEMPTS = 4  # for one file


def _fingerprint(source: Source) -> str:
    files = [(f.source, f.target, f.sha256, f.md5, f.unpack) for f in source.files]
    return hashlib.sha256(json.dumps([source.is_mirror, files]).encode()).hexdigest()


def marker(entry: Entry) -> dict:
    """Return the record in the asset's folder. It is empty if the asset is incomplete or its entry has changed."""
    try:
        record = json.loads((data_folder() / entry.name / MARKER).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return {}
    return record if record["fingerprint"] in map(_fingerprint, entry.sources) else {}


def problems(entry: Entry) -> list[str]:
    """Return the problems that a quick check of the asset finds. An empty list means that it is ready."""
    folder, faults = data_folder() / entry.name, []
    if not (entry.places or marker(entry)):
        faults.append(f"{folder} is missing, not complete, or from an entry that has changed since")
    for rule in entry.places:
        paths = [path for path in sorted(folder.glob(rule.path)) if path.is_file()]
        if len(paths) < rule.least:
            faults.append(f"{folder / rule.path}: {len(paths)} of {rule.least} files are there ({rule.what})")
        small = [path for path in paths if path.stat().st_size < rule.size_least]
        faults += [f"{path} has fewer than {rule.size_least} bytes, so it is not {rule.what}" for path in small]
    return faults


def ready_folder(entry: Entry) -> Path:
    """Return the asset's folder. If it is not ready, raise AssetError with the problems and the command to run."""
    if faults := problems(entry):
        command = f"where {entry.name}` says whom to ask" if entry.places else f"get {entry.name}` gets it"
        raise AssetError(f"{entry.title} is not ready: {'; '.join(faults)}. `python -m data_download {command}.")
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

    If a source is missing, a checksum is wrong or the disk is full, raise AssetError and keep an older folder.
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
    with tempfile.TemporaryDirectory(".partial", f".{entry.name}.", root, ignore_cleanup_errors=True) as work:
        new, old = Path(work, "new"), Path(work, "old")
        new.mkdir()
        for file in source.files:
            _add(source, file, root / ".downloads", new)
        manifest = _manifest(new)
        for name, sha256 in source.inside.items():
            if not any(line.startswith(sha256) and line.endswith(name) for line in manifest.splitlines()):
                raise AssetError(f"{source.base} holds no {name} with the sha256 {sha256}. It is another version.")
        (new / MANIFEST).write_text(manifest, encoding="utf-8", newline="\n")
        record = {"source": source.base, "holds": source.holds}
        record |= {"manifest": pooch.file_hash(str(new / MANIFEST)), "fingerprint": _fingerprint(source)}
        (new / MARKER).write_text(json.dumps(record, indent=1), encoding="utf-8")
        if folder.exists():
            if not (folder / MARKER).is_file() and any(folder.iterdir()):
                raise AssetError(f"{folder} holds files that data_download did not write. Move them to another folder.")
            os.rename(folder, old)  # removed with the temporary folder
        try:
            os.rename(new, folder)
        except OSError:
            if old.exists():
                os.rename(old, folder)
            raise
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


def check(path: Path, name: str, sha256: str, md5: str = "") -> None:
    """Raise AssetError unless the file has all checksums that are not empty. The message calls the file `name`."""
    for kind, expected in (("sha256", sha256), ("md5", md5)):
        if expected and (actual := pooch.file_hash(str(path), kind)) != expected:
            raise AssetError(f"{name} has the {kind} {actual}, expected {expected}. It is damaged or another version.")


def download(url: str, file: File, partial: Path) -> None:
    """Download `url` to `partial`, or continue an earlier attempt that is there, and check the file.

    A broken transfer is repeated after a pause. If the server refuses to continue, or the continued file is damaged,
    the next transfer begins at the start. Raise AssetError with the address and the cause.
    """
    partial.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(ATTEMPTS):
        size = partial.stat().st_size if partial.exists() else 0
        try:
            if not size or size != file.size:
                _transfer(url, partial)
            return check(partial, url, file.sha256, file.md5)
        except (AssetError, requests.RequestException) as error:
            answer = getattr(error, "response", None)
            refused = isinstance(error, AssetError) or (answer is not None and answer.status_code < 500)
            if refused:
                partial.unlink()
            if attempt == ATTEMPTS - 1 or (refused and not size):
                raise AssetError(f"Could not download {url}: {error}. Run the same command again.") from error
            time.sleep(2**attempt)


def _transfer(url: str, partial: Path) -> None:
    """Download the missing rest of `url` to `partial`. Raise requests.RequestException if the transfer breaks."""
    with partial.open("ab") as writer:

        def begin(response, **_):
            if response.status_code == 200:  # the whole file, not the rest
                writer.truncate(0)

        headers = {"User-Agent": "facenb-data-download", "Accept-Encoding": "identity"}
        headers |= {"Range": f"bytes={writer.tell()}-"} if writer.tell() else {}
        pooch.HTTPDownloader(progressbar=True, headers=headers, hooks={"response": begin})(url, writer, None)


def unpack(archive: Path, folder: Path, file: File) -> None:
    """Unpack a zip or a tar (also .gz, .bz2, .xz) into `folder`; nothing is written outside it.

    Raise AssetError for a damaged archive, for links or devices, and for more bytes than the entry allows.
    """
    try:
        with zipfile.ZipFile(archive) if file.unpack == "zip" else tarfile.open(archive) as packed:
            if file.unpack == "zip":
                sizes = [member.file_size for member in packed.infolist()]
            else:
                if not all(member.isreg() or member.isdir() for member in packed):
                    raise tarfile.TarError("it holds a link or a device")
                if not all((folder / member.name).resolve().is_relative_to(folder.resolve()) for member in packed):
                    raise tarfile.TarError("it holds a path outside its folder")
                sizes = [member.size for member in packed]
                packed.extraction_filter = getattr(tarfile, "data_filter", None)  # Python before 3.11.4 has none
            if sum(sizes) > file.unpacked_limit:
                raise AssetError(f"{archive} holds more than {file.unpacked_limit} bytes. It was not unpacked.")
            packed.extractall(folder)
    except (AssetError, OSError):
        raise
    except Exception as error:  # damaged archives raise many kinds of errors inside tarfile, zipfile, zlib and lzma
        raise AssetError(f"{archive} is a damaged or unsafe {file.unpack} archive ({error}). Get it again.") from error


def _manifest(folder: Path) -> str:
    """Return a line for each file of the asset, in the form of `sha256sum`."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in (MARKER, MANIFEST))
    return "".join(f"{pooch.file_hash(str(path))}  {path.relative_to(folder).as_posix()}\n" for path in paths)


def verify(entry: Entry) -> list[str]:
    """Return what is wrong with the asset on this machine. An empty list means that every file has its checksum."""
    if entry.places or problems(entry):
        return problems(entry)
    manifest = data_folder() / entry.name / MANIFEST
    if not manifest.is_file() or pooch.file_hash(str(manifest)) != marker(entry)["manifest"]:
        return [f"{manifest} is missing or was changed"]
    lines = set(manifest.read_text(encoding="utf-8").splitlines()) - set(_manifest(manifest.parent).splitlines())
    return [f"{manifest.parent / line.split('  ', 1)[1]} is missing or was changed" for line in sorted(lines)]
