"""Render a lit face, differentiable with respect to vertices, albedo or texture, camera and light.

Light is computed at each vertex and interpolated over the triangle (Gouraud), since nine harmonics vary slowly along
the edges of a face mesh. Colours are linear, without gamma and not clamped to [0, 1], so that gradients do not vanish.
Clamp an image before you show or store it. Normals and light are on the camera's axes.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from facenb.imaging import raster_numba
from facenb.imaging.camera import Camera
from facenb.imaging.lighting import irradiance
from facenb.imaging.raster import LIMIT, Fragments, check_triangles, interpolate, rasterize, uses_numba
from facenb.imaging.texture import Texture, shade

BUFFER = 256  # pixels per side of the depth buffer in `visibility`
TOLERANCE = 2.0  # mm: a point this far behind the nearest surface still counts as visible


@dataclass(frozen=True)
class Rendering:
    """A rendered image with its fragments. At the background, depth (mm) is inf and normals are 0."""

    image: Float[Tensor, "batch height width 3"]  # linear RGB, [0, 1] unless the light is brighter
    fragments: Fragments
    vertex_normals: Float[Tensor, "batch vertices 3"]  # unit, camera axes
    triangles: Int[Tensor, "triangles 3"]

    @property
    def mask(self) -> Bool[Tensor, "batch height width"]:
        """Return True for pixels that see a surface."""
        return self.fragments.triangle >= 0

    @property
    def depth(self) -> Float[Tensor, "batch height width"]:
        """Return the distance along the viewing direction in mm, inf at the background."""
        return self.fragments.depth

    @property
    def normals(self) -> Float[Tensor, "batch height width 3"]:
        """Return unit normals on the camera's axes, interpolated from the vertices; 0 at the background."""
        return functional.normalize(interpolate(self.fragments, self.vertex_normals, self.triangles), dim=-1)


def vertex_normals(
    vertices: Float[Tensor, "batch vertices 3"], triangles: Int[Tensor, "triangles 3"], backend: str = "auto"
) -> Float[Tensor, "batch vertices 3"]:
    """Return unit normals: the area-weighted mean over the surrounding triangles; 0 for a vertex without a triangle."""
    check_triangles(triangles, vertices.shape[1])
    if uses_numba(vertices, backend):
        return raster_numba.UnitNormals.apply(vertices, triangles)
    a, b, c = (vertices[:, triangles[:, corner]] for corner in range(3))
    cross = torch.linalg.cross(b - a, c - a)
    total = torch.zeros_like(vertices)
    for corner in range(3):
        total = total.index_add(1, triangles[:, corner], cross)
    return functional.normalize(total, dim=-1)


def render(
    vertices: Float[Tensor, "_vertices vertices 3"],
    triangles: Int[Tensor, "triangles 3"],
    albedo: Float[Tensor, "_albedo vertices 3"] | Texture,
    camera: Camera,
    size: tuple[int, int],
    light: Float[Tensor, "_light 9 3"] | None = None,
    background: Float[Tensor, "..."] | None = None,
    backend: str = "auto",
) -> Rendering:
    """Return images of lit meshes: vertices in mm on model axes, size (height, width), albedo linear RGB.

    The albedo is one colour per vertex, or a `Texture`. A batch of one is broadcast in vertices, camera, albedo and
    light. Without `light`, the image shows the albedo. The background is one colour (3,), a colour per image (batch, 3)
    or an image (batch or 1, height, width, 3). The default is black.
    """
    projected = camera.project(vertices)
    fragments = rasterize(projected, triangles, size, camera.is_perspective, backend)
    normals = vertex_normals(vertices, triangles, backend) @ camera.rotation.transpose(-1, -2)
    if isinstance(albedo, Texture):
        image = shade(albedo, fragments, triangles, vertices, normals, camera.rotation, light, backend)
    else:
        colour = albedo.expand(len(projected), -1, -1)
        if light is not None:
            colour = albedo * irradiance(normals, light.expand(len(normals), -1, -1))
        image = interpolate(fragments, colour, triangles, backend)
    if background is not None:
        behind = background[..., None, None, :] if background.ndim <= 2 else background
        image = torch.where((fragments.triangle >= 0)[..., None], image, behind.to(image))
    return Rendering(image, fragments, normals, triangles)


def visibility(
    vertices: Float[Tensor, "_vertices vertices 3"],
    triangles: Int[Tensor, "triangles 3"],
    camera: Camera,
    points: Float[Tensor, "_points points 3"],
    normals: Float[Tensor, "_normals points 3"] | None = None,
    size: tuple[int, int] | None = None,
) -> Bool[Tensor, "batch points"]:
    """Return whether points on the surface are visible: at most 2 mm behind the nearest surface.

    All inputs are in mm on model axes; batches of one are broadcast. The depth buffer covers the object's bounding box
    with 256 pixels per side, so the result does not depend on the size of an image. Each point is compared with the
    deepest of the four pixels around it, because a surface may be slanted. With `normals`, points that face away are
    not visible. With `size` (height, width), points outside the image are not visible.
    """
    with torch.no_grad():
        projected, seen = camera.project(vertices), camera.project(points)
        low, zoom = _frame(projected, camera.is_perspective)
        framed = torch.cat([(projected[..., :2] - low) * zoom + 1, projected[..., 2:]], -1)
        depth = rasterize(framed, triangles, (BUFFER, BUFFER), camera.is_perspective).depth
        corner = ((seen[..., :2] - low) * zoom + 0.5).floor().nan_to_num(0, 0, 0).clamp(0, BUFFER - 2).long()
        index = corner[..., 1] * BUFFER + corner[..., 0]
        around = torch.stack([index, index + 1, index + BUFFER, index + BUFFER + 1], -1)
        depth, around = depth.flatten(1).expand(len(around), -1), around.expand(len(depth), -1, -1)
        nearest = depth.gather(1, around.flatten(1)).view_as(around).amax(-1)
        visible = seen.isfinite().all(-1) & (seen[..., 2] <= nearest + TOLERANCE)
        if normals is not None:
            turn, towards = camera.rotation.mT, points.new_tensor([0.0, 0, 1])
            if camera.is_perspective:
                towards = -(points @ turn + camera.position[:, None])
            visible = visible & ((normals @ turn * towards).sum(-1) > 0)
        if size is not None:
            inside = (seen[..., :2] >= 0) & (seen[..., :2] < seen.new_tensor([size[1], size[0]]))
            visible = visible & inside.all(-1)
        return visible & (seen[..., 2] > 0) if camera.is_perspective else visible


def _frame(projected: Tensor, perspective: bool) -> tuple[Tensor, Tensor]:
    """Return the upper left corner (batch, 1, 2) of each object's box, and the factor that scales the box to BUFFER."""
    usable = projected.abs().amax(-1, keepdim=True) <= LIMIT  # false for NaN, too
    usable = usable & (projected[..., 2:] > 0) if perspective else usable
    low = torch.where(usable, projected, torch.inf).amin(1, keepdim=True)[..., :2]
    high = torch.where(usable, projected, -torch.inf).amax(1, keepdim=True)[..., :2]
    return low, (BUFFER - 2) / (high - low).amax(-1, keepdim=True).clamp(min=1e-6)
