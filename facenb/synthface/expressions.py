"""Expressions: MakeHuman's facial actions, with variations for each person.

Three effects are not linear: the jaw turns on its hinge, lids slide over eyeballs, and some actions weaken others.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.sparse import csr_array

from facenb.synthface.heads import lid_rims, load_heads, mean_head

# ARKit's names; left and right are the person's, values in [0, 1].
EXPRESSIONS = tuple(
    """browDownLeft browDownRight browInnerUp browOuterUpLeft browOuterUpRight cheekPuff eyeBlinkLeft eyeBlinkRight
    eyeSquintLeft eyeSquintRight eyeWideLeft eyeWideRight jawOpen jawLeft jawRight mouthFrownLeft mouthFrownRight
    mouthFunnel mouthPucker mouthPressLeft mouthPressRight mouthSmileLeft mouthSmileRight mouthStretchLeft
    mouthStretchRight mouthUpperUpLeft mouthUpperUpRight noseSneerLeft noseSneerRight""".split()
)
# Our full expression as a share of MakeHuman's full action. It is 1 for expressions not listed.
STRENGTH = {"mouthSmileLeft": 0.75, "mouthSmileRight": 0.75, "cheekPuff": 0.8}
# Actions that accompany an action: mean and standard deviation of their share. "*" stands for the side.
COMPANIONS = {
    "browDown*": {"noseSneer*": (0.10, 0.10), "eyeSquint*": (0.15, 0.10)},
    "browInnerUp": {"browOuterUpLeft": (0.15, 0.12), "browOuterUpRight": (0.15, 0.12)},
    "cheekPuff": {"mouthPressLeft": (0.10, 0.10), "mouthPressRight": (0.10, 0.10)},
    "jawOpen": {"jawForward": (0.10, 0.15), "mouthLowerDownLeft": (0.10, 0.10), "mouthLowerDownRight": (0.10, 0.10)},
    "mouthFrown*": {"mouthShrugLower": (0.15, 0.15)},
    "mouthFunnel": {"mouthPucker": (0.10, 0.10)},
    "mouthPucker": {"mouthFunnel": (0.10, 0.10)},
    "mouthPress*": {"mouthRollLower": (0.10, 0.10), "mouthRollUpper": (0.10, 0.10)},
    "mouthSmile*": {"cheekSquint*": (0.35, 0.20), "mouthDimple*": (0.15, 0.20), "mouthUpperUp*": (0.05, 0.15)},
    "mouthStretch*": {"mouthLowerDown*": (0.25, 0.20)},
    "mouthUpperUp*": {"noseSneer*": (0.20, 0.12)},
    "noseSneer*": {"mouthUpperUp*": (0.15, 0.12), "cheekSquint*": (0.15, 0.10)},
}
# Share of an action that is left if another is full: a pursed mouth cannot smile widely, a closed eye cannot widen.
WEAKENED = {
    ("mouthSmile*", "mouthPucker"): 0.4,
    ("mouthSmile*", "mouthFunnel"): 0.5,
    ("mouthStretch*", "mouthPucker"): 0.4,
    ("mouthPress*", "jawOpen"): 0.3,
    ("cheekPuff", "jawOpen"): 0.2,
    ("mouthPucker", "jawOpen"): 0.7,
    ("eyeSquint*", "eyeBlink*"): 0.2,
    ("eyeWide*", "eyeBlink*"): 0.0,
    ("browOuterUp*", "browDown*"): 0.6,
}
RINGS = (0.0, 5.0, 10.0, 15.0, 20.0, 23.0, 30.0, 40.0, 50.0, 60.0, 72.0)  # degrees from the eye's axis; iris: to 20
SECTORS = 20  # vertices of one ring
LID_GAP = 0.05  # in eyeball radii: lids keep their distance on the mean head, but at most this


def sides(pattern: str, other: str = "") -> list[tuple[str, str]]:
    """Return the pair of names for each side, which replaces "*". Without "*", return the pair unchanged."""
    both = ("Left", "Right") if "*" in pattern + other else ("",)
    return [(pattern.replace("*", side), other.replace("*", side)) for side in both]


@dataclass(frozen=True)
class Mimic:
    """How one person moves."""

    basis: csr_array  # (E, 3 V): movement of each expression at 1, mm, without the turn of the jaw
    jaw_angle: float  # radians at jawOpen = 1

    @classmethod
    def draw(cls, generator: np.random.Generator, neutral: np.ndarray) -> "Mimic":
        """Draw amplitude, asymmetry, shape and companions of each expression of the head `neutral` (V, 3)."""
        heads = load_heads()
        mix = np.zeros((len(EXPRESSIONS), len(heads.action_names)))
        for row, name in enumerate(EXPRESSIONS):
            mix[row, heads.action_names.index(name)] = STRENGTH.get(name, 1.0)
        for pattern, companions in COMPANIONS.items():
            for companion, (mean, deviation) in companions.items():
                for name, other in sides(pattern, companion):
                    share = max(mean + deviation * generator.standard_normal(), 0.0)
                    mix[EXPRESSIONS.index(name), heads.action_names.index(other)] += share
        basis = csr_array(csr_array(mix) @ heads.actions)
        row = np.repeat(np.arange(len(EXPRESSIONS)), np.diff(basis.indptr))
        vertex, axis = np.divmod(basis.indices, 3)
        numbers = np.clip(generator.standard_normal((len(EXPRESSIONS), 6)), -2.5, 2.5)
        blinks = [EXPRESSIONS.index(name) for name, _ in sides("eyeBlink*")]
        numbers[blinks] = 0.0  # no variation: every blink closes the eye
        size, across, along = np.exp(0.15 * numbers[:, 0]), 0.12 * numbers[:, 1], 0.12 * numbers[:, 2]
        x, y, _ = mean_head().T
        to_left, upwards = np.tanh(x / 20.0), np.tanh((y + 20.0) / 40.0)  # smooth, from -1 to 1
        basis.data *= (size[:, None] * np.exp(0.1 * numbers[:, 3:]))[row, axis]
        basis.data *= 1 + across[row] * to_left[vertex] + along[row] * upwards[vertex]
        for eye, blink in enumerate(blinks):
            entries = slice(basis.indptr[blink], basis.indptr[blink + 1])
            closing = _closing(neutral, basis[[blink]].toarray().reshape(-1, 3), eye)
            basis.data[entries] *= closing[vertex[entries]]
        return cls(basis, heads.jaw_angle * size[EXPRESSIONS.index("jawOpen")])


def express(neutral: np.ndarray, mimic: Mimic, expression: np.ndarray) -> np.ndarray:
    """Return heads (B, V, 3) in mm of one neutral head (V, 3) with expressions (B, E)."""
    heads = load_heads()
    active = np.clip(expression, 0.0, 1.0)
    reduced = active.copy()
    for pair, rest in WEAKENED.items():
        for name, other in sides(*pair):
            reduced[:, EXPRESSIONS.index(name)] *= 1 - (1 - rest) * active[:, EXPRESSIONS.index(other)]
    points = neutral + (reduced @ mimic.basis).reshape(len(active), -1, 3)
    turning, guides, mean_guide = _jaw()
    hinge = heads.jaw_hinge + neutral[guides].mean(0) * (0, 1, 1) - mean_guide
    angle = mimic.jaw_angle * active[:, EXPRESSIONS.index("jawOpen"), None] * heads.jaw_share[turning]
    points[:, turning] = turn(points[:, turning], hinge, angle)
    return clear_eyeballs(points, neutral)


@cache
def _jaw() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the vertices that turn, the two in front of the ears that the hinge follows, and their mean."""
    heads, mean = load_heads(), mean_head()
    hinge, skin = heads.jaw_hinge, heads.part("skin")
    guides = [skin[np.linalg.norm(mean[skin] - (side, *hinge[1:]), axis=1).argmin()] for side in (80.0, -80.0)]
    return np.flatnonzero(heads.jaw_share > 0), np.array(guides), mean[guides].mean(0) * (0, 1, 1)


def _closing(neutral: np.ndarray, blink: np.ndarray, eye: int) -> np.ndarray:
    """Return the factor (V,), linear in x across the eye, with which a full blink (V, 3) just closes the lids."""
    upper, lower = lid_rims()[eye]
    x = neutral[upper, 0]
    gap = neutral[upper, 1] - np.interp(x, neutral[lower, 0], neutral[lower, 1])
    closing = np.interp(x, neutral[lower, 0], blink[lower, 1]) - blink[upper, 1]
    # gap = (a + b x) closing by least squares. Wide columns count most, because the eye's corners are noisy.
    a, b = np.linalg.lstsq(closing[:, None] * np.stack([np.ones_like(x), x], 1), gap)[0]
    return a + b * np.clip(neutral[:, 0], x[0], x[-1])


@cache
def _eyes() -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], ...]:
    """Return for each eye: its vertices, the matrix (4, n) that fits an affine map of the unit ball to them, the
    vertices of its lids, and how many radii these stay away from its centre."""
    heads, mean = load_heads(), mean_head()
    eyes = []
    for vertices in np.split(heads.part("eye"), 2):
        unit = eyeball() * ((-1, 1, 1) if mean[vertices[0], 0] < 0 else 1)
        fit = np.linalg.pinv(np.concatenate([unit, np.ones((len(unit), 1))], 1))
        axes = fit @ mean[vertices]
        skin = heads.part("skin")
        far = (mean[skin] - axes[3]) @ np.linalg.inv(axes[:3])
        size = np.linalg.norm(far, axis=1)
        near = (size > 1.0) & (size < 1.6) & (far[:, 2] > 0.2)
        eyes.append((vertices, fit, skin[near], np.minimum(size[near], 1 + LID_GAP)))
    return tuple(eyes)


def clear_eyeballs(points: np.ndarray, neutral: np.ndarray) -> np.ndarray:
    """Push lids of heads (B, V, 3) outwards, in place, if they are too near to an eyeball of the head `neutral`."""
    for vertices, fit, lids, least in _eyes():
        axes = fit @ neutral[vertices]  # rows: the ball's three half axes, then its centre
        inside = (points[:, lids] - axes[3]) @ np.linalg.inv(axes[:3])
        size = np.linalg.norm(inside, axis=-1)
        points[:, lids] = axes[3] + inside * (np.maximum(size, least) / size)[..., None] @ axes[:3]
    return points


def turn(points: np.ndarray, hinge: np.ndarray, angle) -> np.ndarray:
    """Return points turned about an axis through `hinge` along x, each by its own angle (radians)."""
    cosine, sine = np.cos(angle), np.sin(angle)
    y, z = points[..., 1] - hinge[1], points[..., 2] - hinge[2]
    return np.stack([points[..., 0], hinge[1] + cosine * y - sine * z, hinge[2] + sine * y + cosine * z], -1)


def eyeball() -> np.ndarray:
    """Return the vertices (201, 3) of the front of the unit eyeball, which looks along z.

    Vertex 0 is the pupil's middle; ring k (1 to 10) follows with its sectors, counter-clockwise from x.
    """
    polar = np.radians(RINGS[1:])[:, None]
    around = 2 * np.pi * np.arange(SECTORS) / SECTORS
    ring = np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), np.cos(polar) + 0 * around
    return np.concatenate([[[0.0, 0.0, 1.0]], np.stack(ring, -1).reshape(-1, 3)])
