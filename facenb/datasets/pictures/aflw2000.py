"""AFLW2000-3D: image*.jpg, each with a label file image*.mat, and the re-annotated landmarks.

Pose_Para is (pitch, yaw, roll, t_x, t_y, t_z, scale). The landmarks are projections of points of a fitted 3D model, so
the landmarks of the far side are included although they are hidden.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facenb.arrays import read_arrays
from facenb.datasets.folders import AGAIN, DEPTH, files_in, find_folder, sibling
from facenb.errors import AssetError
from facenb.photos.images import read_image

# The pixel convention of the labels is not published. We compared both sets of labels with MediaPipe's inner points on
# 425 near-frontal photographs. If the first pixel's centre is 0, the offset is smaller. Our centres are at +0.5.
TO_OURS = 0.5


@dataclass(frozen=True)
class Sample:
    """One photo with its labels."""

    photo: Path
    landmarks: Float[Tensor, "68 2"]  # pixels, fixed points of a fitted face
    yaw: float  # radians, in the convention of the set's authors, from -pi/2 to pi/2
    reannotated: Float[Tensor, "68 2"] | None = None  # pixels, the labels that circulate with the code of 3DDFA

    def image(self) -> Float[Tensor, "height width 3"]:
        return read_image(self.photo)


def read_labels(photo: Path, name: str) -> tuple[Float[Tensor, "68 2"], np.ndarray]:
    """Return the landmarks (pixels) called `name` and Pose_Para (7) beside a photo. Raises AssetError."""
    path = sibling(photo, ".mat")
    values = read_arrays(path)
    points, pose = np.asarray(values.get(name, np.nan)), np.ravel(values.get("Pose_Para", np.nan))
    finite = np.isfinite(points).all() and np.isfinite(pose).all()
    if points.shape not in ((2, 68), (3, 68)) or len(pose) != 7 or not finite:
        content = ", ".join(f"{key} {np.shape(value)}" for key, value in values.items())
        raise AssetError(f"{path} needs {name} (2, 68) and Pose_Para (7), all finite, but holds {content}. {AGAIN}")
    return torch.from_numpy(points[:2].T.astype(np.float32)) + TO_OURS, pose


def read_aflw2000(folder: str | Path | None = None) -> list[Sample]:
    """Return AFLW2000-3D from the folder with its images; reannotated68.npz lies there or above. Raises AssetError."""
    expected = "images like AFLW2000/image00002.jpg"
    inner = find_folder(folder, "aflw2000-3d", lambda inner: bool(_photos(inner)), expected)
    labels = [above / "reannotated68.npz" for above in (inner, *list(inner.parents)[:DEPTH])]
    reannotated = next((_reannotated(path) for path in labels if path.is_file()), {})
    samples = []
    for photo in _photos(inner):
        points, pose = read_labels(photo, "pt3d_68")
        # In a few labels, all three angles include up to several full turns. For any pitch and roll, one entry of the
        # rotation matrix is sin(yaw), which measures how far a face is turned.
        yaw = math.asin(math.sin(pose[1]))
        samples.append(Sample(photo, points, yaw, reannotated.get(photo.stem)))
    return samples


def _photos(folder: Path) -> list[Path]:
    return [photo for photo in files_in(folder) if photo.name.startswith("image")]


def _reannotated(path: Path) -> dict[str, Float[Tensor, "68 2"]]:
    arrays = read_arrays(path)
    names, points = arrays.get("image"), arrays.get("points")
    if names is None or points is None or points.shape != (len(names), 68, 2):
        raise AssetError(f"{path} does not hold image (n) and points (n, 68, 2). {AGAIN}")
    labels = torch.from_numpy(points.astype(np.float32)) + TO_OURS
    return dict(zip((Path(name).stem for name in names.tolist()), labels, strict=True))
