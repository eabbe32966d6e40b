"""Grow the hair of SynthFace's people on the mean head, and cut a shirt: `python bake/hair.py`.

A ribbon grows step by step. Each step is combed, pulled down and kept outside the head. The result is shipped as
`hair.safetensors`.
"""

from dataclasses import dataclass
from functools import cache

import igl
import numpy as np
from safetensors.numpy import save_file

from facenb.files import atomic_write
from facenb.synthface import atlas, hair
from facenb.synthface.hair import RIBBONS, STEPS
from facenb.synthface.heads import load_heads
from facenb.synthface.skin import into_hair

CROWN = np.array([6.0, 105.0, -110.0])  # centre of the hair's whorl, mm, origin between the eyes
KNOT = np.array([0.0, 45.0, -196.0])  # of a bun or a pony tail
MIDDLE = np.array([0, 45.0, -85.0])  # of the skull


@dataclass(frozen=True)
class Style:
    """How hair is cut and combed; lengths in mm."""

    comb: str  # whorl, back, part, centre, up, shell
    top: float  # length
    sides: float
    fringe: float  # length at the forehead; negative: height over the eyes at which a fringe ends
    width: float = 7.0  # of a ribbon
    lift: float = 0.25  # how steeply it leaves the scalp
    weight: float = 0.3  # pull downwards
    height: float = 6.0  # thickness of the layer
    wave: float = 0.0  # amplitude
    tail: bool = False


STYLES = {
    "bald": None,
    "buzz": None,
    "crop": Style("whorl", 26, 10, 20, width=4, lift=0.5, height=5),
    "ring": Style("whorl", 14, 14, 0, width=5, lift=0.3, height=4),
    "side part": Style("part", 75, 20, 75, width=7, lift=0.35, height=9, weight=0.15),
    "swept back": Style("back", 85, 45, 85, width=7, lift=0.4, height=9, weight=0.1),
    "curly": Style("shell", 26, 14, 24, width=6, height=22),
    "afro": Style("shell", 34, 30, 26, width=9, height=58),
    "fringe": Style("whorl", 75, 50, -34, width=8, lift=0.25, height=9, weight=0.4),
    "bob": Style("whorl", 190, 165, -26, width=11, lift=0.2, height=11, weight=0.8),
    "long": Style("centre", 340, 300, 330, width=12, lift=0.2, height=9, weight=0.8),
    "wavy": Style("part", 330, 280, 320, width=12, lift=0.3, height=14, weight=0.7, wave=7),
    "bun": Style("up", 190, 150, 190, width=6, lift=0.0, height=3),
    "pony tail": Style("up", 190, 150, 190, width=6, lift=0.0, height=3, tail=True),
}


def topology() -> tuple[np.ndarray, np.ndarray, int]:
    """Return triangles (T, 3) of ribbons, cap and shirt, texture coordinates (V, 2), number of hair triangles."""
    corner = 2 * (STEPS + 1) * np.arange(RIBBONS)[:, None] + 2 * np.arange(STEPS)
    pairs = [corner, corner + 2, corner + 1], [corner + 1, corner + 2, corner + 3]
    ribbons = np.stack([np.stack(pair, -1) for pair in pairs], 2).reshape(-1, 3)
    (cap, cap_triangles), (shirt, shirt_triangles) = _cap(), _shirt()
    first = 2 * RIBBONS * (STEPS + 1)
    meshes = [ribbons, cap_triangles + first, shirt_triangles + first + len(cap)]
    start = np.random.Generator(np.random.PCG64(11)).random(RIBBONS) * 0.8
    along = np.linspace(0.98, 0.02, STEPS + 1)[:, None]
    uv = np.stack(np.broadcast_arrays(start[:, None, None] + (0.0, 0.2), along), -1).reshape(-1, 2)
    offset = _scalp()[0][cap] - CROWN
    around = np.abs(np.arctan2(offset[:, 0], offset[:, 2])) / np.pi  # mirrored, so that no seam is needed
    cap_uv = np.stack([around, 1 - np.clip(np.linalg.norm(offset, axis=1) / 250, 0, 1)], -1)
    left, bottom, right, top = np.array(atlas.HAIR) / atlas.SIZE
    uv = (left, bottom) + (right - left, top - bottom) * np.concatenate([uv, cap_uv])
    cloth = np.reshape(atlas.CLOTH, (2, 2)).mean(0) / atlas.SIZE  # of one colour
    uv = np.concatenate([uv, np.broadcast_to(cloth, (len(shirt), 2))]).astype(np.float32)
    return np.concatenate(meshes), uv, len(ribbons) + len(cap_triangles)


@cache
def _shirt() -> tuple[np.ndarray, np.ndarray]:
    """Return a collar and shoulders on the template: rings that widen from the edge of the neck, and triangles."""
    vertices, triangles, _ = _scalp()
    rim = vertices[np.unique(igl.boundary_facets(triangles)[0])]
    rim = rim[rim[:, 1] < -85]
    middle = np.array([0, 0, -95.0])
    rim = rim[np.argsort(np.arctan2(rim[:, 0], rim[:, 2] - middle[2]))]
    # Each ring: width and depth relative to the neck, height (mm from the eyes; a shift at level 0), and how level.
    shapes = [(1.05, 1.05, 8, 0), (1.12, 1.1, -4, 0), (2.0, 1.35, -148, 0.7), (3.6, 1.6, -172, 1), (4.0, 1.7, -300, 1)]
    rings = []
    for wide, deep, height, level in shapes:
        ring = middle + (rim - middle) * (wide, 1, deep)
        ring[:, 1] = (1 - level) * rim[:, 1] + height * (level or 1)
        rings.append(ring)
    a = np.arange((len(rings) - 1) * len(rim))
    b = a - a % len(rim) + (a + 1) % len(rim)  # the next one of its ring
    faces = [np.stack([a, a + len(rim), b], -1), np.stack([b, a + len(rim), b + len(rim)], -1)]
    return np.concatenate(rings), np.concatenate(faces)


@cache
def _cap() -> tuple[np.ndarray, np.ndarray]:
    """Return the vertices of the scalp and triangles between them: a shell below the ribbons that closes gaps."""
    vertices, triangles, _ = _scalp()
    triangles = triangles[(into_hair(vertices) > -3)[triangles].all(1)]
    cap, local = np.unique(triangles, return_inverse=True)
    return cap, local.reshape(-1, 3)


@cache
def _scalp() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the template in mm from between the eyes, its skin's triangles, and roots (RIBBONS, 3) on the scalp."""
    heads = load_heads()
    vertices = atlas.template()
    triangles = heads.triangles[heads.component[heads.triangles[:, 0]] == atlas.SKIN]
    generator = np.random.Generator(np.random.PCG64(12))
    corners = vertices[triangles]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    inside = into_hair(corners.mean(1)) > -4
    front = 1 + 1.5 * atlas.smooth_step(corners[..., 2].mean(1), -80, 0)  # denser where photographs show it
    chosen = generator.choice(len(triangles), 6 * RIBBONS, p=area * inside * front / (area * inside * front).sum())
    shares = generator.dirichlet((1, 1, 1), len(chosen))
    roots = (corners[chosen] * shares[..., None]).sum(1)
    roots = roots[into_hair(roots) > 0]
    kept = [roots[0]]  # even spacing: each next root is the candidate farthest from all kept roots
    distance = np.full(len(roots), np.inf)
    for _ in range(RIBBONS - 1):
        distance = np.minimum(distance, np.linalg.norm(roots - kept[-1], axis=1))
        kept.append(roots[distance.argmax()])
    return vertices, triangles, np.array(kept)


def _outside(points: np.ndarray, gap) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the points (N, 3) moved to at least `gap` mm (N,) above the skin, its normals there and heights."""
    vertices, triangles, _ = _scalp()
    triangles = triangles[~_is_ear(vertices[triangles].mean(1))]
    _, face, closest = igl.point_mesh_squared_distance(points, vertices, triangles)
    a, b, c = (vertices[triangles[face, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    height = ((points - closest) * normal).sum(1)
    moved = np.where((height < gap)[:, None], closest + normal * np.asarray(gap)[:, None], points)
    return moved, normal, np.maximum(height, gap)


def _is_ear(points: np.ndarray) -> np.ndarray:
    x, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
    return (x > 74) & (y > -58) & (y < 14) & (z > -110) & (z < -62)


def _combed(style: Style, points: np.ndarray, roots: np.ndarray) -> np.ndarray:
    """Return the direction (N, 3) in which hair at `points` is combed."""
    if style.comb == "whorl":
        direction = points - CROWN - (0, 10, 0)
        # Sides hang down, not over the face.
        direction[:, 2] = np.where(_regions(roots)[1] > 0.5, direction[:, 2], np.minimum(direction[:, 2], 0))
    elif style.comb == "back":
        direction = np.stack([0.1 * points[:, 0], np.where(roots[:, 1] < 40, -45.0, 0.0), -80.0 + 0 * points[:, 0]], -1)
    elif style.comb == "up":
        direction = KNOT - points
    else:
        parting = 28.0 if style.comb == "part" else 0.0
        side = np.sign(roots[:, 0] - parting + 1e-6)
        behind = atlas.smooth_step(-roots[:, 2], 60, 130)
        direction = np.stack([side * (1 - 0.6 * behind), -0.25 + 0 * side, -0.9 - 0.1 * behind], -1)
    return direction / np.linalg.norm(direction, axis=1, keepdims=True)


def _regions(roots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how far (0 to 1) roots are on top of the head, and above the forehead."""
    high = atlas.smooth_step(roots[:, 1], 20, 60)
    narrow = 1 - atlas.smooth_step(np.abs(roots[:, 0]), 38, 56)
    return high, atlas.smooth_step(roots[:, 2], -50, -15) * high * narrow


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def grow(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the vertices (V, 3) of a style in mm from between the eyes (NaN: not used), and their brightness (V,)."""
    style = STYLES[name]
    vertices, _, roots = _scalp()
    shirt, cap = _shirt()[0], _cap()[0]
    if style is None:
        strands = np.full((2 * RIBBONS * (STEPS + 1) + len(cap), 3), np.nan)
        return np.concatenate([strands, shirt]), np.ones(len(strands) + len(shirt))
    generator = np.random.Generator(np.random.PCG64(13))
    jitter, level = generator.random(RIBBONS), generator.random(RIBBONS)
    high, front = _regions(roots)
    if style.fringe < 0:
        front, fringe = front > 0.5, roots[:, 1] + style.fringe + 0.8 * np.maximum(14 - roots[:, 2], 0)
    else:
        fringe = style.fringe
    length = (style.sides + high * (style.top - style.sides)) * (1 - front) + front * fringe
    length *= np.where(length < 40, 0.65 + 0.7 * jitter, 0.85 + 0.3 * jitter)
    make = _shell if style.comb == "shell" else _strands
    line, normal = make(style, roots, length, level, generator)
    tint = 0.62 + 0.38 * level[:, None] * np.ones(STEPS + 1)
    tint *= (0.86 + 0.28 * generator.random(RIBBONS))[:, None]
    tint *= 0.72 + 0.28 * atlas.smooth_step(np.linspace(0, 1, STEPS + 1), 0.0, 0.35)
    if style.comb == "up":
        _gather(style, line, normal, tint, generator)
    profile = np.array([0.7, 1, 1, 1, 1, 0.95, 0.85, 0.6, 0.12])[None, :, None] * style.width
    along = _unit(np.gradient(line, axis=1))
    across = _unit(np.cross(normal, along))
    across = _unit(across + 0.25 * generator.standard_normal((RIBBONS, 1, 1)) * normal)
    both = np.stack([line - 0.5 * profile * across, line + 0.5 * profile * across], 2)
    if style.comb in ("back", "up"):
        both[(roots[:, 1] < 12) & (roots[:, 2] > -76)] = np.nan  # sideburns would cross the ears
    if name == "ring":
        both[(roots[:, 1] > 52) & (roots[:, 2] > -150)] = np.nan
    points, tint = both.reshape(-1, 3), np.repeat(tint.ravel(), 2)
    inside = atlas.smooth_step(into_hair(vertices[cap]), 0, 25 if style.comb == "shell" else 10)
    bottom, normal, _ = _outside(vertices[cap], np.zeros(len(cap)))
    if style.comb == "shell":
        normal = _unit(normal + _unit(vertices[cap] - MIDDLE))
    bottom = bottom + normal * (0.7 * style.height * inside - 1.0 * (inside < 0.05))[:, None]
    if name == "ring":
        bottom[:] = np.nan
    tints = tint, np.full(len(cap), 0.7), np.ones(len(shirt))
    return np.concatenate([points, bottom, shirt]), np.concatenate(tints)


def _strands(style: Style, roots, length, level, generator) -> tuple[np.ndarray, np.ndarray]:
    """Return centre lines (RIBBONS, STEPS + 1, 3) and the skin's normals along them: combed hair."""
    sway = generator.standard_normal((RIBBONS, 3))
    phase = 2 * np.pi * generator.random(RIBBONS)
    above = 1.5 + style.height * level
    points, normal, height = _outside(roots, np.full(RIBBONS, 0.5))
    line, normals = [points], [normal]
    direction = normal
    for step in range(1, STEPS + 1):
        share = step / STEPS
        # Hanging hair must pass over the ears. `_outside` leaves them out, so here the gap is larger.
        ears = np.exp(-(((points[:, 1] + 20) / 32) ** 2 + ((points[:, 2] + 82) / 28) ** 2))
        gap = above + 9 * ears * (style.weight >= 0.4)
        falling = atlas.smooth_step(-points[:, 1], -10, 60)[:, None] * (style.weight >= 0.4)
        comb = _combed(style, points, roots)
        comb = _unit(comb - (comb * normal).sum(1, keepdims=True) * normal)
        steep = (style.lift * (0.4 + 0.6 * _regions(roots)[0]) * (1 - share))[:, None]
        pull = np.array([0, -1.0, 0]) * np.maximum(style.weight * min(1.0, 2 * share), falling)
        cling = -0.6 * np.clip((height - gap) / 15, 0, 1)[:, None] * normal * (points[:, 1:2] > -45)
        target = _unit(comb * (1 - steep) * (1 - 0.8 * falling) + steep * normal + pull + cling + 0.07 * sway)
        direction = _unit(0.35 * direction + 0.65 * target)
        step_size = (length / STEPS)[:, None]
        points = points + step_size * direction
        if style.wave:
            swing = style.wave * np.cos(phase + 2 * np.pi * share * length / 75)
            points = points + swing[:, None] * share * _unit(np.cross(normal, direction))
        points, normal, height = _outside(points, np.minimum(gap, 0.5 + 0.5 * length * share))
        line.append(points)
        normals.append(normal)
    line, normals = np.stack(line, 1), np.stack(normals, 1)
    for curve in (line, normals) * 3:  # smooth the kinks from the steps around the ears
        curve[:, 1:-1] = 0.25 * curve[:, :-2] + 0.5 * curve[:, 1:-1] + 0.25 * curve[:, 2:]
    return line, normals


def _shell(style: Style, roots, length, level, generator) -> tuple[np.ndarray, np.ndarray]:
    """Return centre lines and normals of curls: short bent ribbons at all heights of the layer."""
    edge = 0.35 + 0.65 * atlas.smooth_step(into_hair(roots), 0, 25)
    base, normal, _ = _outside(roots, np.full(RIBBONS, 0.2))
    outward = _unit(0.5 * normal + 0.5 * _unit(base - MIDDLE))
    height = style.height * edge * level**0.6 * (length / max(style.top, 1))
    start = base + outward * height[:, None]
    side = _unit(np.cross(outward, generator.standard_normal((RIBBONS, 3))))
    other = np.cross(outward, side)
    angle = np.linspace(-1.6, 1.6, STEPS + 1)[None, :, None]
    radius = (length / 3.2)[:, None, None]
    line = start[:, None] + radius * (np.sin(angle) * side[:, None] + 0.6 * (np.cos(angle) - 0.5) * other[:, None])
    line = line + radius * 0.35 * np.cos(angle) * outward[:, None]
    return line, np.broadcast_to(outward[:, None], line.shape)


def _gather(style: Style, line, normal, tint, generator) -> None:
    """Let combed-back hair end in the knot, and use every seventh ribbon for the bun or the tail."""
    share = np.linspace(0, 1, STEPS + 1)[None, :, None]
    gathered = slice(None, None, 7)
    count = len(line[gathered])
    line[:] = line + share**4 * (KNOT - line)
    u = generator.standard_normal((count, 3))
    if style.tail:
        start = KNOT + 7 * _unit(u)
        fall = np.array([0, -230.0, -10.0]) + 0.05 * 230 * u
        bow = np.array([0, 10.0, -45.0]) * np.sin(np.pi * np.minimum(share * 1.4, 1))
        line[gathered] = start[:, None] + share * fall[:, None] + bow + 10 * share * u[:, None]
        normal[gathered] = _unit(u * (1, 0.1, 1))[:, None]
    else:
        pole, other = _unit(u), _unit(np.cross(u, generator.standard_normal((count, 3))))
        angle = 2.2 * (share - 0.5)
        centre = KNOT + np.array([0, 4.0, -12.0])
        line[gathered] = centre + 27 * (np.cos(angle) * pole[:, None] + np.sin(angle) * other[:, None])
        normal[gathered] = _unit(line[gathered] - centre)
    tint[gathered] = 0.75 + 0.3 * generator.random((count, 1))


def main() -> None:
    """Write all styles and their common topology."""
    points, tints = (np.stack(values) for values in zip(*map(grow, hair.STYLES), strict=True))
    triangles, uv, count = topology()
    arrays = {"points": points.astype(np.float32), "tint": tints.astype(np.float16), "uv": uv}
    arrays |= {"triangles": triangles.astype(np.int16), "hair_triangles": np.array([count], np.int32)}
    with atomic_write(hair.PATH) as partial:
        save_file(arrays, partial)


if __name__ == "__main__":
    main()
