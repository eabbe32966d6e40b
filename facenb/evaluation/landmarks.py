"""Landmark accuracy: normalised mean error and its mean over bins of yaw (Zhu et al. 2016, AFLW2000-3D).

The error is divided by the size of the box around the true landmarks. Papers use two means: the mean over the three
bins' means, and the mean over all images. `YawTable` has both. A missing prediction is a NaN in the errors. It is left
out of the means and counted separately. In the cumulative curve its error counts as infinite.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from facenb.errors import LandmarkError
from facenb.fitting import Fit, scaled_orthographic
from facenb.fitting.pose import refine_pose
from facenb.imaging.camera import WeakPerspective
from facenb.morphable.model import MorphableModel

BINS = ((0.0, 30.0), (30.0, 60.0), (60.0, 90.0))  # |yaw| in degrees: [0, 30], (30, 60], (60, 90]


def box_size(truth: Float[Tensor, "faces points 2"]) -> Float[Tensor, " faces"]:
    """Return sqrt(width * height) of the box around the true landmarks. Raise LandmarkError if its area is zero."""
    size = (truth.amax(1) - truth.amin(1)).prod(-1).sqrt()
    if not (size > 0).all():  # NaN fails as well
        row = int((~(size > 0)).nonzero()[0])
        raise LandmarkError(f"the box around the true landmarks of face {row} has no area (size {float(size[row])})")
    return size


def nme(predicted: Float[Tensor, "faces points 2"], truth: Float[Tensor, "faces points 2"]) -> Float[Tensor, " faces"]:
    """Return the mean landmark error of each face divided by `box_size`, as a fraction.

    It is NaN if the prediction is missing. Raise LandmarkError as `box_size` does.
    """
    return (predicted - truth).norm(dim=-1).mean(1) / box_size(truth)


@dataclass(frozen=True)
class YawTable:
    """The mean NME of each yaw bin as a fraction, the mean over the bins, and the numbers of faces."""

    bins: tuple[float, ...]
    mean: float
    counts: tuple[int, ...]  # faces with a prediction, per bin
    missed: tuple[int, ...]  # faces without a prediction, per bin; they are not in the means

    @property
    def mean_of_images(self) -> float:
        """The mean over all images with a prediction. If most faces are frontal, they dominate it."""
        filled = [(value, count) for value, count in zip(self.bins, self.counts, strict=True) if count]
        return sum(value * count for value, count in filled) / sum(self.counts) if filled else math.nan

    def percent(self) -> list[float]:
        """Return the mean of each bin and the mean over the bins, in per cent."""
        return [100 * value for value in (*self.bins, self.mean)]


def yaw_bin(yaw: Float[Tensor, " faces"]) -> Int[Tensor, " faces"]:
    """Return the index into `BINS` for each |yaw| (radians). Above 90 degrees it is the last bin.

    Raise LandmarkError if a yaw is not finite, ValueError if |yaw| > pi (it may be in degrees).
    """
    if not torch.isfinite(yaw).all():
        raise LandmarkError(f"yaw of face {int((~torch.isfinite(yaw)).nonzero()[0])} is not finite")
    beyond = yaw.abs() > math.pi + 1e-3  # allows for rounding of pi
    if beyond.any():
        row = int(beyond.nonzero()[0])
        raise ValueError(f"yaw of face {row} is {float(yaw[row]):g}; pass radians between -pi and pi")
    # float32 radians of 30 or 60 degrees are not exact, so the edges have a tolerance of a ten-thousandth of a degree.
    edges = torch.tensor([high + 1e-4 for _, high in BINS[:-1]], dtype=torch.float64, device=yaw.device)
    return torch.bucketize(yaw.abs().double().rad2deg(), edges)


def by_yaw(errors: Float[Tensor, " faces"], yaw: Float[Tensor, " faces"]) -> YawTable:
    """Return the NME by |yaw| (radians). A NaN error is a missing prediction and is counted separately.

    If a bin has no prediction, its mean and the mean over the bins are NaN. Raise as `yaw_bin` does.
    """
    bins = yaw_bin(yaw)
    means, counts, missed = [], [], []
    for number in range(len(BINS)):
        inside = errors[bins == number]
        scored = inside[~inside.isnan()]
        means.append(float(scored.double().mean()))  # NaN if the bin is empty
        counts.append(len(scored))
        missed.append(len(inside) - len(scored))
    return YawTable(tuple(means), sum(means) / len(means), tuple(counts), tuple(missed))


def mean_of_bins(
    errors: Float[Tensor, " faces"], yaw: Float[Tensor, " faces"], subject: Int[Tensor, " faces"]
) -> tuple[Callable[[np.ndarray], np.ndarray], int]:
    """Return the mean over the bins as a statistic for `intervals.bootstrap`, and the number of people.

    The statistic takes weights (draws, people): how often each person is drawn. It is NaN if a draw has a bin without a
    prediction. Raise as `yaw_bin` does.
    """
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


@dataclass(frozen=True)
class CumulativeCurve:
    """The share of all faces (with or without a prediction) whose error is at most each threshold."""

    thresholds: Float[Tensor, " thresholds"]  # NME as a fraction
    share: Float[Tensor, " thresholds"]
    missed: int  # faces without a prediction; their error counts as infinite

    @property
    def area(self) -> float:
        """The area under the curve as a fraction of the whole plot: 1 if every error is zero."""
        width = float(self.thresholds[-1] - self.thresholds[0])
        return float(torch.trapezoid(self.share, self.thresholds)) / width

    @property
    def failures(self) -> float:
        """The share of faces that have no prediction, or an error above the last threshold."""
        return 1 - float(self.share[-1])


def cumulative_curve(errors: Float[Tensor, " faces"]) -> CumulativeCurve:
    """Return the cumulative error curve, for 201 thresholds from 0 to 10 % of the box size."""
    thresholds = torch.linspace(0, 0.1, 201, dtype=torch.float64)
    missed = errors.isnan()
    share = torch.searchsorted(errors[~missed].double().sort().values, thresholds, right=True).double() / len(errors)
    return CumulativeCurve(thresholds, share, int(missed.sum()))


def posed_landmarks(
    points: Float[Tensor, "#faces points 3"],
    observed: Float[Tensor, "faces points 2"],
    targets: Float[Tensor, "#faces landmarks 3"],
) -> Float[Tensor, "faces landmarks 2"]:
    """Return the image positions (pixels) of a shape's `targets` (mm), with the pose that fits `points` to `observed`.

    Use it for shapes without a pose, such as the mean face. The pose is the weak perspective camera that projects
    `points` (mm) nearest to `observed` (pixels), by least squares. The result is NaN if `observed` is not finite.
    """
    seen = observed.isfinite().flatten(1).all(1)
    placed = observed.new_full((len(observed), targets.shape[1], 2), torch.nan)
    if not seen.any():
        return placed
    points, targets = (x.expand(len(observed), -1, -1)[seen].double() for x in (points, targets))
    flip = points.new_tensor([1.0, -1.0])  # in pixels v points down
    upward = observed[seen].double() * flip
    middle = upward.mean(1, keepdim=True)
    weights = torch.ones_like(upward[..., 0])
    start = scaled_orthographic(points, upward - middle, weights)
    rotation, scale, shift = refine_pose(points, upward - middle, weights, start, steps=10)
    camera = WeakPerspective(rotation, scale, (shift + middle[:, 0]) * flip)
    placed[seen] = camera.project(targets)[..., :2].to(placed.dtype)
    return placed


def fitted_landmarks(model: MorphableModel, fit: Fit) -> Float[Tensor, "images 68 2"]:
    """Return the model's 68 landmarks projected by a fit, in pixels: fixed points of the head, visible or not."""
    points, offsets = model.landmarks.of(model.mean), model.landmarks.of(model.identity_basis)
    shape = points + torch.tensordot(fit.identity[fit.subject], offsets, 1)
    shape = shape + torch.tensordot(fit.expression, model.landmarks.of(model.expression_basis), 1)
    return fit.camera.project(shape)[..., :2]
