"""Write a textured face as files that Blender and any viewer open: OBJ with its MTL and PNG, GLB.

OBJ has no unit; we write mm. GLB is in metres, as its standard requires. Both use the project's axes.
"""

import io
from pathlib import Path

import torch
import trimesh
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from facenb.imaging.render import vertex_normals
from facenb.photos.images import as_bytes
from facenb.photos.texture import Surface

METRES = 0.001


def save_image(path: Path, image: Float[Tensor, "height width 3"]) -> None:
    """Write RGB in [0, 1] as an image file. The file extension determines the format."""
    Image.fromarray(as_bytes(image).numpy()).save(path, compress_level=2)


def save_obj(
    path: Path, vertices: Float[Tensor, "vertices 3"], surface: Surface, texture: Float[Tensor, "rows columns 3"]
) -> None:
    """Write OBJ, MTL and PNG with the same base name, and vertex normals. Row 0 of the texture is v = 1."""
    picture, mtl = path.with_suffix(".png"), path.with_suffix(".mtl")
    save_image(picture, texture)
    mtl.write_text(f"newmtl face\nKa 1 1 1\nKd 1 1 1\nKs 0 0 0\nillum 1\nmap_Kd {picture.name}\n", encoding="utf-8")
    normals = smooth_normals(vertices[None], surface.triangles)[0]
    corners = torch.stack([surface.triangles, surface.uv_triangles], -1).flatten(1) + 1
    lines = [f"# vertices in mm, x right, y up, z towards the viewer\nmtllib {mtl.name}\nusemtl face\n"]
    lines += [f"v {x:.4f} {y:.4f} {z:.4f}\n" for x, y, z in vertices.tolist()]
    lines += [f"vt {u:.6f} {v:.6f}\n" for u, v in surface.uv.tolist()]
    lines += [f"vn {x:.4f} {y:.4f} {z:.4f}\n" for x, y, z in normals.tolist()]
    lines += [f"f {a}/{p}/{a} {b}/{q}/{b} {c}/{r}/{c}\n" for a, p, b, q, c, r in corners.tolist()]
    path.write_text("".join(lines), encoding="utf-8")


def save_glb(
    path: Path, vertices: Float[Tensor, "vertices 3"], surface: Surface, texture: Float[Tensor, "rows columns 3"]
) -> None:
    """Write a binary glTF in metres.

    A vertex on a seam of the texture becomes two, since glTF has one UV for each vertex. Both have the same normal.
    """
    corners = torch.stack([surface.triangles, surface.uv_triangles], -1).reshape(-1, 2)
    pairs, faces = corners.unique(dim=0, return_inverse=True)
    normals = smooth_normals(vertices[None], surface.triangles)[0]
    jpeg = io.BytesIO()  # as PNG, a photo's texture is five times as large and slow
    Image.fromarray(as_bytes(texture).numpy()).save(jpeg, format="JPEG", quality=92)
    material = trimesh.visual.material.PBRMaterial(
        baseColorTexture=Image.open(jpeg), metallicFactor=0.0, roughnessFactor=0.9, doubleSided=True
    )
    shape = trimesh.Trimesh(
        METRES * vertices[pairs[:, 0]].numpy(),
        faces.view(-1, 3).numpy(),
        vertex_normals=normals[pairs[:, 0]].numpy(),
        process=False,
        visual=trimesh.visual.TextureVisuals(uv=surface.uv[pairs[:, 1]].numpy(), material=material),
    )
    trimesh.Scene({"face": shape}).export(path, file_type="glb", include_normals=True)


def smooth_normals(
    vertices: Float[Tensor, "batch vertices 3"], triangles: Int[Tensor, "triangles 3"]
) -> Float[Tensor, "batch vertices 3"]:
    """Return unit normals at the vertices; towards the viewer where a vertex has no triangle."""
    normals = vertex_normals(vertices, triangles)
    return torch.where(normals.abs().sum(-1, keepdim=True) > 0, normals, normals.new_tensor([0.0, 0.0, 1.0]))
