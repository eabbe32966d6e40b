"""The colours of a person: melanin and blood in the skin, brows, lips, irises, hair, stubble, freckles, make-up."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from facenb.morphable.synthetic.anatomy import masks
from facenb.morphable.synthetic.head import MOUTH_HEIGHT, ear_coordinates, mean_head, seam_offset, smooth_step
from facenb.morphable.synthetic.topology import (
    EYEBALL,
    INSIDE,
    LOWER_INNER,
    LOWER_LID,
    LOWER_LIP,
    UPPER_INNER,
    UPPER_LID,
    UPPER_LIP,
    topology,
)

# What is left of white light (RGB): without pigment, and absorbed by one unit of melanin and of blood (log).
UNPIGMENTED = np.array([0.95, 0.86, 0.79])
MELANIN, BLOOD = np.array([0.62, 0.86, 1.04]), np.array([0.07, 0.52, 0.46])
HAIR = np.array([[0.05, 0.04, 0.035], [0.13, 0.08, 0.05], [0.28, 0.17, 0.09], [0.55, 0.40, 0.22], [0.42, 0.16, 0.07]])
GREY_HAIR = np.array([0.62, 0.61, 0.60])
IRIS = np.array([[0.16, 0.09, 0.05], [0.30, 0.19, 0.09], [0.36, 0.36, 0.18], [0.38, 0.48, 0.52], [0.28, 0.42, 0.60]])
NOISE_WAVES = 14


@dataclass(frozen=True)
class Colouring:
    """What a person's colours are drawn from; amounts in [0, 1] unless said."""

    melanin: float  # 0.08 (palest) to 1.9 (darkest)
    blood: float  # about 0.3
    hair: np.ndarray  # RGB
    iris: np.ndarray  # RGB
    brow: float  # thickness
    freckles: float
    stubble: float
    makeup: float
    lipstick: np.ndarray  # RGB
    hairline: float  # height of the hair's edge on the forehead, mm
    recession: float  # mm at the temples
    bald: float  # hair gone from the crown
    cut: float  # how far down the hair grows at the sides, mm
    waves: np.ndarray  # (NOISE_WAVES, 4) of the skin's mottling

    @classmethod
    def draw(cls, traits: np.ndarray, generator: np.random.Generator) -> "Colouring":
        """Colours of a person with these traits (sex, age, weight)."""
        sex, age, _ = traits
        male, years = sex > 0, 40 + 15 * age
        u = generator.random(16)
        melanin = 0.06 + 1.6 * u[0] ** 1.9
        dark = np.clip(1.5 * (melanin - 0.15) + 0.35 * (u[1] - 0.3), 0.0, 1.0)
        shade = (1 - dark) * 3.0 * u[2] ** 0.8
        low = int(min(shade, 2.0))
        hair = HAIR[low] + (shade - low) * (HAIR[low + 1] - HAIR[low])
        if melanin < 0.35 and u[3] < 0.12:
            hair = HAIR[4]
        grey = np.clip((years - 35 - 25 * u[4]) / 25, 0.0, 1.0)
        hair = hair + 0.85 * grey * (GREY_HAIR - hair)
        light_eyes = (1 - dark) * u[5]
        place = 4.0 * np.clip(light_eyes * 1.25 - 0.12, 0.0, 0.999)
        iris = IRIS[int(place)] + (place - int(place)) * (IRIS[int(place) + 1] - IRIS[int(place)])
        lipstick = np.array([0.42 + 0.35 * u[12], 0.08 + 0.15 * u[13], 0.12 + 0.2 * u[14]])
        losing = male * np.clip((years - 25) / 50, 0, 1) * u[11]
        return cls(
            melanin=melanin, blood=0.16 + 0.30 * u[6], hair=hair, iris=iris, brow=(0.75 if male else 0.4) + 0.3 * u[7],
            freckles=float((u[8] < 0.3) * (melanin < 0.5) * u[9]),
            stubble=float(male) * u[9] ** 1.3 * (0.6 + 0.4 * dark),
            makeup=float((not male) and u[10] < 0.5) * (0.35 + 0.65 * u[12]), lipstick=lipstick,
            hairline=72.0 + 9.0 * (u[15] - 0.4) + 9.0 * losing, recession=(8.0 if male else 2.0) + 22.0 * losing,
            bald=float(losing > 0.42), cut=-5.0 if male else -45.0 + 40.0 * u[13],
            waves=np.stack([generator.normal(size=NOISE_WAVES), *generator.normal(size=(2, NOISE_WAVES)),
                            6.283 * generator.random(NOISE_WAVES)], -1),
        )  # fmt: skip


@cache
def places() -> dict[str, np.ndarray]:
    """Where the colours go, (V,) on the mean head (do not write to them)."""
    top, mean, m = topology(), mean_head(), masks()
    x, y = np.abs(mean[:, 0]), mean[:, 1]
    s = np.clip((x - 10.0) / 48.0, 0, 1)
    arch = 44.0 + 13.0 * s - 14.5 * s**2.6  # the brow's middle line
    full = np.sqrt(np.clip(1 - (x / 26.5) ** 2, 0, 1))
    away = y - MOUTH_HEIGHT - seam_offset(x)
    upper_edge, lower_edge = 8.2 * (0.28 + 0.72 * full) + 0.8 * np.exp(-(((x - 6.5) / 3.5) ** 2)), 11.0 * full
    lips = np.where(away > 0, 1 - smooth_step(away, upper_edge - 0.9, upper_edge + 0.9),
                    1 - smooth_step(-away, lower_edge - 1.2, lower_edge + 1.2))  # fmt: skip
    lips = lips * (1 - smooth_step(x, 25.0, 27.5)) * m["front"] * (top.part < EYEBALL)
    lips[(top.part == UPPER_LIP) | (top.part == LOWER_LIP)] = 1.0
    beard = np.maximum(smooth_step(-y, 30.0, 46.0), np.exp(-(((y + 30) / 5.0) ** 2)) * (x < 32))
    beard = beard * smooth_step(mean[:, 2], -8, 12) * (1 - smooth_step(-y, 92.0, 112.0)) * (1 - lips)
    cheek_bare = 1 - np.exp(-(((x - 36) / 13) ** 2 + ((y + 26) / 13) ** 2))
    # On the raised ear everything lies further back than where it was modelled; the canal and the fold look dark.
    back, up = ear_coordinates(mean + np.array([0, 0, 3.0]))
    egg = np.hypot(back / (1.0 + 0.22 * up), up)
    hollow = 0.9 * np.exp(-(((back + 0.12) / 0.27) ** 2 + ((up + 0.1) / 0.28) ** 2))
    hollow = hollow + 0.55 * np.exp(-(((egg - 0.62) / 0.11) ** 2)) * smooth_step(up, -0.2, 0.3) * (back > -0.6)
    return dict(
        x=x, y=y, brow_s=(x - 10.0) / 48.0, brow_line=y - arch, lips=lips, beard=beard * cheek_bare,
        flush=np.exp(-(((x - 42) / 15) ** 2 + ((y + 6) / 13) ** 2))
        + 0.8 * np.exp(-((x / 10) ** 2 + ((y + 9) / 9) ** 2)),
        rouge=np.exp(-(((x - 50) / 12) ** 2 + ((y + 2) / 10) ** 2)),
        socket=np.exp(-(((x - 30) / 13) ** 2 + ((y - 15) / 5.5) ** 2)),
        shadow=np.exp(-(((x - 33) / 13) ** 2 + ((y - 33) / 4.5) ** 2)),
        nostril=np.exp(-(((x - 6.6) / 2.3) ** 2 + ((y + 17.3) / 1.7) ** 2)) * m["front"],
        speckled=np.exp(-(((x - 22) / 26) ** 2 + ((y - 2) / 14) ** 2)),
        ear=m["ear"], front=m["front"], hollow=np.clip(hollow, 0, 1) * m["ear"],
    )  # fmt: skip


def _mottling(colouring: Colouring, wavelength: float) -> np.ndarray:
    """Smooth noise (V,) of about unit spread on the mean head."""
    mean = mean_head() / wavelength
    waves = colouring.waves
    direction = waves[:, :3] / np.linalg.norm(waves[:, :3], axis=1, keepdims=True)
    phase = 6.283 * (mean @ direction.T) * (0.6 + 0.8 * np.arange(NOISE_WAVES) / NOISE_WAVES) + waves[:, 3]
    return np.cos(phase).sum(1) * np.sqrt(2.0 / NOISE_WAVES)


def skin_colour(melanin, blood) -> np.ndarray:
    """RGB (..., 3) of skin by the Beer-Lambert law in the two pigments that colour it."""
    melanin, blood = np.asarray(melanin)[..., None], np.asarray(blood)[..., None]
    return UNPIGMENTED * np.exp(-MELANIN * melanin - BLOOD * blood)


def paint(colouring: Colouring) -> np.ndarray:
    """Albedo (V, 3), RGB in [0, 1], of a person."""
    c, at, top = colouring, places(), topology()
    blotch = _mottling(c, 45.0)
    melanin = c.melanin * (1 + 0.05 * blotch + 0.12 * at["socket"]) + 0.03 * at["socket"]
    freckle = smooth_step(_mottling(c, 7.0), 0.9, 1.6) * c.freckles * at["speckled"]
    melanin = melanin + 0.55 * freckle
    blood = c.blood * (1 + 0.10 * blotch + 0.5 * at["flush"] + 0.6 * at["ear"] + 0.35 * at["socket"])
    colour = skin_colour(melanin, blood)
    colour = _blend(colour, skin_colour(np.array(c.melanin * 0.95 + 0.12), np.array(c.blood + 0.75)), 0.8 * at["lips"])
    colour = _blend(colour, c.hair, 0.45 * c.stubble * at["beard"])
    colour = _blend(colour, 0.12 * colour, 0.8 * at["nostril"])
    colour = _blend(colour, 0.35 * colour, 0.75 * at["hollow"])
    colour = _makeup(colour, c, at)
    colour = _brows_and_hair(colour, c, at)
    return np.clip(_inside(colour, c, top), 0.01, 0.98)


def _blend(colour, other, share):
    return colour + share[:, None] * (other - colour)


def _makeup(colour, c, at):
    colour = _blend(colour, c.lipstick, 0.75 * c.makeup * at["lips"])
    colour = _blend(colour, 0.5 * colour + 0.5 * c.lipstick, 0.2 * c.makeup * at["rouge"])
    return _blend(colour, 0.45 * colour, 0.7 * c.makeup * at["shadow"] * at["front"])


def _brows_and_hair(colour, c, at):
    s = at["brow_s"]
    half = (1.7 + 2.3 * c.brow) * (1.15 - 0.75 * np.clip(s, 0, 1))
    brow = np.exp(-((at["brow_line"] / half) ** 4)) * smooth_step(s, -0.06, 0.08) * (1 - smooth_step(s, 0.88, 1.05))
    colour = _blend(colour, 0.85 * c.hair, (0.50 + 0.35 * c.brow) * brow * at["front"])
    x, y, z = at["x"], at["y"], mean_head()[:, 2]
    line = c.hairline + c.recession * np.exp(-(((x - 40) / 14) ** 2))
    edge = np.where(z > -8, line - smooth_step(x, 46, 74) * (line - 34.0), 0.0)
    behind = smooth_step(-z, 2.0, 16.0)
    edge = edge * (1 - behind) + behind * np.minimum(c.cut, 10.0)
    edge = np.where((z > -46) & (behind > 0), np.maximum(edge, 46.0 * (1 - smooth_step(-z, 34, 48))), edge)
    soft = 1.0 + 4.0 * smooth_step(x, 48.0, 66.0)  # as coarse as the mesh is there
    hair = smooth_step(y + 1.2 * _mottling(c, 12.0), edge - 2.5 * soft, edge + 3.0 * soft) * (1 - at["ear"])
    gone = c.bald * (1 - smooth_step(-z, 40.0, 75.0)) * smooth_step(y, 52.0, 70.0)
    strand = 1 + 0.16 * _mottling(c, 9.0)[:, None]
    return _blend(colour, 0.9 * c.hair * strand, 0.93 * hair * (1 - 0.92 * gone))


def _inside(colour, c, top):
    colour = colour.copy()
    ball, ring = top.part == EYEBALL, top.order
    colour[ball] = (0.82, 0.80, 0.78)
    colour[ball & (ring <= 3)] = c.iris
    colour[ball & (ring == 3)] = 0.45 * c.iris  # the dark ring around the iris
    colour[ball & (ring <= 1)] = (0.02, 0.02, 0.02)
    pink = skin_colour(np.array(0.25 * c.melanin + 0.1), np.array(0.75))
    colour[(top.part == UPPER_INNER) | (top.part == LOWER_INNER)] = pink
    for part, dark in ((UPPER_LID, 0.75), (UPPER_INNER, 0.55), (LOWER_LID, 0.25 + 0.3 * c.makeup)):  # lashes
        colour[top.part == part] += dark * (0.5 * np.minimum(c.hair, 0.15) - colour[top.part == part])
    inside = top.part == INSIDE
    teeth = np.array([[0.45, 0.2, 0.2], [0.88, 0.85, 0.78], [0.10, 0.03, 0.03], [0.12, 0.04, 0.04], [0.80, 0.77, 0.70],
                      [0.45, 0.2, 0.2]])  # fmt: skip
    colour[inside] = teeth[top.order[inside] - 1]
    return colour
