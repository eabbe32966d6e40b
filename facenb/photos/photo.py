"""From a photo to a 3D face: landmarks, fit of a morphable model, texture, overlay and mesh files."""

import functools
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import trimesh
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from data_download.folders import explained
from facenb.assets import asset
from facenb.errors import ImageError, RunError
from facenb.fitting import Fit, fit
from facenb.fitting.errors import PointErrors
from facenb.imaging.camera import WeakPerspective
from facenb.imaging.lighting import ambient, directional
from facenb.imaging.render import render
from facenb.morphable.formats import read
from facenb.morphable.model import Embedding, MorphableModel
from facenb.photos.canonical import mediapipe_embedding
from facenb.photos.export import save_glb, save_image, save_obj
from facenb.photos.images import as_bytes, read_photo
from facenb.photos.landmarks import MESH, central, detect
from facenb.photos.texture import Surface, Texels, close, lay_out, project_photo, vertex_colours

LIMIT = 1600  # pixels on the longer side; a texture shows no more detail
# Without an estimate of their errors: MediaPipe's 468 points are a smooth mesh, with about as much information as 68
# single landmarks. So we multiply the prior for 68 landmarks (facenb.fitting) by the ratio of the numbers of points.
PRIOR = 4.0 * MESH / 68
FILES = ("overlay.png", "face.obj", "face.mtl", "face.png", "face.ply", "face.glb", "coefficients.json")
CLAY, OPACITY = (0.78, 0.73, 0.69), 0.85  # of the shape on the overlay
ABOUT_IMAGE = (
    "The photo was turned upright by its EXIF tag. All pixel numbers in this file are those of the image of "
    "width x height. Divide them by factor to get pixels of the original photo."
)
SHAPE = "x = mean + sum_k identity[k] identity_basis[k] + sum_k expression[k] expression_basis[k]"
ABOUT_SHAPE = (
    "mean and bases are those of the model, in mm: x to the viewer's right, y up, z towards the viewer. Identity "
    "coefficients are in standard deviations; an expression coefficient of 1 is that expression in full. face.obj and "
    "face.ply hold x in mm, followed by vertices that close eyes and mouth. face.glb holds it in metres."
)
PREDICTED = "x = mean + f_id(c_id) + f_res(c_res)"
ABOUT_PREDICTED = (
    "A network predicted the codes c_id and c_res. Its linear decoders f_id and f_res return x, in mm, on the axes "
    "of the model: x to the viewer's right, y up, z towards the viewer. face.obj and face.ply hold x in mm, then the "
    "vertices that close eyes and mouth. face.glb holds it in metres."
)
ABOUT_CAMERA = (
    "u = (right, down) in pixels from the image's top left corner; the first pixel's centre is at (0.5, 0.5). scale is "
    "in pixels per mm."
)


@dataclass(frozen=True)
class Fitter:
    """A model with the values that are computed once for it: embedding, closed surface and texel positions."""

    model: MorphableModel
    embedding: Embedding | None = None  # of the landmarks to fit; None: the model's own 68
    side: int = 1024  # texels on a side of the texture
    errors: PointErrors | None = None  # of the landmarks on this model; None: independent noise

    @functools.cached_property
    def surface(self) -> Surface:
        return close(self.model)

    @functools.cached_property
    def texels(self) -> Texels:
        return lay_out(self.surface, self.model, self.side)


def read_ict() -> MorphableModel:
    """Return ICT-FaceKit from the asset. Raises AssetError if it is not on this machine."""
    folder = asset("ict-facekit")
    compact = folder / "ict_face_head_11248.npz"
    return read(compact if compact.is_file() else next(folder.glob("**/FaceXModel"), folder))


@functools.cache
def ict_fitter(side: int = 1024) -> Fitter:
    """Return ICT-FaceKit with MediaPipe's points on it. Raises AssetError if an asset is not on this machine."""
    model = read_ict()
    return Fitter(model, mediapipe_embedding(model), side, PointErrors.load())


def fit_photos(
    fitter: Fitter, points: Float[Tensor, "photos points 2"], subject: Int[Tensor, " photos"] | None = None
) -> Fit:
    """Fit the model to the fitter's landmarks, with the errors and priors that suit them (see `facenb.fitting.fit`)."""
    if fitter.errors is not None:
        chosen, embedding = fitter.errors.points, fitter.embedding
        embedding = Embedding(embedding.vertices[chosen], embedding.weights[chosen])
        return fit(fitter.model, points[:, chosen], subject, contour="fixed", embedding=embedding, errors=fitter.errors)
    priors = dict.fromkeys(("identity_prior", "expression_prior"), PRIOR * points.shape[1] / MESH)
    return fit(fitter.model, points, subject, contour="fixed", embedding=fitter.embedding, **priors)


@dataclass(frozen=True)
class PhotoFace:
    """A 3D face from one photo. `vertices` are those of the closed mesh, in mm on the model's axes."""

    image: Float[Tensor, "height width 3"]  # the input image: the photo, or a smaller copy of it
    original: tuple[int, int]  # height, width of the photo as it is shown, pixels
    landmarks: Float[Tensor, "points 2"]  # what the model was fitted to, pixels of `image`
    faces: int  # number of faces in the photo
    fit: Fit
    vertices: Float[Tensor, "closed 3"]
    texture: Float[Tensor, "side side 3"]
    fitter: Fitter
    network: str = ""  # the network that predicted the shape; "" if it was fitted
    others: tuple["PhotoFace", ...] = ()  # faces from the same person's other photos, which share the identity

    def colours(self) -> Float[Tensor, "closed 3"]:
        """Return the texture's colour at each vertex."""
        return vertex_colours(self.texture, self.fitter.surface, len(self.vertices))

    def overlay(self) -> Float[Tensor, "height width2 3"]:
        """Return two images side by side: the photo with its landmarks, and the photo with the fitted shape on it."""
        key = directional(torch.tensor([[-0.3, 0.4, 0.85]]), 0.75 * torch.ones(1, 3))
        light = ambient(0.35 * torch.ones(1, 3)) + key
        clay = torch.tensor(CLAY).expand_as(self.vertices)[None]
        size = (self.image.shape[0], self.image.shape[1])
        triangles, behind = self.fitter.surface.triangles, self.image[None]
        drawn = render(self.vertices[None], triangles, clay, self.fit.camera, size, light, behind).image[0]
        return torch.cat([_dotted(self.image, self.landmarks), self.image.lerp(drawn.clamp(0, 1), OPACITY)], 1)


def _dotted(image: Tensor, points: Tensor) -> Tensor:
    """Return the image with a small square at each point, in proportion to the image's size."""
    reach, drawn = max(image.shape[:2]) // 500, image.clone()
    for u, v in points[(points >= reach).all(1)].long().tolist():
        drawn[v - reach : v + reach + 1, u - reach : u + reach + 1] = torch.tensor([0.2, 0.95, 0.3])
    return drawn


def _stacked(images: Sequence[Tensor]) -> Float[Tensor, "height width 3"]:
    """Return images below each other, all as wide as the widest."""
    width, planes = max(image.shape[1] for image in images), []
    for image in images:
        size = (round(image.shape[0] * width / image.shape[1]), width)
        planes.append(functional.interpolate(image.permute(2, 0, 1)[None], size, mode="bilinear"))
    return torch.cat(planes, 2)[0].permute(1, 2, 0)


def fit_landmarks(
    image: Float[Tensor, "height width 3"],
    landmarks: Float[Tensor, "points 2"],
    fitter: Fitter,
    original: tuple[int, int] | None = None,
    faces: int = 1,
) -> PhotoFace:
    """Return the 3D face of a photo whose landmarks (pixels) are known: fit the model, then take its texture."""
    return textured(image, original, landmarks, faces, fit_photos(fitter, landmarks[None]), fitter)


def textured(
    image: Float[Tensor, "height width 3"],
    original: tuple[int, int] | None,
    landmarks: Float[Tensor, "points 2"],
    faces: int,
    fitted: Fit,
    fitter: Fitter,
    shape: Float[Tensor, "vertices 3"] | None = None,
) -> PhotoFace:
    """Return the face of a photo with its fit. `shape`: vertices, mm; None for those of the fit."""
    shape = fitter.model.shape(fitted.identity, fitted.expression)[0] if shape is None else shape
    vertices = fitter.surface.complete(shape)
    texture = project_photo(image, vertices, fitted.camera, fitter.surface, fitter.texels)
    size = original or (image.shape[0], image.shape[1])
    return PhotoFace(image, size, landmarks, faces, fitted, vertices, texture, fitter)


def find_face(
    path: str | Path, which: str
) -> tuple[Float[Tensor, "height width 3"], tuple[int, int], Float[Tensor, "points 2"], int]:
    """Return image, size of the original, points of the chosen face, and number of faces.

    Raise ImageError, naming the file, if it is not an image or shows no face.
    """
    image, original = read_photo(path, LIMIT)
    faces = detect(image, closer=True)
    if not len(faces):
        raise ImageError(f"{path}: no face was found; take a photo where the face is larger and turned less away")
    points = central(faces, image) if which == "central" else faces[0]
    return image, original, points[:MESH], len(faces)


def photo_to_face(path: str | Path, which: str = "largest", fitter: Fitter | None = None) -> PhotoFace:
    """Return the 3D face of a photo.

    Raises ImageError, naming the file, if it is not an image or shows no face; AssetError if there is no model to fit.
    """
    image, original, points, faces = find_face(path, which)
    return fit_landmarks(image, points, fitter or ict_fitter(), original, faces)


def photos_to_face(paths: Sequence[str | Path], which: str = "largest", fitter: Fitter | None = None) -> PhotoFace:
    """Return the 3D face at rest of the person on all photos, textured from the photo that is nearest to frontal.

    All photos share the identity; each has its own expression and camera. The face's `others` are the faces of all
    photos, in their order. Raises as `photo_to_face`.
    """
    fitter, found = fitter or ict_fitter(), [find_face(path, which) for path in paths]
    shared = fit_photos(fitter, torch.stack([face[2] for face in found]), torch.zeros(len(found), dtype=torch.int64))
    faces = []
    for k, (image, original, points, count) in enumerate(found):
        one = slice(k, k + 1)
        camera = WeakPerspective(*(value[one] for value in vars(shared.camera).values()))
        per_image = {name: getattr(shared, name)[one] for name in ("expression", "subject", "error", "unit")}
        faces.append(textured(image, original, points, count, replace(shared, camera=camera, **per_image), fitter))
    frontal = max(faces, key=lambda face: float(face.fit.camera.rotation[0, 2, 2]))
    at_rest = fitter.surface.complete(fitter.model.shape(shared.identity)[0])
    return replace(frontal, vertices=at_rest, others=tuple(faces))


def refuse_existing(folder: str | Path, force: bool = False) -> None:
    """Raise RunError if the folder is a file, or holds an earlier result and `force` is not set."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; choose another folder")
    present = [name for name in FILES if (folder / name).exists()]
    if present and not force:
        raise RunError(f"{folder} holds {', '.join(present)} already; choose another folder, or overwrite with --force")


def save(face: PhotoFace, folder: str | Path, force: bool = False) -> Path:
    """Write overlay, OBJ with MTL and PNG, PLY, GLB and coefficients into a folder, all or none. Return the folder.

    Raises RunError if the folder holds such files already (unless `force`) or cannot be written.
    """
    folder, surface = Path(folder), face.fitter.surface
    refuse_existing(folder, force)
    with explained(folder, RunError, "--out names another folder."):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".facenb-", dir=folder) as temporary:
            work = Path(temporary)
            save_image(work / "overlay.png", _stacked([shown.overlay() for shown in face.others or (face,)]))
            save_obj(work / "face.obj", face.vertices, surface, face.texture)
            save_glb(work / "face.glb", face.vertices, surface, face.texture)
            rgb = as_bytes(face.colours()).numpy()
            mesh = trimesh.Trimesh(face.vertices.numpy(), surface.triangles.numpy(), vertex_colors=rgb, process=False)
            mesh.export(work / "face.ply")
            (work / "coefficients.json").write_text(json.dumps(_content(face), indent=1), encoding="utf-8")
            for name in FILES:
                os.replace(work / name, folder / name)
    return folder


def _content(face: PhotoFace) -> dict:
    """Return the coefficients of a photo, or of a person: the shared identity, and each photo's own numbers."""
    if not face.others:
        return coefficients(face)
    photos = [coefficients(other) for other in face.others]
    common = {name: photos[0][name] for name in ("model", "source", "shape", "identity")}
    return common | {"photos": [{name: one[name] for name in one if name not in common} for one in photos]}


def coefficients(face: PhotoFace) -> dict:
    """Return the fit as plain numbers, with the formulas that turn them into vertices and pixels."""
    model, camera = face.fitter.model, face.fit.camera
    names = model.expression_names or tuple(map(str, range(len(model.expression_basis))))
    (height, width), (full_height, full_width) = face.image.shape[:2], face.original
    image = {"width": width, "height": height, "original_width": full_width, "original_height": full_height}
    identity, expression = face.fit.identity[0].tolist(), face.fit.expression[0].tolist()
    if face.network:
        values = {"shape": {"network": face.network, "formula": PREDICTED, "explanation": ABOUT_PREDICTED}}
        values |= {"c_id": identity, "c_res": expression}
    else:
        values = {"shape": {"formula": SHAPE, "explanation": ABOUT_SHAPE}}
        values |= {"identity": identity, "expression": dict(zip(names, expression, strict=True))}
    return {
        "model": model.name,
        "source": model.source,
        "image": image | {"factor": width / full_width, "explanation": ABOUT_IMAGE, "faces": face.faces},
        **values,
        "camera": {
            "kind": "weak perspective",
            "formula": "u = scale P rotation x + translation",
            "explanation": ABOUT_CAMERA,
            "P": [[1, 0, 0], [0, -1, 0]],
            "rotation": camera.rotation[0].tolist(),
            "scale": float(camera.scale[0]),
            "translation": camera.translation[0].tolist(),
        },
        "error_px": float(face.fit.error[0]),
    }
