"""The detail decoder of DECA (Feng et al. 2021): a detail code, an expression and a jaw pose to a displacement map.

The map lies over the mesh's texture coordinates (or a window of them) and holds mm along the normals: wrinkles that
belong to a person, and move with the expression. Of DECA's details that map is all that is done here. Its authors' code
also adds a fixed displacement (`fixed_displacement_256.npy`), shades through a mask (`uv_face_eye_mask.png`), and
writes a mesh with a vertex at each texel (`texture_data_256.npy`).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

START = 8  # texels on a side of the first layer
OPEN = 0.36  # radians of an open jaw
RATE = 40.0  # a texel's own rate of learning, beside that of the network which makes the codes
RELEASED = (128, 128, 64, 64, 32, 16)  # channels of the released decoder: 256 x 256 texels


class _Decoder(nn.Module, ABC):
    """Codes to a map over a part of the texture, and where a point of the texture lies in it."""

    codes: int
    reach: float
    window: tuple[float, ...]
    units: tuple[float, float] = (1.0, 1.0)  # what the numbers of the detail and of the jaw are multiplied with

    def _set_window(self, window: Sequence[float]) -> None:
        if not (window[0] < window[2] and window[1] < window[3]):
            raise ValueError(f"window {tuple(window)} must be left, bottom, right, top and have an area")
        self.window = tuple(float(side) for side in window)

    def forward(
        self,
        detail: Float[Tensor, "batch detail"],
        expression: Float[Tensor, "batch expression"],
        jaw: Float[Tensor, "batch 3"],
    ) -> Float[Tensor, "batch rows columns"]:
        """Displacement in mm, row 0 at the top of the window. Raises ValueError for codes of another length."""
        code = torch.cat([self.units[1] * jaw, expression, self.units[0] * detail], 1)
        if code.shape[1] != self.codes:
            raise ValueError(
                f"jaw {jaw.shape[1]}, expression {expression.shape[1]} and detail {detail.shape[1]} are "
                f"{code.shape[1]} numbers, and this decoder takes {self.codes}"
            )
        return self.reach * self._map(code)

    @abstractmethod
    def _map(self, code: Tensor) -> Tensor:
        """The map in parts of the reach, -1 to 1."""

    def at(
        self, displacement: Float[Tensor, "batch rows columns"], uv: Float[Tensor, "points 2"]
    ) -> Float[Tensor, "batch points"]:
        """The map's values at texture coordinates (origin bottom left), bilinear, mm; 0 outside the window."""
        low, high = uv.new_tensor(self.window[:2]), uv.new_tensor(self.window[2:])
        place = 2 * (uv - low) / (high - low) - 1
        grid = torch.stack([place[:, 0], -place[:, 1]], -1).expand(len(displacement), 1, -1, -1)
        # Half a texel of border: what touches the window's edge repeats its texels, what lies beyond gets nothing.
        found = functional.grid_sample(displacement[:, None], grid, padding_mode="border", align_corners=False)
        return found[:, 0, 0] * (place.abs() <= 1).all(1)


class DetailDecoder(_Decoder):
    """Codes to a square map of displacements, each step twice as large: 8 texels, then a doubling for each channel.

    `channels` from the first layer on; `reach` in mm is never exceeded; `window` (left, bottom, right, top) is the part
    of the texture that the map covers. Names of tensors are those of the released weights.
    """

    def __init__(
        self,
        codes: int,
        channels: Sequence[int] = RELEASED,
        reach: float = 10.0,
        window: Sequence[float] = (0.0, 0.0, 1.0, 1.0),
    ):
        super().__init__()
        if len(channels) < 2 or min(*channels, codes) < 1 or not reach > 0:
            raise ValueError(
                f"codes {codes}, channels {tuple(channels)} (two or more) and reach {reach} must be positive"
            )
        self.codes, self.channels, self.reach = codes, tuple(channels), reach
        self._set_window(window)
        self.l1 = nn.Sequential(nn.Linear(codes, channels[0] * START * START))
        layers: list[nn.Module] = [nn.BatchNorm2d(channels[0])]
        for before, after in zip(channels[:-1], channels[1:], strict=True):
            layers += [
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
                nn.Conv2d(before, after, 3, padding=1),
                nn.BatchNorm2d(after, 0.8),
                nn.LeakyReLU(0.2),
            ]
        last = nn.Conv2d(channels[-1], 1, 3, padding=1)
        nn.init.normal_(last.weight, std=1e-3)  # a training begins with the smooth face
        nn.init.zeros_(last.bias)
        self.conv_blocks = nn.Sequential(*layers, last, nn.Tanh())

    @property
    def size(self) -> int:
        """Texels on a side of the map."""
        return START * 2 ** (len(self.channels) - 1)

    @property
    def config(self) -> dict[str, Any]:
        """What makes this decoder again: `DetailDecoder(**config)`; fit for JSON."""
        return {
            "codes": self.codes,
            "channels": list(self.channels),
            "reach": self.reach,
            "window": list(self.window),
        }

    def _map(self, code: Tensor) -> Tensor:
        return self.conv_blocks(self.l1(code).unflatten(1, (self.channels[0], START, START)))[:, 0]


class LinearDecoder(_Decoder):
    """A map for everybody, and one for each number of the code, which says how much of it: for short trainings, ours.

    The convolutions above begin with broad shapes and come to grooves late; here each texel learns by itself. `texels`
    on a side; `reach` and `window` as above.
    """

    units = (0.3, 1 / OPEN)  # all about as large as an expression

    def __init__(
        self, codes: int, texels: int = 64, reach: float = 10.0, window: Sequence[float] = (0.0, 0.0, 1.0, 1.0)
    ):
        super().__init__()
        if min(codes, texels) < 1 or not reach > 0:
            raise ValueError(f"codes {codes}, texels {texels} and reach {reach} must be positive")
        self.codes, self.size, self.reach = codes, texels, reach
        self._set_window(window)
        self.maps = nn.Parameter(torch.zeros(1 + codes, texels, texels))  # a training begins with the smooth face

    @property
    def config(self) -> dict[str, Any]:
        """What makes this decoder again: `LinearDecoder(**config)`; fit for JSON."""
        return {"codes": self.codes, "texels": self.size, "reach": self.reach, "window": list(self.window)}

    def _map(self, code: Tensor) -> Tensor:
        share = torch.cat([torch.ones_like(code[:, :1]), code], 1)
        sums = torch.einsum("bk,krc->brc", share, RATE * self.maps)[:, None]
        return functional.avg_pool2d(sums, 3, 1, 1, count_include_pad=False)[:, 0].tanh()
