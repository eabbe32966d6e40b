"""Take the face's texture from the photo: what the camera saw, the mirrored half where it did not, then smooth skin."""

import torch
from jaxtyping import Float
from torch import Tensor

from facenb.imaging.camera import WeakPerspective
from facenb.imaging.render import vertex_normals, visibility
from facenb.imaging.texture import sample
from facenb.photos.surface import Surface, Texels, fill

STEEP, FLAT = 0.15, 0.5  # cosine to the camera: below the first a texel is not trusted, above the second fully
EDGE = (1.0, 1.12)  # reach over which the photo gives way to a smooth passage into skin, which ends at surface.FAR
CHEEKS = 0.6  # reach within which most of what is visible is skin


def project_photo(
    image: Float[Tensor, "height width 3"],
    vertices: Float[Tensor, "closed 3"],
    camera: WeakPerspective,
    surface: Surface,
    texels: Texels,
) -> Float[Tensor, "side side 3"]:
    """Return the texture of a fitted face. `vertices` (mm) are those of the closed mesh; row 0 of the texture is v = 1.

    The weight of a texel is its cosine to the camera (0 if it is hidden) times how much it belongs to the face. Where
    the weight is low, the colour comes from the texel at the mirrored position, and then from its surroundings.
    """
    size = (image.shape[0], image.shape[1])
    normals = vertex_normals(vertices[None], surface.triangles)
    seen = visibility(vertices[None], surface.triangles, camera, vertices[None], normals, size)[0]
    cosine = (normals[0] @ camera.rotation[0].mT)[:, 2]
    trust = seen * ((cosine - STEEP) / (FLAT - STEEP)).clamp(0, 1)
    pixels = camera.project(vertices[None])[0, :, :2]
    at_texels = texels.at(torch.cat([pixels, trust[:, None]], 1), surface)
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
