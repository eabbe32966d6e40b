"""Files that are there whole or not at all (written beside, brought to the disk, renamed), and their checksums."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """The file to write instead of `path`: takes its place when the block ends, and is removed where the block raises.

    It lies in the same folder, hidden, with this process's number in its name, so that two processes do not meet. A
    killed one leaves `.<name>.<number>.partial` behind. Raises OSError where the folder does not take it.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        with suppress(OSError):  # the error of the writing itself is the one to tell
            partial.unlink()


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write it by `atomic_write`. Raises TypeError for what JSON does not hold, and then the file is as it was."""
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def digest(path: Path, kind: str = "sha256") -> str:
    """Checksum of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()
