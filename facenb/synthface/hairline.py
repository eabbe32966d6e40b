"""Where hair grows: the outline of the hair-bearing scalp on the template, seen from the side."""

import numpy as np

# (z, y) in mm from between the eyes: over the forehead, temple, sideburn, round the ear, nape, and back far outside.
OUTLINE = np.array(
    [
        (60, 98),
        (14, 80),
        (0, 74),
        (-14, 63),
        (-28, 49),
        (-34, 30),
        (-48, 16),
        (-57, 6),
        (-60, -22),
        (-69, -22),
        (-71, 2),
        (-79, 11),
        (-97, 9),
        (-104, -8),
        (-107, -40),
        (-118, -72),
        (-150, -88),
        (-260, -88),
        (-260, 190),
        (60, 190),
    ]
)


def into_hair(points: np.ndarray) -> np.ndarray:
    """Return how far (...,) points in mm from between the eyes lie inside the hair's outline; negative outside."""
    at = points[..., [2, 1]]
    start, end = OUTLINE, np.roll(OUTLINE, -1, 0)
    nearest, inside = np.full(at.shape[:-1], np.inf), np.zeros(at.shape[:-1], bool)
    for a, b in zip(start, end, strict=True):
        along = np.clip(((at - a) @ (b - a)) / ((b - a) @ (b - a)), 0, 1)
        nearest = np.minimum(nearest, np.linalg.norm(at - a - along[..., None] * (b - a), axis=-1))
        if a[1] != b[1]:
            crosses = (a[1] > at[..., 1]) != (b[1] > at[..., 1])
            inside ^= crosses & (at[..., 0] < a[0] + (at[..., 1] - a[1]) / (b[1] - a[1]) * (b[0] - a[0]))
    return np.where(inside, nearest, -nearest)
