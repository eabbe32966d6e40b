"""The losses of DECA (Feng et al. 2021, Sections 4.1 and 4.2), one short pure function each.

Their weights, and which pictures they are taken of, are the training's matter. Where the paper sums and says no more,
these are means, so that a weight does not hang on the number of pixels or coefficients.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

LIDS = ((37, 41), (38, 40), (43, 47), (44, 46))  # upper and lower landmarks of both eyes


def landmark_loss(predicted: Float[Tensor, "batch 68 2"], target: Float[Tensor, "batch 68 2"]) -> Float[Tensor, ""]:
    """L_lmk: mean |difference| of a landmark's coordinates, in the unit given. ValueError for other shapes."""
    _check(predicted, target)
    return (predicted - target).abs().mean()


def eye_closure_loss(predicted: Float[Tensor, "batch 68 2"], target: Float[Tensor, "batch 68 2"]) -> Float[Tensor, ""]:
    """L_eye: the same of the offsets from lower to upper lid, which do not care where the eye is."""
    _check(predicted, target)
    upper, lower = (list(side) for side in zip(*LIDS, strict=True))
    return ((predicted[:, upper] - predicted[:, lower]) - (target[:, upper] - target[:, lower])).abs().mean()


def photometric_loss(
    rendered: Float[Tensor, "batch height width 3"],
    image: Float[Tensor, "batch height width 3"],
    mask: Bool[Tensor, "batch height width"],
) -> Float[Tensor, ""]:
    """L_pho: mean |difference| of the colours of all skin pixels; 0 where there is no skin in any picture."""
    _check(rendered, image)
    difference = (rendered - image).abs().mean(-1)
    return torch.where(mask, difference, 0.0).sum() / mask.sum().clamp_min(1)


def local_photometric_loss(
    rendered: Float[Tensor, "batch height width 3"],
    image: Float[Tensor, "batch height width 3"],
    mask: Bool[Tensor, "batch height width"],
    window: int = 9,
) -> Float[Tensor, ""]:
    """The same of what is left of the difference once its mean over the skin in a `window` of pixels is taken away.

    Ours, not the paper's: what coarse shape, light and albedo left over is smooth, and wrinkles are not to explain it.
    Raises ValueError for a window that is even or less than 3.
    """
    _check(rendered, image)
    if window < 3 or window % 2 == 0:
        raise ValueError(f"window is {window}; give an odd number of pixels from 3 up")
    there = mask[:, None].to(rendered)
    difference = (rendered - image).permute(0, 3, 1, 2) * there
    both = functional.avg_pool2d(torch.cat([difference, there], 1), window, 1, window // 2)
    around = both[:, :3] / both[:, 3:].clamp_min(1 / window**2)
    return ((difference - around * there).abs().mean(1) * mask).sum() / mask.sum().clamp_min(1)


def identity_loss(
    rendered: Float[Tensor, "batch features"], image: Float[Tensor, "batch features"]
) -> Float[Tensor, ""]:
    """L_id: 1 - cosine of what a recognition network says of rendering and picture, the mean."""
    _check(rendered, image)
    return 1 - functional.cosine_similarity(rendered, image).mean()


def prior_loss(coefficients: Float[Tensor, "batch coefficients"]) -> Float[Tensor, ""]:
    """Mean square of whitened coefficients (of identity, expression or albedo)."""
    return coefficients.square().mean()


def symmetry_loss(displacement: Float[Tensor, "batch rows columns"]) -> Float[Tensor, ""]:
    """L_sym: mean |difference| of a displacement map and its mirror image, mm; the texture must be symmetric."""
    return (displacement - displacement.flip(-1)).abs().mean()


def regularisation_loss(displacement: Float[Tensor, "batch rows columns"]) -> Float[Tensor, ""]:
    """L_reg: mean |displacement|, mm."""
    return displacement.abs().mean()


def _check(predicted: Tensor, target: Tensor) -> None:
    if predicted.shape != target.shape:  # broadcasting would give a number, and a wrong one
        raise ValueError(f"{tuple(predicted.shape)} and {tuple(target.shape)} differ in shape")
