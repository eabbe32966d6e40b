"""Photographs of SynthFace's people with everything known: shape, expression, pose, camera, light, landmarks, depth.

Picture j of subject k of seed s is always the same: its numbers come from a generator of its own, and pictures are
computed one person at a time. Hair, beard and make-up vary between the pictures of a person.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from facenb.imaging.camera import Camera, Perspective, WeakPerspective, euler_to_matrix
from facenb.imaging.lighting import ambient, directional
from facenb.imaging.render import Rendering, render, vertex_normals, visibility
from facenb.imaging.texture import Texture
from facenb.synthface import atlas, hair, skin, wrinkles
from facenb.synthface.people import Subject, SynthFace

HAIR, PICTURE = 11, 100  # streams of a subject's random numbers
TEXELS = 1 << 24  # of the textures that are held at once
COARSE = 80  # pixels: smaller pictures have hair of fewer ribbons
# At full strength, "*" for both sides; a picture takes one at random strength, and single actions besides.
MOODS = (
    {"mouthSmile*": 1.0, "eyeSquint*": 0.3},
    {"mouthSmile*": 0.9, "jawOpen": 0.25, "mouthUpperUp*": 0.3},
    {"jawOpen": 0.8, "browInnerUp": 1.0, "browOuterUp*": 1.0, "eyeWide*": 0.9},
    {"browDown*": 1.0, "mouthPress*": 0.6, "noseSneer*": 0.3},
    {"mouthFrown*": 1.0, "browInnerUp": 0.6},
    {"noseSneer*": 0.9, "mouthUpperUp*": 0.6, "eyeSquint*": 0.4},
    {"mouthPucker": 1.0},
    {"jawOpen": 0.5},
    {"eyeBlink*": 1.0},
)


@dataclass(frozen=True)
class Photographs:
    """Pictures and their exact ground truth. Vertices are the true ones, outside the span of any linear model."""

    image: Float[Tensor, "batch height width 3"]  # linear RGB in [0, 1]
    landmarks: Float[Tensor, "batch 68 2"]  # pixels
    visible: Bool[Tensor, "batch 68"]  # on the image, not hidden by head or hair
    subject: Int[Tensor, " batch"]
    picture: Int[Tensor, " batch"]
    shape: Float[Tensor, "batch vertices 3"]  # mm, with expression; without hair
    neutral: Float[Tensor, "batch vertices 3"]  # mm, the same person at rest
    expression: Float[Tensor, "batch expressions"]  # in [0, 1], by SynthFace.expression_names
    angles: Float[Tensor, "batch 3"]  # yaw, pitch, roll in radians
    camera: Camera
    light: Float[Tensor, "batch 9 3"]
    depth: Float[Tensor, "batch height width"]  # mm along the viewing direction, inf at the background
    normals: Float[Tensor, "batch height width 3"]  # camera axes, 0 at the background
    mask: Bool[Tensor, "batch height width"]  # head or hair; depth and normals know the shirt, too
    hair: Bool[Tensor, "batch height width"]  # the part of the mask that is hair

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
    view: float | int = 185.0,
) -> Photographs:
    """Return picture `pictures[i]` of subject `subjects[i]`, for every i, at `size` (height, width).

    `yaw_limit` in degrees; `camera` "weak" or "perspective" (0.35 to 1.5 m away); `expressive=False` keeps faces
    neutral; `supersample` renders that many times larger and averages, against jagged edges; `noise` is the standard
    deviation of the sensor's. An image shows `view` to `view` + 60 mm. Raise ValueError for lists of different lengths,
    no pictures, or an unknown camera.
    """
    if len(subjects) != len(pictures) or not subjects:
        raise ValueError(f"Expected as many subjects as pictures, at least one; got {len(subjects)}, {len(pictures)}.")
    if camera not in ("weak", "perspective"):
        raise ValueError(f"Camera {camera!r} is unknown. Choose 'weak' or 'perspective'.")
    texels = _texels(size, supersample, view)
    step = max(1, TEXELS // texels**2)
    batches, people = [], {}
    for first in range(0, len(subjects), step):
        pairs = list(zip(subjects, pictures, strict=True))[first : first + step]
        people = {k: people.get(k) or _Person.make(synth, k, texels) for k in dict(pairs)}
        scenes = [_Scene.draw(synth, people[k], j, size, np.radians(yaw_limit), expressive) for k, j in pairs]
        batches.append(_expose(synth, scenes, texels, size, camera, supersample, noise, view))
    return concatenate(batches)


def _texels(size: tuple[int, int], supersample: int, view: float) -> int:
    """Return the side of the texture whose texels are about as large as the pixels."""
    pixels_per_mm = min(size) * supersample / (view + 30.0)
    halvings = np.clip(np.rint(np.log2(atlas.FACE / pixels_per_mm)), 0, 3)
    return int(atlas.SIZE / 2**halvings)


@dataclass(frozen=True)
class _Person:
    """What all pictures of a subject share."""

    subject: Subject
    bare: np.ndarray  # texture without hair, beard and make-up
    styles: list[str]  # of hair

    @classmethod
    def make(cls, synth: SynthFace, index: int, texels: int) -> "_Person":
        subject = synth.subject(index)
        styles = hair.choose(subject.traits, subject.look.recession, synth.generator(index, HAIR))
        return cls(subject, skin.paint(subject.look, texels), styles)


@dataclass(frozen=True)
class _Scene:
    """Everything random about one picture."""

    person: _Person
    picture: int
    expression: Tensor
    angles: Tensor
    framing: np.ndarray  # (4,) size in the frame, shift (u, v), distance; in [0, 1)
    light: Tensor
    background: Tensor  # (height, width, 3)
    grain: np.ndarray  # (height, width, 3) standard normal
    styling: skin.Styling
    style: str  # of hair
    mirrored: bool

    @classmethod
    def draw(cls, synth, person: _Person, picture: int, size, yaw_limit: float, expressive: bool) -> "_Scene":
        index = person.subject.index
        if picture < 0:
            raise ValueError(f"Pictures are numbered from 0, got picture {picture} of subject {index}.")
        sequence = np.random.SeedSequence([synth.seed, index, PICTURE, picture])
        # A generator for each matter, so that none depends on how many numbers another took.
        mood, pose, frame, lamp, wall, grain, styling = (
            np.random.Generator(np.random.PCG64(s)) for s in sequence.spawn(7)
        )
        yaw = yaw_limit * (2 * pose.random() - 1)
        pitch, roll = np.radians(np.clip(pose.normal(size=2), -2.5, 2.5) * (9.0, 7.0))
        return cls(
            person=person,
            picture=picture,
            expression=_draw_expression(mood, synth.expression_names) * float(expressive),
            angles=torch.tensor([yaw, pitch, roll], dtype=torch.float32),
            framing=frame.random(4),
            light=_draw_light(lamp),
            background=_draw_background(wall, size),
            grain=grain.standard_normal((*size, 3)),
            style=person.styles[styling.integers(len(person.styles))],
            mirrored=bool(styling.random() < 0.3),
            styling=skin.Styling.draw(person.subject.look, styling),
        )

    def dressed(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return texture, vertices of hair and shirt in mm (NaN: none) and their brightness."""
        person, look = self.person, self.person.subject.look
        texture = skin.dress(person.bare, look, self.styling)
        if self.style != "bald":
            skin.shade_scalp(texture, look, 0.6 if self.style == "buzz" else 0.92, self.style == "ring")
        rows, columns = atlas.tile(atlas.CLOTH, len(texture))
        texture[rows, columns] = self.styling.cloth
        tile, bright = hair.strand_tile(len(texture))
        texture[tile] = look.hair * bright[..., None]
        growth = hair.grow(self.style, self.mirrored, coarse=min(self.background.shape[:2]) < COARSE)
        return texture, hair.follow(growth, person.subject.neutral.numpy()), growth.tint


def _draw_expression(generator: np.random.Generator, names: tuple[str, ...]) -> Tensor:
    value = dict.fromkeys(names, 0.0)
    if generator.random() < 0.75:
        strength = 0.3 + 0.7 * generator.random()
        for pattern, full in MOODS[generator.integers(len(MOODS))].items():
            for side in ("Left", "Right") if "*" in pattern else ("",):
                value[pattern.replace("*", side)] += strength * full
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
    colours = (grey + 0.2 * (generator.random((2, 3)) - 0.5)) * (0.35 + 0.6 * generator.random())
    v, u = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")
    turn = 2 * np.pi * generator.random()
    blend = 0.5 + 0.6 * ((u - 0.5) * np.cos(turn) + (v - 0.5) * np.sin(turn))
    image = colours[0] + blend[..., None] * (colours[1] - colours[0])
    for cells in (3, 7, 17):
        coarse = torch.from_numpy(generator.normal(size=(1, 3, cells, cells)).astype(np.float32))
        fine = functional.interpolate(coarse, size=size, mode="bicubic", align_corners=False)[0]
        tint = fine.permute(1, 2, 0).numpy()
        image = image + (0.03 * tint + 0.14 * tint.mean(-1, keepdims=True)) / np.sqrt(cells)
    for _ in range(generator.integers(0, 5)):
        centre, radius = generator.random(2), 0.05 + 0.2 * generator.random()
        inside = 1 / (1 + np.exp((np.hypot(u - centre[0], v - centre[1]) - radius) * 60))
        blob = generator.random() + 0.35 * (generator.random(3) - 0.5)
        image = image + 0.6 * inside[..., None] * (blob - image)
    return torch.from_numpy(np.clip(image, 0.0, 1.0).astype(np.float32))


def _place_camera(scenes, landmarks, rotation, size, kind, view) -> Camera:
    """Place each face near the middle of the image; at a view of 185 mm it is about 60 % of the image high."""
    framing = torch.from_numpy(np.stack([s.framing for s in scenes]).astype(np.float32))
    scale = min(size) / (view + 60.0 * framing[:, 0])  # pixels per mm
    middle = (landmarks @ rotation.transpose(1, 2)).mean(1)  # camera axes, mm
    shift = (framing[:, 1:3] - 0.5) * 0.12 * min(size)
    target = torch.tensor([size[1] / 2, size[0] * 0.52]) + shift
    at = target + torch.stack([-middle[:, 0], middle[:, 1]], -1) * scale[:, None]
    if kind == "weak":
        return WeakPerspective(rotation, scale, at)
    distance = 350.0 + 1150.0 * framing[:, 3] ** 2
    position = torch.stack([-middle[:, 0], -middle[:, 1], -distance - middle[:, 2]], -1)
    return Perspective(rotation, position, scale * distance, target)


def _enlarge(camera: Camera, factor: int) -> Camera:
    """The same camera for an image `factor` times as large."""
    if camera.is_perspective:
        return replace(camera, focal=camera.focal * factor, principal=camera.principal * factor)
    return replace(camera, scale=camera.scale * factor, translation=camera.translation * factor)


def _expose(synth, scenes: list[_Scene], texels: int, size, kind: str, supersample: int, noise: float, view):
    """Return the pictures of some scenes: heads over their backgrounds, with grain, clamped to what a sensor holds."""
    rows = [(s.person.subject, s.expression[None]) for s in scenes]
    shape = torch.cat([synth.shape(*row) for row in rows])  # one by one: the same in any batch
    neutral = torch.stack([s.person.subject.neutral for s in scenes])
    angles, light = torch.stack([s.angles for s in scenes]), torch.stack([s.light for s in scenes])
    camera = _place_camera(scenes, synth.landmarks.of(neutral), euler_to_matrix(angles), size, kind, view)
    images, strands, tints = (np.stack(values) for values in zip(*(s.dressed() for s in scenes), strict=True))
    tint = torch.cat([torch.ones(shape.shape[:2]), torch.from_numpy(tints)], 1)[..., None].expand(-1, -1, 3)
    hair_triangles, hair_uv = (torch.from_numpy(array) for array in hair.topology())
    triangles = torch.cat([synth.triangles, hair_triangles + shape.shape[1]])
    texture = Texture(
        image=torch.from_numpy(images),
        uv=torch.cat([synth.uv, hair_uv]),
        triangles=torch.cat([synth.uv_triangles, hair_triangles + len(synth.uv)]),
        tint=tint,
        relief=torch.cat([wrinkles.displacement(synth, *row, min(texels, atlas.SIZE // 2)) for row in rows]),
    )
    whole = torch.cat([shape, torch.from_numpy(strands)], 1)
    points = synth.landmarks.of(shape)
    normals = synth.landmarks.of(vertex_normals(shape, synth.triangles))
    normals[:, 36:] = camera.rotation[:, 2:]  # eyes and lips lie on rolled-in rims, whose normals say nothing
    large = (size[0] * supersample, size[1] * supersample)
    fine = render(whole, triangles, texture, _enlarge(camera, supersample), large, light)
    exact = fine if supersample == 1 else render(whole, triangles, torch.zeros_like(whole), camera, size)
    shirt = len(synth.triangles) + hair.count_hair()  # the first of its triangles
    covering = triangles[:shirt]  # the shirt hides no landmark
    return Photographs(
        image=_develop(fine, scenes, supersample, noise),
        landmarks=camera.project(points)[..., :2],
        visible=visibility(whole[:, : covering.max() + 1], covering, camera, points, normals, size),
        subject=torch.tensor([s.person.subject.index for s in scenes]),
        picture=torch.tensor([s.picture for s in scenes]),
        shape=shape,
        neutral=neutral,
        expression=torch.stack([s.expression for s in scenes]),
        angles=angles,
        camera=camera,
        light=light,
        depth=exact.depth,
        normals=exact.normals,
        mask=exact.mask & (exact.fragments.triangle < shirt),
        hair=(exact.fragments.triangle >= len(synth.triangles)) & (exact.fragments.triangle < shirt),
    )


def _develop(fine: Rendering, scenes: list[_Scene], supersample: int, noise: float) -> Tensor:
    """Return the images: the rendering averaged, over its background, with grain."""
    both = torch.cat([fine.image, fine.mask[..., None].float()], -1).permute(0, 3, 1, 2)
    both = functional.avg_pool2d(both, supersample).permute(0, 2, 3, 1)
    background = torch.stack([s.background for s in scenes])
    grain = torch.from_numpy(np.stack([s.grain for s in scenes]).astype(np.float32))
    return (both[..., :3] + (1 - both[..., 3:]) * background + noise * grain).clamp(0.0, 1.0)


def concatenate(batches: list[Photographs]) -> Photographs:
    """Several batches as one; raises ValueError if their cameras are of different kinds."""
    if len({type(p.camera) for p in batches}) != 1:
        raise ValueError("batches of different cameras (or none at all) cannot become one")
    joined = {
        f.name: torch.cat([getattr(p, f.name) for p in batches]) for f in fields(Photographs) if f.name != "camera"
    }
    kind = type(batches[0].camera)
    camera = kind(*(torch.cat([getattr(p.camera, f.name) for p in batches]) for f in fields(kind)))
    return Photographs(camera=camera, **joined)
