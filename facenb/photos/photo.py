"""A photograph becomes a 3D face: landmarks, fit of a morphable model, texture, picture and mesh files."""

import functools
import json
import os
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from facenb.assets import asset
from facenb.errors import AssetError, ImageError, RunError
from facenb.fitting import Fit, fit
from facenb.imaging.lighting import ambient, directional
from facenb.imaging.render import render
from facenb.morphable.formats import read_ict, read_ict_folder
from facenb.morphable.model import Embedding, MorphableModel
from facenb.photos.canonical import mediapipe_embedding
from facenb.photos.export import save_glb, save_image, save_obj, save_ply
from facenb.photos.images import read_image
from facenb.photos.landmarks import MESH, detect
from facenb.photos.surface import Surface, Texels, close, lay_out, vertex_colours
from facenb.photos.texture import project_photo

LIMIT = 1600  # pixels on the longer side that are worked on: a texture shows no more
# MediaPipe's 468 points are a smooth mesh: they tell about as much as 68 single landmarks, so the prior that goes
# with 68 (facenb.fitting) is made stronger by their number.
PRIOR = 4.0 * MESH / 68
FILES = ("overlay.png", "face.obj", "face.mtl", "face.png", "face.ply", "face.glb", "coefficients.json")
CLAY = (0.78, 0.73, 0.69)


@dataclass(frozen=True)
class Fitter:
    """A model with what is computed once for it: embedding, closed surface, places of the texels."""

    model: MorphableModel
    embedding: Embedding | None  # of the landmarks that will be given; None: the model's own 68
    surface: Surface
    texels: Texels

    @classmethod
    def of(cls, model: MorphableModel, embedding: Embedding | None = None, side: int = 1024) -> "Fitter":
        surface = close(model)
        return cls(model, embedding, surface, lay_out(surface, model, side))


@functools.cache
def ict_fitter(side: int = 1024) -> Fitter:
    """ICT-FaceKit with MediaPipe's points on it. Raises AssetError where an asset is not here."""
    folder = asset("ict-facekit")
    compact = folder / "ict_face_head_11248.npz"
    full = next(iter(sorted(folder.glob("**/FaceXModel"))), None)
    if compact.is_file():
        model = read_ict(compact)
    elif full is not None:
        model = read_ict_folder(full)
    else:
        raise AssetError(f"{folder} holds no ICT-FaceKit; `python -m data_download get ict-facekit --again` gets it")
    return Fitter.of(model, mediapipe_embedding(model), side)


@dataclass(frozen=True)
class PhotoFace:
    """A face in 3D from one photo; vertices are those of the closed mesh, in mm, without the camera's rotation."""

    image: Float[Tensor, "height width 3"]
    landmarks: Float[Tensor, "points 2"]  # what it was fitted to, pixels
    faces: int  # how many the photo shows
    fit: Fit
    vertices: Float[Tensor, "closed 3"]
    texture: Float[Tensor, "side side 3"]
    fitter: Fitter
    seconds: dict[str, float] = field(default_factory=dict)  # time each stage took

    def colours(self) -> Float[Tensor, "closed 3"]:
        """The texture at the vertices."""
        return vertex_colours(self.texture, self.fitter.surface, len(self.vertices))

    def overlay(self, opacity: float = 0.85) -> Float[Tensor, "height width2 3"]:
        """The photo with its landmarks beside the photo with the fitted shape on it."""
        light = ambient(0.35 * torch.ones(1, 3)) + directional(
            torch.tensor([[-0.3, 0.4, 0.85]]), 0.75 * torch.ones(1, 3)
        )
        clay = torch.tensor(CLAY).expand_as(self.vertices)[None]
        size = (self.image.shape[0], self.image.shape[1])
        shown = render(self.vertices[None], self.fitter.surface.triangles, clay, self.fit.camera, size, light=light)
        over = opacity * shown.mask[0][..., None]
        right = (1 - over) * self.image + over * shown.image[0].clamp(0, 1)
        return torch.cat([_dotted(self.image, self.landmarks), right], 1)


def _dotted(image: Tensor, points: Tensor) -> Tensor:
    """The image with a small square at each point, sized with the picture."""
    height, width = image.shape[:2]
    reach = max(height, width) // 500
    drawn = image.clone()
    for u, v in points.floor().long().tolist():
        rows, columns = slice(max(v - reach, 0), max(v + reach + 1, 0)), slice(max(u - reach, 0), max(u + reach + 1, 0))
        drawn[rows, columns] = torch.tensor([0.2, 0.95, 0.3])
    return drawn


def fit_landmarks(
    image: Float[Tensor, "height width 3"], landmarks: Float[Tensor, "points 2"], fitter: Fitter, faces: int = 1,
    **options,
) -> PhotoFace:  # fmt: skip
    """Fit the model to landmarks (pixels) of the photo and texture it; `options` go to `facenb.fitting.fit`."""
    seconds, start = {}, time.perf_counter()
    fitted = fit(fitter.model, landmarks[None], embedding=fitter.embedding, **options)
    vertices = fitter.surface.complete(fitter.model.shape(fitted.identity, fitted.expression)[0])
    seconds["fit"] = time.perf_counter() - start
    texture = project_photo(image, vertices, fitted.camera, fitter.surface, fitter.texels)
    seconds["texture"] = time.perf_counter() - start - seconds["fit"]
    return PhotoFace(image, landmarks, faces, fitted, vertices, texture, fitter, seconds)


def photo_to_face(path: str | Path, which: str = "largest", fitter: Fitter | None = None) -> PhotoFace:
    """The 3D face of a photo. Raises ImageError (no image, no face), naming the file; AssetError (nothing to fit)."""
    fitter = fitter or ict_fitter()
    start = time.perf_counter()
    image = read_image(path, LIMIT)
    read = time.perf_counter()
    found = detect(image, closer=True)
    try:
        points = found.pick(which)[:MESH]
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error
    seen = time.perf_counter()
    face = fit_landmarks(image, points, fitter, found.count, identity_prior=PRIOR, expression_prior=PRIOR)
    face.seconds.update({"read": read - start, "landmarks": seen - read})
    return face


def refuse_existing(folder: str | Path, force: bool = False) -> None:
    """RunError if the folder holds an earlier result and it is not to be overwritten, or is a file."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; choose another folder")
    there = [name for name in FILES if (folder / name).exists()]
    if there and not force:
        raise RunError(f"{folder} holds {', '.join(there)} already; choose another folder, or overwrite with --force")


def save(face: PhotoFace, folder: str | Path, force: bool = False) -> Path:
    """Write overlay, OBJ with MTL and PNG, PLY, GLB and coefficients into `folder`.

    Written beside and moved there when all are whole. Raises RunError if the folder holds such files already (unless
    `force`) or cannot be written.
    """
    folder = Path(folder)
    refuse_existing(folder, force)
    start = time.perf_counter()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".facenb-", dir=folder))
        try:
            _write_all(face, work)
            face.seconds["save"] = time.perf_counter() - start
            for name in FILES:
                os.replace(work / name, folder / name)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise RunError(f"cannot write to {folder} ({error.strerror}); choose another folder or free space") from error
    return folder


def _write_all(face: PhotoFace, folder: Path) -> None:
    surface = face.fitter.surface
    save_image(folder / "overlay.png", face.overlay())
    mesh = (face.vertices, surface.triangles, surface.uv, surface.uv_triangles, face.texture)
    save_obj(folder / "face.obj", *mesh)
    save_glb(folder / "face.glb", *mesh)
    save_ply(folder / "face.ply", face.vertices, surface.triangles, face.colours())
    (folder / "coefficients.json").write_text(json.dumps(coefficients(face), indent=1), encoding="utf-8")


def coefficients(face: PhotoFace) -> dict:
    """The fit as plain numbers: whitened coefficients, camera (pixels per mm, pixels), error."""
    model, fitted = face.fitter.model, face.fit
    names = model.expression_names or tuple(map(str, range(len(model.expression_basis))))
    return {
        "model": model.name, "source": model.source,
        "image": {"height": face.image.shape[0], "width": face.image.shape[1], "faces": face.faces},
        "identity": fitted.identity[0].tolist(),
        "expression": dict(zip(names, fitted.expression[0].tolist(), strict=True)),
        "camera": {"kind": "weak perspective, u = f P R x + t", "rotation": fitted.camera.rotation[0].tolist(),
                   "scale": float(fitted.camera.scale[0]), "translation": fitted.camera.translation[0].tolist()},
        "error_px": float(fitted.error[0]),
    }  # fmt: skip
