"""Write a textured face as files that Blender and any viewer open: OBJ with its MTL and PNG, PLY, GLB.

OBJ and PLY are in mm, since their formats have no unit. GLB is in metres, as its standard says. The axes are those of
the project (x right, y up, z towards the viewer), which are also those of glTF. All functions raise ValueError, and
write nothing, for numbers that are not finite and colours that are not RGB in [0, 1].
"""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import trimesh
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from facenb.imaging.render import vertex_normals

METRES = 0.001
BRIGHTEST = 2.0  # shading may exceed [0, 1] up to here and is clipped; larger values are bytes or no colours


def check_colours(colours: Float[Tensor, "*any 3"]) -> None:
    """Raise ValueError where colours are not finite or far outside [0, 1], as 0 to 255 are."""
    if colours.numel() and not (colours.abs() <= BRIGHTEST).all():  # NaN fails as well
        raise ValueError(
            f"colours {tuple(colours.shape)} run from {float(colours.min()):g} to {float(colours.max()):g} and must be "
            "RGB in [0, 1]; divide bytes by 255"
        )


def _pixels(colours: Tensor) -> np.ndarray:
    """Return RGB in [0, 1] as bytes."""
    check_colours(colours)
    return (colours.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def finite(**arrays: Tensor) -> list[np.ndarray]:
    """Return these tensors as arrays. Raise ValueError naming one that is not finite."""
    for name, values in arrays.items():
        if not values.isfinite().all():
            raise ValueError(f"{name} {tuple(values.shape)} must be finite: no viewer opens a file of other numbers")
    return [values.detach().cpu().numpy() for values in arrays.values()]


def save_image(path: Path, image: Float[Tensor, "height width 3"]) -> None:
    """Write RGB in [0, 1] as an image file of the kind that the name's ending says."""
    Image.fromarray(_pixels(image)).save(path, compress_level=2)


class TexturedMesh(NamedTuple):
    """A mesh in mm whose triangles have texture coordinates of their own; row 0 of the texture is v = 1."""

    vertices: Float[Tensor, "vertices 3"]
    triangles: Int[Tensor, "triangles 3"]
    uv: Float[Tensor, "texels 2"]
    uv_triangles: Int[Tensor, "triangles 3"]
    texture: Float[Tensor, "rows columns 3"]

    def arrays(self) -> list[np.ndarray]:
        """Return vertices, their smooth normals, and texture coordinates. Raises ValueError unless all are finite."""
        normals = smooth_normals(self.vertices[None], self.triangles)[0]
        return finite(vertices=self.vertices, normals=normals, uv=self.uv)

    def corners(self) -> np.ndarray:
        """Return vertex and texture coordinate of each corner of each triangle, (triangles, 3, 2)."""
        return torch.stack([self.triangles, self.uv_triangles], -1).cpu().numpy()


def save_obj(path: Path, mesh: TexturedMesh) -> None:
    """Write OBJ, MTL and PNG of one name, with a smooth normal at each vertex."""
    points, normals, texels = mesh.arrays()
    picture, mtl = path.with_suffix(".png"), path.with_suffix(".mtl")
    save_image(picture, mesh.texture)
    mtl.write_text(f"newmtl face\nKa 1 1 1\nKd 1 1 1\nKs 0 0 0\nillum 1\nmap_Kd {picture.name}\n", encoding="utf-8")
    corners = mesh.corners().reshape(-1, 6) + 1
    lines = [f"# vertices in mm, x right, y up, z towards the viewer\nmtllib {mtl.name}\nusemtl face\n"]
    lines += [f"v {x:.4f} {y:.4f} {z:.4f}\n" for x, y, z in points.tolist()]
    lines += [f"vt {u:.6f} {v:.6f}\n" for u, v in texels.tolist()]
    lines += [f"vn {x:.4f} {y:.4f} {z:.4f}\n" for x, y, z in normals.tolist()]
    lines += [f"f {a}/{p}/{a} {b}/{q}/{b} {c}/{r}/{c}\n" for a, p, b, q, c, r in corners.tolist()]
    path.write_text("".join(lines), encoding="utf-8")


def save_ply(
    path: Path,
    vertices: Float[Tensor, "vertices 3"],
    triangles: Int[Tensor, "triangles 3"],
    colours: Float[Tensor, "vertices 3"],
) -> None:
    """Write a binary PLY in mm with a colour at each vertex."""
    [points] = finite(vertices=vertices)
    trimesh.Trimesh(points, triangles.cpu().numpy(), vertex_colors=_pixels(colours), process=False).export(path)


def save_glb(path: Path, mesh: TexturedMesh) -> None:
    """Write a binary glTF in metres.

    A vertex on a seam of the texture becomes two, since glTF has one UV for each vertex. Both have the same normal.
    """
    points, normals, texels = mesh.arrays()
    pairs, faces = np.unique(mesh.corners().reshape(-1, 2), axis=0, return_inverse=True)
    jpeg = io.BytesIO()  # the texture of a photo as PNG is five times as large and slow
    Image.fromarray(_pixels(mesh.texture)).save(jpeg, format="JPEG", quality=92)
    material = trimesh.visual.material.PBRMaterial(
        baseColorTexture=Image.open(jpeg), metallicFactor=0.0, roughnessFactor=0.9, doubleSided=True
    )
    shape = trimesh.Trimesh(
        points[pairs[:, 0]] * METRES,
        faces.reshape(-1, 3),
        vertex_normals=normals[pairs[:, 0]],
        process=False,
        visual=trimesh.visual.TextureVisuals(uv=texels[pairs[:, 1]], material=material),
    )
    trimesh.Scene({"face": shape}).export(path, file_type="glb", include_normals=True)


def smooth_normals(
    vertices: Float[Tensor, "batch vertices 3"], triangles: Int[Tensor, "triangles 3"]
) -> Float[Tensor, "batch vertices 3"]:
    """Return unit normals at the vertices; towards the viewer where a vertex has no triangle."""
    normals = vertex_normals(vertices, triangles)
    return torch.where(normals.abs().sum(-1, keepdim=True) > 0, normals, normals.new_tensor([0.0, 0.0, 1.0]))
