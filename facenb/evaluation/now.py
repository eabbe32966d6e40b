"""The NoW protocol: distances of a scan's vertices to a predicted neutral face, pooled over all images.

Sanyal et al., RingNet, CVPR 2019, and the challenge's evaluation. Seven landmarks align the prediction with the scan,
and the scan is cropped to the face. Then the scan-to-mesh distance is minimised over rotation, translation and (except
in the metrical variant) scale. The remaining distances are the errors. In the challenge's code the alignment of the
landmarks may be a reflection. Here it never is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facenb.datasets.scans.now import CONDITIONS, Now, Submission, condition_of
from facenb.errors import LandmarkError
from facenb.evaluation.intervals import Effect, bootstrap
from facenb.evaluation.registration import Registration, icp
from facenb.evaluation.scan import ScanToMesh
from facenb.evaluation.shape import check_millimetres
from facenb.morphable.alignment import similarity

SEVEN = (36, 39, 42, 45, 33, 48, 54)  # of iBUG's 68: eye corners (person's right first), nose bottom, mouth corners
UNITS = {"mm": 1.0, "cm": 10.0, "m": 1000.0}  # in mm
EYES = (55.0, 145.0)  # mm: range of the distance between outer eye corners; used to recognise the unit
STEP, REACH = 0.01, 30.0  # mm: bin width and largest value of the histograms in `pooled_intervals`
LIMIT = 8.0  # mm: where the cumulative curve ends


@dataclass(frozen=True)
class NowErrors:
    """The errors of one prediction against one scan."""

    distances: Float[Tensor, " points"]  # mm, from each scan vertex in the crop to the aligned surface
    inside: Bool[Tensor, " vertices"]  # which vertices of the scan are in the crop
    registration: Registration  # from prediction to scan; its scale includes the conversion to mm


def unit_of(landmarks: Float[Tensor, "7 3"]) -> str:
    """Return the unit (mm, cm or m) in which the outer eye corners have a plausible distance, else "unknown"."""
    eyes = float((landmarks[0] - landmarks[3]).norm())
    return next((unit for unit, size in UNITS.items() if EYES[0] <= eyes * size <= EYES[1]), "unknown")


def crop_scan(vertices: Float[Tensor, "vertices 3"], landmarks: Float[Tensor, "7 3"]) -> Bool[Tensor, " vertices"]:
    """Return which vertices belong to the face: those inside a sphere around the nose.

    The centre is nose bottom + 0.3 (bridge - nose bottom), where the bridge is midway between the inner eye corners.
    The radius is 0.7 (distance of the outer eye corners + distance from nose bottom to bridge). Raise ValueError if a
    vertex is not finite, or if no vertex is inside.
    """
    if not vertices.isfinite().all():
        row = int((~vertices.isfinite().all(1)).nonzero()[0])
        raise ValueError(f"vertex {row} of the scan is not finite; remove such vertices and their triangles first")
    bottom, bridge = landmarks[4], (landmarks[1] + landmarks[2]) / 2
    centre = bottom + 0.3 * (bridge - bottom)
    radius = 0.7 * ((landmarks[0] - landmarks[3]).norm() + (bridge - bottom).norm())
    distance = (vertices - centre).norm(dim=1)
    inside = distance <= radius
    if not inside.any():
        nearest = float(distance.min()) if len(distance) else float("nan")
        raise ValueError(
            f"the crop of {float(radius):.4g} mm about the nose is empty: the nearest of {len(vertices)} scan vertices "
            f"is {nearest:.4g} mm away; check that landmarks and scan have the same position and unit"
        )
    return inside


def now_errors(
    scan_vertices: Float[Tensor, "points 3"],
    scan_landmarks: Float[Tensor, "7 3"],
    vertices: Float[Tensor, "vertices 3"],
    triangles: Int[Tensor, "triangles 3"],
    landmarks: Float[Tensor, "7 3"],
    metrical: bool = False,
    unit: str = "mm",
) -> NowErrors:
    """Return the errors of a predicted mesh of any topology against a scan in mm. Both need their seven landmarks.

    With `metrical`, the alignment keeps the size, and `unit` is the prediction's unit (mm, cm, m). Raise ValueError if
    the scan is not in mm (checked by its eye distance), if a metrical prediction is not in `unit`, if vertices and
    landmarks have different units, if the crop is empty, or if `ScanToMesh` cannot use the mesh. Raise LandmarkError if
    landmarks are not finite or all equal.
    """
    if unit not in UNITS:
        raise ValueError(f"there is no unit {unit!r}; choose one of {', '.join(UNITS)}")
    for name, points in (("scan", scan_landmarks), ("prediction", landmarks)):
        if not points.isfinite().all():
            row = int((~points.isfinite().all(1)).nonzero()[0])
            raise LandmarkError(f"landmark {row} of the {name} is not finite: {points[row].tolist()}")
    scan_unit, measured = unit_of(scan_landmarks), unit_of(landmarks)
    apart = "the {}'s outer eye corners are {:.4g} apart, so its unit seems to be {}, not {}; "
    if scan_unit != "mm":
        distance = float((scan_landmarks[0] - scan_landmarks[3]).norm())
        raise ValueError(apart.format("scan", distance, scan_unit, "mm") + "convert the scan to mm")
    if metrical and measured != unit:
        distance = float((landmarks[0] - landmarks[3]).norm())
        advice = f", pass unit={measured!r}" if measured in UNITS else ""
        reason = apart.format("prediction", distance, measured, unit)
        raise ValueError(reason + "the metrical score needs the right unit" + advice)
    inside = crop_scan(scan_vertices, scan_landmarks)
    check_millimetres("the scan", scan_vertices)
    points = scan_vertices[inside].double()
    size = UNITS[unit] if metrical else 1.0
    placement = similarity(landmarks[None].double() * size, scan_landmarks[None].double(), scale=not metrical)
    placement = placement._replace(scale=placement.scale * size)
    surface = ScanToMesh(vertices, triangles)
    if measured in UNITS:
        check_millimetres(f"the prediction (in {measured} by its landmarks)", vertices * UNITS[measured])
    laid = icp(points, surface, placement, scale=not metrical)
    return NowErrors(laid.distances, inside, laid)


@dataclass(frozen=True)
class NowRow:
    """The distances of a group of images, pooled over all vertices."""

    images: int  # images with a prediction
    missed: int  # images without a prediction
    median: float  # mm
    mean: float
    std: float
    distances: Float[Tensor, " points"]  # ascending

    def curve(self) -> tuple[Tensor, Tensor]:
        """Return thresholds from 0 to LIMIT mm, and for each the share of vertices within it.

        An image without a prediction counts as an average number of vertices with infinite distances. So a method gains
        nothing by leaving out hard images.
        """
        thresholds = torch.linspace(0, LIMIT, 161, dtype=torch.float64)
        below = torch.searchsorted(self.distances, thresholds, right=True).double()
        shown = self.images / (self.images + self.missed) if self.images else 0.0
        return thresholds, below / max(len(self.distances), 1) * shown


@dataclass(frozen=True)
class NowTable:
    """The scores over all images and for each condition, and the names of the missing images."""

    all: NowRow
    conditions: dict[str, NowRow]  # only conditions that occur in the list of images
    missing: tuple[str, ...]


def now_table(
    images: Sequence[str], distances: Mapping[str, Float[Tensor, " points"]], allow_missing: bool = False
) -> NowTable:
    """Return the NoW table of `images`, named `subject/condition/picture.jpg` as in the challenge's lists.

    `distances` holds the distances (mm) of each image. Raise ValueError if an image has no distances. With
    `allow_missing`, count such images, and treat them as failures in the curve. Raise ValueError for distances of an
    image that is not in the list, and for distances that are empty or not finite.
    """
    names = list(images)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"got {len(names)} images, {len(set(names))} of them distinct; pass each image once")
    unexpected = sorted(set(distances) - set(names))
    if unexpected:
        raise ValueError(f"got distances of {unexpected[0]}, which is not in the list (one of {len(unexpected)} such)")
    for name, values in distances.items():
        if not len(values) or not values.isfinite().all():
            raise ValueError(f"the {len(values)} distances of {name} are empty or not finite; leave out missing images")
    missing = tuple(name for name in names if name not in distances)
    if missing and not allow_missing:
        raise ValueError(
            f"{len(missing)} of {len(names)} images have no prediction: {', '.join(missing[:5])}"
            f"{' ...' if len(missing) > 5 else ''}; a score without them is too good. Predict them, or pass "
            "allow_missing=True and report their number beside the score"
        )
    groups = {condition: [name for name in names if condition_of(name) == condition] for condition in CONDITIONS}
    rows = {condition: _row(group, distances) for condition, group in groups.items() if group}
    return NowTable(_row(names, distances), rows, missing)


def _row(names: list[str], distances: Mapping[str, Tensor]) -> NowRow:
    scored = [distances[name].double() for name in names if name in distances]
    pooled = torch.cat(scored).sort().values if scored else torch.zeros(0).double()
    values = pooled.numpy() if scored else np.full(1, np.nan)
    figures = float(np.median(values)), float(values.mean()), float(values.std())
    return NowRow(len(scored), len(names) - len(scored), *figures, pooled)


def pooled_intervals(distances: Mapping[str, Float[Tensor, " points"]], seed: int = 0) -> dict[str, Effect]:
    """Return `median`, `mean` and `std` of the pooled distances (mm), each with an interval that resamples people.

    All points of a person's images are drawn together. To save time, the statistics come from histograms with bins of
    STEP mm up to REACH.
    """
    people: dict[str, list[Tensor]] = {}
    for name, values in distances.items():
        people.setdefault(name.split("/")[0], []).append(values)
    edges = np.arange(0, REACH + STEP, STEP)
    clamped = [torch.cat(values).clamp(0, REACH - STEP).numpy() for values in people.values()]
    counts = np.stack([np.histogram(values, edges)[0] for values in clamped]).astype(float)
    middle = edges[:-1] + STEP / 2

    def figure(name: str, weights: np.ndarray) -> np.ndarray:
        share = weights @ counts
        share = share / share.sum(1, keepdims=True)
        if name == "median":
            return middle[(share.cumsum(1) >= 0.5).argmax(1)]
        mean = share @ middle
        return mean if name == "mean" else np.sqrt(np.maximum(share @ middle**2 - mean**2, 0))

    return {name: bootstrap(partial(figure, name), len(people), 600, seed) for name in ("median", "mean", "std")}


def score(
    data: Now, submission: Submission, metrical: bool = False, unit: str = "mm", allow_missing: bool = False
) -> NowTable:
    """Return the NoW scores of a submission folder, from any method, on the scans of a split.

    Raise as `now_errors` and `now_table` do, with the name of the image. Unless `allow_missing`, raise ValueError for a
    missing prediction before computing anything.
    """
    missing = submission.missing(data.images)
    if missing and not allow_missing:
        name, reason = next(iter(missing.items()))
        raise ValueError(
            f"{submission.folder} lacks {len(missing)} of {len(data.images)} images: {name} ({reason}), ...; predict "
            "them, or pass allow_missing=True"
        )
    distances, scan_of = {}, cache(data.scan)
    for name in (image for image in data.images if image not in missing):
        scan, mesh = scan_of(name.split("/")[0]), submission.prediction(name)
        both = scan.vertices, scan.landmarks, mesh.vertices, mesh.triangles, mesh.landmarks
        try:
            errors = now_errors(*both, metrical, unit)
        except (ValueError, LandmarkError) as error:
            raise type(error)(f"{name}: {error}") from error
        distances[name] = errors.distances
    return now_table(data.images, distances, allow_missing)
