"""Write files that appear complete or not at all (temporary file, flush to the disk, rename), and lock files."""

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
    """Yield a temporary path to write. It replaces `path` when the block ends, and is deleted if the block raises.

    It is a hidden file in the same folder. Its name contains the process number, so two processes do not collide. A
    killed process leaves `.<name>.<number>.partial` behind. Raise OSError if the folder cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        with suppress(OSError):  # so that the error of the writing is reported, not one of deleting
            partial.unlink()


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file by `atomic_write`. If JSON cannot represent the content, raise TypeError and write nothing."""
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def hold(path: Path, refusal: str = "", shared: bool = False) -> IO:
    """Lock a file until it is closed or its process ends: for one process, or `shared` by several.

    If another process holds it, wait, or raise RunError with the text `refusal` if given. Network disks without locks
    do not lock.
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
