"""The colours of a person as a UV texture: skin, brows, lips, eyes, freckles, beard and make-up; linear RGB.

A texture is painted from smooth maps of the template, so each feature is at the same place of every person's skin.
`Look` belongs to the person, `Styling` varies between photographs.
"""

from dataclasses import dataclass
from functools import lru_cache

import igl
import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from facenb.synthface import atlas
from facenb.synthface.atlas import EYE, MOUTH, TONGUE, UPPER_TEETH, bump, smooth_step
from facenb.synthface.heads import lid_rims

# Share of white light (RGB) that skin without pigment reflects; -log of what one unit of melanin or blood lets through.
UNPIGMENTED = np.array([0.95, 0.86, 0.79], np.float32)
MELANIN, BLOOD = np.array([[0.62, 0.86, 1.04], [0.07, 0.52, 0.46]], np.float32)
ANCESTRAL_MELANIN = np.array([1.15, 0.36, 0.15])  # African, Asian, Caucasian
HAIR = np.array([[0.075, 0.062, 0.056], [0.18, 0.115, 0.075], [0.33, 0.21, 0.12], [0.62, 0.46, 0.26]])
RED_HAIR, GREY_HAIR = np.array([0.46, 0.19, 0.08]), np.array([0.60, 0.59, 0.58])
IRIS = np.array([[0.13, 0.07, 0.04], [0.26, 0.16, 0.08], [0.34, 0.33, 0.17], [0.36, 0.46, 0.48], [0.28, 0.42, 0.58]])
IRIS_RADIUS, PUPIL_RADIUS = 5.9, 2.0  # mm
WORN = 152  # rows of the atlas, from the top, that no beard or make-up reaches
# Standard deviations of the Gaussian filters that smooth the noise: vertical and horizontal, in texels.
NOISES = {"blotch": (40, 40), "mottle": (11, 11), "speckle": (2.6, 2.6), "fleck": (1.6, 1.6), "pores": (0.9, 0.9)}
NOISES |= {"flat": (0.9, 6.0), "steep": (5.0, 0.9), "short": (1.8, 0.7)}

# Outline of the hairy scalp in side view: points (z, y) in mm, with the origin between the eyes. It runs over forehead,
# temple and sideburn, round the ear and along the nape.
OUTLINE = """60 93 17 76 3 70 -11 60 -26 47 -34 30 -48 16 -57 6 -60 -22 -69 -22 -71 2 -79 11
    -97 9 -104 -8 -107 -40 -118 -72 -150 -88 -260 -88 -260 190 60 190"""
OUTLINE = np.array(OUTLINE.split(), float).reshape(-1, 2)


@dataclass(frozen=True)
class Look:
    """The colouring of a person. Amounts are in [0, 1] unless stated otherwise."""

    melanin: float  # 0.08 (palest) to 2 (darkest)
    blood: float  # about 0.3
    yellow: float  # share of blue that carotene takes away
    hair: np.ndarray  # RGB
    iris: np.ndarray  # RGB
    brow: np.ndarray  # thickness, density, height and tail of the brows, each about -1 to 1
    freckles: float
    spots: float  # age spots
    moles: np.ndarray  # (n, 4): x, y from between the eyes (mm), radius (mm), darkness
    beard: float  # how densely it would grow
    lip: list[float]  # darkness and strength of the lip colour
    shifts: np.ndarray  # (8, 2): shift of each noise (down, across), as a fraction of the texture's side
    recession: float  # mm that the hairline has gone back
    female: bool

    @classmethod
    def draw(cls, traits: dict[str, float], generator: np.random.Generator) -> "Look":
        """Draw the colouring of a person; `traits` are those of `Subject` (`people.draw_traits`)."""
        ancestry = np.array([traits[name] for name in ("african", "asian", "caucasian")])
        female, age = traits["sex"] > 0.5, traits["age"]
        u, normal = generator.random(16), np.clip(generator.standard_normal(16), -2.2, 2.2)
        melanin = float(np.clip(ancestry @ ANCESTRAL_MELANIN * np.exp(0.33 * normal[0]), 0.07, 2.0))
        dark = np.clip(1.8 * (melanin - 0.2) + 0.75 * ancestry[1] + 0.25 * normal[1], 0.0, 1.0)
        hair = _between(HAIR, (1 - dark) * 3.0 * u[0] ** 0.8)
        if dark < 0.35 and u[1] < 0.13:
            hair = RED_HAIR * (0.7 + 0.6 * u[2])
        if female and u[14] < 0.15:  # dyed
            hair = _between(HAIR, 3.0 * u[15])
        grey = np.clip((age - 32 - 30 * u[3]) / 28, 0.0, 1.0)
        moles = generator.uniform((-62, -105, 0.5, 0.3), (62, 60, 1.3, 0.8), (generator.poisson(3.0), 4))
        return cls(
            melanin=melanin,
            blood=float(0.17 + 0.22 * u[5]),
            yellow=float(0.03 + 0.10 * ancestry[1] * u[6] + 0.03 * u[7]),
            hair=hair + 0.9 * grey * (GREY_HAIR - hair),
            iris=_between(IRIS, 4.0 * np.clip((1 - dark) * 1.3 * u[4] - 0.1, 0.0, 1.0)),
            brow=np.array([normal[2] - (0.6 if female else -0.5), normal[3] + dark - 0.5, normal[4], normal[5]]),
            freckles=float((u[8] < 0.35) * (melanin < 0.4) * u[9]),
            spots=float(np.clip((age - 45) / 30, 0, 1) * u[10]),
            moles=moles,
            beard=0.0 if female else float(np.clip(0.7 + 0.3 * normal[6] - 0.3 * ancestry[1], 0.15, 1)),
            lip=u[11:13].tolist(),
            shifts=generator.random((8, 2)),
            female=female,
            recession=0.0 if female else float(18.0 * np.clip((age - 28) / 35, 0, 1) * u[13]),
        )


@dataclass(frozen=True)
class Styling:
    """What a person changes from day to day; amounts in [0, 1]."""

    stubble: float  # shaven 0, a beard 1
    beard: np.ndarray  # (3,) share of moustache, chin and jaw that is left to grow
    make_up: np.ndarray  # (4,) lipstick, eye shadow, liner, rouge
    lip_colour: np.ndarray  # RGB
    flush: float
    cloth: np.ndarray  # RGB of the shirt

    @classmethod
    def draw(cls, look: Look, generator: np.random.Generator) -> "Styling":
        """Draw the styling of a photograph."""
        u = generator.random(12)
        made_up = float(look.female and u[0] < 0.6) * (0.35 + 0.65 * u[1])
        patterns = ((1, 1, 1), (1, 1, 1), (1, 1, 0.15), (1, 0.1, 0.1), (0.2, 1, 0.1))
        return cls(
            stubble=look.beard * (0.25 * u[2] if u[3] < 0.55 else 0.25 + 0.75 * u[2]),
            beard=np.array(patterns[int(u[4] * len(patterns))]),
            make_up=made_up * np.array([u[5], 0.5 * u[9], 1.0, 0.5 * u[10]]),
            lip_colour=np.array([0.45 + 0.32 * u[6], 0.10 + 0.16 * u[7], 0.14 + 0.2 * u[8]]),
            flush=0.4 * u[11],
            cloth=0.05 + 0.75 * generator.random() * (0.7 + 0.3 * generator.random(3)),
        )


def _between(table: np.ndarray, position: float) -> np.ndarray:
    low = min(int(position), len(table) - 2)
    return table[low] + (position - low) * (table[low + 1] - table[low])


def skin_colour(melanin, blood) -> np.ndarray:
    """Return RGB (..., 3) of skin by the Beer-Lambert law in the two pigments that colour it."""
    return UNPIGMENTED * np.exp(-MELANIN * melanin[..., None] - BLOOD * blood[..., None])


@lru_cache(maxsize=4)
def noises(size: int) -> dict[str, np.ndarray]:
    """Return periodic noise (size, size) by name: blotches, mottling, pores, strokes. Its spread is 1 at full size."""
    generator = np.random.Generator(np.random.PCG64(7))
    fields, factor, index = {}, atlas.SIZE // size, np.arange(atlas.SIZE)
    for name, sigma in NOISES.items():
        field = gaussian_filter(generator.standard_normal((atlas.SIZE, atlas.SIZE)), sigma, mode="wrap")
        if name == "flat":  # hairs of the brows lean outwards and upwards, on both sides
            field = field[(index[:, None] + (0.7 * index).astype(int)) % atlas.SIZE, index]
            field[:, : atlas.SIZE // 2] = field[:, atlas.SIZE // 2 :][:, ::-1]
        field = (field / field.std()).reshape(size, factor, size, factor).mean((1, 3))
        fields[name] = field.astype(np.float32)
    return fields


def _rim_distance(points: np.ndarray, lid: int) -> np.ndarray:
    """Return the distances in mm to the edges of the upper (0) or lower (1) lids."""
    dense = []
    for rims in lid_rims():
        edge, share = atlas.template()[rims[lid]], np.linspace(0, len(rims[lid]) - 1, 120)
        dense.append(np.stack([np.interp(share, np.arange(len(edge)), edge[:, k]) for k in range(3)], -1))
    return cKDTree(np.concatenate(dense)).query(points.reshape(-1, 3))[0].reshape(points.shape[:-1])


def into_hair(points: np.ndarray) -> np.ndarray:
    """Return the distances (...,) in mm of points to the hair's OUTLINE: positive inside, negative outside."""
    index = np.arange(len(OUTLINE))
    edges = np.stack([index, np.roll(index, -1)], 1)
    at = points[..., [2, 1]].reshape(-1, 2).astype(float)
    distance = igl.signed_distance(at, OUTLINE, edges, igl.SIGNED_DISTANCE_TYPE_PSEUDONORMAL)[0]
    return distance.reshape(points.shape[:-1])


@lru_cache(maxsize=4)
def layers(size: int) -> dict[str, np.ndarray]:
    """Return maps (size, size) that say where `paint` and `dress` put colours (do not write to them).

    Values are in [0, 1] unless stated otherwise.
    """
    points, part, occlusion = atlas.lay_maps(size)
    x, y, z = np.abs(points[..., 0]), points[..., 1], points[..., 2]
    skin, eye = part < MOUTH, part == EYE
    front = smooth_step(z, -55, -20) * skin
    wide = np.clip(x / 25.0, 0, 1)
    seam = -73.3 - 1.2 * wide**2
    upper = 9.2 * np.sqrt(1 - wide**2) * (0.86 + 0.14 * bump(x, 6.5, 4.5) - 0.12 * bump(x, 0, 2.5))
    lower = 11.5 * (1 - wide**2) ** 0.7
    lips = smooth_step(upper - (y - seam), -0.5, 1.1) * smooth_step(lower - (seam - y), -0.7, 1.3)
    lips = lips * (z > 2) * (x < 25.0) * skin
    s = (x - 11.0) / 46.0
    jaw = smooth_step(-y, 30, 62) * smooth_step(z, -72, -60) + smooth_step(-z, 30, 55) * smooth_step(-y, 12, 30)
    jaw = np.clip(jaw, 0, 1) * (1 - smooth_step(-y, 118, 136)) * (1 - bump(x, 34, 13) * bump(y, -60, 15))
    chin = bump(x, 0, 21) * smooth_step(-y, 86, 93) * (1 - smooth_step(-y, 118, 130))
    chin = np.clip(chin + 0.9 * bump(x, 0, 5) * bump(y, -87, 4), 0, 1)
    chin = np.maximum(chin, bump(x, 27, 5) * smooth_step(-y, 68, 76) * (1 - smooth_step(-y, 100, 120)))
    moustache = smooth_step(y, -66.5 - 6 * wide, -63.5 - 7 * wide) * smooth_step(-y, 48 + 0.25 * x, 53 + 0.35 * x)
    moustache = moustache * (1 - smooth_step(x, 25, 30)) * (1 - 0.5 * bump(x, 0, 2.5))
    bearded = (1 - lips) * smooth_step(z, -75, -62) * skin
    flush = bump(x, 42, 15) * bump(y, -36, 14) + 0.9 * bump(x, 0, 11) * bump(y, -38, 10)
    flush = (flush + 0.4 * bump(x, 0, 18) * bump(y, -104, 12)) * skin
    under_eye = bump(x, 29, 12) * bump(y, -13, 5)
    socket = smooth_step(24 - np.hypot(x - 31.2, 1.1 * (y + 1.5)), 0, 14)
    ear = smooth_step(-z, 62, 70) * smooth_step(x, 72, 78) * (y < 12) * (y > -55)
    upper_rim, lower_rim = (_rim_distance(points, lid) for lid in (0, 1))
    inner_corner = bump(np.hypot(x - 19.5, y + 3.5), 0, 2.6)
    nostril = bump(x, 8.5, 4) * bump(y, -46.5, 2.6) * (z > 22)
    turn = np.arctan2(y, x - 31.2)
    result = dict(
        x=points[..., 0],
        y=y,
        depth=z,
        part=part,
        skin=skin,
        front=front,
        lips=lips,
        scalp=into_hair(points),
        temple=bump(x, 42, 18) * smooth_step(y, 40, 60) * smooth_step(z, -60, -30),
        dark=0.10 * under_eye + 0.06 * socket - 0.05 * flush,  # more melanin: dark is relative, darker is absolute
        darker=0.035 * under_eye,
        red=0.42 * flush + 0.5 * ear + 0.35 * under_eye,  # more blood: red is relative, redder is absolute
        redder=0.25 * inner_corner + 0.10 * bump(lower_rim, 0, 1.5),
        freckled=0.25 + bump(x, 20, 26) * bump(y, -28, 15),
        brow_s=s,
        brow_line=y - (17.2 + 10.0 * s - 6.0 * s**2 - 5.5 * np.clip(s, 0, 1.2) ** 5),
        lashes=(1 - (1 - 0.85 * bump(upper_rim, 0, 1.15)) * (1 - 0.40 * bump(lower_rim, 0, 0.8))) * skin,
        moustache=moustache * bearded,
        chin=chin * bearded,
        jaw=jaw * bearded,
        flush=flush,
        rouge=bump(x, 50, 12) * bump(y, -30, 11) * front,
        shadow=bump(x, 33, 13) * bump(y, 5.5, 4.0) * front,
        liner=0.8 * bump(upper_rim, 0.3, 1.3) * skin,
        iris=np.where(eye, 16.4 * np.arctan2(np.hypot(x - 31.2, y), z), np.inf),  # mm from the middle of the pupil
        streaks=np.sin(31 * turn) * np.sin(47 * turn + 2) * 0.5 + np.sin(17 * turn + 1) * 0.3,
        inside=_inside(x, y, z, part),
        shade=np.minimum(0.4 + occlusion * np.where(eye, 0.75, 0.6), 1) * (1 - 0.525 * nostril),
    )
    return {name: value.astype(np.float32) for name, value in result.items()}


def _inside(x, y, z, part) -> np.ndarray:
    """Return the colours (size, size, 3) of the mouth's lining, tongue, teeth and the white of the eyes."""
    lining = np.array([0.36, 0.13, 0.12]) * np.clip((z + 25) / 45, 0.1, 1.0)[..., None]
    edge = smooth_step(16.4 * np.arctan2(np.hypot(x - 31.2, y), z)[..., None], 8.0, 15.0)
    white = np.array([0.80, 0.77, 0.74]) - np.array([0.0, 0.10, 0.11]) * edge
    arc = np.arcsin(np.clip(x / 27.0, 0, 1)) / (np.pi / 2) * 7
    enamel = np.array([0.86, 0.82, 0.74]) * (1 - 0.35 * bump(np.abs(arc - np.rint(arc)), 0, 0.07))[..., None]
    enamel = enamel * np.clip((z + 18) / 34, 0.15, 1.0)[..., None]
    below_gum = np.where(part == UPPER_TEETH, -61.5 - y, y + 83.5)
    teeth = _blend(enamel, (0.60, 0.30, 0.29), smooth_step(-below_gum, -0.5, 0.5))
    code = part[..., None]
    tongue = np.broadcast_to((0.58, 0.27, 0.27), teeth.shape)
    return np.select([code == MOUTH, code == TONGUE, code == EYE], [lining, tongue, white], teeth)


def paint(look: Look, size: int) -> np.ndarray:
    """Return the texture (size, size, 3) of a person, float32, shaven and without make-up or hair on the scalp."""
    at, steps = layers(size), np.rint(look.shifts * size).astype(int)
    steps[5:, 1] = 0  # strokes stay symmetric
    fields = zip(noises(size).items(), steps.tolist(), strict=True)
    noise = {name: np.roll(field, step, (0, 1)) for (name, field), step in fields}  # as it lies on this person's skin
    blotch = noise["blotch"] + 0.6 * noise["mottle"]
    rough = min(look.melanin, 0.45)  # dark skin is as even as light skin
    melanin = look.melanin * (1 + at["dark"]) + at["darker"] + rough * (0.05 * blotch + 0.035 * noise["speckle"])
    if look.freckles:
        melanin += 0.30 * look.freckles * smooth_step(noise["fleck"], 1.2, 2.0) * at["freckled"]
    if look.spots:
        melanin += 0.22 * look.spots * smooth_step(noise["mottle"], 1.9, 2.4)
    for x, y, radius, dark in look.moles.tolist():
        melanin += dark * smooth_step(radius - np.hypot(at["x"] - x, at["y"] - y), -0.4, 0.4) * at["front"]
    blood = look.blood * (1 + 0.10 * blotch + at["red"]) + 0.03 * noise["speckle"] + at["redder"]
    colour = skin_colour(np.maximum(melanin, 0.03), np.maximum(blood, 0.05))
    colour *= (1 + 0.012 * (noise["pores"] + noise["mottle"]))[..., None]
    colour[..., 2] *= 1 - look.yellow
    lips, strokes = at["lips"] > 0, noise["steep"][at["lips"] > 0]
    melanin = 0.10 + look.melanin * (0.75 + 0.35 * look.lip[0]) + 0.03 * strokes
    blood = look.blood + 0.42 + 0.35 * look.lip[1] + 0.06 * strokes
    colour[lips] = _blend(colour[lips], skin_colour(melanin, blood), (0.55 + 0.25 * look.lip[1]) * at["lips"][lips])
    hair = look.hair * (0.75 if look.hair.mean() < 0.3 else 0.6)
    colour = _blend(colour, hair, _brows(look, at, noise["flat"]))
    colour = _blend(colour, np.minimum(look.hair, 0.10) * 0.5, at["lashes"])
    inside, eye = at["part"] >= MOUTH, at["iris"] < IRIS_RADIUS + 1
    colour[inside] = at["inside"][inside]
    white = smooth_step(at["iris"][eye], IRIS_RADIUS - 0.5, IRIS_RADIUS + 0.5)
    colour[eye] = _blend(_iris(look, at["iris"][eye], at["streaks"][eye]), colour[eye], white)
    return np.clip(colour * at["shade"][..., None], 0.005, 0.98)


def _blend(colour, other, share):
    share = np.asarray(share, np.float32)[..., None]
    return colour + share * (np.asarray(other, np.float32) - colour)


def _brows(look, at, noise) -> np.ndarray:
    """Return the share (size, size) of each texel that the brow hairs cover."""
    thickness, density, height, tail = look.brow.tolist()
    s, line = at["brow_s"], at["brow_line"] - height
    half = (3.3 + 0.8 * thickness) * (1.08 - 0.72 * np.clip(s, 0, 1) ** 1.3)
    length = 0.97 + 0.06 * tail
    body = np.exp(-(np.abs(line / half) ** 3.0)) * smooth_step(s, -0.12, 0.25)
    body = body * (1 - smooth_step(s, length - 0.35, length))
    return np.clip(body * (0.82 + 0.10 * density + 0.28 * noise), 0, 0.95) * at["front"]


def _iris(look, radius, streaks) -> np.ndarray:
    """Return the colours (n, 3) of iris and pupil, by the distance (n,) in mm from the middle."""
    rim = 0.65 * smooth_step(radius, IRIS_RADIUS - 1.3, IRIS_RADIUS)
    share = (1 + 0.35 * streaks + 0.35 * smooth_step(3.6 - radius, 0, 1.4)) * (1 - rim)
    return _blend(look.iris * share[:, None], 0.02, 1 - smooth_step(radius, PUPIL_RADIUS - 0.3, PUPIL_RADIUS + 0.3))


def dress(texture: np.ndarray, look: Look, styling: Styling, hairstyle: str) -> np.ndarray:
    """Return a person's texture (size, size, 3) with beard, make-up, flush, scalp and shirt of one photograph.

    `hairstyle` is one of `hair.STYLES`.
    """
    size, lips = len(texture), styling.lip_colour
    box = slice(WORN * size // atlas.SIZE, size)
    at = {name: field[box] for name, field in layers(size).items()}
    colour = texture[box]
    if look.beard:
        areas = [at[name] for name in ("moustache", "chin", "jaw")]
        everywhere = np.maximum.reduce(areas)
        kept = sum(part * area for part, area in zip(styling.beard.tolist(), areas, strict=True))
        strokes = (kept if styling.stubble > 0.3 else everywhere) * (0.8 + 0.24 * noises(size)["short"][box])
        colour = _blend(colour, 0.55 * colour + 0.45 * look.hair.astype(np.float32), 0.22 * look.beard * everywhere)
        colour = _blend(colour, 0.85 * look.hair, np.clip(1.1 * styling.stubble, 0, 0.9) * np.clip(strokes, 0, 1))
    if styling.make_up.any():
        lipstick, shadow, liner, rouge = styling.make_up.tolist()
        tint = lips.astype(np.float32)
        colour = _blend(colour, lips, 0.75 * lipstick * at["lips"])
        colour = _blend(colour, 0.45 * colour + 0.1 * tint, shadow * at["shadow"])
        colour = _blend(colour, 0.03, liner * at["liner"])
        colour = _blend(colour, 0.7 * colour + 0.3 * tint, rouge * at["rouge"])
    flushed = styling.flush * at["flush"][..., None] * np.array([0, 0.14, 0.12], np.float32)
    dressed = texture.copy()
    dressed[box] = np.clip(colour * (1 - flushed), 0.005, 0.98)
    if hairstyle != "bald":
        dressed = _blend(dressed, 0.8 * look.hair, _scalp(look, size, hairstyle))
    dressed[atlas.tile(atlas.CLOTH, size)] = styling.cloth
    return dressed


def _scalp(look: Look, size: int, hairstyle: str) -> np.ndarray:
    """Return the share (size, size) of each texel that short hair and hair roots cover; "ring": bare on top."""
    at = layers(size)
    cover = smooth_step(at["scalp"] - look.recession * at["temple"], -1.5, 3.5) * at["skin"]
    if hairstyle == "ring":
        cover = cover * (1 - smooth_step(at["y"], 42, 58) * smooth_step(at["depth"], -160, -140))
    return np.clip((0.6 if hairstyle == "buzz" else 0.92) * cover * (0.9 + 0.2 * noises(size)["short"]), 0, 1)
