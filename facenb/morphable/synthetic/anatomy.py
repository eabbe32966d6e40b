"""What makes a person: anatomical parameters with human spreads, and the head they shape (none of it linear)."""

from functools import cache

import numpy as np

from facenb.morphable.synthetic import warp
from facenb.morphable.synthetic.head import EAR_CENTRE, base_point, mean_head, smooth_step
from facenb.morphable.synthetic.inner import EYE_RADIUS, seat
from facenb.morphable.synthetic.topology import EYEBALL, SKIN, topology

TRAITS = ("sex", "age", "weight")  # standardised: sex -1 female .. 1 male; age 0 at 40, 1 sd 15 years; weight
# One line a parameter, in standard deviations; how much of it sex, age and weight explain (correlations).
PARAMETERS = {
    "head_breadth": (0.35, 0.0, 0.2), "head_length": (0.4, 0.0, 0.1), "cranial_height": (0.1, 0.0, 0.0),
    "forehead_slope": (0.45, 0.0, 0.0), "forehead_bossing": (-0.3, 0.0, 0.0), "occiput_prominence": (0.0, 0.0, 0.0),
    "temple_hollow": (0.0, 0.45, -0.4), "face_height": (0.45, 0.1, 0.0), "face_width": (0.3, 0.0, 0.45),
    "brow_ridge": (0.6, 0.1, 0.0), "brow_height": (-0.5, -0.2, 0.0), "orbit_depth": (0.25, 0.25, -0.2),
    "interocular_distance": (0.25, 0.0, 0.1), "eye_width": (0.15, -0.1, 0.0), "eye_opening": (-0.25, -0.4, -0.1),
    "canthal_tilt": (-0.25, -0.35, 0.0), "upper_lid_fullness": (0.15, 0.45, 0.2), "eye_bags": (0.1, 0.6, 0.1),
    "nose_length": (0.25, 0.3, 0.0), "nasion_depth": (0.2, 0.0, 0.0), "bridge_height": (0.3, 0.0, 0.0),
    "bridge_width": (0.3, 0.1, 0.1), "dorsal_hump": (0.25, 0.2, 0.0), "hump_position": (0.0, 0.0, 0.0),
    "tip_projection": (0.2, 0.2, 0.0), "tip_rotation": (-0.35, -0.4, 0.0), "tip_width": (0.25, 0.2, 0.2),
    "alar_width": (0.4, 0.2, 0.2), "nostril_size": (0.2, 0.0, 0.0), "columella_drop": (0.0, 0.1, 0.0),
    "philtrum_length": (0.3, 0.45, 0.0), "philtrum_depth": (0.0, -0.3, 0.0), "upper_lip_thickness": (-0.25, -0.5, 0.0),
    "lower_lip_thickness": (-0.2, -0.4, 0.0), "mouth_width": (0.35, 0.1, 0.1), "mouth_protrusion": (0.0, 0.0, 0.0),
    "cupid_bow": (-0.15, -0.3, 0.0), "mouth_corner_height": (0.0, -0.4, 0.0), "cheekbone_width": (0.1, 0.0, 0.1),
    "cheekbone_prominence": (-0.2, -0.1, -0.1),
    "cheek_fullness": (-0.1, -0.35, 0.65), "nasolabial_depth": (0.1, 0.6, 0.2),
    "jaw_width": (0.5, 0.0, 0.35), "jaw_angle": (-0.35, 0.15, 0.0), "jowl": (0.0, 0.6, 0.35),
    "mentolabial_depth": (0.2, 0.0, 0.1), "chin_height": (0.45, 0.0, 0.0), "chin_width": (0.5, 0.0, 0.1),
    "chin_projection": (0.25, 0.0, 0.0), "chin_cleft": (0.3, 0.0, 0.0), "submental_fullness": (0.0, 0.35, 0.7),
    "ear_size": (0.35, 0.4, 0.0), "ear_protrusion": (0.15, 0.0, 0.0), "ear_lobe": (0.1, 0.45, 0.0),
    "neck_width": (0.65, 0.0, 0.45), "neck_length": (-0.15, 0.0, -0.3), "larynx_prominence": (0.7, 0.0, -0.2),
    "nose_deviation": (0.0, 0.0, 0.0), "chin_deviation": (0.0, 0.0, 0.0), "eye_height_asymmetry": (0.0, 0.0, 0.0),
    "mouth_tilt": (0.0, 0.0, 0.0), "jaw_asymmetry": (0.0, 0.0, 0.0), "size": (0.55, 0.0, 0.1),
}  # fmt: skip
NAMES = tuple(PARAMETERS)
ASYMMETRIES = ("nose_deviation", "chin_deviation", "eye_height_asymmetry", "mouth_tilt", "jaw_asymmetry")
SPREAD = 1.2  # how far apart people are: brings the measures of heads to the spread of adults'
LIMIT = 2.4  # parameters beyond this many standard deviations are folded back


LID_THICKNESS = 0.7  # mm
RELIEF = 28  # dents and swellings of a face that no name or model foresees


def draw_relief(generator: np.random.Generator) -> np.ndarray:
    """Irregularities (RELIEF, 4) of one person: azimuth (degrees), level, width (mm), height (mm)."""
    azimuth = generator.uniform(-95.0, 95.0, RELIEF)
    level = generator.uniform(4.5, 19.5, RELIEF)
    return np.stack([azimuth, level, generator.uniform(8.0, 22.0, RELIEF), generator.normal(0.0, 1.0, RELIEF)], -1)


def draw_parameters(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Traits (3,) and parameters (len(NAMES),) of one person, in standard deviations."""
    sex = (1.0 if generator.random() < 0.5 else -1.0) * (0.65 + 0.35 * generator.random())
    age = 1.75 * (2 * generator.random() ** 1.15 - 0.85)  # about 18 to 70 years
    weight = np.clip(generator.normal(), -2.2, 2.5)
    traits = np.array([sex, age, weight])
    loads = np.array(list(PARAMETERS.values()))
    own = np.sqrt(np.clip(1 - (loads**2).sum(1), 0.2, 1.0)) * generator.normal(size=len(NAMES))
    value = loads @ np.array([sex, age / 1.0, weight]) + own
    folded = np.abs((value + LIMIT) % (4 * LIMIT) - 2 * LIMIT) - LIMIT  # a triangle wave: the identity up to sign
    return traits, -folded


@cache
def masks() -> dict[str, np.ndarray]:
    """Where each part of the face is: smooth functions (V,) of the mean head, between 0 and 1."""
    top, mean = topology(), mean_head()
    x, y, z = np.abs(mean[:, 0]), mean[:, 1], mean[:, 2]
    ball = top.part == EYEBALL
    # An eyeball goes where the skin in front of it goes.
    pupil = mean[top.grid["eye", 1, 0, 0]]
    x, y, z = (np.where(ball, pupil[k], c) for k, c in enumerate((x, y, z)))
    front = smooth_step(z, 0.0, 45.0)

    def blob(centre, width, power=2.0):
        far = sum((np.abs(c - m) / w) ** power for c, m, w in zip((x, y, z), centre, width, strict=True))
        return np.exp(-0.5 * far)

    def flat(centre, width, power=2.0):
        far = (np.abs(x - centre[0]) / width[0]) ** power + (np.abs(y - centre[1]) / width[1]) ** power
        return np.exp(-0.5 * far) * front

    ear = (1 - smooth_step(np.hypot((z - EAR_CENTRE[2]) / 26.0, (y - EAR_CENTRE[1]) / 40.0), 0.75, 1.05)) * (x > 45)
    around_ear = 1 - smooth_step(np.hypot((z - EAR_CENTRE[2]) / 26.0, (y - EAR_CENTRE[1]) / 40.0), 0.6, 1.7)
    nose = flat((0, 2), (15.5, 27), 4)
    m = dict(
        front=front, nose=nose, ear=ear, around_ear=around_ear * (x > 25),
        cranium=smooth_step(y, 30.0, 75.0), occiput=blob((0, 25, -105), (55, 40, 45)),
        forehead=flat((0, 68), (48, 26), 3), bossing=flat((18, 74), (17, 15)), temple=blob((66, 42, 28), (14, 20, 20)),
        brow=flat((26, 41), (24, 8)), brow_ridge=flat((22, 40), (17, 6)), glabella=flat((0, 37), (9, 8)),
        eye=flat((31.5, 24), (17, 12.5), 4), eye_wide=flat((31.5, 25), (22, 19), 4),
        eye_core=flat((31.5, 23), (15, 10), 4),
        upper_lid=flat((34, 33), (11, 3.2)), bag=flat((29, 12.5), (9, 4)),
        bridge=flat((0, 16), (10, 13)), hump=flat((0, 9), (9, 40)), nasion=flat((0, 27), (9, 7)),
        tip=flat((0, -8), (11, 9), 3), ala=flat((12.5, -14), (8, 8), 3), nostril=flat((6.8, -18), (4.5, 3.5)),
        columella=flat((0, -20), (4.5, 5)), nose_tip=flat((0, -10), (17, 14), 4),
        mouth=flat((0, -44), (30, 14), 4), muzzle=flat((0, -42), (33, 22), 3), philtrum=flat((0, -29), (3.0, 5.5)),
        corner=flat((26, -44), (8, 9)), upper_lip=flat((0, -38.5), (21, 4.5), 4), lower_lip=flat((0, -50), (20, 5), 4),
        cheekbone=blob((55, 2, 38), (15, 13, 22)), cheek=blob((44, -26, 46), (16, 19, 24)),
        malar=flat((42, 4), (13, 11)),
        nasolabial=np.exp(-(((x - (19 + 0.42 * (-12 - y))) / 3.2) ** 2)) * smooth_step(-y, 8, 18)
        * smooth_step(y, -52, -38) * front,
        jaw=blob((58, -48, 12), (18, 24, 32)), gonion=blob((57, -45, 5), (14, 18, 20)), jowl=flat((36, -66), (11, 11)),
        chin=flat((0, -76), (21, 15), 3), chin_side=flat((17, -75), (11, 11)), cleft=flat((0, -75), (2.8, 6)),
        mentolabial=flat((0, -60), (17, 4.5)), submental=blob((0, -92, 45), (32, 14, 26)),
        lower_face=smooth_step(-y, 18.0, 62.0) * (1 - smooth_step(-y, 92.0, 128.0) * (1 - 0.6 * front)),
        neck=smooth_step(top.level, 19.4, 22.0) * (1 - ear), larynx=blob((0, -106, 28), (7, 9, 14)),
        lobe=ear * (1 - smooth_step(y, -16.0, 2.0)), all=np.ones(len(mean)),
    )  # fmt: skip
    m["neck"] = np.where(top.part == SKIN, m["neck"] * smooth_step(-y, 60.0, 95.0), 0.0)
    m["left"] = np.tanh(mean[:, 0] / 12.0)  # +1 on the viewer's right
    return m


def shape_heads(parameters: np.ndarray, relief: np.ndarray | None = None) -> np.ndarray:
    """Neutral heads (B, V, 3) in mm of parameters (B, len(NAMES)) and irregularities (B, RELIEF, 4)."""
    q = dict(zip(NAMES, SPREAD * np.atleast_2d(parameters).T, strict=True))
    points = np.repeat(mean_head()[None], len(q["size"]), 0)
    m = masks()
    for part in (_skull, _jaw, _cheeks, _eyes, _nose, _mouth, _ears_and_neck, _asymmetry):
        points = part(points, m, q)
    if relief is not None:
        points = points + _relief(relief)
    points = warp.scale(points, m["all"], np.zeros(3), *(np.exp(0.017 * q["size"]),) * 3)
    centres = eye_centres(points)
    return seat(clear_eyeballs(points, centres), points, centres)


@cache
def _relief_directions() -> np.ndarray:
    """Where irregularities lift the skin to, (V, 3): away from the axis of the head, less at the eyes, not the ears."""
    outward = mean_head() - np.array([0.0, 10.0, -22.0])
    outward = outward / np.linalg.norm(outward, axis=1, keepdims=True)
    calm = (topology().part == SKIN) * (1 - masks()["ear"]) * (1 - 0.8 * masks()["eye"])
    return calm[:, None] * outward


def _relief(relief: np.ndarray) -> np.ndarray:
    """Displacement (B, V, 3) of irregularities (B, RELIEF, 4)."""
    home = base_point(np.abs(relief[..., 0].ravel()), relief[..., 1].ravel()).reshape(*relief.shape[:2], 3)
    home[..., 0] *= np.sign(relief[..., 0])
    mean = mean_head()
    total = np.zeros((len(relief), len(mean)))
    for person in range(len(relief)):
        far = sum((mean[:, axis] - home[person, :, None, axis]) ** 2 for axis in range(3))
        lift = relief[person, :, 3, None] * np.exp(-0.5 * far / relief[person, :, 2, None] ** 2)
        total[person] = lift.sum(0)
    return total[..., None] * _relief_directions()


def eye_centres(points: np.ndarray) -> np.ndarray:
    """Centres (..., 2, 3) of the eyeballs of heads whose pupils are in place."""
    pupils = [topology().grid["eye", side, 0, 0] for side in (1, -1)]
    return points[..., pupils, :] - np.array([0.0, 0.0, EYE_RADIUS])


def clear_eyeballs(points: np.ndarray, centres: np.ndarray, softness: float = 0.05) -> np.ndarray:
    """Push the skin around the eyes out of the eyeballs; without softness, skin that is out already stays."""
    top, mean = topology(), mean_head()
    points = points.copy()
    for side, sign in enumerate((1, -1)):
        home = mean[top.grid["eye", sign, 0, 0]] - np.array([0, 0, EYE_RADIUS])
        near = np.flatnonzero((np.linalg.norm(mean - home, axis=1) < 26) & (top.part < 5))
        ray = points[..., near, :] - centres[..., side, None, :]
        far = np.linalg.norm(ray, axis=-1, keepdims=True)
        least = EYE_RADIUS + LID_THICKNESS
        out = 0.5 * (far + least + np.sqrt((far - least) ** 2 + softness))
        points[..., near, :] = centres[..., side, None, :] + ray * (out / far)
    return points


def _skull(p, m, q):
    p = warp.scale(p, m["all"], np.zeros(3), x=np.exp(0.028 * q["head_breadth"]))
    p = warp.scale(p, 1 - m["front"], np.zeros(3), z=np.exp(0.044 * q["head_length"]))
    p = warp.scale(p, m["cranium"], np.array([0, 30.0, 0]), y=np.exp(0.05 * q["cranial_height"]))
    p = warp.turn(
        p, m["forehead"] * smooth_step(p[0, :, 1], 38, 100), np.array([0, 38.0, 70.0]), -0.10 * q["forehead_slope"]
    )
    p = warp.shift(p, m["bossing"], z=1.6 * q["forehead_bossing"])
    p = warp.shift(p, m["occiput"], z=-3.5 * q["occiput_prominence"])
    p = warp.spread(p, m["temple"], -1.8 * np.exp(0.35 * q["temple_hollow"]) + 1.9)
    p = warp.scale(
        p,
        m["front"] * smooth_step(-mean_head()[:, 1], -38, 0),
        np.array([0, 27.0, 0]),
        y=np.exp(0.035 * q["face_height"]),
    )
    return warp.scale(p, m["front"] * 0.6 + 0.4 * m["lower_face"], np.zeros(3), x=np.exp(0.028 * q["face_width"]))


def _jaw(p, m, q):
    p = warp.spread(p, m["jaw"], 2.8 * q["jaw_width"])
    p = warp.shift(p, m["gonion"], y=3.5 * q["jaw_angle"], z=1.5 * q["jaw_angle"])
    p = warp.spread(p, m["jowl"], 1.6 * np.exp(0.45 * q["jowl"]) - 1.7)
    p = warp.shift(p, m["jowl"], y=-0.8 * np.exp(0.5 * q["jowl"]) + 0.8)
    p = warp.scale(p, m["chin"], np.array([0, -58.0, 70.0]), y=np.exp(0.11 * q["chin_height"]))
    p = warp.scale(p, m["chin"] + 0.5 * m["chin_side"], np.array([0, -75.0, 60.0]), x=np.exp(0.11 * q["chin_width"]))
    p = warp.shift(p, m["chin"], z=2.8 * q["chin_projection"] * np.exp(0.08 * q["chin_height"]))
    p = warp.shift(p, m["cleft"], z=-0.5 * np.log1p(np.exp(3.0 * (q["chin_cleft"] - 1.0))))
    p = warp.shift(p, m["mentolabial"], z=-0.9 * q["mentolabial_depth"])
    fat = np.exp(0.55 * q["submental_fullness"]) - 1.1
    return warp.shift(p, m["submental"], y=-3.2 * fat, z=1.5 * fat)


def _cheeks(p, m, q):
    p = warp.spread(p, m["cheekbone"], 2.4 * q["cheekbone_width"])
    p = warp.shift(p, m["malar"], z=1.6 * q["cheekbone_prominence"])
    full = 2.6 * np.tanh(0.55 * q["cheek_fullness"]) + 0.5 * q["cheek_fullness"]
    p = warp.shift(warp.spread(p, m["cheek"], full), m["cheek"], z=0.6 * full)
    return warp.shift(p, m["nasolabial"], z=-0.55 * np.exp(0.5 * q["nasolabial_depth"]) + 0.3)


def _eyes(p, m, q):
    p = warp.shift(p, m["brow_ridge"] + 0.7 * m["glabella"], z=1.7 * np.exp(0.3 * q["brow_ridge"]) - 1.8)
    p = warp.shift(p, m["brow"], y=1.7 * q["brow_height"], z=-0.3 * q["brow_height"])
    p = warp.shift(p, m["eye_wide"], z=-1.5 * q["orbit_depth"])
    p = warp.spread(p, m["eye_wide"], 1.3 * q["interocular_distance"])
    centre = np.array([31.5, 23.0, 62.0])
    for sign in (1, -1):
        side = (np.sign(mean_head()[:, 0]) == sign).astype(float)
        pupil = p[:, topology().grid["eye", sign, 0, 0]] * np.array([1, 1, 0]) + centre * np.array([0, 0, 1])
        skin = side * (topology().part != EYEBALL)
        width, opening = np.exp(0.045 * q["eye_width"]), np.exp(0.14 * q["eye_opening"])
        p = warp.scale(p, skin * m["eye"], pupil, x=width)
        p = warp.scale(p, skin * m["eye_core"], pupil, y=opening)
        p = warp.turn(p, skin * m["eye"], pupil, sign * 0.05 * q["canthal_tilt"], axis=2)
    heavy = np.exp(0.5 * q["upper_lid_fullness"]) - 1.1
    p = warp.shift(p, m["upper_lid"], y=-1.2 * heavy, z=1.0 * heavy)
    return warp.shift(p, m["bag"], z=0.9 * np.exp(0.5 * q["eye_bags"]) - 1.0)


def _nose(p, m, q):
    root = np.array([0, 27.0, 68.0])
    p = warp.scale(p, m["nose"] * smooth_step(-mean_head()[:, 1], -27, 5), root, y=np.exp(0.055 * q["nose_length"]))
    p = warp.shift(p, m["nasion"], z=-1.3 * q["nasion_depth"])
    p = warp.shift(p, m["bridge"], z=2.0 * q["bridge_height"])
    p = warp.scale(p, m["bridge"], root, x=np.exp(0.10 * q["bridge_width"]))
    centre = 10.0 + 4.0 * q["hump_position"][:, None]
    hump = np.exp(-0.5 * ((p[..., 1] - centre) / 6.5) ** 2) * m["hump"]
    p[..., 2] += hump * (1.1 * q["dorsal_hump"] * np.exp(0.12 * q["bridge_height"]))[:, None]
    p = warp.scale(p, m["nose_tip"], np.array([0, -10.0, 74.0]), z=np.exp(0.075 * q["tip_projection"]))
    p = warp.turn(p, m["nose_tip"], np.array([0, -14.0, 78.0]), -0.075 * q["tip_rotation"])
    p = warp.scale(
        p, m["tip"], np.array([0, -8.0, 88.0]), x=np.exp(0.11 * q["tip_width"]), y=np.exp(0.04 * q["tip_width"])
    )
    p = warp.spread(p, m["ala"], 1.5 * q["alar_width"])
    p = warp.shift(p, m["nostril"], y=0.9 * q["nostril_size"], z=-0.5 * q["nostril_size"])
    return warp.shift(p, m["columella"], y=-0.9 * q["columella_drop"])


def _mouth(p, m, q):
    p = warp.shift(p, m["muzzle"], y=-1.5 * q["philtrum_length"])
    p = warp.shift(p, m["muzzle"], z=1.7 * q["mouth_protrusion"])
    p = warp.shift(p, m["philtrum"], z=-0.45 * np.exp(0.5 * q["philtrum_depth"]) + 0.4)
    seam = p[:, topology().grid[topology().mouth_row, 0]]
    p = warp.scale(p, m["mouth"], seam, x=np.exp(0.056 * q["mouth_width"]))
    above = smooth_step(mean_head()[:, 1], -44.2, -42.8)
    for name, part, lip in (
        ("upper_lip_thickness", above, "upper_lip"),
        ("lower_lip_thickness", 1 - above, "lower_lip"),
    ):
        p = warp.scale(p, m["mouth"] * part, seam, y=np.exp(0.13 * q[name]))
        p = warp.shift(p, m[lip] * part, z=0.9 * q[name])
    bow = np.exp(-(((np.abs(mean_head()[:, 0]) - 6.5) / 3.5) ** 2)) * m["upper_lip"] * above
    p = warp.shift(p, bow, y=0.6 * q["cupid_bow"])
    return warp.shift(p, m["corner"], y=1.2 * q["mouth_corner_height"])


def _ears_and_neck(p, m, q):
    hinge = np.array([70.0, 10.0, -12.0])
    for sign in (1, -1):
        side = m["around_ear"] * (np.sign(mean_head()[:, 0]) == sign)
        size = np.exp(0.075 * q["ear_size"])
        at = hinge * np.array([sign, 1, 1])
        p = warp.scale(p, side, at, x=1.0, y=size, z=size)
        p = warp.turn(p, side, at, sign * 0.16 * q["ear_protrusion"], axis=1)
    p = warp.shift(p, m["lobe"], y=-1.6 * np.exp(0.35 * q["ear_lobe"]) + 1.7)
    p = warp.scale(
        p, m["neck"], np.array([0, 0, -28.0]), x=np.exp(0.065 * q["neck_width"]), z=np.exp(0.055 * q["neck_width"])
    )
    p = warp.shift(p, m["neck"] * smooth_step(-mean_head()[:, 1], 90, 128), y=-4.0 * q["neck_length"])
    return warp.shift(p, m["larynx"], z=1.4 * np.log1p(np.exp(1.5 * q["larynx_prominence"])))


def _asymmetry(p, m, q):
    p = warp.shift(p, m["nose_tip"], x=0.9 * q["nose_deviation"])
    p = warp.shift(p, m["chin"], x=1.1 * q["chin_deviation"])
    p = warp.shift(p, m["eye_wide"] * m["left"], y=0.6 * q["eye_height_asymmetry"])
    p = warp.shift(p, m["mouth"] * m["left"] * smooth_step(np.abs(mean_head()[:, 0]), 0, 25), y=0.7 * q["mouth_tilt"])
    return warp.shift(p, m["jaw"] * np.abs(m["left"]), x=1.0 * q["jaw_asymmetry"])
