"""Files that appear complete or not at all (written beside, flushed to the disk, renamed), and their checksums."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a file to write instead of `path`; it replaces `path` when the block ends, and is deleted if it raises.

    It is a hidden file in the same folder, with the process's number in its name, so that two processes do not collide.
    A killed process leaves `.<name>.<number>.partial` behind. Raise OSError if the folder cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        with suppress(OSError):  # report the error of the writing, not that of clearing up
            partial.unlink()


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file by `atomic_write`. Raise TypeError, and change nothing, if JSON cannot hold it."""
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
