"""Textured shading on the CPU (see `texture.shade`), forward only, as loops that numba compiles.

`_shade` computes the colour of each pixel: the factor, interpolated between the triangle's corners, times the texture
at the pixel's uv. If there is relief, `_relight` multiplies by the light on the tilted normal. Arrays have the shapes
that `texture.shade` states, with all pixels of an image on one axis.

numba may fuse a product and a sum ("contract"), so results differ from torch's by rounding. Indices are unsigned, so
the code needs no test for negative indices.
"""

import numpy as np
import torch
from torch import Tensor

from facenb.imaging.compiled import compiled
from facenb.imaging.lighting import C0, C1, C2, C2_XY, C2_ZZ
from facenb.imaging.raster_numba import array, cross, edges, in_parallel

TINY = 1e-12  # mm^4: a triangle whose cross product has a smaller square has no gradient


def shade(texture, fragments, triangles, factor, bumps) -> Tensor:
    """Return the colours (B, H, W, 3). `bumps` holds slopes, vertices, normals and light; None without relief."""
    dtype = factor.dtype
    faces = [array(t.to(torch.int32)).view(np.uint32) for t in (triangles, texture.triangles)]
    seen = [array(fragments.triangle.flatten(1)), array(fragments.barycentric.flatten(1, 2).to(dtype))]
    uv, image, values = array(texture.uv.to(dtype)), array(texture.image.to(dtype)), np.empty_like(seen[1])
    bumps = bumps and tuple(array(t.to(dtype)) for t in bumps)
    in_parallel(_shade, len(values), *seen, *faces, uv, image, array(factor), bumps, values)
    return torch.from_numpy(values).view_as(fragments.barycentric)


@compiled(fastmath={"contract"})
def _texels(coordinate, count):
    """Return the two texels next to a coordinate in [0, 1], and its distance from the first texel, in texels."""
    position = coordinate * np.float32(count) - np.float32(0.5)
    position = max(np.float32(0), min(position, np.float32(count - 1)))
    low = np.uint32(position)
    return low, min(low + np.uint32(1), np.uint32(count - 1)), position - np.float32(low)


@compiled(fastmath={"contract"})
def _corners(source, uv, corners, wa, wb, wc):
    """Return columns and rows of the four texels around a triangle's point, and its distances from the first texel."""
    a, b, c = corners[0], corners[1], corners[2]
    u = wa * uv[a, 0] + wb * uv[b, 0] + wc * uv[c, 0]
    v = wa * uv[a, 1] + wb * uv[b, 1] + wc * uv[c, 1]
    left, right, x = _texels(u, source.shape[1])
    top, bottom, y = _texels(np.float32(1) - v, source.shape[0])
    return left, right, x, top, bottom, y


@compiled(fastmath={"contract"})
def _bilinear(source, texels, k):
    """Return channel k, interpolated between four texels."""
    left, right, x, top, bottom, y = texels
    both = x * y
    upper = (np.float32(1) - x - y + both) * source[top, left, k] + (x - both) * source[top, right, k]
    return upper + (y - both) * source[bottom, left, k] + both * source[bottom, right, k]


@compiled(fastmath={"contract"})
def _blend(values, a, b, c, wa, wb, wc, k):
    """Return channel k, interpolated between the corners of a triangle."""
    return wa * values[a, k] + wb * values[b, k] + wc * values[c, k]


@compiled(fastmath={"contract"})
def _shade(first, end, triangle, barycentric, triangles, uv_triangles, uv, image, factor, bumps, values):
    for item in range(first, end):
        source, scale = image[min(item, len(image) - 1)], factor[item]
        seen, weights, out = triangle[item], barycentric[item], values[item]
        for pixel in range(np.uint64(len(seen))):
            if seen[pixel] < 0:
                out[pixel] = 0
                continue
            t = np.uint64(seen[pixel])
            wa, wb, wc = weights[pixel, 0], weights[pixel, 1], weights[pixel, 2]
            texels = _corners(source, uv, uv_triangles[t], wa, wb, wc)
            a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            for k in range(3):
                out[pixel, k] = _blend(scale, a, b, c, wa, wb, wc, k) * _bilinear(source, texels, k)
            if bumps is not None:
                _relight(item, triangles[t], uv_triangles[t], uv, wa, wb, wc, bumps, out[pixel])


@compiled(fastmath={"contract"})
def _relight(item, corners, uv_corners, uv, wa, wb, wc, bumps, colour):
    """Multiply a pixel's colour by the light on the interpolated normal, which the relief tilts."""
    slopes, vertices, normals, light = bumps
    source, lamp, n = slopes[min(item, len(slopes) - 1)], light[min(item, len(light) - 1)], normals[item]
    texels = _corners(source, uv, uv_corners, wa, wb, wc)
    slope_u, slope_v = _bilinear(source, texels, 0), _bilinear(source, texels, 1)
    a, b, c = uv_corners[0], uv_corners[1], uv_corners[2]
    rise_b = slope_u * (uv[b, 0] - uv[a, 0]) + slope_v * (uv[b, 1] - uv[a, 1])  # mm along ab
    rise_c = slope_u * (uv[c, 0] - uv[a, 0]) + slope_v * (uv[c, 1] - uv[a, 1])  # mm along ac
    a, b, c = corners[0], corners[1], corners[2]
    gx, gy, gz = _gradient(vertices[item], a, b, c, rise_b, rise_c)
    x, y = _blend(n, a, b, c, wa, wb, wc, 0), _blend(n, a, b, c, wa, wb, wc, 1)
    x, y, z = _unit(x, y, _blend(n, a, b, c, wa, wb, wc, 2))
    x, y, z = _unit(x - gx, y - gy, z - gz)
    for k in range(3):
        received = C0 * lamp[0, k] + C1 * (y * lamp[1, k] + z * lamp[2, k] + x * lamp[3, k])
        received += C2 * (x * y * lamp[4, k] + y * z * lamp[5, k] + x * z * lamp[7, k])
        received += C2_ZZ * (3 * z * z - 1) * lamp[6, k] + C2_XY * (x * x - y * y) * lamp[8, k]
        colour[k] *= received


@compiled(fastmath={"contract"})
def _gradient(p, a, b, c, rise_b, rise_c):
    """Return the gradient, in the triangle's plane, of a height that rises by rise_b along ab and rise_c along ac."""
    ab, ac = edges(p, a, b, c)
    n = cross(ab, ac)
    square = max(n[0] * n[0] + n[1] * n[1] + n[2] * n[2], TINY)
    along_b, along_c = cross(ac, n), cross(n, ab)
    rise_b, rise_c = rise_b / square, rise_c / square
    x, y = rise_b * along_b[0] + rise_c * along_c[0], rise_b * along_b[1] + rise_c * along_c[1]
    return x, y, rise_b * along_b[2] + rise_c * along_c[2]


@compiled(fastmath={"contract"})
def _unit(x, y, z):
    length = max(np.sqrt(x * x + y * y + z * z), TINY)
    return x / length, y / length, z / length
