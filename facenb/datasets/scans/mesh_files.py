"""Meshes from OBJ, PLY and VRML files. The mesh has exactly the file's vertices, regardless of texture and normals.

Mesh libraries repeat a vertex for each texture coordinate and normal, and drop vertices that no triangle uses. Errors
that are pooled over a scan's points (NoW, MICC) would then depend on how the file was written.
"""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import trimesh
from jaxtyping import Float, Int
from torch import Tensor

from facenb.datasets.folders import AGAIN, files_in
from facenb.errors import AssetError
from facenb.morphable.mesh import Scan


def read_mesh(path: Path, unit: str = "mm") -> Scan:
    """Return the surface of an OBJ file (with UV if all faces have it) or a PLY file, or the first of a VRML 2.0 file.

    Polygons are split into fans of triangles. If the surface has UV, its texture is the image that a VRML file names,
    or the image beside the file with the same name. Raises AssetError naming a file that is missing, damaged or without
    triangles.
    """
    if not path.is_file():
        raise AssetError(f"There is no mesh {path}. {AGAIN}")
    read = {".ply": _read_ply, ".wrl": _read_wrl}.get(path.suffix.lower(), _read_obj)
    try:
        scan = read(path, unit)
    except Exception as error:  # a damaged file fails in many ways inside trimesh
        raise AssetError(f"{path} is damaged or not a mesh ({type(error).__name__}: {error}). {AGAIN}") from error
    if scan.uv is not None:
        images = [scan.texture, *(image for image in files_in(path.parent) if image.stem == path.stem)]
        scan = replace(scan, texture=next((image for image in images if image and image.is_file()), None))
    return checked(scan, path)


def checked(scan: Scan, path: Path) -> Scan:
    """Return the scan. Raises AssetError if it has no triangles, wrong indices, or numbers that are not finite."""
    pairs = [("vertices", scan.vertices, scan.triangles)]
    pairs += [("texture coordinates", scan.uv, scan.uv_triangles)] if scan.uv is not None else []
    for name, points, corners in pairs:
        if not len(corners) or int(corners.min()) < 0 or int(corners.max()) >= len(points):
            raise AssetError(f"{path} has {len(corners)} triangles that do not fit its {len(points)} {name}.")
        if not points.isfinite().all():
            raise AssetError(f"{path} has {name} that are not finite.")
    return scan


def _read_ply(path: Path, unit: str) -> Scan:
    loaded = trimesh.load(path, process=False, force="mesh", fix_texture=False, skip_materials=True)
    return Scan(path.stem, _floats(loaded.vertices, 3), torch.tensor(np.asarray(loaded.faces, np.int64)), unit)


def _read_obj(path: Path, unit: str) -> Scan:
    vertices, uv, faces, uv_faces = [], [], [], []
    text = path.read_text(encoding="utf-8", errors="replace").replace("\\\n", " ")
    for line in text.splitlines():
        kind, _, rest = line.strip().partition(" ")
        if kind == "v":
            vertices.append(rest.split()[:3])
        elif kind == "vt":
            uv.append(rest.split()[:2])
        elif kind == "f":
            corners = [corner.split("/") for corner in rest.split()]
            faces.append([_row(corner[0], len(vertices)) for corner in corners])
            if all(len(corner) > 1 and corner[1] for corner in corners):
                uv_faces.append([_row(corner[1], len(uv)) for corner in corners])
    scan = Scan(path.stem, _floats(vertices, 3), _fans(faces), unit)
    return replace(scan, uv=_floats(uv, 2), uv_triangles=_fans(uv_faces)) if len(uv_faces) == len(faces) > 0 else scan


def _row(number: str, count: int) -> int:
    """Return the row (from 0) of an OBJ index, which counts from 1, or if negative, back from the last line so far."""
    index = int(number)
    return index - 1 if index > 0 else count + index


def _read_wrl(path: Path, unit: str) -> Scan:
    text = re.sub(r"#[^\n]*", "", path.read_text(encoding="latin-1"))
    vertices, triangles = _numbers(text, r"\bCoordinate\s*\{\s*point"), _polygons(text, r"\bcoordIndex")
    scan = Scan(path.stem, _floats(np.reshape(vertices, (-1, 3)), 3), triangles, unit)
    if not re.search(r"\btexCoordIndex\s*\[", text):
        return scan
    uv, corners = _numbers(text, r"\bTextureCoordinate\s*\{\s*point"), _polygons(text, r"\btexCoordIndex")
    if corners.shape != triangles.shape:
        raise ValueError("its texture coordinates do not fit its faces")
    image = re.search(r'\burl\s*\[?\s*"([^"]+)"', text)
    texture = path.with_name(Path(image[1]).name) if image else None
    return replace(scan, uv=_floats(np.reshape(uv, (-1, 2)), 2), uv_triangles=corners, texture=texture)


def _numbers(text: str, start: str) -> list[str]:
    """Return the numbers between the brackets that follow a keyword of VRML."""
    match = re.search(start + r"\s*\[([^\]]*)\]", text)
    if match is None:
        raise ValueError(f"it lacks {start.removeprefix(chr(92) + 'b')}")
    return match[1].replace(",", " ").split()


def _polygons(text: str, start: str) -> Int[Tensor, "triangles 3"]:
    """Return the polygons of a VRML coordIndex as triangles. In the file, -1 ends each polygon."""
    polygons = re.split(r"\s-1\b", " " + " ".join(_numbers(text, start)))
    return _fans([list(map(int, polygon.split())) for polygon in polygons])


def _floats(rows: list | np.ndarray, columns: int) -> Float[Tensor, "rows columns"]:
    return torch.from_numpy(np.array(rows, np.float64).reshape(len(rows), columns).astype(np.float32))


def _fans(polygons: list[list[int]]) -> Int[Tensor, "triangles 3"]:
    """Return polygons cut into triangles about their first corner."""
    corners = [(face[0], face[k], face[k + 1]) for face in polygons for k in range(1, len(face) - 1)]
    return torch.tensor(corners, dtype=torch.int64).view(-1, 3)
