"""Error of a predicted shape against a scan, as on MICC Florence and BU-3DFE. Vertices need not correspond.

Two alignments are in use, and their numbers cannot be compared. Liu et al. 2018 align the prediction with the scan by
the 68 landmarks alone (Procrustes), and crop the scan to 95 mm around the nose tip. Others continue with rigid ICP,
which removes the remaining shift and rotation. The error is the distance of each scan point to the predicted surface.
Procrustes changes the size of the prediction, as `evaluation.shape` does. Rigid ICP keeps it, so a wrong size counts.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from facenb.evaluation.registration import icp
from facenb.evaluation.scan import ScanToMesh
from facenb.evaluation.shape import NOSE_TIP, RADIUS, check_millimetres
from facenb.morphable.alignment import similarity

ALIGNMENTS = ("procrustes", "icp")


@dataclass(frozen=True)
class ScanErrors:
    """Distances in mm of a scan's cropped points to a predicted surface."""

    distances: Float[Tensor, " points"]

    @property
    def mean(self) -> float:
        """The mean distance."""
        return float(self.distances.mean())

    @property
    def rms(self) -> float:
        """The root mean square distance."""
        return float(self.distances.double().square().mean().sqrt())


def crop_points(points: Float[Tensor, "points 3"], nose_tip: Float[Tensor, " 3"]) -> Float[Tensor, "inside 3"]:
    """Return the points of a scan within 95 mm of its nose tip.

    Raise ValueError if there is no such point, or if the scan is not in mm.
    """
    check_millimetres("the scan", points)
    inside = (points - nose_tip).norm(dim=1) <= RADIUS
    if not inside.any():
        raise ValueError(f"no point of the scan lies within {RADIUS} mm of its nose tip; check the landmarks")
    return points[inside]


def scan_errors(
    points: Float[Tensor, "points 3"],
    landmarks: Float[Tensor, "landmarks 3"],
    vertices: Float[Tensor, "vertices 3"],
    triangles: Int[Tensor, "triangles 3"],
    predicted_landmarks: Float[Tensor, "landmarks 3"],
    align: str = "procrustes",
    scale: bool | None = None,
) -> ScanErrors:
    """Return the errors of a predicted surface (any mesh) against a scan's points, both with the same landmarks, in mm.

    `align` "procrustes" aligns by the landmarks alone (Liu et al. 2018); "icp" refines this on the cropped points.
    `scale` allows the alignment to change the size. None means True for "procrustes" and False for "icp", as the papers
    do. Pass True for a scan of unknown size. Raise ValueError for an unknown alignment, a scan that is not in mm, a
    prediction that is not in mm if its size counts, or an empty crop. Raise LandmarkError if all landmarks are equal.
    """
    if align not in ALIGNMENTS:
        raise ValueError(f"align is {align!r}; it must be one of {', '.join(ALIGNMENTS)}")
    scale = align == "procrustes" if scale is None else scale
    if not scale:
        check_millimetres("the prediction", vertices)
    inside = crop_points(points, landmarks[NOSE_TIP])
    similarity(landmarks[None], predicted_landmarks[None])  # raises if all landmarks of the scan are equal
    placement = similarity(predicted_landmarks[None], landmarks[None], scale)
    if align == "icp":
        return ScanErrors(icp(inside, ScanToMesh(vertices, triangles), placement, scale).distances)
    return ScanErrors(ScanToMesh(placement.apply(vertices[None])[0], triangles).closest(inside)[0])


@dataclass(frozen=True)
class Pooled:
    """One value per subject: the mean over the frames of a video."""

    subjects: tuple[str, ...]
    values: Float[Tensor, "subjects ..."]  # mean over the frames
    frames: tuple[int, ...]  # number of frames in each mean
    missing: tuple[int, ...]  # number of frames without a prediction


def pool_frames(values: Float[Tensor, "frames ..."], subjects: Sequence[str], allow_missing: bool = False) -> Pooled:
    """Return the mean of predicted shapes or coefficients over each subject's frames, in order of first appearance.

    A row that is not finite is a frame without a prediction. Raise ValueError with the subject's name if there are such
    frames. With `allow_missing`, take the mean over the other frames and count the missing ones. Raise ValueError in
    any case if a subject has no frame with a prediction.
    """
    usable = values.flatten(1).isfinite().all(1)
    row, names = pd.factorize(np.array(subjects, dtype=object))
    row = torch.from_numpy(row)
    present, missing = (torch.bincount(row[rows], minlength=len(names)) for rows in (usable, ~usable))
    if missing.any() and not allow_missing:
        lacking = ", ".join(f"{name} ({count})" for name, count in zip(names, missing.tolist(), strict=True) if count)
        raise ValueError(f"frames without a prediction: {lacking}; predict them, or pass allow_missing=True")
    if (present == 0).any():
        name = names[int((present == 0).nonzero()[0])]
        raise ValueError(f"{name} has no frame with a prediction; count it as missing")
    sums = values.new_zeros((len(names), *values.shape[1:]), dtype=torch.float64)
    sums.index_add_(0, row[usable], values[usable].double())
    mean = (sums.flatten(1) / present[:, None]).view_as(sums).to(values.dtype)
    return Pooled(tuple(names), mean, tuple(present.tolist()), tuple(missing.tolist()))


def by_yaw(
    expected: Sequence[str],
    yaws: Sequence[float],
    errors: Mapping[tuple[str, float], ScanErrors],
    allow_missing: bool = False,
) -> pd.DataFrame:
    """Return BU-3DFE's table: one row per |yaw| (degrees, largest first), and `avg`, the mean over these rows.

    The keys of `errors` are (scan, signed yaw). The columns are `mean` and `rms` (mm, means over images), `pictures`
    and `missing`. Raise ValueError if an image has no prediction. With `allow_missing`, count it in `missing`; a row
    without any prediction is then NaN and not in `avg`. Raise ValueError for a key that no scan and yaw match.
    """
    wanted = [(scan, yaw) for yaw in yaws for scan in expected]
    problems = {"errors, but was not expected": set(errors) - set(wanted)}
    if not allow_missing:
        problems["no prediction"] = set(wanted) - set(errors)
    for problem, images in problems.items():
        if images:
            scan, yaw = min(images)
            raise ValueError(f"{scan} at {yaw:g} degrees has {problem} ({len(images)} of {len(wanted)} images)")
    scored = [errors.get(image) for image in wanted]
    columns = {name: [getattr(error, name, math.nan) for error in scored] for name in ("mean", "rms")}
    columns |= {"pictures": [error is not None for error in scored], "missing": [error is None for error in scored]}
    how = {"mean": "mean", "rms": "mean", "pictures": "sum", "missing": "sum"}
    table = pd.DataFrame(columns).groupby([abs(yaw) for _, yaw in wanted]).agg(how).sort_index(ascending=False)
    table.index = [f"{size:g}" for size in table.index]
    table.loc["avg"] = table.agg(how)
    return table.astype({"pictures": int, "missing": int}).rename_axis("|yaw|")
