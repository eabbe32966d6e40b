"""The NoW protocol: distances of a scan's vertices to a predicted neutral face, pooled over all images.

Sanyal et al., RingNet, CVPR 2019, and the challenge's evaluation. Seven landmarks bring the prediction onto the scan,
the scan is cropped to the face, the scan-to-mesh distance is minimised over scale (but in the metrical variant),
rotation and translation, and what remains is the error. The challenge's own code allows the landmarks' alignment to be
a reflection where that fits better; here it never is one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facenb.datasets.scans.now import CONDITIONS, Now, Submission, condition_of
from facenb.errors import LandmarkError
from facenb.evaluation.intervals import Effect, bootstrap
from facenb.evaluation.registration import Registration, refine
from facenb.evaluation.scan import ScanToMesh
from facenb.evaluation.shape import check_millimetres
from facenb.morphable.alignment import similarity

SEVEN = (36, 39, 42, 45, 33, 48, 54)  # of iBUG's 68: eye corners from the person's right, nose bottom, mouth corners
UNITS = {"mm": 1.0, "cm": 10.0, "m": 1000.0}  # in mm
EYES = (55.0, 145.0)  # mm between the outer eye corners of any person, by far: tells the unit
FINE, REACH = 0.01, 30.0  # mm: steps and reach of the histograms that `pooled_intervals` draws from
LIMIT = 8.0  # mm: where the cumulative curve ends


@dataclass(frozen=True)
class NowErrors:
    """One prediction against one scan."""

    distances: Float[Tensor, " points"]  # mm, of each scan vertex in the crop to the aligned surface
    inside: Bool[Tensor, " vertices"]  # which vertices of the scan those are
    registration: Registration  # of the prediction onto the scan; its scale takes the prediction's unit to mm
    unit: str  # what the prediction seems to be in, by its eyes: mm, cm, m or unknown


def unit_of(landmarks: Float[Tensor, "7 3"]) -> str:
    """The unit that makes the outer eye corners a person's: mm, cm or m; unknown where none does."""
    eyes = float((landmarks[0] - landmarks[3]).norm())
    return next((unit for unit, size in UNITS.items() if EYES[0] <= eyes * size <= EYES[1]), "unknown")


def crop_scan(
    vertices: Float[Tensor, "vertices 3"], landmarks: Float[Tensor, "7 3"], limit: float = 0.7
) -> Bool[Tensor, " vertices"]:
    """Which vertices are the face: those in a sphere about the nose, sized by the landmarks.

    Centre: nose bottom + 0.3 (bridge - nose bottom), the bridge being the middle of the inner eye corners. Radius:
    `limit` (outer eye distance + distance of nose bottom and bridge). Raises LandmarkError for landmarks that are not
    finite, ValueError for other than seven, vertices that are not finite, or none inside.
    """
    _check_landmarks("the scan", landmarks)
    if not vertices.isfinite().all():
        row = int((~vertices.isfinite().all(1)).nonzero()[0])
        raise ValueError(
            f"vertex {row} of the scan is not finite; drop such vertices, with their triangles, beforehand"
        )
    bottom, bridge = landmarks[4], (landmarks[1] + landmarks[2]) / 2
    middle = bottom + 0.3 * (bridge - bottom)
    radius = limit * ((landmarks[0] - landmarks[3]).norm() + (bridge - bottom).norm())
    inside = (vertices - middle).norm(dim=1) <= radius
    if not inside.any():
        away = float((vertices - middle).norm(dim=1).min()) if len(vertices) else float("nan")
        raise ValueError(
            f"the crop of {float(radius):.4g} mm about the nose is empty: the nearest of {len(vertices)} scan vertices "
            f"is {away:.4g} mm away; are landmarks and scan of one place and unit?"
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
    """Errors of a predicted mesh, of any topology, against a scan in mm; both come with their seven landmarks.

    `metrical`: no scale is solved for, and the prediction's `unit` (mm, cm, m) counts. Raises ValueError for a scan
    that is not in mm by its eyes, a metrical prediction in another unit than said, vertices in another unit than their
    landmarks, other than seven landmarks, an empty crop, and meshes that `ScanToMesh` refuses; LandmarkError for
    landmarks that are not finite or all alike.
    """
    if unit not in UNITS:
        raise ValueError(f"there is no unit {unit!r}; there are {', '.join(UNITS)}")
    _check_landmarks("the scan", scan_landmarks)
    _check_landmarks("the prediction", landmarks)
    of_scan, found = unit_of(scan_landmarks), unit_of(landmarks)
    if of_scan != "mm":
        raise ValueError(
            f"the scan's outer eye corners are {float((scan_landmarks[0] - scan_landmarks[3]).norm()):.4g} apart: that "
            f"is {of_scan}, not mm; bring the scan to mm, or every error is in another unit"
        )
    if metrical and found != unit:
        raise ValueError(
            f"the prediction's outer eye corners are {float((landmarks[0] - landmarks[3]).norm()):.4g} apart: that is "
            f"{found}, not {unit}; the metrical score needs the right unit"
            + (f", say unit={found!r}" if found in UNITS else "")
        )
    inside = crop_scan(scan_vertices, scan_landmarks)
    check_millimetres("the scan", scan_vertices)
    points = scan_vertices[inside].double()
    size = UNITS[unit] if metrical else 1.0
    place = similarity(landmarks[None].double() * size, scan_landmarks[None].double(), scale=not metrical)
    place = place._replace(scale=place.scale * size)
    surface = ScanToMesh(vertices, triangles)
    if found in UNITS:
        check_millimetres(f"the prediction, taken to be in {found} as its landmarks are,", vertices * UNITS[found])
    laid = refine(points, surface, place, scale=not metrical)
    return NowErrors(laid.distances, inside, laid, found)


def _check_landmarks(whose: str, landmarks: Tensor) -> None:
    if landmarks.shape != (len(SEVEN), 3):
        raise ValueError(f"{whose} has landmarks {tuple(landmarks.shape)}, NoW's are (7, 3); of 68 take [list(SEVEN)]")
    if not landmarks.isfinite().all():
        row = int((~landmarks.isfinite().all(1)).nonzero()[0])
        raise LandmarkError(f"landmark {row} of {whose} is not finite: {landmarks[row].tolist()}")


@dataclass(frozen=True)
class NowRow:
    """The distances of some images, all vertices pooled."""

    images: int  # with a prediction
    missed: int  # without one
    median: float  # mm
    mean: float
    std: float
    distances: Float[Tensor, " points"]  # ascending

    def curve(self, limit: float = LIMIT, steps: int = 161) -> tuple[Tensor, Tensor]:
        """Thresholds from 0 to `limit` mm, and the share of vertices whose distance is at most each.

        An image without a prediction counts as one whose vertices no threshold reaches, as many as an image has on the
        average: who leaves out the hard ones does not gain.
        """
        thresholds = torch.linspace(0, limit, steps, dtype=torch.float64)
        below = torch.searchsorted(self.distances, thresholds, right=True).double()
        shown = self.images / (self.images + self.missed) if self.images else 0.0
        return thresholds, below / max(len(self.distances), 1) * shown


@dataclass(frozen=True)
class NowTable:
    """The scores over all images and by condition, and what is missing, by name."""

    all: NowRow
    conditions: dict[str, NowRow]  # those that the list of images has
    missing: tuple[str, ...]


def now_table(
    images: Sequence[str], distances: Mapping[str, Float[Tensor, " points"]], allow_missing: bool = False
) -> NowTable:
    """Pool the distances (mm) of `images`, named `subject/condition/picture.jpg` as in the challenge's lists.

    Raises ValueError for images without distances unless `allow_missing` (then they are counted beside the scores, and
    as failures in the curve), for distances of images not in the list, or some that are empty or not finite.
    """
    names = list(images)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"{len(names)} images, {len(set(names))} of them different; give each once, and one or more")
    strangers = sorted(set(distances) - set(names))
    if strangers:
        raise ValueError(f"there are distances of {strangers[0]}, which is not in the list ({len(strangers)} such)")
    for name, values in distances.items():
        if not len(values) or not values.isfinite().all():
            raise ValueError(f"the {len(values)} distances of {name} are empty or not finite; leave a miss out")
    missing = tuple(name for name in names if name not in distances)
    if missing and not allow_missing:
        raise ValueError(
            f"{len(missing)} of {len(names)} images have no prediction: {', '.join(missing[:5])}"
            f"{' ...' if len(missing) > 5 else ''}; a score without them flatters. Predict them, or say "
            "allow_missing=True and report their number beside the score"
        )
    groups = {condition: [name for name in names if condition_of(name) == condition] for condition in CONDITIONS}
    rows = {condition: _row(group, distances) for condition, group in groups.items() if group}
    return NowTable(_row(names, distances), rows, missing)


def _row(names: list[str], distances: Mapping[str, Tensor]) -> NowRow:
    found = [distances[name].double() for name in names if name in distances]
    pooled = torch.cat(found).sort().values if found else torch.zeros(0).double()
    values = pooled.numpy() if found else np.full(1, np.nan)
    figures = float(np.median(values)), float(values.mean()), float(values.std())
    return NowRow(len(found), len(names) - len(found), *figures, pooled)


def pooled_intervals(
    distances: Mapping[str, Float[Tensor, " points"]], draws: int = 600, seed: int = 0
) -> dict[str, Effect]:
    """`median`, `mean` and `std` of the pooled distances (mm), each with its interval: people are drawn anew.

    All points of a person's images stay together. Figures are those of a histogram in steps of FINE mm up to REACH.
    Raises ValueError for fewer than two people.
    """
    own: dict[str, list[Tensor]] = {}
    for name, values in distances.items():
        own.setdefault(name.split("/")[0], []).append(values)
    edges = np.arange(0, REACH + FINE, FINE)
    counts = np.stack([
        np.histogram(torch.cat(values).clamp(0, REACH - FINE).numpy(), edges)[0] for values in own.values()
    ]).astype(float)  # fmt: skip
    middle = edges[:-1] + FINE / 2

    def figure(name: str, weights: np.ndarray) -> np.ndarray:
        share = weights @ counts
        share = share / share.sum(1, keepdims=True)
        if name == "median":
            return middle[(share.cumsum(1) >= 0.5).argmax(1)]
        mean = share @ middle
        return mean if name == "mean" else np.sqrt(np.maximum(share @ middle**2 - mean**2, 0))

    return {
        name: bootstrap(lambda weights, name=name: figure(name, weights), len(own), draws, seed)
        for name in ("median", "mean", "std")
    }


def score(
    data: Now, submission: Submission, metrical: bool = False, unit: str = "mm", allow_missing: bool = False
) -> NowTable:
    """Score a submission folder, of this project's or any other method, on the scans of a split.

    Raises as `now_errors` and `now_table` do, the picture named; what is missing stops it before anything is computed,
    unless `allow_missing`.
    """
    missing = submission.missing(data.images)
    if missing and not allow_missing:
        name, why = next(iter(missing.items()))
        raise ValueError(f"{submission.folder} lacks {len(missing)} of {len(data.images)} images: {name} ({why}), ...; "
                         "predict them, or say allow_missing=True")  # fmt: skip
    distances = {}
    for subject, pictures in data.by_subject().items():
        scan = data.scan(subject)
        for name in (picture for picture in pictures if picture not in missing):
            found = submission.prediction(name)
            try:
                errors = now_errors(scan.vertices, scan.landmarks, found.vertices, found.triangles, found.landmarks,
                                    metrical, unit)  # fmt: skip
            except (ValueError, LandmarkError) as error:
                raise type(error)(f"{name}: {error}") from error
            distances[name] = errors.distances
    return now_table(data.images, distances, allow_missing)
