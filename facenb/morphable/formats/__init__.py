"""Readers of published model files. Each returns a MorphableModel in mm on the project's axes, whitened."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from facenb.errors import ModelFileError
from facenb.morphable.formats import reading
from facenb.morphable.formats.basel import read_bfm2009, read_bfm_grid, read_bfm_hdf5
from facenb.morphable.formats.flame import read_flame
from facenb.morphable.formats.ict import read_ict, read_ict_folder
from facenb.morphable.formats.surrey import read_surrey
from facenb.morphable.model import MorphableModel

KNOWN = (
    "BFM-2009 (.mat), BFM-2017/2019 (.h5), FLAME (.pkl, .npz), Surrey (.bin), ICT-FaceKit (folder or .npz), "
    "the BFM grid of 3DDFA-V2 (.npz) and facenb's own .safetensors"
)
NPZ = {"id_basis": read_ict, "paf_mu": read_bfm_grid, "shapedirs": read_flame}  # reader by an array in the file
STARTS = {  # readers by the first bytes of a file
    b"\x89HDF\r\n\x1a\n": read_bfm_hdf5,
    b"MATLAB 5.0": read_bfm2009,
    (b"\x80", b"(", b"}", b"c"): read_flame,  # a pickle: protocol 2 or later; a dict or an object in protocol 0 or 1
}
OTHERS = {  # first bytes of files that are no models, in lower case
    b"version https://git-lfs": "a pointer of Git LFS: run `git lfs pull` where it came from",
    (b"<!doctype", b"<html"): "a web page: the download probably wanted a login",
    (b"\x1f\x8b", b"\xfd7zxz"): "a gzip or xz archive: unpack it first",
}


def read(path: str | Path, **options) -> MorphableModel:
    """Return the model in a file or folder, recognised by its content. `options` are passed to its reader.

    Raise ModelFileError if the file is missing, damaged or of an unknown kind.
    """
    if Path(path).is_dir():
        return read_ict_folder(path, **options)
    with reading.file(path, "model file", "where your model is published") as path:
        reader = _reader(path)
    return reader(path, **options)


def _reader(path: Path) -> Callable[..., MorphableModel]:
    with path.open("rb") as file:
        start = file.read(64)
    for first, what in OTHERS.items():
        if start.lower().startswith(first):
            raise ModelFileError(f"{path} is {what}")
    if start.startswith(reading.ZIP):
        with np.load(path, allow_pickle=False) as file:
            names = file.files
        for name, read_npz in NPZ.items():
            if name in names:
                return read_npz
        held = ", ".join(sorted(names)[:12])
        raise ModelFileError(f"{path} is an npz or zip file of no model known here (it holds {held}): {KNOWN}")
    if start[8:10] == b'{"':
        return MorphableModel.load
    if start[:4] == b"\x01\0\0\0" and start[8:12] == b"\x01\0\0\0":  # version 1, and a mean of one column
        return read_surrey
    for first, read_file in STARTS.items():
        if start.startswith(first):
            return read_file
    raise ModelFileError(f"{path} is no model file known here (it starts with {start[:12]!r}); known are {KNOWN}")
