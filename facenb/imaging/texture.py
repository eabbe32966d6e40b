"""UV textures: the colours and displacements of a surface, stored as images that are wrapped around a mesh.

Conventions:
- uv lies in [0, 1] with the origin bottom left, as in OBJ files and `MorphableModel.uv`. Row 0 of an image is the top
  (v = 1), and texel centres lie at +0.5. Outside the image, the border pixels repeat.
- A pixel samples the texture bilinearly at its centre. There are no mip levels; `Texture.reduced` makes a coarser copy.
- Relief tilts the smooth normal by the gradient of the displacement on the surface, `n' = normalize(n - grad d)` (Blinn
  1978; without stored tangents as in Mikkelsen 2010). The gradient is computed with each triangle's map from uv to 3D.
  So parts of the texture may be rotated or mirrored. On a stretched triangle, wrinkles become flatter.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from facenb.imaging import texture_numba
from facenb.imaging.lighting import irradiance
from facenb.imaging.raster import Fragments, check_triangles, interpolate, seen_corners, uses_numba


@dataclass(frozen=True)
class Texture:
    """The appearance of a surface as images. Pass it to `render` instead of an albedo per vertex."""

    image: Float[Tensor, "_batch rows columns 3"]  # linear RGB; a batch of one is shared, not copied
    uv: Float[Tensor, "points 2"]
    triangles: Int[Tensor, "triangles 3"]  # rows of uv, for each triangle of the mesh
    tint: Float[Tensor, "_tints vertices 3"] | None = None  # factor for the colours, per vertex of the mesh
    relief: Float[Tensor, "_reliefs relief_rows relief_columns"] | None = None  # displacement in mm, outwards positive

    def __post_init__(self):
        check_triangles(self.triangles, len(self.uv))

    def reduced(self, factor: int) -> "Texture":
        """Return a copy whose image and relief are averages of `factor` x `factor` texels."""
        image = functional.avg_pool2d(self.image.permute(0, 3, 1, 2), factor).permute(0, 2, 3, 1).contiguous()
        relief = None if self.relief is None else functional.avg_pool2d(self.relief[:, None], factor)[:, 0]
        return replace(self, image=image, relief=relief)


def sample(
    image: Float[Tensor, "_images rows columns channels"], uv: Float[Tensor, "batch height width 2"]
) -> Float[Tensor, "batch height width channels"]:
    """Return images sampled bilinearly at uv; an image batch of one is broadcast."""
    grid = torch.stack([2 * uv[..., 0] - 1, 1 - 2 * uv[..., 1]], -1)
    planes = image.permute(0, 3, 1, 2).expand(len(uv), -1, -1, -1)
    return functional.grid_sample(planes, grid, padding_mode="border", align_corners=False).permute(0, 2, 3, 1)


def slopes(relief: Float[Tensor, "_reliefs rows columns"]) -> Float[Tensor, "_reliefs rows columns 2"]:
    """Return the derivatives of the relief with respect to u and v (mm per unit), by central differences."""
    padded = functional.pad(relief[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    rows, columns = relief.shape[1:]
    across = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) * (columns / 2)
    upward = (padded[:, :-2, 1:-1] - padded[:, 2:, 1:-1]) * (rows / 2)
    return torch.stack([across, upward], -1)


def shade(
    texture: Texture,
    fragments: Fragments,
    triangles: Int[Tensor, "triangles 3"],
    vertices: Float[Tensor, "_vertices vertices 3"],
    normals: Float[Tensor, "batch vertices 3"],
    rotation: Float[Tensor, "_rotations 3 3"],
    light: Float[Tensor, "_light 9 3"] | None,
    backend: str = "auto",
) -> Float[Tensor, "batch height width 3"]:
    """Return the colour of each pixel: texture times tint times light; 0 at the background.

    Vertices (mm) are on the model's axes, and their unit normals on the camera's axes. The numba kernel has no backward
    pass, so torch operations run if a gradient is needed. Images, reliefs and lights have a batch of one, or one per
    rendering. Raise ValueError unless the texture has a row for each triangle.
    """
    if len(texture.triangles) != len(triangles):
        raise ValueError(f"the texture has {len(texture.triangles)} triangles, the mesh {len(triangles)}")
    factor = torch.ones_like(normals) if texture.tint is None else texture.tint.expand(len(normals), -1, -1)
    relief = texture.relief is not None and light is not None
    if light is not None and not relief:
        factor = factor * irradiance(normals, light.expand(len(normals), -1, -1))
    turned = vertices @ rotation.mT if relief else vertices
    inputs = (texture.image, texture.relief, factor, fragments.barycentric, turned, light)
    wants_gradient = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs)
    if uses_numba(normals, backend) and not wants_gradient:
        bumps = (slopes(texture.relief), turned, normals, light) if relief else None
        return texture_numba.shade(texture, fragments, triangles, factor, bumps)
    points = texture.uv.to(normals).expand(len(normals), -1, -1)
    uv = interpolate(fragments, points, texture.triangles, "torch")
    image = sample(texture.image, uv) * interpolate(fragments, factor, triangles, backend)
    if relief:
        smooth = functional.normalize(interpolate(fragments, normals, triangles, backend), dim=-1)
        gradient = _gradient(texture, fragments, triangles, turned, sample(slopes(texture.relief), uv))
        image = image * irradiance(functional.normalize(smooth - gradient, dim=-1), light.expand(len(image), -1, -1))
    return image


def _gradient(texture, fragments, triangles, vertices, slope) -> Float[Tensor, "batch height width 3"]:
    """Return the gradient of the relief along the surface at each pixel, 0 at the background."""
    pixel, corner = seen_corners(fragments.triangle, triangles, vertices.shape[1])
    a, b, c = vertices.flatten(0, 1)[corner].unbind(1)
    normal = torch.linalg.cross(b - a, c - a)
    normal = normal / normal.square().sum(-1, keepdim=True).clamp(min=texture_numba.TINY)
    uv_a, uv_b, uv_c = texture.uv.to(vertices)[texture.triangles[fragments.triangle.flatten()[pixel]]].unbind(1)
    steps = slope.flatten(0, 2)[pixel]
    rise_b, rise_c = ((steps * (end - uv_a)).sum(-1, keepdim=True) for end in (uv_b, uv_c))  # mm, along two edges
    gradient = rise_b * torch.linalg.cross(c - a, normal) + rise_c * torch.linalg.cross(normal, b - a)
    return vertices.new_zeros(slope[..., 0].numel(), 3).index_copy(0, pixel, gradient).view(*slope.shape[:3], 3)
