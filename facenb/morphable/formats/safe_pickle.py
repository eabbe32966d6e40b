"""Reading model pickles without running them: numpy arrays, scipy sparse matrices, chumpy arrays, nothing else.

A pickle is a program that may call anything it can name. Here each name it may use is a stand-in of ours. Not even
numpy's own unpickling code is called, since it trusts what it is given; arrays are built from checked pieces (dtype
from a short list, shape and bytes that fit). Any other name ends the reading before anything has run.
"""

import pickle
from pathlib import Path

import numpy as np
from scipy import sparse

from facenb.errors import ModelFileError

DTYPES = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}


class _StandIn:
    """An object of a known class: keeps its state, runs nothing. By itself it stands for Python's `object`."""

    state: object = None

    def __new__(cls, *_):
        return super().__new__(cls)

    def __setstate__(self, state):
        self.state = state

    def value(self):
        """Return what the object stands for."""
        raise ValueError("a bare object where an array is expected")


class _DType(_StandIn):
    def __init__(self, code, *_):
        text = code.decode("ascii") if isinstance(code, bytes) else str(code)
        self.order, self.code = "<", text.lstrip("<>|=")
        if self.code not in DTYPES:
            raise ValueError(f"an array of {text!r}; only plain numbers are read")

    def __setstate__(self, state):
        self.order = {"<": "<", ">": ">", "|": "<", "=": "="}[state[1]]


def _array(data, dtype: _DType, shape, order: str) -> np.ndarray:
    """Return an array of exactly these bytes; Python 2's bytes are read as latin-1 text."""
    if not isinstance(data, (str, bytes, bytearray)):
        raise ValueError(f"an array made of a {type(data).__name__} instead of bytes")
    data = data.encode("latin-1") if isinstance(data, str) else bytes(data)
    return np.frombuffer(data, np.dtype(dtype.order + dtype.code)).reshape(shape, order=order).copy()


class _Array(_StandIn):
    """numpy's ndarray: an empty shell that its state fills."""

    def __setstate__(self, state):
        _, shape, dtype, fortran, data = state
        self.state = _array(data, dtype, shape, "F" if fortran else "C")

    def value(self) -> np.ndarray:
        return self.state


class _Set(_StandIn):
    """`set`: chumpy keeps one among its bookkeeping."""

    def value(self) -> None:
        return None


class _Chumpy(_StandIn):
    """A chumpy array that holds its values in x."""

    def value(self):
        return _plain(self.state["x"])


class _Sparse(_StandIn):
    """A scipy matrix in compressed columns."""

    kind: type = sparse.csc_matrix

    def value(self):
        state = {str(name).lstrip("_"): _plain(item) for name, item in self.state.items()}
        arrays = (state["data"], state["indices"], state["indptr"])
        matrix = self.kind(arrays, shape=tuple(int(n) for n in state["shape"]))
        matrix.check_format(full_check=True)  # every index inside the matrix
        return matrix


class _SparseRows(_Sparse):
    kind = sparse.csr_matrix


def _rebuild(kind, *_):
    """`copy_reg._reconstructor(class, base, state)` and numpy's `_reconstruct(class, ...)`: a shell of the class."""
    if not (isinstance(kind, type) and issubclass(kind, _StandIn)):
        raise ValueError("an object of a class that is none")
    return kind()


def _scalar(dtype, data):
    return _array(data, dtype, (), "C")[()]


def _bytes(text="", *_) -> bytes:
    """`_codecs.encode(text, "latin1")` and `bytes()`: how Python 3 writes bytes for Python 2."""
    return text.encode("latin-1")


def _admitted() -> dict[tuple[str, str], object]:
    names = {("numpy", "ndarray"): _Array, ("numpy", "dtype"): _DType, ("_codecs", "encode"): _bytes}
    names |= {("chumpy.ch", "Ch"): _Chumpy, ("chumpy", "Ch"): _Chumpy}
    for core in ("numpy.core", "numpy._core"):
        names |= {(f"{core}.multiarray", "_reconstruct"): _rebuild, (f"{core}.multiarray", "scalar"): _scalar}
        names[f"{core}.numeric", "_frombuffer"] = _array  # protocol 5: bytes, dtype, shape, order
    for old in ("", "_"):
        names[f"scipy.sparse.{old}csc", "csc_matrix"] = _Sparse
        names[f"scipy.sparse.{old}csr", "csr_matrix"] = _SparseRows
    for python2, python3, name, kind in (
        ("copy_reg", "copyreg", "_reconstructor", _rebuild),
        ("__builtin__", "builtins", "object", _StandIn),
        ("__builtin__", "builtins", "set", _Set),
        ("__builtin__", "builtins", "bytes", _bytes),
    ):
        names[python2, name] = names[python3, name] = kind
    return names


ADMITTED = _admitted()


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        if (module, name) not in ADMITTED:
            raise ValueError(f"it names {module}.{name}, which a file of plain data has no use for")
        return ADMITTED[module, name]


def _plain(item):
    """Return the item with every stand-in replaced by what it stands for."""
    if isinstance(item, dict):
        return {_name(key): _plain(value) for key, value in item.items()}
    if isinstance(item, (list, tuple)):
        return [_plain(value) for value in item]
    return item.value() if isinstance(item, _StandIn) else item


def _name(key):
    return key.decode("latin-1") if isinstance(key, bytes) else key


def read_pickle(path: Path) -> dict:
    """Return the dictionary of arrays in a pickle of any protocol, of Python 2 or 3.

    Raise ModelFileError, having run nothing, for any other content or a damaged file.
    """
    content = read_plain(path)
    if not isinstance(content, dict):
        raise ModelFileError(f"{path} is a pickle of a {type(content).__name__}, not of a model")
    return content


def read_plain(path: Path) -> object:
    """Return what a pickle holds: numbers, text, bytes, arrays, and lists, tuples and dictionaries of them.

    Bytes that Python 2 wrote come as text of their latin-1 letters. Raise ModelFileError, having run nothing, for
    anything else or a damaged file.
    """
    try:
        with open(path, "rb") as file:
            return _plain(_Unpickler(file, encoding="latin1").load())
    except Exception as error:  # a damaged pickle fails in every way a program can
        raise ModelFileError(
            f"{path} is a damaged pickle, or it holds more than plain data ({error!r}); nothing of it was run. "
            "Get it from its source"
        ) from error
