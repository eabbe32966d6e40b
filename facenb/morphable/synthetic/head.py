"""The mean head before it becomes a person: a smooth base with nose, eyes, lips and ears modelled onto it.

The base is a table of distances (mm, whole) from the axis of the head, a cubic B-spline over azimuth and level. It was
measured on the mean head of ICT-FaceKit (MIT licence), features left out; the features are modelled here.
Axes and units are the project's; the origin is 10 mm above and 30 mm before that of ICT-FaceKit, amid the head.
"""

from functools import cache

import numpy as np
from scipy.interpolate import PchipInterpolator

from facenb.morphable.synthetic.inner import seat
from facenb.morphable.synthetic.topology import EYE, EYE_LEVEL, LOWER_LID, LOWER_LIP, MOUTH, UPPER_LID, topology

# Rows: level -1 to 26; columns: azimuth 0 to 180 in steps of 15 degrees.
BASE = np.array(
    """75 75 75 75 75 75 75 74 74 73 72 72 71
    74 74 74 74 75 75 75 75 75 74 74 74 74
    75 75 75 75 75 75 75 76 76 77 78 78 79
    80 80 79 77 76 75 76 78 80 82 83 84 84
    87 86 83 79 77 76 77 79 82 85 87 87 88
    91 91 87 82 78 77 77 80 83 87 89 90 90
    94 95 91 84 79 77 77 80 84 88 91 92 92
    97 97 93 86 80 77 78 81 85 89 92 94 94
    100 100 96 86 80 78 78 81 85 90 93 94 95
    99 99 100 88 80 78 78 81 85 90 93 95 95
    96 94 95 88 81 77 77 79 84 88 92 93 94
    93 91 91 88 82 76 75 77 81 86 89 91 91
    91 91 94 92 83 75 73 75 79 82 86 88 88
    94 95 98 92 81 74 73 74 75 78 81 83 84
    97 97 98 90 79 73 72 72 72 73 76 78 78
    103 99 96 88 78 71 70 68 67 68 71 72 73
    108 102 93 85 77 68 64 63 64 64 66 68 68
    106 101 91 83 74 64 59 61 61 61 64 65 66
    104 99 89 80 70 60 58 60 59 59 63 65 65
    104 97 86 77 64 56 58 59 58 59 62 64 64
    110 100 82 68 56 55 58 58 57 58 61 63 63
    101 92 70 58 53 55 58 58 56 58 60 61 61
    72 65 57 53 53 56 59 57 56 57 59 60 60
    62 60 56 53 54 58 59 57 56 57 58 58 58
    63 60 54 53 56 59 58 57 57 57 56 55 56
    61 58 54 56 59 60 60 63 65 63 59 57 57
    60 58 57 59 60 63 66 69 71 69 66 62 61
    58 58 59 60 63 67 71 74 75 74 71 68 68""".split(),
    float,
).reshape(28, 13)
# Where a level's rays start and how they rise (mm, degrees), in front and behind; smooth between these levels.
FRAME = np.array([
    # level, height, depth, elevation in front, behind
    (0, 60.0, -22.0, 0.0, 0.0), (3, 60.0, -22.0, 0.0, 0.0), (6, 60.0, -22.0, 0.0, 0.0),
    (9, 60.0 - 3 * 115 / 11, -22.0, 0.0, 0.0), (12, 60.0 - 6 * 115 / 11, -22.0, 0.0, 0.0),
    (15, 60.0 - 9 * 115 / 11, -22.0, 0.0, 0.0), (17, -55.0, -22.0, 0.0, 0.0), (19, -64.0, -24.0, -7.0, -2.0),
    (22, -75.0, -30.0, -22.0, -5.0), (24, -100.0, -39.0, -17.0, -8.0), (26, -130.0, -48.0, -10.0, -10.0),
])  # fmt: skip

EYE_CENTRE = np.array([31.5, 23.5, 53.0])
LID_RADIUS = 12.9  # of the outside of the lid's edge, mm
CANTHI = (17.5, 45.0)  # x of the inner and outer corner of the eye
MOUTH_HALF, MOUTH_HEIGHT = 25.5, -43.5
EAR_CENTRE = np.array([74.0, 3.0, -27.0])


def height_of_level(level):
    """Height in mm of a level in front, where rays are level (6 to 17)."""
    return 60.0 - (level - 6.0) * 115.0 / 11.0


def level_of_height(height):
    return 6.0 + (60.0 - height) * 11.0 / 115.0


def _weights(position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First of four uniform cubic B-spline controls, and their weights."""
    first = np.floor(position).astype(int)
    u = position - first
    cubic = [(1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, -3 * u**3 + 3 * u**2 + 3 * u + 1, u**3]
    return first - 1, np.stack(cubic, -1) / 6


def base_point(azimuth: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Points (N, 3) of the featureless head at azimuths (degrees, 0 to 180) and levels (0 to 25)."""
    column, across = _weights(azimuth / 15.0)
    row, down = _weights(level + 1.0)
    radius = np.zeros_like(azimuth, float)
    for a in range(4):
        turned = np.abs(column + a)
        turned = np.where(turned > 12, 24 - turned, turned)
        for d in range(4):
            radius += across[..., a] * down[..., d] * BASE[np.clip(row + d, 0, 27), turned]
    share = (1 + np.cos(np.radians(azimuth))) / 2
    height, depth, front, behind = (PchipInterpolator(FRAME[:, 0], column)(level) for column in FRAME[:, 1:].T)
    above = np.maximum(6.0 - level, 0.0)
    rise = (6.2 + 52.8 / 36 * above) * above  # rows go on over the forehead at the face's pace, and end at the crown
    front, behind = front + rise, behind + rise
    elevation, turn = np.radians(front * share + behind * (1 - share)), np.radians(azimuth)
    return np.stack([radius * np.sin(turn) * np.cos(elevation), height + radius * np.sin(elevation),
                     depth + radius * np.cos(turn) * np.cos(elevation)], -1)  # fmt: skip


def bump(x, y, centre, width) -> np.ndarray:
    """A Gaussian in the frontal plane, `width` (x, y) its standard deviations in mm."""
    return np.exp(-0.5 * (((x - centre[0]) / width[0]) ** 2 + ((y - centre[1]) / width[1]) ** 2))


def smooth_max(a, b, softness: float):
    """The larger of two, rounded where they cross."""
    return 0.5 * (a + b + np.sqrt((a - b) ** 2 + softness**2))


def smooth_step(x, low, high):
    """0 below `low`, 1 above `high`, smooth between."""
    u = np.clip((x - low) / (high - low), 0.0, 1.0)
    return u * u * (3 - 2 * u)


def lid_height(x: np.ndarray, upper: bool) -> np.ndarray:
    """Height of a lid's edge above the line between the corners of the eye; x across that line."""
    s = np.clip((x - CANTHI[0]) / (CANTHI[1] - CANTHI[0]), 0.0, 1.0)
    if upper:
        return 5.5 * (4 * s * (1 - s)) ** 0.75 * (1.08 - 0.16 * s)
    return -4.1 * (4 * s * (1 - s)) ** 0.8 * (0.88 + 0.24 * s)


def canthal_line(x: np.ndarray) -> np.ndarray:
    """Height of the line through the corners of the eye: the outer one is a little higher."""
    return 22.0 + 2.0 * np.clip((x - CANTHI[0]) / (CANTHI[1] - CANTHI[0]), -0.3, 1.3)


def _chart(azimuth: np.ndarray, level: np.ndarray, part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Move the grid so that its slits lie on the eyes' and the mouth's corners, its rows on lids and lips."""
    top = topology()
    x = base_point(azimuth, level)[:, 0]
    y = height_of_level(level)
    # Eyes: stretch the columns between the corners, then lift the rows along the lids.
    eye_y = height_of_level(EYE_LEVEL)
    corner = base_point(top.azimuths[list(EYE)], np.full(2, EYE_LEVEL))[:, 0]
    near = np.exp(-(((y - eye_y) / 16.0) ** 2))
    knots = [0.0, corner[0], corner[1], corner[1] + 25.0]
    moved = np.interp(x, knots, [0.0, CANTHI[0], CANTHI[1], corner[1] + 25.0])
    x = np.where(azimuth < 60, x + near * (moved - x), x)
    away = y - eye_y
    aside = 1 - smooth_step(x, 50.0, 75.0)
    y = y + near * aside * (canthal_line(x) - eye_y)
    opened = (away > 0.01) | (part == UPPER_LID)
    lift = np.where(opened, lid_height(x, True) * np.exp(-((away / 8.5) ** 2)),
                    lid_height(x, False) * np.exp(-((away / 7.5) ** 2)))  # fmt: skip
    y = y + np.where((np.abs(away) <= 0.01) & (part != UPPER_LID) & (part != LOWER_LID), 0.0, lift)
    # Brows: rows follow their arch.
    y = y + 2.5 * bump(x, y, (36.0, 42.0), (16.0, 7.0))
    # Mouth: the corner on its column, rows pinched between the lips' borders.
    corner_x = base_point(top.azimuths[[MOUTH]], top.levels[[top.mouth_row]])[0, 0]
    near = np.exp(-(((y - MOUTH_HEIGHT) / 13.0) ** 2)) * (1 - smooth_step(x, 36.0, 56.0))
    x = x * (1 + near * (MOUTH_HALF / corner_x - 1))
    away = y - MOUTH_HEIGHT
    full = np.sqrt(np.clip(1 - (x / (MOUTH_HALF + 3)) ** 2, 0.0, 1.0))
    pinch = (0.45 + 0.55 * full - 1) * np.exp(-((away / 9.0) ** 2)) * (1 - smooth_step(x, 27.0, 45.0))
    y = y + away * pinch + seam_offset(x) * np.exp(-((away / 6.0) ** 2)) * (1 - smooth_step(x, 30.0, 45.0))
    return x, y


def seam_offset(x: np.ndarray) -> np.ndarray:
    """How the line between the lips rises and falls along the mouth, mm."""
    return 0.9 * np.exp(-(((x - 9.0) / 5.0) ** 2)) - 1.0 * smooth_step(x, 14.0, 26.0)


def _frontal_point(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The base's point whose frontal projection is (x, y), for x well inside the outline and y in (-55, 60)."""
    level = level_of_height(y)
    azimuth = np.degrees(np.arctan2(x, 90.0))
    for _ in range(25):
        point = base_point(azimuth, level)
        azimuth = np.clip(azimuth + np.degrees((x - point[:, 0]) / 95.0), 0.0, 89.0)
    return point


NOSE_HEIGHT = ((36.0, 0.0), (31.0, 0.8), (27.0, 1.8), (22.0, 5.0), (14.0, 11.5), (6.0, 17.8), (0.0, 22.0), (-4.0, 24.2),
               (-8.0, 24.8), (-12.0, 22.6), (-16.0, 16.5), (-20.0, 9.5), (-24.0, 3.0), (-28.0, 0.0))  # fmt: skip
NOSE_WIDTH = ((36.0, 8.0), (24.0, 7.0), (14.0, 8.0), (6.0, 9.0), (-5.0, 10.5), (-14.0, 11.5), (-24.0, 9.5))


def _spline(at: np.ndarray, table) -> np.ndarray:
    knots = np.array(table[::-1])
    return PchipInterpolator(knots[:, 0], knots[:, 1])(np.clip(at, knots[0, 0], knots[-1, 0]))


def _nose(p: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    p = p.copy()
    drop = 4.0 * (1 - np.exp(-((x / 11.0) ** 2)))  # the wings hang lower than the tip's underside
    height, width = _spline(y + drop * smooth_step(-y, 2.0, 9.0), NOSE_HEIGHT), _spline(y, NOSE_WIDTH)
    p[:, 2] += height * np.exp(-(((x / width) ** 2) ** 1.15))
    p[:, 2] += 2.2 * bump(x, y, (0, -8), (6.5, 5.5))  # the tip's ball
    ala = bump(x, y, (12.5, -13.5), (4.2, 4.6))
    p[:, 2] += 7.5 * ala
    p[:, 0] += 2.0 * ala
    p[:, 2] -= 1.6 * bump(x, y, (8.5, -6.5), (2.2, 3.5))  # between tip and wing
    p[:, 2] -= 2.6 * bump(x, y, (20.0, -12.0), (3.0, 7.0)) + 1.2 * bump(x, y, (15.0, -4.0), (3.0, 3.0))
    nostril = bump(x, y, (6.6, -17.5), (3.2, 2.1))
    p[:, 1] += 3.4 * nostril
    p[:, 2] -= 2.6 * nostril
    p[:, 2] += 1.6 * bump(x, y, (0, -18), (2.2, 3.5))  # columella
    return p


def _sockets(p: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    p = p.copy()
    p[:, 2] -= 4.0 * bump(x, y, (19.0, 27.0), (5.0, 7.0))  # beside the root of the nose
    p[:, 2] -= 3.0 * bump(x, y, (34.0, 33.5), (11.0, 4.5))  # under the brow
    p[:, 2] += 1.5 * bump(x, y, (30.0, 43.0), (14.0, 4.5))  # the brow
    p[:, 2] -= 1.0 * bump(x, y, (28.0, 11.0), (9.0, 3.5))  # tear trough
    dx, dy = x - EYE_CENTRE[0], y - EYE_CENTRE[1]
    dome = LID_RADIUS**2 - 0.72 * dx**2 - dy**2  # flatter than the ball across: the lids reach past it
    ball = EYE_CENTRE[2] + np.sign(dome) * np.sqrt(np.abs(dome))
    reach = np.exp(-((np.hypot(dx / 1.25, dy) / 13.0) ** 6))
    p[:, 2] += reach * (smooth_max(p[:, 2] - 2.5, ball, 2.5) - p[:, 2])
    crease = dy - 9.2 + 0.028 * dx**2  # fold of the upper lid, an arch over the eye
    p[:, 2] -= 1.1 * np.exp(-((crease / 1.3) ** 2)) * np.exp(-((dx / 12.0) ** 4))
    return p


def _lips(p: np.ndarray, x: np.ndarray, y: np.ndarray, part: np.ndarray) -> np.ndarray:
    p = p.copy()
    s = np.clip(x / MOUTH_HALF, 0, 1)
    full = np.sqrt(1 - s**2) * (1 - smooth_step(x, 24.0, 30.0))
    away = y - MOUTH_HEIGHT - seam_offset(x)
    bow = 8.2 * (0.45 + 0.55 * full) * (1 + 0.10 * np.exp(-(((x - 7) / 4) ** 2)))
    p[:, 2] += 3.0 * full * np.exp(-(((away - 0.52 * bow) / (0.42 * bow)) ** 2))
    p[:, 2] += 0.7 * full * np.exp(-(((away - bow) / 1.2) ** 2))  # the upper lip's edge
    p[:, 2] += (
        (4.4 + 0.8 * np.exp(-((x / 9.0) ** 2))) * full * np.exp(-(((away + 5.6 * (0.4 + 0.6 * full)) / 3.7) ** 2))
    )
    p[:, 2] += 0.9 * bump(x, y, (0, -40.5), (3, 3))  # tubercle
    p[:, 2] -= (
        3.0 * np.exp(-((away / 1.7) ** 2)) * (1 - smooth_step(x, 20.0, 29.0) * 0.6) * (1 - smooth_step(x, 26, 33))
    )
    p[:, 2] -= 1.8 * bump(x, y, (0, -60.0), (15, 4.0))  # mentolabial fold
    p[:, 2] -= 1.6 * bump(x, y, (27.5, -45.0), (3.5, 4.0))  # corners
    p[:, 2] += 1.0 * bump(x, y, (33.0, -42.0), (5, 9))
    p[:, 2] += 0.9 * bump(x, y, (5.2, -29.0), (1.9, 5.0)) - 1.0 * bump(x, y, (0, -29.0), (2.6, 5.0))  # philtrum
    p[part == LOWER_LIP, 1] -= 0.12
    return p


def _chin(p: np.ndarray) -> np.ndarray:
    p = p.copy()
    x, y, z = p.T
    front = smooth_step(z, 20.0, 60.0)
    p[:, 2] += 1.5 * bump(x, y, (0, -75), (13, 8)) * front
    p[:, 2] -= 0.8 * bump(x, y, (26.0, -30.0), (5, 9)) * front  # nasolabial hollow
    return p


def ear_coordinates(p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Backwards and upwards on the ear, about -1 to 1."""
    along = p[:, 2] - EAR_CENTRE[2] + 0.22 * (p[:, 1] - EAR_CENTRE[1])  # the ear leans back
    return -along / 16.0, (p[:, 1] - EAR_CENTRE[1]) / 32.0


def _ear(p: np.ndarray) -> np.ndarray:
    """Raise the pinna: a rim (helix), an inner ridge (antihelix), a hollow (concha), tragus and lobe."""
    p = p.copy()
    a, b = ear_coordinates(p)
    egg = np.hypot(a / (1.0 + 0.22 * b), b)
    inside = (1 - smooth_step(egg, 0.78, 1.2)) * (p[:, 0] > 40)
    stand = (
        smooth_step(a, -1.15, 0.75) * (1 - 0.5 * smooth_step(b, 0.35, 1.05)) * (0.5 + 0.5 * smooth_step(b, -1.1, 0.1))
    )
    p[:, 0] += 15.0 * stand * inside
    p[:, 2] -= 8.0 * stand * inside * smooth_step(a, 0.0, 0.9)
    rim = np.exp(-(((egg - 0.82) / 0.14) ** 2)) * smooth_step(a + 0.7 * b, -0.6, 0.2)
    p[:, 0] += 2.6 * rim * inside
    p[:, 0] -= (
        1.8 * inside * np.exp(-(((egg - 0.6) / 0.12) ** 2)) * smooth_step(b, -0.3, 0.2) * smooth_step(a, -0.5, 0.1)
    )
    ridge = np.exp(-(((np.hypot((a + 0.02) / 0.6, (b - 0.02) / 0.68) - 0.8) / 0.17) ** 2)) * smooth_step(a, -0.15, 0.3)
    p[:, 0] += 1.6 * ridge * inside
    hollow = np.exp(-(((a + 0.08) / 0.34) ** 2 + ((b + 0.1) / 0.34) ** 2))
    p[:, 0] -= 7.5 * hollow * inside
    p[:, 0] += 3.5 * np.exp(-(((a + 0.68) / 0.17) ** 2 + ((b + 0.12) / 0.15) ** 2))  # tragus
    return p


@cache
def mean_head() -> np.ndarray:
    """Vertices (V, 3) in mm of the canonical head, symmetric exactly (do not write to it)."""
    top = topology()
    azimuth, level = np.abs(top.azimuth), top.level
    x, y = _chart(azimuth, level, top.part)
    p = base_point(azimuth, level)
    frontal = (azimuth < 75) & (level > 6.0) & (level < 16.99)
    chosen = np.flatnonzero(frontal)
    blend = (1 - smooth_step(azimuth, 45.0, 75.0)) * smooth_step(level, 6.0, 7.6) * (1 - smooth_step(level, 16.8, 17.0))
    p[chosen] += blend[chosen, None] * (_frontal_point(x[chosen], y[chosen]) - p[chosen])
    x, y = p[:, 0].copy(), p[:, 1].copy()
    side = azimuth > 75
    p = _ear(p)
    shaped = _lips(_sockets(_nose(p, x, y), x, y), x, y, top.part)
    p = np.where(side[:, None] | (level[:, None] > 20), p, shaped)
    p = _chin(p)
    left = top.azimuth < 0
    p[left] = p[top.mirror[left]] * np.array([-1, 1, 1])
    p[(top.azimuth == 0)] *= np.array([0, 1, 1])
    p[np.abs(top.azimuth) == 180] *= np.array([0, 1, 1])
    return seat(p, p, EYE_CENTRE * np.array([[1, 1, 1], [-1, 1, 1]]))
