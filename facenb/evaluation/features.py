"""Prepare features before they are compared: join the mirrored image's feature, subtract a mean, pool several into one.

Papers differ in these steps, and each step changes a result by several points. All of them are off by default.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facenb.evaluation.recognition import CURVE_MEASURES, ROC, Pairs, Verification, cosine, verify_by_fold

MIRROR = ("", "average", "concatenate")


def with_mirrored(
    features: Float[Tensor, "pictures features"], mirrored: Float[Tensor, "pictures features"] | None, how: str
) -> Float[Tensor, "pictures joined"]:
    """Return the features of images joined with the features of the mirrored images.

    `how` is "average" (InsightFace's script), "concatenate" (SphereFace's script), or empty: then the features of the
    images alone. Raise ValueError if `how` is anything else, or if the mirrored features are needed but not given.
    """
    if how not in MIRROR:
        raise ValueError(f"mirror is {how!r}; choose one of {', '.join(map(repr, MIRROR))}")
    if not how:
        return features
    if mirrored is None:
        raise ValueError(f"mirror={how!r} also needs the features of the mirrored images; pass them")
    return torch.cat([features, mirrored], 1) if how == "concatenate" else (features + mirrored) / 2


def verify_features(
    features: Float[Tensor, "pictures features"],
    pairs: Pairs,
    mirrored: Float[Tensor, "pictures features"] | None = None,
    mirror: str = "",
    subtract_mean: bool = False,
    measures: Mapping[str, Callable[[ROC], Tensor]] = CURVE_MEASURES,
) -> Verification:
    """Run `verify` on the cosines of features, prepared as the usual scripts for LFW do.

    `mirror` is the `how` of `with_mirrored`. If `subtract_mean` is True, subtract the mean feature of the images in the
    pairs of the *other* folds. An image in several pairs counts several times, as in the SphereFace script. Raise
    ValueError as `cosine` and `verify` do.
    """
    features = with_mirrored(features, mirrored, mirror).cpu()
    rows = torch.cat([pairs.first, pairs.second])

    def scores_for(others: Bool[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
        mean = features[rows[others.repeat(2)]].mean(0) if subtract_mean else features.new_zeros(())
        return cosine(features[pairs.first] - mean, features[pairs.second] - mean)

    return verify_by_fold(scores_for, pairs.same, pairs.fold, measures)


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
    length = features.norm(dim=1, keepdim=True)
    bad = ~(length[:, 0].isfinite() & (length[:, 0] > 0))
    if bad.any():
        raise ValueError(f"feature {int(bad.nonzero()[0])} has no direction: it is zero or not finite")
    both, inside = torch.stack([template, media], 1).unique(dim=0, return_inverse=True)
    means = _means(features / length, inside, len(both))
    numbers, outside = both[:, 0].unique(return_inverse=True)
    return Templates(numbers, _means(means, outside, len(numbers)))


def _means(values: Tensor, group: Tensor, groups: int) -> Float[Tensor, "groups features"]:
    total = values.new_zeros(groups, values.shape[1]).index_add_(0, group, values)
    return total / torch.bincount(group, minlength=groups)[:, None]
