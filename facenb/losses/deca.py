"""The losses of DECA (Feng et al. 2021, Sections 4.1 and 4.2), one function per equation.

The paper writes sums and does not always say over what. These losses are means, so a weight does not depend on the
number of pixels or coefficients. The weights are chosen in the training code. Each loss of an empty batch is 0.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from facenb.losses.common import mean

PARTS = (17, 5, 5, 9, 6, 6, 20)  # number of landmarks of jaw line, brows, nose, eyes, mouth, in this order
LIDS = ((37, 41), (38, 40), (43, 47), (44, 46))  # upper and lower landmarks of both eyes


def landmark_loss(predicted: Float[Tensor, "batch 68 2"], target: Float[Tensor, "batch 68 2"]) -> Float[Tensor, ""]:
    """Return L_lmk: the mean |difference| of the landmarks' coordinates, in their unit."""
    return mean((predicted - target).abs())


def eye_closure_loss(predicted: Float[Tensor, "batch 68 2"], target: Float[Tensor, "batch 68 2"]) -> Float[Tensor, ""]:
    """Return L_eye: the mean |difference| of the offsets from lower to upper lid, independent of the eye's position."""
    upper, lower = (list(side) for side in zip(*LIDS, strict=True))
    return mean(((predicted[:, upper] - predicted[:, lower]) - (target[:, upper] - target[:, lower])).abs())


def parts_loss(predicted: Float[Tensor, "batch 68 2"], target: Float[Tensor, "batch 68 2"]) -> Float[Tensor, ""]:
    """Return the mean |difference| of landmarks relative to the mean of their part (jaw line, brow, nose, eye, mouth).

    This loss is ours. Without it, an error in the position of the whole head would hide an open mouth.
    """
    centred = [part - part.mean(1, keepdim=True) for part in (predicted - target).split(PARTS, 1)]
    return mean(torch.cat(centred, 1).abs())


def photometric_loss(
    rendered: Float[Tensor, "batch height width 3"],
    image: Float[Tensor, "batch height width 3"],
    mask: Bool[Tensor, "batch height width"],
) -> Float[Tensor, ""]:
    """Return L_pho: the mean |difference| of the colours over the skin pixels of `mask`; 0 without skin."""
    difference = (rendered - image).abs().mean(-1)
    return mean(torch.where(mask, difference, 0.0), mask)


def local_photometric_loss(
    rendered: Float[Tensor, "batch height width 3"],
    image: Float[Tensor, "batch height width 3"],
    mask: Bool[Tensor, "batch height width"],
    window: int = 11,
    grain: int = 3,
) -> Float[Tensor, ""]:
    """Return the photometric loss of a band-pass filtered difference, over the skin pixels of `mask`.

    The filter is the mean over `grain` pixels minus the mean over `window` pixels; both sizes are odd. This loss is
    ours. Errors of coarse shape, light and albedo are smooth, and wrinkles should not explain them. Errors finer than a
    wrinkle are noise of the sensor.
    """
    skin = mask[:, None].to(rendered)
    masked = torch.cat([(rendered - image).permute(0, 3, 1, 2) * skin, skin], 1)

    def blurred(pixels: int) -> Tensor:
        total = functional.avg_pool2d(masked, pixels, 1, pixels // 2)
        return total[:, :3] / total[:, 3:].clamp_min(1 / pixels**2)

    return mean((blurred(grain) - blurred(window)).abs().mean(1) * mask, mask)


def identity_loss(
    rendered: Float[Tensor, "batch features"], image: Float[Tensor, "batch features"]
) -> Float[Tensor, ""]:
    """Return L_id: 1 - cosine between a recognition network's features of rendering and image, mean over the batch."""
    return mean(1 - functional.cosine_similarity(rendered, image))


def prior_loss(coefficients: Float[Tensor, "batch coefficients"]) -> Float[Tensor, ""]:
    """Return the mean square of whitened coefficients (identity, expression or albedo); 0 if there are none."""
    return mean(coefficients.square())


def symmetry_loss(displacement: Float[Tensor, "batch rows columns"]) -> Float[Tensor, ""]:
    """Return L_sym: the mean |difference| (mm) of a displacement map and its mirror image (symmetric texture)."""
    return mean((displacement - displacement.flip(-1)).abs())


def regularisation_loss(displacement: Float[Tensor, "batch rows columns"]) -> Float[Tensor, ""]:
    """Return L_reg: the mean |displacement| in mm."""
    return mean(displacement.abs())
