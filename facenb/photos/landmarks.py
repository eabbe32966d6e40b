"""Landmarks on photos by MediaPipe's face landmarker: 478 points for each face.

Points 0 to 467 are the vertices of MediaPipe's canonical mesh, points 468 to 477 lie on the irises. The result for a
photo is the same in any order and on any number of threads.
"""

import atexit
import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from facenb.assets import asset
from facenb.errors import ImageError
from facenb.morphable.alignment import Similarity
from facenb.photos.crops import resample
from facenb.photos.images import as_bytes

POINTS, MESH = 478, 468
FACES = 5  # largest number of faces to detect in a photo
GROUP = 32  # with `closer`
PORTRAIT = 0.4  # part of the photo's shorter side: beside a larger face we do not look for small ones, to save time
VERSION = 5  # increase it when `detect` changes; then stored results are computed again
# The mesh points nearest to the 68 of Multi-PIE / iBUG, in their order. On 425 near-frontal photos of AFLW2000-3D, the
# distance of inner points to their labels is 1 to 4 % of the face's size. For the jaw line it is 2 to 7 %.
JAW = "127 234 93 58 172 136 150 176 152 400 379 365 397 288 323 454 356"
BROWS_AND_NOSE = "70 63 105 66 107 336 296 334 293 300 168 197 5 4 75 97 2 326 305"
EYE_CONTOURS = "33 160 158 133 153 144 362 385 387 263 373 380"
LIPS = "61 39 37 0 267 269 291 405 314 17 84 181 78 82 13 312 308 317 14 87"
IBUG68 = tuple(map(int, f"{JAW} {BROWS_AND_NOSE} {EYE_CONTOURS} {LIPS}".split()))
EYES, NOSE_TIP, MOUTH = ((33, 133), (362, 263)), 4, (61, 291)
# Limits for the movement of a face's points in a second detection, as a fraction of the face's size. We turned 42
# photos of AFLW2000-3D in steps of 30 degrees. In the best quarter turn, a face moves by less than CONFIRMED (90 %
# below 0.035). No wrong detection that looks upright moves by less than 0.015.
CONFIRMED, CERTAIN = 0.05, 0.01
CLOSE_UP = 256  # pixels on a side of the crop for the second detection


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the C++ library's start-up messages off the terminal. They bypass Python, so the descriptor is replaced."""
    sys.stderr.flush()
    terminal = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)


@functools.cache
def _detector(model: Path, faces: int) -> Callable:
    """Return MediaPipe's detector of at most `faces` faces as a function of an image's bytes."""
    try:
        import mediapipe
        from mediapipe.tasks import python as tasks
        from mediapipe.tasks.python import vision
    except ImportError as error:
        raise ImageError("landmarks on photos need mediapipe: pip install 'facenb[photos]'") from error

    def run(pixels: np.ndarray):
        return detector.detect(mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=pixels))

    base = tasks.BaseOptions(model_asset_path=str(model))
    options = vision.FaceLandmarkerOptions(base_options=base, num_faces=faces)
    with _quiet():
        detector = vision.FaceLandmarker.create_from_options(options)
        run(np.zeros((64, 64, 3), np.uint8))  # the first image prints further messages
    # Closing fails, with a long message, once the interpreter shuts down. The system frees the memory anyway.
    atexit.register(setattr, detector, "_handle", None)
    return run


def detect(image: Float[Tensor, "height width 3"], closer: bool = False) -> Float[Tensor, "faces 478 2"]:
    """Return the points (pixels) of the confirmed faces of a photo (RGB in [0, 1]), at most FACES, the largest first.

    The photo may be turned by any angle. The detector finds upright faces best, and sometimes finds a face on an ear or
    a hat. So we search all quarter turns, and detect each face again in a crop in which the eye line is horizontal. A
    face is confirmed if the second detection gives the same points. If no face is found, we add a margin and search
    again. The detector misses faces smaller than about an eighth of the photo. So with `closer`, we also search in
    overlapping parts unless the photo is a portrait, and return at most GROUP faces. Raise AssetError if the detector's
    file is missing.
    """
    (height, width), most = image.shape[:2], GROUP if closer else FACES
    faces = _search(image, most)
    if not faces:
        margin = max(height, width) // 2
        faces = _search(functional.pad(image, (0, 0, margin, margin, margin, margin)), most, -margin, -margin)
    largest = max((float((points.amax(0) - points.amin(0)).max()) for _, points in faces), default=0.0)
    if closer and largest < PORTRAIT * min(height, width):
        turns = 1 if faces else 4  # a group is seldom photographed with some heads up and some down
        for u, v, side in _squares(height, width):
            parts = _search(image[v : v + side, u : u + side], most, u, v, turns)
            # A face that was found in the whole photo has priority over the same face in a part.
            faces = faces + [(movement + CONFIRMED, points) for movement, points in parts]
    distinct = sorted(_distinct(faces), key=lambda points: -float((points.amax(0) - points.amin(0)).prod()))
    return torch.stack(distinct[:most]) if distinct else torch.zeros(0, POINTS, 2)


def central(faces: Float[Tensor, "faces 478 2"], image: Float[Tensor, "height width 3"]) -> Float[Tensor, "478 2"]:
    """Return the face that is nearest to the image's centre."""
    centre = torch.tensor([image.shape[1] / 2, image.shape[0] / 2])
    return faces[(faces.mean(1) - centre).norm(dim=1).argmin()]


def _search(image: Tensor, most: int, left: int = 0, top: int = 0, turns: int = 4) -> list[tuple[float, Tensor]]:
    """Return the confirmed faces of an image as (movement, points (478, 2)); `left` and `top` are added to the points.

    `turns` is the number of quarter turns to search. If all faces of the unturned image are certain, the others are
    skipped to save time.
    """
    pixels = as_bytes(image).numpy()
    faces: list[tuple[float, Tensor]] = []
    for turn in range(turns):
        for points in _points(np.rot90(pixels, turn), most):
            points = _turned_back(points, turn, pixels.shape[1], pixels.shape[0])
            faces.append((_movement(image, points), points + torch.tensor([float(left), float(top)])))
        if turn == 0 and faces and all(movement < CERTAIN for movement, _ in faces):
            break
    return [face for face in faces if face[0] < CONFIRMED]


def _distinct(faces: Iterable[tuple[float, Tensor]]) -> list[Tensor]:
    """Return the points of faces at different positions. Of faces at one position, keep the one that moves least."""
    kept: list[Tensor] = []
    for _, points in sorted(faces, key=lambda face: face[0]):
        reach = 0.5 * (points.amax(0) - points.amin(0)).norm()
        if all((points.mean(0) - other.mean(0)).norm() > reach for other in kept):
            kept.append(points)
    return kept


def _movement(image: Tensor, points: Tensor) -> float:
    """Detect a face again in its upright crop. Return the mean movement of its points, in units of the face's size.

    The crop is twice as large as the face. Return infinity if no face is found in the crop.
    """
    eyes = five_points(points)[:2].double()
    cosine, sine = ((eyes[1] - eyes[0]) / (eyes[1] - eyes[0]).norm()).tolist()
    rotation = torch.tensor([[cosine, sine], [-sine, cosine]], dtype=torch.float64)
    turned = points.double() @ rotation.T
    low, high = turned.amin(0), turned.amax(0)
    scale = CLOSE_UP / (2 * float((high - low).max()))
    onto = Similarity(torch.tensor([scale]), rotation[None], (CLOSE_UP / 2 - scale * (low + high) / 2)[None])
    crop = resample(image[None], onto, (CLOSE_UP, CLOSE_UP))[0].permute(1, 2, 0)
    distances = (_points(as_bytes(crop).numpy()) - onto.apply(points[None])).norm(dim=-1).mean(1) / (CLOSE_UP / 2)
    return float(distances.min()) if len(distances) else float("inf")


def _turned_back(points: Tensor, turns: int, width: int, height: int) -> Tensor:
    """Map points from an image after `turns` counterclockwise quarter turns to the image itself (width, height)."""
    u, v = points.unbind(-1)
    return torch.stack([(u, v), (width - v, u), (width - u, height - v), (v, height - u)][turns], -1)


def _points(pixels: np.ndarray, most: int = FACES) -> Float[Tensor, "faces 478 2"]:
    detector = _detector(asset("mediapipe") / "face_landmarker.task", most)
    result = detector(np.ascontiguousarray(pixels))
    faces = [[(point.x, point.y) for point in face] for face in result.face_landmarks]
    extent = torch.tensor([float(pixels.shape[1]), float(pixels.shape[0])])
    return torch.tensor(faces, dtype=torch.float32).reshape(-1, POINTS, 2) * extent


def _squares(height: int, width: int) -> Iterator[tuple[int, int, int]]:
    """Yield left, top and side of half-overlapping squares that cover the photo: the largest, then a third as large."""
    shorter = min(height, width)
    for side in (shorter, min(shorter, max(shorter // 3, 32))):
        columns, rows = (-(-2 * extent // side) - 1 for extent in (width, height))
        for row in range(rows):
            for column in range(columns):
                yield min(column * side // 2, width - side), min(row * side // 2, height - side), side


def to_68(points: Float[Tensor, "*batch points 2"]) -> Float[Tensor, "*batch 68 2"]:
    """Return the 68 landmarks of Multi-PIE / iBUG among MediaPipe's points."""
    return points[..., list(IBUG68), :]


def five_points(points: Float[Tensor, "points 2"]) -> Float[Tensor, "5 2"]:
    """Return eye centres, nose tip and mouth corners, image left first."""
    eyes = [points[list(corners)].mean(0) for corners in EYES]
    return torch.stack([*eyes, points[NOSE_TIP], *points[list(MOUTH)]])
