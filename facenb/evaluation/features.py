"""Prepare features before they are compared: join the mirrored image's feature, subtract a mean, pool several into one.
Fuse the scores of two features (Liu et al. 2018, section 4.2).

Papers differ in these steps, and each step changes a result by several points. All of them are off by default.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facenb.evaluation.recognition import (
    CURVE_MEASURES,
    ROC,
    Pairs,
    Verification,
    area_under_roc,
    cosine,
    lengths,
    verify,
)

JOINED = {  # how the feature of an image and that of the mirrored image become one
    "": lambda features, mirrored: features,
    "average": lambda features, mirrored: (features + mirrored) / 2,  # as InsightFace's script
    "concatenate": lambda features, mirrored: torch.cat([features, mirrored], 1),  # as SphereFace's script
}
STEPS = 20  # number of steps of the fusion weight, from 0 to 1


def verify_features(
    features: Float[Tensor, "pictures features"],
    pairs: Pairs,
    mirrored: Float[Tensor, "pictures features"] | None = None,
    mirror: str = "",
    subtract_mean: bool = False,
    measures: Mapping[str, Callable[[ROC], Tensor]] = CURVE_MEASURES,
) -> Verification:
    """Run `verify` on the cosines of features, prepared as the usual scripts for LFW do.

    `mirror` is one of JOINED. If `subtract_mean` is True, subtract the mean feature of the images in the pairs of the
    *other* folds. An image in several pairs counts several times, as in the SphereFace script. Raise ValueError as
    `cosine` and `verify` do.
    """
    features = JOINED[mirror](features, mirrored).cpu()
    rows = torch.cat([pairs.first, pairs.second])

    def scores_for(others: Bool[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
        mean = features[rows[others.repeat(2)]].mean(0) if subtract_mean else features.new_zeros(())
        return cosine(features[pairs.first] - mean, features[pairs.second] - mean)

    return verify(scores_for, pairs.same, pairs.fold, measures)


def fuse(
    first: Float[Tensor, "*scores"], second: Float[Tensor, "*scores"], weight: float = 0.5
) -> Float[Tensor, "*scores"]:
    """Return `(1 - weight) first + weight second`. The default weight orders pairs as the paper's sum does.

    Both scores should be of one kind (cosines). A score ten times as large as the other would decide alone.
    """
    return (1 - weight) * first + weight * second


def best_weight(first: Float[Tensor, " pairs"], second: Float[Tensor, " pairs"], same: Bool[Tensor, " pairs"]) -> float:
    """Return the weight of the second score, in steps of a twentieth, with the largest area under the curve of `fuse`.

    If several weights are equally good, return the middle one. Do not use test pairs here.
    """
    areas = torch.tensor([area_under_roc(fuse(first, second, step / STEPS), same) for step in range(STEPS + 1)])
    best = (areas == areas.max()).nonzero()[:, 0]
    return int(best[(len(best) - 1) // 2]) / STEPS


def fuse_best(
    first: Float[Tensor, " pairs"], second: Float[Tensor, " pairs"], same: Bool[Tensor, " pairs"]
) -> Callable[[Bool[Tensor, " pairs"]], Float[Tensor, " pairs"]]:
    """Return a function for `verify` that sums two scores, with the weight that is best on all other folds."""
    return lambda others: fuse(first, second, best_weight(first[others], second[others], same[others]))


class Templates(NamedTuple):
    """One feature per template. A template is a set of images of one person that belong together, or a video."""

    numbers: Int[Tensor, " templates"]  # in ascending order
    features: Float[Tensor, "templates features"]

    def rows(self, numbers: Int[Tensor, " chosen"]) -> Int[Tensor, " chosen"]:
        """Return the rows of the given templates. Raise ValueError if a template has no images."""
        row = torch.searchsorted(self.numbers, numbers).clamp(max=len(self.numbers) - 1)
        absent = self.numbers[row] != numbers
        if absent.any():
            raise ValueError(
                f"template {int(numbers[absent][0])} has no image ({int(absent.sum())} such); leave out the pairs "
                "of these templates and report how many there are"
            )
        return row


def pool(
    features: Float[Tensor, "pictures features"],
    template: Int[Tensor, " pictures"],
    media: Int[Tensor, " pictures"] | None = None,
) -> Templates:
    """Return one feature for each template: first average the images of each medium, then average the media.

    So a video of a thousand frames has no more weight than a photo (Crosswhite et al. 2018, "Template adaptation for
    face verification and identification"). Without `media` every image has the same weight, like the frames of one
    video. Features are scaled to length 1 first. Raise ValueError if a feature is zero or not finite.
    """
    if media is None:
        media = torch.arange(len(features))
    both, inside = torch.stack([template, media], 1).unique(dim=0, return_inverse=True)
    means = _means(features / lengths(features)[:, None], inside, len(both))
    numbers, outside = both[:, 0].unique(return_inverse=True)
    return Templates(numbers, _means(means, outside, len(numbers)))


def _means(values: Tensor, group: Tensor, groups: int) -> Float[Tensor, "groups features"]:
    total = values.new_zeros(groups, values.shape[1]).index_add_(0, group, values)
    return total / torch.bincount(group, minlength=groups)[:, None]
