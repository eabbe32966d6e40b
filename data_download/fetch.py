"""Check, download and unpack one file."""

import lzma
import tarfile
import time
import zipfile
import zlib
from pathlib import Path

import pooch
import requests

from data_download import AssetError
from data_download.entries import File

ATTEMPTS = 4  # for one file
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, NotImplementedError)
DAMAGED += (RuntimeError, FileExistsError, NotADirectoryError)  # encrypted; a file where a folder should be


def check(path: Path, name: str, sha256: str, md5: str = "") -> None:
    """Raise AssetError, which calls the file `name`, unless it has the checksums that are not empty."""
    for kind, expected in (("sha256", sha256), ("md5", md5)):
        if expected and (actual := pooch.file_hash(str(path), kind)) != expected:
            raise AssetError(f"{name} has the {kind} {actual}, expected {expected}. It is damaged or another version.")


def download(url: str, file: File, partial: Path) -> None:
    """Download `url` to `partial` and check it. A file that an earlier attempt left there is continued.

    A broken transfer is repeated after one second, then after twice as long. If the server refuses to continue, or the
    continued file is damaged, the next transfer begins at the start. Raise AssetError with the address and the cause.
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
    """Append to `partial` what it lacks of `url`. Raise requests.RequestException if the transfer breaks."""
    with partial.open("ab") as writer:

        def begin(response, **_):
            if response.status_code == 200:  # the whole file, not the rest
                writer.truncate(0)

        headers = {"User-Agent": "facenb-data-download", "Accept-Encoding": "identity"}
        headers |= {"Range": f"bytes={writer.tell()}-"} if writer.tell() else {}
        pooch.HTTPDownloader(progressbar=True, headers=headers, hooks={"response": begin})(url, writer, None)


def unpack(archive: Path, folder: Path, file: File) -> None:
    """Unpack an archive, a tar (also .gz, .bz2, .xz) or zip, into `folder`.

    Python's filter "data" (tar) and `zipfile` write nothing outside `folder`, and no more of a member than it declares.
    Raise AssetError for a damaged archive, for links or devices, and for more bytes than the entry allows.
    """
    try:
        if file.unpack == "zip":
            with zipfile.ZipFile(archive) as packed:
                _check_size(archive, sum(member.file_size for member in packed.infolist()), file)
                packed.extractall(folder)
        else:
            with tarfile.open(archive) as packed:
                if not all(member.isreg() or member.isdir() for member in packed):
                    raise tarfile.TarError("it holds a link or a device")
                _check_size(archive, sum(member.size for member in packed), file)
                packed.extractall(folder, filter="data")
    except DAMAGED as error:
        raise AssetError(f"{archive} is a damaged or unsafe {file.unpack} archive ({error}). Get it again.") from error


def _check_size(archive: Path, size: int, file: File) -> None:
    if size > file.unpacked_limit:
        raise AssetError(f"{archive} holds more than {file.unpacked_limit} bytes. It was not unpacked.")
