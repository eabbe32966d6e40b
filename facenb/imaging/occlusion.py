"""Occluders painted over faces: hand, glasses, sunglasses, surgical mask, and blocks of arbitrary pixels (Rana).

All are placed by the 68 landmarks alone, so they fit a photograph as well as a rendering, frontal or turned. Lengths
are in mm of a face whose outer eye corners are 90 mm, and whose nasion and chin 108 mm, apart: the longer of the two in
the image sets the scale, since a turn shortens one and a nod the other. Left and right are the image's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from scipy.spatial import ConvexHull
from torch import Tensor
from torch.nn import functional

from facenb.errors import ImageError, LandmarkError
from facenb.imaging.drawing import (
    along,
    capsule,
    cast_shadow,
    cover,
    lambert,
    lens,
    paint,
    pixel_centres,
    polygon,
    smooth_curve,
    spread,
)

KINDS = ("hand", "glasses", "sunglasses", "mask", "blocks")
DRAWS = 24  # uniform numbers an image; each kind takes what it needs, so that seeds mean the same for ever
SKIN = ((0.25, 0.14, 0.09), (0.55, 0.35, 0.25), (0.80, 0.58, 0.45), (0.95, 0.76, 0.66))
CLOTH = ((0.55, 0.74, 0.86), (0.93, 0.94, 0.95), (0.10, 0.10, 0.12), (0.93, 0.70, 0.76), (0.60, 0.80, 0.72))
FRAMES = ((0.05, 0.05, 0.06), (0.30, 0.17, 0.09), (0.55, 0.56, 0.58), (0.45, 0.08, 0.10))

# A left hand seen from its back, fingers up; unit: wrist to the middle finger's tip, origin in its middle.
KNUCKLES = ((-0.140, 0.070), (-0.045, 0.095), (0.050, 0.080), (0.135, 0.035))
FINGERS = ((-0.06, 0.37, 0.046), (0.0, 0.41, 0.048), (0.06, 0.38, 0.045), (0.16, 0.29, 0.038))  # lean, length, radius
PHALANGES = (0.0, 0.46, 0.76, 1.0)
THUMB = ((-0.10, -0.36), (-0.21, -0.16), (-0.30, 0.02))


@dataclass(frozen=True)
class Place:
    """Where a face is in its image."""

    landmarks: Float[Tensor, "batch 68 2"]
    right: Float[Tensor, "batch 2"]  # unit vector along the eyes
    down: Float[Tensor, "batch 2"]  # unit vector square to it
    scale: Float[Tensor, " batch"]  # pixels per mm
    points: Float[Tensor, "2 height width"]  # pixel centres
    chance: Float[Tensor, "batch draws"]  # uniform numbers in [0, 1)

    def at(self, *numbers: int) -> Float[Tensor, "batch 2"]:
        """Mean of some landmarks."""
        return self.landmarks[:, list(numbers)].mean(1)

    def between(self, draw: int, low: float, high: float) -> Float[Tensor, " batch"]:
        """A uniform number in [low, high) for each image."""
        return low + (high - low) * self.chance[:, draw]

    def choice(self, draw: int, table: tuple) -> Tensor:
        """A row of a table for each image."""
        rows = self.chance.new_tensor(table)
        return rows[(self.chance[:, draw] * len(rows)).long()]


def occlude(
    image: Float[Tensor, "batch height width 3"],
    landmarks: Float[Tensor, "batch 68 2"],
    kind: str,
    seed: int | Sequence[int] = 0,
    size: float = 1.0,
    landmark: int | None = None,
    angle: float | None = None,
    colour: tuple[float, float, float] | None = None,
    most: float = 0.9,
) -> tuple[Float[Tensor, "batch height width 3"], Bool[Tensor, "batch height width"]]:
    """Images with an occluder over each face, and the pixels it hides. RGB in [0, 1], landmarks in pixels.

    What is not given is drawn at random: image k from `seed + k`, or from `seed[k]`, whatever else is in the batch.
    `size` 1 is natural; `landmark` (hand, blocks) is where it is centred; `angle` in radians (hand: of the fingers from
    up, counter-clockwise; blocks); `colour` of skin, frame, cloth or blocks. Under clear glasses, lenses hide nothing.
    LandmarkError: landmarks not 68, not finite or all alike. ImageError: more than `most` of a face (the hull of its
    landmarks) would be hidden. ValueError: images of bytes or of other channels, no such kind, seeds of another count,
    or a size that is not positive.
    """
    check_faces(image, landmarks)
    if not image.is_floating_point():
        raise ValueError(f"images of {image.dtype} must be floats, RGB in [0, 1]; divide bytes by 255")
    if kind not in KINDS:
        raise ValueError(f"occluder {kind!r} is unknown: choose one of {', '.join(KINDS)}")
    if not size > 0:
        raise ValueError(f"size {size} of the occluder must be positive")
    place = _find_place(image, landmarks, seed)
    drawers = {"hand": _hand, "mask": _mask, "blocks": _blocks, "glasses": _glasses, "sunglasses": _glasses}
    tint = None if colour is None else image.new_tensor(colour).expand(len(image), 3)
    extra = {"dark": kind == "sunglasses"} if "glasses" in kind else {}
    extra |= {"landmark": landmark, "angle": angle} if kind in ("hand", "blocks") else {}
    occluded, share = drawers[kind](image, place, size, tint, **extra)
    mask = share >= 0.5
    hidden = hidden_share(mask, landmarks)
    if (hidden > most).any():
        worst = int(hidden.argmax())
        raise ImageError(
            f"image {worst}: the {kind} would hide {hidden[worst]:.0%} of the face, more than {most:.0%}: "
            f"make it smaller (size={size}) or raise `most`"
        )
    return occluded.clamp(0, 1), mask


def check_faces(image: Tensor, landmarks: Tensor) -> None:
    """Raise ValueError for what is no batch of RGB pictures, LandmarkError for what are not the 68 points of each."""
    if image.dim() != 4 or image.shape[3] != 3:
        raise ValueError(f"pictures {tuple(image.shape)} must be (batch, height, width, 3), the channels last")
    if landmarks.shape != (len(image), 68, 2):
        raise LandmarkError(
            f"landmarks {tuple(landmarks.shape)} of {len(image)} pictures must be the 68 of iBUG for each, (x, y) in "
            "pixels; `to_68` takes them from MediaPipe's 478"
        )


def hidden_share(
    mask: Bool[Tensor, "batch height width"], landmarks: Float[Tensor, "batch points 2"]
) -> Float[Tensor, " batch"]:
    """Share of each face (the hull of its landmarks, as far as in the image) that a mask covers; 0 without a face."""
    shares, centres = [], pixel_centres(tuple(mask.shape[1:]), landmarks).permute(1, 2, 0)
    for covered, points in zip(mask, landmarks, strict=True):
        sides = landmarks.new_tensor(ConvexHull(points.detach().cpu().double().numpy()).equations)  # outwards, offset
        face = (centres @ sides[:, :2].T + sides[:, 2] < 0).all(-1)
        shares.append((covered & face).sum() / face.sum().clamp(min=1))
    return torch.stack(shares).to(landmarks.dtype) if shares else landmarks.new_zeros(0)


def _find_place(image: Tensor, landmarks: Tensor, seed: int | Sequence[int]) -> Place:
    """Axes and scale of each face, and its random numbers."""
    eyes, height = landmarks[:, 45] - landmarks[:, 36], landmarks[:, 8] - landmarks[:, 27]
    scale = torch.maximum(eyes.norm(dim=-1) / 90, height.norm(dim=-1) / 108)
    bad = ~(landmarks.isfinite().all(-1).all(-1) & (scale > 1e-3))
    if bad.any():
        which = bad.nonzero().flatten().tolist()
        raise LandmarkError(f"images {which}: landmarks are not finite or all alike, so no occluder can be placed")
    level = eyes / scale[:, None] / 90
    upright = torch.stack([height[:, 1], -height[:, 0]], -1) / scale[:, None] / 108  # a turned face has no eye line
    right = functional.normalize(level * level.norm(dim=-1, keepdim=True) + 0.5 * upright, dim=-1)
    seeds = [seed + k for k in range(len(image))] if isinstance(seed, int) else [int(s) for s in seed]
    if len(seeds) != len(image):
        raise ValueError(f"{len(seeds)} seeds for {len(image)} images: give one number, or one for each image")
    chance = [torch.rand(DRAWS, generator=torch.Generator().manual_seed(s)) for s in seeds]
    chance = torch.stack(chance).to(image) if chance else image.new_zeros(0, DRAWS)
    down = torch.stack([-right[:, 1], right[:, 0]], -1)
    return Place(landmarks, right, down, scale, pixel_centres(tuple(image.shape[1:3]), landmarks), chance)


def _lamp(place: Place) -> Float[Tensor, "batch 3"]:
    """Towards a lamp above the face, somewhat to one side."""
    return torch.stack([place.between(20, -0.7, 0.7), place.between(21, -0.9, -0.4), 1 + 0 * place.scale], -1)


def _somewhere(place: Place, draw: int, landmark: int | None) -> Float[Tensor, "batch 2"]:
    """The landmark asked for, or one at random."""
    index = (place.chance[:, draw] * 68).long() if landmark is None else torch.full_like(place.scale, landmark).long()
    return place.landmarks[torch.arange(len(index), device=index.device), index]


def _glasses(image, place, size, tint, dark):
    frame = place.choice(0, FRAMES) if tint is None else tint
    unit = place.scale[:, None] * size
    thick = spread(place.scale * place.between(2, 1.2, 2.4))
    lenses, edges = [], []
    for outer, inner, eye, side in ((36, 39, range(36, 42), -1), (45, 42, range(42, 48), 1)):
        width = place.at(inner) - place.at(outer)  # the eye's own shortening shows how far this side is turned
        share = ((width * place.right).sum(-1).abs() / (30 * place.scale)).clamp(0.3, 1.1)[:, None]
        across, upward = place.right * share * 26 * unit, place.down * 21 * unit
        centre = place.at(*eye) + place.down * 3 * unit + side * across * 0.06
        lenses.append(lens(place.points, centre, across, upward, place.between(1, 2.2, 4.4)))
        edges.append((centre - side * across, centre + side * across))  # towards the nose, towards the ear
    glass = torch.minimum(*lenses)
    frame_distance = glass.abs() - thick
    bridge = capsule(place.points, edges[0][0] - place.down * 4 * unit, edges[1][0] - place.down * 4 * unit)[0] - thick
    frame_distance = torch.minimum(frame_distance, bridge)
    for (_, hinge), ear, near in zip(edges, (place.at(0), place.at(16)), _near_sides(place), strict=True):
        arm = capsule(place.points, hinge - place.down * 5 * unit, ear - place.down * 6 * unit)[0] - thick
        frame_distance = torch.minimum(frame_distance, torch.where(spread(near), arm, torch.inf))
    rim = cover(frame_distance)
    shadowed = cast_shadow(image, rim, 0.35)
    height = along(place.points, place.at(*range(36, 48)), place.down / (21 * unit))  # -1 top of the lens, 1 bottom
    streak = along(place.points, place.at(27), (place.right + 0.6 * place.down) / (18 * unit)).frac().abs()
    gleam = ((streak - 0.5).abs() < 0.12) & (height < 0.2)
    pane = cover(glass) * (0.93 if dark else 0.06)
    shade = (0.05 + 0.06 * (height + 1).clamp(0, 2))[..., None] if dark else 0.95
    glassy = paint(shadowed, shade, pane)
    glassy = paint(glassy, 1.0, cover(glass) * gleam * (0.10 if dark else 0.12))
    return paint(glassy, spread(frame), rim), torch.maximum(rim, pane)


def _near_sides(place: Place) -> tuple[Tensor, Tensor]:
    """Whether the left and the right cheek are turned to the viewer enough to show what runs along them to the ear."""
    left, right = (((place.at(*jaw) - place.at(28)) * place.right).sum(-1) for jaw in ((2, 3, 4), (12, 13, 14)))
    return -left > 0.4 * right, right > -0.4 * left


def _mask(image, place, size, tint):
    cloth = place.choice(0, CLOTH) if tint is None else tint
    unit = place.scale[:, None]
    middle = place.at(33, 51)
    top = [place.at(2) * 0.45 + place.at(29) * 0.55, place.at(28, 29), place.at(14) * 0.45 + place.at(29) * 0.55]
    jaw = [place.at(k) + place.down * 5 * unit for k in (4, 6, 8, 10, 12)]
    corners = torch.stack([place.at(2), *jaw, place.at(14), *reversed(top)], 1)
    corners = middle[:, None] + (corners - middle[:, None]) * size
    bulge = [place.at(29), place.at(35), place.at(54), place.at(9, 55), place.at(7, 59), place.at(48), place.at(31)]
    bulge = middle[:, None] + (torch.stack(bulge, 1) - middle[:, None]) * size * 1.2  # over nose and mouth from aside
    outlines = (polygon(place.points, smooth_curve(outline)) for outline in (corners, bulge))
    distance = torch.minimum(*outlines)
    share = cover(distance)
    loops = torch.full_like(distance, torch.inf)
    for ear, knots, near in zip((0, 16), ((0, 1), (6, 5)), _near_sides(place), strict=True):
        for knot in knots:
            string = capsule(place.points, corners[:, knot], place.at(ear))[0]
            loops = torch.minimum(loops, torch.where(spread(near), string, torch.inf))
    strings = cover(loops - spread(place.scale * 0.9)) * (1 - share)
    shading = _cloth_shading(place, corners, distance)
    shadowed = cast_shadow(image, torch.maximum(share, strings), 0.3)
    stringed = paint(shadowed, spread(cloth * 0.85), strings)
    return paint(stringed, spread(cloth) * shading[..., None], share), torch.maximum(share, strings)


def _cloth_shading(place: Place, corners: Tensor, distance: Tensor) -> Tensor:
    """Light on a mask bulging over nose and mouth, with three pleats and a seam along its rim."""
    top, axis = corners[:, 8], corners[:, 3] - corners[:, 8]
    length = axis.norm(dim=-1)
    fall = along(place.points, top, axis / length[:, None] ** 2)  # 0 at the nose, 1 at the chin
    side = along(place.points, top, torch.stack([axis[:, 1], -axis[:, 0]], -1) / length[:, None])
    left, right = (((corners[:, k] - top) * place.right).sum(-1).abs().clamp(min=1) for k in (0, 6))
    across = side / torch.where(side < 0, spread(left), spread(right))
    relief = (1.05 - across**2).clamp(min=0.02).sqrt() * spread(place.scale * 32)
    shading = lambert(relief - spread(place.scale * 16) * (fall - 0.35) ** 2, _lamp(place), 0.5)
    for row in (0.38, 0.56, 0.74):
        below = (fall - row + 0.10 * across**2) * spread(length / place.scale)  # mm below the pleat
        shading = shading * (1 - 0.16 * torch.exp(-((below / 1.6) ** 2)) + 0.10 * torch.exp(-(((below - 3) / 2) ** 2)))
    return shading * (1 - 0.22 * torch.exp(-(((distance / spread(place.scale) + 2.5) / 1.2) ** 2)))


def _hand(image, place, size, tint, landmark, angle):
    skin = _skin(place) if tint is None else tint
    turn = place.between(1, -1.4, 1.4) if angle is None else torch.full_like(place.scale, angle)
    flip = torch.where(place.chance[:, 2] < 0.5, -1.0, 1.0).to(place.scale)
    length = place.scale * 165 * size * (place.between(3, 0.85, 1.1))
    centre = _somewhere(place, 4, landmark)
    up = -place.down * turn.cos()[:, None] - place.right * turn.sin()[:, None]
    aside = torch.stack([-up[:, 1], up[:, 0]], -1) * flip[:, None]
    splay = place.between(5, 0.3, 2.2)

    def spot(x, y):
        return centre + length[:, None] * (aside * x + up * y)

    parts, nails, creases = [], [], []  # (start, end, radius at start, radius at end)
    parts.append((spot(0.0, -0.50), spot(0.0, -2.5), 0.13, 0.18))
    for x, y in KNUCKLES:
        parts.append((spot(0.45 * x, -0.44), spot(x, y), 0.085, 0.064))
    parts.append((spot(-0.02, -0.30), spot(0.03, -0.05), 0.13, 0.14))
    for (x, y), (lean, reach, radius) in zip(KNUCKLES, FINGERS, strict=True):
        tilt = lean * splay
        stops = [spot(x + (reach * s * tilt.sin())[:, None], y + (reach * s * tilt.cos())[:, None]) for s in PHALANGES]
        for k in range(3):
            parts.append((stops[k], stops[k + 1], radius * (1.08 - 0.12 * k), radius * (0.96 - 0.12 * k)))
        nails.append((stops[2] + 0.55 * (stops[3] - stops[2]), stops[3] + 0.10 * (stops[3] - stops[2]), radius * 0.50))
        creases += [(stops[k], aside, radius) for k in (1, 2)]
    thumb = [spot(*p) for p in THUMB]
    parts += [(thumb[0], thumb[1], 0.085, 0.058), (thumb[1], thumb[2], 0.056, 0.044)]
    nails.append((thumb[1] + 0.75 * (thumb[2] - thumb[1]), thumb[2], 0.026))
    distance, relief = None, None
    for start, end, first, last in parts:
        gap, share = capsule(place.points, start, end)
        radius = spread(length) * (first + (last - first) * share)
        bump = (radius**2 - gap**2).clamp(min=0).sqrt() * 0.8
        distance = gap - radius if distance is None else torch.minimum(distance, gap - radius)
        relief = bump if relief is None else torch.maximum(relief, bump)
    share = cover(distance)
    shading = lambert(relief, _lamp(place), 0.42) * (0.72 + 0.28 * (relief / spread(length * 0.03)).clamp(0, 1))
    for joint, direction, radius in creases:
        reach = direction * (length * radius * 0.6)[:, None]
        line = capsule(place.points, joint - reach, joint + reach)[0] / spread(length * 0.008)
        shading = shading * (1 - 0.22 * torch.exp(-(line**2)))
    colour = spread(skin) * shading[..., None]
    for start, end, radius in nails:
        nail = cover(capsule(place.points, start, end)[0] - spread(length * radius)) * 0.5
        colour = paint(colour, (spread(skin) * 0.7 + 0.28) * shading[..., None].clamp(min=0.8), nail)
    return paint(cast_shadow(image, share, 0.4), colour, share), share


def _skin(place: Place) -> Float[Tensor, "batch 3"]:
    """A skin tone between those of the table."""
    tones = place.chance.new_tensor(SKIN)
    position = place.chance[:, 0] * (len(tones) - 1)
    low = position.floor().long().clamp(max=len(tones) - 2)
    return torch.lerp(tones[low], tones[low + 1], (position - low)[:, None])


def _blocks(image, place, size, tint, landmark, angle):
    """One to three rectangles, each of one arbitrary colour or of an arbitrary value at every pixel."""
    share = torch.zeros_like(image[..., 0])
    for block in range(3):
        first = 6 * block
        present = (place.chance[:, first + 5] < 0.6) | (block == 0)
        turn = place.between(first, -0.6, 0.6) if angle is None else torch.full_like(place.scale, angle)
        width, height = (place.between(first + k, 25, 70) * place.scale * size / 2 for k in (1, 2))
        centre = _somewhere(place, first + 3, landmark if block == 0 else None)
        right = place.right * turn.cos()[:, None] - place.down * turn.sin()[:, None]
        u = along(place.points, centre, right).abs() - spread(width)
        v = along(place.points, centre, torch.stack([-right[:, 1], right[:, 0]], -1)).abs() - spread(height)
        inside = (torch.maximum(u, v) < 0) & spread(present)
        flat = place.chance[:, 18:21] if tint is None else tint
        noisy = (place.chance[:, first + 4] < 0.5) & (tint is None)
        noise = _noise(place, image, block)
        image = torch.where(inside[..., None], torch.where(spread(noisy)[..., None], noise, spread(flat)), image)
        share = torch.where(inside, 1.0, share)
    return image, share


def _noise(place: Place, image: Tensor, block: int) -> Tensor:
    """A value for every pixel, from the image's own random numbers."""
    seeds = (place.chance[:, 23] * 2**24).long() + block
    return torch.stack([
        torch.rand(image.shape[1:], generator=torch.Generator().manual_seed(s)).to(image) for s in seeds.tolist()
    ]) if len(image) else image  # fmt: skip
