"""Shape against a scan as on MICC Florence and BU-3DFE: one surface to another, since their vertices do not correspond.

Two ways are in use, and their numbers cannot be compared. Liu et al. 2018 bring the prediction onto the scan by the
68 landmarks alone (Procrustes) and crop the scan to 95 mm about the nose tip; others go on with rigid ICP, which takes
away what the landmarks left of a shift or a turn. Errors are distances of the scan's points to the predicted surface.
Procrustes leaves the size free, as `evaluation.shape` does; rigid ICP does not, so there a wrong size counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from facenb.evaluation.registration import icp
from facenb.evaluation.scan import ScanToMesh
from facenb.evaluation.shape import check_millimetres, check_radius
from facenb.morphable.alignment import similarity

RADIUS = 95.0  # mm about the nose tip (Liu et al. 2018, section 4.1)
NOSE_TIP = 30  # of the 68
ALIGNMENTS = ("procrustes", "icp", "none")


@dataclass(frozen=True)
class ScanErrors:
    """Distances in mm of a scan's cropped points to a predicted surface."""

    distances: Float[Tensor, " points"]

    @property
    def mean(self) -> float:
        return float(self.distances.mean())

    @property
    def rms(self) -> float:
        """Root of the mean square."""
        return float(self.distances.double().square().mean().sqrt())


def crop_points(
    points: Float[Tensor, "points 3"], middle: Float[Tensor, " 3"], radius: float | int = RADIUS
) -> Float[Tensor, "inside 3"]:
    """The points of a scan within `radius` mm of `middle`.

    Raises ValueError where there is none, for a radius not above 0, and for a scan that is not in mm.
    """
    check_radius(radius)
    check_millimetres("the scan", points)
    inside = (points - middle).norm(dim=1) <= radius
    if not inside.any():
        raise ValueError(f"no point of the scan lies within {radius} mm of its nose tip; is that on this scan?")
    return points[inside]


def scan_errors(
    points: Float[Tensor, "points 3"],
    landmarks: Float[Tensor, "landmarks 3"],
    vertices: Float[Tensor, "vertices 3"],
    triangles: Int[Tensor, "triangles 3"],
    predicted_landmarks: Float[Tensor, "landmarks 3"],
    align: str = "procrustes",
    scale: bool | None = None,
    radius: float | int = RADIUS,
    nose_tip: int = NOSE_TIP,
) -> ScanErrors:
    """Errors of a predicted surface (any mesh) against a scan's points, both with the same landmarks, mm.

    `align` "procrustes" stays with what the landmarks give (Liu et al. 2018), "icp" refines it on the cropped points,
    "none" takes the surface as it lies, for one that was fitted to this very scan. `scale` leaves the size free; None:
    with "procrustes" only, as ICP is reported rigid. A scan whose size was guessed needs True; the prediction's own
    unit matters only where its size does. Raises ValueError for a prediction or scan that is not finite or not in mm,
    an unknown alignment, landmarks of different numbers, a missing nose tip or an empty crop; LandmarkError for
    landmarks all alike.
    """
    if align not in ALIGNMENTS:
        raise ValueError(f"align is {align!r}; it must be one of {', '.join(ALIGNMENTS)}")
    for what, values in (("scan", points), ("prediction", vertices)):
        if not len(values) or not values.isfinite().all():
            raise ValueError(f"the {what} has {len(values)} vertices, or some that are not finite; count it as missing")
    if not 0 <= nose_tip < len(landmarks):
        raise ValueError(f"there is no landmark {nose_tip} for the nose tip among {len(landmarks)}")
    if len(landmarks) != len(predicted_landmarks):
        raise ValueError(f"the scan has {len(landmarks)} landmarks, the prediction {len(predicted_landmarks)}; "
                         "give the same ones of both")  # fmt: skip
    scale = align == "procrustes" if scale is None else scale
    if align == "none" or not scale:
        check_millimetres("the prediction", vertices)
    inside = crop_points(points, landmarks[nose_tip], radius)
    similarity(landmarks[None], predicted_landmarks[None])  # raises for a scan's landmarks that tell no place
    place = similarity(predicted_landmarks[None], landmarks[None], scale)
    if align == "icp":
        return ScanErrors(icp(inside, ScanToMesh(vertices, triangles), place, scale).distances)
    if align == "none":
        return ScanErrors(ScanToMesh(vertices, triangles).closest(inside)[0])
    return ScanErrors(ScanToMesh(place.apply(vertices[None])[0], triangles).closest(inside)[0])


@dataclass(frozen=True)
class Pooled:
    """One value a subject out of those of its video's frames."""

    subjects: tuple[str, ...]
    values: Float[Tensor, "subjects ..."]  # the mean of the frames
    frames: tuple[int, ...]  # how many frames each mean is of
    missing: tuple[int, ...]  # how many frames each subject lacks


def pool_frames(values: Float[Tensor, "frames ..."], subjects: Sequence[str], allow_missing: bool = False) -> Pooled:
    """The mean over each subject's frames of predicted shapes or coefficients; subjects in order of their first frame.

    A frame without a prediction is a row that is not finite. Raises ValueError, naming the subjects, where frames are
    missing, unless they are allowed to be: then the means are of the others, and they are counted. A subject without
    any frame always raises.
    """
    if len(subjects) != len(values) or not len(values):
        raise ValueError(f"{len(values)} frames of {len(subjects)} subjects: name the subject of every frame")
    usable = values.flatten(1).isfinite().all(1) if values.ndim > 1 else values.isfinite()
    names = tuple(dict.fromkeys(subjects))
    row = torch.tensor([names.index(name) for name in subjects])
    there, all_of = (torch.bincount(row[some], minlength=len(names)) for some in (usable, slice(None)))
    lacking = {name: int(gone) for name, gone in zip(names, all_of - there, strict=True) if gone}
    if lacking and not allow_missing:
        told = ", ".join(f"{name} ({gone})" for name, gone in lacking.items())
        raise ValueError(f"frames without a prediction: {told}; predict them, or allow them to be missing and say so")
    if (there == 0).any():
        raise ValueError(f"{names[int((there == 0).nonzero()[0])]} has no frame with a prediction; count it as missing")
    total = values.new_zeros((len(names), *values.shape[1:]), dtype=torch.float64)
    total.index_add_(0, row[usable], values[usable].double())
    mean = total / there.view(-1, *(1,) * (values.ndim - 1))
    gone = (all_of - there).tolist()
    return Pooled(names, mean.to(values.dtype), tuple(there.tolist()), tuple(gone))


@dataclass(frozen=True)
class ScanTable:
    """Errors of many scans, and the scans that have no prediction."""

    errors: dict[str, ScanErrors]
    missing: tuple[str, ...]

    @classmethod
    def of(cls, expected: Sequence[str], errors: Mapping[str, ScanErrors], allow_missing: bool = False) -> "ScanTable":
        """The table of the scans `expected`. Raises ValueError naming those without errors, unless they may be missing,
        and those nobody asked for.
        """
        unknown = sorted(set(errors) - set(expected))
        if unknown:
            raise ValueError(f"errors of {', '.join(unknown)}, which are not among the {len(expected)} scans expected")
        missing = tuple(name for name in expected if name not in errors)
        if missing and not allow_missing:
            raise ValueError(f"{len(missing)} of {len(expected)} scans have no prediction: {', '.join(missing)}; "
                             "predict them, or allow them to be missing and say so")  # fmt: skip
        if len(missing) == len(expected):
            raise ValueError(f"none of {len(expected)} scans has a prediction")
        return cls({name: errors[name] for name in expected if name in errors}, missing)

    def values(self, what: str = "mean") -> Float[Tensor, " scans"]:
        """`mean` or `rms` of each scan, mm."""
        return torch.tensor([getattr(one, what) for one in self.errors.values()])

    def summary(self) -> dict[str, float | int]:
        """Mean and standard deviation over scans (never over points) of both errors, and how many there are."""
        found: dict[str, float | int] = {"scans": len(self.errors), "missing": len(self.missing)}
        for what in ("mean", "rms"):
            values = self.values(what)
            found |= {what: float(values.mean()), f"{what} std": float(values.std()) if len(values) > 1 else 0.0}
        return found


def by_yaw(
    expected: Sequence[str],
    yaws: Sequence[float],
    errors: Mapping[tuple[str, float], ScanErrors],
    allow_missing: bool = False,
) -> pd.DataFrame:
    """BU-3DFE's table: a row for each |yaw| (degrees) from the largest, and `avg`, the mean of these rows (Liu18).

    `errors` are by scan and signed yaw. Columns: `mean` and `rms` (mm, means over pictures), `pictures`, `missing`.
    Raises ValueError naming pictures without a prediction, unless they may be missing; then `missing` counts them, and
    a row without any picture is NaN and not part of `avg`.
    """
    name = {(scan, float(yaw)): f"{scan} at {yaw:g} degrees" for yaw in yaws for scan in expected}
    given = {name.get((scan, float(yaw)), f"{scan} at {yaw:g} degrees"): one for (scan, yaw), one in errors.items()}
    whole = ScanTable.of(list(name.values()), given, allow_missing)
    rows = {}
    for size in sorted({abs(float(yaw)) for yaw in yaws}, reverse=True):
        labels = [label for (_, yaw), label in name.items() if abs(yaw) == size]
        found = [whole.errors[label] for label in labels if label in whole.errors]
        means = {what: torch.tensor([getattr(one, what) for one in found]).mean().item() for what in ("mean", "rms")}
        rows[f"{size:g}"] = {**means, "pictures": len(found), "missing": len(labels) - len(found)}
    table = pd.DataFrame.from_dict(rows, orient="index")
    average = {what: table[what].mean() for what in ("mean", "rms")}
    table.loc["avg"] = {**average, "pictures": table["pictures"].sum(), "missing": table["missing"].sum()}
    return table.astype({"pictures": int, "missing": int}).rename_axis("|yaw|")
