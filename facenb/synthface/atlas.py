"""The UV atlas: the position of each part of the head in the texture, and maps of the mean head over the texels.

In MakeHuman's own charts the face fills only 5 % of the texture. `bake/atlas.py` made this atlas instead.
"""

from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from facenb.imaging.raster import interpolate, rasterize
from facenb.imaging.texture import sample
from facenb.synthface.heads import load_heads, mean_head

SIZE = 832  # texels of a side at full quality
FACE = 2.4  # texels per mm on the face
SKIN, SOCKET, MOUTH, TONGUE, EYE, UPPER_TEETH, LOWER_TEETH = range(7)  # components, as `Heads` names them
HAIR = (608, 8, 824, 208)  # tile of strands: left, bottom, right, top in texels, v upwards
CLOTH = (16, 16, 32, 32)  # tile of the shirt


def smooth_step(value, low, high):
    """Return 0 below `low`, 1 above `high`, and a smooth cubic between."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def bump(value, middle, width):
    """Return a Gaussian bump of height 1."""
    return np.exp(-(((value - middle) / width) ** 2))


def fit_sphere(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Return centre and radius of the sphere fitted to points by algebraic least squares."""
    solution = np.linalg.lstsq(np.concatenate([2 * points, np.ones((len(points), 1))], 1), (points**2).sum(1))[0]
    return solution[:3], float(np.sqrt(solution[3] + (solution[:3] ** 2).sum()))


@cache
def template() -> np.ndarray:
    """Return the mean head (V, 3) in mm; the origin is midway between the eyeballs' centres (do not write to it)."""
    left, _ = np.split(load_heads().part("eye"), 2)
    return mean_head() - [0, *fit_sphere(mean_head()[left])[0][1:]]


def lay_maps(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return maps of the template, `size` x `size` texels: position (mm), component and occlusion.

    Row 0 is the top. Texels outside every chart hold the nearest texel's values.
    """
    heads = load_heads()
    uv, corners = heads.uv, torch.from_numpy(heads.uv_triangles)
    at = torch.from_numpy(np.stack([uv[:, 0] * size, (1 - uv[:, 1]) * size, np.ones(len(uv))], -1))[None]
    fragments = rasterize(at.float(), corners, (size, size))
    values = np.column_stack([template(), heads.component, heads.occlusion])
    source = np.zeros((len(uv), 5))
    source[heads.uv_triangles] = values[heads.triangles]
    image = interpolate(fragments, torch.from_numpy(source)[None].float(), corners)[0].numpy()
    covered = fragments.triangle[0].numpy() >= 0
    image = image[tuple(distance_transform_edt(~covered, return_distances=False, return_indices=True))]
    return image[..., :3], np.rint(image[..., 3]).astype(int), image[..., 4]


def tile(box: tuple[int, int, int, int], size: int) -> tuple[slice, slice]:
    """Return rows and columns of a box of the atlas, plus a border of 8 atlas texels, in a texture of side `size`."""
    left, bottom, right, top = np.array(box) + (-8, -8, 8, 8)
    factor = SIZE // size
    return slice((SIZE - top) // factor, (SIZE - bottom) // factor), slice(left // factor, right // factor)


def at_vertices(maps: Float[Tensor, "batch size size channels"]) -> Float[Tensor, "batch vertices channels"]:
    """Return the values of atlas maps at the vertices. At a seam, the vertex's last triangle sets its texel."""
    heads = load_heads()
    uv = np.zeros((len(heads.component), 2), np.float32)
    uv[heads.triangles] = heads.uv[heads.uv_triangles]
    return sample(maps, torch.from_numpy(uv).expand(len(maps), 1, -1, -1))[:, 0]
