"""The Surrey Face Model (Huber et al. 2016) from the eos library: cereal's binary archives, little-endian.

A matrix starts with its numbers of rows and columns (int32), followed by float32 values, column by column. A list
starts with its length (uint64), followed by its items. The file does not store its type. So the reader checks every
size and the end of the file.
"""

import json
import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from facenb.morphable.contour import JAW, arc_length
from facenb.morphable.formats import reading
from facenb.morphable.model import Embedding, MorphableModel

KIND, WHERE = "Surrey Face Model of eos", "https://github.com/patrikhuber/eos (folder share)"
EXPRESSIONS, LANDMARKS, CONTOURS = "expression_blendshapes_3448.bin", "ibug_to_sfm.txt", "sfm_model_contours.json"


class _Archive:
    """A cursor over a cereal binary archive."""

    def __init__(self, path: Path):
        self.data, self.at = path.read_bytes(), 0

    def array(self, dtype: str, count: int) -> np.ndarray:
        size, start = count * np.dtype(dtype).itemsize, self.at
        if size > len(self.data) - start:
            raise ValueError(f"{size} bytes are needed at byte {start}, {len(self.data) - start} are there")
        self.at += size
        return np.frombuffer(self.data, dtype, count, start)

    def length(self) -> int:
        return int(self.array("<u8", 1)[0])

    def matrix(self) -> np.ndarray:
        shape = self.array("<i4", 2).tolist()
        if min(shape) < 0:
            raise ValueError(f"a matrix of {shape[0]} x {shape[1]} at byte {self.at}")
        return self.array("<f4", shape[0] * shape[1]).reshape(shape, order="F")

    def end(self) -> None:
        if self.at != len(self.data):
            raise ValueError(f"{len(self.data) - self.at} bytes are left over")


def read_surrey(path: str | Path) -> MorphableModel:
    """Return the Surrey model, with the blendshapes, landmark map and jaw lines in its folder.

    An expression row is a blendshape fully applied. eos maps 50 landmarks to vertices. We add 16 landmarks evenly along
    its two jaw lines. We also add the inner mouth corners (61 and 65), between the inner lips and the outer corner. If
    the map or the jaw lines are missing, the model has no landmarks. Raise ModelFileError if a file is damaged or
    wrong.
    """
    with reading.file(path, KIND, WHERE) as path:
        archive = _Archive(path)
        reading.expect("version", int(archive.array("<u4", 1)[0]), 1)
        mean, basis, variance = archive.matrix(), archive.matrix(), archive.matrix()
        triangles = archive.array("<i4", 3 * archive.length()).reshape(-1, 3)
        colours = [archive.matrix() for _ in range(3)]
        archive.array("<i4", 3 * archive.length())  # colour triangles, the same as the shape's or none
        uv = archive.array("<f8", 2 * archive.length()).reshape(-1, 2)
        archive.end()
        points = reading.tensor(mean.reshape(-1, 3))
        names, blendshapes = _blendshapes(reading.beside(path, None, EXPRESSIONS), len(mean))
        coloured = colours[0].size == mean.size
        return reading.finish(
            "surrey",
            points,
            reading.index(triangles),
            _landmarks(reading.beside(path, None, LANDMARKS), reading.beside(path, None, CONTOURS), points),
            identity_basis=reading.rows(basis, np.sqrt(variance), 1.0),
            expression_basis=blendshapes,
            expression_names=names,
            albedo_mean=reading.tensor(colours[0].reshape(-1, 3)) if coloured else None,
            albedo_basis=reading.rows(colours[1], np.sqrt(colours[2]), 1.0) if coloured else None,
            uv=reading.tensor(uv * (1, -1) + (0, 1)) if len(uv) == len(points) else None,  # v down in eos
            source="Surrey Face Model (Huber et al. 2016), from eos, non-commercial use only",
        )


def _blendshapes(path: str | Path | None, count: int) -> tuple[tuple[str, ...], Tensor]:
    """Return names and offsets (6, V, 3) in mm of eos's blendshapes; none without the file."""
    if path is None:
        return (), torch.zeros(0, count // 3, 3)
    with reading.file(path, "blendshape file of eos", WHERE) as path:
        archive, names, offsets = _Archive(path), [], []
        for _ in range(archive.length()):
            names.append(archive.array("u1", archive.length()).tobytes().decode("utf-8", "replace"))
            offsets.append(archive.matrix())
            reading.expect(f"number of rows of {names[-1]!r}", offsets[-1].size, count)
        archive.end()
        return tuple(names), reading.tensor(np.stack([offset.reshape(-1, 3) for offset in offsets]))


def _landmarks(mapping: str | Path | None, contours: str | Path | None, points: Tensor) -> Embedding | None:
    """Return 68 points: 50 from eos's map, 16 along its jaw lines, and 2 inner mouth corners from their neighbours."""
    if mapping is None or contours is None:
        return None
    with reading.file(mapping, f"companion file ({LANDMARKS}) of the {KIND}", WHERE) as path:
        pairs = re.findall(r"^\s*(\d+)\s*=\s*(\d+)", path.read_text(), re.MULTILINE)
        vertex = {int(landmark) - 1: int(vertex) for landmark, vertex in pairs}
        reading.expect("number of landmarks on the mesh", sum(v < len(points) for v in vertex.values()), 50)
    with reading.file(contours, f"companion file ({CONTOURS}) of the {KIND}", WHERE) as path:
        lines = json.loads(path.read_text())["model_contour"]
        right = _spread(points, torch.tensor(lines["right_contour"]), vertex[36], vertex[8])
        left = _spread(points, torch.tensor(lines["left_contour"]), vertex[45], vertex[8])
    vertex |= dict(zip([*range(JAW // 2), *range(JAW - 1, JAW // 2, -1)], right + left, strict=True))
    corners = {60: (48, 61, 67), 64: (54, 63, 65)}  # inner corner: outer corner and the inner lips next to it
    vertices = [[vertex[k] for k in corners[j]] if j in corners else [vertex[j]] * 3 for j in range(68)]
    weights = [[0.6, 0.2, 0.2] if j in corners else [1.0, 0.0, 0.0] for j in range(68)]
    return Embedding(torch.tensor(vertices), torch.tensor(weights))


def _spread(points: Tensor, line: Tensor, eye: int, chin: int) -> list[int]:
    """Return eight evenly spaced vertices of a jaw line, from the height of the outer eye corner to before the chin."""
    line = line[points[line, 1] < points[eye, 1] + 5.0]  # mm; above, the line runs up to the temple
    line = torch.cat([line[points[line, 1].argsort(descending=True)], torch.tensor([chin])])
    arc = arc_length(points[line])
    stops = torch.linspace(0, float(arc[-1]), 9)[:8]
    return line[(arc - stops[:, None]).abs().argmin(1)].tolist()
