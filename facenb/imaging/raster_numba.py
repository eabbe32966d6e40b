"""Rasteriser, interpolation and vertex normals on the CPU, forward and backward, as loops that numba compiles.

The docstrings of `raster` and `render` define the results. An image is drawn in three steps:

1. `_snap` rounds u and v of each vertex to whole numbers of 1/1024 pixel.
2. `_cover` loops over the triangles, and over the pixels in the bounding box of each. It keeps the nearest triangle of
   each pixel. Coverage is exact: edge functions are whole numbers below 2^53 (coordinates are at most 2^25).
3. `_locate` loops over the pixels. It computes barycentrics and depth from the original vertices, before rounding.

Array shapes are those in `raster`. Only `_blend` and `_blend_backward` have all pixels of an image on one axis. A
kernel works on images `first` to `end` (exclusive), without the GIL. `in_parallel` distributes the images over plain
threads, as many as torch uses. OpenMP is avoided, because a forked data loader must not have a second OpenMP pool.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from facenb.imaging.compiled import compiled

SHIFT = 10
SUBPIXELS = 1 << SHIFT  # snapping steps a pixel
LIMIT = 32768  # pixels: SUBPIXELS * LIMIT = 2^25, so that edge functions stay below 2^53
FAR = 1e12  # mm
TINY = 1e-12  # square mm: a sum of normals shorter than this has no direction
NEAR = 1.0  # mm: under perspective, a triangle is dropped if a vertex has at most this depth
FLAT = 2.0**-20  # square pixels: if twice the unsnapped area is smaller, a triangle gets equal weights

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}


def in_parallel(kernel, count: int, *arguments) -> None:
    """Split `count` items into ranges, and call `kernel(first, end, *arguments)` on as many threads as torch uses."""
    threads = min(torch.get_num_threads(), count)
    if threads <= 1:
        kernel(0, count, *arguments)
        return
    key = (os.getpid(), torch.get_num_threads())  # a forked child has the parent's pool but none of its threads
    if key not in _pools:
        _pools[key] = ThreadPoolExecutor(key[1], thread_name_prefix="raster")
    bounds = [count * k // threads for k in range(threads + 1)]
    tasks = [_pools[key].submit(kernel, a, b, *arguments) for a, b in zip(bounds[1:-1], bounds[2:], strict=True)]
    kernel(0, bounds[1], *arguments)
    for task in tasks:
        task.result()


def array(tensor: Tensor) -> np.ndarray:
    """Return the tensor's memory, or a contiguous copy of it."""
    return tensor.detach().contiguous().numpy()


# We allocate with numpy, which requests huge pages. Page faults took a sixth of the time for large images.


class Rasterize(torch.autograd.Function):
    """From `raster.rasterize`'s arguments to triangle indices, barycentrics and depth."""

    @staticmethod
    def forward(ctx, projected, triangles, size, perspective):
        triangles, points = triangles.to(torch.int32), array(projected)
        triangle = np.empty((len(points), *size), np.int64)
        barycentric, depth = np.empty((*triangle.shape, 3), points.dtype), np.empty(triangle.shape, points.dtype)
        bands = min(max(1, -(-torch.get_num_threads() // max(len(points), 1))), size[0])  # few images: split their rows
        scene = bands, points, array(triangles), perspective
        in_parallel(_draw, len(points) * bands, *scene, triangle, barycentric, depth)
        outputs = tuple(map(torch.from_numpy, (triangle, barycentric, depth)))
        ctx.save_for_backward(projected, triangles, outputs[0])
        ctx.perspective = perspective
        ctx.mark_non_differentiable(outputs[0])
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx, _, grad_barycentric, grad_depth):
        points, *seen = map(array, ctx.saved_tensors)
        grad = np.zeros(points.shape, points.dtype)
        grads = array(grad_barycentric), array(grad_depth), grad
        in_parallel(_draw_backward, len(points), points, *seen, ctx.perspective, *grads)
        return torch.from_numpy(grad), None, None, None


class Interpolate(torch.autograd.Function):
    """From triangle indices, barycentrics, attributes and triangles to the attributes at each pixel."""

    @staticmethod
    def forward(ctx, triangle, barycentric, attributes, triangles):
        inputs = triangle.flatten(1), barycentric.flatten(1, 2), attributes, triangles.to(torch.int32)
        seen, weights, values, corners = map(array, inputs)
        image = np.empty((*seen.shape, values.shape[2]), values.dtype)
        in_parallel(_blend, len(image), seen, weights, values, corners, image)
        ctx.save_for_backward(*inputs)
        return torch.from_numpy(image).view(*triangle.shape, attributes.shape[-1])

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        seen, weights, values, corners = map(array, ctx.saved_tensors)
        to_weights, to_values = np.zeros(weights.shape, weights.dtype), np.zeros(values.shape, values.dtype)
        inputs = seen, weights, values, corners, array(grad.flatten(1, 2))
        in_parallel(_blend_backward, len(grad), *inputs, to_weights, to_values)
        return None, torch.from_numpy(to_weights).view(*grad.shape[:3], 3), torch.from_numpy(to_values), None


class UnitNormals(torch.autograd.Function):
    """From vertices and triangles to unit normals (normalised sums of cross products); 0 without a triangle."""

    @staticmethod
    def forward(ctx, vertices, triangles):
        triangles, points = triangles.to(torch.int32), array(vertices)
        normals, lengths = np.zeros(points.shape, points.dtype), np.empty(points.shape[:2], points.dtype)
        in_parallel(_normals, len(points), points, array(triangles), normals, lengths)
        normals = torch.from_numpy(normals)
        ctx.save_for_backward(vertices, triangles, normals, torch.from_numpy(lengths))
        return normals

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_normals):
        vertices, triangles, normals, lengths = ctx.saved_tensors
        along = (grad_normals * normals).sum(-1, keepdim=True)
        grad_sum = (grad_normals - along * normals) / lengths[..., None]  # derivative of a unit vector
        points = array(vertices)
        grad = np.zeros(points.shape, points.dtype)
        in_parallel(_normals_backward, len(points), points, array(triangles), array(grad_sum), grad)
        return torch.from_numpy(grad), None


@compiled()
def _snap(projected, perspective, x, y, order):
    """Round the vertices of one image to 1/1024 pixel, into x and y. `order` grows with depth, NaN if unusable."""
    for i in range(len(projected)):
        u, v, depth = np.float64(projected[i, 0]), np.float64(projected[i, 1]), np.float64(projected[i, 2])
        usable = abs(u) <= LIMIT and abs(v) <= LIMIT and abs(depth) <= FAR  # false for NaN, too
        if usable and (depth > NEAR or not perspective):
            x[i] = np.int64(np.rint(u * SUBPIXELS))
            y[i] = np.int64(np.rint(v * SUBPIXELS))
            order[i] = -1.0 / depth if perspective else depth
        else:
            x[i], y[i], order[i] = 0, 0, np.nan


@compiled()
def _is_not_top_left(dx, dy):
    """Return the least edge function of a covered pixel: 0 if the edge (dx, dy) is a top or left edge, else 1."""
    return 0 if dy < 0 or (dy == 0 and dx > 0) else 1


@compiled()
def _cover(x, y, order, triangles, first_row, end_row, width, triangle, nearest):
    """Find the nearest triangle of each pixel in the rows first_row to end_row of one image.

    The edge function of a corner is twice the area of the triangle between the opposite edge and the pixel. A pixel is
    covered if no edge function is below its minimum (see `_is_not_top_left`). Edge functions are linear in the pixel
    position: a step right or down adds a constant. Divided by their sum, they are the barycentrics, which interpolate
    `order`.
    """
    half = SUBPIXELS // 2
    for t in range(len(triangles)):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        xa, xb, xc, ya, yb, yc = x[a], x[b], x[c], y[a], y[b], y[c]
        top = max((min(ya, yb, yc) + half - 1) >> SHIFT, first_row)
        bottom = min((max(ya, yb, yc) - half) >> SHIFT, end_row - 1)
        left = max((min(xa, xb, xc) + half - 1) >> SHIFT, 0)
        right = min((max(xa, xb, xc) - half) >> SHIFT, width - 1)
        if (bottom - top) | (right - left) < 0:  # one branch for both: mispredicted branches dominate the cost here
            continue
        area = (xb - xa) * (yc - ya) - (xc - xa) * (yb - ya)
        if area == 0 or np.isnan(order[a] + order[b] + order[c]):
            continue
        if area < 0:
            b, c = c, b
            xb, xc, yb, yc, area = xc, xb, yc, yb, -area
        oa, ob, oc = order[a] / area, order[b] / area, order[c] / area
        dxa, dxb, dxc = xc - xb, xa - xc, xb - xa  # the edges opposite the corners
        dya, dyb, dyc = yc - yb, ya - yc, yb - ya
        ba, bb, bc = _is_not_top_left(dxa, dya), _is_not_top_left(dxb, dyb), _is_not_top_left(dxc, dyc)
        px, py = left * SUBPIXELS + half, top * SUBPIXELS + half
        row_a = (xb - px) * (yc - py) - (xc - px) * (yb - py)
        row_b = (xc - px) * (ya - py) - (xa - px) * (yc - py)
        row_c = (xa - px) * (yb - py) - (xb - px) * (ya - py)
        for row in range(top, bottom + 1):
            ea, eb, ec = row_a, row_b, row_c
            for column in range(left, right + 1):
                if (ea - ba) | (eb - bb) | (ec - bc) >= 0:
                    value = (ea * oa + eb * ob) + ec * oc
                    if value < nearest[row - first_row, column]:
                        nearest[row - first_row, column] = value
                        triangle[row, column] = t
                ea -= dya * SUBPIXELS
                eb -= dyb * SUBPIXELS
                ec -= dyc * SUBPIXELS
            row_a += dxa * SUBPIXELS
            row_b += dxb * SUBPIXELS
            row_c += dxc * SUBPIXELS


@compiled()
def _weights(projected, a, b, c, u, v, perspective):
    """Return three weights in the proportions of the barycentrics of (u, v), and values for their derivatives.

    These values are the sign of the area (0 if the triangle is too flat) and the corners' positions relative to (u, v).
    The weights are the edge functions, clamped to at least 0. Under perspective, they are divided by the depths.
    """
    xa, ya = projected[a, 0] - u, projected[a, 1] - v
    xb, yb = projected[b, 0] - u, projected[b, 1] - v
    xc, yc = projected[c, 0] - u, projected[c, 1] - v
    wa, wb, wc = xb * yc - xc * yb, xc * ya - xa * yc, xa * yb - xb * ya
    area = wa + wb + wc
    sign = -1.0 if area < 0 else 1.0
    if abs(area) < FLAT:
        wa, wb, wc, sign = 1.0, 1.0, 1.0, 0.0
    else:
        wa, wb, wc = max(wa * sign, 0.0), max(wb * sign, 0.0), max(wc * sign, 0.0)
    if perspective:
        wa, wb, wc = wa / projected[a, 2], wb / projected[b, 2], wc / projected[c, 2]
    return wa, wb, wc, sign, xa, ya, xb, yb, xc, yc


@compiled()
def _draw(first, end, bands, projected, triangles, perspective, triangle, barycentric, depth):
    """Draw bands `first` to `end` of all images; each image is cut into `bands` bands of rows."""
    vertices, (height, width) = projected.shape[1], triangle.shape[1:]
    x, y = np.empty(vertices, np.int64), np.empty(vertices, np.int64)
    order = np.empty(vertices, np.float64)
    nearest = np.empty((height // bands + 1, width))
    for item in range(first, end):
        image, band = item // bands, item % bands
        low, high = height * band // bands, height * (band + 1) // bands
        nearest[: high - low] = np.inf
        triangle[image, low:high] = -1
        _snap(projected[image], perspective, x, y, order)
        _cover(x, y, order, triangles, low, high, width, triangle[image], nearest)
        _locate(projected[image], triangles, perspective, low, high, triangle[image], barycentric[image], depth[image])


@compiled()
def _locate(p, triangles, perspective, low, high, triangle, barycentric, depth):
    """Compute barycentrics and depth at the pixels in the rows low to high of one image."""
    for row in range(low, high):
        for column in range(triangle.shape[1]):
            t = triangle[row, column]
            if t < 0:
                barycentric[row, column] = 0
                depth[row, column] = np.inf
                continue
            a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            weights = _weights(p, a, b, c, column + 0.5, row + 0.5, perspective)
            scale = 1.0 / (weights[0] + weights[1] + weights[2])
            wa, wb, wc = weights[0] * scale, weights[1] * scale, weights[2] * scale
            barycentric[row, column, 0] = wa
            barycentric[row, column, 1] = wb
            barycentric[row, column, 2] = wc
            depth[row, column] = wa * p[a, 2] + wb * p[b, 2] + wc * p[c, 2]


@compiled()
def _draw_backward(first, end, projected, triangles, triangle, perspective, grad_barycentric, grad_depth, grad):
    """Add the gradients of u, v and depth. With the weights m of `_weights`, barycentrics are m / sum(m)."""
    height, width = triangle.shape[1:]
    for image in range(first, end):
        p, g = projected[image], grad[image]
        for row in range(height):
            for column in range(width):
                t = triangle[image, row, column]
                if t < 0:
                    continue
                a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
                ma, mb, mc, sign, xa, ya, xb, yb, xc, yc = _weights(p, a, b, c, column + 0.5, row + 0.5, perspective)
                total = ma + mb + mc
                gd = grad_depth[image, row, column]
                ga = grad_barycentric[image, row, column, 0] + gd * p[a, 2]
                gb = grad_barycentric[image, row, column, 1] + gd * p[b, 2]
                gc = grad_barycentric[image, row, column, 2] + gd * p[c, 2]
                mean = (ga * ma + gb * mb + gc * mc) / total
                ga, gb, gc = (ga - mean) / total, (gb - mean) / total, (gc - mean) / total
                g[a, 2] += gd * ma / total
                g[b, 2] += gd * mb / total
                g[c, 2] += gd * mc / total
                if perspective:
                    g[a, 2] -= ga * ma / p[a, 2]
                    g[b, 2] -= gb * mb / p[b, 2]
                    g[c, 2] -= gc * mc / p[c, 2]
                    ga, gb, gc = ga / p[a, 2], gb / p[b, 2], gc / p[c, 2]
                ga, gb, gc = ga * sign, gb * sign, gc * sign
                g[a, 0] += gc * yb - gb * yc
                g[a, 1] += gb * xc - gc * xb
                g[b, 0] += ga * yc - gc * ya
                g[b, 1] += gc * xa - ga * xc
                g[c, 0] += gb * ya - ga * yb
                g[c, 1] += ga * xb - gb * xa


@compiled()
def _blend(first, end, triangle, barycentric, attributes, triangles, values):
    """Write the weighted sum of the corners' attributes to each pixel, 0 to the background."""
    for image in range(first, end):
        for pixel in range(values.shape[1]):
            t = triangle[image, pixel]
            if t < 0:
                values[image, pixel] = 0
                continue
            a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            wa, wb, wc = barycentric[image, pixel, 0], barycentric[image, pixel, 1], barycentric[image, pixel, 2]
            for k in range(values.shape[2]):
                blend = wa * attributes[image, a, k] + wb * attributes[image, b, k] + wc * attributes[image, c, k]
                values[image, pixel, k] = blend


@compiled()
def _blend_backward(first, end, triangle, barycentric, attributes, triangles, grad, grad_barycentric, grad_attributes):
    """Add the gradients of barycentrics and attributes, from the gradient of the blended values."""
    for image in range(first, end):
        for pixel in range(grad.shape[1]):
            t = triangle[image, pixel]
            if t < 0:
                continue
            for corner in range(3):
                vertex, weight = triangles[t, corner], barycentric[image, pixel, corner]
                total = 0.0
                for k in range(grad.shape[2]):
                    g = grad[image, pixel, k]
                    total += g * attributes[image, vertex, k]
                    grad_attributes[image, vertex, k] += g * weight
                grad_barycentric[image, pixel, corner] = total


@compiled()
def edges(p, a, b, c):
    """Return the vectors ab and ac."""
    ab = p[b, 0] - p[a, 0], p[b, 1] - p[a, 1], p[b, 2] - p[a, 2]
    return ab, (p[c, 0] - p[a, 0], p[c, 1] - p[a, 1], p[c, 2] - p[a, 2])


@compiled()
def cross(a, b):
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@compiled()
def _normals(first, end, vertices, triangles, normals, lengths):
    """Sum the triangles' cross products in `normals` (initially 0), then divide by `lengths` (at least TINY)."""
    for image in range(first, end):
        p, n = vertices[image], normals[image]
        for t in range(len(triangles)):
            a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            ab, ac = edges(p, a, b, c)
            area = cross(ab, ac)
            for k in range(3):
                n[a, k] += area[k]
                n[b, k] += area[k]
                n[c, k] += area[k]
        for v in range(len(n)):
            length = max(np.sqrt(n[v, 0] * n[v, 0] + n[v, 1] * n[v, 1] + n[v, 2] * n[v, 2]), TINY)
            lengths[image, v] = length
            for k in range(3):
                n[v, k] /= length


@compiled()
def _normals_backward(first, end, vertices, triangles, grad_normals, grad):
    """Add the gradients of the vertices. If n = ab x ac has gradient g, ab has gradient ac x g, and ac has g x ab."""
    for image in range(first, end):
        p, g, out = vertices[image], grad_normals[image], grad[image]
        for t in range(len(triangles)):
            a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            ab, ac = edges(p, a, b, c)
            total = g[a, 0] + g[b, 0] + g[c, 0], g[a, 1] + g[b, 1] + g[c, 1], g[a, 2] + g[b, 2] + g[c, 2]
            to_b, to_c = cross(ac, total), cross(total, ab)
            for k in range(3):
                out[b, k] += to_b[k]
                out[c, k] += to_c[k]
                out[a, k] -= to_b[k] + to_c[k]
