"""Smooth local deformations of many heads at once; points are (B, V, 3), masks (V,) or (B, V), parameters (B,).

Only vertices whose mask exceeds a ten-thousandth are touched, and none where nothing is to be done, which saves time
and changes no bit of the result. Nothing is changed in place.
"""

import numpy as np


def _where(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices the mask touches, and its values there as (1 or B, touched)."""
    mask = np.atleast_2d(mask)
    index = np.flatnonzero((np.abs(mask) > 1e-4).any(0))
    return index, mask[:, index]


def _triple(points, x, y, z) -> np.ndarray:
    """(B, 3) of three numbers or (B,) arrays."""
    return np.stack([np.broadcast_to(np.asarray(c, float), len(points)) for c in (x, y, z)], -1)


def shift(points, mask, x=0.0, y=0.0, z=0.0):
    """Move by (x, y, z) mm, each a number or (B,), where the mask is one."""
    if not (np.any(x) or np.any(y) or np.any(z)):
        return points
    index, weight = _where(mask)
    moved = points.copy()
    moved[:, index] += weight[..., None] * _triple(points, x, y, z)[:, None]
    return moved


def spread(points, mask, amount):
    """Move away from the middle plane (x = 0) by `amount` (B,) mm, less within 8 mm of it."""
    if not np.any(amount):
        return points
    index, weight = _where(mask)
    moved = points.copy()
    moved[:, index, 0] += weight * np.tanh(points[:, index, 0] / 8.0) * np.asarray(amount)[:, None]
    return moved


def scale(points, mask, centre, x=1.0, y=1.0, z=1.0):
    """Scale about `centre` (3,) or (B, 3) by factors, each a number or (B,), where the mask is one."""
    if np.all(x == np.float64(1)) and np.all(y == np.float64(1)) and np.all(z == np.float64(1)):
        return points
    index, weight = _where(mask)
    centre = np.broadcast_to(centre, (len(points), 3))
    moved = points.copy()
    for axis, factor in enumerate((x, y, z)):
        if np.any(np.asarray(factor) != 1.0):
            factor = np.broadcast_to(np.asarray(factor, float), len(points))
            moved[:, index, axis] += weight * (points[:, index, axis] - centre[:, axis, None]) * (factor - 1)[:, None]
    return moved


def turn(points, mask, centre, angle, axis: int = 0):
    """Rotate about an axis (0 x, 1 y, 2 z) through `centre` by `angle` (B,) radians times the mask."""
    if not np.any(angle):
        return points
    index, weight = _where(mask)
    a, b = ((1, 2), (2, 0), (0, 1))[axis]
    centre = np.broadcast_to(centre, (len(points), 3))
    t = np.broadcast_to(np.asarray(angle, float), len(points))[:, None] * weight
    c, s = np.cos(t), np.sin(t)
    p, q = points[:, index, a] - centre[:, a, None], points[:, index, b] - centre[:, b, None]
    moved = points.copy()
    moved[:, index, a] = centre[:, a, None] + c * p - s * q
    moved[:, index, b] = centre[:, b, None] + s * p + c * q
    return moved
