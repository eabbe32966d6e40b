"""The texture of a face from a photo.

First we prepare a model's mesh: close the holes of eyes and mouth, compute each texel's position on the surface, and
pair left and right texels. Then each visible texel takes its colour from the photo. A hidden texel takes the colour of
its mirrored partner. If both are hidden, the texel gets a smooth skin colour.
"""

from dataclasses import dataclass

import igl
import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial import cKDTree
from torch import Tensor
from torch.nn import functional

from facenb.imaging.camera import WeakPerspective
from facenb.imaging.raster import rasterize
from facenb.imaging.render import vertex_normals, visibility
from facenb.imaging.texture import sample
from facenb.morphable.model import Embedding, MorphableModel

LONGEST_HOLE = 250.0  # mm, perimeter: those of eyes and mouth are shorter, that of the neck's end is longer
EYE_RADIUS = 12.0  # mm within which the centre of a hole must lie from an eye's landmarks
EYE_BULGE = 2.5  # mm by which an eyeball stands out over the plane of its lids
FIRST_TILE = 0.84  # share of the texture's width for the face's own UV tile, if there are other tiles
FAR = 1.3  # texels with at least this reach (see `_reach`) take no colour from the photo
PAIR_DISTANCE = 3.0  # mm, the largest distance between a texel and its mirrored partner
STEEP, FLAT = 0.15, 0.5  # cosine to the camera: the weight is 0 below the first and 1 above the second
EDGE = (1.0, 1.12)  # reach in which the photo's weight falls to 0; from there to FAR, colours blend into skin
CHEEKS = 0.6  # within this reach, most of the visible surface is skin


@dataclass(frozen=True)
class Surface:
    """Triangles and UV of the closed mesh, and for each hole its loop of vertices and the bulge (mm) of its cap."""

    triangles: Int[Tensor, "triangles 3"]
    uv: Float[Tensor, "texels 2"]
    uv_triangles: Int[Tensor, "triangles 3"]
    holes: tuple[tuple[Int[Tensor, "..."], float], ...]

    def complete(self, vertices: Float[Tensor, "vertices 3"]) -> Float[Tensor, "closed 3"]:
        """Return the model's vertices, followed by the vertices of the caps: per hole a middle ring and a centre."""
        return torch.cat([vertices, *(_cap(vertices[loop], bulge) for loop, bulge in self.holes)])


def _cap(loop: Tensor, bulge: float) -> Tensor:
    """Return middle ring and centre of a cap over a loop (n, 3), raised along the loop's normal."""
    centre = loop.mean(0)
    normal = functional.normalize(torch.linalg.cross(loop - centre, loop.roll(-1, 0) - centre).sum(0), dim=0)
    ring = 0.5 * (loop + centre) + 0.75 * bulge * normal
    return torch.cat([ring, (centre + bulge * normal)[None]])


def close(model: MorphableModel) -> Surface:
    """Return the model's triangles and UV with the holes of eyes and mouth closed. Raises ValueError without UV."""
    if model.uv is None:
        raise ValueError(f"{model.name} has no UV, so it takes no texture; choose a model with UV, such as ICT-FaceKit")
    mean, triangles = model.mean.cpu(), model.triangles.cpu().long()
    uv_triangles = triangles if model.uv_triangles is None else model.uv_triangles.cpu().long()
    uv, faces, uv_faces, holes = [_one_tile(model.uv.cpu())], [triangles], [uv_triangles], []
    uv_of = dict(zip(triangles.ravel().tolist(), uv_triangles.ravel().tolist(), strict=True))
    eyes = model.landmarks.of(mean)[36:48].unflatten(0, (2, 6)).mean(1)
    for loop in igl.boundary_loop_all(triangles.numpy()):
        loop = loop[::-1]  # in the direction of a triangle that fills the hole
        rim = mean[loop]
        if (rim - rim.roll(1, 0)).norm(dim=1).sum() > LONGEST_HOLE:
            continue
        is_eye = bool((eyes - rim.mean(0)).norm(dim=1).min() < EYE_RADIUS)
        holes.append((torch.tensor(loop), EYE_BULGE if is_eye else 0.0))
        uv_loop = [uv_of[vertex] for vertex in loop]
        flat = uv[0][uv_loop]
        added = sum(map(len, uv[1:]))
        faces.append(_fan(loop, len(mean) + added))
        uv_faces.append(_fan(uv_loop, len(uv[0]) + added))
        uv.append(torch.cat([0.5 * (flat + flat.mean(0)), flat.mean(0)[None]]))
    return Surface(torch.cat(faces), torch.cat(uv), torch.cat(uv_faces), tuple(holes))


def _one_tile(uv: Tensor) -> Tensor:
    """Pack UV on several tiles (u > 1: ears, scalp and neck of ICT-FaceKit) into one. The first tile is the largest."""
    tile = uv[:, 0].clamp(min=0).ceil().clamp(min=1).long() - 1
    others = int(tile.max())
    if others == 0:
        return uv
    u, v = uv[:, 0] - tile, uv[:, 1]
    beside = torch.stack([FIRST_TILE + (1 - FIRST_TILE) * u, (tile - 1 + v) / others], 1)
    return torch.where((tile == 0)[:, None], torch.stack([FIRST_TILE * u, v], 1), beside)


def _fan(loop: list[int], first: int) -> Tensor:
    """Return the triangles of a cap. The vertices of its ring have numbers from `first`; then comes its centre."""
    outer, ring = torch.tensor(loop), first + torch.arange(len(loop))
    after, ring_after, centre = outer.roll(-1), ring.roll(-1), torch.full_like(ring, first + len(loop))
    corners = [(outer, after, ring_after), (outer, ring_after, ring), (ring, ring_after, centre)]
    return torch.cat([torch.stack(triangle, 1) for triangle in corners])


@dataclass(frozen=True)
class Texels:
    """Where the face's texels of a square texture lie on the closed surface; row 0 of the texture is v = 1."""

    side: int
    index: Int[Tensor, " used"]  # in the flattened texture
    embedding: Embedding  # on the closed surface
    partner: Int[Tensor, " used"]  # the texel at the mirrored position on the mean face; -1: none is near enough
    reach: Float[Tensor, " used"]  # 0 in the middle of the face, 1 at its outline, up to FAR
    far: Int[Tensor, " others"]  # texels of ears, scalp and neck, in the flattened texture


def lay_out(surface: Surface, model: MorphableModel, side: int) -> Texels:
    """Return the texels of a `side` x `side` texture on the closed surface (computed once for a model)."""
    flat = surface.uv * torch.tensor([side, -side]) + torch.tensor([0.0, side])
    flat = torch.cat([flat, torch.zeros(len(flat), 1)], 1)[None]
    fragments = rasterize(flat, surface.uv_triangles, (side, side))
    used = (fragments.triangle[0].ravel() >= 0).nonzero()[:, 0]
    corners = surface.triangles[fragments.triangle[0].ravel()[used]]
    weights = fragments.barycentric[0].reshape(-1, 3)[used]
    mean = surface.complete(model.mean.cpu())
    reach = Embedding(corners, weights).of(_reach(model, mean)[:, None])[:, 0]
    near = reach < FAR
    embedding = Embedding(corners[near], weights[near])
    points = embedding.of(mean).numpy()
    distance, partner = cKDTree(points).query(points * [-1, 1, 1], workers=-1, distance_upper_bound=PAIR_DISTANCE)
    partner = torch.from_numpy(np.where(np.isfinite(distance), partner, -1).astype(np.int64))
    return Texels(side, used[near], embedding, partner, reach[near], used[~near])


def _reach(model: MorphableModel, closed: Tensor) -> Tensor:
    """Return how far out a vertex lies: 0 in the middle of the face, 1 at its outline, more on ears, scalp and neck."""
    marks = model.landmarks.of(model.mean.cpu())
    brow, chin = marks[17:27, 1].max(), marks[8, 1]
    top = brow + 0.32 * (brow - chin)  # the hairline, about a third of brow to chin above the brows
    middle = torch.stack([marks[:, 0].amin() + marks[:, 0].amax(), chin + top]) / 2
    radius = torch.stack([marks[:, 0].amax() - marks[:, 0].amin(), top - chin]) / 2
    x, y = ((closed[:, :2] - middle) / radius).abs().unbind(1)
    power = torch.where(closed[:, 1] > middle[1], 2.5, 2.0)  # foreheads are squarer than chins
    behind = (marks[[0, 16], 2].min() - 10 - closed[:, 2]).clamp(min=0) / 10
    return (x**power + y**power) ** (1 / power) + behind


def project_photo(
    image: Float[Tensor, "height width 3"],
    vertices: Float[Tensor, "closed 3"],
    camera: WeakPerspective,
    surface: Surface,
    texels: Texels,
) -> Float[Tensor, "side side 3"]:
    """Return the texture of a fitted face, whose closed mesh has `vertices` (mm); row 0 of the texture is v = 1.

    The weight of a texel is a product of two factors. One grows with its cosine to the camera (0 if it is hidden). The
    other falls with its reach. Where the weight is low, the colour comes from the texel at the mirrored position, and
    then from the surrounding texels.
    """
    size = (image.shape[0], image.shape[1])
    normals = vertex_normals(vertices[None], surface.triangles)
    seen = visibility(vertices[None], surface.triangles, camera, vertices[None], normals, size)[0]
    cosine = (normals[0] @ camera.rotation[0].mT)[:, 2]
    trust = seen * ((cosine - STEEP) / (FLAT - STEEP)).clamp(0, 1)
    pixels = camera.project(vertices[None])[0, :, :2]
    at_texels = texels.embedding.of(torch.cat([pixels, trust[:, None]], 1))
    weight = at_texels[:, 2] * ((EDGE[1] - texels.reach) / (EDGE[1] - EDGE[0])).clamp(0, 1)
    uv = torch.tensor([0.0, 1.0]) + at_texels[:, :2] * torch.tensor([1 / size[1], -1 / size[0]])
    colour = sample(image[None], uv[None, None])[0, 0]
    cheeks = (texels.reach < CHEEKS) & (weight > 0.9)
    skin = colour[cheeks].median(0).values if cheeks.any() else colour.mean(0)
    paired = texels.partner.clamp(min=0)
    mirrored = torch.where(texels.partner >= 0, weight[paired], 0) * (1 - weight)
    total = (weight + mirrored).clamp(min=1e-6)[:, None]
    colour = (weight[:, None] * colour + mirrored[:, None] * colour[paired]) / total
    texture, weights = torch.zeros(texels.side**2, 3), torch.zeros(texels.side**2)
    texture[texels.index], weights[texels.index] = colour, (weight + mirrored).clamp(max=1)
    texture[texels.far], weights[texels.far] = skin, 1
    square = (texels.side, texels.side)
    return fill(texture.unflatten(0, square), weights.unflatten(0, square), skin)


def fill(
    colours: Float[Tensor, "rows columns 3"], weight: Float[Tensor, "rows columns"], background: Float[Tensor, " 3"]
) -> Float[Tensor, "rows columns 3"]:
    """Extend colours from texels of weight 1 to texels of weight 0. Far away, they approach `background`.

    A push-pull pyramid (Gortler et al. 1996).
    """
    levels = [torch.cat([colours * weight[..., None], weight[..., None]], -1).permute(2, 0, 1)[None]]
    while min(levels[-1].shape[2:]) > 1:
        levels.append(functional.avg_pool2d(levels[-1], 2, ceil_mode=True))
    value = background.view(1, 3, 1, 1).expand(1, 3, *levels[-1].shape[2:])
    for level in reversed(levels):
        value = functional.interpolate(value, size=level.shape[2:], mode="bilinear", align_corners=False)
        value = level[:, :3] + (1 - level[:, 3:].clamp(max=1)) * value  # colours of a level are weighted already
    return value[0].permute(1, 2, 0)


def vertex_colours(
    texture: Float[Tensor, "rows columns 3"], surface: Surface, vertices: int
) -> Float[Tensor, "closed 3"]:
    """Return the texture's colour at each of the closed mesh's `vertices`."""
    colours = torch.zeros(vertices, 3)
    at_uv = sample(texture[None], surface.uv[None, None])[0, 0]
    colours[surface.triangles.ravel()] = at_uv[surface.uv_triangles.ravel()]
    return colours
