"""The grid of SynthFace: rows around the head, dense at the face, slit at the eyes and the mouth, one for everyone.

A vertex lies at (azimuth, level): azimuth in degrees from the front (0) over the viewer's right (90) to the back (180),
level from the crown (0) over the brow (about 6.5) and the chin (about 19) to the cut of the neck (24). The right half
is laid out and mirrored, so that a symmetric head is symmetric exactly.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

BACK = 46  # column at the back of the head; columns run from -45 to 46, 0 in front
EYE = (9, 20)  # columns of the inner and outer corner of the viewer's right eye
MOUTH = 12  # column of the corner of the mouth
MOUTH_LEVEL, EYE_LEVEL = 15.9, 9.48
EYEBALL_RINGS, EYEBALL_SECTORS = (0.0, 10.0, 17.0, 26.0, 30.5, 40.0, 60.0, 100.0), 16  # degrees from the pupil


def _columns() -> np.ndarray:
    """Azimuth of the columns 0..46: 1.3 degrees apart at the nose, wide on the cheek, narrow at the ear."""
    parts = [(12.0, 9), (30.0, 11), (37.0, 4), (88.0, 7), (127.0, 11), (180.0, 4)]
    return _steps(0.0, parts)


def _steps(start: float, parts: list[tuple[float, int]]) -> np.ndarray:
    values = [np.array([start])]
    for end, count in parts:
        values.append(np.linspace(values[-1][-1], end, count + 1)[1:])
    return np.concatenate(values)


def _rows() -> tuple[np.ndarray, np.ndarray]:
    """Level of every row and whether it has only every second column."""
    crown = _steps(0.0, [(1.2, 2), (5.2, 4)])[1:]
    face = _steps(5.2, [(6.4, 2), (8.2, 5), (10.6, 8), (12.1, 4), (14.05, 8), (15.0, 3), (17.1, 8), (20.4, 6)])[1:]
    face = face + (MOUTH_LEVEL - face[np.abs(face - MOUTH_LEVEL).argmin()]) * np.exp(
        -(((face - MOUTH_LEVEL) / 0.5) ** 2)
    )
    face = face + (EYE_LEVEL - face[np.abs(face - EYE_LEVEL).argmin()]) * np.exp(-(((face - EYE_LEVEL) / 0.8) ** 2))
    neck = _steps(20.4, [(21.8, 2), (24.0, 2)])[1:]
    level = np.concatenate([[0.0], crown, face, neck])
    coarse = np.r_[np.ones(len(crown) + 1, bool), np.zeros(len(face), bool), np.ones(len(neck), bool)]
    return level, coarse


@dataclass(frozen=True)
class Topology:
    """What all heads share. `half` lists the vertices with azimuth >= 0 that are computed; `mirror` gives every vertex
    its twin across the middle."""

    triangles: np.ndarray  # (T, 3) counter-clockwise seen from outside
    azimuth: np.ndarray  # (V,) degrees, signed
    level: np.ndarray  # (V,)
    part: np.ndarray  # (V,) index into PARTS
    order: np.ndarray  # (V,) depth of an inner row, ring of an eyeball, else 0
    mirror: np.ndarray  # (V,)
    anchor: np.ndarray  # (V, 2) skin vertices an inner vertex hangs on, else itself
    grid: dict  # (row, column) or (row, column, part) -> vertex
    levels: np.ndarray  # (rows,)
    azimuths: np.ndarray  # (columns,) of columns 0..46
    mouth_row: int
    eye_row: int


PARTS = ("skin", "upper lid", "lower lid", "upper lip", "lower lip", "mouth inside", "upper lid inside",
         "lower lid inside", "eyeball")  # fmt: skip
SKIN, UPPER_LID, LOWER_LID, UPPER_LIP, LOWER_LIP, INSIDE, UPPER_INNER, LOWER_INNER, EYEBALL = range(9)


class _Builder:
    def __init__(self):
        self.level, coarse = _rows()
        self.coarse = coarse.tolist()
        self.theta = _columns()
        self.vertices, self.triangles, self.grid = [], [], {}

    def add(self, key, azimuth, level, part=SKIN, order=0, anchor=None) -> int:
        self.grid[key] = index = len(self.vertices)
        self.vertices.append((azimuth, level, part, order, anchor or (index, index)))
        return index

    def quad(self, a, b, c, d, flip):
        """Corners counter-clockwise from outside (a upper left, b lower left, c lower right, d upper right)."""
        for t in ((a, b, c), (a, c, d)) if not flip else ((a, b, d), (b, c, d)):
            if len(set(t)) == 3:
                self.triangles.append(t)

    def azimuth(self, column: int) -> float:
        return float(np.copysign(self.theta[abs(column)], column)) if column else 0.0


def _slit(b: _Builder, row: int, column: int) -> str | None:
    if row == b.mouth_row and abs(column) < MOUTH:
        return "mouth"
    if row == b.eye_row and EYE[0] < abs(column) < EYE[1]:
        return "eye"
    return None


@cache
def topology() -> Topology:
    """Lay the grid out (the same arrays every time; do not write to them)."""
    b = _Builder()
    b.mouth_row = int(np.abs(b.level - MOUTH_LEVEL).argmin())
    b.eye_row = int(np.abs(b.level - EYE_LEVEL).argmin())
    columns = range(-BACK + 1, BACK + 1)
    b.add((0, 0), 0.0, 0.0)
    for row in range(1, len(b.level)):
        for column in columns:
            if b.coarse[row] and column % 2:
                continue
            slit = _slit(b, row, column)
            upper = {"mouth": UPPER_LIP, "eye": UPPER_LID}.get(slit, SKIN)
            b.add((row, column), b.azimuth(column), b.level[row], upper)
            if slit:
                b.add((row, column, "lower"), b.azimuth(column), b.level[row], upper + 1)
    _skin(b)
    _mouth(b)
    for side in (1, -1):
        _lids(b, side)
        _eyeball(b, side)
    return _finish(b)


def _ring(coarse: bool) -> list[int]:
    """Columns once around, starting at the back of the viewer's left."""
    return list(range(-BACK + 2, BACK + 1, 2)) if coarse else list(range(-BACK + 1, BACK + 1))


def _skin(b: _Builder):
    first = _ring(True)
    for k, column in enumerate(first):
        b.triangles.append((b.grid[0, 0], b.grid[1, column], b.grid[1, first[(k + 1) % len(first)]]))
    for row in range(1, len(b.level) - 1):
        above, below = b.coarse[row], b.coarse[row + 1]
        columns = _ring(bool(above and below))
        if above != below:
            _stitch(b, row, above)
            continue
        for k, left in enumerate(columns):
            right = columns[(k + 1) % len(columns)]
            top = [b.grid.get((row, c, "lower"), b.grid[row, c]) for c in (left, right)]
            flip = left >= 0 and left != BACK
            b.quad(top[0], b.grid[row + 1, left], b.grid[row + 1, right], top[1], flip)


def _stitch(b: _Builder, row: int, coarse_above: bool):
    """Join a row of every second column with a full one."""
    ring = _ring(True)
    for k, left in enumerate(ring):
        right = ring[(k + 1) % len(ring)]
        middle = left + 1 if left != BACK else -BACK + 1
        coarse_row, fine_row = (row, row + 1) if coarse_above else (row + 1, row)
        a, c = b.grid[coarse_row, left], b.grid[coarse_row, right]
        p, q, r = (b.grid[fine_row, column] for column in (left, middle, right))
        fan = [(a, p, q), (a, q, c), (c, q, r)]
        b.triangles += fan if coarse_above else [t[::-1] for t in fan]


def _mouth(b: _Builder):
    """A closed bag between the lips: gum, edge of the upper teeth, two deep rows, edge of the lower teeth, gum."""
    row = b.mouth_row
    rows = [{c: b.grid[row, c] for c in range(-MOUTH, MOUTH + 1)}]
    for order in range(1, 7):
        line = {-MOUTH: b.grid[row, -MOUTH], MOUTH: b.grid[row, MOUTH]}
        for c in range(-MOUTH + 1, MOUTH):
            anchor = (b.grid[row, c], b.grid[row, c, "lower"])
            line[c] = b.add((row, c, "mouth", order), b.azimuth(c), b.level[row], INSIDE, order, anchor)
        rows.append(line)
    rows.append({c: b.grid.get((row, c, "lower"), b.grid[row, c]) for c in range(-MOUTH, MOUTH + 1)})
    for above, below in zip(rows, rows[1:], strict=False):
        for c in range(-MOUTH, MOUTH):
            b.quad(above[c], below[c], below[c + 1], above[c + 1], c >= 0)


def _lids(b: _Builder, side: int):
    """A rim behind each lid's edge, so that no gap shows between the lid and the eyeball."""
    row, span = b.eye_row, range(EYE[0] + 1, EYE[1])
    edges = {}
    for part, tag in ((UPPER_INNER, None), (LOWER_INNER, "lower")):
        line = {}
        for c in span:
            edge = b.grid[(row, side * c)] if tag is None else b.grid[row, side * c, tag]
            line[c] = b.add((row, side * c, "inner", part), b.azimuth(side * c), b.level[row], part, 1, (edge, edge))
        edges[part] = line
    for part, sign in ((UPPER_INNER, 1), (LOWER_INNER, -1)):
        outer = {c: (b.grid[row, side * c] if sign > 0 else b.grid[row, side * c, "lower"]) for c in span}
        inner = dict(edges[part])
        for c in EYE:
            outer[c] = inner[c] = b.grid[row, side * c]
        for c in range(EYE[0], EYE[1]):
            left, right = (c, c + 1) if side > 0 else (c + 1, c)
            corners = (outer[left], inner[left], inner[right], outer[right])
            if sign < 0:
                corners = (inner[left], outer[left], outer[right], inner[right])
            b.quad(*corners, side > 0)
    upper, lower = dict(edges[UPPER_INNER]), dict(edges[LOWER_INNER])
    for c in EYE:  # close the opening behind the eyeball's front; at the corners this shows as their pink tissue
        upper[c] = lower[c] = b.grid[row, side * c]
    for c in range(EYE[0], EYE[1]):
        left, right = (c, c + 1) if side > 0 else (c + 1, c)
        b.quad(upper[left], lower[left], lower[right], upper[right], side > 0)


def _eyeball(b: _Builder, side: int):
    """A closed ball of rings around the pupil, so that pupil and iris have crisp edges."""
    ring = [[b.add(("eye", side, 0, 0), 30.0 * side, EYE_LEVEL, EYEBALL, 0)] * EYEBALL_SECTORS]
    for order in range(1, len(EYEBALL_RINGS)):
        ring.append([b.add(("eye", side, order, k), 30.0 * side, EYE_LEVEL, EYEBALL, order)
                     for k in range(EYEBALL_SECTORS)])  # fmt: skip
    behind = b.add(("eye", side, len(EYEBALL_RINGS), 0), 30.0 * side, EYE_LEVEL, EYEBALL, len(EYEBALL_RINGS))
    ring.append([behind] * EYEBALL_SECTORS)
    for inner, outer in zip(ring, ring[1:], strict=False):
        for k in range(EYEBALL_SECTORS):
            n = (k + 1) % EYEBALL_SECTORS
            for t in ((inner[k], outer[k], outer[n]), (inner[k], outer[n], inner[n])):
                if len(set(t)) == 3:
                    b.triangles.append(t if side > 0 else t[::-1])


def _mirror_key(key):
    if key[0] == "eye":
        return (key[0], -key[1], *key[2:])
    return key if key[1] == BACK else (key[0], -key[1], *key[2:])


def _finish(b: _Builder) -> Topology:
    azimuth, level, part, order, anchor = (np.array(x) for x in zip(*b.vertices, strict=True))
    mirror = np.array([b.grid[_mirror_key(key)] for key in b.grid])
    triangles = np.array(b.triangles, np.int64)
    return Topology(triangles, azimuth, level, part, order, mirror, anchor, b.grid, b.level, b.theta, b.mouth_row,
                    b.eye_row)  # fmt: skip
