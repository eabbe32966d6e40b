"""Rasteriser: find the triangle that each pixel sees, and the position in it. Backends: torch reference and numba.

Conventions:
- The input is (u, v) in pixels and depth in mm, as `camera` returns them. Pixel (row, column) is sampled at its centre,
  u = column + 0.5, v = row + 0.5. Depth grows away from the camera. A pixel sees the triangle with the smallest depth,
  or the lowest index if depths are equal. Under perspective, 1 / depth is linear on the image.
- Coverage is computed from vertices snapped to 1/1024 pixel. Edge functions are then whole numbers below 2^53, which
  float64 and int64 hold exactly. By the top-left rule, exactly one triangle covers a pixel centre on a shared edge.
- Both backends compare depths in float64 with the same operations in the same order. So they choose the same triangle
  on any machine.
- Barycentrics are computed from the unsnapped vertices. If snapping moved an edge over a pixel centre, they are clamped
  to [0, 1], but keep the derivative of the unclamped formula. Coverage has no derivative, so silhouettes have none.

Outcomes:
- Back faces are drawn like front faces.
- There is no clipping. A triangle is dropped as a whole if one of its vertices is not finite, is more than 32768 pixels
  or 1e12 mm from the origin, or (under perspective) has depth <= 1 mm.
- A triangle without area after snapping covers nothing. Without triangles, all pixels are background.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facenb.imaging import raster_numba
from facenb.imaging.raster_numba import FAR, FLAT, LIMIT, NEAR, SUBPIXELS

TRIANGLES = 1 << 22  # most triangles prepared at once, over all images: about 1 GB
PAIRS = 1 << 23  # most triangle-pixel pairs at once on a GPU: about 1 GB; an eighth of that on a CPU


@dataclass(frozen=True)
class Fragments:
    """For each pixel: triangle index (background -1), barycentrics (background 0), depth in mm (background inf)."""

    triangle: Int[Tensor, "batch height width"]
    barycentric: Float[Tensor, "batch height width 3"]
    depth: Float[Tensor, "batch height width"]


def rasterize(
    projected: Float[Tensor, "batch vertices 3"],
    triangles: Int[Tensor, "triangles 3"],
    size: tuple[int, int],
    perspective: bool = False,
    backend: str = "auto",
) -> Fragments:
    """Return the nearest triangle at each pixel centre; barycentrics and depth are differentiable in `projected`.

    `projected` holds u, v in pixels and depth in mm; `size` is (height, width), each 1 to 32768. Backend "numba" needs
    float32 or float64 on the CPU, "torch" runs anywhere; "auto" is numba on the CPU, else torch. Raise ValueError if a
    triangle uses a vertex that does not exist.
    """
    check_triangles(triangles, projected.shape[1])
    if uses_numba(projected, backend):
        return Fragments(*raster_numba.Rasterize.apply(projected, triangles, size, perspective))
    with torch.no_grad():
        step = max(1, TRIANGLES // max(1, len(triangles)))  # number of images at a time
        nearest = [_nearest_triangle(images, triangles, size, perspective) for images in projected.split(step)]
    triangle = torch.cat(nearest)
    return Fragments(triangle, *_locate(projected, triangles, triangle, perspective))


def interpolate(
    fragments: Fragments,
    attributes: Float[Tensor, "batch vertices channels"],
    triangles: Int[Tensor, "triangles 3"],
    backend: str = "auto",
) -> Float[Tensor, "batch height width channels"]:
    """Return vertex attributes at each pixel, 0 at the background; differentiable in attributes and barycentrics."""
    check_triangles(triangles, attributes.shape[1])
    if uses_numba(attributes, backend):
        weight = fragments.barycentric.to(attributes.dtype)
        return raster_numba.Interpolate.apply(fragments.triangle, weight, attributes, triangles)
    pixel, corner = seen_corners(fragments.triangle, triangles, attributes.shape[1])
    weight = fragments.barycentric.flatten(0, 2)[pixel].to(attributes)
    values = attributes.flatten(0, 1)
    blend = sum(values[corner[:, k]] * weight[:, k, None] for k in range(3))
    image = attributes.new_zeros(fragments.triangle.numel(), attributes.shape[-1])
    return image.index_copy(0, pixel, blend).view(*fragments.triangle.shape, -1)


def uses_numba(tensor: Tensor, backend: str) -> bool:
    """Return whether to use the numba kernels for this tensor."""
    return backend == "numba" or (backend == "auto" and tensor.device.type == "cpu")


def check_triangles(triangles: Int[Tensor, "triangles 3"], vertices: int) -> None:
    """Raise ValueError if a triangle uses a vertex that does not exist.

    On a GPU nothing is checked. The check would have to wait for the device, which reports a wrong index anyway.
    """
    if triangles.device.type == "cpu" and len(triangles):
        low, high = triangles.aminmax()
        if low < 0 or high >= vertices:
            raise ValueError(f"triangles use vertices {low} to {high}, but there are only {vertices} vertices")


def _nearest_triangle(projected, triangles, size, perspective) -> Int[Tensor, "batch height width"]:
    """Return the triangle seen at each pixel, by testing every pixel of each triangle's bounding box."""
    count, device = len(triangles), projected.device
    winner = torch.full((len(projected) * size[0] * size[1],), count, device=device)
    nearest = torch.full(winner.shape, torch.inf, dtype=torch.float64, device=device)
    boxes = _boxes(projected.double(), triangles, size, perspective)
    run = (boxes[0][:, 3].cumsum(0) - 1) // (PAIRS if device.type == "cuda" else PAIRS // 8)
    lengths = run.unique_consecutive(return_counts=True)[1].tolist()
    for part in zip(*(values.split(lengths) for values in boxes), strict=True):
        pixel, order, triangle = _covered_pixels(*part, size)
        best = nearest.scatter_reduce(0, pixel, order, "amin")
        winner = torch.where(best < nearest, count, winner)
        winner.scatter_reduce_(0, pixel, torch.where(order == best[pixel], triangle, count), "amin")
        nearest = best
    return torch.where(winner < count, winner, -1).view(-1, *size)


def _boxes(projected, triangles, size, perspective) -> tuple[Tensor, ...]:
    """Return all triangles that have a pixel centre in their bounding box, in order of (image, triangle).

    - box (N, 4): first column, first row, number of columns and of pixels
    - corner (N, 3, 2): snapped vertices as whole numbers, in the order that makes the area positive
    - order (N, 3): depth (or -1 / depth) of each corner, divided by twice the area
    - bias (N, 3): 0 if the edge opposite the corner is a top or left edge, else 1
    - image (N,) and triangle (N,)
    """
    depth = projected[..., 2]
    usable = (projected[..., :2].abs() <= LIMIT).all(-1) & (depth.abs() <= FAR)  # false for NaN, too
    if perspective:
        usable = usable & (depth > NEAR)
    snapped = (projected[..., :2] * SUBPIXELS).round()
    corner = snapped[:, triangles]  # (B, T, 3, 2)
    (xb, yb), (xc, yc) = ((corner[:, :, k] - corner[:, :, 0]).unbind(-1) for k in (1, 2))
    area = xb * yc - xc * yb
    last = torch.tensor([size[1] - 1, size[0] - 1], device=projected.device)
    low = ((corner.amin(2) - SUBPIXELS // 2) / SUBPIXELS).ceil().clamp(min=0)
    high = torch.minimum(((corner.amax(2) - SUBPIXELS // 2) / SUBPIXELS).floor(), last)
    extent = (high - low + 1).clamp(min=0)
    pixels = torch.where(usable[:, triangles].all(-1) & (area != 0), extent.prod(-1), 0)
    image, triangle = pixels.nonzero(as_tuple=True)
    box = torch.cat([low, extent[..., :1], pixels[..., None]], -1)[image, triangle].long()
    area = area[image, triangle, None]
    vertex = torch.where(area < 0, triangles[triangle][:, [0, 2, 1]], triangles[triangle])
    corner = snapped[image[:, None], vertex]
    order = (-1 / depth if perspective else depth)[image[:, None], vertex] / area.abs()
    edge = corner[:, [2, 0, 1]] - corner[:, [1, 2, 0]]  # the edge opposite each corner
    top_left = (edge[..., 1] < 0) | ((edge[..., 1] == 0) & (edge[..., 0] > 0))
    return box, corner, order, (~top_left).double(), image, triangle


def _covered_pixels(box, corner, order, bias, image, triangle, size) -> tuple[Tensor, Tensor, Tensor]:
    """Return a row for each pixel that a triangle covers: flat pixel index, depth order there, triangle index."""
    left, top, columns, pixels = box.unbind(-1)
    owner = torch.repeat_interleave(pixels)
    index = torch.arange(len(owner), device=owner.device) - (pixels.cumsum(0) - pixels)[owner]
    row, column = top[owner] + index // columns[owner], left[owner] + index % columns[owner]
    centre = torch.stack([column, row], -1).double() * SUBPIXELS + SUBPIXELS // 2
    (x0, y0), (x1, y1), (x2, y2) = ((c - centre).unbind(-1) for c in corner[owner].unbind(1))
    e0, e1, e2 = x1 * y2 - x2 * y1, x2 * y0 - x0 * y2, x0 * y1 - x1 * y0
    bias = bias[owner]
    covered = ((e0 >= bias[:, 0]) & (e1 >= bias[:, 1]) & (e2 >= bias[:, 2])).nonzero()[:, 0]  # a third of the pairs
    owner = owner[covered]
    order = order[owner]
    value = (e0[covered] * order[:, 0] + e1[covered] * order[:, 1]) + e2[covered] * order[:, 2]
    pixel = (image[owner] * size[0] + row[covered]) * size[1] + column[covered]
    return pixel, value, triangle[owner]


def seen_corners(triangle, triangles, vertices) -> tuple[Tensor, Tensor]:
    """Return indices (N,) of the pixels with a triangle, and indices (N, 3) of its corners among all vertices."""
    pixel = (triangle.flatten() >= 0).nonzero()[:, 0]
    image = pixel // (triangle.shape[1] * triangle.shape[2])
    return pixel, image[:, None] * vertices + triangles[triangle.flatten()[pixel]]


def _locate(projected, triangles, triangle, perspective) -> tuple[Tensor, Tensor]:
    """Return barycentrics and depth at each pixel centre, in the triangle that the pixel sees."""
    height, width = triangle.shape[1:]
    pixel, corner = seen_corners(triangle, triangles, projected.shape[1])
    u, v, z = projected.flatten(0, 1)[corner].double().unbind(-1)  # (N, 3) each
    x, y = u - (pixel % width + 0.5)[:, None], v - (pixel // width % height + 0.5)[:, None]
    weight = x[:, [1, 2, 0]] * y[:, [2, 0, 1]] - x[:, [2, 0, 1]] * y[:, [1, 2, 0]]
    area = weight.sum(-1, keepdim=True)
    weight = weight * torch.where(area < 0, -1.0, 1.0)
    weight = weight + (weight.clamp(min=0) - weight).detach()
    weight = torch.where(area.abs() < FLAT, 1.0, weight)
    if perspective:
        weight = weight / z
    inside = weight / weight.sum(-1, keepdim=True)
    barycentric = projected.new_zeros(triangle.numel(), 3).index_copy(0, pixel, inside.to(projected.dtype))
    depth = (inside * z).sum(-1).to(projected.dtype)
    depth = projected.new_full((triangle.numel(),), torch.inf).index_copy(0, pixel, depth)
    return barycentric.view(*triangle.shape, 3), depth.view(triangle.shape)
