"""Arrays from the files of other programs (`.mat` of any version, `.npz`, `.npy`), or an error that names the file."""

from pathlib import Path

import h5py
import numpy as np
from scipy.io import loadmat

from facenb.errors import AssetError


def read_arrays(path: str | Path, error: type[Exception] = AssetError) -> dict[str, np.ndarray]:
    """Return the arrays of a file by name; the array of a `.npy` file is named "array". Nothing is unpickled.

    A `.mat` file of version 7.3 is HDF5, which SciPy cannot read. For it h5py reads the numeric arrays at the top
    level. Raise `error`, which names the file, if the file is missing, damaged or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise error(f"There is no file {path}.")
    kind = path.suffix.lower().removeprefix(".")
    try:
        if kind == "npy":
            return {"array": np.load(path, allow_pickle=False)}
        if kind == "npz":
            with np.load(path, allow_pickle=False) as file:
                return dict(file)
        if not h5py.is_hdf5(path):
            return {name: value for name, value in loadmat(path).items() if not name.startswith("__")}
        with h5py.File(path) as file:  # MATLAB stores arrays column by column
            arrays = [item for item in file.items() if isinstance(item[1], h5py.Dataset)]
            return {name: item[()].T for name, item in arrays if item.dtype.kind in "biuf"}
    except Exception as cause:  # damaged files raise many kinds of errors inside NumPy, SciPy, zlib and h5py
        reason = f"{type(cause).__name__}: {cause}"
        raise error(f"{path} is damaged or not a {kind} file ({reason}). Get it again.") from cause
