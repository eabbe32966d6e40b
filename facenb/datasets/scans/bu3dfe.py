"""BU-3DFE: 100 people, each at rest and with six expressions of four levels, as VRML scans.

`F0001/F0001_HA02WH_F3D.wrl` is person F0001, happy, level 2. Beside it lie the texture and, in `.bnd`, 83 landmarks: a
line each of vertex index (from 0), x, y and z. The set is given out on signed request only, so we assume that the
VRML's first IndexedFaceSet is the face, in mm on the project's axes, and that the texture is the image it names, or
`..._F3D.bmp`. The `_RAW` scans with their `.pse` landmarks are not read.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facenb.datasets.layout import files_in, find_folder, folders_in, sibling
from facenb.datasets.scans.mesh_files import checked, fans
from facenb.errors import AssetError
from facenb.morphable.scan import Scan

PERSON = re.compile(r"[FM]\d{4}")
NAME = re.compile(r"([FM]\d{4})_([A-Z]{2})(\d{2})[A-Z]{2}_F3D", re.IGNORECASE)
EXPRESSIONS = {
    "NE": "neutral",
    "AN": "anger",
    "DI": "disgust",
    "FE": "fear",
    "HA": "happiness",
    "SA": "sadness",
    "SU": "surprise",
}
LANDMARKS = 83
AGAIN = "Unpack BU-3DFE again."


@dataclass(frozen=True)
class BuScan:
    """One scan of the set; files are read when they are asked for."""

    path: Path
    person: str  # F0001 to M0044
    expression: str  # a value of EXPRESSIONS
    level: int  # 0 at rest, 1 to 4

    def scan(self) -> Scan:
        """Return the surface, with its texture if the image is there. Raises AssetError naming a damaged file."""
        scan = read_wrl(self.path)
        images = [scan.texture, *(path for path in files_in(self.path.parent) if path.stem == self.path.stem)]
        texture = next((path for path in images if path and path.is_file()), None)
        return replace(scan, texture=None if scan.uv is None else texture)

    def landmarks(self) -> Float[Tensor, "83 3"]:
        """Return the landmarks of its `.bnd` file, mm. Raises AssetError naming a file that is missing or damaged."""
        path = sibling(self.path, ".bnd")
        try:
            points = torch.from_numpy(np.loadtxt(path, np.float32, usecols=(1, 2, 3), ndmin=2))
        except ValueError as error:
            raise AssetError(f"{path} is not a landmark file ({error}). {AGAIN}") from error
        if points.shape != (LANDMARKS, 3) or not points.isfinite().all():
            raise AssetError(f"Expected {LANDMARKS} finite landmarks in {path}, got {len(points)} lines. {AGAIN}")
        return points


def pose_set(scans: Sequence[BuScan]) -> list[BuScan]:
    """Return each person at rest: the scans that Liu et al. 2018 render from -90 to 90 degrees of yaw."""
    return [scan for scan in scans if scan.expression == "neutral"]


def expression_set(scans: Sequence[BuScan]) -> list[BuScan]:
    """Return each person at rest and at the first level of six expressions: 700 scans (Liu et al. 2018)."""
    return [scan for scan in scans if scan.expression == "neutral" or scan.level == 1]


def read_bu3dfe(folder: str | Path | None = None) -> list[BuScan]:
    """Return all scans below a folder (None: the asset), by person, expression and level.

    Raises AssetError if no scan is there or a name is unknown.
    """
    expected = "folders like F0001 with scans F0001_NE00WH_F3D.wrl"
    inner = find_folder(folder, "bu-3dfe", lambda inner: any(map(_scans, folders_in(inner))), expected)
    return [_named(path) for person in folders_in(inner) for path in _scans(person)]


def _scans(person: Path) -> list[Path]:
    if not PERSON.fullmatch(person.name):
        return []
    return [path for path in files_in(person, {".wrl"}) if path.stem.upper().endswith("_F3D")]


def _named(path: Path) -> BuScan:
    match = NAME.fullmatch(path.stem)
    if match is None or match[2].upper() not in EXPRESSIONS or match[1].upper() != path.parent.name:
        raise AssetError(f"{path} is not named like a scan of BU-3DFE, F0001/F0001_HA02WH_F3D.wrl. {AGAIN}")
    return BuScan(path, match[1].upper(), EXPRESSIONS[match[2].upper()], int(match[3]))


def read_wrl(path: Path) -> Scan:
    """Return the first face set of a VRML 2.0 file; its texture is the image that it names, wherever that lies.

    Raises AssetError naming a file that is missing, damaged or not VRML.
    """
    try:
        text = re.sub(r"#[^\n]*", "", path.read_text(encoding="latin-1"))
    except OSError as error:
        raise AssetError(f"{path} cannot be read ({error}). {AGAIN}") from error
    vertices = _points(_block(text, r"\bCoordinate\s*\{\s*point", path), 3, path)
    picture = re.search(r'\burl\s*\[?\s*"([^"]+)"', text)
    texture = path.with_name(Path(picture[1]).name) if picture else None
    triangles = fans(_polygons(_block(text, r"\bcoordIndex", path)))
    scan = Scan(path.stem, vertices, triangles, "mm", texture=texture)
    if re.search(r"\btexCoordIndex\s*\[", text):
        uv = _points(_block(text, r"\bTextureCoordinate\s*\{\s*point", path), 2, path)
        corners = fans(_polygons(_block(text, r"\btexCoordIndex", path)))
        if corners.shape != triangles.shape:
            raise AssetError(f"{path} has texture coordinates that do not fit its faces. {AGAIN}")
        scan = replace(scan, uv=uv, uv_triangles=corners)
    return checked(scan, path)


def _block(text: str, start: str, path: Path) -> str:
    """Return the text between the brackets that follow a keyword."""
    match = re.compile(start + r"\s*\[").search(text)
    end = text.find("]", match.end()) if match else -1
    if end < 0:
        raise AssetError(f"{path} is not a whole VRML scan: it lacks {start.replace(chr(92), '')}. {AGAIN}")
    return text[match.end() : end]


def _points(block: str, columns: int, path: Path) -> Float[Tensor, "points columns"]:
    try:
        values = np.array(block.replace(",", " ").split(), np.float32)
        return torch.from_numpy(values.reshape(-1, columns))
    except ValueError as error:
        raise AssetError(f"{path} holds points that are not {columns} numbers each ({error}). {AGAIN}") from error


def _polygons(block: str) -> list[list[int]]:
    """Return the polygons of a coordIndex: whole numbers, each polygon ended by -1."""
    polygons: list[list[int]] = [[]]
    for number in map(int, re.findall(r"-?\d+", block)):
        if number < 0:
            polygons.append([])
        else:
            polygons[-1].append(number)
    return [polygon for polygon in polygons if len(polygon) > 2]
