"""Simulated scans of SynthFace's heads: finely sampled, noisy, with gaps, together with the true head.

A structured-light scanner sees the face from three directions. Each view gives a depth image with one sample per pixel.
Each point of the skin is sampled by the view that it faces most. If that view is blocked, as beside the nose, there is
a gap. Neighbouring samples of one view form triangles unless their depths differ too much. Steep skin and some spots
are lost. Each sample has noise along its viewing direction.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from facenb.imaging.camera import WeakPerspective, euler_to_matrix
from facenb.imaging.raster import interpolate, rasterize
from facenb.imaging.render import vertex_normals
from facenb.morphable.mesh import Scan
from facenb.synthface.people import SynthFace

SCANNER = 200  # part of a subject's random numbers that its scans use
SIDES = (-40.0, 0.0, 40.0)  # yaw of the views, degrees
STEEP = 0.3  # cosine to the view below which skin is lost
JUMP = 4.0  # most depth difference within a triangle, in distances between samples
NOSE_TIP = 30


@dataclass(frozen=True)
class HeadScan:
    """A scan of a SynthFace head, and that head in the same coordinates."""

    scan: Scan  # mm, with the 68 landmarks exact
    head: Float[Tensor, "vertices 3"]  # the whole head, in the order of SynthFace's vertices


def scan_head(
    synth: SynthFace,
    subject: int,
    seed: int = 0,
    pitch: float | int = 0.8,
    noise: float | int = 0.15,
    holes: int = 6,
    radius: float | int = 110.0,
    expression: Float[Tensor, " expressions"] | None = None,
) -> HeadScan:
    """Return scan `seed` of a person, at rest or with an expression. It does not depend on other calls.

    `pitch` is the distance between samples, `noise` the standard deviation along the viewing direction, and `radius`
    the largest distance from the nose tip, all in mm. `holes` is the number of lost spots, 2 to 7 mm in radius. Apart
    from the noise, the vertices are exact.
    """
    of_holes, of_noise = synth.generator(subject, SCANNER, seed).spawn(2)
    rest = torch.zeros(len(synth.expression_names)) if expression is None else expression
    head = synth.shape(synth.subject(subject), rest[None])[0]
    landmarks = synth.landmarks.of(head)
    views = _views(head, synth.triangles, landmarks[NOSE_TIP], pitch, radius)
    every = torch.cat([surface[kept] for surface, _, kept in views])
    lost = [(every[of_holes.integers(len(every))], 2 + 5 * of_holes.random()) for _ in range(holes)]
    vertices, triangles, before = [], [], 0
    for surface, towards, kept in views:
        for middle, reach in lost:
            kept = kept & ((surface - middle).norm(dim=-1) > reach)
        index, faces = _join(kept, surface @ towards, JUMP * pitch)
        off = torch.from_numpy(of_noise.standard_normal(kept.shape).astype(np.float32))[..., None] * towards
        vertices.append((surface + noise * off).flatten(0, 1)[index])
        triangles.append(faces + before)
        before += len(index)
    return HeadScan(Scan(f"subject {subject}", torch.cat(vertices), torch.cat(triangles), "mm", landmarks), head)


def _views(head: Tensor, triangles: Tensor, nose: Tensor, pitch, radius) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return for each view the surface points (H, W, 3), the direction to the scanner, and which samples are kept."""
    angles = torch.zeros(len(SIDES), 3)
    angles[:, 0] = torch.deg2rad(torch.tensor(SIDES))
    rotation = euler_to_matrix(angles)
    towards = rotation[:, 2]  # the rows of a rotation are the camera's axes on the head's
    side = max(2, int(2.2 * radius / pitch))
    middle = rotation @ nose
    at = side / 2 + torch.stack([-middle[:, 0], middle[:, 1]], -1) / pitch
    camera = WeakPerspective(rotation, torch.full((len(SIDES),), 1 / pitch), at)
    seen = rasterize(camera.project(head[None]), triangles, (side, side))
    surface = torch.cat([head, vertex_normals(head[None], triangles)[0]], -1).expand(len(SIDES), -1, -1)
    exact, normals = interpolate(seen, surface, triangles).split(3, -1)
    facing = functional.normalize(normals, dim=-1) @ towards.T  # (S, H, W, S)
    here = facing[torch.arange(len(SIDES)), :, :, torch.arange(len(SIDES))]
    kept = (seen.triangle >= 0) & (here >= facing.amax(-1)) & (here > STEEP)
    kept &= (exact - nose).norm(dim=-1) <= radius
    return list(zip(exact, towards, kept, strict=True))


def _join(kept: Tensor, height: Tensor, jump: float) -> tuple[Tensor, Tensor]:
    """Return the indices of the samples that are in triangles, and the triangles, counter-clockwise for the scanner."""
    rows, columns = kept.shape
    index = torch.arange(rows * columns).view(rows, columns)
    a, b, c, d = (part.flatten() for part in (index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]))
    faces = torch.cat([torch.stack([a, c, b], 1), torch.stack([b, c, d], 1)])
    corners = height.flatten()[faces]
    whole = kept.flatten()[faces].all(1) & (corners.amax(1) - corners.amin(1) < jump)
    used, faces = faces[whole].unique(return_inverse=True)
    return used, faces
