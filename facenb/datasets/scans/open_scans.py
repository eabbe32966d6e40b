"""The open scans: a textured face with 68 landmarks (james), a whole head, a face from brows to chin, the skin of a CT.

`read_scan` keeps the units and axes of the files. `prepared` returns a scan ready to compare: on the project's axes,
in mm if the unit is known, with 68 landmarks. We found the orientation of each file by looking at it. The unit of two
scans is unknown. They are scaled to a usual distance of the outer eye corners, so errors on them do not measure size.
Only the non-metrical protocol applies to them.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facenb.arrays import read_arrays
from facenb.assets import asset
from facenb.datasets.folders import AGAIN
from facenb.datasets.scans.mesh_files import checked, read_mesh
from facenb.datasets.scans.views import EYES, mark
from facenb.errors import AssetError
from facenb.imaging.camera import WeakPerspective, euler_to_matrix
from facenb.imaging.raster import rasterize
from facenb.morphable.alignment import similarity
from facenb.morphable.mesh import Scan
from facenb.synthface.people import SynthFace

IBUG_PARTS = ("chin", "leyebrow", "reyebrow", "nose", "leye", "reye", "mouth")
SCANS = {  # asset, file, unit, texture
    "james": ("scan-james", "james.obj", "mm", "james.jpg"),
    "leeperrysmith": ("scan-leeperrysmith", "LeePerrySmith.obj", "unknown", None),
    "fran": ("scan-vtk", "fran_cut.npz", "unknown", "fran_cut.png"),
    "headsq": ("scan-vtk", "headsq_skin.npz", "mm", None),
}
LOOKS = (-80.0, -60.0, -40.0, -20.0, 0.0, 20.0, 40.0, 60.0, 80.0)  # degrees of yaw; views from above show the inside
FINE = 1024  # width and height of a view in pixels: smaller triangles may be missed
GLIMPSE = 6  # a triangle with at most this many pixels, in all views together, counts as seen through a slit


@dataclass(frozen=True)
class _Facts:
    """The orientation of a file, and the parts to remove."""

    axes: tuple[tuple[float, float, float], ...]  # rows: the project's x, y and z in the file's axes
    inside_out: bool = False  # triangles run clockwise seen from outside
    skin: bool = False  # what cannot be seen from outside (mouth, windpipe) is left out
    cut: tuple[float, float, float, float] | None = None  # left, right, bottom, top of the cut, mm, seen from the front
    note: str = ""


UPRIGHT = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
ASIDE = ((-(0.5**0.5), 0.0, -(0.5**0.5)), (0.0, 1.0, 0.0), (0.5**0.5, 0.0, -(0.5**0.5)))  # 135 degrees about y
SLICES = ((0.0, 0.0, 1.0), (-1.0, 0.0, 0.0), (0.0, -1.0, 0.0))  # slices from the crown down, rows from front to back
TUBE = (
    "a CT in slices of 1.5 mm, eyes closed; the tube in the mouth is cut out, with the skin behind it; "
    "left and right may be exchanged"
)
FACTS = {
    "james": _Facts(UPRIGHT, note="texture and landmarks are its own; the hair is part of the scan"),
    "leeperrysmith": _Facts(UPRIGHT, skin=True, note="without texture; the unit is unknown"),
    "fran": _Facts(ASIDE, inside_out=True, note="from the brows to the chin; smiling; the unit is unknown"),
    "headsq": _Facts(SLICES, inside_out=True, skin=True, cut=(-15.0, 3.0, -84.0, -45.0), note=TUBE),
}


def read_scan(name: str, folder: str | Path | None = None) -> Scan:
    """Return an open scan: james, leeperrysmith, fran (laser, brows to chin) or headsq (CT). Raises AssetError."""
    source, file, unit, image = SCANS[name]
    root = asset(source) if folder is None else Path(folder)
    landmarks, texture = _read_ljson(root / "james.ljson") if name == "james" else None, image and root / image
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


def _read_ljson(path: Path) -> Float[Tensor, "68 3"]:
    """Return the points of a menpo landmark file (version 3) in the order of iBUG's 68."""
    try:
        content = next(iter(json.loads(path.read_text(encoding="utf-8"))["groups"].values()))
        masks = {label["label"]: label["mask"] for label in content["labels"]}
        order = [index for part in IBUG_PARTS for index in masks[part]]
        return torch.tensor(content["landmarks"]["points"], dtype=torch.float32)[order].view(68, 3)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, StopIteration, RuntimeError) as error:
        raise AssetError(f"{path} is not a landmark file ({type(error).__name__}: {error}). {AGAIN}") from error


@dataclass(frozen=True)
class PreparedScan:
    """A scan on the project's axes with 68 landmarks, the nose towards the viewer."""

    scan: Scan
    marked_by: str
    note: str


def prepared(name: str, folder: str | Path | None = None) -> PreparedScan:
    """Return an open scan on the project's axes, with its own landmarks or MediaPipe's. Raises the errors of `mark`."""
    scan, facts = read_scan(name, folder), FACTS[name]
    axes = torch.tensor(facts.axes)
    landmarks = None if scan.landmarks is None else scan.landmarks @ axes.T
    scan = replace(scan, vertices=scan.vertices @ axes.T, landmarks=landmarks)
    if facts.inside_out:
        corners = None if scan.uv_triangles is None else scan.uv_triangles.flip(1)
        scan = replace(scan, triangles=scan.triangles.flip(1), uv_triangles=corners)
    if facts.skin:
        scan = _keep(scan, seen_from_outside(scan.vertices, scan.triangles))
    marked_by = "MediaPipe on a rendering" if landmarks is None else "its own landmarks"
    scan = marked(scan) if landmarks is None else to_front(scan)
    if facts.cut is not None:
        left, right, below, above = facts.cut
        x, y = scan.vertices[:, 0], scan.vertices[:, 1]
        inside = (x > left) & (x < right) & (y > below) & (y < above)
        scan = _keep(scan, ~inside[scan.triangles].any(1))
    return PreparedScan(scan, marked_by, facts.note)


def marked(scan: Scan) -> Scan:
    """Turn a roughly frontal scan straight to the viewer; return it with landmarks. Raises the errors of `mark`."""
    for _ in range(2):  # in the second pass the scan already faces the viewer
        scan = to_front(replace(scan, landmarks=mark(scan)))
    return scan


def to_front(scan: Scan) -> Scan:
    """Return a scan aligned with the mean head; if its unit is unknown, scale its outer eyes to `EYES` mm apart."""
    landmarks, synth = scan.landmarks, SynthFace()
    factor = 1.0 if scan.unit == "mm" else EYES / float((landmarks[36] - landmarks[45]).norm())
    inner = slice(17, 68)  # annotators differ most on the jaw line
    frontal = synth.landmarks.of(synth.mean)
    move = similarity(factor * landmarks[None, inner], frontal[None, inner], scale=False)
    vertices, landmarks = (move.apply(factor * points[None])[0] for points in (scan.vertices, landmarks))
    return replace(scan, vertices=vertices, landmarks=landmarks)


def seen_from_outside(
    vertices: Float[Tensor, "vertices 3"], triangles: Int[Tensor, "triangles 3"]
) -> Bool[Tensor, " triangles"]:
    """Return which triangles have more than GLIMPSE pixels in all the views from around the front of a scan."""
    middle = (vertices.amin(0) + vertices.amax(0)) / 2
    reach = float((vertices - middle).norm(dim=1).max())
    angles = torch.deg2rad(torch.tensor([[yaw, 0.0, 0.0] for yaw in LOOKS]))
    scale, centre = torch.full((len(LOOKS),), 0.5 * FINE / reach), torch.full((len(LOOKS), 2), FINE / 2)
    camera = WeakPerspective(euler_to_matrix(angles), scale, centre)
    drawn = rasterize(camera.project((vertices - middle)[None]), triangles, (FINE, FINE)).triangle
    pixels = torch.bincount(drawn.flatten() + 1, minlength=len(triangles) + 1)  # the background, -1, comes first
    return pixels[1:] > GLIMPSE


def _keep(scan: Scan, triangles: Bool[Tensor, " triangles"]) -> Scan:
    """Return the scan with some of its triangles, and the vertices they use."""
    chosen = scan.triangles[triangles]
    used, index = chosen.unique(return_inverse=True)
    corners = None if scan.uv_triangles is None else scan.uv_triangles[triangles]
    return replace(scan, vertices=scan.vertices[used], triangles=index.view_as(chosen), uv_triangles=corners)
