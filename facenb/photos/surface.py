"""A model's mesh made ready for a texture: holes of eyes and mouth closed, texels placed, left and right paired."""

from dataclasses import dataclass

import igl
import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial import cKDTree
from torch import Tensor
from torch.nn import functional

from facenb.imaging.raster import rasterize
from facenb.morphable.model import MorphableModel

LONGEST_HOLE = 250.0  # mm around: eyes and mouth are below, the neck's end is above
EYE_BULGE = 2.5  # mm an eyeball stands out over the plane of its lids
FIRST_TILE = 0.84  # share of the texture's width that the face's own UV tile gets where there are others
FAR = 1.3  # reach (see `_reach`) from which on nothing is taken from the photo
PAIR_DISTANCE = 3.0  # mm within which a texel has a mirror partner


@dataclass(frozen=True)
class Surface:
    """Triangles and UV of the closed mesh; of each hole's loop of vertices it keeps how far its middle stands out."""

    triangles: Int[Tensor, "triangles 3"]
    uv: Float[Tensor, "texels 2"]
    uv_triangles: Int[Tensor, "triangles 3"]
    holes: tuple[tuple[Int[Tensor, "..."], float], ...]

    def complete(self, vertices: Float[Tensor, "vertices 3"]) -> Float[Tensor, "closed 3"]:
        """The model's vertices with those that close the holes behind them: a middle ring and a centre each."""
        return torch.cat([vertices, *(_cap(vertices[loop], bulge) for loop, bulge in self.holes)])


def _cap(loop: Tensor, bulge: float) -> Tensor:
    """Middle ring and centre of a cap over a loop (n, 3); it stands out along the loop's normal."""
    centre = loop.mean(0)
    after = loop.roll(-1, 0)
    normal = functional.normalize(torch.linalg.cross(loop - centre, after - centre).sum(0), dim=0)
    ring = 0.5 * (loop + centre) + 0.75 * bulge * normal
    return torch.cat([ring, (centre + bulge * normal)[None]])


def boundary_loops(triangles: Int[Tensor, "triangles 3"]) -> list[list[int]]:
    """Return the mesh's open edges as closed loops of vertices, in the direction that a filling triangle would have."""
    return [loop[::-1] for loop in igl.boundary_loop_all(triangles.numpy())]


def close(model: MorphableModel) -> Surface:
    """The model's triangles and UV with the holes of eyes and mouth closed. ValueError for a model without UV."""
    if model.uv is None:
        raise ValueError(
            f"{model.name} has no UV, so it takes no texture; choose a model that has, such as ICT-FaceKit"
        )
    mean, triangles = model.mean.cpu(), model.triangles.cpu().long()
    uv_triangles = triangles if model.uv_triangles is None else model.uv_triangles.cpu().long()
    uv, faces, uv_faces, holes = [_one_tile(model.uv.cpu())], [triangles], [uv_triangles], []
    uv_of = {
        vertex: texel for vertex, texel in zip(triangles.ravel().tolist(), uv_triangles.ravel().tolist(), strict=True)
    }
    eyes = model.landmarks.of(mean)[36:48].unflatten(0, (2, 6)).mean(1)
    next_vertex, next_uv = len(mean), len(uv[0])
    for loop in boundary_loops(triangles):
        place = mean[loop]
        if (place - place.roll(1, 0)).norm(dim=1).sum() > LONGEST_HOLE:
            continue
        is_eye = bool((eyes - place.mean(0)).norm(dim=1).min() < 12)
        rim = [uv_of[vertex] for vertex in loop]
        flat = uv[0][rim]
        count = len(loop)
        ring = list(range(next_vertex, next_vertex + count))
        uv_ring = list(range(next_uv, next_uv + count))
        faces.append(_fan(loop, ring, next_vertex + count))
        uv_faces.append(_fan(rim, uv_ring, next_uv + count))
        uv.append(torch.cat([0.5 * (flat + flat.mean(0)), flat.mean(0)[None]]))
        holes.append((torch.tensor(loop), EYE_BULGE if is_eye else 0.0))
        next_vertex, next_uv = next_vertex + count + 1, next_uv + count + 1
    return Surface(torch.cat(faces), torch.cat(uv), torch.cat(uv_faces), tuple(holes))


def _one_tile(uv: Tensor) -> Tensor:
    """UV on several tiles (u from 1 on: ears, scalp and neck of ICT-FaceKit) packed into one, the first kept large."""
    tile = uv[:, 0].clamp(min=0).ceil().clamp(min=1).long() - 1
    others = int(tile.max())
    if others == 0:
        return uv
    u, v = uv[:, 0] - tile, uv[:, 1]
    beside = torch.stack([FIRST_TILE + (1 - FIRST_TILE) * u, (tile - 1 + v) / others], 1)
    return torch.where((tile == 0)[:, None], torch.stack([FIRST_TILE * u, v], 1), beside)


def _fan(rim: list[int], ring: list[int], centre: int) -> Tensor:
    triangles = []
    for k in range(len(rim)):
        after = (k + 1) % len(rim)
        triangles += [(rim[k], rim[after], ring[after]), (rim[k], ring[after], ring[k]), (ring[k], ring[after], centre)]
    return torch.tensor(triangles)


@dataclass(frozen=True)
class Texels:
    """Where the face's texels of a square texture lie on the closed surface, row 0 at the top (v = 1)."""

    side: int
    index: Int[Tensor, " used"]  # of the flattened texture
    triangle: Int[Tensor, " used"]
    barycentric: Float[Tensor, "used 3"]
    partner: Int[Tensor, " used"]  # the texel at the mirrored place of the mean face; -1: none near enough
    reach: Float[Tensor, " used"]  # 0 in the middle of the face, 1 at its outline, up to FAR
    far: Int[Tensor, " others"]  # texels of ears, scalp and neck, of the flattened texture

    def at(self, values: Float[Tensor, "closed channels"], surface: Surface) -> Float[Tensor, "used channels"]:
        """Values of the vertices interpolated at the texels."""
        return (values[surface.triangles[self.triangle]] * self.barycentric[..., None]).sum(1)


def lay_out(surface: Surface, model: MorphableModel, side: int = 1024) -> Texels:
    """Place the texels of a `side` x `side` texture on the closed surface (done once for a model)."""
    flat = surface.uv * torch.tensor([side, -side]) + torch.tensor([0.0, side])
    corners = torch.cat([flat, torch.zeros(len(flat), 1)], 1)[None]
    fragments = rasterize(corners, surface.uv_triangles, (side, side))
    used = (fragments.triangle[0].ravel() >= 0).nonzero()[:, 0]
    triangle = fragments.triangle[0].ravel()[used]
    barycentric = fragments.barycentric[0].reshape(-1, 3)[used]
    mean = surface.complete(model.mean.cpu())
    values = torch.cat([mean, _reach(model, mean)[:, None]], 1)
    values = (values[surface.triangles[triangle]] * barycentric[..., None]).sum(1)
    near = values[:, 3] < FAR
    place = values[near, :3].numpy()
    away, partner = cKDTree(place).query(place * [-1, 1, 1], workers=-1, distance_upper_bound=PAIR_DISTANCE)
    partner = torch.from_numpy(np.where(np.isfinite(away), partner, -1).astype(np.int64))
    return Texels(side, used[near], triangle[near], barycentric[near], partner, values[near, 3], used[~near])


def _reach(model: MorphableModel, closed: Tensor) -> Tensor:
    """How far out a vertex lies: 0 in the middle of the face, 1 at its outline, more on ears, scalp and neck."""
    marks = model.landmarks.of(model.mean.cpu())
    brow, chin = marks[17:27, 1].max(), marks[8, 1]
    top = brow + 0.32 * (brow - chin)  # the hairline, about a third of brow to chin above the brows
    middle = torch.stack([marks[:, 0].amin() + marks[:, 0].amax(), chin + top]) / 2
    radius = torch.stack([marks[:, 0].amax() - marks[:, 0].amin(), top - chin]) / 2
    away = ((closed[:, :2] - middle) / radius).abs()
    power = torch.where(closed[:, 1] > middle[1], 2.5, 2.0)  # foreheads are squarer than chins
    out = (away[:, 0] ** power + away[:, 1] ** power) ** (1 / power)
    behind = (marks[[0, 16], 2].min() - 10 - closed[:, 2]).clamp(min=0) / 10
    return out + behind


def fill(
    colours: Float[Tensor, "rows columns 3"], weight: Float[Tensor, "rows columns"], background: Float[Tensor, " 3"]
) -> Float[Tensor, "rows columns 3"]:
    """Colours spread from where the weight is 1 to where it is 0, towards `background` far away (push-pull pyramid,
    Gortler et al. 1996)."""
    levels = [(torch.cat([colours * weight[..., None], weight[..., None]], -1)).permute(2, 0, 1)[None]]
    while min(levels[-1].shape[2:]) > 1:
        levels.append(functional.avg_pool2d(levels[-1], 2, ceil_mode=True))
    value = background.view(1, 3, 1, 1).expand(1, 3, *levels[-1].shape[2:])
    for level in reversed(levels):
        value = functional.interpolate(value, size=level.shape[2:], mode="bilinear", align_corners=False)
        known = level[:, 3:].clamp(max=1)
        value = level[:, :3] + (1 - known) * value  # level colours are weighted already
    return value[0].permute(1, 2, 0)


def vertex_colours(
    texture: Float[Tensor, "rows columns 3"], surface: Surface, vertices: int
) -> Float[Tensor, "closed 3"]:
    """The texture's colour at each of the closed mesh's `vertices`."""
    uv = surface.uv.clone()
    grid = torch.stack([2 * uv[:, 0] - 1, 1 - 2 * uv[:, 1]], -1)[None, None]
    at_uv = functional.grid_sample(texture.permute(2, 0, 1)[None], grid, align_corners=False, padding_mode="border")
    colours = torch.zeros(vertices, 3)
    colours[surface.triangles.ravel()] = at_uv[0, :, 0].T[surface.uv_triangles.ravel()]
    return colours
