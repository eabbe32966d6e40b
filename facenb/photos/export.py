"""A textured face as files that Blender and any viewer open: OBJ with its MTL and PNG, PLY, GLB.

OBJ and PLY are in mm, as their formats know no unit; GLB is in metres, as its standard says. In OBJ and PLY the axes
are the project's (x right, y up, z to the viewer), which are glTF's own, too. All raise ValueError, and write nothing,
for numbers that are not finite and colours that are not RGB in [0, 1], and RunError for a path that cannot be written.
"""

import io
from pathlib import Path

import numpy as np
import torch
import trimesh
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from facenb.errors import RunError
from facenb.files import atomic_write

METRES = 0.001
BRIGHTEST = 2.0  # shading may leave [0, 1] by as much and is cut off; what is beyond are bytes, or no colours


def check_colours(colours: Float[Tensor, "*any 3"]) -> None:
    """Raise ValueError where colours are not finite or far outside [0, 1], as 0 to 255 are."""
    if colours.numel() and not (colours.abs() <= BRIGHTEST).all():  # NaN fails as well
        raise ValueError(
            f"colours {tuple(colours.shape)} run from {float(colours.min()):g} to {float(colours.max()):g} and must be "
            "RGB in [0, 1]; divide bytes by 255"
        )


def _pixels(colours: Tensor) -> np.ndarray:
    """RGB in [0, 1] as bytes."""
    check_colours(colours)
    return (colours.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def _finite(**arrays: Tensor) -> list[np.ndarray]:
    """Arrays of these tensors. Raises ValueError naming one that is not finite."""
    for name, values in arrays.items():
        if not values.isfinite().all():
            raise ValueError(f"{name} {tuple(values.shape)} must be finite: no viewer opens a file of others")
    return [values.detach().cpu().numpy() for values in arrays.values()]


def save_image(path: str | Path, image: Float[Tensor, "height width 3"]) -> Path:
    """Write RGB in [0, 1] as PNG (or JPEG, by its name), beside and then renamed."""
    path = Path(path)
    kind, picture = Image.registered_extensions().get(path.suffix.lower()), io.BytesIO()
    if kind is None:
        raise ValueError(f"{path} has the ending of no kind of picture; call it .png or .jpg")
    Image.fromarray(_pixels(image)).save(picture, kind, compress_level=2)
    return save_bytes(path, picture.getvalue())


def save_bytes(path: Path, content: bytes) -> Path:
    """Write a file of this content, whole or not at all, and give its path back.

    Raises RunError where the path is a folder, its folder is missing, or may not be written to.
    """
    try:
        with atomic_write(path) as partial:
            partial.write_bytes(content)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        raise RunError(f"cannot write {path} ({error.strerror}); name a file in a folder that is there") from error
    return path


def save_obj(
    path: str | Path,
    vertices: Float[Tensor, "vertices 3"], triangles: Int[Tensor, "triangles 3"],
    uv: Float[Tensor, "texels 2"], uv_triangles: Int[Tensor, "triangles 3"],
    texture: Float[Tensor, "rows columns 3"],
) -> list[Path]:  # fmt: skip
    """Write OBJ, MTL and PNG of one name; the OBJ comes last, so that it never names files that are not there."""
    path = Path(path)
    places, texels = _finite(vertices=vertices, uv=uv)
    picture = save_image(path.with_suffix(".png"), texture)
    material = f"newmtl face\nKa 1 1 1\nKd 1 1 1\nKs 0 0 0\nillum 1\nmap_Kd {picture.name}\n"
    mtl = save_bytes(path.with_suffix(".mtl"), material.encode())
    corners = np.stack([triangles.cpu().numpy(), uv_triangles.cpu().numpy()], -1).reshape(-1, 6) + 1
    lines = [f"# vertices in mm, x right, y up, z to the viewer\nmtllib {mtl.name}\nusemtl face\n"]
    lines += [f"v {x:.4f} {y:.4f} {z:.4f}\n" for x, y, z in places.tolist()]
    lines += [f"vt {u:.6f} {v:.6f}\n" for u, v in texels.tolist()]
    lines += [f"f {a}/{p} {b}/{q} {c}/{r}\n" for a, p, b, q, c, r in corners.tolist()]
    return [save_bytes(path, "".join(lines).encode()), mtl, picture]


def save_ply(
    path: str | Path,
    vertices: Float[Tensor, "vertices 3"],
    triangles: Int[Tensor, "triangles 3"],
    colours: Float[Tensor, "vertices 3"],
) -> Path:
    """Write a binary PLY with a colour at each vertex, in mm. ValueError for colours of another number of vertices."""
    if len(colours) != len(vertices):
        raise ValueError(f"{len(colours)} colours of {len(vertices)} vertices: give one for each")
    [places] = _finite(vertices=vertices)
    mesh = trimesh.Trimesh(places, triangles.cpu().numpy(), vertex_colors=_pixels(colours), process=False)
    return save_bytes(Path(path), mesh.export(file_type="ply"))


def save_glb(
    path: str | Path,
    vertices: Float[Tensor, "vertices 3"], triangles: Int[Tensor, "triangles 3"],
    uv: Float[Tensor, "texels 2"], uv_triangles: Int[Tensor, "triangles 3"],
    texture: Float[Tensor, "rows columns 3"],
) -> Path:  # fmt: skip
    """Write a binary glTF in metres; a vertex on a UV seam becomes two, as glTF has one UV a vertex."""
    places, texels = _finite(vertices=vertices, uv=uv)
    both = np.stack([triangles.cpu().numpy().ravel(), uv_triangles.cpu().numpy().ravel()], 1)
    pairs, faces = np.unique(both, axis=0, return_inverse=True)
    material = trimesh.visual.material.PBRMaterial(
        baseColorTexture=_Jpeg.of(_pixels(texture)), metallicFactor=0.0, roughnessFactor=0.9, doubleSided=True
    )
    mesh = trimesh.Trimesh(
        places[pairs[:, 0]] * METRES, faces.reshape(-1, 3), process=False,
        visual=trimesh.visual.TextureVisuals(uv=texels[pairs[:, 1]], material=material),
    )  # fmt: skip
    return save_bytes(Path(path), trimesh.Scene({"face": mesh}).export(file_type="glb"))


class _Jpeg:
    """A picture that glTF stores as JPEG: a photo's texture as PNG would be five times as large and slow to write."""

    @staticmethod
    def of(pixels: np.ndarray) -> Image.Image:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="JPEG", quality=92)
        return Image.open(buffer)
