"""Results that can be made again, kept in a cache: a data folder that may only be read is no reason to stop."""

import hashlib
from collections.abc import Callable
from contextlib import suppress

from torch import Tensor

from data_download.folders import cache_folders, data_folder
from facenb import savefile
from facenb.errors import ModelFileError


def kept(name: str, make: Callable[[], dict[str, Tensor]], *inputs: Tensor) -> dict[str, Tensor]:
    """Return the tensors called `name` from a cache folder; otherwise make them, and keep them if a folder takes them.

    The first folder is in the data folder, where a class may share it; the others belong to this user. A damaged file
    is made again. `name` and `inputs` must hold all that the tensors depend on.
    """
    if inputs:
        content = b"".join(tensor.cpu().contiguous().numpy().tobytes() for tensor in inputs)
        name = f"{name}/{hashlib.sha256(content).hexdigest()}"
    files = [folder / f"{name}.safetensors" for folder in (data_folder() / ".cache", *cache_folders())]
    for file in files:
        with suppress(ModelFileError):
            return savefile.load(file, "cache")[0]
    tensors = make()
    for file in files:
        with suppress(ModelFileError):
            savefile.save(file, "cache", tensors, {})
            break
    return tensors
