"""The open scans: a textured face with 68 landmarks (james), a whole head, a face from brows to chin, the skin of a CT.

Units and axes are those of the files, except where the file's are known: james is in mm on the project's axes; the CT
is in mm; the other two have no unit. `facenb.datasets.scans.frame` makes them ready to be compared.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
import trimesh
from jaxtyping import Float, Int
from torch import Tensor

from facenb.assets import asset
from facenb.errors import AssetError
from facenb.photos.images import read_image

IBUG_PARTS = ("chin", "leyebrow", "reyebrow", "nose", "leye", "reye", "mouth")
NAMES = ("james", "leeperrysmith", "fran", "headsq")


@dataclass(frozen=True)
class Scan:
    """A measured surface."""

    name: str
    vertices: Float[Tensor, "vertices 3"]
    triangles: Int[Tensor, "triangles 3"]
    unit: str  # "mm", or "unknown"
    landmarks: Float[Tensor, "68 3"] | None = None
    uv: Float[Tensor, "vertices 2"] | None = None  # in [0, 1], origin bottom left
    texture: Path | None = None

    def image(self) -> Float[Tensor, "height width 3"]:
        """The texture in RGB. ValueError if the scan has none."""
        if self.texture is None:
            raise ValueError(f"the scan {self.name} has no texture")
        return read_image(self.texture)


def _file(path: Path, name: str) -> Path:
    if not path.is_file():
        raise AssetError(f"the scan {name} lacks {path}; get it with `python -m data_download get {path.parent.name}`")
    return path


def read_mesh(path: Path, name: str) -> tuple[Tensor, Tensor, Tensor | None]:
    """Vertices, triangles and UV of an OBJ; quads are cut in two. AssetError naming a missing or damaged file."""
    try:
        mesh = trimesh.load(_file(path, name), process=False, force="mesh", skip_materials=True)
        uv = getattr(mesh.visual, "uv", None)
        vertices, faces = np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.int64)
    except (ValueError, IndexError, TypeError) as error:
        raise AssetError(f"{path} is no readable mesh ({error}); get it again") from error
    if not len(vertices) or not len(faces):
        raise AssetError(f"{path} holds no triangles; get it again")
    uv = None if uv is None or len(uv) != len(vertices) else torch.from_numpy(np.asarray(uv, np.float32))
    return torch.from_numpy(vertices), torch.from_numpy(faces), uv


def read_ljson(path: str | Path) -> Float[Tensor, "points 3"]:
    """The points of a menpo landmark file; where it labels the parts of a face, in the order of the 68 of iBUG.

    AssetError naming the file where it is none.
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
        raise AssetError(f"{path} is no landmark file ({type(error).__name__}: {error}); get it again") from error


def read_scan(name: str, folder: str | Path | None = None) -> Scan:
    """One of the open scans: james, leeperrysmith, fran (laser, brows to chin) or headsq (skin of a CT).

    `folder` holds the files; None: the asset. Raises AssetError naming a missing or damaged file; ValueError for an
    unknown name.
    """
    if name not in NAMES:
        raise ValueError(f"there is no scan called {name!r}; there are {', '.join(NAMES)}")
    entry = {"james": "scan-james", "leeperrysmith": "scan-leeperrysmith"}.get(name, "scan-vtk")
    root = Path(folder) if folder is not None else asset(entry)
    if name == "james":
        vertices, triangles, uv = read_mesh(root / "james.obj", name)
        landmarks = read_ljson(_file(root / "james.ljson", name))
        return Scan(name, vertices, triangles, "mm", landmarks, uv, _file(root / "james.jpg", name))
    if name == "leeperrysmith":
        vertices, triangles, uv = read_mesh(root / "LeePerrySmith.obj", name)
        return Scan(name, vertices, triangles, "unknown", None, uv)
    path = _file(root / ("fran_cut.npz" if name == "fran" else "headsq_skin.npz"), name)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        vertices = torch.from_numpy(arrays["v"].astype(np.float32))
        triangles = torch.from_numpy(arrays["f"].astype(np.int64))
    except (ValueError, KeyError, OSError, EOFError, BadZipFile) as error:
        raise AssetError(f"{path} is damaged ({error}); get it again") from error
    if name == "headsq":
        return Scan(name, vertices, triangles, "mm")
    uv = torch.from_numpy(arrays["uv"].astype(np.float32)) if "uv" in arrays else None
    return Scan(name, vertices, triangles, "unknown", None, uv, _file(root / "fran_cut.png", name))
