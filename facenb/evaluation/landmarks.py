"""Landmark accuracy: normalised mean error and its mean over bins of yaw (Zhu et al. 2016, AFLW2000-3D)."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from facenb.errors import LandmarkError
from facenb.fitting import Fit
from facenb.morphable.model import MorphableModel

BINS = ((0.0, 30.0), (30.0, 60.0), (60.0, 90.0))  # |yaw| in degrees: [0, 30], (30, 60], (60, 90]


def box_size(truth: Float[Tensor, "faces points 2"]) -> Float[Tensor, " faces"]:
    """sqrt(width height) of the box around the true landmarks, in their unit. LandmarkError for a box without area."""
    size = (truth.amax(1) - truth.amin(1)).prod(-1).sqrt()
    if not (size > 0).all():  # NaN fails as well
        row = int((~(size > 0)).nonzero()[0])
        raise LandmarkError(f"the true landmarks of face {row} span no box (size {float(size[row])})")
    return size


def nme(predicted: Float[Tensor, "faces points 2"], truth: Float[Tensor, "faces points 2"]) -> Float[Tensor, " faces"]:
    """Mean distance of a face's landmarks over `box_size`, as a fraction; NaN where the prediction is missing (NaN)."""
    return (predicted - truth).norm(dim=-1).mean(1) / box_size(truth)


@dataclass(frozen=True)
class YawTable:
    """Mean NME of each yaw bin as a fraction, the mean of the bins' means, and what is behind them."""

    bins: tuple[float, ...]
    mean: float
    counts: tuple[int, ...]  # faces with a prediction, by bin
    missed: tuple[int, ...]  # faces without one, by bin: never part of the means

    def percent(self) -> list[float]:
        """The bins and their mean, in per cent."""
        return [100 * value for value in (*self.bins, self.mean)]


def by_yaw(errors: Float[Tensor, " faces"], yaw: Float[Tensor, " faces"]) -> YawTable:
    """NME by |yaw| (radians); a yaw above 90 degrees counts in the last bin. NaN errors are misses, counted apart.

    A bin without a prediction has the mean NaN, and so has the mean of the bins.
    """
    if not torch.isfinite(yaw).all():
        raise LandmarkError(f"yaw of face {int((~torch.isfinite(yaw)).nonzero()[0])} is not finite")
    # Radians of float32 do not hit the edges exactly; a ten-thousandth of a degree decides no face.
    degrees = yaw.abs().double().rad2deg()
    means, counts, missed = [], [], []
    for place, (low, high) in enumerate(BINS):
        inside: Bool[Tensor, " faces"] = degrees > low + 1e-4 if place else degrees >= 0
        if place < len(BINS) - 1:
            inside = inside & (degrees <= high + 1e-4)
        found = errors[inside & ~errors.isnan()]
        means.append(float(found.double().mean()) if len(found) else math.nan)
        counts.append(len(found))
        missed.append(int((inside & errors.isnan()).sum()))
    return YawTable(tuple(means), sum(means) / len(means), tuple(counts), tuple(missed))


def fitted_landmarks(model: MorphableModel, fit: Fit) -> Float[Tensor, "images 68 2"]:
    """Where a fit puts the model's 68 landmarks in each image, in pixels; hidden ones as well, never sliding."""
    points, offsets = model.landmarks.of(model.mean), model.landmarks.of(model.identity_basis)
    shape = points + torch.tensordot(fit.identity[fit.subject], offsets, 1)
    shape = shape + torch.tensordot(fit.expression, model.landmarks.of(model.expression_basis), 1)
    return fit.camera.project(shape)[..., :2]


def bootstrap_mean_of_bins(
    errors: Float[Tensor, " faces"], yaw: Float[Tensor, " faces"], draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of the mean of the bins' means, by drawing the found faces of each bin with replacement."""
    generator = torch.Generator().manual_seed(seed)
    degrees = yaw.abs().double().rad2deg()
    edges = torch.tensor([high + 1e-4 for _, high in BINS[:-1]], dtype=torch.float64)
    place = torch.bucketize(degrees, edges)
    total = torch.zeros(draws, dtype=torch.float64)
    for bin_ in range(len(BINS)):
        found = errors[(place == bin_) & ~errors.isnan()].double()
        if not len(found):
            return math.nan, math.nan
        index = torch.randint(len(found), (draws, len(found)), generator=generator)
        total += found[index].mean(1) / len(BINS)
    low, high = torch.quantile(total, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high
