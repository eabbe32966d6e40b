"""Readers of published model files; each gives a MorphableModel in mm on the project's axes, whitened."""

from collections.abc import Callable
from pathlib import Path

from facenb.errors import ModelFileError
from facenb.morphable.formats.bfm2009 import read_bfm2009
from facenb.morphable.formats.bfm_grid import read_bfm_grid
from facenb.morphable.formats.bfm_hdf5 import read_bfm_hdf5
from facenb.morphable.formats.flame import read_flame, read_flame_npz
from facenb.morphable.formats.ict import NEUTRAL, read_ict, read_ict_folder
from facenb.morphable.formats.parts import existing, npz_names
from facenb.morphable.formats.surrey import read_surrey
from facenb.morphable.model import MorphableModel

__all__ = ["read", "read_bfm2009", "read_bfm_grid", "read_bfm_hdf5", "read_flame", "read_flame_npz", "read_ict",
           "read_ict_folder", "read_surrey"]  # fmt: skip

KNOWN = ("BFM-2009 (.mat), BFM-2017/2019 (.h5), FLAME (.pkl, .npz), Surrey (.bin), ICT-FaceKit (folder or .npz), "
         "the BFM grid of 3DDFA-V2 (.npz) and facenb's own .safetensors")  # fmt: skip
NPZ = (("id_basis", read_ict), ("paf_mu", read_bfm_grid), ("shapedirs", read_flame_npz))
NO_MODELS = ((b"version https://git-lfs", "a pointer of Git LFS: run `git lfs pull` where it came from"),
             (b"<!doctype", "a web page: the download probably wanted a login"),
             (b"<html", "a web page: the download probably wanted a login"),
             (b"\x1f\x8b", "a gzip archive: unpack it first"),
             (b"\xfd7zXZ", "an xz archive: unpack it first"))  # fmt: skip


def read(path: str | Path, **options) -> MorphableModel:
    """The model in a file or folder of any known kind, recognised by its content; `options` go to its reader.

    Raises ModelFileError if it is missing, damaged or of no known kind.
    """
    return _reader(Path(path))(path, **options)


def _reader(path: Path) -> Callable[..., MorphableModel]:
    if path.is_dir():
        if (path / NEUTRAL).is_file():
            return read_ict_folder
        raise ModelFileError(f"{path} is a folder without {NEUTRAL}, so no ICT-FaceKit; give a model file")
    with open(existing(path, "model file", "where your model is published"), "rb") as file:
        start = file.read(64)
    for magic, what in NO_MODELS:
        if start.lower().startswith(magic.lower()):
            raise ModelFileError(f"{path} is {what}")
    if start.startswith(b"PK\x03\x04"):
        return _npz_reader(path)
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return read_bfm_hdf5
    if start.startswith(b"MATLAB 5.0"):
        return read_bfm2009
    if start[8:10] == b'{"':
        return MorphableModel.load
    if start[:4] == b"\x01\0\0\0" and start[8:12] == b"\x01\0\0\0":  # version 1; a mean of one column
        return read_surrey
    if start[:1] in (b"\x80", b"(", b"}", b"c"):  # protocol 2 and later; a dictionary or an object of protocol 0 or 1
        return read_flame
    raise ModelFileError(f"{path} is no model file known here (it starts with {start[:12]!r}); known are {KNOWN}")


def _npz_reader(path: Path) -> Callable[..., MorphableModel]:
    names = npz_names(path)
    for name, reader in NPZ:
        if name in names:
            return reader
    found = ", ".join(sorted(names)[:12])
    raise ModelFileError(f"{path} is an npz or zip file of no model known here (it holds {found}); known are {KNOWN}")
