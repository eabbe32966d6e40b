"""Landmarks on photographs by MediaPipe's face landmarker: 478 points a face, deterministic, the same on any order.

Its points are those of MediaPipe's canonical mesh (0 to 467) and ten of the irises (468 to 477).
"""

import atexit
import contextlib
import functools
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm import tqdm

from data_download.folders import data_folder
from facenb.assets import asset
from facenb.errors import ImageError
from facenb.files import atomic_write, digest
from facenb.photos.images import read_image

POINTS, MESH = 478, 468
VERSION = 4  # raise when `detect` or the key of a photograph changes: kept results are then not used
# The mesh points nearest to the 68 of Multi-PIE / iBUG, in their order, checked on 425 near-frontal photographs of
# AFLW2000-3D: inner points lie within 1 to 4 % of the face's size of the labels, the jaw line within 2 to 7 %.
IBUG68 = (
    127, 234, 93, 58, 172, 136, 150, 176, 152, 400, 379, 365, 397, 288, 323, 454, 356,
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300, 168, 197, 5, 4, 75, 97, 2, 326, 305,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87,
)  # fmt: skip
EYES, NOSE_TIP, MOUTH = ((33, 133), (362, 263)), 4, (61, 291)


@dataclass(frozen=True)
class Detection:
    """All faces found in one photograph, the largest first; none is an outcome, not an error."""

    points: Float[Tensor, "faces 478 2"]  # pixels
    size: tuple[int, int]  # height, width of the photograph

    @property
    def count(self) -> int:
        return len(self.points)

    def pick(self, which: str = "largest") -> Float[Tensor, "478 2"]:
        """The largest face, or the one nearest to the picture's centre (`central`). ImageError if there is none."""
        if self.count == 0:
            raise ImageError("no face was found in the image; take one where the face is larger and turned less away")
        if which == "largest":
            return self.points[0]
        if which != "central":
            raise ValueError(f"which is {which!r}; it must be largest or central")
        height, width = self.size
        away = (self.points.mean(1) - torch.tensor([width / 2, height / 2])).norm(dim=1)
        return self.points[int(away.argmin())]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the C++ library's start-up remarks off the terminal; they bypass Python, so the descriptor is exchanged."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@functools.cache
def _detector(model: Path, faces: int):
    try:
        from mediapipe.tasks import python as tasks
        from mediapipe.tasks.python import vision
    except ImportError as error:
        raise ImageError("landmarks on photographs need mediapipe: pip install 'facenb[photos]'") from error
    options = vision.FaceLandmarkerOptions(base_options=tasks.BaseOptions(model_asset_path=str(model)), num_faces=faces)
    with _quiet():
        detector = vision.FaceLandmarker.create_from_options(options)
        _run(detector, np.zeros((64, 64, 3), np.uint8))  # the first picture makes it say more
    # Closing fails once the interpreter goes down, and says so at length; the system frees the memory anyway.
    atexit.register(setattr, detector, "_handle", None)
    return detector


def _run(detector, pixels: np.ndarray):
    import mediapipe

    return detector.detect(mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=pixels))


def detect(image: Float[Tensor, "height width 3"], faces: int = 5, closer: bool = False) -> Detection:
    """All faces (at most `faces`) of a photograph in RGB [0, 1].

    The detector overlooks faces smaller than about a tenth of the picture: with `closer`, parts of a picture in which
    it sees none are looked at by themselves. Raises AssetError where the detector is not here.
    """
    detector = _detector(asset("mediapipe") / "face_landmarker.task", faces)
    pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).contiguous().numpy()
    height, width = pixels.shape[:2]
    points = _points(detector, pixels)
    if closer and not len(points):
        points = torch.cat([_confirmed(detector, pixels, part) for part in _parts(height, width)])
    extent = (points.amax(1) - points.amin(1)).prod(1) if len(points) else torch.zeros(0)
    kept: list[Tensor] = []
    for face in points[torch.argsort(extent, descending=True, stable=True)]:
        reach = 0.5 * (face.amax(0) - face.amin(0)).norm()  # the same face may have been seen in two parts
        if all((face.mean(0) - other.mean(0)).norm() > reach for other in kept):
            kept.append(face)
    return Detection(torch.stack(kept[:faces]) if kept else torch.zeros(0, POINTS, 2), (height, width))


def _confirmed(detector, pixels: np.ndarray, part: tuple[int, int, int]) -> Float[Tensor, "faces 478 2"]:
    """Faces in a square part, each only if it is found again at the same place in a square of its own."""
    left, top, side = part
    found = _points(detector, pixels[top : top + side, left : left + side]) + torch.tensor([float(left), float(top)])
    kept = [torch.zeros(0, POINTS, 2)]
    for face in found:
        size = (face.amax(0) - face.amin(0)).max()
        u, v = ((face.amin(0) + face.amax(0)) / 2 - 1.25 * size).clamp(min=0).long().tolist()
        own = pixels[v : v + int(2.5 * size), u : u + int(2.5 * size)]
        again = _points(detector, own) + torch.tensor([float(u), float(v)])
        if len(again) and ((again - face).norm(dim=-1).mean(1) < 0.1 * size).any():
            kept.append(face[None])
    return torch.cat(kept)


def _points(detector, pixels: np.ndarray) -> Float[Tensor, "faces 478 2"]:
    result = _run(detector, np.ascontiguousarray(pixels))
    extent = (pixels.shape[1], pixels.shape[0])
    found = [[(point.x * extent[0], point.y * extent[1]) for point in face] for face in result.face_landmarks]
    return torch.tensor(found, dtype=torch.float32).reshape(-1, POINTS, 2)


def _parts(height: int, width: int) -> Iterator[tuple[int, int, int]]:
    """Left, top and side of squares that cover the picture, overlapping by half: first half its size, then a third."""
    for share in (2, 3):
        side = max(min(height, width) * (2 if share == 2 else 1) // share, 32)
        side = min(side, height, width)
        columns, rows = (-(-2 * extent // side) - 1 for extent in (width, height))
        for row in range(rows):
            for column in range(columns):
                yield min(column * side // 2, width - side), min(row * side // 2, height - side), side


def to_68(points: Float[Tensor, "*batch points 2"]) -> Float[Tensor, "*batch 68 2"]:
    """The 68 of Multi-PIE / iBUG among MediaPipe's points."""
    return points[..., list(IBUG68), :]


def five_points(points: Float[Tensor, "points 2"]) -> Float[Tensor, "5 2"]:
    """Eye centres, nose tip and mouth corners, image left first, as `images.five_point_crop` takes them."""
    eyes = [points[list(corners)].mean(0) for corners in EYES]
    return torch.stack([*eyes, points[NOSE_TIP], *points[list(MOUTH)]])


@dataclass(frozen=True)
class LandmarkTable:
    """Landmarks of many photographs, in the order asked for; rows of photographs without a face are NaN."""

    points: Float[Tensor, "photos 478 2"]
    faces: Int[Tensor, " photos"]  # how many were found in each photograph

    @property
    def found(self) -> Bool[Tensor, " photos"]:
        return self.faces > 0


def detector_checksum(which: str, faces: int) -> str:
    """Tells results of one detector and rule from any other's."""
    task = (asset("mediapipe") / "face_landmarker.task").read_bytes()
    return hashlib.sha256(task + f"{VERSION} {which} {faces}".encode()).hexdigest()


def detect_all(
    paths: Sequence[str | Path], cache: str | Path, which: str = "central", faces: int = 3, quiet: bool = False
) -> LandmarkTable:
    """Landmarks of many photographs, remembered in an npz file so that each is looked at once.

    `cache`: a file, or a name for one in the data folder. What was found by another detector or rule is not used; a
    photograph is known by its bytes, wherever it lies. The file is written every 1,000 photographs and at the end, so
    an interrupted run goes on. Raises ImageError naming a photograph that cannot be read.
    """
    cache = Path(cache) if Path(cache).suffix == ".npz" else data_folder() / ".landmarks" / f"{cache}.npz"
    checksum = detector_checksum(which, faces)
    keys = [_fingerprint(Path(path)) for path in paths]
    known = _load(cache, checksum)
    missing = {key: path for key, path in zip(keys, paths, strict=True) if key not in known}
    for done, (key, path) in enumerate(
        tqdm(missing.items(), desc="landmarks", disable=quiet, file=sys.stderr, leave=False)
    ):
        detection = detect(read_image(path), faces)
        points = detection.pick(which).numpy() if detection.count else np.full((POINTS, 2), np.nan, np.float32)
        known[key] = (points, detection.count)
        if done % 1000 == 999:
            _save(cache, checksum, known)
    if missing:
        _save(cache, checksum, known)
    points = np.stack([known[key][0] for key in keys]) if keys else np.zeros((0, POINTS, 2), np.float32)
    return LandmarkTable(torch.from_numpy(points), torch.tensor([known[key][1] for key in keys], dtype=torch.int64))


def _fingerprint(path: Path) -> str:
    """Tells a photograph's content from any other's; 10,000 of LFW take a second."""
    try:
        return digest(path)[:32]
    except OSError as error:
        raise ImageError(f"photograph {path} cannot be read: {error.strerror}; name image files") from error


def _load(cache: Path, checksum: str) -> dict[str, tuple[np.ndarray, int]]:
    """What the cache holds; a missing, damaged or foreign one holds nothing and is written anew."""
    try:
        with np.load(cache, allow_pickle=False) as file:
            if str(file["detector"]) != checksum:
                return {}
            columns: Iterable = zip(file["keys"].tolist(), file["points"], file["faces"].tolist(), strict=True)
            return {key: (points, count) for key, points, count in columns}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return {}


def _save(cache: Path, checksum: str, known: dict[str, tuple[np.ndarray, int]]) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    points = np.stack([points for points, _ in known.values()]).astype(np.float32)
    with atomic_write(cache) as partial, partial.open("wb") as file:
        np.savez(file, detector=checksum, keys=list(known), points=points, faces=[count for _, count in known.values()])
