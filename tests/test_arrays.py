"""Arrays of other programs' files against what wrote them; damaged and foreign files are named."""

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from facenb.arrays import read_arrays
from facenb.errors import AssetError, ModelFileError

VALUES = {"points": np.arange(6.0).reshape(2, 3), "count": np.array([[7]])}


def write_73(path):
    """A .mat of version 7.3: HDF5 behind 512 bytes of its own, columns first, with a cell array that is not numeric."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in VALUES.items():
            file[name] = values.T
        file["#refs#/a"] = np.zeros(3)
        file.create_dataset("cells", (2,), dtype=h5py.ref_dtype)
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file")


WRITERS = {
    "a.mat": lambda path: savemat(path, VALUES, do_compression=True),
    "b.mat": write_73,
    "a.npz": lambda path: np.savez_compressed(path, **VALUES),
}


@pytest.mark.parametrize("name", WRITERS)
def test_what_was_written_comes_back(tmp_path, name):
    WRITERS[name](tmp_path / name)
    arrays = read_arrays(tmp_path / name)
    assert set(arrays) == set(VALUES)
    for key, values in VALUES.items():
        np.testing.assert_array_equal(arrays[key], values)


def test_a_single_array(tmp_path):
    np.save(tmp_path / "a.npy", VALUES["points"])
    np.testing.assert_array_equal(read_arrays(tmp_path / "a.npy")["array"], VALUES["points"])


@pytest.mark.parametrize("name", [*WRITERS, "a.npy"])
@pytest.mark.parametrize("damage", ["cut", "changed", "page", "empty"])
def test_a_damaged_file_is_named(tmp_path, name, damage):
    path = tmp_path / name
    WRITERS.get(name, lambda file: np.save(file, VALUES["points"]))(path)
    whole = path.read_bytes()
    middle = len(whole) // 2
    changed = {
        "cut": whole[:middle],
        "changed": bytes(len(whole) // 4) + whole[len(whole) // 4 :],
        "page": b"<html>not found</html>" * 40,
        "empty": b"",
    }
    path.write_bytes(changed[damage])
    with pytest.raises(AssetError, match=rf"{name} is damaged or not a {path.suffix[1:]} file"):
        read_arrays(path)


def test_pickled_objects_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}]), allow_pickle=True)
    np.savez(tmp_path / "a.npz", a=np.array([{}]))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(AssetError, match=name):
            read_arrays(tmp_path / name)


def test_a_missing_file_and_another_kind_of_error(tmp_path):
    with pytest.raises(ModelFileError, match=r"no file .*model\.mat"):
        read_arrays(tmp_path / "model.mat", ModelFileError)
