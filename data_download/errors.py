"""The base of this project's errors, the error about data, and folders that cannot be written."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_ACCESS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


class FacenbError(Exception):
    """Base of the errors that this project raises on bad input."""


class AssetError(FacenbError):
    """A data set or model is missing, damaged, or could not be fetched or unpacked."""


@contextmanager
def explained(folder: Path, kind: type[FacenbError], advice: str) -> Iterator[None]:
    """Turn the system's errors for a full disk and for missing permission into `kind`, with advice what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE:
            raise kind(f"No space left in {folder} ({error.strerror}). Free some space. {advice}") from error
        if error.errno in NO_ACCESS:
            raise kind(f"Cannot write to {folder}: {error.strerror} ({error.filename}). {advice}") from error
        raise
