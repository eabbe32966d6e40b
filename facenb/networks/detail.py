"""The detail decoder of DECA (Feng et al. 2021): detail code, expression and jaw pose to a displacement map.

The map covers the mesh's texture coordinates, or a window of them, and holds mm along the normals: wrinkles that
belong to a person and move with the expression. Three parts of the authors' code are left out: a fixed displacement
(`fixed_displacement_256.npy`), a mask for shading (`uv_face_eye_mask.png`), and a mesh with a vertex at each texel
(`texture_data_256.npy`).
"""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

START = 8  # texels on a side of the first layer
OPEN = 0.36  # radians of an open jaw
RATE = 40.0  # a texel learns this many times faster than the network that makes the codes
RELEASED = (128, 128, 64, 64, 32, 16)  # channels of the released decoder: 256 x 256 texels


class _Decoder(nn.Module):
    """Base of the decoders: codes to a map over a window of the texture, which never exceeds `reach` mm.

    `window`: left, bottom, right, top in texture coordinates. Subclasses define `_map(code)`: the map divided by the
    reach, -1 to 1.
    """

    units: tuple[float, float] = (1.0, 1.0)  # factors of detail and jaw

    def __init__(self, codes: int, reach: float = 10.0, window: Sequence[float] = (0.0, 0.0, 1.0, 1.0)):
        super().__init__()
        self.codes, self.reach, self.window = codes, reach, [float(side) for side in window]
        self.config = {"codes": codes, "reach": reach, "window": self.window}  # the arguments, for JSON

    def forward(
        self,
        detail: Float[Tensor, "batch detail"],
        expression: Float[Tensor, "batch expression"],
        jaw: Float[Tensor, "batch 3"],
    ) -> Float[Tensor, "batch rows columns"]:
        """Return the displacement in mm; row 0 is at the top of the window."""
        return self.reach * self._map(torch.cat([self.units[1] * jaw, expression, self.units[0] * detail], 1))

    def at(
        self, displacement: Float[Tensor, "batch rows columns"], uv: Float[Tensor, "points 2"]
    ) -> Float[Tensor, "batch points"]:
        """Return the map at texture coordinates (origin bottom left), bilinear, in mm; 0 outside the window."""
        low, high = uv.new_tensor(self.window[:2]), uv.new_tensor(self.window[2:])
        position = 2 * (uv - low) / (high - low) - 1
        grid = torch.stack([position[:, 0], -position[:, 1]], -1).expand(len(displacement), 1, -1, -1)
        # "border" repeats the outer texels for the half texel between their centres and the window's edge.
        values = functional.grid_sample(displacement[:, None], grid, padding_mode="border", align_corners=False)
        return values[:, 0, 0] * (position.abs() <= 1).all(1)


class DetailDecoder(_Decoder):
    """Codes to a square map by convolutions: 8 texels on a side, doubled after each of the `channels` but the first.

    Tensors have the names of the released weights. `place`: `reach` and `window`, see the base class.
    """

    def __init__(self, codes: int, channels: Sequence[int] = RELEASED, **place: Any):
        super().__init__(codes, **place)
        self.config["channels"] = list(channels)
        self.size = START * 2 ** (len(channels) - 1)  # texels on a side of the map
        self.l1 = nn.Sequential(nn.Linear(codes, channels[0] * START * START))
        layers: list[nn.Module] = [nn.BatchNorm2d(channels[0])]
        for before, after in itertools.pairwise(channels):
            layers += [
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
                nn.Conv2d(before, after, 3, padding=1),
                nn.BatchNorm2d(after, 0.8),
                nn.LeakyReLU(0.2),
            ]
        last = nn.Conv2d(channels[-1], 1, 3, padding=1)
        nn.init.normal_(last.weight, std=1e-3)  # training starts with the smooth face
        nn.init.zeros_(last.bias)
        self.conv_blocks = nn.Sequential(*layers, last, nn.Tanh())

    def _map(self, code: Tensor) -> Tensor:
        return self.conv_blocks(self.l1(code).unflatten(1, (-1, START, START)))[:, 0]


class LinearDecoder(_Decoder):
    """A mean map plus one map for each number of the code; ours, for short trainings. `texels` on a side.

    The convolutions of DetailDecoder learn broad shapes first and grooves late; here each texel learns by itself.
    """

    units = (0.3, 1 / OPEN)  # all about as large as an expression

    def __init__(self, codes: int, texels: int = 64, **place: Any):
        super().__init__(codes, **place)
        self.config["texels"] = self.size = texels
        self.maps = nn.Parameter(torch.zeros(1 + codes, texels, texels))  # training starts with the smooth face

    def _map(self, code: Tensor) -> Tensor:
        weights = torch.cat([torch.ones_like(code[:, :1]), code], 1)
        sums = torch.einsum("bk,krc->brc", weights, RATE * self.maps)[:, None]
        return functional.avg_pool2d(sums, 3, 1, 1, count_include_pad=False)[:, 0].tanh()
