"""300W-LP (Zhu et al. 2016): photos of four sets, each turned to many yaws by face profiling.

`300W_LP/<SET>/<SET>_<photo>_<turn>.jpg` has a `.mat` of the same name; SET is AFW, HELEN, IBUG or LFPW, and turn 0 is
the photo itself. The mirrored images in `<SET>_Flip/` are not read. All turns of a photo show one person
with one expression, so they are one identity here (the source). Two photos of one person are two identities, because
the set does not say who is on them.

`pt2d` in the `.mat` of a turned image repeats the landmarks of the photo that was not turned. The turned image's own
landmarks lie in `landmarks/<SET>/<name>_pts.mat`: `pts_3d`, 68 fixed points of the fitted face, are used here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facenb.arrays import read_arrays
from facenb.datasets.layout import AGAIN, files_in, find_folder
from facenb.datasets.pictures.aflw2000 import TO_OURS, Sample, read_labels
from facenb.errors import AssetError

SETS = ("AFW", "HELEN", "IBUG", "LFPW")


@dataclass(frozen=True)
class W300LP(Sequence):
    """The images set by set, in the order of their names: a sequence of samples."""

    folder: Path
    photos: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.photos)

    @cached_property
    def sources(self) -> dict[str, list[int]]:
        """The images of each source photo, as rows; a source is named like `HELEN/HELEN_2902154_1`."""
        sources: dict[str, list[int]] = {}
        for row, photo in enumerate(self.photos):
            sources.setdefault(f"{photo.parent.name}/{photo.stem.rpartition('_')[0]}", []).append(row)
        return sources

    def __getitem__(self, index: int) -> Sample:
        photo = self.photos[index]
        points, pose = read_labels(photo, "pt2d")
        if (self.folder / "landmarks").is_dir():
            path = self.folder / "landmarks" / photo.parent.name / f"{photo.stem}_pts.mat"
            return Sample(photo, _read_points(path), float(pose[1]))
        first = photo.with_name(f"{photo.stem.rpartition('_')[0]}_0{photo.suffix}")
        if photo != first and first.is_file() and torch.equal(points, read_labels(first, "pt2d")[0]):
            raise AssetError(
                f"{photo.name} and {first.name} have identical landmarks, but the photo was turned. Place the "
                f"set's folder landmarks/ in {self.folder}."
            )
        return Sample(photo, points, float(pose[1]))


def _read_points(path: Path) -> Float[Tensor, "68 2"]:
    points = read_arrays(path).get("pts_3d", np.zeros(0))
    if points.ndim != 2 or points.shape[0] != 68 or points.shape[1] < 2 or not np.isfinite(points).all():
        raise AssetError(f"Expected pts_3d (68, 2) with finite numbers in {path}, got {points.shape}. {AGAIN}")
    return torch.from_numpy(points[:, :2].astype(np.float32)) + TO_OURS


def read_w300lp(folder: str | Path | None = None, sets: Sequence[str] = SETS) -> W300LP:
    """Return 300W-LP from the folder with AFW/, HELEN/, IBUG/ and LFPW/, or one above. None: the asset `300w-lp`.

    Raises AssetError naming a set that is missing, ValueError for an unknown set.
    """
    unknown = [name for name in sets if name not in SETS]
    if unknown or not sets:
        raise ValueError(f"Expected sets among {', '.join(SETS)}, got {unknown or 'none'}")

    def holds(inner: Path) -> bool:
        return inner.name != "landmarks" and any((inner / name).is_dir() for name in sets)

    inner, photos = find_folder(folder, "300w-lp", holds, f"folders {', '.join(sets)}"), []
    for name in sets:
        images = [photo for photo in files_in(inner / name) if photo.name.startswith(f"{name}_")]
        if not images:
            raise AssetError(f"{inner / name} holds no images {name}_*.jpg. {AGAIN}")
        photos += sorted(images, key=_source_and_turn)
    return W300LP(inner, tuple(photos))


def _source_and_turn(photo: Path) -> tuple[str, int]:
    """Return source and turn, so that turn 10 comes after 9. Raises AssetError for a name without a turn."""
    source, _, turn = photo.stem.rpartition("_")
    if not turn.isdigit():
        raise AssetError(f"Expected a name like <set>_<photo>_<turn>.jpg, got {photo}. {AGAIN}")
    return source, int(turn)
