"""Whatever is wrong with a model file, the reader says so in one kind of error that names the file (case 09)."""

import pickle
import shutil

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from facenb.errors import ModelFileError
from facenb.morphable import MorphableModel
from facenb.morphable.formats import read, read_bfm2009, read_bfm_grid, read_bfm_hdf5, read_flame, read_ict
from facenb.morphable.formats.basel import GRID
from facenb.morphable.formats.ict import NEEDED as ICT

READERS = {
    "bfm.mat": read_bfm2009,
    "bfm.h5": read_bfm_hdf5,
    "grid.npz": read_bfm_grid,
    "ict.npz": read_ict,
    "flame.npz": read_flame,
    "flame.pkl": read_flame,
}
MAT = ("shapeMU", "shapePC", "shapeEV", "texMU", "texPC", "texEV", "tl")
FLAME = ("v_template", "shapedirs", "faces")
PICKLE = ("v_template", "f", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table")


def write(path, value):
    """A file of the right format and with the right names, each of which holds `value`."""
    if path.suffix == ".mat":
        savemat(path, dict.fromkeys(MAT, value), do_compression=True)
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            for name in ("mean", "pcaBasis", "pcaVariance"):
                file[f"shape/model/{name}"] = value
            file["shape/representer/points"] = file["shape/representer/cells"] = value
    elif path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(dict.fromkeys(PICKLE, value)))
    else:
        np.savez_compressed(path, **dict.fromkeys({"grid": GRID, "ict": ICT, "flame": FLAME}[path.stem], value))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", READERS)
def test_right_names_with_impossible_contents(name, tmp_path):
    for value in (np.zeros((0, 3)), np.float64(1), np.arange(7.0), np.full((3, 3), np.nan), np.array([b"text"])):
        write(tmp_path / name, value)
        with pytest.raises(ModelFileError, match=name):
            READERS[name](tmp_path / name)


@pytest.mark.parametrize("name", READERS)
def test_files_of_another_format(name, tmp_path):
    path = tmp_path / name
    np.save(tmp_path / "array.npy", np.arange(3))
    np.savez(tmp_path / "objects.npz", **dict.fromkeys((*GRID, *ICT, *FLAME), np.array([{}], dtype=object)))
    with h5py.File(tmp_path / "v73.mat", "w", userblock_size=512) as file:
        file["shapeMU"] = np.zeros(3)
    with (tmp_path / "v73.mat").open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    contents = [
        b"",
        b"\0" * 300,
        b"PK\x03\x04" + b"\0" * 99,
        b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + b"\xff" * 64,
    ]
    contents += [(tmp_path / other).read_bytes() for other in ("array.npy", "objects.npz", "v73.mat")]
    for content in contents:
        path.write_bytes(content)
        for reader in (READERS[name], read):
            with pytest.raises(ModelFileError, match=name):
                reader(path)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", [*READERS, "surrey.bin"])
def test_damaged_bytes_give_a_model_or_an_error_that_names_the_file(name, mirror, tmp_path):
    real = {
        "bfm.h5": "basel-h5-fixtures/random-momo.h5",
        "grid.npz": "3ddfa-v2/bfm68.npz",
        "ict.npz": "ict-facekit/ict_face_head_11248.npz",
        "flame.npz": "flame-2023-open-subset/flame_basis.npz",
        "surrey.bin": "surrey/sfm_shape_3448.bin",
    }
    path, rng = tmp_path / name, np.random.default_rng(0)
    if name in real:
        shutil.copyfile(mirror / real[name], path)
    else:
        write(path, np.arange(9.0).reshape(3, 3))
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    for start in np.linspace(0, len(whole) - 9, 8).astype(int):
        damaged = whole.copy()
        damaged[start : start + 9] = rng.integers(0, 256, 9)
        path.write_bytes(damaged.tobytes())
        try:
            assert isinstance(read(path), MorphableModel)
        except ModelFileError as error:
            assert name in str(error)
