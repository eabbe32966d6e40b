"""What is where on SynthFace's mesh: the 68 landmarks, the regions, the layout of its texture."""

import numpy as np
import torch
from torch import Tensor

from facenb.morphable.model import Embedding
from facenb.morphable.synthetic.albedo import places
from facenb.morphable.synthetic.anatomy import masks
from facenb.morphable.synthetic.head import mean_head
from facenb.morphable.synthetic.topology import (
    BACK,
    EYE,
    EYEBALL,
    EYEBALL_RINGS,
    EYEBALL_SECTORS,
    INSIDE,
    LOWER_INNER,
    LOWER_LID,
    LOWER_LIP,
    MOUTH,
    SKIN,
    UPPER_INNER,
    UPPER_LID,
    UPPER_LIP,
    topology,
)

# Points of the viewer's right half on the mean head, mm, from the ear to the chin, the outer brow to the inner.
JAW = (
    (74, 27, 6),
    (73, 6, 9),
    (70, -15, 15),
    (65, -37, 22),
    (57, -55, 31),
    (45, -69, 44),
    (30, -79, 58),
    (15, -85, 69),
)
CHIN = (0, -87, 74)
BROW = ((57, 43.5, 50), (49, 46.5, 60), (38, 48.5, 68), (25, 48, 74), (12, 45.5, 77))
BRIDGE = ((0, 27, 77), (0, 16, 85), (0, 5, 93), (0, -7, 101))
BASE = ((0, -22, 86), (6.5, -21, 83), (12.5, -20, 79))
LIP = ((0, -35.3, 90), (6.5, -34.7, 89), (15, -37.5, 84), (15, -51, 83), (8, -53.5, 87), (0, -54.5, 88))


def _nearest(point) -> int:
    """The skin vertex of the viewer's right half (or the middle) nearest to a point of the mean head."""
    top, mean = topology(), mean_head()
    side = (top.azimuth == 0) if point[0] == 0 else (top.azimuth > 0)
    far = np.linalg.norm(mean - np.array(point, float), axis=1)
    return int(np.where(side & (top.part == SKIN), far, np.inf).argmin())


def embedding() -> Embedding:
    """The 68 points in the order of Multi-PIE / iBUG: jaw, brows, nose, eyes, lips, each from the viewer's left."""
    top = topology()
    mirror, grid, eye, mouth = top.mirror, top.grid, top.eye_row, top.mouth_row
    jaw, brow, base, lip = ([_nearest(p) for p in points] for points in (JAW, BROW, BASE, LIP))
    points = [mirror[v] for v in jaw] + [_nearest(CHIN)] + jaw[::-1]
    points += [mirror[v] for v in brow] + brow[::-1]
    points += [_nearest(p) for p in BRIDGE]
    points += [mirror[base[2]], mirror[base[1]], base[0], base[1], base[2]]
    inner, outer = EYE[0] + 4, EYE[1] - 4
    right = [grid[eye, EYE[0]], grid[eye, inner], grid[eye, outer], grid[eye, EYE[1]],
             grid[eye, outer, "lower"], grid[eye, inner, "lower"]]  # fmt: skip
    left = [mirror[right[k]] for k in (3, 2, 1, 0, 5, 4)]
    points += left + right
    points += [grid[mouth, -MOUTH], mirror[lip[2]], mirror[lip[1]], lip[0], lip[1], lip[2], grid[mouth, MOUTH]]
    points += [lip[3], lip[4], lip[5], mirror[lip[4]], mirror[lip[3]]]
    points += [grid[mouth, c] for c in (1 - MOUTH, -4, 0, 4, MOUTH - 1)]
    points += [grid[mouth, c, "lower"] for c in (4, 0, -4)]
    found = Embedding.at([int(v) for v in points])
    for landmark, column in ((60, 1 - MOUTH), (64, MOUTH - 1)):  # the inner corners lie between the two lips
        found.vertices[landmark, 1] = grid[mouth, column, "lower"]
        found.weights[landmark, :2] = 0.5
    return found


def regions() -> dict[str, Tensor]:
    """Vertex indices by the name of the region; `left` is the person's left."""
    top, mean, m, at = topology(), mean_head(), masks(), places()
    x, y, z = np.abs(mean[:, 0]), mean[:, 1], mean[:, 2]
    skin = top.part <= LOWER_LIP
    nose = skin & (m["nose"] > 0.35) & (z > 55)
    brow = skin & (np.abs(at["brow_line"]) < 4.5) & (at["brow_s"] > -0.02) & (at["brow_s"] < 1.02) & (z > 30)
    lips = skin & (at["lips"] > 0.5)
    ear = skin & (m["ear"] > 0.5)
    around_eye = skin & (((x - 31.5) / 18) ** 2 + ((y - 24) / 11) ** 2 < 1) & (z > 40)
    neck = skin & ((top.level > 21.0) | (y < -90))
    scalp = skin & ~ear & ~neck & ((y > 74) | ((z < -30) & (y > 0)) | ((z < 5) & (y > 40)))
    face = skin & ~ear & ~neck & ~scalp & (z > 5)
    ball = top.part == EYEBALL
    chosen = dict(
        face=face, nose=nose, brows=brow, lips=lips, ears=ear, neck=neck, scalp=scalp, skin=skin, eyelids=around_eye,
        left_eye=ball & (top.azimuth > 0), right_eye=ball & (top.azimuth < 0), mouth_inside=top.part == INSIDE,
        forehead=face & (y > 52), chin=face & (y < -62) & (x < 25) & (z > 40),
        cheeks=face & (x > 25) & (y < 8) & (y > -60),
    )  # fmt: skip
    return {name: torch.from_numpy(np.flatnonzero(where)) for name, where in chosen.items()}


def uv_layout() -> tuple[Tensor, Tensor]:
    """Texture coordinates in [0, 1] (one a vertex, then the second ones of the back seam) and their triangles.

    The skin is unrolled from the back over the face, wide where the face is; mouth and eyes lie below it.
    """
    top = topology()
    count = len(top.azimuth)
    column = np.interp(np.abs(top.azimuth), top.azimuths, np.arange(BACK + 1) / BACK)
    u = 0.5 + 0.5 * column * np.where(top.azimuth < 0, -1, 1)
    row = np.interp(top.level, top.levels, np.arange(len(top.levels)) / (len(top.levels) - 1))
    v = 0.99 - 0.85 * row
    part = top.part
    v = v - 0.002 * np.isin(part, (LOWER_LID, LOWER_LIP)) + 0.002 * np.isin(part, (UPPER_LID, UPPER_LIP))
    v = v + 0.001 * (part == UPPER_INNER) - 0.001 * (part == LOWER_INNER)
    inside = part == INSIDE
    u[inside], v[inside] = 0.5 + 1.2 * (u[inside] - 0.5), 0.115 - 0.015 * top.order[inside]
    for side in (1, -1):
        for ring in range(len(EYEBALL_RINGS) + 1):
            for k in range(EYEBALL_SECTORS if 0 < ring < len(EYEBALL_RINGS) else 1):
                turn, far = 2 * np.pi * k / EYEBALL_SECTORS, 0.055 * ring / len(EYEBALL_RINGS)
                index = top.grid["eye", side, ring, k]
                u[index], v[index] = 0.5 + side * (0.4 + far * np.cos(turn)), 0.06 + far * np.sin(turn)
    uv = np.stack([u, v], -1)
    return _cut_at_the_back(uv, top, count)


def _cut_at_the_back(uv: np.ndarray, top, count: int) -> tuple[Tensor, Tensor]:
    """Give the back column a second place at the left edge, and the crown one above each of its triangles."""
    triangles, second, added = top.triangles.copy(), {}, []
    for t in np.flatnonzero((top.part[triangles] != EYEBALL).all(1)):
        corners = triangles[t]
        around = corners[corners != 0]  # vertex 0 is the crown
        if np.ptp(uv[around, 0]) > 0.4:
            for k in range(3):
                vertex = int(corners[k])
                if vertex and uv[vertex, 0] > 0.999:
                    if vertex not in second:
                        second[vertex] = count + len(added)
                        added.append((0.0, uv[vertex, 1]))
                    triangles[t, k] = second[vertex]
        if len(around) == 2:
            us = [added[v - count][0] if v >= count else uv[v, 0] for v in triangles[t] if v]
            triangles[t, corners == 0] = count + len(added)
            added.append((sum(us) / 2, uv[0, 1]))
    both = np.concatenate([uv, np.array(added)]).astype(np.float32)
    return torch.from_numpy(both), torch.from_numpy(triangles)
