"""Landmark accuracy: normalised mean error and its mean over bins of yaw (Zhu et al. 2016, AFLW2000-3D).

The error is divided by the size of the true landmarks' box. Two means circulate: of the three bins' means, and of all
images; `YawTable` has both. A missing prediction is a NaN in the errors: it is counted beside the means, and in the
cumulative curve it is a face that no threshold reaches.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facenb.errors import LandmarkError
from facenb.fitting import Fit, scaled_orthographic
from facenb.fitting.pose import refine_pose
from facenb.imaging.camera import WeakPerspective
from facenb.morphable.model import MorphableModel

BINS = ((0.0, 30.0), (30.0, 60.0), (60.0, 90.0))  # |yaw| in degrees: [0, 30], (30, 60], (60, 90]


def _check(*axes: str | int, **values: Tensor) -> None:
    """Raise ValueError unless all arrays have one shape, so that nothing is broadcast; a name stands for any length."""
    shapes = {name: tuple(value.shape) for name, value in values.items()}
    first = next(iter(shapes.values()), ())
    wanted = tuple(size if isinstance(axis, str) else axis for axis, size in zip_longest(axes, first))
    if any(shape != wanted for shape in shapes.values()):
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"all must have one shape ({', '.join(map(str, axes))}), got {listed}")


def box_size(truth: Float[Tensor, "faces points 2"]) -> Float[Tensor, " faces"]:
    """Return sqrt(width height) of the true landmarks' box. Raise LandmarkError for a box without area."""
    size = (truth.amax(1) - truth.amin(1)).prod(-1).sqrt()
    if not (size > 0).all():  # NaN fails as well
        row = int((~(size > 0)).nonzero()[0])
        raise LandmarkError(f"the true landmarks of face {row} span no box (size {float(size[row])})")
    return size


def nme(predicted: Float[Tensor, "faces points 2"], truth: Float[Tensor, "faces points 2"]) -> Float[Tensor, " faces"]:
    """Return the mean distance of a face's landmarks over `box_size`, as a fraction; NaN for a missing prediction.

    Raise ValueError for arrays of different shapes, LandmarkError as `box_size` does.
    """
    _check("faces", "points", 2, predicted=predicted, truth=truth)
    return (predicted - truth).norm(dim=-1).mean(1) / box_size(truth)


@dataclass(frozen=True)
class YawTable:
    """Mean NME of each yaw bin as a fraction, the mean of the bins' means, and the numbers of faces."""

    bins: tuple[float, ...]
    mean: float
    counts: tuple[int, ...]  # faces with a prediction, by bin
    missed: tuple[int, ...]  # faces without one, by bin: never part of the means

    @property
    def mean_of_images(self) -> float:
        """Mean of all images with a prediction: mostly frontal faces, where most images are frontal."""
        filled = [(value, count) for value, count in zip(self.bins, self.counts, strict=True) if count]
        return sum(value * count for value, count in filled) / sum(self.counts) if filled else math.nan

    def percent(self) -> list[float]:
        """Return the bins and their mean, in per cent."""
        return [100 * value for value in (*self.bins, self.mean)]


def yaw_bin(yaw: Float[Tensor, " faces"]) -> Int[Tensor, " faces"]:
    """Return which of `BINS` each |yaw| (radians) lies in; above 90 degrees the last.

    Raise LandmarkError for a yaw that is not finite, ValueError for one beyond pi (degrees?).
    """
    if not torch.isfinite(yaw).all():
        raise LandmarkError(f"yaw of face {int((~torch.isfinite(yaw)).nonzero()[0])} is not finite")
    beyond = yaw.abs() > math.pi + 1e-3  # rounding turns no pi into degrees
    if beyond.any():
        row = int(beyond.nonzero()[0])
        raise ValueError(f"yaw of face {row} is {float(yaw[row]):g}: radians are expected, between -pi and pi")
    # Radians of float32 do not hit the edges exactly; a ten-thousandth of a degree decides no face.
    edges = torch.tensor([high + 1e-4 for _, high in BINS[:-1]], dtype=torch.float64, device=yaw.device)
    return torch.bucketize(yaw.abs().double().rad2deg(), edges)


def by_yaw(errors: Float[Tensor, " faces"], yaw: Float[Tensor, " faces"]) -> YawTable:
    """Return the NME by |yaw| (radians). NaN errors are misses and counted apart.

    A bin without a prediction has the mean NaN, and so has the mean of the bins. Raise as `yaw_bin` does.
    """
    _check("faces", errors=errors, yaw=yaw)
    bins = yaw_bin(yaw)
    means, counts, missed = [], [], []
    for number in range(len(BINS)):
        inside = errors[bins == number]
        scored = inside[~inside.isnan()]
        means.append(float(scored.double().mean()))  # NaN without any
        counts.append(len(scored))
        missed.append(len(inside) - len(scored))
    return YawTable(tuple(means), sum(means) / len(means), tuple(counts), tuple(missed))


def mean_of_bins(
    errors: Float[Tensor, " faces"], yaw: Float[Tensor, " faces"], subject: Int[Tensor, " faces"]
) -> tuple[Callable[[np.ndarray], np.ndarray], int]:
    """Return the mean of the bins' means as a statistic for `facenb.evaluation.claims.bootstrap`, and the people.

    The statistic takes weights (draws, people), how often each person is drawn. It is NaN where they leave a bin
    without a prediction. Raise as `yaw_bin` does.
    """
    _check("faces", errors=errors, yaw=yaw, subject=subject)
    values, bins = errors.double().numpy(), yaw_bin(yaw).numpy()
    _, person = np.unique(subject.numpy(), return_inverse=True)
    people, scored = int(person.max()) + 1, ~np.isnan(values)
    sums, counts = np.zeros((people, len(BINS))), np.zeros((people, len(BINS)))
    np.add.at(sums, (person[scored], bins[scored]), values[scored])
    np.add.at(counts, (person[scored], bins[scored]), 1)

    def statistic(weights: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return ((weights @ sums) / (weights @ counts)).mean(1)

    return statistic, people


def found_by_all(errors: Sequence[Float[Tensor, " faces"]]) -> Bool[Tensor, " faces"]:
    """Return the faces for which every method has a prediction: only there may rows with misses be compared."""
    return ~torch.stack(list(errors)).isnan().any(0)


@dataclass(frozen=True)
class CumulativeCurve:
    """The share of all faces, misses among them, whose error is at most each threshold."""

    thresholds: Float[Tensor, " thresholds"]  # NME as a fraction
    share: Float[Tensor, " thresholds"]
    missed: int  # faces without a prediction, which no threshold reaches

    @property
    def area(self) -> float:
        """Area under the curve over its whole width, as a fraction: 1 where every error is zero."""
        width = float(self.thresholds[-1] - self.thresholds[0])
        return float(torch.trapezoid(self.share, self.thresholds)) / width

    @property
    def failures(self) -> float:
        """Share of faces whose error is larger than the last threshold, or that have no prediction."""
        return 1 - float(self.share[-1])


def cumulative_curve(errors: Float[Tensor, " faces"]) -> CumulativeCurve:
    """Return the share of faces with at most each error, for 201 thresholds from 0 to 10 % of the box."""
    thresholds = torch.linspace(0, 0.1, 201, dtype=torch.float64)
    missed = errors.isnan()
    share = torch.searchsorted(errors[~missed].double().sort().values, thresholds, right=True).double() / len(errors)
    return CumulativeCurve(thresholds, share, int(missed.sum()))


def posed_landmarks(
    points: Float[Tensor, "#faces points 3"],
    observed: Float[Tensor, "faces points 2"],
    targets: Float[Tensor, "#faces landmarks 3"],
) -> Float[Tensor, "faces landmarks 2"]:
    """Return where a shape's `targets` (mm) lie in an image that shows its `points` at `observed` (pixels).

    For shapes without a pose, as a network's or the mean face: the weak perspective camera of least squares over the
    points. Faces whose observations are not finite are misses, NaN.
    """
    seen = observed.isfinite().flatten(1).all(1)
    placed = observed.new_full((len(observed), targets.shape[1], 2), torch.nan)
    if not seen.any():
        return placed
    points, targets = (x.expand(len(observed), -1, -1)[seen].double() for x in (points, targets))
    flip = points.new_tensor([1.0, -1.0])  # pixels count v down
    upward = observed[seen].double() * flip
    middle = upward.mean(1, keepdim=True)
    weights = torch.ones_like(upward[..., 0])
    start = scaled_orthographic(points, upward - middle, weights)
    rotation, scale, shift = refine_pose(points, upward - middle, weights, *start, steps=10)
    camera = WeakPerspective(rotation, scale, (shift + middle[:, 0]) * flip)
    placed[seen] = camera.project(targets)[..., :2].to(placed.dtype)
    return placed


def fitted_landmarks(model: MorphableModel, fit: Fit) -> Float[Tensor, "images 68 2"]:
    """Return where a fit puts the model's 68 landmarks in each image, in pixels; hidden ones too, never sliding."""
    points, offsets = model.landmarks.of(model.mean), model.landmarks.of(model.identity_basis)
    shape = points + torch.tensordot(fit.identity[fit.subject], offsets, 1)
    shape = shape + torch.tensordot(fit.expression, model.landmarks.of(model.expression_basis), 1)
    return fit.camera.project(shape)[..., :2]
