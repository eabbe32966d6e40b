"""Get one file from the mirror folder or the web, and check it before it is used."""

import shutil
import time
from pathlib import Path

import pooch
import requests

from data_download.entries import File
from data_download.errors import AssetError

TIMEOUT, ATTEMPTS, CHUNK = 30.0, 4, 1 << 16  # seconds without an answer; attempts for one file; bytes


def check(path: Path, file: File, name: str) -> None:
    """Raise AssetError, which calls the file `name`, unless its size and checksums are those of the entry."""
    size = path.stat().st_size
    if file.size is not None and size != file.size:
        raise AssetError(f"{name} has {size} bytes, expected {file.size}. It is damaged or another version.")
    for kind, expected in (("sha256", file.sha256), ("md5", file.md5)):
        if expected and (actual := pooch.file_hash(str(path), kind)) != expected:
            raise AssetError(f"{name} has the {kind} {actual}, expected {expected}. It is damaged or another version.")


def copy_from_mirror(source: Path, file: File, target: Path) -> None:
    """Copy a file of the mirror folder and check the copy. Raise AssetError if it is missing or damaged."""
    if not source.is_file():
        raise AssetError(f"The mirror has no file {source}. Use a complete mirror folder, or unset FACENB_MIRROR.")
    shutil.copyfile(source, target)
    check(target, file, str(source))


def _transfer(url: str, partial: Path, quiet: bool) -> None:
    """Append to `partial` what it lacks of `url`. Raise requests.RequestException if the transfer breaks."""
    with partial.open("ab") as writer:
        start = writer.tell()

        def begin(response, **_):
            if response.status_code == 200:  # the whole file, also if only the rest was asked for
                writer.truncate(0)

        headers = {"User-Agent": "facenb-data-download", "Accept-Encoding": "identity"}
        headers |= {"Range": f"bytes={start}-"} if start else {}
        transfer = pooch.HTTPDownloader(
            progressbar=not quiet, chunk_size=CHUNK, timeout=TIMEOUT, headers=headers, hooks={"response": begin}
        )
        transfer(url, writer, None)


def download(url: str, file: File, partial: Path, quiet: bool = False, pause: float = 1.0) -> None:
    """Download `url` to `partial` and check it. A file that an earlier attempt left there is continued.

    A broken transfer is repeated after `pause` seconds, then after twice as long. A wrong checksum after a continued
    transfer leads to one transfer from the start. Raise AssetError with the address and the cause.
    """
    if not url.lower().startswith(("http://", "https://")):
        raise AssetError(f"{url} is not an http or https address.")
    partial.parent.mkdir(parents=True, exist_ok=True)
    cause = "every transfer was damaged"
    for attempt in range(ATTEMPTS):
        size = partial.stat().st_size if partial.exists() else 0
        try:
            if not size or size != file.size:
                _transfer(url, partial, quiet)
            return check(partial, file, url)
        except AssetError:
            partial.unlink()
            if not size:
                raise
        except requests.HTTPError as error:
            status = error.response.status_code
            if status == 416 and size:  # more is there than the file has
                partial.unlink()
            elif status < 500:
                partial.unlink()
                raise AssetError(f"{url} answered {status} {error.response.reason}. The file may have moved.") from None
            cause = f"it answered {status}"
        except requests.RequestException as error:
            cause = f"{type(error).__name__}: {error}"
        time.sleep(pause * 2**attempt)
    raise AssetError(f"Could not download {url} ({cause}). To continue, run the same command again.")
