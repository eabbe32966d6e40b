"""What sits behind the skin: the eyeballs, the rims of the lids on them, the inside of the mouth with its teeth."""

from functools import cache

import numpy as np

from facenb.morphable.synthetic.topology import (
    EYEBALL_RINGS,
    EYEBALL_SECTORS,
    INSIDE,
    LOWER_INNER,
    MOUTH,
    UPPER_INNER,
    topology,
)

EYE_RADIUS, RIM_RADIUS = 12.0, 11.4  # mm
# Rows of the mouth's inside: (hangs on the skull (0) or the lower lip (1), up, forward) in mm.
MOUTH_ROWS = ((0, 4.0, -4.0), (0, -1.6, -5.0), (0, 2.0, -17.0), (1, -5.0, -17.0), (1, -1.5, -6.0), (1, -5.0, -5.0))


@cache
def _eyeball() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices of both eyeballs, their side (0 viewer's right, 1 left) and unit offsets from the centre."""
    top = topology()
    index, side, offset = [], [], []
    for which, sign in enumerate((1, -1)):
        for ring, angle in enumerate((*EYEBALL_RINGS, 180.0)):
            single = ring == 0 or ring == len(EYEBALL_RINGS)
            for k in range(1 if single else EYEBALL_SECTORS):
                turn, tilt = 2 * np.pi * k / EYEBALL_SECTORS, np.radians(angle)
                index.append(top.grid["eye", sign, ring, k])
                side.append(which)
                offset.append((sign * np.sin(tilt) * np.cos(turn), np.sin(tilt) * np.sin(turn), np.cos(tilt)))
    return np.array(index), np.array(side), np.array(offset)


@cache
def _mouth_taper() -> np.ndarray:
    """How deep the inside of the mouth is at each of its vertices: 1 in the middle, less towards the corners."""
    top = topology()
    inside = np.flatnonzero(top.part == INSIDE)
    column = {index: key[1] for key, index in top.grid.items() if len(key) == 4 and key[2] == "mouth"}
    return np.array([np.sqrt(1 - (column[i] / MOUTH) ** 2) for i in inside])


def seat(points: np.ndarray, neutral: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Points (..., V, 3) with what is behind the skin put in its place.

    `neutral` (..., V, 3) is the same head at rest (the upper teeth belong to its skull); `centres` (..., 2, 3) are
    those of the eyeballs, the viewer's right one first. All in mm.
    """
    top = topology()
    points = points.copy()
    index, side, offset = _eyeball()
    points[..., index, :] = centres[..., side, :] + EYE_RADIUS * offset
    rims = np.flatnonzero((top.part == UPPER_INNER) | (top.part == LOWER_INNER))
    centre = centres[..., (top.azimuth[rims] < 0).astype(int), :]
    ray = points[..., top.anchor[rims, 0], :] - centre
    points[..., rims, :] = centre + ray * (RIM_RADIUS / np.linalg.norm(ray, axis=-1, keepdims=True))
    inside = np.flatnonzero(top.part == INSIDE)
    upper, lower = top.anchor[inside].T
    hangs, up, forward = np.array(MOUTH_ROWS)[top.order[inside] - 1].T
    skull = (neutral[..., upper, :] + neutral[..., lower, :]) / 2
    lips = (points[..., upper, :] + points[..., lower, :]) / 2
    skull[..., 0], skull[..., 2] = lips[..., 0], np.minimum(skull[..., 2], lips[..., 2])  # never through the lips
    taper = _mouth_taper()
    root = np.where(hangs[:, None] == 0, skull, points[..., lower, :])
    arch = -9.0 * (1 - taper) * taper  # rows of teeth curve back
    points[..., inside, :] = root + np.stack([0 * up, up * taper, forward * taper - 0.5 + arch], -1)
    return points
