"""Draw soft shapes on a batch of images, from signed distances in pixels to capsules, lenses and polygons."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

Points = Float[Tensor, "2 height width"]
Field = Float[Tensor, "batch height width"]
Pair = Float[Tensor, "batch 2"]
Number = Float[Tensor, " batch"]


def pixel_centres(size: tuple[int, int], like: Tensor) -> Points:
    """Return u and v of every pixel centre as two separate planes, which is faster than an array of pairs."""
    v, u = torch.meshgrid(torch.arange(size[0]).to(like) + 0.5, torch.arange(size[1]).to(like) + 0.5, indexing="ij")
    return torch.stack([u, v])


def spread(value: Tensor) -> Tensor:
    """Return one value per image with shape (batch, 1, 1), to broadcast it over the pixels."""
    return value[:, None, None]


def along(points: Points, origin: Pair, direction: Pair) -> Field:
    """Return the dot product of (pixel - origin) and `direction`."""
    du, dv = direction[:, :1, None], direction[:, 1:, None]
    return points[0] * du + points[1] * dv - spread((origin * direction).sum(-1))


def capsule(points: Points, start: Pair, end: Pair) -> tuple[Field, Field]:
    """Return the distance to a segment in pixels, and the position of its closest point (0 start, 1 end)."""
    axis = end - start
    share = along(points, start, axis / (axis * axis).sum(-1, keepdim=True).clamp(min=1e-9)).clamp(0, 1)
    u = points[0] - start[:, :1, None] - share * axis[:, :1, None]
    v = points[1] - start[:, 1:, None] - share * axis[:, 1:, None]
    return (u * u + v * v).sqrt(), share


def lens(points: Points, centre: Pair, right: Pair, down: Pair, power: Number) -> Field:
    """Return the approximate signed distance in pixels to a superellipse with half axes `right` and `down`.

    Power 2 gives an ellipse; higher powers approach a parallelogram. The half axes must not be parallel.
    """
    power = spread(power)
    inverse = torch.linalg.inv(torch.stack([right, down], -1))  # rows: the dual axes
    x, y = (along(points, centre, inverse[:, k]) for k in range(2))
    size_x, size_y = x.abs().clamp(min=1e-4), y.abs().clamp(min=1e-4)
    value = (size_x**power + size_y**power) ** (1 / power)
    slope_x, slope_y = ((s / value) ** (power - 1) * c.sign() for s, c in ((size_x, x), (size_y, y)))
    u, v = (slope_x * inverse[:, :1, k, None] + slope_y * inverse[:, 1:, k, None] for k in range(2))
    return (value - 1) / (u * u + v * v).sqrt().clamp(min=1e-6)


def polygon(points: Points, corners: Float[Tensor, "batch corners 2"]) -> Field:
    """Return the signed distance in pixels to a closed polygon, negative inside."""
    nearest, inside = points.new_tensor(torch.inf), points.new_tensor(False, dtype=torch.bool)
    for k in range(corners.shape[1]):
        a, b = corners[:, k - 1], corners[:, k]
        nearest = torch.minimum(nearest, capsule(points, a, b)[0])
        (ua, va), (ub, vb) = (spread(p).unbind(-1) for p in (a, b))
        slope = (ub - ua) / torch.where(vb == va, 1, vb - va)
        left = ((va > points[1]) != (vb > points[1])) & (points[0] < slope * (points[1] - va) + ua)
        inside = inside ^ left
    return torch.where(inside, -nearest, nearest)


def smooth_curve(corners: Float[Tensor, "batch corners 2"]) -> Float[Tensor, "batch points 2"]:
    """Return a closed Catmull-Rom curve through the corners, with four points per side."""
    before, after, second = (corners.roll(shift, 1) for shift in (1, -1, -2))
    t = torch.arange(4).to(corners)[:, None] / 4
    p0, p1, p2, p3 = (p[:, :, None] for p in (before, corners, after, second))
    curve = p1 + 0.5 * t * (p2 - p0 + t * (2 * p0 - 5 * p1 + 4 * p2 - p3 + t * (3 * (p1 - p2) + p3 - p0)))
    return curve.flatten(1, 2)


def union(distances: list[Field]) -> Field:
    """Return the signed distance to the union of shapes."""
    return torch.stack(distances).amin(0)


def cover(distance: Field) -> Field:
    """Return how much of each pixel a shape covers (0 to 1), from the signed distance to its edge."""
    return (0.5 - distance).clamp(0, 1)


def paint(image: Float[Tensor, "batch height width 3"], colour: Tensor | float, share: Field) -> Tensor:
    """Return the image blended with `colour`; `share` is the weight of the colour (0 to 1)."""
    return image + (colour - image) * share[..., None]


def cast_shadow(image: Float[Tensor, "batch height width 3"], share: Field, strength: float) -> Tensor:
    """Return the image with a shadow below a shape, as from a lamp overhead. Its size grows with the image height."""
    step = max(1, share.shape[1] // 40)
    below = functional.pad(share, (0, 0, step, 0))[:, : share.shape[1]]
    blurred = functional.avg_pool2d(below[:, None], 2 * step + 1, 1, step)[:, 0]
    return image * (1 - strength * blurred * (1 - share))[..., None]


def lambert(height: Field, lamp: Float[Tensor, "batch 3"], floor: float) -> Field:
    """Return the matt shading of a relief (heights in pixels). `lamp` is a direction (right, down, viewer)."""
    down, right = torch.gradient(height, dim=(1, 2))
    x, y, z = functional.normalize(lamp, dim=-1)[:, :, None, None].unbind(1)
    cosine = (z - right * x - down * y) / (1 + right * right + down * down).sqrt()
    return floor + (1 - floor) * cosine.clamp(min=0)
