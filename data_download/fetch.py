"""Copying one file from the mirror or the web: resumed where it stopped, checked before anyone sees it."""

import http.client
import shutil
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from data_download.entries import File
from facenb.errors import AssetError
from facenb.files import digest

TIMEOUT, ATTEMPTS, CHUNK = 30.0, 4, 1 << 18


def check(path: Path, file: File, where: str) -> None:
    """Raise AssetError unless the file at `path` has the size and the checksum of the entry."""
    size = path.stat().st_size
    if file.size is not None and size != file.size:
        raise AssetError(f"{where} has {size} bytes, but {file.size} were expected: it is damaged or another version")
    for kind, expected in (("sha256", file.sha256), ("md5", file.md5)):
        if expected and digest(path, kind) != expected:
            raise AssetError(
                f"{where} has the {kind} {digest(path, kind)}, but {expected} was expected: it is damaged or another "
                "version"
            )


def copy_from_mirror(mirror: Path, relative: str, file: File, target: Path) -> None:
    """Copy a file of the mirror folder and check the copy. Raises AssetError naming the file in the mirror."""
    source = mirror / relative
    if not source.is_file():
        raise AssetError(f"the mirror has no file {source}; take a whole mirror folder, or unset FACENB_MIRROR")
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as reader, target.open("wb") as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)
    check(target, file, str(source))


def _open(url: str, start: int):
    """The response for what follows byte `start`, and where it really starts."""
    if not url.lower().startswith(("http://", "https://")):
        raise AssetError(f"{url} is no http or https address")
    headers = {"User-Agent": "facenb-data-download"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and start:  # what is there is not the beginning of this file
            return _open(url, 0)
        raise
    if not response.url.lower().startswith(("http://", "https://")):
        response.close()
        raise AssetError(f"{url} was redirected to {response.url}, which is no http or https address")
    resumed = response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
    return response, start if resumed else 0


def _transfer(url: str, partial: Path, expected: int | None, quiet: bool) -> None:
    """Append what is missing of `url` to `partial`. Raises OSError or HTTPException where the transfer breaks."""
    start = partial.stat().st_size if partial.exists() else 0
    response, start = _open(url, start)
    with response, partial.open("r+b" if start else "wb") as writer:
        writer.seek(start)
        writer.truncate()
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else expected
        if expected is not None and total is not None and total > expected:
            raise AssetError(f"{url} would send {total} bytes, but {expected} were expected: it is another version")
        with tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=partial.name.removesuffix(".partial"),
                  file=sys.stderr, disable=quiet) as bar:  # fmt: skip
            while block := response.read(CHUNK):
                start += len(block)
                if expected is not None and start > expected:
                    raise AssetError(f"{url} sends more than the {expected} bytes expected: it is another version")
                writer.write(block)
                bar.update(len(block))
        if total is not None and start < total:
            raise http.client.IncompleteRead(b"", total - start)


def download(url: str, file: File, partial: Path, quiet: bool = False, pause: float = 1.0) -> None:
    """Download `url` to `partial`, going on with what an earlier try left there, and check it.

    A broken transfer is tried again; a wrong checksum after a resumed transfer starts once from nothing. Raises
    AssetError with the address and the cause; what a broken transfer brought stays in `partial` for the next try.
    """
    partial.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(ATTEMPTS):
        resumed = partial.exists() and partial.stat().st_size > 0
        complete = resumed and partial.stat().st_size == file.size
        try:
            if not complete:
                _transfer(url, partial, file.size, quiet)
        except urllib.error.HTTPError as error:
            if error.code < 500 or attempt == ATTEMPTS - 1:
                raise AssetError(f"{url} answered {error.code} {error.reason}; has it moved?") from error
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            if attempt == ATTEMPTS - 1:
                cause = getattr(error, "reason", None) or error
                raise AssetError(
                    f"{url} could not be downloaded ({type(error).__name__}: {cause}); run the same command again, "
                    "it goes on where it stopped"
                ) from error
        else:
            try:
                return check(partial, file, url)
            except AssetError:
                partial.unlink()
                if not resumed:
                    raise
                continue
        time.sleep(pause * 2**attempt)
    raise AssetError(f"{url} could not be downloaded whole in {ATTEMPTS} attempts; try again later")
