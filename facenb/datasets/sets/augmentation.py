"""Random changes of training images, and their conversion to network inputs: channels first, in [-1, 1]."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

# For each of iBUG's 68 landmarks: which landmark it becomes in the mirrored image.
MIRRORED_68 = [*range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1)]
MIRRORED_68 += [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]
MIRRORED_68 += [*range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), 67, 66, 65]


class Draw(NamedTuple):
    """The random changes of each image of a batch."""

    flip: Bool[Tensor, " batch"]
    shift: Int[Tensor, "batch 2"]  # pixels to the right and down
    contrast: Float[Tensor, " batch"]  # factor of the difference from the image's mean
    brightness: Float[Tensor, " batch"]  # added, in units of [0, 1]


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a training image, each drawn from the batch's generator. By default, no change is made.

    A mirrored image shows the mirrored face, so its targets come from the mirrored landmarks. `mirror` needs a set with
    these targets. The other changes leave the face as it is.
    """

    mirror: bool = False  # with probability one half
    shift: int = 0  # up to this many pixels each way; the edge is repeated
    brightness: float = 0.0  # up to this much is added or subtracted, in units of [0, 1]
    contrast: float = 0.0  # the difference from the image's mean is multiplied by a factor from 1 - c to 1 + c

    def draw(self, count: int, generator: torch.Generator) -> Draw:
        """Draw the changes of `count` images. All numbers are always drawn, so options do not interact."""
        chance = torch.rand(count, generator=generator)
        shift = torch.rand(count, 2, generator=generator)
        light = 2 * torch.rand(2, count, generator=generator) - 1
        pixels = (shift * (2 * self.shift + 1)).long() - self.shift
        return Draw((chance < 0.5) & self.mirror, pixels, 1 + self.contrast * light[0], self.brightness * light[1])


NONE = Augmentation()


def network_input(images: UInt8[Tensor, "batch height width 3"], draw: Draw | None) -> Float[Tensor, "batch 3 _h _w"]:
    """Return bytes as floats in [-1, 1], channels first, with the random changes of `draw` (None: no changes)."""
    if draw is None:
        return images.permute(0, 3, 1, 2).float().mul_(2 / 255).sub_(1)
    height, width = images.shape[1:3]
    rows = (torch.arange(height) - draw.shift[:, 1:]).clamp(0, height - 1)
    columns = (torch.arange(width) - draw.shift[:, :1]).clamp(0, width - 1)
    columns = torch.where(draw.flip[:, None], width - 1 - columns, columns)
    moved = torch.empty(len(images), 3, height, width)
    for index, image in enumerate(images):  # one by one the bytes stay in the cache: twice as fast as all at once
        moved[index] = image.index_select(0, rows[index]).index_select(1, columns[index]).permute(2, 0, 1)
    moved.mul_(2 / 255).sub_(1)
    factor, added = draw.contrast.view(-1, 1, 1, 1), 2 * draw.brightness.view(-1, 1, 1, 1)
    if bool((factor != 1).any()) or bool((added != 0).any()):
        mean = moved.mean((1, 2, 3), keepdim=True)
        moved.mul_(factor).add_(mean * (1 - factor) + added).clamp_(-1, 1)
    return moved
