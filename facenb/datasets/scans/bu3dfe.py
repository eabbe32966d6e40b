"""BU-3DFE: VRML scans of 100 people, each neutral and with six expressions at four levels.

`F0001/F0001_HA02WH_F3D.wrl` is person F0001, happy, level 2. Beside it lie the texture and a `.bnd` file of 83
landmarks, one line each: vertex index (from 0), x, y and z. The set is available on signed request only. So we assume
that the first IndexedFaceSet of the VRML file is the face, in mm on the project's axes, and that the texture is the
image that the file names, or `..._F3D.bmp`. The `_RAW` scans with their `.pse` landmarks are not read.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facenb.datasets.folders import AGAIN, files_in, find_folder, folders_in, sibling
from facenb.datasets.scans.mesh_files import read_mesh
from facenb.errors import AssetError
from facenb.morphable.mesh import Scan

PERSON = re.compile(r"[FM]\d{4}")
NAME = re.compile(r"([FM]\d{4})_([A-Z]{2})(\d{2})[A-Z]{2}_F3D", re.IGNORECASE)
EXPRESSIONS = {"NE": "neutral", "AN": "anger", "DI": "disgust", "FE": "fear", "HA": "happiness"}
EXPRESSIONS |= {"SA": "sadness", "SU": "surprise"}
LANDMARKS = 83


@dataclass(frozen=True)
class BuScan:
    """One scan of the set. Its methods read the files."""

    path: Path
    person: str  # F0001 to M0044
    expression: str  # a value of EXPRESSIONS
    level: int  # 0 at rest, 1 to 4

    def scan(self) -> Scan:
        """Return the surface, with its texture if the image is there. Raises AssetError naming a damaged file."""
        return read_mesh(self.path)

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
    """Return the neutral scan of each person. Liu et al. 2018 render these scans from -90 to 90 degrees of yaw."""
    return [scan for scan in scans if scan.expression == "neutral"]


def expression_set(scans: Sequence[BuScan]) -> list[BuScan]:
    """Return each person's neutral scan and the first level of six expressions: 700 scans (Liu et al. 2018)."""
    return [scan for scan in scans if scan.expression == "neutral" or scan.level == 1]


def read_bu3dfe(folder: str | Path | None = None) -> list[BuScan]:
    """Return all scans by person, expression and level. Raises AssetError if there are none or a name is unknown."""
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
