"""Coefficients to codes between -1 and 1, as the networks of Liu et al. 2018 give them."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Scaling:
    """Scales each coefficient so that its lowest value becomes -1 and its highest 1.

    How the paper scales is not published. A coefficient without spread has code 0, and its one value comes back.
    """

    centre: Float[Tensor, " dimensions"]
    half_range: Float[Tensor, " dimensions"]

    @classmethod
    def of(cls, coefficients: Float[Tensor, "rows dimensions"]) -> "Scaling":
        """Return the scaling under which exactly these values span [-1, 1]. Raises ValueError if one is not finite."""
        low, high = coefficients.aminmax(dim=0)
        if not (low.isfinite().all() and high.isfinite().all()):
            raise ValueError(f"{len(coefficients)} rows of coefficients are not all finite")
        return cls((low + high) / 2, (high - low) / 2)

    def to_codes(self, coefficients: Float[Tensor, "*batch dimensions"]) -> Float[Tensor, "*batch dimensions"]:
        """Return codes of whitened coefficients; those beyond the values the scaling was made of exceed [-1, 1]."""
        half = self.half_range
        return torch.where(half > 0, (coefficients - self.centre) / half.where(half > 0, torch.ones_like(half)), 0.0)

    def to_coefficients(self, codes: Float[Tensor, "*batch dimensions"]) -> Float[Tensor, "*batch dimensions"]:
        """Return whitened coefficients of codes."""
        return self.centre + self.half_range * codes
