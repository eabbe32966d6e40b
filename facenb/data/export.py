"""A textured face as files that Blender and any viewer open: OBJ with its MTL and PNG, PLY, GLB.

OBJ and PLY are in mm, as their formats know no unit; GLB is in metres, as its standard says. In OBJ and PLY the axes
are the project's (x right, y up, z to the viewer), which are glTF's own, too.
"""

import io
from pathlib import Path

import numpy as np
import torch
import trimesh
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from facenb.atomic import atomic_write

METRES = 0.001


def save_image(path: str | Path, image: Float[Tensor, "height width 3"]) -> Path:
    """Write RGB in [0, 1] as PNG (or JPEG, by its name), beside and then renamed."""
    path = Path(path)
    pixels = (image.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    picture = io.BytesIO()
    Image.fromarray(pixels).save(picture, Image.registered_extensions()[path.suffix.lower()], compress_level=2)
    return save_bytes(path, picture.getvalue())


def save_bytes(path: Path, content: bytes) -> Path:
    """Write a file of this content, whole or not at all, and give its path back."""
    with atomic_write(path) as partial:
        partial.write_bytes(content)
    return path


def save_obj(
    path: str | Path,
    vertices: Float[Tensor, "vertices 3"], triangles: Int[Tensor, "triangles 3"],
    uv: Float[Tensor, "texels 2"], uv_triangles: Int[Tensor, "triangles 3"],
    texture: Float[Tensor, "rows columns 3"],
) -> list[Path]:  # fmt: skip
    """Write OBJ, MTL and PNG of one name; the OBJ comes last, so that it never names files that are not there."""
    path = Path(path)
    picture = save_image(path.with_suffix(".png"), texture)
    material = f"newmtl face\nKa 1 1 1\nKd 1 1 1\nKs 0 0 0\nillum 1\nmap_Kd {picture.name}\n"
    mtl = save_bytes(path.with_suffix(".mtl"), material.encode())
    corners = np.stack([triangles.numpy(), uv_triangles.numpy()], -1).reshape(-1, 6) + 1
    lines = [f"# vertices in mm, x right, y up, z to the viewer\nmtllib {mtl.name}\nusemtl face\n"]
    lines += [f"v {x:.4f} {y:.4f} {z:.4f}\n" for x, y, z in vertices.tolist()]
    lines += [f"vt {u:.6f} {v:.6f}\n" for u, v in uv.tolist()]
    lines += [f"f {a}/{p} {b}/{q} {c}/{r}\n" for a, p, b, q, c, r in corners.tolist()]
    return [save_bytes(path, "".join(lines).encode()), mtl, picture]


def save_ply(
    path: str | Path,
    vertices: Float[Tensor, "vertices 3"],
    triangles: Int[Tensor, "triangles 3"],
    colours: Float[Tensor, "vertices 3"],
) -> Path:
    """Write a binary PLY with a colour at each vertex, in mm."""
    pixels = (colours.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    mesh = trimesh.Trimesh(vertices.numpy(), triangles.numpy(), vertex_colors=pixels, process=False)
    return save_bytes(Path(path), mesh.export(file_type="ply"))


def save_glb(
    path: str | Path,
    vertices: Float[Tensor, "vertices 3"], triangles: Int[Tensor, "triangles 3"],
    uv: Float[Tensor, "texels 2"], uv_triangles: Int[Tensor, "triangles 3"],
    texture: Float[Tensor, "rows columns 3"],
) -> Path:  # fmt: skip
    """Write a binary glTF in metres; a vertex on a UV seam becomes two, as glTF has one UV a vertex."""
    both = np.stack([triangles.numpy().ravel(), uv_triangles.numpy().ravel()], 1)
    pairs, faces = np.unique(both, axis=0, return_inverse=True)
    pixels = (texture.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    material = trimesh.visual.material.PBRMaterial(
        baseColorTexture=_Jpeg.of(pixels), metallicFactor=0.0, roughnessFactor=0.9, doubleSided=True
    )
    mesh = trimesh.Trimesh(
        vertices.numpy()[pairs[:, 0]] * METRES, faces.reshape(-1, 3), process=False,
        visual=trimesh.visual.TextureVisuals(uv=uv.numpy()[pairs[:, 1]], material=material),
    )  # fmt: skip
    return save_bytes(Path(path), trimesh.Scene({"face": mesh}).export(file_type="glb"))


class _Jpeg:
    """A picture that glTF stores as JPEG: a photo's texture as PNG would be five times as large and slow to write."""

    @staticmethod
    def of(pixels: np.ndarray) -> Image.Image:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="JPEG", quality=92)
        return Image.open(buffer)
