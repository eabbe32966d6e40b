"""The losses of DECA (Feng et al. 2021, Sections 4.1 and 4.2), one short pure function each.

Their weights, and which pictures they are taken of, are the training's matter. Where the paper sums and says no more,
these are means, so that a weight does not hang on the number of pixels or coefficients. Of an empty batch every loss
is 0.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from facenb.losses.common import check_alike, mean

PARTS = (17, 5, 5, 9, 6, 6, 20)  # landmarks of the jaw line, brows, nose, eyes, mouth, in this order
LIDS = ((37, 41), (38, 40), (43, 47), (44, 46))  # upper and lower landmarks of both eyes


def landmark_loss(predicted: Float[Tensor, "batch 68 2"], target: Float[Tensor, "batch 68 2"]) -> Float[Tensor, ""]:
    """L_lmk: mean |difference| of a landmark's coordinates, in the unit given. ValueError for other shapes."""
    check_alike(("predicted", "target"), predicted, target)
    return mean((predicted - target).abs())


def eye_closure_loss(predicted: Float[Tensor, "batch 68 2"], target: Float[Tensor, "batch 68 2"]) -> Float[Tensor, ""]:
    """L_eye: the same of the offsets from lower to upper lid, which do not care where the eye is."""
    check_alike(("predicted", "target"), predicted, target)
    upper, lower = (list(side) for side in zip(*LIDS, strict=True))
    return mean(((predicted[:, upper] - predicted[:, lower]) - (target[:, upper] - target[:, lower])).abs())


def parts_loss(predicted: Float[Tensor, "batch 68 2"], target: Float[Tensor, "batch 68 2"]) -> Float[Tensor, ""]:
    """The same of each landmark's place relative to the mean of its part (jaw line, brow, nose, eye, mouth).

    Ours, not the paper's: landmarks that are off because the whole head is would otherwise hide an open mouth.
    """
    check_alike(("predicted", "target"), predicted, target)
    difference = predicted - target
    within = [part - part.mean(1, keepdim=True) for part in difference.split(PARTS, 1)]
    return mean(torch.cat(within, 1).abs())


def photometric_loss(
    rendered: Float[Tensor, "batch height width 3"],
    image: Float[Tensor, "batch height width 3"],
    mask: Bool[Tensor, "batch height width"],
) -> Float[Tensor, ""]:
    """L_pho: mean |difference| of the colours of all skin pixels; 0 where there is no skin in any picture.

    Raises ValueError for pictures and mask of other shapes.
    """
    check_alike(("rendered", "image"), rendered, image)
    _check_mask(mask, image)
    difference = (rendered - image).abs().mean(-1)
    return mean(torch.where(mask, difference, 0.0), mask)


def local_photometric_loss(
    rendered: Float[Tensor, "batch height width 3"],
    image: Float[Tensor, "batch height width 3"],
    mask: Bool[Tensor, "batch height width"],
    window: int = 11,
    grain: int = 3,
) -> Float[Tensor, ""]:
    """The same of the difference's mean over the skin in `grain` pixels, less that in a `window` of pixels.

    Ours, not the paper's: what coarse shape, light and albedo left over is smooth, and wrinkles are not to explain it;
    what is finer than a wrinkle is the sensor's noise. Raises ValueError for a number of pixels that is even, a window
    that is not larger than the grain, or pictures and mask of other shapes.
    """
    check_alike(("rendered", "image"), rendered, image)
    _check_mask(mask, image)
    if not 1 <= grain < window or window % 2 == 0 or grain % 2 == 0:
        raise ValueError(f"window is {window} and grain {grain}; give odd numbers of pixels, the window the larger")
    there = mask[:, None].to(rendered)
    both = torch.cat([(rendered - image).permute(0, 3, 1, 2) * there, there], 1)

    def blurred(pixels: int) -> Tensor:
        total = functional.avg_pool2d(both, pixels, 1, pixels // 2)
        return total[:, :3] / total[:, 3:].clamp_min(1 / pixels**2)

    return mean((blurred(grain) - blurred(window)).abs().mean(1) * mask, mask)


def identity_loss(
    rendered: Float[Tensor, "batch features"], image: Float[Tensor, "batch features"]
) -> Float[Tensor, ""]:
    """L_id: 1 - cosine of what a recognition network says of rendering and picture, the mean."""
    check_alike(("rendered", "image"), rendered, image)
    return mean(1 - functional.cosine_similarity(rendered, image))


def prior_loss(coefficients: Float[Tensor, "batch coefficients"]) -> Float[Tensor, ""]:
    """Mean square of whitened coefficients (of identity, expression or albedo); 0 where there are none."""
    return mean(coefficients.square())


def symmetry_loss(displacement: Float[Tensor, "batch rows columns"]) -> Float[Tensor, ""]:
    """L_sym: mean |difference| of a displacement map and its mirror image, mm; the texture must be symmetric."""
    return mean((displacement - displacement.flip(-1)).abs())


def regularisation_loss(displacement: Float[Tensor, "batch rows columns"]) -> Float[Tensor, ""]:
    """L_reg: mean |displacement|, mm."""
    return mean(displacement.abs())


def _check_mask(mask: Tensor, image: Tensor) -> None:
    if mask.shape != image.shape[:3]:
        raise ValueError(
            f"the mask is {tuple(mask.shape)}, and pictures {tuple(image.shape)} need {tuple(image.shape[:3])}"
        )
