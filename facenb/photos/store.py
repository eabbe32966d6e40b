"""Prepared photos: the crop, the landmarks and the fit of each photo, computed once and cached.

The cache key of a photo is the SHA-256 of its file, not its path. So a run that was stopped continues where it ended.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int, UInt8
from pooch import file_hash
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from facenb.assets import asset
from facenb.errors import ImageError
from facenb.fitting import Fit
from facenb.imaging.camera import WeakPerspective
from facenb.photos.cache import kept
from facenb.photos.crops import crop_photos, template
from facenb.photos.images import as_bytes, read_photo
from facenb.photos.landmarks import MESH, POINTS, VERSION, central, detect, five_points, to_68
from facenb.photos.photo import LIMIT, Fitter, fit_photos

SIDE = 112  # pixels of the crop that is kept: the largest that a network here takes


@dataclass(frozen=True)
class Prepared:
    """Prepared photos, in the order of the input. Points are in pixels of the upright photo, NaN without a face."""

    points: Float[Tensor, "photos 478 2"]  # MediaPipe's, of the face nearest to the photo's centre
    five: Float[Tensor, "photos 5 2"]  # eye centres, nose tip, mouth corners, image left first
    faces: Int[Tensor, " photos"]  # number of faces in the photo
    size: Int[Tensor, "photos 2"]  # height, width of the photo
    crop: UInt8[Tensor, "photos 112 112 3"]  # see `crops`

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, rows: Int[Tensor, " chosen"] | Bool[Tensor, " photos"] | slice) -> "Prepared":
        return Prepared(**{name: values[rows] for name, values in vars(self).items()})

    @property
    def found(self) -> Bool[Tensor, " photos"]:
        """Whether a face was found."""
        return self.faces > 0

    @property
    def mesh(self) -> Float[Tensor, "photos 468 2"]:
        """The points of MediaPipe's canonical mesh, which a model is fitted to."""
        return self.points[:, :MESH]

    @property
    def landmarks(self) -> Float[Tensor, "photos 68 2"]:
        """The 68 landmarks of iBUG."""
        return to_68(self.points)

    def crops(self, size: tuple[int, int]) -> UInt8[Tensor, "photos height width 3"]:
        """Return each face on `crops.template(size)`; the middle of the photo where no face was found.

        The stored crops of 112 x 112 pixels are scaled to `size` (height, width). The width must not exceed the height,
        and their difference must be even.
        """
        height, width = size
        left = (height - width) // 2
        crops = torch.empty(len(self), height, width, 3, dtype=torch.uint8)
        for rows in torch.arange(len(self)).split(256):  # all photos as floats would need four times the memory
            planes = self.crop[rows].permute(0, 3, 1, 2).float()
            if height != SIDE:
                planes = functional.interpolate(planes, (height, height), mode="bilinear", antialias=True)
            crops[rows] = planes[..., left : left + width].permute(0, 2, 3, 1).round().to(torch.uint8)
        return crops

    def fit(self, fitter: Fitter) -> Fit:
        """Return the separate fit of each photo, cached for each model. Every photo must show a face."""

        def fields() -> dict[str, Tensor]:
            fitted = vars(fit_photos(fitter, self.mesh))
            return {name: value for name, value in fitted.items() if name != "camera"} | vars(fitted["camera"])

        model = fitter.model
        inputs = [self.points, model.mean, model.identity_basis, model.expression_basis, fitter.embedding.weights]
        if fitter.errors is not None:
            inputs += [fitter.errors.bias, fitter.errors.loading, fitter.errors.variance]
        values = kept("fits/3", fields, *inputs)  # 3: version of the stored format
        camera = WeakPerspective(*(values.pop(name) for name in ("rotation", "scale", "translation")))
        return Fit(camera=camera, **values)


def prepare_photos(paths: Sequence[str | Path], aligned: bool = False) -> Prepared:
    """Return prepared photos of image files, and add new ones to the cache.

    With `aligned`, the images have 112 x 112 pixels and are aligned to InsightFace's five points. Then the images are
    the crops. Raise ImageError with the file name if a file is not an image or, with `aligned`, has another size.
    """
    task = (asset("mediapipe") / "face_landmarker.task").read_bytes()
    settings = hashlib.sha256(task + f"{VERSION} {SIDE} {LIMIT} {aligned}".encode()).hexdigest()[:16]
    photos = []
    for path in tqdm(map(Path, paths), "photos", len(paths), disable=None, leave=False):
        try:
            key = file_hash(path)
        except OSError as error:
            raise ImageError(f"photo {path} cannot be read: {error.strerror}; name image files") from error
        photos.append(kept(f"photos/{settings}/{key[:2]}/{key}", lambda path=path: _prepare_file(path, aligned)))
    return _stacked(photos)


def prepare_images(images: Iterable[Float[Tensor, "_height _width 3"]], aligned: bool = False) -> Prepared:
    """Return prepared photos of images in memory (RGB in [0, 1]), as `prepare_photos` does. Nothing is cached."""
    return _stacked([_prepare(image, aligned, f"image {number}") for number, image in enumerate(images)])


def _prepare_file(path: Path, aligned: bool) -> dict[str, Tensor]:
    """Decode a photo, once, and return its fields in pixels of the whole photo."""
    image, size = read_photo(path, LIMIT)
    fields = _prepare(image, aligned, str(path))
    factor = size[1] / image.shape[1]
    scaled = {name: factor * fields[name] for name in ("points", "five")}
    return fields | scaled | {"size": torch.tensor(size)}


def _prepare(image: Tensor, aligned: bool, name: str) -> dict[str, Tensor]:
    if aligned and image.shape[:2] != (SIDE, SIDE):
        size = f"{image.shape[1]} x {image.shape[0]} pixels; aligned images have {SIDE} x {SIDE}"
        raise ImageError(f"{name} is {size}. Scale it, or give aligned=False to crop by landmarks.")
    faces = detect(image)
    points = central(faces, image) if len(faces) else torch.full((POINTS, 2), torch.nan)
    five = template((SIDE, SIDE)) if aligned else five_points(points)
    crop = as_bytes(image) if aligned else crop_photos([image], five[None], (SIDE, SIDE))[0]
    size = torch.tensor(image.shape[:2])
    return {"points": points, "five": five, "faces": torch.tensor(len(faces)), "size": size, "crop": crop}


def _stacked(photos: list[dict[str, Tensor]]) -> Prepared:
    return Prepared(**{name: torch.stack([fields[name] for fields in photos]) for name in photos[0]})
