"""Wrinkles: grooves along the normals, in a pattern that belongs to the person, deeper with age and expression."""

from functools import cache, lru_cache

import numpy as np

from facenb.morphable.synthetic.anatomy import masks
from facenb.morphable.synthetic.expressions import EXPRESSIONS
from facenb.morphable.synthetic.head import mean_head, smooth_step
from facenb.morphable.synthetic.topology import EYEBALL, topology

DEEPEST = 1.2  # mm, never exceeded
PATTERN = 24  # random numbers in [0, 1) a person's pattern takes


@cache
def _coordinates() -> tuple[np.ndarray, ...]:
    mean = mean_head()
    return mean[:, 0], np.abs(mean[:, 0]), mean[:, 1], masks()["front"] * (topology().part != EYEBALL)


def _groove(distance, width):
    return np.exp(-((distance / width) ** 2))


@lru_cache(maxsize=64)
def _kept_grooves(pattern: bytes) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Each family's depth and its raised borders; a person's pictures share them."""
    return {name: (depth, 0.18 * np.sqrt(depth)) for name, depth in grooves(np.frombuffer(pattern)).items()}


def grooves(pattern: np.ndarray) -> dict[str, np.ndarray]:
    """Depth (V,) from 0 to about 1 of each family of wrinkles of one person; `pattern` (PATTERN,) in [0, 1)."""
    signed, x, y, front = _coordinates()
    r = iter(np.asarray(pattern, float))
    forehead = 0.0
    for line in range(3):  # wavy lines across the forehead, 10 mm apart
        height = 57.0 + 10.0 * line + 4.0 * (next(r) - 0.5)
        wave = 1.5 * np.sin(signed / (9.0 + 6.0 * next(r)) + 6.28 * next(r)) - 0.0022 * x**2 * (1 + next(r))
        forehead = forehead + (0.6 + 0.4 * next(r)) * _groove(y - height - wave, 2.6)
    forehead = forehead * (1 - smooth_step(x, 30.0, 52.0))
    distance, angle = np.hypot(x - 45.0, y - 24.0), np.arctan2(y - 24.0, x - 45.0)
    spokes = 0.5 + 0.5 * np.cos(7.0 * angle + 3.0 * (next(r) - 0.5))
    crow = spokes**2 * smooth_step(distance, 2.0, 7.0) * (1 - smooth_step(distance, 13.0, 21.0)) * (x > 44.0)
    glabella = _groove(x - 4.5 - 2.0 * next(r), 2.3) * np.exp(-(((y - 42.0) / (7.0 + 3 * next(r))) ** 2))
    course = 18.5 + 0.40 * (-12.0 - y) + 2.5 * (next(r) - 0.5) - 0.0035 * (-12.0 - y) ** 2
    nasolabial = _groove(x - course, 2.6) * smooth_step(-y, 8.0, 16.0) * (1 - smooth_step(-y, 36.0, 52.0))
    marionette = _groove(x - 28.0 - 0.15 * (-48.0 - y) - 2 * (next(r) - 0.5), 2.6)
    marionette = marionette * smooth_step(-y, 46.0, 52.0) * (1 - smooth_step(-y, 62.0, 74.0))
    nose = _groove((y - 20.0 - 3 * next(r)), 2.4) * (1 - smooth_step(x, 5.0, 10.0))
    families = dict(
        forehead=forehead, crow=crow, glabella=glabella, nasolabial=nasolabial, marionette=marionette, nose=nose
    )
    return {name: depth * front for name, depth in families.items()}


def depths(age: float, expression: np.ndarray) -> dict[str, np.ndarray]:
    """How deep (mm, (B, 2) for the viewer's left and right half) each family is; age in years."""
    e = dict(zip(EXPRESSIONS, np.asarray(expression, float).T, strict=True))
    old = 0.08 + 0.92 / (1 + np.exp(-(age - 48.0) / 8.0))
    both = np.stack
    raised = both([e["brow_raise_right"], e["brow_raise_left"]], -1)
    smile, blink = both([e["smile_right"], e["smile_left"]], -1), both([e["blink_right"], e["blink_left"]], -1)
    one = np.ones((1, 2))

    def each(name):
        return e[name][:, None] * one

    young = 0.35 + 0.65 * old
    snarl = 0.7 * np.maximum(each("sneer"), each("upper_lip_raise"))
    return dict(
        forehead=0.55 * old + 1.1 * young * raised,
        crow=0.4 * old + 0.8 * young * np.maximum(smile, 0.8 * np.maximum(each("squint"), blink)),
        glabella=0.5 * old + 0.9 * young * each("brow_lower"),
        nasolabial=0.75 * old + 0.8 * young * np.maximum(smile, snarl),
        marionette=0.65 * old + 0.5 * young * each("frown"),
        nose=0.05 * old + 0.6 * young * np.maximum(each("sneer"), 0.4 * each("brow_lower")),
    )  # fmt: skip


def displacement(pattern: np.ndarray, age: float, expression: np.ndarray) -> np.ndarray:
    """Displacement (B, V) in mm along the outward normals: negative in a groove, slightly positive beside it."""
    signed = _coordinates()[0]
    share = smooth_step(signed, -10.0, 10.0)
    total = np.zeros((len(expression), len(signed)))
    family = _kept_grooves(np.ascontiguousarray(pattern, dtype=float).tobytes())
    for name, depth in depths(age, expression).items():
        groove, border = family[name]
        total += (depth[:, :1] * (1 - share) + depth[:, 1:] * share) * (groove - border)
    return -DEEPEST * np.tanh(total / DEEPEST)
