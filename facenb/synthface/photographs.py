"""Photographs of SynthFace's people with everything known: shape, expression, pose, camera, light, landmarks, depth.

Picture j of subject k of seed s is always the same. It has its own random generator, and pictures are computed one
person at a time. Hair, beard and make-up vary between the pictures of a person.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from facenb.imaging.camera import Camera, Perspective, WeakPerspective, euler_to_matrix
from facenb.imaging.lighting import ambient, directional
from facenb.imaging.raster import interpolate, rasterize
from facenb.imaging.render import Rendering, render, vertex_normals, visibility
from facenb.imaging.texture import Texture
from facenb.synthface import atlas, hair, skin, wrinkles
from facenb.synthface.expressions import sides
from facenb.synthface.heads import landmarks
from facenb.synthface.people import SynthFace

HAIR, PICTURE = 11, 100  # streams of a subject's random numbers
TEXELS = 1 << 24  # most texels of all textures in memory at once
NOISE = 0.01  # standard deviation of the sensor noise
COARSE = 80  # pixels: smaller pictures have hair of fewer ribbons
TOGETHER = 64  # pictures whose depth is drawn at once
# Full strength; "*": both sides. A picture may use one of them at random strength, and uses two single actions.
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
    """Pictures and their exact ground truth. Vertices are the true ones, outside the span of any linear model.

    Depth, normals, masks and visibility are computed at first access, since training sets do not need them.
    """

    image: Float[Tensor, "batch height width 3"]  # linear RGB in [0, 1]
    landmarks: Float[Tensor, "batch 68 2"]  # pixels
    subject: Int[Tensor, " batch"]
    shape: Float[Tensor, "batch vertices 3"]  # mm, with expression; without hair
    neutral: Float[Tensor, "batch vertices 3"]  # mm, the same person at rest
    expression: Float[Tensor, "batch expressions"]  # in [0, 1], in the order of SynthFace.expression_names
    angles: Float[Tensor, "batch 3"]  # yaw, pitch, roll in radians
    camera: Camera
    light: Float[Tensor, "batch 9 3"]
    hairstyle: Int[Tensor, " batch"]  # `code` of hair.grow
    bare: Bool[Tensor, "batch height width"]  # pixels that show nothing but the head, without hair

    def __len__(self) -> int:
        return len(self.image)

    @property
    def depth(self) -> Float[Tensor, "batch height width"]:
        """Return the distance along the viewing direction in mm, inf at the background."""
        return self._seen[0]

    @property
    def normals(self) -> Float[Tensor, "batch height width 3"]:
        """Return unit normals on the camera's axes, 0 at the background."""
        return self._seen[1]

    @property
    def mask(self) -> Bool[Tensor, "batch height width"]:
        """Return the pixels that show head or hair. Depth and normals also include the shirt."""
        return (self._seen[2] >= 0) & (self._seen[2] < hair.mesh().shirt)

    @property
    def hair(self) -> Bool[Tensor, "batch height width"]:
        """Return the part of the mask that is hair."""
        return self.mask & (self._seen[2] >= hair.mesh().hair)

    @property
    def visible(self) -> Bool[Tensor, "batch 68"]:
        """Return which landmarks are on the image, not hidden by head or hair."""
        return self._seen[3]

    @cached_property
    def _seen(self) -> tuple[Tensor, ...]:
        """Return depth, normals and triangle (-1: none) at each pixel's centre, and which landmarks are visible."""
        mesh, marks, size, seen = hair.mesh(), landmarks(), tuple(self.image.shape[1:3]), []
        covering = mesh.triangles[: mesh.shirt]  # the shirt hides no landmark
        for rows in torch.arange(len(self)).split(TOGETHER):
            grown = [
                torch.from_numpy(_grown(code, size, neutral)[0])
                for code, neutral in zip(self.hairstyle[rows].tolist(), self.neutral[rows], strict=True)
            ]
            shape, whole = self.shape[rows], torch.cat([self.shape[rows], torch.stack(grown)], 1)
            camera = type(self.camera)(*(value[rows] for value in vars(self.camera).values()))
            fragments = rasterize(camera.project(whole), mesh.triangles, size, camera.is_perspective)
            normals = vertex_normals(whole, mesh.triangles) @ camera.rotation.transpose(1, 2)
            normals = functional.normalize(interpolate(fragments, normals, mesh.triangles), dim=-1)
            facing = marks.of(vertex_normals(shape, mesh.triangles[: mesh.hair]))
            facing[:, 36:] = camera.rotation[:, 2:]  # rims of eyes and lips roll inwards: their normals are no guide
            obstacles = whole[:, : covering.max() + 1]
            visible = visibility(obstacles, covering, camera, marks.of(shape), facing, size)
            seen.append((fragments.depth, normals, fragments.triangle, visible))
        return tuple(torch.cat(values) for values in zip(*seen, strict=True))


def photograph(
    synth: SynthFace,
    subjects: list[int],
    pictures: list[int],
    size: tuple[int, int] = (112, 112),
    yaw_limit: float | int = 90.0,
    camera: str = "weak",
    expressive: bool = True,
    supersample: int = 2,
    noise: float = NOISE,
    view: float | int = 185.0,
    looks: Mapping[int, int] | None = None,
) -> Photographs:
    """Return picture `pictures[i]` of subject `subjects[i]`, for every i, at `size` (height, width).

    `yaw_limit` in degrees; `camera` "weak" or "perspective" (0.35 to 1.5 m away); `expressive=False` keeps faces
    neutral; `supersample` is how many times larger the image is rendered before averaging, against jagged edges.
    `noise` is the standard deviation of the sensor noise. The shorter side of an image spans `view` to `view` + 60 mm.
    `looks` maps a subject to the subject whose skin and hair it gets, for experiments; the shape stays its own.
    Raise ValueError for lists of different lengths, no pictures, or an unknown camera.
    """
    if len(subjects) != len(pictures) or not subjects or min(pictures) < 0:
        raise ValueError(f"Expected a picture (0, 1, ...) for each subject, at least one; got {subjects}, {pictures}.")
    if camera not in ("weak", "perspective"):
        raise ValueError(f"Camera {camera!r} is unknown. Choose 'weak' or 'perspective'.")
    texels = _texels(size, supersample, view)
    step = max(1, TEXELS // texels**2)
    batches, people = [], {}
    for first in range(0, len(subjects), step):
        pairs = list(zip(subjects, pictures, strict=True))[first : first + step]
        people = {k: people.get(k) or _Person(synth, k, texels, (looks or {}).get(k, k)) for k in dict(pairs)}
        scenes = [_Scene(synth, people[k], j, size, np.radians(yaw_limit), expressive) for k, j in pairs]
        batches.append(_expose(synth, scenes, texels, size, camera, supersample, noise, view))
    return concatenate(batches)


def _texels(size: tuple[int, int], supersample: int, view: float) -> int:
    """Return the side of a texture whose texels are about as large as the pixels of the enlarged image."""
    pixels_per_mm = min(size) * supersample / (view + 30.0)
    halvings = np.clip(np.rint(np.log2(atlas.FACE / pixels_per_mm)), 0, 3)
    return int(atlas.SIZE / 2**halvings)


class _Person:
    """Data that all pictures of a subject have in common."""

    def __init__(self, synth: SynthFace, index: int, texels: int, like: int):
        own = synth.subject(index)
        other = own if like == index else synth.subject(like)  # whose skin and hair it has
        self.subject = replace(own, look=other.look)
        self.bare = skin.paint(other.look, texels)  # texture without hair, beard and make-up
        self.hairstyles = hair.choose(other.traits, other.look.recession, synth.generator(like, HAIR))


class _Scene:
    """Everything random about one picture."""

    def __init__(self, synth: SynthFace, person: _Person, picture: int, size, yaw_limit: float, expressive: bool):
        # One generator per property, so that none depends on how many numbers another has drawn.
        generators = synth.generator(person.subject.index, PICTURE, picture).spawn(7)
        mood, pose, frame, lamp, wall, grain, styling = generators
        self.person, self.size = person, size
        self.expression = _draw_expression(mood, synth.expression_names) * float(expressive)
        yaw = yaw_limit * (2 * pose.random() - 1)
        pitch, roll = np.radians(np.clip(pose.normal(size=2), -2.5, 2.5) * (9.0, 7.0))
        self.angles = torch.tensor([yaw, pitch, roll], dtype=torch.float32)
        self.framing = frame.random(4)  # size in the frame, shift (u, v), distance; in [0, 1)
        self.light, self.background = _draw_light(lamp), _draw_background(wall, size)
        self.grain = grain.standard_normal((*size, 3))
        style = hair.STYLES.index(person.hairstyles[styling.integers(len(person.hairstyles))])
        self.hairstyle = style + len(hair.STYLES) * int(styling.random() < 0.3)
        self.styling = skin.Styling.draw(person.subject.look, styling)

    def dressed(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return texture, vertices of hair and shirt in mm (NaN: none) and their brightness."""
        person, look = self.person, self.person.subject.look
        style = hair.STYLES[self.hairstyle % len(hair.STYLES)]
        texture = skin.dress(person.bare, look, self.styling, style)
        tile, bright = hair.strand_tile(len(texture))
        texture[tile] = look.hair * bright[..., None]
        return texture, *_grown(self.hairstyle, self.size, person.subject.neutral)


def _grown(code: int, size: tuple[int, int], neutral: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return the vertices of hair and shirt in mm (NaN: none) on a neutral head, and their brightness."""
    growth = hair.grow(code, min(size) < COARSE)
    return hair.follow(growth, neutral.numpy()), growth.tint


def _draw_expression(generator: np.random.Generator, names: tuple[str, ...]) -> Tensor:
    value = dict.fromkeys(names, 0.0)
    if generator.random() < 0.75:
        strength = 0.3 + 0.7 * generator.random()
        for pattern, full in MOODS[generator.integers(len(MOODS))].items():
            for name, _ in sides(pattern):
                value[name] += strength * full
    for name in generator.choice(names, 2, replace=False):
        value[name] += 0.5 * generator.random() ** 2
    return torch.tensor([min(value[name], 1.0) for name in names], dtype=torch.float32)


def _draw_light(generator: np.random.Generator) -> Tensor:
    """Return ambient light, a key light from above in front, and a weaker side light; in sum about 1 on the face."""
    warm = np.array([1.0, 0.0, -1.0])
    ambience = (0.30 + 0.40 * generator.random()) * (1 + 0.06 * generator.normal() * warm)
    directions, colours = np.zeros((2, 2, 3), np.float32)
    for k, (strength, spread) in enumerate(((0.95, 0.9), (0.35, 1.6))):
        directions[k] = spread * generator.normal(), 0.35 + 0.4 * generator.normal(), 1.0
        colours[k] = strength * (0.6 + 0.4 * generator.random()) * (1 + 0.07 * generator.normal() * warm)
    lamps = directional(torch.from_numpy(directions), torch.from_numpy(colours))
    return 0.82 * (ambient(torch.tensor(ambience[None], dtype=torch.float32))[0] + lamps[0] + lamps[1])


@cache
def _enlarging(cells: int, pixels: int) -> np.ndarray:
    """Return the matrix (pixels, cells) of bicubic interpolation along one side."""
    return functional.interpolate(torch.eye(cells)[None, None], (pixels, cells), mode="bicubic")[0, 0].numpy()


def _draw_background(generator: np.random.Generator, size: tuple[int, int]) -> Tensor:
    """Return a blurred wall: two colours blended by a gradient, with noise of three scales and some blobs."""
    height, width = size
    grey = generator.random((2, 1))
    colours = (grey + 0.2 * (generator.random((2, 3)) - 0.5)) * (0.35 + 0.6 * generator.random())
    colours = colours.astype(np.float32)[..., None, None]
    v = ((np.arange(height, dtype=np.float32) + 0.5) / height)[:, None]
    u = (np.arange(width, dtype=np.float32) + 0.5) / width
    turn = 2 * np.pi * generator.random()
    blend = 0.5 + 0.6 * ((u - 0.5) * float(np.cos(turn)) + (v - 0.5) * float(np.sin(turn)))
    image = colours[0] + blend * (colours[1] - colours[0])
    for cells in (3, 7, 17):
        tint = generator.normal(size=(3, cells, cells)).astype(np.float32)
        tint = (0.03 * tint + 0.14 * tint.mean(0)) / float(np.sqrt(cells))
        image += _enlarging(cells, height) @ tint @ _enlarging(cells, width).T
    for _ in range(generator.integers(0, 5)):
        centre, radius = generator.random(2).astype(np.float32), float(0.05 + 0.2 * generator.random())
        inside = 0.6 / (1 + np.exp((np.hypot(u - centre[0], v - centre[1]) - radius) * 60))
        blob = generator.random() + 0.35 * (generator.random(3) - 0.5)
        image += inside * (blob.astype(np.float32)[:, None, None] - image)
    return torch.from_numpy(np.ascontiguousarray(image.clip(0.0, 1.0).transpose(1, 2, 0)))


def _place_camera(scenes, landmarks, rotation, size, kind, view, factor: int = 1) -> Camera:
    """Place faces near the middle of an image `factor` times `size`: about 60 % of it high at a view of 185 mm."""
    framing = torch.from_numpy(np.stack([s.framing for s in scenes]).astype(np.float32))
    scale = min(size) / (view + 60.0 * framing[:, 0])  # pixels per mm
    middle = (landmarks @ rotation.transpose(1, 2)).mean(1)  # camera axes, mm
    shift = (framing[:, 1:3] - 0.5) * 0.12 * min(size)
    target = torch.tensor([size[1] / 2, size[0] * 0.52]) + shift
    at = target + torch.stack([-middle[:, 0], middle[:, 1]], -1) * scale[:, None]
    if kind == "weak":
        return WeakPerspective(rotation, scale * factor, at * factor)
    distance = 350.0 + 1150.0 * framing[:, 3] ** 2
    position = torch.stack([-middle[:, 0], -middle[:, 1], -distance - middle[:, 2]], -1)
    return Perspective(rotation, position, scale * distance * factor, target * factor)


def _expose(synth, scenes: list[_Scene], texels: int, size, kind: str, supersample: int, noise: float, view):
    """Return the pictures of some scenes: heads over their backgrounds, with grain, clamped to [0, 1]."""
    rows = [(s.person.subject, s.expression[None]) for s in scenes]
    shape = torch.cat([synth.shape(*row) for row in rows])  # one by one, so that the batch does not matter
    neutral = torch.stack([s.person.subject.neutral for s in scenes])
    drawn = {name: torch.stack([getattr(s, name) for s in scenes]) for name in ("expression", "angles", "light")}
    placing = scenes, synth.landmarks.of(neutral), euler_to_matrix(drawn["angles"]), size, kind, view
    camera = _place_camera(*placing)
    images, strands, tints = (torch.from_numpy(np.stack(x)) for x in zip(*(s.dressed() for s in scenes), strict=True))
    mesh = hair.mesh()
    texture = Texture(
        image=images,
        uv=mesh.uv,
        triangles=mesh.uv_triangles,
        tint=torch.cat([torch.ones(shape.shape[:2]), tints], 1)[..., None].expand(-1, -1, 3),
        relief=torch.cat([wrinkles.displacement(synth, *row, min(texels, atlas.SIZE // 2)) for row in rows]),
    )
    whole, large = torch.cat([shape, strands], 1), (size[0] * supersample, size[1] * supersample)
    fine = render(whole, mesh.triangles, texture, _place_camera(*placing, supersample), large, drawn["light"])
    return Photographs(
        image=_develop(fine, scenes, supersample, noise),
        landmarks=camera.project(synth.landmarks.of(shape))[..., :2],
        subject=torch.tensor([s.person.subject.index for s in scenes]),
        shape=shape,
        neutral=neutral,
        camera=camera,
        **drawn,
        hairstyle=torch.tensor([s.hairstyle for s in scenes]),
        bare=_bare(fine, supersample),
    )


def _bare(fine: Rendering, supersample: int) -> Tensor:
    """Return the pixels all of whose rendered pixels show the head."""
    triangle = fine.fragments.triangle
    other = (triangle < 0) | (triangle >= hair.mesh().hair)
    return functional.max_pool2d(other[:, None].float(), supersample)[:, 0] == 0


def _develop(fine: Rendering, scenes: list[_Scene], supersample: int, noise: float) -> Tensor:
    """Return the images: the rendering averaged, over its background, with grain."""
    image, cover = fine.image, fine.mask[..., None].float()
    if supersample > 1:
        planes = (x.permute(0, 3, 1, 2) for x in (image, cover))
        image, cover = (functional.avg_pool2d(x, supersample).permute(0, 2, 3, 1) for x in planes)
    background = torch.stack([s.background for s in scenes])
    grain = torch.from_numpy(np.stack([s.grain for s in scenes]).astype(np.float32))
    return background.mul_(1 - cover).add_(image).add_(grain, alpha=noise).clamp_(0.0, 1.0)


def concatenate(batches: list[Photographs] | list[Camera]) -> Photographs | Camera:
    """Return several batches, or several cameras of the same kind, as one."""
    columns = [[getattr(batch, field.name) for batch in batches] for field in fields(batches[0])]
    return type(batches[0])(*(torch.cat(c) if isinstance(c[0], Tensor) else concatenate(c) for c in columns))
