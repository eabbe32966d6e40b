"""AFLW2000-3D in its official layout: image*.jpg with image*.mat, and the re-annotated landmarks.

Pose_Para is (pitch, yaw, roll, t_x, t_y, t_z, scale). Its landmarks are the projections of points of a fitted 3D model:
those of the far side are there although they cannot be seen.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from scipy.io import loadmat
from scipy.io.matlab import MatReadError
from torch import Tensor

from facenb.assets import asset
from facenb.errors import AssetError
from facenb.photos.images import read_image

# How the labels count pixels is not written anywhere. Against MediaPipe's inner points on 425 near-frontal photographs
# "from 0 at the first pixel's centre" leaves the smaller offset in both sets of labels; ours is 0.5 there.
TO_OURS = 0.5


@dataclass(frozen=True)
class Sample:
    """One photo with its ground truth."""

    photo: Path
    landmarks: Float[Tensor, "68 2"]  # pixels, the original labels
    reannotated: Float[Tensor, "68 2"] | None  # pixels, the labels that circulate with the 3DDFA code
    yaw: float  # radians, as its authors count it, from -pi/2 to pi/2 (see `folded`)
    shape: Float[Tensor, " 199"]  # BFM-2009 coefficients, not whitened
    expression: Float[Tensor, " 29"]

    def image(self) -> Float[Tensor, "height width 3"]:
        return read_image(self.photo)


@dataclass(frozen=True)
class AFLW2000:
    """The photos in the order of their names; iterate for the samples."""

    photos: tuple[Path, ...]
    reannotated: dict[str, Float[Tensor, "68 2"]]  # by file name

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> Sample:
        photo = self.photos[index]
        path = photo.with_suffix(".mat")
        if not path.is_file():
            raise AssetError(f"there is no {path} beside its photo; get AFLW2000-3D again")
        try:
            values = loadmat(path)
            points = np.asarray(values["pt3d_68"], dtype=np.float32)[:2].T
            pose = np.asarray(values["Pose_Para"], dtype=np.float64).ravel()
            shape, expression = (np.asarray(values[key], np.float32).ravel() for key in ("Shape_Para", "Exp_Para"))
        except (KeyError, MatReadError, ValueError, TypeError, OSError, IndexError) as error:
            raise AssetError(f"{path} is no label file of AFLW2000-3D ({error}); get it again") from error
        if points.shape != (68, 2):
            raise AssetError(f"{path} holds {points.shape[0]} landmarks, not 68; get AFLW2000-3D again")
        return Sample(photo, torch.from_numpy(points.copy()) + TO_OURS, self.reannotated.get(photo.name),
                      folded(float(pose[1])), torch.from_numpy(shape), torch.from_numpy(expression))  # fmt: skip

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))


def folded(yaw: float) -> float:
    """The same yaw (radians) between -pi/2 and pi/2.

    A few labels are written in other angles of the same rotation, up to several turns of all three. The rotation has
    sin(yaw) for one of its entries whatever pitch and roll are, so that is what tells how far a face is turned.
    """
    return math.asin(math.sin(yaw))


def read_aflw2000(folder: str | Path | None = None) -> AFLW2000:
    """AFLW2000-3D from a folder that holds AFLW2000/ (and reannotated68.npz, where there is one); None: the asset.

    Raises AssetError naming what is missing.
    """
    root = Path(folder) if folder is not None else asset("aflw2000-3d")
    photos = tuple(sorted((root / "AFLW2000").glob("image*.jpg")))
    if not photos:
        raise AssetError(f"{root / 'AFLW2000'} holds no image*.jpg; `python -m data_download get aflw2000-3d` gets it")
    path = root / "reannotated68.npz"
    if not path.is_file():
        return AFLW2000(photos, {})
    with np.load(path, allow_pickle=False) as file:
        names, points = file["image"].tolist(), torch.from_numpy(file["points"].astype(np.float32))
    names = [name if name.endswith(".jpg") else f"{name}.jpg" for name in names]
    return AFLW2000(photos, dict(zip(names, points + TO_OURS, strict=True)))
