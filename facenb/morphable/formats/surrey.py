"""The Surrey Face Model (Huber et al. 2016) as the eos library ships it: cereal's binary archives, little-endian.

A matrix is rows and columns (int32) and then float32 values, column by column; a list is its length (uint64) and its
items. Nothing in the file says what it is, so the reader checks every size and that the file ends where the model does.
Free for non-commercial use.
"""

import json
import re
import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from facenb.errors import ModelFileError
from facenb.morphable.contour import JAW
from facenb.morphable.formats import parts
from facenb.morphable.model import Embedding, MorphableModel

KIND, WHERE = "Surrey Face Model of eos", "https://github.com/patrikhuber/eos (folder share)"
SOURCE = "Surrey Face Model (Huber et al. 2016), from eos, non-commercial use only"
EXPRESSIONS, LANDMARKS, CONTOURS = "expression_blendshapes_3448.bin", "ibug_to_sfm.txt", "sfm_model_contours.json"


class _Archive:
    """A cursor over a cereal binary archive."""

    def __init__(self, path: Path, kind: str):
        self.path, self.kind, self.data, self.at = path, kind, path.read_bytes(), 0

    def take(self, layout: str) -> tuple:
        size = struct.calcsize(f"<{layout}")
        return struct.unpack(f"<{layout}", self._bytes(size))

    def array(self, dtype: str, count: int) -> np.ndarray:
        return np.frombuffer(self._bytes(count * np.dtype(dtype).itemsize), dtype)

    def matrix(self) -> np.ndarray:
        shape = self.take("2i")
        if min(shape) < 0:
            self.fail(f"a matrix of {shape[0]} x {shape[1]} at byte {self.at}")
        return self.array("<f4", shape[0] * shape[1]).reshape(shape, order="F")

    def text(self) -> str:
        return self._bytes(self.take("Q")[0]).decode("utf-8", "replace")

    def end(self) -> None:
        if self.at != len(self.data):
            self.fail(f"{len(self.data) - self.at} bytes are left over")

    def fail(self, why: str) -> None:
        raise ModelFileError(f"{self.path} is no {self.kind}, or a damaged one ({why}); get it from {WHERE}")

    def _bytes(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            self.fail(f"{count} bytes are needed at byte {self.at}, {len(self.data) - self.at} are there")
        self.at += count
        return self.data[self.at - count : self.at]


def read_surrey(
    path: str | Path,
    expression: str | Path | None = None,
    landmarks: str | Path | None = None,
    contours: str | Path | None = None,
) -> MorphableModel:
    """The Surrey model; blendshapes, landmark map and jaw lines from the given files or, by default, from beside it.

    An expression row is a blendshape fully applied. eos maps 49 landmarks to vertices; ours are: the 16 at the sides of
    the jaw, evenly along the two jaw lines, and the inner mouth corners (61 and 65), between the lips and the corner.
    Without map and jaw lines the model has no landmarks. Raises ModelFileError for a missing, damaged or other file.
    """
    path = parts.existing(path, KIND, WHERE)
    archive = _Archive(path, KIND)
    if archive.take("I") != (1,):
        archive.fail("its version is not 1")
    mean, basis, variance = archive.matrix(), archive.matrix(), archive.matrix()
    if mean.size == 0 or mean.size % 3:
        archive.fail(f"a mean of {mean.size} coordinates")
    parts.check_sizes(path, KIND, {"rows of the basis": (len(basis), len(mean)),
                                   "number of eigenvalues": (variance.size, basis.shape[1])})  # fmt: skip
    triangles = archive.array("<i4", 3 * archive.take("Q")[0]).reshape(-1, 3)
    colours = [archive.matrix() for _ in range(3)]
    archive.array("<i4", 3 * archive.take("Q")[0])  # colour triangles, the same as the shape's or none
    uv = archive.array("<f8", 2 * archive.take("Q")[0]).reshape(-1, 2)
    archive.end()
    points = parts.tensor(mean.reshape(-1, 3))
    names, blendshapes = _blendshapes(_beside(path, expression, EXPRESSIONS), len(mean))
    albedo, albedo_basis = None, None
    if colours[0].size == mean.size:
        albedo, albedo_basis = parts.tensor(colours[0].reshape(-1, 3)), _whitened(colours[1], colours[2])
    return parts.finish(
        path,
        "surrey",
        points,
        parts.index(triangles),
        _landmarks(_beside(path, landmarks, LANDMARKS), _beside(path, contours, CONTOURS), points),
        identity_basis=_whitened(basis, variance),
        expression_basis=blendshapes,
        expression_names=names,
        albedo_mean=albedo,
        albedo_basis=albedo_basis,
        uv=parts.tensor(np.stack([uv[:, 0], 1 - uv[:, 1]], 1)) if len(uv) == len(points) else None,  # v down in eos
        source=SOURCE,
    )


def _whitened(basis: np.ndarray, variance: np.ndarray) -> Tensor:
    return parts.rows(basis, np.sqrt(variance), 1.0)


def _beside(path: Path, given: str | Path | None, name: str) -> Path | None:
    """The companion file: the given one, else the one of the published name in the model's folder, else None."""
    if given is not None:
        return parts.existing(given, f"companion file ({name}) of the {KIND}", WHERE)
    return path.with_name(name) if path.with_name(name).is_file() else None


def _blendshapes(path: Path | None, rows: int) -> tuple[tuple[str, ...], Tensor]:
    """Names and offsets (6, V, 3) in mm of eos's blendshapes; none without the file."""
    if path is None:
        return (), torch.zeros(0, rows // 3, 3)
    archive = _Archive(path, "blendshape file of eos")
    names, offsets = [], []
    for _ in range(archive.take("Q")[0]):
        names.append(archive.text())
        offsets.append(archive.matrix())
        parts.check_sizes(path, archive.kind, {f"rows of {names[-1]!r}": (offsets[-1].size, rows)})
    archive.end()
    return tuple(names), parts.tensor(np.stack([offset.reshape(-1, 3) for offset in offsets]))


def _landmarks(mapping: Path | None, contours: Path | None, points: Tensor) -> Embedding:
    """68 points: eos's mapping, jaw landmarks spread along its jaw lines, inner mouth corners from their neighbours."""
    if mapping is None or contours is None:
        return parts.NO_LANDMARKS
    pairs = re.findall(r"^\s*(\d+)\s*=\s*(\d+)", mapping.read_text(), re.MULTILINE)
    vertex = {int(landmark) - 1: int(vertex) for landmark, vertex in pairs}
    if len(vertex) != 50 or max(vertex.values()) >= len(points):
        raise ModelFileError(
            f"{mapping} maps {len(vertex)} landmarks, 50 vertices of the mesh are needed; from {WHERE}"
        )
    try:
        lines = json.loads(contours.read_text())["model_contour"]
        right = _spread(points, torch.tensor(lines["right_contour"]), vertex[36], vertex[8])
        left = _spread(points, torch.tensor(lines["left_contour"]), vertex[45], vertex[8])
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ModelFileError(f"{contours} is no file of jaw lines of eos ({error!r}); get it from {WHERE}") from error
    vertex |= dict(zip(range(JAW // 2), right, strict=True)) | dict(
        zip(range(JAW - 1, JAW // 2, -1), left, strict=True)
    )
    corners = {60: (48, 61, 67), 64: (54, 63, 65)}  # inner corner: outer corner and the inner lips next to it
    vertices = [[vertex[k] for k in corners[j]] if j in corners else [vertex[j]] * 3 for j in range(68)]
    weights = [[0.6, 0.2, 0.2] if j in corners else [1.0, 0.0, 0.0] for j in range(68)]
    return Embedding(torch.tensor(vertices), torch.tensor(weights))


def _spread(points: Tensor, line: Tensor, eye: int, chin: int) -> list[int]:
    """Eight vertices evenly along a jaw line, from the height of the eye's outer corner to before the chin's vertex."""
    line = line[points[line, 1] < points[eye, 1] + 5.0]  # mm; above, the line runs up to the temple
    line = torch.cat([line[points[line, 1].argsort(descending=True)], torch.tensor([chin])])
    arc = torch.cat([torch.zeros(1), (points[line][1:] - points[line][:-1]).norm(dim=1).cumsum(0)])
    stops = torch.linspace(0, float(arc[-1]), 9)[:8]
    return line[(arc - stops[:, None]).abs().argmin(1)].tolist()
