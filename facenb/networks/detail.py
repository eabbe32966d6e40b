"""The detail decoder of DECA (Feng et al. 2021): map detail code, expression and jaw pose to a displacement map.

The map covers the mesh's texture coordinates, or a window of them. Its values are displacements along the normals in
mm: the wrinkles of a person, which move with the expression. Three parts of the authors' code are left out: a fixed
displacement (`fixed_displacement_256.npy`), a mask for shading (`uv_face_eye_mask.png`), and a mesh with a vertex at
each texel (`texture_data_256.npy`).
"""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

START = 8  # height and width of the first layer's map, in texels
OPEN = 0.36  # angle of an open jaw, in radians
RATE = 40.0  # a texel learns this many times faster than the network that makes the codes
RELEASED = (128, 128, 64, 64, 32, 16)  # channels of the released decoder: 256 x 256 texels


class _Decoder(nn.Module):
    """Base class of the decoders: map codes to displacements of at most `reach` mm over a window of the texture.

    `window`: left, bottom, right, top in texture coordinates. Subclasses define `_map(code)`, which returns the
    map divided by the reach, from -1 to 1.
    """

    units: tuple[float, float] = (1.0, 1.0)  # factors of the detail code and of the jaw pose

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
        """Interpolate the map bilinearly at texture coordinates (origin bottom left), in mm; 0 outside the window."""
        low, high = uv.new_tensor(self.window[:2]), uv.new_tensor(self.window[2:])
        position = 2 * (uv - low) / (high - low) - 1
        grid = torch.stack([position[:, 0], -position[:, 1]], -1).expand(len(displacement), 1, -1, -1)
        # "border" extends the outer texels by the half texel from their centres to the window's edge.
        values = functional.grid_sample(displacement[:, None], grid, padding_mode="border", align_corners=False)
        return values[:, 0, 0] * (position.abs() <= 1).all(1)


class DetailDecoder(_Decoder):
    """Map codes to a square map by convolutions: 8 x 8 texels, doubled for each of the `channels` but the first.

    Tensors have the names of the released weights. `place`: the arguments `reach` and `window` of the base class.
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
    """A mean map plus one map for each entry of the code, of `texels` x `texels`. It is ours, for short trainings.

    The convolutions of DetailDecoder learn coarse shapes first and wrinkles late. Here each texel has its own weights.
    """

    units = (0.1, 1 / OPEN)  # so that both are about as large as the expression coefficients of images

    def __init__(self, codes: int, texels: int = 64, **place: Any):
        super().__init__(codes, **place)
        self.config["texels"] = self.size = texels
        self.maps = nn.Parameter(torch.zeros(1 + codes, texels, texels))  # training starts with the smooth face

    def _map(self, code: Tensor) -> Tensor:
        weights = torch.cat([torch.ones_like(code[:, :1]), code], 1)
        sums = torch.einsum("bk,krc->brc", weights, RATE * self.maps)[:, None]
        return functional.avg_pool2d(sums, 3, 1, 1, count_include_pad=False)[:, 0].tanh()
