"""Reading model pickles without running them: numpy arrays, scipy sparse matrices, chumpy arrays, nothing else.

A pickle is a program that may call anything it can name. Here each name it may use is a stand-in of ours: not even
numpy's own unpickling code is called, since it trusts what it is given; arrays are built from checked parts
(dtype from a short list, shape and bytes that fit). Any other name ends the reading before anything has run.
"""

import pickle
from pathlib import Path

import numpy as np
from scipy import sparse

from facenb.errors import ModelFileError

DTYPES = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}


class _StandIn:
    """An object of a known class: keeps its state, runs nothing."""

    state: object = None

    def __new__(cls, *_):
        return super().__new__(cls)

    def __setstate__(self, state):
        self.state = state

    def value(self):
        """What the object stands for."""
        raise ModelFileError(f"a bare {type(self).__name__.strip('_')} where an array is expected")


class _Object(_StandIn):
    """`object`, the base that old pickles name when they rebuild a chumpy array."""


class _DType(_StandIn):
    def __init__(self, code, *_):
        text = code.decode("ascii") if isinstance(code, bytes) else str(code)
        self.order, self.code = "<", text.lstrip("<>|=")
        if self.code not in DTYPES:
            raise ModelFileError(f"an array of {text!r}; only plain numbers are read")

    def __setstate__(self, state):
        self.order = {"<": "<", ">": ">", "|": "|", "=": "="}[state[1]]

    def value(self) -> np.dtype:
        return np.dtype(self.order.replace("|", "<") + self.code)


def _bytes(data) -> bytes:
    """Raw bytes; Python 2's are read as latin-1 text."""
    if not isinstance(data, (str, bytes, bytearray)):
        raise ModelFileError(f"an array made of a {type(data).__name__} instead of bytes")
    return data.encode("latin-1") if isinstance(data, str) else bytes(data)


def _array(data, dtype: "_DType", shape, order: str) -> np.ndarray:
    """An array of exactly these bytes."""
    return np.frombuffer(_bytes(data), dtype.value()).reshape(shape, order=order).copy()


class _Array(_StandIn):
    """numpy's ndarray: an empty shell that its state fills."""

    def __setstate__(self, state):
        _, shape, dtype, fortran, data = state
        self.state = _array(data, dtype, shape, "F" if fortran else "C")

    def value(self) -> np.ndarray:
        return self.state


class _FromBuffer(_StandIn):
    """numpy's `_frombuffer` (protocol 5): bytes, dtype, shape, order."""

    def __init__(self, data, dtype, shape, order):
        self.state = _array(data, dtype, shape, order)

    def value(self) -> np.ndarray:
        return self.state


class _Scalar(_StandIn):
    def __init__(self, dtype, data):
        self.state = _array(data, dtype, (), "C")[()]

    def value(self):
        return self.state


class _Bytes(_StandIn):
    """`_codecs.encode(text, "latin1")`, how Python 3 writes bytes for Python 2."""

    def __new__(cls, text, *_):
        return text.encode("latin-1")


class _NoBytes(_StandIn):
    """`bytes()`, how Python 3 writes no bytes at all for Python 2."""

    def __new__(cls):
        return b""


class _Set(_StandIn):
    """`set`: chumpy keeps one among its bookkeeping."""

    def value(self) -> None:
        return None


class _Chumpy(_StandIn):
    """A chumpy array that holds its values in x."""

    def value(self):
        if not isinstance(self.state, dict) or "x" not in self.state:
            raise ModelFileError("a chumpy expression without values")
        return _plain(self.state["x"])


class _Sparse(_StandIn):
    """A scipy matrix in compressed rows or columns."""

    kind: type = sparse.csc_matrix

    def value(self):
        state = {str(name).lstrip("_"): _plain(part) for name, part in self.state.items()}
        parts = (state["data"], state["indices"], state["indptr"])
        matrix = self.kind(parts, shape=tuple(int(n) for n in state["shape"]))
        matrix.check_format(full_check=True)  # every index inside the matrix
        return matrix


class _SparseRows(_Sparse):
    kind = sparse.csr_matrix


class _Rebuilt(_StandIn):
    """`copy_reg._reconstructor(class, base, state)` and numpy's `_reconstruct(class, ...)`: a shell of the class."""

    def __new__(cls, kind, *_):
        if not (isinstance(kind, type) and issubclass(kind, _StandIn)):
            raise ModelFileError("an object of a class that is none")
        return kind()


_NUMPY = {"_reconstruct": _Rebuilt, "scalar": _Scalar}
ADMITTED = {
    **{(f"numpy.{core}.multiarray", name): kind for core in ("core", "_core") for name, kind in _NUMPY.items()},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _FromBuffer for core in ("core", "_core")},
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    **{(f"scipy.sparse.{module}", "csc_matrix"): _Sparse for module in ("csc", "_csc")},
    **{(f"scipy.sparse.{module}", "csr_matrix"): _SparseRows for module in ("csr", "_csr")},
    ("chumpy.ch", "Ch"): _Chumpy,
    ("chumpy", "Ch"): _Chumpy,
    **{(module, "_reconstructor"): _Rebuilt for module in ("copy_reg", "copyreg")},
    **{(module, name): kind for module in ("__builtin__", "builtins") for name, kind in
       {"object": _Object, "set": _Set, "bytes": _NoBytes}.items()},
    ("_codecs", "encode"): _Bytes,
}  # fmt: skip


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        if (module, name) not in ADMITTED:
            raise ModelFileError(f"it names {module}.{name}, which a file of plain data has no use for")
        return ADMITTED[module, name]


def _plain(item):
    """The item with every stand-in replaced by what it stands for."""
    if isinstance(item, dict):
        return {_name(key): _plain(value) for key, value in item.items()}
    if isinstance(item, (list, tuple)):
        return [_plain(value) for value in item]
    return item.value() if isinstance(item, _StandIn) else item


def _name(key):
    return key.decode("latin-1") if isinstance(key, bytes) else key


def read_pickle(path: Path) -> dict:
    """The dictionary of arrays in a pickle of any protocol, of Python 2 or 3.

    Raises ModelFileError, having run nothing, for any other content or a damaged file.
    """
    content = read_plain(path)
    if not isinstance(content, dict):
        raise ModelFileError(f"{path} is a pickle of a {type(content).__name__}, not of a model")
    return content


def read_plain(path: Path) -> object:
    """What a pickle holds, of numbers, text, bytes, arrays, and lists, tuples and dictionaries of them.

    Bytes that Python 2 wrote come as text of their latin-1 letters. Raises ModelFileError, having run nothing, for
    anything else or a damaged file.
    """
    try:
        with open(path, "rb") as file:
            return _plain(_Unpickler(file, encoding="latin1").load())
    except ModelFileError as error:
        raise ModelFileError(f"{path} was refused, nothing of it was run: {error}. Get it from its source") from error
    except Exception as error:  # a damaged pickle fails in every way a program can
        raise ModelFileError(f"{path} is a damaged pickle or none ({error!r}); fetch it again") from error
