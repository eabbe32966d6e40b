"""Cache results that can be computed again. A read-only data folder does not raise an error."""

import hashlib
from collections.abc import Callable
from contextlib import suppress

from torch import Tensor

from data_download.folders import cache_folders, data_folder
from facenb import savefile
from facenb.errors import ModelFileError


def kept(name: str, make: Callable[[], dict[str, Tensor]], *inputs: Tensor) -> dict[str, Tensor]:
    """Return the tensors `name` from a cache folder. If there are none, compute them, and save them if possible.

    The first cache is in the data folder, which a class may share. The other caches are this user's. A damaged file is
    computed again. `name` and `inputs` must contain everything on which the tensors depend.
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
