"""Landmark accuracy: normalised mean error and its mean over bins of yaw (Zhu et al. 2016, AFLW2000-3D).

The box that an error is divided by is that of the true landmarks. Two means circulate: of the three bins' means, and of
all images; `YawTable` has both. A missing prediction is a NaN in the errors: counted beside the means, and in the
cumulative curve a face that no threshold reaches.
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
    """ValueError unless all have one shape, that of `axes`, whose names stand for any length; nothing is broadcast."""
    shapes = {name: tuple(value.shape) for name, value in values.items()}
    first = next(iter(shapes.values()), ())
    wanted = tuple(size if isinstance(axis, str) else axis for axis, size in zip_longest(axes, first))
    if any(shape != wanted for shape in shapes.values()):
        told = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"all must have one shape ({', '.join(map(str, axes))}), got {told}")


def box_size(truth: Float[Tensor, "faces points 2"]) -> Float[Tensor, " faces"]:
    """sqrt(width height) of the box around the true landmarks, in their unit. LandmarkError for a box without area."""
    _check("faces", "points", 2, truth=truth)
    size = (truth.amax(1) - truth.amin(1)).prod(-1).sqrt()
    if not (size > 0).all():  # NaN fails as well
        row = int((~(size > 0)).nonzero()[0])
        raise LandmarkError(f"the true landmarks of face {row} span no box (size {float(size[row])})")
    return size


def nme(predicted: Float[Tensor, "faces points 2"], truth: Float[Tensor, "faces points 2"]) -> Float[Tensor, " faces"]:
    """Mean distance of a face's landmarks over `box_size`, as a fraction; NaN where the prediction is missing (NaN).

    Raises ValueError for any other shapes, LandmarkError as `box_size` does.
    """
    _check("faces", "points", 2, predicted=predicted, truth=truth)
    return (predicted - truth).norm(dim=-1).mean(1) / box_size(truth)


@dataclass(frozen=True)
class YawTable:
    """Mean NME of each yaw bin as a fraction, the mean of the bins' means, and what is behind them."""

    bins: tuple[float, ...]
    mean: float
    counts: tuple[int, ...]  # faces with a prediction, by bin
    missed: tuple[int, ...]  # faces without one, by bin: never part of the means

    @property
    def mean_of_images(self) -> float:
        """Mean of all images with a prediction: mostly frontal faces, where most images are frontal."""
        known = [(value, count) for value, count in zip(self.bins, self.counts, strict=True) if count]
        return sum(value * count for value, count in known) / sum(self.counts) if known else math.nan

    def percent(self) -> list[float]:
        """The bins and their mean, in per cent."""
        return [100 * value for value in (*self.bins, self.mean)]


def yaw_bin(yaw: Float[Tensor, " faces"]) -> Int[Tensor, " faces"]:
    """Which of `BINS` each |yaw| (radians) lies in, above 90 degrees the last.

    Raises LandmarkError for one that is not finite, ValueError for one beyond pi (degrees?).
    """
    _check("faces", yaw=yaw)
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
    """NME by |yaw| (radians); a yaw above 90 degrees counts in the last bin. NaN errors are misses, counted apart.

    A bin without a prediction has the mean NaN, and so has the mean of the bins. Raises as `yaw_bin` does.
    """
    _check("faces", errors=errors, yaw=yaw)
    place = yaw_bin(yaw)
    means, counts, missed = [], [], []
    for number in range(len(BINS)):
        inside = place == number
        found = errors[inside & ~errors.isnan()]
        means.append(float(found.double().mean()) if len(found) else math.nan)
        counts.append(len(found))
        missed.append(int((inside & errors.isnan()).sum()))
    return YawTable(tuple(means), sum(means) / len(means), tuple(counts), tuple(missed))


def mean_of_bins(
    errors: Float[Tensor, " faces"], yaw: Float[Tensor, " faces"], subject: Int[Tensor, " faces"]
) -> tuple[Callable[[np.ndarray], np.ndarray], int]:
    """The mean of the bins' means as `facenb.evaluation.claims.bootstrap` takes it, and how many people there are.

    The statistic takes weights (draws, people), how often each person is drawn; where they leave a bin without a
    prediction it is NaN. Raises as `yaw_bin` does.
    """
    _check("faces", errors=errors, yaw=yaw, subject=subject)
    values, place = errors.double().numpy(), yaw_bin(yaw).numpy()
    _, person = np.unique(subject.numpy(), return_inverse=True)
    people, found = int(person.max()) + 1, ~np.isnan(values)
    sums, counts = np.zeros((people, len(BINS))), np.zeros((people, len(BINS)))
    np.add.at(sums, (person[found], place[found]), values[found])
    np.add.at(counts, (person[found], place[found]), 1)

    def statistic(weights: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return ((weights @ sums) / (weights @ counts)).mean(1)

    return statistic, people


def found_by_all(errors: Sequence[Float[Tensor, " faces"]]) -> Bool[Tensor, " faces"]:
    """The faces for which every method has a prediction: only there may rows with misses be compared."""
    _check("faces", **{f"errors {row}": one for row, one in enumerate(errors)})
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


def cumulative_curve(errors: Float[Tensor, " faces"], limit: float = 0.1, steps: int = 201) -> CumulativeCurve:
    """How many faces are good enough, for thresholds from 0 to `limit` (a fraction of the box).

    Raises LandmarkError for no faces, ValueError for a limit that is not positive or fewer than two steps.
    """
    _check("faces", errors=errors)
    if not len(errors):
        raise LandmarkError("there are no faces to draw a cumulative curve of")
    if not limit > 0 or steps < 2:
        raise ValueError(f"a curve needs a limit above 0 and two steps or more, got {limit} and {steps}")
    thresholds = torch.linspace(0, limit, steps, dtype=torch.float64)
    missed = errors.isnan()
    known = errors[~missed].double().sort().values
    share = torch.searchsorted(known, thresholds, right=True).double() / len(errors)
    return CumulativeCurve(thresholds, share, int(missed.sum()))


def posed_landmarks(
    known: Float[Tensor, "#faces points 3"], observed: Float[Tensor, "faces points 2"],
    wanted: Float[Tensor, "#faces landmarks 3"],
) -> Float[Tensor, "faces landmarks 2"]:  # fmt: skip
    """Where the `wanted` points of a shape (mm) lie in an image that shows its `known` points at `observed` (pixels).

    For shapes that come without a pose, as a network's or the mean face: the weak perspective camera of least squares
    over the known points, all alike. Faces whose observations are not finite are misses, NaN. Raises ValueError for
    points that do not belong together by their number.
    """
    _check("faces", "points", 2, observed=observed)
    for name, shape, points in (("known", known, observed.shape[1]), ("wanted", wanted, wanted.shape[1])):
        if tuple(shape.shape) not in ((1, points, 3), (len(observed), points, 3)):
            raise ValueError(f"{name} {tuple(shape.shape)} are no points ({points}, 3) of one face or of each face "
                             f"observed, {tuple(observed.shape)}")  # fmt: skip
    found = observed.isfinite().flatten(1).all(1)
    placed = observed.new_full((len(observed), wanted.shape[1], 2), torch.nan)
    if not found.any():
        return placed
    points, goal = (x.expand(len(observed), -1, -1)[found].double() for x in (known, wanted))
    flip = points.new_tensor([1.0, -1.0])  # pixels count v down
    seen = observed[found].double() * flip
    middle = seen.mean(1, keepdim=True)
    weights = torch.ones_like(seen[..., 0])
    start = scaled_orthographic(points, seen - middle, weights)
    rotation, scale, shift = refine_pose(points, seen - middle, weights, *start, steps=10)
    placed[found] = (
        WeakPerspective(rotation, scale, (shift + middle[:, 0]) * flip).project(goal)[..., :2].to(placed.dtype)
    )
    return placed


def fitted_landmarks(model: MorphableModel, fit: Fit) -> Float[Tensor, "images 68 2"]:
    """Where a fit puts the model's 68 landmarks in each image, in pixels; hidden ones as well, never sliding."""
    points, offsets = model.landmarks.of(model.mean), model.landmarks.of(model.identity_basis)
    shape = points + torch.tensordot(fit.identity[fit.subject], offsets, 1)
    shape = shape + torch.tensordot(fit.expression, model.landmarks.of(model.expression_basis), 1)
    return fit.camera.project(shape)[..., :2]


def bootstrap_mean_of_bins(
    errors: Float[Tensor, " faces"], yaw: Float[Tensor, " faces"], draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of the mean of the bins' means, by drawing the found faces of each bin with replacement.

    Raises as `yaw_bin` does.
    """
    _check("faces", errors=errors, yaw=yaw)
    generator = torch.Generator().manual_seed(seed)
    place = yaw_bin(yaw)
    total = torch.zeros(draws, dtype=torch.float64)
    for bin_ in range(len(BINS)):
        found = errors[(place == bin_) & ~errors.isnan()].double()
        if not len(found):
            return math.nan, math.nan
        index = torch.randint(len(found), (draws, len(found)), generator=generator)
        total += found[index].mean(1) / len(BINS)
    low, high = torch.quantile(total, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high
