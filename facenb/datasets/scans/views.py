"""Pictures of a scan: turned by yaw, with its texture or as clay, and the 68 landmarks that can be found on them.

A scan is seen by a weak perspective camera, on the project's axes (x right, y up, z towards the viewer) and in mm.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from scipy.spatial import cKDTree
from torch import Tensor
from torch.nn import functional

from facenb.errors import LandmarkError
from facenb.imaging.camera import WeakPerspective, euler_to_matrix
from facenb.imaging.lighting import ambient, directional
from facenb.imaging.raster import Fragments, interpolate, rasterize
from facenb.imaging.render import render
from facenb.morphable.scans import Scan
from facenb.photos.landmarks import detect, to_68

YAWS = tuple(range(-90, 91, 10))  # degrees: BU-3DFE as Liu et al. 2018 render it
FIELD = 215.0  # mm that the picture's shorter side shows: a face with some room, as in the training pictures
FINER = 2  # rendered that many times larger and averaged
EYES = 90.0  # mm from one outer eye corner to the other: about an adult's
REACH = 4.0  # mm about a landmark within which the skin that lies nearest to the viewer is looked for
JUMPS = (8.0,) * 17 + (25.0,) * 51  # mm that it has to lie in front: on the jaw line less, as no nose is near
CLAY, BEHIND = (0.78, 0.66, 0.58), (0.45, 0.45, 0.45)


@dataclass(frozen=True)
class ScanViews:
    """A scan as a camera sees it, one picture a yaw."""

    image: Float[Tensor, "yaws height width 3"]  # RGB in [0, 1]
    mask: Bool[Tensor, "yaws height width"]  # where the scan is seen
    yaws: tuple[float, ...]  # degrees; positive: the nose towards the image's right
    camera: WeakPerspective
    landmarks: Float[Tensor, "yaws 68 2"] | None  # pixels, hidden ones too; None where the scan has none

    def __len__(self) -> int:
        return len(self.image)


def camera_of(scan: Scan, yaws: Sequence[float], size: tuple[int, int], field: float = FIELD) -> WeakPerspective:
    """A camera that has the scan's landmarks (without any, all of it) in the picture's middle.

    `field` is what the shorter side shows, mm. A scan without landmarks is shown whole, whatever its unit.
    """
    angles = torch.zeros(len(yaws), 3)
    angles[:, 0] = torch.deg2rad(torch.as_tensor(yaws, dtype=torch.float32))
    rotation = euler_to_matrix(angles)
    if scan.landmarks is None:
        low, high = scan.vertices.amin(0), scan.vertices.amax(0)
        middle, field = (low + high) / 2, 1.05 * float((high - low)[:2].max())
    else:
        middle = scan.landmarks.mean(0)
    scale = torch.full((len(yaws),), min(size) / field)
    at = rotation @ middle
    target = torch.tensor([size[1] / 2, 0.52 * size[0]])
    return WeakPerspective(rotation, scale, target + scale[:, None] * torch.stack([-at[:, 0], at[:, 1]], -1))


def render_views(
    scan: Scan, yaws: Sequence[float] = YAWS, size: tuple[int, int] = (256, 256), field: float | int = FIELD
) -> ScanViews:
    """Pictures of the scan turned by each of `yaws` (degrees), `size` (height, width).

    A textured scan shows its texture as it is, with the light it was taken in; one without is clay under a lamp.
    ValueError for no yaws or a yaw that is not finite.
    """
    yaws = tuple(float(yaw) for yaw in yaws)
    if not yaws or not all(abs(yaw) <= 360 for yaw in yaws):
        raise ValueError(f"yaws are {yaws}: give at least one, in degrees")
    camera = camera_of(scan, yaws, size, float(field))
    large = (size[0] * FINER, size[1] * FINER)
    closer = WeakPerspective(camera.rotation, camera.scale * FINER, camera.translation * FINER)
    shown = _textured if scan.texture is not None and scan.uv is not None else _clay
    image, mask = shown(scan, closer, large)
    both = torch.cat([image * mask[..., None], mask[..., None].float()], -1).permute(0, 3, 1, 2)
    both = functional.avg_pool2d(both, FINER).permute(0, 2, 3, 1)
    image = both[..., :3] + (1 - both[..., 3:]) * torch.tensor(BEHIND)
    landmarks = None if scan.landmarks is None else camera.project(scan.landmarks[None])[..., :2]
    return ScanViews(image.clamp(0, 1), both[..., 3] > 0.5, yaws, camera, landmarks)


def _fragments(scan: Scan, camera: WeakPerspective, size: tuple[int, int]) -> Fragments:
    return rasterize(camera.project(scan.vertices[None]), scan.triangles, size)


def _textured(scan: Scan, camera: WeakPerspective, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    texture = scan.image().permute(2, 0, 1)[None]
    fine = max(1, max(texture.shape[2:]) // (4 * max(size)))  # averaged first, so that no detail is skipped
    texture = functional.avg_pool2d(texture, fine)
    seen = _fragments(scan, camera, size)
    uv = interpolate(seen, scan.uv[None].expand(len(seen.triangle), -1, -1), scan.triangles)
    grid = torch.stack([2 * uv[..., 0] - 1, 1 - 2 * uv[..., 1]], -1)  # v counts from the bottom
    planes = texture.expand(len(grid), -1, -1, -1)
    image = functional.grid_sample(planes, grid, padding_mode="border", align_corners=False)
    return image.permute(0, 2, 3, 1), seen.triangle >= 0


def _clay(scan: Scan, camera: WeakPerspective, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    light = ambient(torch.full((1, 3), 0.35)) + directional(torch.tensor([[-0.3, 0.4, 0.85]]), torch.full((1, 3), 0.75))
    clay = torch.tensor(CLAY).expand_as(scan.vertices)[None]
    shown = render(scan.vertices[None], scan.triangles, clay, camera, size, light)
    return shown.image, shown.mask


def mark(scan: Scan, side: int = 512) -> Float[Tensor, "68 3"]:
    """The 68 landmarks of a scan that looks at the viewer: MediaPipe's on its picture, laid back onto the surface.

    Found twice, the second time closer to the face. A point beside the scan (the jaw line may be) goes to the nearest
    place on it; one that falls past the jaw onto the neck, or through a hole, to the skin in front of it thereabouts.
    Raises LandmarkError, naming the scan, where no face is seen; AssetError without the detector.
    """
    plain = Scan(scan.name, scan.vertices, scan.triangles, scan.unit, None, scan.uv, scan.texture)
    found = _look(plain, side, FIELD)
    across = float((found[36] - found[45]).norm())  # of a scan in any unit
    return _look(
        Scan(scan.name, scan.vertices, scan.triangles, scan.unit, found, scan.uv, scan.texture), side, 2.4 * across
    )


def _look(scan: Scan, side: int, field: float) -> Float[Tensor, "68 3"]:
    views = render_views(scan, (0.0,), (side, side), field)
    found = detect(views.image[0], closer=True)
    if not found.count:
        raise LandmarkError(
            f"no face is seen on the scan {scan.name}; turn it to the viewer, or give its 68 landmarks yourself"
        )
    points = to_68(found.pick())  # pixels
    depth = _fragments(scan, views.camera, (side, side)).depth[0]
    rows, columns = depth.isfinite().nonzero(as_tuple=True)
    centres = torch.stack([columns, rows], 1) + 0.5
    tree, depths, camera = cKDTree(centres.numpy()), depth[rows, columns], views.camera
    away, nearest = tree.query(points.numpy())
    nearest, beside = torch.from_numpy(nearest), torch.from_numpy(away) > 1
    millimetre = float((points[36] - points[45]).norm()) / EYES  # about so many pixels, whatever the scan's unit
    unit = millimetre / float(camera.scale[0])
    for k, around in enumerate(tree.query_ball_point(centres[nearest].numpy(), REACH * millimetre)):
        front = torch.tensor(around)[depths[around].argmin()]
        if depths[front] < depths[nearest[k]] - JUMPS[k] * unit:
            nearest[k], beside[k] = front, True
    points = torch.where(beside[:, None], centres[nearest], points)
    offset = (points - camera.translation[0]) / camera.scale[0]
    turned = torch.stack([offset[:, 0], -offset[:, 1], -depths[nearest]], 1)
    return turned @ camera.rotation[0]
