"""The open scans: a textured face with 68 landmarks (james), a whole head, a face from brows to chin, the skin of a CT.

Units and axes are those of the files: james is in mm on the project's axes; the CT is in mm; the other two have no
unit. `facenb.datasets.scans.frame` makes them ready to be compared.
"""

import json
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facenb.arrays import read_arrays
from facenb.assets import asset
from facenb.datasets.scans.mesh_files import Mesh, checked, read_mesh
from facenb.errors import AssetError
from facenb.morphable.scan import Scan

IBUG_PARTS = ("chin", "leyebrow", "reyebrow", "nose", "leye", "reye", "mouth")
ASSETS = {"james": "scan-james", "leeperrysmith": "scan-leeperrysmith", "fran": "scan-vtk", "headsq": "scan-vtk"}


def read_scan(name: str, folder: str | Path | None = None) -> Scan:
    """Return one of the open scans: james, leeperrysmith, fran (laser, brows to chin) or headsq (skin of a CT).

    `folder` holds the files; None: the asset. Raises AssetError naming a file that is missing or damaged, ValueError
    for an unknown name.
    """
    if name not in ASSETS:
        raise ValueError(f"Expected one of {', '.join(ASSETS)}, got {name!r}")
    root = Path(folder) if folder is not None else asset(ASSETS[name])
    if name == "james":
        landmarks = read_ljson(root / "james.ljson")
        return Scan(name, *_parts(read_mesh(root / "james.obj"), "mm", landmarks), _texture(root / "james.jpg"))
    if name == "leeperrysmith":
        return Scan(name, *_parts(read_mesh(root / "LeePerrySmith.obj"), "unknown"))
    if name == "headsq":
        return Scan(name, *_parts(_read_npz(root / "headsq_skin.npz"), "mm"))
    return Scan(name, *_parts(_read_npz(root / "fran_cut.npz"), "unknown"), _texture(root / "fran_cut.png"))


def _parts(mesh: Mesh, unit: str, landmarks: Tensor | None = None) -> tuple:
    return mesh.vertices, mesh.triangles, unit, landmarks, mesh.uv, mesh.uv_triangles


def _texture(path: Path) -> Path:
    if not path.is_file():
        raise AssetError(f"There is no texture {path}. Get the scan again.")
    return path


def _read_npz(path: Path) -> Mesh:
    """Return the mesh of an `.npz` with v, f and, for some, one uv for each vertex."""
    arrays = read_arrays(path)
    if not {"v", "f"} <= arrays.keys():
        raise AssetError(f"Expected arrays v and f in {path}, got {', '.join(arrays) or 'none'}. Get it again.")
    vertices, triangles = (torch.from_numpy(arrays[key].astype(kind)) for key, kind in (("v", "f4"), ("f", "i8")))
    if "uv" not in arrays:
        return checked(Mesh(vertices, triangles), path)
    return checked(Mesh(vertices, triangles, torch.from_numpy(arrays["uv"].astype(np.float32)), triangles), path)


def read_ljson(path: str | Path) -> Float[Tensor, "points 3"]:
    """Return the points of a menpo landmark file, in the order of iBUG's 68 if it labels the parts of a face.

    Raises AssetError naming a file that is missing or not a landmark file.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if content.get("version") == 3:  # since version 3 a file may hold several groups
            content = next(iter(content["groups"].values()))
        points = content["landmarks"]["points"]
        masks = {label["label"]: label["mask"] for label in content.get("labels", [])}
        order = [index for part in IBUG_PARTS for index in masks.get(part, [])]
        points = torch.tensor(points, dtype=torch.float32).reshape(len(points), 3)
        return points[order] if len(order) == len(points) else points
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration, RuntimeError) as error:
        raise AssetError(f"{path} is not a landmark file ({type(error).__name__}: {error}). Get it again.") from error
