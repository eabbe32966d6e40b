"""BU-3DFE in its official layout: 100 people, each at rest and with six expressions of four levels, as VRML scans.

`F0001/F0001_HA02WH_F3D.wrl` is person F0001, happy, level 2; beside it the texture and, in `.bnd`, 83 landmarks, a line
each of vertex index (from 0), x, y and z. Assumed, since the set cannot be had without a signed request: that the
VRML's first IndexedFaceSet is the face, in mm on the project's axes; that the texture is the picture it names, or
`..._F3D.bmp`; and which of the 83 belong to which part (`PARTS`), but not the order within a part. The `_RAW` scans
with their `.pse` landmarks are not read.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facenb.assets import asset
from facenb.errors import AssetError
from facenb.morphable.scans import Scan

NAME = re.compile(r"([FM]\d{4})_([A-Z]{2})(\d{2})([A-Z]{2})_F3D\.wrl")
EXPRESSIONS = {"NE": "neutral", "AN": "anger", "DI": "disgust", "FE": "fear", "HA": "happiness", "SA": "sadness",
               "SU": "surprise"}  # fmt: skip
PARTS = {
    "right_eye": slice(0, 8), "left_eye": slice(8, 16), "right_brow": slice(16, 26), "left_brow": slice(26, 36),
    "nose": slice(36, 48), "outer_mouth": slice(48, 60), "inner_mouth": slice(60, 68), "jaw": slice(68, 83),
}  # fmt: skip
LANDMARKS = 83
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


@dataclass(frozen=True)
class BuScan:
    """One scan of the set; files are read when they are asked for."""

    path: Path
    person: str  # F0001 to M0044
    expression: str  # a value of EXPRESSIONS
    level: int  # 0 at rest, 1 to 4

    @property
    def name(self) -> str:
        return self.path.stem

    def scan(self) -> Scan:
        """The surface, with its texture where the picture is there. AssetError naming a file that is damaged."""
        vertices, triangles, uv, picture = read_wrl(self.path)
        beside = [self.path.parent / Path(picture).name] if picture else []
        beside += [self.path.with_suffix(suffix) for suffix in (".bmp", ".png", ".jpg")]
        texture = next((path for path in beside if path.is_file()), None)
        return Scan(self.name, vertices, triangles, "mm", None, uv, texture if uv is not None else None)

    def landmarks(self) -> Float[Tensor, "83 3"]:
        """The 83 landmarks of its `.bnd` file, mm. AssetError naming a file that is missing or none."""
        return read_bnd(self.path.with_suffix(".bnd"))


@dataclass(frozen=True)
class Bu3dfe:
    """All scans of the set, by person, expression and level."""

    folder: Path
    scans: tuple[BuScan, ...]

    def __len__(self) -> int:
        return len(self.scans)

    def __iter__(self) -> Iterator[BuScan]:
        return iter(self.scans)

    @property
    def people(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(scan.person for scan in self.scans))

    def pose_set(self) -> tuple[BuScan, ...]:
        """Each person at rest: the scans that Liu et al. 2018 render from -90 to 90 degrees of yaw."""
        return tuple(scan for scan in self.scans if scan.expression == "neutral")

    def expression_set(self) -> tuple[BuScan, ...]:
        """Each person at rest and with the first level of six expressions: 700 scans (Liu et al. 2018)."""
        return tuple(scan for scan in self.scans if scan.expression == "neutral" or scan.level == 1)


def read_bu3dfe(folder: str | Path | None = None) -> Bu3dfe:
    """The set below a folder (None: the asset). Raises AssetError where no scan is there, or a name is unknown."""
    root = Path(folder) if folder is not None else asset("bu-3dfe")
    found = []
    for path in sorted(root.glob("[FM][0-9][0-9][0-9][0-9]/*_F3D.wrl")):
        match = NAME.fullmatch(path.name)
        if match is None or match[2] not in EXPRESSIONS or match[1] != path.parent.name:
            raise AssetError(
                f"{path} is no scan of BU-3DFE: names are like F0001/F0001_HA02WH_F3D.wrl; unpack it again"
            )
        found.append(BuScan(path, match[1], EXPRESSIONS[match[2]], int(match[3])))
    if not found:
        raise AssetError(
            f"{root} holds no scans F0001/F0001_NE00WH_F3D.wrl; `python -m data_download get bu-3dfe` says how"
        )
    return Bu3dfe(root, tuple(found))


def _block(text: str, start: str, path: Path, after: int = 0) -> tuple[str, int]:
    """What stands between the brackets that follow a keyword, and where they end."""
    match = re.compile(start + r"\s*\[").search(text, after)
    end = text.find("]", match.end()) if match else -1
    if end < 0:
        raise AssetError(f"{path} is no whole VRML scan: it lacks {start.replace(chr(92), '')}; unpack BU-3DFE again")
    return text[match.end() : end], end


def _numbers(block: str, columns: int) -> np.ndarray:
    values = np.array(NUMBER.findall(block), dtype=np.float64)
    return values.reshape(-1, columns)


def _faces(block: str) -> list[list[int]]:
    """Polygons of a coordIndex: whole numbers, each polygon ended by -1."""
    faces: list[list[int]] = [[]]
    for number in map(int, re.findall(r"-?\d+", block)):
        if number < 0:
            faces.append([])
        else:
            faces[-1].append(number)
    return [face for face in faces if len(face) > 2]


def _fans(faces: list[list[int]]) -> np.ndarray:
    corners = [(face[0], face[k], face[k + 1]) for face in faces for k in range(1, len(face) - 1)]
    return np.array(corners, np.int64).reshape(-1, 3)


def read_wrl(path: str | Path) -> tuple[Tensor, Tensor, Tensor | None, str | None]:
    """Vertices (n, 3), triangles, UV (n, 2) and the texture's file name of the first face set of a VRML 2.0 file.

    Polygons are cut as fans. A vertex with several UV is repeated for each, so that there is one UV a vertex; without
    texture coordinates UV is None. Raises AssetError naming a file that is missing, damaged or no VRML.
    """
    path = Path(path)
    try:
        text = re.sub(r"#[^\n]*", "", path.read_text(encoding="latin-1"))
    except OSError as error:
        raise AssetError(f"there is no readable scan {path} ({error}); unpack BU-3DFE again") from error
    try:
        places, end = _block(text, r"\bCoordinate\s*\{\s*point", path)
        vertices = _numbers(places, 3)
        corners, _ = _block(text, r"\bcoordIndex", path)
        triangles = _fans(_faces(corners))
        picture = re.search(r'\burl\s*\[?\s*"([^"]+)"', text)
        uv = None
        if re.search(r"\btexCoordIndex\s*\[", text):
            uv = _numbers(_block(text, r"\bTextureCoordinate\s*\{\s*point", path)[0], 2)
            texels = _fans(_faces(_block(text, r"\btexCoordIndex", path)[0]))
            if texels.shape != triangles.shape or (len(texels) and texels.max() >= len(uv)):
                raise AssetError(f"{path} has texture coordinates that do not fit its faces; unpack BU-3DFE again")
    except ValueError as error:
        raise AssetError(f"{path} holds numbers that are no coordinates ({error}); unpack BU-3DFE again") from error
    if not len(triangles) or triangles.max() >= len(vertices):
        raise AssetError(f"{path} has {len(triangles)} triangles on {len(vertices)} vertices; unpack BU-3DFE again")
    if uv is not None:
        pairs, inverse = np.unique(np.stack([triangles.ravel(), texels.ravel()], 1), axis=0, return_inverse=True)
        vertices, uv, triangles = vertices[pairs[:, 0]], uv[pairs[:, 1]], inverse.reshape(-1, 3)
        uv = torch.from_numpy(uv.astype(np.float32))
    vertices, triangles = torch.from_numpy(vertices.astype(np.float32)), torch.from_numpy(triangles.astype(np.int64))
    return vertices, triangles, uv, picture[1] if picture else None


def read_bnd(path: str | Path) -> Float[Tensor, "83 3"]:
    """The 83 landmarks of a `.bnd` file, mm. Raises AssetError naming a file that is missing or none."""
    path = Path(path)
    try:
        rows = [line.split() for line in path.read_text(encoding="latin-1").splitlines() if line.strip()]
        points = torch.tensor([[float(word) for word in row[1:4]] for row in rows])
    except (OSError, ValueError, TypeError) as error:
        raise AssetError(f"{path} is no readable landmark file ({error}); unpack BU-3DFE again") from error
    if points.shape != (LANDMARKS, 3) or not points.isfinite().all():
        raise AssetError(f"{path} holds {len(rows)} landmarks, not {LANDMARKS} of x, y and z; unpack BU-3DFE again")
    return points


def corners_of_83(landmarks: Float[Tensor, "83 3"]) -> Float[Tensor, "6 3"]:
    """Outer and inner corner of the image-left eye, inner and outer of the right one, left and right mouth corner.

    These are the 68-set's 36, 39, 42, 45, 48 and 54. Taken as the outermost points of each part of an upright face that
    looks at the viewer, so that the order within a part need not be known.
    """
    ends = []
    for part in ("right_eye", "left_eye", "outer_mouth"):  # the person's right is the image's left
        points = landmarks[PARTS[part]]
        ends += [points[points[:, 0].argmin()], points[points[:, 0].argmax()]]
    return torch.stack(ends)
