"""The open scans made ready to be compared: on the project's axes, in mm where the unit is known, with 68 landmarks.

How each file lies was found by looking at it. The unit of two scans is unknown. They are scaled to a usual distance of
the outer eye corners, so errors on them say nothing about size, and only the non-metrical protocol applies.
"""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facenb.datasets.scans.open_scans import read_scan
from facenb.datasets.scans.views import EYES, mark
from facenb.imaging.camera import WeakPerspective, euler_to_matrix
from facenb.imaging.raster import rasterize
from facenb.morphable.alignment import similarity
from facenb.morphable.scan import Scan
from facenb.synthface.people import SynthFace

LOOKS = (-80.0, -60.0, -40.0, -20.0, 0.0, 20.0, 40.0, 60.0, 80.0)  # degrees of yaw; from above one would see inside
FINE = 1024  # pixels of a view: smaller triangles may be missed
GLIMPSE = 6  # pixels, of all views together, up to which a triangle counts as seen through a slit only


@dataclass(frozen=True)
class _Facts:
    """How a file lies, and what is cut out."""

    axes: tuple[tuple[float, float, float], ...]  # rows: the project's x, y and z in the file's axes
    inside_out: bool = False  # triangles run clockwise seen from outside
    skin: bool = False  # what cannot be seen from outside (mouth, windpipe) is left out
    cut: tuple[float, float, float, float] | None = None  # left, right, below, above of a cut-out, mm, seen from front
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


@dataclass(frozen=True)
class PreparedScan:
    """A scan on the project's axes with 68 landmarks, the nose towards the viewer."""

    scan: Scan
    metrical: bool  # whether its mm are true
    marked_by: str
    note: str


@cache
def frontal_landmarks() -> Float[Tensor, "68 3"]:
    """Return the landmarks of an average head that looks at the viewer, mm."""
    synth = SynthFace()
    return synth.landmarks.of(synth.mean)


def seen_from_outside(
    vertices: Float[Tensor, "vertices 3"], triangles: Int[Tensor, "triangles 3"]
) -> Bool[Tensor, " triangles"]:
    """Return which triangles a viewer who walks round the front of a scan sees more than a glimpse of."""
    middle = (vertices.amin(0) + vertices.amax(0)) / 2
    reach = float((vertices - middle).norm(dim=1).max())
    pixels = torch.zeros(len(triangles) + 1, dtype=torch.int64)
    for yaw in LOOKS:
        rotation = euler_to_matrix(torch.deg2rad(torch.tensor([[yaw, 0.0, 0.0]])))
        camera = WeakPerspective(rotation, torch.tensor([0.5 * FINE / reach]), torch.tensor([[FINE / 2, FINE / 2]]))
        drawn = rasterize(camera.project((vertices - middle)[None]), triangles, (FINE, FINE))
        pixels += torch.bincount(drawn.triangle.flatten() + 1, minlength=len(pixels))  # the background, -1, comes first
    return pixels[1:] > GLIMPSE


def keep(scan: Scan, triangles: Bool[Tensor, " triangles"]) -> Scan:
    """Return the scan with some of its triangles, and the vertices they use."""
    chosen = scan.triangles[triangles]
    used, index = chosen.unique(return_inverse=True)
    corners = None if scan.uv_triangles is None else scan.uv_triangles[triangles]
    return replace(scan, vertices=scan.vertices[used], triangles=index.view_as(chosen), uv_triangles=corners)


def to_front(scan: Scan, metrical: bool) -> Scan:
    """Return a scan with landmarks turned and moved so that it looks at the viewer as an average head does.

    A known size stays; an unknown one is scaled so that the outer eye corners lie `EYES` mm apart.
    """
    landmarks = scan.landmarks
    factor = 1.0 if metrical else EYES / float((landmarks[36] - landmarks[45]).norm())
    inner = slice(17, 68)  # people who mark a scan differ most on its jaw line
    move = similarity(factor * landmarks[None, inner], frontal_landmarks()[None, inner], scale=False)
    vertices, landmarks = (move.apply(factor * points[None])[0] for points in (scan.vertices, landmarks))
    return replace(scan, vertices=vertices, landmarks=landmarks)


def marked(scan: Scan) -> Scan:
    """Return a scan that roughly looks at the viewer, as those of MICC and BU-3DFE, turned straight, with landmarks.

    A unit other than mm is turned into mm by the eyes (see `to_front`). Raises what `mark` raises.
    """
    metrical = scan.unit == "mm"
    scan = to_front(replace(scan, landmarks=mark(scan)), metrical)
    scan = replace(scan, landmarks=mark(scan))  # once more, now that it looks straight at the viewer
    return to_front(scan, metrical)


def prepared(name: str, folder: str | Path | None = None) -> PreparedScan:
    """Return one of the open scans (see `read_scan`) on the project's axes, in mm, with landmarks.

    Landmarks are the scan's own, or MediaPipe's on a rendering. Raises what `read_scan` and `mark` raise.
    """
    scan, facts = read_scan(name, folder), FACTS[name]
    metrical = scan.unit == "mm"
    axes = torch.tensor(facts.axes)
    landmarks = None if scan.landmarks is None else scan.landmarks @ axes.T
    scan = replace(scan, vertices=scan.vertices @ axes.T, landmarks=landmarks)
    if facts.inside_out:
        corners = None if scan.uv_triangles is None else scan.uv_triangles.flip(1)
        scan = replace(scan, triangles=scan.triangles.flip(1), uv_triangles=corners)
    if facts.skin:
        scan = keep(scan, seen_from_outside(scan.vertices, scan.triangles))
    marked_by = "MediaPipe on a rendering" if scan.landmarks is None else "its own landmarks"
    scan = marked(scan) if scan.landmarks is None else to_front(scan, metrical)
    if facts.cut is not None:
        left, right, below, above = facts.cut
        x, y = scan.vertices[:, 0], scan.vertices[:, 1]
        inside = (x > left) & (x < right) & (y > below) & (y < above)
        scan = keep(scan, ~inside[scan.triangles].any(1))
    return PreparedScan(scan, metrical, marked_by, facts.note)
