"""Functions that all readers of model files use: one error for damaged files, arrays, and checks of the model."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from facenb.errors import ModelFileError
from facenb.morphable.contour import contour_lines
from facenb.morphable.model import Embedding, MorphableModel

ZIP = b"PK\x03\x04"  # first bytes of a zip file, which an npz is


@contextmanager
def file(path: str | Path, kind: str, where: str) -> Iterator[Path]:
    """Yield the path of a file. Any error in the block becomes a ModelFileError that names the file and its source.

    All errors are caught, because zlib, zipfile, h5py, scipy and numpy each raise their own for a damaged file.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelFileError(f"there is no {kind} at {path}; get it from {where}")
    try:
        with path.open("rb") as opened:
            if not opened.read(1):
                raise ValueError("the file is empty")
        yield path
    except ModelFileError:  # from another file that this file needs
        raise
    except PermissionError as error:
        raise ModelFileError(f"{path} cannot be read ({error}); check who may read it") from error
    except Exception as error:
        cause = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
        raise ModelFileError(f"{path} is no {kind}, or a damaged one: {cause}; get it again from {where}") from error


def starts_with(path: Path, first: bytes) -> bool:
    """Return whether a file begins with these bytes."""
    with path.open("rb") as opened:
        return opened.read(len(first)) == first


def beside(path: Path, given: str | Path | None, *names: str) -> str | Path | None:
    """Return `given`, else the first file of these names in the model's folder, else None."""
    return given or next((path.with_name(name) for name in names if path.with_name(name).is_file()), None)


def npz(path: Path, needed: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return the needed arrays of an npz. Pickles are never loaded."""
    with np.load(path, allow_pickle=False) as arrays:
        require(arrays.files, needed)
        return {name: arrays[name] for name in needed}


def obj_lines(text: str, start: str) -> list[list[str]]:
    """Return the words after `start` on each line of an OBJ that begins with it."""
    return [line[len(start) :].split() for line in text.splitlines() if line.startswith(start)]


def obj_numbers(text: str, start: str, columns: int) -> np.ndarray:
    """Return the numbers on the lines that begin with `start`, as (lines, columns)."""
    return np.array([words[:columns] for words in obj_lines(text, start)], np.float64).reshape(-1, columns)


def require(content, needed: tuple[str, ...]) -> None:
    """Raise ValueError unless `content` has all needed names. The message lists the names in `content`."""
    missing = [name for name in needed if name not in content]
    if missing:
        raise ValueError(f"{', '.join(missing)} not in it (it holds {', '.join(sorted(map(str, content))[:12])})")


def expect(what: str, value: object, needed: object) -> None:
    """Raise ValueError with both values unless `value` (a number, shape or name) equals `needed`."""
    if value != needed:
        raise ValueError(f"{what} is {value}, but {needed} is needed")


def check_indices(what: str, indices: Tensor, count: int) -> None:
    """Raise ValueError unless all indices are in [0, count - 1]. `what` describes the indices and their targets."""
    if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < count:
        raise ValueError(f"its {what} {int(indices.min())} to {int(indices.max())}, but there are {count}")


def rows(basis: np.ndarray, deviation: np.ndarray | float, scale: float) -> Tensor:
    """Return the whitened basis (C, V, 3) of a matrix (3V, C) of interleaved coordinates and deviations (C,)."""
    offsets = np.asarray(basis, np.float64) * (np.asarray(deviation, np.float64).reshape(-1) * scale)
    return tensor(offsets.T.reshape(offsets.shape[1], -1, 3))


def tensor(array: np.ndarray) -> Tensor:
    """Return a float32 copy."""
    return torch.from_numpy(np.ascontiguousarray(array, np.float32).copy())


def index(array: np.ndarray) -> Tensor:
    """Return an int64 copy."""
    return torch.from_numpy(np.ascontiguousarray(np.asarray(array).astype(np.int64)))


def finish(name: str, mean: Tensor, triangles: Tensor, landmarks: Embedding | None, **fields) -> MorphableModel:
    """Return the model with triangles that face outwards, and with contour lines if it has 68 landmarks.

    Raise ValueError if an index is outside the mesh, a basis has another vertex count, or a number is not finite.
    """
    landmarks = landmarks or Embedding.at([])
    check_indices("triangles name vertices", triangles, len(mean))
    check_indices("landmarks name vertices", landmarks.vertices, len(mean))
    for what in ("identity_basis", "expression_basis", "albedo_mean", "albedo_basis"):
        if fields.get(what) is not None:
            expect(f"number of vertices of {what}", fields[what].shape[-2], len(mean))
    for what, values in {"mean": mean, **fields}.items():
        if isinstance(values, Tensor) and values.is_floating_point() and not bool(values.isfinite().all()):
            raise ValueError(f"numbers in {what} are not finite")
    corners = (mean - mean[triangles.unique()].mean(0)).double()[triangles]  # (T, 3, 3)
    if torch.linalg.det(corners).sum() < 0:  # the volume: clockwise seen from outside
        triangles = triangles.flip(1)
        if fields.get("uv_triangles") is not None:
            fields["uv_triangles"] = fields["uv_triangles"].flip(1)
    if fields.get("contour") is None and len(landmarks) == 68:
        fields["contour"] = contour_lines(mean, triangles, landmarks.of(mean))
    return MorphableModel(name=name, mean=mean, triangles=triangles, landmarks=landmarks, **fields)
