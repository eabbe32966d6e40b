"""Occluders painted over faces: hand, glasses, sunglasses, surgical mask, and blocks of arbitrary pixels (Rana).

Only the 68 landmarks determine where an occluder lies. So it works for photographs and renderings, and for any yaw.
Lengths are in mm of a standard face: 90 mm between the outer eye corners and 108 mm from nasion to chin. In the image,
yaw shortens the first distance, and pitch shortens the second. So the scale is the larger of the two ratios of pixels
to mm. Left and right mean sides of the image.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

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
    union,
)

DRAWS = 24  # uniform random numbers per image; a fixed number, so that a seed always gives the same occluder
SKIN = ((0.25, 0.14, 0.09), (0.55, 0.35, 0.25), (0.80, 0.58, 0.45), (0.95, 0.76, 0.66))
CLOTH = ((0.55, 0.74, 0.86), (0.93, 0.94, 0.95), (0.10, 0.10, 0.12), (0.93, 0.70, 0.76), (0.60, 0.80, 0.72))
FRAMES = ((0.05, 0.05, 0.06), (0.30, 0.17, 0.09), (0.55, 0.56, 0.58), (0.45, 0.08, 0.10))

# The back of a left hand, fingers up. The unit is the length of the hand, and the origin is its centre.
KNUCKLES = ((-0.140, 0.070), (-0.045, 0.095), (0.050, 0.080), (0.135, 0.035))
FINGERS = ((-0.06, 0.37, 0.046), (0.0, 0.41, 0.048), (0.06, 0.38, 0.045), (0.16, 0.29, 0.038))  # lean, length, radius
PHALANGES = (0.0, 0.46, 0.76, 1.0)
THUMB = ((-0.10, -0.36), (-0.21, -0.16), (-0.30, 0.02))


@dataclass(frozen=True)
class Face:
    """Position, axes and scale of a face in its image, and the random numbers for its occluder."""

    landmarks: Float[Tensor, "batch 68 2"]
    right: Float[Tensor, "batch 2"]  # unit vector along the line through the eyes
    down: Float[Tensor, "batch 2"]  # unit vector perpendicular to `right`
    scale: Float[Tensor, " batch"]  # pixels per mm
    points: Float[Tensor, "2 height width"]  # pixel centres
    chance: Float[Tensor, "batch draws"]  # uniform numbers in [0, 1)

    def at(self, *numbers: int) -> Float[Tensor, "batch 2"]:
        """Return the mean position of some landmarks, in pixels."""
        return self.landmarks[:, list(numbers)].mean(1)

    def between(self, draw: int, low: float, high: float) -> Float[Tensor, " batch"]:
        """Return a uniform random number in [low, high) for each image."""
        return low + (high - low) * self.chance[:, draw]

    def choice(self, draw: int, table: tuple) -> Tensor:
        """Return a random row of a table for each image."""
        rows = self.chance.new_tensor(table)
        return rows[(self.chance[:, draw] * len(rows)).long()]

    def any_landmark(self, draw: int) -> Float[Tensor, "batch 2"]:
        """Return a random landmark of each image, in pixels."""
        index = (self.chance[:, draw] * 68).long()
        return self.landmarks[torch.arange(len(index), device=index.device), index]


def occlude(
    image: Float[Tensor, "batch height width 3"],
    landmarks: Float[Tensor, "batch 68 2"],
    kind: str,
    seed: int | Sequence[int] = 0,
    size: float = 1.0,
    most: float = 0.9,
) -> tuple[Float[Tensor, "batch height width 3"], Bool[Tensor, "batch height width"]]:
    """Return images with an occluder over each face, and masks of the hidden pixels.

    Images are RGB in [0, 1], landmarks are in pixels. Image k uses the random seed `seed + k`, or `seed[k]`. So the
    result does not depend on other images of the batch. `size` 1 is the natural size. Lenses of clear glasses hide
    nothing.
    Raise LandmarkError unless there are 68 finite landmarks that differ. Raise ImageError if more than the fraction
    `most` of a face (the convex hull of its landmarks) would be hidden. Raise ValueError if the images are bytes.
    """
    if not image.is_floating_point():
        raise ValueError(f"expected float images, RGB in [0, 1], got {image.dtype}; divide bytes by 255")
    occluded, share = DRAWERS[kind](image, _find_face(image, landmarks, seed), size)
    mask = share >= 0.5
    hidden = hidden_share(mask, landmarks)
    if (hidden > most).any():
        worst = int(hidden.argmax())
        raise ImageError(
            f"image {worst}: the {kind} would hide {hidden[worst]:.0%} of the face, more than {most:.0%}: "
            f"make it smaller (size={size}) or raise `most`"
        )
    return occluded.clamp(0, 1), mask


def hidden_share(
    mask: Bool[Tensor, "batch height width"], landmarks: Float[Tensor, "batch points 2"]
) -> Float[Tensor, " batch"]:
    """Return the fraction of each face that a mask covers. The face is the part of its landmarks' hull in the image."""
    shares, centres = [], pixel_centres(tuple(mask.shape[1:]), landmarks).permute(1, 2, 0)
    for covered, points in zip(mask, landmarks, strict=True):
        sides = landmarks.new_tensor(ConvexHull(points.detach().cpu().double().numpy()).equations)  # normal, offset
        face = (centres @ sides[:, :2].T + sides[:, 2] < 0).all(-1)
        shares.append((covered & face).sum() / face.sum().clamp(min=1))
    return torch.stack(shares).to(landmarks.dtype) if shares else landmarks.new_zeros(0)


def _find_face(image: Tensor, landmarks: Tensor, seed: int | Sequence[int]) -> Face:
    """Return the axes and scale of each face, and the random numbers for its occluder."""
    if landmarks.shape != (len(image), 68, 2):
        raise LandmarkError(
            f"expected landmarks of shape ({len(image)}, 68, 2), got {tuple(landmarks.shape)}. Pass the 68 points in "
            "iBUG order, (x, y) in pixels; `to_68` selects them from MediaPipe's 478"
        )
    eyes, height = landmarks[:, 45] - landmarks[:, 36], landmarks[:, 8] - landmarks[:, 27]
    scale = torch.maximum(eyes.norm(dim=-1) / 90, height.norm(dim=-1) / 108)
    bad = ~(landmarks.isfinite().all(-1).all(-1) & (scale > 1e-3))
    if bad.any():
        rows = bad.nonzero().flatten().tolist()
        raise LandmarkError(f"images {rows}: the landmarks are not finite or all equal; leave these images out")
    level = eyes / scale[:, None] / 90
    upright = torch.stack([height[:, 1], -height[:, 0]], -1) / scale[:, None] / 108  # for profiles
    right = functional.normalize(level * level.norm(dim=-1, keepdim=True) + 0.5 * upright, dim=-1)
    down = torch.stack([-right[:, 1], right[:, 0]], -1)
    seeds = range(seed, seed + len(image)) if isinstance(seed, int) else seed
    draws = [torch.rand(DRAWS, generator=torch.Generator().manual_seed(int(number))) for number in seeds]
    return Face(
        landmarks, right, down, scale, pixel_centres(tuple(image.shape[1:3]), landmarks), torch.stack(draws).to(image)
    )


def _lamp(face: Face) -> Float[Tensor, "batch 3"]:
    """Return the direction to a lamp above the face and a little to one side."""
    return torch.stack([face.between(20, -0.7, 0.7), face.between(21, -0.9, -0.4), 1 + 0 * face.scale], -1)


def _glasses(image, face, size, dark=False):
    unit = face.scale[:, None] * size
    thick = spread(face.scale * face.between(2, 1.2, 2.4))
    lenses, hinges, bridge = [], [], []
    for outer, inner, eye, side in ((36, 39, range(36, 42), -1), (45, 42, range(42, 48), 1)):
        width = face.at(inner) - face.at(outer)  # the width of the eye shows how far this side is turned away
        share = ((width * face.right).sum(-1).abs() / (30 * face.scale)).clamp(0.3, 1.1)[:, None]
        across, upward = face.right * share * 26 * unit, face.down * 21 * unit
        centre = face.at(*eye) + face.down * 3 * unit + side * across * 0.06
        lenses.append(lens(face.points, centre, across, upward, face.between(1, 2.2, 4.4)))
        bridge.append(centre - side * across - face.down * 4 * unit)
        hinges.append([centre + side * across - face.down * 5 * unit])
    glass, arms = union(lenses), _lines_to_ears(face, hinges, face.down * 6 * unit)
    rim = cover(union([glass.abs(), capsule(face.points, *bridge)[0], arms]) - thick)
    height = along(face.points, face.at(*range(36, 48)), face.down / (21 * unit))  # -1 at the lens top, 1 at its bottom
    streak = along(face.points, face.at(27), (face.right + 0.6 * face.down) / (18 * unit)).frac().abs()
    gleam = ((streak - 0.5).abs() < 0.12) & (height < 0.2)
    pane = cover(glass) * (0.93 if dark else 0.06)
    shade = (0.05 + 0.06 * (height + 1).clamp(0, 2))[..., None] if dark else 0.95
    glassy = paint(cast_shadow(image, rim, 0.35), shade, pane)
    glassy = paint(glassy, 1.0, cover(glass) * gleam * (0.10 if dark else 0.12))
    return paint(glassy, spread(face.choice(0, FRAMES)), rim), torch.maximum(rim, pane)


def _lines_to_ears(face: Face, starts: list[list[Tensor]], above: Tensor | float) -> Tensor:
    """Return the distance to lines from left and right `starts` to the ear of the same side, shifted up by `above`.

    A side whose cheek faces away from the viewer has no lines.
    """
    left, right = (((face.at(*jaw) - face.at(28)) * face.right).sum(-1) for jaw in ((2, 3, 4), (12, 13, 14)))
    lines = []
    for ear, near, points in zip((0, 16), (-left > 0.4 * right, right > -0.4 * left), starts, strict=True):
        for start in points:
            line = capsule(face.points, start, face.at(ear) - above)[0]
            lines.append(torch.where(spread(near), line, torch.inf))
    return union(lines)


def _mask(image, face, size):
    cloth = face.choice(0, CLOTH)
    unit = face.scale[:, None]
    middle = face.at(33, 51)
    top = [face.at(2) * 0.45 + face.at(29) * 0.55, face.at(28, 29), face.at(14) * 0.45 + face.at(29) * 0.55]
    jaw = [face.at(k) + face.down * 5 * unit for k in (4, 6, 8, 10, 12)]
    corners = torch.stack([face.at(2), *jaw, face.at(14), *reversed(top)], 1)
    corners = middle[:, None] + (corners - middle[:, None]) * size
    bulge = [face.at(29), face.at(35), face.at(54), face.at(9, 55), face.at(7, 59), face.at(48), face.at(31)]
    bulge = middle[:, None] + (torch.stack(bulge, 1) - middle[:, None]) * size * 1.2  # nose and mouth in side views
    distance = union([polygon(face.points, smooth_curve(outline)) for outline in (corners, bulge)])
    share = cover(distance)
    loops = _lines_to_ears(face, [[corners[:, 0], corners[:, 1]], [corners[:, 6], corners[:, 5]]], 0.0)
    strings = cover(loops - spread(face.scale * 0.9)) * (1 - share)
    whole = torch.maximum(share, strings)
    shading = _cloth_shading(face, corners, distance)
    stringed = paint(cast_shadow(image, whole, 0.3), spread(cloth * 0.85), strings)
    return paint(stringed, spread(cloth) * shading[..., None], share), whole


def _cloth_shading(face: Face, corners: Tensor, distance: Tensor) -> Tensor:
    """Return the shading of a mask that is curved over nose and mouth, with three pleats and a seam at its rim."""
    top, axis = corners[:, 8], corners[:, 3] - corners[:, 8]
    length = axis.norm(dim=-1)
    fall = along(face.points, top, axis / length[:, None] ** 2)  # 0 at the nose, 1 at the chin
    side = along(face.points, top, torch.stack([axis[:, 1], -axis[:, 0]], -1) / length[:, None])
    left, right = (((corners[:, k] - top) * face.right).sum(-1).abs().clamp(min=1) for k in (0, 6))
    across = side / torch.where(side < 0, spread(left), spread(right))
    relief = (1.05 - across**2).clamp(min=0.02).sqrt() * spread(face.scale * 32)
    shading = lambert(relief - spread(face.scale * 16) * (fall - 0.35) ** 2, _lamp(face), 0.5)
    for row in (0.38, 0.56, 0.74):
        below = (fall - row + 0.10 * across**2) * spread(length / face.scale)  # mm below the pleat
        shading = shading * (1 - 0.16 * torch.exp(-((below / 1.6) ** 2)) + 0.10 * torch.exp(-(((below - 3) / 2) ** 2)))
    return shading * (1 - 0.22 * torch.exp(-(((distance / spread(face.scale) + 2.5) / 1.2) ** 2)))


def _hand(image, face, size):
    turn, flip = face.between(1, -1.4, 1.4), torch.where(face.chance[:, 2] < 0.5, -1.0, 1.0).to(face.scale)
    length = face.scale * 165 * size * face.between(3, 0.85, 1.1)
    up = -face.down * turn.cos()[:, None] - face.right * turn.sin()[:, None]  # the direction of the fingers
    aside = torch.stack([-up[:, 1], up[:, 0]], -1) * flip[:, None]
    centre = face.any_landmark(4)

    def spot(x, y):
        return centre + length[:, None] * (aside * x + up * y)

    bones, nails, creases = _bones(spot, aside, face.between(5, 0.3, 2.2))
    distance, relief = face.points.new_tensor(torch.inf), face.points.new_tensor(0.0)
    for start, end, first, last in bones:
        gap, share = capsule(face.points, start, end)
        radius = spread(length) * (first + (last - first) * share)
        distance = torch.minimum(distance, gap - radius)
        relief = torch.maximum(relief, (radius**2 - gap**2).clamp(min=0).sqrt() * 0.8)
    share = cover(distance)
    shading = lambert(relief, _lamp(face), 0.42) * (0.72 + 0.28 * (relief / spread(length * 0.03)).clamp(0, 1))
    for joint, direction, radius in creases:
        reach = direction * (length * radius * 0.6)[:, None]
        line = capsule(face.points, joint - reach, joint + reach)[0] / spread(length * 0.008)
        shading = shading * (1 - 0.22 * torch.exp(-(line**2)))
    skin = _skin(face)
    colour = spread(skin) * shading[..., None]
    for start, end, radius in nails:
        nail = cover(capsule(face.points, start, end)[0] - spread(length * radius)) * 0.5
        colour = paint(colour, (spread(skin) * 0.7 + 0.28) * shading[..., None].clamp(min=0.8), nail)
    return paint(cast_shadow(image, share, 0.4), colour, share), share


def _bones(spot: Callable, aside: Tensor, splay: Tensor) -> tuple[list, list, list]:
    """Return capsules (start, end, radius at both ends), nails (start, end, radius) and creases (joint, axis, radius).

    `spot(x, y)` gives the image position of a point of the hand. Radii are fractions of the hand's length.
    """
    bones = [(spot(0.0, -0.50), spot(0.0, -2.5), 0.13, 0.18)]
    bones += [(spot(0.45 * x, -0.44), spot(x, y), 0.085, 0.064) for x, y in KNUCKLES]
    bones.append((spot(-0.02, -0.30), spot(0.03, -0.05), 0.13, 0.14))
    nails, creases = [], []
    for (x, y), (lean, reach, radius) in zip(KNUCKLES, FINGERS, strict=True):
        tilt = lean * splay
        stops = [spot(x + (reach * s * tilt.sin())[:, None], y + (reach * s * tilt.cos())[:, None]) for s in PHALANGES]
        for k in range(3):
            bones.append((stops[k], stops[k + 1], radius * (1.08 - 0.12 * k), radius * (0.96 - 0.12 * k)))
        nails.append((stops[2] + 0.55 * (stops[3] - stops[2]), stops[3] + 0.10 * (stops[3] - stops[2]), radius * 0.50))
        creases += [(stops[k], aside, radius) for k in (1, 2)]
    thumb = [spot(*point) for point in THUMB]
    bones += [(thumb[0], thumb[1], 0.085, 0.058), (thumb[1], thumb[2], 0.056, 0.044)]
    nails.append((thumb[1] + 0.75 * (thumb[2] - thumb[1]), thumb[2], 0.026))
    return bones, nails, creases


def _skin(face: Face) -> Float[Tensor, "batch 3"]:
    """Return a random skin tone, interpolated between the tones of the table."""
    tones = face.chance.new_tensor(SKIN)
    position = face.chance[:, 0] * (len(tones) - 1)
    low = position.floor().long().clamp(max=len(tones) - 2)
    return torch.lerp(tones[low], tones[low + 1], (position - low)[:, None])


def _blocks(image, face, size):
    """Paint one to three rectangles. Each has a random colour, or a random value at every pixel."""
    share = torch.zeros_like(image[..., 0])
    for block in range(3):
        first = 6 * block
        present = (face.chance[:, first + 5] < 0.6) | (block == 0)
        turn = face.between(first, -0.6, 0.6)
        width, height = (face.between(first + k, 25, 70) * face.scale * size / 2 for k in (1, 2))
        centre = face.any_landmark(first + 3)
        right = face.right * turn.cos()[:, None] - face.down * turn.sin()[:, None]
        u = along(face.points, centre, right).abs() - spread(width)
        v = along(face.points, centre, torch.stack([-right[:, 1], right[:, 0]], -1)).abs() - spread(height)
        inside = (torch.maximum(u, v) < 0) & spread(present)
        noisy = spread(face.chance[:, first + 4] < 0.5)[..., None]
        values = torch.where(noisy, _noise(face, image, block), spread(face.chance[:, 18:21]))
        image = torch.where(inside[..., None], values, image)
        share = torch.where(inside, 1.0, share)
    return image, share


def _noise(face: Face, image: Tensor, block: int) -> Tensor:
    """Return a random value for every pixel, seeded by the image's random numbers."""
    noise = torch.empty_like(image)
    for row, seed in enumerate(((face.chance[:, 23] * 2**24).long() + block).tolist()):
        noise[row] = torch.rand(image.shape[1:], generator=torch.Generator().manual_seed(seed))
    return noise


SUNGLASSES = partial(_glasses, dark=True)
DRAWERS = {"hand": _hand, "glasses": _glasses, "sunglasses": SUNGLASSES, "mask": _mask, "blocks": _blocks}
KINDS = tuple(DRAWERS)
