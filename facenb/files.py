"""Files that appear complete or not at all (written beside, flushed to the disk, renamed), and locks."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from facenb.errors import RunError


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


def hold(path: Path, refusal: str = "", shared: bool = False) -> IO:
    """Lock a file until it is closed or its process ends: for one holder, or `shared` by several.

    If another holds it, wait, or raise RunError with the text `refusal`. Network disks without locks lock nothing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a")
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (fcntl.LOCK_NB if refusal else 0))
    except BlockingIOError:
        file.close()
        raise RunError(refusal) from None
    except OSError:
        pass
    return file
