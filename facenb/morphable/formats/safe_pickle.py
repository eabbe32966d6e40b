"""Read pickles of plain data (numpy arrays, scipy sparse matrices, chumpy arrays) without running them.

A pickle is a program that may call any function by name. Here each allowed name refers to a stand-in class or function
of this module. Any other name raises an error. We do not call numpy's unpickling code either, because it trusts its
input. We build arrays from checked parts: a dtype of plain numbers, and a shape and bytes that fit.
"""

import pickle
import re
from pathlib import Path

import numpy as np
from scipy import sparse

from facenb.errors import ModelFileError

DTYPE = re.compile(r"[<>|=](b1|[iu][1248]|f[248])")


class _StandIn:
    """An object of an admitted class. It keeps its arguments and its state, and runs nothing."""

    state: object = None

    def __new__(cls, *arguments):
        instance = super().__new__(cls)
        instance.arguments = arguments
        return instance

    def __setstate__(self, state):
        self.state = state

    def value(self):
        """Return what the object stands for. Raise ValueError (or any other error) if it is not plain data."""
        raise ValueError("an object that is not an array")


class _DType(_StandIn):
    def value(self) -> np.dtype:
        order = self.state[1] if self.state else "<"
        text = f"{order}{str(self.arguments[0]).lstrip('<>|=')}"
        if not DTYPE.fullmatch(text):
            raise ValueError(f"an array of {text!r}; only plain numbers are read")
        return np.dtype(text)


class _Array(_StandIn):
    def value(self) -> np.ndarray:
        _, shape, dtype, fortran, data = self.state
        return _array(data, dtype, shape, "F" if fortran else "C")


class _Chumpy(_StandIn):
    def value(self):
        return _plain(self.state["x"])


class _Columns(_StandIn):
    kind: type = sparse.csc_matrix

    def value(self):
        state = {str(name).lstrip("_"): _plain(item) for name, item in self.state.items()}
        matrix = self.kind((state["data"], state["indices"], state["indptr"]), shape=tuple(state["shape"]))
        matrix.check_format(full_check=True)  # every index lies inside the matrix
        return matrix


class _Rows(_Columns):
    kind = sparse.csr_matrix


def _array(data, dtype: _DType, shape, order: str) -> np.ndarray:
    """Return an array of exactly these bytes. Bytes from Python 2 arrive as text decoded from latin-1."""
    if not isinstance(data, (str, bytes, bytearray)):
        raise ValueError(f"an array made of a {type(data).__name__} instead of bytes")
    data = data.encode("latin-1") if isinstance(data, str) else bytes(data)
    return np.frombuffer(data, dtype.value()).reshape(shape, order=order).copy()


def _scalar(dtype: _DType, data):
    return _array(data, dtype, (), "C")[()]


def _rebuild(kind, *_) -> _StandIn:
    """Stand in for `copyreg._reconstructor(class, base, state)` and numpy's `_reconstruct(class, ...)`."""
    if not (isinstance(kind, type) and issubclass(kind, _StandIn)):
        raise ValueError("an object without a class")
    return kind()


def _bytes(text="", *_) -> bytes:
    """Stand in for `_codecs.encode(text, "latin1")` and `bytes()`. Python 3 stores bytes for Python 2 in this way."""
    return text.encode("latin-1")


CHUMPY, NUMPY, SCIPY = ("chumpy", "chumpy.ch"), ("numpy.core", "numpy._core"), ("scipy.sparse.", "scipy.sparse._")
BUILTINS, COPYREG = ("__builtin__", "builtins"), ("copy_reg", "copyreg")  # names in Python 2 and 3
ADMITTED = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _bytes,
    **{(f"{module}.multiarray", "_reconstruct"): _rebuild for module in NUMPY},
    **{(f"{module}.multiarray", "scalar"): _scalar for module in NUMPY},
    **{(f"{module}.numeric", "_frombuffer"): _array for module in NUMPY},  # protocol 5: bytes, dtype, shape, order
    **{(f"{module}csc", "csc_matrix"): _Columns for module in SCIPY},
    **{(f"{module}csr", "csr_matrix"): _Rows for module in SCIPY},
    **{(module, "Ch"): _Chumpy for module in CHUMPY},
    **{(module, "_reconstructor"): _rebuild for module in COPYREG},
    **{(module, "object"): _StandIn for module in BUILTINS},
    **{(module, "set"): _StandIn for module in BUILTINS},  # chumpy's set of changed variables
    **{(module, "bytes"): _bytes for module in BUILTINS},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        if (module, name) not in ADMITTED:
            raise ValueError(f"it names {module}.{name}, which plain data does not need")
        return ADMITTED[module, name]


def _plain(item):
    """Return the item with every stand-in replaced by what it stands for."""
    if isinstance(item, dict):
        return {key.decode("latin-1") if isinstance(key, bytes) else key: _plain(item[key]) for key in item}
    if isinstance(item, (list, tuple)):
        return [_plain(value) for value in item]
    return item.value() if isinstance(item, _StandIn) else item


def read_plain(path: Path) -> object:
    """Return what a pickle of any protocol holds: numbers, text, bytes, arrays, and lists and dictionaries of them.

    Bytes from Python 2 are returned as text decoded from latin-1. For any other content or a damaged file, raise
    ModelFileError without running anything.
    """
    try:
        with open(path, "rb") as file:
            return _plain(_Unpickler(file, encoding="latin1").load())
    except Exception as error:  # a damaged pickle may raise any error
        raise ModelFileError(
            f"{path} is a damaged pickle, or it holds more than plain data ({error!r}); nothing of it was run. "
            "Get it from its source"
        ) from error
