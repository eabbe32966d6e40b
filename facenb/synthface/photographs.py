"""Photographs of SynthFace's people with everything known: shape, expression, pose, camera, light, landmarks, depth.

Picture j of subject k of seed s is always the same: its numbers come from a generator of its own, and pictures are
computed one person at a time.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from facenb.imaging.camera import Camera, Perspective, WeakPerspective, euler_to_matrix
from facenb.imaging.lighting import ambient, directional
from facenb.imaging.render import render, vertex_normals, visibility
from facenb.morphable.synthetic import SynthFace

PICTURE = 100  # part of a subject's random numbers that its pictures use
MOODS = (
    {"smile_left": 1.0, "smile_right": 1.0, "squint": 0.3},
    {"smile_left": 0.9, "smile_right": 0.9, "jaw_open": 0.25, "upper_lip_raise": 0.3},
    {"jaw_open": 0.8, "brow_raise_left": 1.0, "brow_raise_right": 1.0, "eyes_wide": 0.9},
    {"brow_lower": 1.0, "lip_press": 0.6, "sneer": 0.3},
    {"frown": 1.0, "brow_lower": 0.4},
    {"sneer": 0.9, "upper_lip_raise": 0.6, "squint": 0.4},
    {"pucker": 1.0},
    {"jaw_open": 0.5},
    {"blink_left": 1.0, "blink_right": 1.0},
)  # full strength; a picture takes one at random strength, and single muscles besides


@dataclass(frozen=True)
class Photographs:
    """Pictures and their exact ground truth. Vertices are the true ones, outside the span of any linear model."""

    image: Float[Tensor, "batch height width 3"]  # linear RGB in [0, 1]
    landmarks: Float[Tensor, "batch 68 2"]  # pixels
    visible: Bool[Tensor, "batch 68"]  # on the image, facing the camera and not hidden
    subject: Int[Tensor, " batch"]
    picture: Int[Tensor, " batch"]
    shape: Float[Tensor, "batch vertices 3"]  # mm, with expression and wrinkles
    neutral: Float[Tensor, "batch vertices 3"]  # mm, the same person at rest
    expression: Float[Tensor, "batch expressions"]  # in [0, 1], by SynthFace.expression_names
    angles: Float[Tensor, "batch 3"]  # yaw, pitch, roll in radians
    camera: Camera
    light: Float[Tensor, "batch 9 3"]
    depth: Float[Tensor, "batch height width"]  # mm along the viewing direction, inf at the background
    normals: Float[Tensor, "batch height width 3"]  # camera axes, 0 at the background
    mask: Bool[Tensor, "batch height width"]

    def __len__(self) -> int:
        return len(self.image)


def photograph(
    synth: SynthFace,
    subjects: list[int],
    pictures: list[int],
    size: tuple[int, int] = (112, 112),
    yaw_limit: float | int = 90.0,
    camera: str = "weak",
    expressive: bool = True,
    supersample: int = 2,
    noise: float = 0.01,
) -> Photographs:
    """Picture `pictures[i]` of subject `subjects[i]`, for every i, at `size` (height, width).

    `yaw_limit` in degrees; `camera` "weak" or "perspective" (0.35 to 1.5 m away); `expressive=False` keeps faces
    neutral; `supersample` renders that many times larger and averages, against jagged edges; `noise` is the standard
    deviation of the sensor's. Raises ValueError for lists of different lengths, no pictures, or an unknown camera.
    """
    if len(subjects) != len(pictures) or not subjects:
        raise ValueError(f"{len(subjects)} subjects and {len(pictures)} pictures: give as many of each, at least one")
    if camera not in ("weak", "perspective"):
        raise ValueError(f"camera {camera!r} is unknown; take 'weak' or 'perspective'")
    scenes = [_Scene.draw(synth, s, p, size, np.radians(yaw_limit)) for s, p in zip(subjects, pictures, strict=True)]
    expression = torch.stack([s.expression for s in scenes]) * float(expressive)
    people = {k: synth.subject(k) for k in dict.fromkeys(subjects)}
    shape = torch.cat([synth.shape(people[k], e[None]) for k, e in zip(subjects, expression, strict=True)])
    neutral = torch.stack([people[k].neutral for k in subjects])
    albedo = torch.stack([people[k].albedo for k in subjects])
    angles, light = torch.stack([s.angles for s in scenes]), torch.stack([s.light for s in scenes])
    viewed = _place_camera(scenes, synth.landmarks.of(neutral), euler_to_matrix(angles), size, camera)
    points = synth.landmarks.of(shape)
    normals = functional.normalize(synth.landmarks.of(vertex_normals(shape, synth.triangles)), dim=-1)
    visible = visibility(shape, synth.triangles, viewed, points, normals, size)
    exact = render(shape, synth.triangles, albedo, viewed, size, light)
    image = _expose(exact, scenes, shape, albedo, synth.triangles, viewed, size, light, supersample, noise)
    return Photographs(
        image=image, landmarks=viewed.project(points)[..., :2], visible=visible, subject=torch.tensor(subjects),
        picture=torch.tensor(pictures), shape=shape, neutral=neutral, expression=expression, angles=angles,
        camera=viewed, light=light, depth=exact.depth, normals=exact.normals, mask=exact.mask,
    )  # fmt: skip


@dataclass(frozen=True)
class _Scene:
    """Everything random about one picture."""

    expression: Tensor
    angles: Tensor
    framing: np.ndarray  # (4,) size in the frame, shift (u, v), distance; in [0, 1)
    light: Tensor
    background: Tensor  # (height, width, 3)
    grain: np.ndarray  # (height, width, 3) standard normal

    @classmethod
    def draw(cls, synth: SynthFace, subject: int, picture: int, size: tuple[int, int], yaw_limit: float) -> "_Scene":
        if picture < 0:
            raise ValueError(f"picture {picture} of subject {subject}: pictures are numbered from 0")
        sequence = np.random.SeedSequence([synth.seed, subject, synth.stream, PICTURE, picture])
        # A generator for each matter, so that none depends on how many numbers another took.
        mood, pose, frame, lamp, wall, grain = (np.random.Generator(np.random.PCG64(s)) for s in sequence.spawn(6))
        yaw = yaw_limit * (2 * pose.random() - 1)
        pitch, roll = np.radians(np.clip(pose.normal(size=2), -2.5, 2.5) * (9.0, 7.0))
        return cls(
            expression=_draw_expression(mood, synth.expression_names),
            angles=torch.tensor([yaw, pitch, roll], dtype=torch.float32),
            framing=frame.random(4),
            light=_draw_light(lamp),
            background=_draw_background(wall, size),
            grain=grain.standard_normal((*size, 3)),
        )


def _draw_expression(generator: np.random.Generator, names: tuple[str, ...]) -> Tensor:
    value = dict.fromkeys(names, 0.0)
    if generator.random() < 0.75:
        strength = 0.3 + 0.7 * generator.random()
        for name, full in MOODS[generator.integers(len(MOODS))].items():
            value[name] += strength * full
    for name in generator.choice(names, 2, replace=False):
        value[name] += 0.5 * generator.random() ** 2
    return torch.tensor([min(value[name], 1.0) for name in names], dtype=torch.float32)


def _draw_light(generator: np.random.Generator) -> Tensor:
    """Ambient light, a key light from above and in front, and a weaker one from the side; about one on the face."""
    warm = np.array([1.0, 0.0, -1.0])
    ambience = (0.30 + 0.40 * generator.random()) * (1 + 0.06 * generator.normal() * warm)
    total = ambient(torch.tensor(ambience[None], dtype=torch.float32))
    for strength, spread in ((0.95, 0.9), (0.35, 1.6)):
        direction = np.array([spread * generator.normal(), 0.35 + 0.4 * generator.normal(), 1.0])
        colour = strength * (0.6 + 0.4 * generator.random()) * (1 + 0.07 * generator.normal() * warm)
        lamp = torch.tensor(direction[None], dtype=torch.float32), torch.tensor(colour[None], dtype=torch.float32)
        total = total + directional(*lamp)
    return 0.82 * total[0]


def _draw_background(generator: np.random.Generator, size: tuple[int, int]) -> Tensor:
    """A wall, out of focus: two colours blended by a gradient, with noise of three scales and some blobs."""
    height, width = size
    grey = generator.random((2, 1))
    colours = (grey + 0.35 * (generator.random((2, 3)) - 0.5)) * (0.35 + 0.6 * generator.random())
    v, u = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")
    turn = 2 * np.pi * generator.random()
    blend = 0.5 + 0.6 * ((u - 0.5) * np.cos(turn) + (v - 0.5) * np.sin(turn))
    image = colours[0] + blend[..., None] * (colours[1] - colours[0])
    for cells in (3, 7, 17):
        coarse = torch.from_numpy(generator.normal(size=(1, 3, cells, cells)).astype(np.float32))
        fine = functional.interpolate(coarse, size=size, mode="bicubic", align_corners=False)[0]
        tint = fine.permute(1, 2, 0).numpy()
        image = image + (0.06 * tint + 0.14 * tint.mean(-1, keepdims=True)) / np.sqrt(cells)
    for _ in range(generator.integers(0, 5)):
        centre, radius = generator.random(2), 0.05 + 0.2 * generator.random()
        inside = 1 / (1 + np.exp((np.hypot(u - centre[0], v - centre[1]) - radius) * 60))
        image = image + 0.6 * inside[..., None] * (generator.random(3) - image)
    return torch.from_numpy(np.clip(image, 0.0, 1.0).astype(np.float32))


def _place_camera(scenes, landmarks, rotation, size, kind) -> Camera:
    """Frame each face: about 60 % of the image high, near its middle."""
    framing = torch.from_numpy(np.stack([s.framing for s in scenes]).astype(np.float32))
    scale = min(size) / (185.0 + 60.0 * framing[:, 0])  # pixels per mm
    middle = (landmarks @ rotation.transpose(1, 2)).mean(1)  # camera axes, mm
    shift = (framing[:, 1:3] - 0.5) * 0.12 * min(size)
    target = torch.tensor([size[1] / 2, size[0] * 0.52]) + shift
    at = target + torch.stack([-middle[:, 0], middle[:, 1]], -1) * scale[:, None]
    if kind == "weak":
        return WeakPerspective(rotation, scale, at)
    distance = 350.0 + 1150.0 * framing[:, 3] ** 2
    place = torch.stack([-middle[:, 0], -middle[:, 1], -distance - middle[:, 2]], -1)
    return Perspective(rotation, place, scale * distance, target)


def _enlarge(camera: Camera, factor: int) -> Camera:
    """The same camera for an image `factor` times as large."""
    if camera.is_perspective:
        return replace(camera, focal=camera.focal * factor, principal=camera.principal * factor)
    return replace(camera, scale=camera.scale * factor, translation=camera.translation * factor)


def _expose(exact, scenes, shape, albedo, triangles, camera, size, light, supersample, noise) -> Tensor:
    """The picture: the face over its background without jagged edges, with grain, clamped to what a sensor holds."""
    background = torch.stack([s.background for s in scenes])
    image, cover = exact.image, exact.mask[..., None].float()
    if supersample > 1:
        large = (size[0] * supersample, size[1] * supersample)
        fine = render(shape, triangles, albedo, _enlarge(camera, supersample), large, light)
        both = torch.cat([fine.image, fine.mask[..., None].float()], -1).permute(0, 3, 1, 2)
        both = functional.avg_pool2d(both, supersample).permute(0, 2, 3, 1)
        image, cover = both[..., :3], both[..., 3:]
    grain = torch.from_numpy(np.stack([s.grain for s in scenes]).astype(np.float32))
    return (image + (1 - cover) * background + noise * grain).clamp(0.0, 1.0)


def concatenate(parts: list[Photographs]) -> Photographs:
    """Several batches as one; raises ValueError if their cameras are of different kinds."""
    if len({type(p.camera) for p in parts}) != 1:
        raise ValueError("batches of different cameras (or none at all) cannot become one")
    joined = {f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Photographs) if f.name != "camera"}
    kind = type(parts[0].camera)
    camera = kind(*(torch.cat([getattr(p.camera, f.name) for p in parts]) for f in fields(kind)))
    return Photographs(camera=camera, **joined)
