"""The open scans: a textured face with 68 landmarks (james), a whole head, a face from brows to chin, the skin of a CT.

Units and axes are those of the files: james is in mm on the project's axes; the CT is in mm; the other two have no
unit. `facenb.datasets.scans.frame` makes them ready to be compared.
"""

import json
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from facenb.arrays import read_arrays
from facenb.assets import asset
from facenb.datasets.layout import AGAIN
from facenb.datasets.scans.mesh_files import checked, read_mesh
from facenb.errors import AssetError
from facenb.morphable.scan import Scan

IBUG_PARTS = ("chin", "leyebrow", "reyebrow", "nose", "leye", "reye", "mouth")
SCANS = {  # asset, file, unit, texture
    "james": ("scan-james", "james.obj", "mm", "james.jpg"),
    "leeperrysmith": ("scan-leeperrysmith", "LeePerrySmith.obj", "unknown", None),
    "fran": ("scan-vtk", "fran_cut.npz", "unknown", "fran_cut.png"),
    "headsq": ("scan-vtk", "headsq_skin.npz", "mm", None),
}


def read_scan(name: str, folder: str | Path | None = None) -> Scan:
    """Return one of the open scans: james, leeperrysmith, fran (laser, brows to chin) or headsq (skin of a CT).

    `folder` holds the files; None: the asset. Raises AssetError naming a file that is missing or damaged, ValueError
    for an unknown name.
    """
    if name not in SCANS:
        raise ValueError(f"Expected one of {', '.join(SCANS)}, got {name!r}")
    source, file, unit, picture = SCANS[name]
    root = asset(source) if folder is None else Path(folder)
    landmarks, texture = read_ljson(root / "james.ljson") if name == "james" else None, picture and root / picture
    if texture and not texture.is_file():
        raise AssetError(f"There is no texture {texture}. {AGAIN}")
    scan = _read_npz(root / file, unit) if file.endswith(".npz") else read_mesh(root / file, unit)
    return replace(scan, name=name, landmarks=landmarks, texture=texture)


def _read_npz(path: Path, unit: str) -> Scan:
    """Return the mesh of an `.npz` with v, f and, for some, one uv for each vertex."""
    arrays = read_arrays(path)
    if not {"v", "f"} <= arrays.keys():
        raise AssetError(f"Expected arrays v and f in {path}, got {', '.join(arrays) or 'none'}. {AGAIN}")
    triangles, uv = torch.from_numpy(arrays["f"].astype("i8")), arrays.get("uv")
    scan = Scan(path.stem, torch.from_numpy(arrays["v"].astype("f4")), triangles, unit)
    if uv is not None:
        scan = replace(scan, uv=torch.from_numpy(uv.astype("f4")), uv_triangles=triangles)
    return checked(scan, path)


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
        raise AssetError(f"{path} is not a landmark file ({type(error).__name__}: {error}). {AGAIN}") from error
