"""The photo as the face's texture: what the camera saw, the other half where it did not, smooth skin elsewhere."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from facenb.imaging.camera import WeakPerspective
from facenb.imaging.render import vertex_normals, visibility
from facenb.photos.surface import Surface, Texels, fill

STEEP, FLAT = 0.15, 0.5  # cosine to the camera: below the first a texel is not trusted, above the second fully
FACE = (1.0, 1.12)  # reach over which the photo gives way to a smooth passage into skin, which ends at surface.FAR
CHEEKS = 0.6  # reach within which most of what is seen is skin


def sample(image: Float[Tensor, "height width 3"], places: Float[Tensor, "points 2"]) -> Float[Tensor, "points 3"]:
    """Colours of the photo at places in pixels (first pixel's centre at 0.5), bilinear."""
    extent = places.new_tensor([image.shape[1], image.shape[0]])
    grid = (2 * places / extent - 1)[None, None]
    planes = image.permute(2, 0, 1)[None]
    return functional.grid_sample(planes, grid, align_corners=False, padding_mode="border")[0, :, 0].T


def project_photo(
    image: Float[Tensor, "height width 3"],
    vertices: Float[Tensor, "closed 3"],
    camera: WeakPerspective,
    surface: Surface,
    texels: Texels,
) -> Float[Tensor, "side side 3"]:
    """The texture of a fitted face. `vertices` (mm) are those of the closed mesh; row 0 of the texture is v = 1.

    A texel's trust is its cosine to the camera (0 if hidden or off the picture) times how much it belongs to the face.
    What trust leaves open is taken from the texel at the mirrored place, the rest from what lies around it.
    """
    normals = vertex_normals(vertices[None], surface.triangles)
    points = vertices[None]
    seen = visibility(points, surface.triangles, camera, points, normals, tuple(image.shape[:2]))[0]
    towards = (normals[0] @ camera.rotation[0].mT)[:, 2]
    trust = seen * ((towards - STEEP) / (FLAT - STEEP)).clamp(0, 1)
    place = camera.project(vertices[None])[0, :, :2]
    at_texels = texels.at(torch.cat([place, trust[:, None]], 1), surface)
    weight = at_texels[:, 2] * _fall(texels.reach, FACE)
    colour = sample(image, at_texels[:, :2])
    cheeks = (texels.reach < CHEEKS) & (weight > 0.9)
    skin = colour[cheeks].median(0).values if cheeks.any() else colour.mean(0)
    paired = texels.partner.clamp(min=0)
    other = torch.where(texels.partner >= 0, weight[paired], 0) * (1 - weight)
    together = (weight + other).clamp(min=1e-6)[:, None]
    colour = (weight[:, None] * colour + other[:, None] * colour[paired]) / together
    return _whole(colour, (weight + other).clamp(max=1), texels, skin)


def _whole(colour: Tensor, weight: Tensor, texels: Texels, skin: Tensor) -> Tensor:
    side = texels.side
    texture, trust = torch.zeros(side * side, 3), torch.zeros(side * side)
    texture[texels.index], trust[texels.index] = colour, weight
    texture[texels.far], trust[texels.far] = skin, 1
    return fill(texture.view(side, side, 3), trust.view(side, side), skin)


def _fall(reach: Tensor, span: tuple[float, float]) -> Tensor:
    return ((span[1] - reach) / (span[1] - span[0])).clamp(0, 1)
