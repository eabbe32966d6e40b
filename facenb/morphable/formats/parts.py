"""What the readers of model files share: guarded opening, orientation, bases, and the finished model."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from facenb.errors import ModelFileError
from facenb.morphable.contour import contour_lines
from facenb.morphable.model import Embedding, MorphableModel

NO_LANDMARKS = Embedding(torch.zeros(0, 3, dtype=torch.int64), torch.zeros(0, 3))


def existing(path: str | Path, kind: str, where: str) -> Path:
    """The path, if a file is there to be read. Raises ModelFileError naming the kind and where to get it."""
    path = Path(path)
    if not path.is_file():
        raise ModelFileError(f"there is no {kind} at {path}; get it from {where}")
    if path.stat().st_size == 0:
        raise ModelFileError(f"{path} is empty, so no {kind}; fetch it again from {where}")
    try:
        path.open("rb").close()
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read ({error}); check who may read it") from error
    return path


def npz_names(path: Path) -> list[str]:
    """Names of the arrays in an npz; ModelFileError if it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return file.files
    except Exception as error:  # zipfile, numpy and the system each have their own
        raise ModelFileError(f"{path} is no readable npz file ({error}); fetch it again") from error


def open_npz(path: Path, kind: str, needed: tuple[str, ...], others: bool = True) -> dict[str, np.ndarray]:
    """The arrays of an npz without pickles, without `others` the needed ones only.

    Raises ModelFileError if it is damaged or an array is missing.
    """
    require(npz_names(path), needed, path, kind)
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: np.asarray(file[name]) for name in (file.files if others else needed)}
    except Exception as error:  # and zlib
        raise ModelFileError(f"{path} is no readable npz file ({error}); fetch it again") from error


def obj_lines(path: Path, start: str, kind: str, where: str) -> list[str]:
    """What follows `start` on the lines of an OBJ file that begin with it. Raises ModelFileError as `existing`."""
    text = existing(path, kind, where).read_text(errors="replace")
    return [line[len(start) :] for line in text.splitlines() if line.startswith(start)]


def obj_numbers(path: Path, start: str, columns: int, kind: str, where: str) -> np.ndarray:
    """The numbers of these lines, (lines, columns). Raises ModelFileError also where they are none."""
    try:
        lines = obj_lines(path, start, kind, where)
        return np.array([line.split()[:columns] for line in lines], np.float64).reshape(-1, columns)
    except ValueError as error:
        raise ModelFileError(f"{path} is a damaged OBJ file ({error}); fetch it again") from error


def require(content, needed: tuple[str, ...], path: Path, kind: str) -> None:
    """Raise ModelFileError, with what is there, unless all of `needed` are in `content`."""
    missing = [name for name in needed if name not in content]
    if missing:
        found = ", ".join(sorted(map(str, content))[:12])
        raise ModelFileError(f"{path} is no {kind}: {', '.join(missing)} not in it (it holds {found})")


def check_sizes(path: Path, kind: str, sizes: Mapping[str, tuple[int, int]]) -> None:
    """Raise ModelFileError naming the first pair (found, needed) of numbers that differ."""
    for what, (found, needed) in sizes.items():
        if found != needed:
            raise ModelFileError(f"{path} is a damaged {kind}: {what} is {found}, but {needed} is needed")


def rows(basis: np.ndarray, deviation: np.ndarray | float, scale: float) -> Tensor:
    """Whitened basis (C, V, 3) in mm of a matrix (3V, C) of interleaved coordinates and standard deviations (C,)."""
    offsets = np.asarray(basis, np.float64) * (np.asarray(deviation, np.float64).reshape(-1) * scale)
    return tensor(offsets.T.reshape(offsets.shape[1], -1, 3))


def tensor(array: np.ndarray) -> Tensor:
    """A float32 copy."""
    return torch.from_numpy(np.ascontiguousarray(array, np.float32).copy())


def index(array: np.ndarray) -> Tensor:
    """An int64 copy."""
    return torch.from_numpy(np.ascontiguousarray(np.asarray(array).astype(np.int64)))


def outward(mean: Tensor, triangles: Tensor) -> Tensor:
    """The triangles, all turned over if they are clockwise from outside (the mesh seen from its centroid is hollow)."""
    corners = (mean - mean[triangles.unique()].mean(0)).double()[triangles]  # (T, 3, 3)
    volume = torch.linalg.det(corners).sum()
    return triangles.flip(1) if volume < 0 else triangles


def finish(path: Path, name: str, mean: Tensor, triangles: Tensor, landmarks: Embedding, **more) -> MorphableModel:
    """The model, its indices and numbers checked, triangles facing out, contour lines added where there are landmarks.

    Raises ModelFileError if an index points outside the mesh or a number is not finite.
    """
    turned = outward(mean, _inside(path, "triangles", triangles, len(mean)))
    if more.get("uv_triangles") is not None and not torch.equal(turned, triangles):
        more["uv_triangles"] = more["uv_triangles"].flip(1)
    _inside(path, "landmarks", landmarks.vertices, len(mean))
    for what, values in {"mean": mean, **more}.items():
        if isinstance(values, Tensor) and values.is_floating_point() and not bool(values.isfinite().all()):
            raise ModelFileError(f"{path} holds numbers in {what} that are not finite; fetch it again")
    if more.get("contour") is None and len(landmarks) == 68:
        more["contour"] = contour_lines(mean, turned, landmarks.of(mean))
    return MorphableModel(name=name, mean=mean, triangles=turned, landmarks=landmarks, **more)


def _inside(path: Path, what: str, indices: Tensor, count: int) -> Tensor:
    if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < count:
        raise ModelFileError(
            f"{path} is damaged: its {what} name vertices {int(indices.min())} to {int(indices.max())}, "
            f"but there are {count}"
        )
    return indices
