"""Render a scan turned by yaw, with its texture or as clay, and find its 68 landmarks on the images.

A weak perspective camera looks at a scan on the project's axes (x right, y up, z towards the viewer), in mm.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from scipy.spatial import cKDTree
from torch import Tensor
from torch.nn import functional

from facenb.errors import LandmarkError
from facenb.imaging.camera import WeakPerspective, euler_to_matrix
from facenb.imaging.lighting import ambient, directional
from facenb.imaging.raster import rasterize
from facenb.imaging.render import render
from facenb.imaging.texture import Texture
from facenb.morphable.mesh import Scan
from facenb.photos.images import read_image
from facenb.photos.landmarks import detect, to_68

FIELD = 215.0  # mm that the image's shorter side shows: a face with a margin, as in the training images
FINER = 2  # rendered that many times larger and averaged
SIDE = 512  # pixels of an image on which landmarks are found
EYES = 90.0  # mm from one outer eye corner to the other: about an adult's
REACH = 4.0  # radius in mm around a landmark, in which we look for the skin nearest to the viewer
JUMPS = (8.0,) * 17 + (25.0,) * 51  # mm by which it must lie in front: less on the jaw line, as no nose is near
CLAY, BEHIND = (0.78, 0.66, 0.58), (0.45, 0.45, 0.45)


def camera_of(scan: Scan, yaws: Sequence[float], size: tuple[int, int], field: float = FIELD) -> WeakPerspective:
    """Return a camera that centres the scan's landmarks in the image, or the whole scan if it has no landmarks.

    The shorter side shows `field` mm. A scan without landmarks is shown whole, whatever its unit.
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
    offset = rotation @ middle
    target = torch.tensor([size[1] / 2, 0.52 * size[0]])
    return WeakPerspective(rotation, scale, target + scale[:, None] * torch.stack([-offset[:, 0], offset[:, 1]], -1))


def render_views(
    scan: Scan, yaws: Sequence[float], size: tuple[int, int] = (256, 256), field: float = FIELD
) -> Float[Tensor, "yaws height width 3"]:
    """Return images (RGB in [0, 1]) of the scan turned by `yaws` (degrees; positive: the nose to the image's right).

    `size` is (height, width). A textured scan shows its texture unchanged, with the light of the recording. A scan
    without texture is rendered as clay under a lamp.
    """
    large = (size[0] * FINER, size[1] * FINER)
    surface, light = torch.tensor(CLAY).expand_as(scan.vertices)[None], ambient(torch.full((1, 3), 0.35))
    light = light + directional(torch.tensor([[-0.3, 0.4, 0.85]]), torch.full((1, 3), 0.75))
    if scan.texture is not None and scan.uv is not None:
        texture = read_image(scan.texture)
        reduce = max(1, max(texture.shape) // (4 * max(large)))  # averaged first, so that no detail is skipped
        surface = Texture(texture[None], scan.uv, scan.uv_triangles).reduced(reduce)
        light = None  # the texture contains the light of the recording
    camera = camera_of(scan, yaws, large, field)
    image = render(scan.vertices[None], scan.triangles, surface, camera, large, light, torch.tensor(BEHIND)).image
    return functional.avg_pool2d(image.permute(0, 3, 1, 2), FINER).permute(0, 2, 3, 1).clamp(0, 1)


def mark(scan: Scan) -> Float[Tensor, "68 3"]:
    """Return the 68 landmarks of a frontal scan: MediaPipe's landmarks on its image, projected back onto the surface.

    They are detected twice, the second time in a closer view. A point beside the scan (possible on the jaw line) moves
    to the nearest point on it. A point that misses the jaw and falls on the neck, or through a hole, moves to the skin
    in front of it. Raises LandmarkError with the scan's name if no face is found, AssetError if the detector is
    missing.
    """
    landmarks = _look(replace(scan, landmarks=None), FIELD)
    across = float((landmarks[36] - landmarks[45]).norm())  # in the scan's unit
    return _look(replace(scan, landmarks=landmarks), 2.4 * across)


def _look(scan: Scan, field: float) -> Float[Tensor, "68 3"]:
    faces = detect(render_views(scan, (0.0,), (SIDE, SIDE), field)[0], closer=True)
    if not len(faces):
        raise LandmarkError(f"No face is seen on the scan {scan.name}. Turn it to the viewer or give its 68 landmarks.")
    points, camera = to_68(faces[0]), camera_of(scan, (0.0,), (SIDE, SIDE), field)  # pixels
    depth = rasterize(camera.project(scan.vertices[None]), scan.triangles, (SIDE, SIDE)).depth[0]
    rows, columns = depth.isfinite().nonzero(as_tuple=True)
    centres, depths = torch.stack([columns, rows], 1) + 0.5, depth[rows, columns]
    tree = cKDTree(centres.numpy())
    distance, nearest = tree.query(points.numpy())
    nearest, moved = torch.from_numpy(nearest), torch.from_numpy(distance) > 1
    millimetre = float((points[36] - points[45]).norm()) / EYES  # in pixels, approximately, for any unit of the scan
    unit = millimetre / float(camera.scale[0])
    for k, around in enumerate(tree.query_ball_point(centres[nearest].numpy(), REACH * millimetre)):
        front = torch.tensor(around)[depths[around].argmin()]
        if depths[front] < depths[nearest[k]] - JUMPS[k] * unit:
            nearest[k], moved[k] = front, True
    points = torch.where(moved[:, None], centres[nearest], points)
    offset = (points - camera.translation[0]) / camera.scale[0]
    return torch.stack([offset[:, 0], -offset[:, 1], -depths[nearest]], 1) @ camera.rotation[0]
