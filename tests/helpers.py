"""What several test files use."""

import io
import pickle
import struct
from dataclasses import replace

import numpy as np
import torch
import trimesh


def tensors(mesh: trimesh.Trimesh, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the vertices and triangles of a mesh of trimesh."""
    return torch.tensor(np.array(mesh.vertices), dtype=dtype), torch.tensor(np.array(mesh.faces))


def truncated(model, identity: int, expression: int | None = None):
    """Return a model with its first components only."""
    return replace(
        model,
        identity_basis=model.identity_basis[:identity],
        expression_basis=model.expression_basis[:expression],
        expression_names=model.expression_names[:expression],
    )


class Hostile:
    """An object that calls a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


class Python2Pickler(pickle._Pickler):
    """Writes text and bytes as Python 2's `str`, so that the file is one of Python 2."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_python2_string(self, text):
        data = text.encode("latin-1") if isinstance(text, str) else text
        self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(text)

    dispatch[str] = dispatch[bytes] = save_python2_string


def python2_pickle(content) -> bytes:
    """Return the content as Python 2 pickled it."""
    file = io.BytesIO()
    Python2Pickler(file, protocol=2, fix_imports=True).dump(content)
    return file.getvalue().replace(b"numpy._core", b"numpy.core").replace(b"sparse._csc", b"sparse.csc")
