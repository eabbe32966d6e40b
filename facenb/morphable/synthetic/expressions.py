"""Expressions: muscles pull, the jaw turns on its hinge, lids slide over the eyeballs (none of it linear).

Left and right are the person's: left is at positive x. Every value is in [0, 1].
"""

from functools import cache

import numpy as np

from facenb.morphable.synthetic import warp
from facenb.morphable.synthetic.anatomy import clear_eyeballs, eye_centres, masks
from facenb.morphable.synthetic.head import MOUTH_HEIGHT, mean_head, seam_offset, smooth_step
from facenb.morphable.synthetic.inner import seat
from facenb.morphable.synthetic.topology import EYE, EYEBALL, LOWER_LIP, UPPER_LIP, topology

EXPRESSIONS = (
    "jaw_open", "smile_left", "smile_right", "frown", "pucker", "stretch", "lip_press", "upper_lip_raise",
    "brow_raise_left", "brow_raise_right", "brow_lower", "blink_left", "blink_right", "eyes_wide", "squint",
    "cheek_puff", "sneer", "jaw_sideways",
)  # fmt: skip
JAW_ANGLE = 0.36  # radians at jaw_open = 1: about 45 mm between the lips
CONDYLE = np.array([0.0, 8.0, -10.0])  # the jaw's hinge on the mean head, mm


@cache
def expression_masks() -> dict[str, np.ndarray]:
    """Where each muscle acts, (V,) on the mean head."""
    top, mean, m = topology(), mean_head(), masks()
    x, y, z = np.abs(mean[:, 0]), mean[:, 1], mean[:, 2]
    front = m["front"]

    def flat(centre, width, power=2.0):
        far = (np.abs(x - centre[0]) / width[0]) ** power + (np.abs(y - centre[1]) / width[1]) ** power
        return np.exp(-0.5 * far) * front * (top.part != EYEBALL)

    left = smooth_step(mean[:, 0], -7.0, 7.0)
    return dict(
        left=left, right=1 - left, jaw=_jaw_mask(top, x, y, z),
        corner=flat((25.5, -44), (10, 14)), cheek=flat((42, -8), (16, 17)), lips=flat((0, -44), (30, 15), 3),
        upper_lip=flat((0, -36), (24, 9), 3) * ((y > -42.8) | (top.part == UPPER_LIP)) * (top.part != LOWER_LIP),
        lower_lip=flat((0, -51), (24, 8), 3) * ((y < -44.6) | (top.part == LOWER_LIP)) * (top.part != UPPER_LIP),
        brow=flat((28, 46), (24, 15)), brow_inner=flat((12, 42), (11, 12)), glabella=flat((0, 38), (11, 11)),
        lower_lid=flat((32, 15), (15, 7)), ala=flat((15, -12), (9, 11)), puff=flat((40, -38), (17, 17)),
        nasal=flat((19, -18), (9, 14)),
    )  # fmt: skip


def _jaw_mask(top, x, y, z) -> np.ndarray:
    """One on the mandible's skin, zero on the skull; cut along the mouth, a ramp over the cheek."""
    behind = np.clip(75.0 - z, 0.0, 90.0)
    line = (
        MOUTH_HEIGHT + seam_offset(x) + 0.42 * np.maximum(behind - 12.0, 0.0)
    )  # from the corner of the mouth up to the ear
    half = 5.0 + 0.45 * np.maximum(x - 25.5, 0.0)
    seam = 0.5 * (1 - np.sqrt(np.clip(1 - (x / 25.5) ** 2, 0.0, 1.0)))  # the lips part as an ellipse
    near = seam * np.exp(-(((y - line) / half) ** 2))
    below = (y < line - 0.01) & (top.part != UPPER_LIP) | (top.part == LOWER_LIP)
    ramp = np.where(below, 1 - near, near)
    ramp = np.where(top.part == LOWER_LIP, 1 - seam, np.where(top.part == UPPER_LIP, seam, ramp))
    turned = smooth_step(z, -28.0, 30.0) * (1 - smooth_step(np.abs(top.azimuth), 80.0, 105.0))
    throat = 1 - smooth_step(top.level, 18.6, 23.8)
    return ramp * turned * throat * (top.part != EYEBALL)


def express(neutral: np.ndarray, expression: np.ndarray) -> np.ndarray:
    """Heads (B, V, 3) in mm of one neutral head (V, 3) with expressions (B, len(EXPRESSIONS)), wrinkles aside."""
    e = dict(zip(EXPRESSIONS, np.asarray(expression, float).T, strict=True))
    points = np.repeat(neutral[None], len(e["frown"]), 0)
    m = expression_masks()
    width = np.ptp(neutral[[topology().grid[topology().mouth_row, c] for c in (-12, 12)], 0]) / 51.0
    points = _brows(points, m, e)
    points = _mouth(points, m, e, width)
    points = _cheeks_and_nose(points, m, e, width)
    points = _jaw(points, m, e, neutral)
    centres = np.repeat(eye_centres(neutral)[None], len(points), 0)
    points = _lids(points, m, e, neutral, centres)
    return seat(clear_eyeballs(points, centres, softness=0.0), np.repeat(neutral[None], len(points), 0), centres)


def _jaw(p, m, e, neutral):
    hinge = CONDYLE * np.abs(neutral).max(0) / np.abs(mean_head()).max(0)
    p = warp.turn(p, m["jaw"], hinge, JAW_ANGLE * e["jaw_open"])
    return warp.shift(p, m["jaw"], x=7.0 * e["jaw_sideways"], z=3.0 * e["jaw_open"] ** 2)


def _mouth(p, m, e, width):
    shy = 1 - 0.6 * e["pucker"]  # a pursed mouth cannot smile widely
    seam = p[:, topology().grid[topology().mouth_row, 0]]
    for side in ("left", "right"):
        sign = 1.0 if side == "left" else -1.0
        smile = e[f"smile_{side}"] * shy * width
        mask = m["corner"] * m[side]
        p = warp.scale(p, m["lips"] * m[side], seam, y=1 - 0.26 * smile)  # stretched lips are thin
        p = warp.shift(p, mask, x=sign * 9.0 * smile, z=-6.5 * smile - 2 * smile**2)
        p = warp.shift(p, mask**1.7, y=9.0 * smile + 2.0 * smile**2)  # the middle of the mouth hangs in a curve
        lip = m["upper_lip"] * m[side] * smooth_step(np.abs(mean_head()[:, 0]), 2, 16)
        p = warp.shift(p, lip, y=1.4 * smile, z=-1.5 * smile)
        p = warp.shift(p, m["lower_lip"] * m[side], y=-0.4 * smile, z=-1.5 * smile)
    frown = e["frown"] * shy
    p = warp.shift(p, m["corner"], y=-7.0 * frown, z=-1.5 * frown)
    p = warp.spread(p, m["corner"], 2.0 * frown + 9.0 * e["stretch"] * shy)
    p = warp.shift(p, m["corner"], y=-1.5 * e["stretch"], z=-5.0 * e["stretch"])
    p = warp.shift(p, m["lower_lip"], y=1.5 * frown, z=1.2 * frown)
    seam = p[:, [topology().grid[topology().mouth_row, 0]]].mean(1)
    pursed = e["pucker"]
    p = warp.scale(p, m["lips"], seam, x=1 - 0.42 * pursed, y=1 - 0.12 * pursed)
    p = warp.shift(p, m["lips"] * smooth_step(25 - np.abs(mean_head()[:, 0]), -8, 15), z=7.0 * pursed)
    pressed = e["lip_press"] * (1 - 0.7 * e["jaw_open"])
    p = warp.scale(p, m["lips"], seam, y=1 - 0.34 * pressed)
    p = warp.shift(p, m["upper_lip"] + m["lower_lip"], z=-2.4 * pressed)
    raised = e["upper_lip_raise"]
    p = warp.shift(p, m["upper_lip"], y=5.0 * raised, z=-0.6 * raised)
    return warp.shift(p, m["nasal"], y=2.6 * raised, z=0.8 * raised)


def _cheeks_and_nose(p, m, e, width):
    for side in ("left", "right"):
        lifted = e[f"smile_{side}"] * (1 - 0.5 * e["pucker"]) * width + 0.5 * e["squint"] + 0.4 * e["sneer"]
        p = warp.shift(p, m["cheek"] * m[side], y=3.0 * lifted, z=2.6 * lifted)
    puffed = e["cheek_puff"] * (1 - 0.8 * e["jaw_open"])
    p = warp.shift(warp.spread(p, m["puff"], 9.0 * puffed), m["puff"], z=6.0 * puffed)
    p = warp.shift(p, m["lips"], z=2.5 * puffed)
    p = warp.shift(warp.spread(p, m["ala"], 1.6 * e["sneer"]), m["ala"], y=3.6 * e["sneer"], z=0.8 * e["sneer"])
    return warp.shift(p, m["nasal"] + 0.5 * m["upper_lip"], y=2.0 * e["sneer"])


def _brows(p, m, e):
    for side in ("left", "right"):
        up = e[f"brow_raise_{side}"] * (1 - 0.5 * e["brow_lower"])
        p = warp.shift(p, m["brow"] * m[side], y=7.5 * up, z=-0.8 * up)
    down = e["brow_lower"]
    p = warp.shift(p, m["brow"], y=-3.0 * down, z=0.6 * down)
    p = warp.shift(p, m["brow_inner"], y=-3.2 * down, z=1.2 * down)
    return warp.spread(p, m["brow_inner"], -2.4 * down)


@cache
def _lid_columns() -> dict[str, tuple]:
    """For each eye: the vertices that follow the upper lid's edge, the edge vertices above and below, and how much."""
    top, mean = topology(), mean_head()
    followers = {}
    for side, sign in (("left", 1), ("right", -1)):
        rows = []
        for c in range(EYE[0] + 1, EYE[1]):
            upper = top.grid[top.eye_row, sign * c]
            lower = top.grid[top.eye_row, sign * c, "lower"]
            for up in range(6):
                vertex = top.grid[top.eye_row - up, sign * c]
                share = np.exp(-(((mean[vertex, 1] - mean[upper, 1]) / 5.2) ** 2))
                rows.append((vertex, upper, lower, 1.0, share))
            for down in range(4):
                vertex = lower if down == 0 else top.grid[top.eye_row + down, sign * c]
                share = np.exp(-(((mean[vertex, 1] - mean[lower, 1]) / 4.5) ** 2))
                rows.append((vertex, upper, lower, 0.0, share))
        followers[side] = tuple(np.array(column) for column in zip(*rows, strict=True))
    return followers


def _lids(p, m, e, neutral, centres):
    p = warp.shift(p, m["lower_lid"], y=2.2 * e["squint"], z=0.6 * e["squint"])
    for which, side in enumerate(("left", "right")):
        smile = e[f"smile_{side}"]
        closed = np.clip(e[f"blink_{side}"] + 0.35 * e["squint"] * (1 - e[f"blink_{side}"]), 0.0, 1.0)
        vertex, upper, lower, above, share = _lid_columns()[side]
        centre = centres[:, which, None]
        top_edge, low_edge = p[:, upper] - centre, p[:, lower] - centre
        low_edge = low_edge + np.array([0, 1.0, 0.0]) * (0.8 * smile)[:, None, None]
        meet = 0.8 * low_edge + 0.2 * top_edge  # lids meet near the lower one
        meet *= np.linalg.norm(top_edge, axis=-1, keepdims=True) / np.linalg.norm(meet, axis=-1, keepdims=True)
        widen = 1.6 * (e["eyes_wide"] * (1 - e[f"blink_{side}"]))[:, None, None] * np.array([0, 1.0, -0.2])
        edge = np.where(above[None, :, None] > 0, top_edge, low_edge)
        goal = edge + closed[:, None, None] * (meet - edge)
        length = np.linalg.norm(edge, axis=-1, keepdims=True)
        goal = goal * (length / np.linalg.norm(goal, axis=-1, keepdims=True))  # along the ball, not through it
        goal = goal + np.where(above[None, :, None] > 0, widen, 0.0)
        p = p.copy()
        p[:, vertex] += share[None, :, None] * (goal - edge)
    return p
