"""300W-LP (Zhu et al. 2016): photos of four sets, each turned to many yaws by face profiling.

`300W_LP/<SET>/<SET>_<photo>_<turn>.jpg` has a `.mat` of the same name; SET is AFW, HELEN, IBUG or LFPW, and turn 0 is
the photo itself. The mirrored images in `<SET>_Flip/` are not read. All turns of a photo show one person
with one expression, so we treat them as one identity, called the source. Two photos of one person are two identities,
because the set does not name the people.

In the `.mat` of a turned image, `pt2d` holds the landmarks of the unturned photo. The turned image's own
landmarks lie in `landmarks/<SET>/<name>_pts.mat`: `pts_3d`, 68 fixed points of the fitted face, are used here.
"""

from pathlib import Path

import numpy as np
import torch

from facenb.arrays import read_arrays
from facenb.datasets.folders import AGAIN, files_in, find_folder
from facenb.datasets.pictures.aflw2000 import TO_OURS, Sample, read_labels
from facenb.errors import AssetError

SETS = ("AFW", "HELEN", "IBUG", "LFPW")


def read_w300lp(folder: str | Path | None = None) -> dict[str, list[Path]]:
    """Return the images of each source photo (like `HELEN/HELEN_2902154_1`), by turn, from the folders of SETS.

    Raises AssetError naming a set that is missing, or an image without a turn in its name.
    """
    inner = find_folder(
        folder, "300w-lp", lambda inner: inner.name != "landmarks" and (inner / SETS[0]).is_dir(), ", ".join(SETS)
    )
    sources: dict[str, list[Path]] = {}
    for name in SETS:
        images = [image for image in files_in(inner / name) if image.name.startswith(f"{name}_")]
        if not images:
            raise AssetError(f"{inner / name} holds no images {name}_*.jpg. {AGAIN}")
        for image in sorted(images, key=_source_and_turn):
            sources.setdefault(f"{name}/{_source_and_turn(image)[0]}", []).append(image)
    return sources


def _source_and_turn(image: Path) -> tuple[str, int]:
    """Return source and turn as a sort key: turn 10 comes after turn 9. Raises AssetError for a name without a turn."""
    source, _, turn = image.stem.rpartition("_")
    if not turn.isdigit():
        raise AssetError(f"Expected a name like <set>_<photo>_<turn>.jpg, got {image}. {AGAIN}")
    return source, int(turn)


def read_turn(image: Path) -> Sample:
    """Return an image of 300W-LP with its labels. Raises AssetError for a turned image with the landmarks of turn 0."""
    points, pose = read_labels(image, "pt2d")
    folder, first = image.parents[1] / "landmarks", image.with_stem(f"{_source_and_turn(image)[0]}_0")
    if folder.is_dir():
        path = folder / image.parent.name / f"{image.stem}_pts.mat"
        turned = read_arrays(path).get("pts_3d", np.zeros(0))
        if turned.ndim != 2 or turned.shape[0] != 68 or turned.shape[1] < 2 or not np.isfinite(turned).all():
            raise AssetError(f"Expected pts_3d (68, 2) with finite numbers in {path}, got {turned.shape}. {AGAIN}")
        points = torch.from_numpy(turned[:, :2].astype(np.float32)) + TO_OURS
    elif image != first and first.is_file() and torch.equal(points, read_labels(first, "pt2d")[0]):
        raise AssetError(
            f"{image.name} and {first.name} have identical landmarks, but the photo was turned. Place the set's folder "
            f"landmarks/ in {folder.parent}."
        )
    return Sample(image, points, float(pose[1]))
