"""Light as nine real spherical harmonics: the irradiance of a surface as a function of its normal.

Conventions:
- The basis is orthonormal over the sphere (the integral of Y_i Y_j is 1 if i = j, else 0), without the factor
  (-1)^m. The order is 1; y, z, x; xy, yz, 3z^2-1, xz, x^2-y^2 of a unit normal.
- `light` (batch, 9, 3) holds the coefficients of irradiance / pi for each colour. A Lambertian surface has the colour
  `albedo * (Y(n) @ light)`. The coefficients include the cosine lobe (Ramamoorthi and Hanrahan 2001, Eq. 7-9).
- Normals and light directions are on the camera's axes (x right, y up, z towards the camera), so the light stays where
  it is when the head turns. Colours are linear in [0, 1]; no gamma is applied anywhere.

Published code has other conventions. DECA uses the order 1, x, y, z, xy, xz, yz, x^2-y^2, 3z^2-1. Its constants include
the factors of the lobe, except the factor pi of degree 0. Deng et al. 2019 use our order, with the factor (-1)^m and
other lobe constants. They store (3 colours, 9) as a flat vector and add 0.8 to the first coefficient of each colour.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

C0 = math.sqrt(1 / (4 * math.pi))  # 1
C1 = math.sqrt(3 / (4 * math.pi))  # y, z, x
C2 = math.sqrt(15 / (4 * math.pi))  # xy, yz, xz
C2_ZZ = math.sqrt(5 / (16 * math.pi))  # 3z^2-1
C2_XY = math.sqrt(15 / (16 * math.pi))  # x^2-y^2
LOBE = (math.pi, *(2 * math.pi / 3,) * 3, *(math.pi / 4,) * 5)  # coefficients of max(cos, 0)

_DECA_INDEX = (0, 2, 3, 1, 4, 6, 8, 5, 7)  # our coefficient i is DECA's coefficient _DECA_INDEX[i]
_DECA_SCALE = (1.0, *LOBE[1:])
_DENG_1, _DENG_2 = 2 * math.pi / math.sqrt(3), 2 * math.pi / math.sqrt(8)
_DENG_SCALE = (math.pi, -_DENG_1, _DENG_1, -_DENG_1, _DENG_2, -_DENG_2, _DENG_2, -_DENG_2, _DENG_2)
_DENG_AMBIENT = (0.8, *(0.0,) * 8)


def spherical_harmonics(normals: Float[Tensor, "*points 3"]) -> Float[Tensor, "*points 9"]:
    """Return the nine basis functions at unit normals."""
    return _basis(*normals.unbind(-1), axis=-1)


def _basis(x: Tensor, y: Tensor, z: Tensor, axis: int) -> Tensor:
    linear = (C1 * y, C1 * z, C1 * x)
    quadratic = (C2 * x * y, C2 * y * z, C2_ZZ * (3 * z * z - 1), C2 * x * z, C2_XY * (x * x - y * y))
    return torch.stack([torch.full_like(x, C0), *linear, *quadratic], axis)


def irradiance(
    normals: Float[Tensor, "batch *points 3"], light: Float[Tensor, "batch 9 3"]
) -> Float[Tensor, "batch *points 3"]:
    """Return irradiance / pi for these unit normals, so that colour = albedo * result."""
    planes = normals.flatten(1, -2).transpose(1, 2).contiguous()  # (B, 3, N): four times as fast as on triples
    received = light.transpose(1, 2) @ _basis(*planes.unbind(1), axis=1)
    return received.transpose(1, 2).reshape(normals.shape)


def ambient(colour: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch 9 3"]:
    """Return a light that is the same from all directions: every surface gets the colour albedo * `colour`."""
    light = colour.new_zeros(len(colour), 9, 3)
    light[:, 0] = colour / C0
    return light


def directional(direction: Float[Tensor, "batch 3"], colour: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch 9 3"]:
    """Return a distant light from `direction` (any length): the projection of colour * max(cos, 0) on the basis.

    Nine coefficients only approximate this function. The result is 1/16 too high for a surface that faces the light,
    and falls to -0.04 times `colour` at 122 degrees.
    """
    towards = torch.nn.functional.normalize(direction, dim=-1)
    return (spherical_harmonics(towards) * towards.new_tensor(LOBE))[..., None] * colour[:, None]


def from_deca(coefficients: Float[Tensor, "batch 9 3"]) -> Float[Tensor, "batch 9 3"]:
    """Return DECA's light coefficients (`lightcode`, Feng et al. 2021) as a light of this package."""
    return coefficients[:, list(_DECA_INDEX)] * coefficients.new_tensor(_DECA_SCALE)[:, None]


def to_deca(light: Float[Tensor, "batch 9 3"]) -> Float[Tensor, "batch 9 3"]:
    """Return the inverse of `from_deca`."""
    coefficients = torch.empty_like(light)
    coefficients[:, list(_DECA_INDEX)] = light / light.new_tensor(_DECA_SCALE)[:, None]
    return coefficients


def from_deng(gamma: Float[Tensor, "batch 27"]) -> Float[Tensor, "batch 9 3"]:
    """Return the 27 light coefficients of Deng et al. 2019 (`gamma`) as a light of this package."""
    colours = gamma.view(-1, 3, 9) + gamma.new_tensor(_DENG_AMBIENT)
    return (colours * gamma.new_tensor(_DENG_SCALE)).transpose(1, 2)


def to_deng(light: Float[Tensor, "batch 9 3"]) -> Float[Tensor, "batch 27"]:
    """Return the inverse of `from_deng`."""
    colours = light.transpose(1, 2) / light.new_tensor(_DENG_SCALE) - light.new_tensor(_DENG_AMBIENT)
    return colours.flatten(1)
