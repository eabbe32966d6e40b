"""Coefficients to codes between -1 and 1, as the networks of Liu et al. 2018 give them."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Scaling:
    """Coefficients to codes in [-1, 1], each dimension by itself: its lowest value to -1, its highest to 1.

    How the paper scales is not published. A dimension that has no spread gets code 0, and its one value comes back.
    """

    low: Float[Tensor, " dimensions"]
    high: Float[Tensor, " dimensions"]

    @classmethod
    def of(cls, coefficients: Float[Tensor, "rows dimensions"]) -> "Scaling":
        """The scaling under which exactly these span [-1, 1]. ValueError if there are none or one is not finite."""
        if not len(coefficients) or not coefficients.isfinite().all():
            raise ValueError(f"{len(coefficients)} rows of coefficients give no scaling: none, or not all finite")
        return cls(coefficients.amin(0), coefficients.amax(0))

    @property
    def centre(self) -> Float[Tensor, " dimensions"]:
        return (self.low + self.high) / 2

    @property
    def half_range(self) -> Float[Tensor, " dimensions"]:
        return (self.high - self.low) / 2

    def to_codes(self, coefficients: Float[Tensor, "*batch dimensions"]) -> Float[Tensor, "*batch dimensions"]:
        """Codes of whitened coefficients; outside [-1, 1] where they exceed those the scaling was made of."""
        half = self.half_range
        return torch.where(half > 0, (coefficients - self.centre) / half.where(half > 0, torch.ones_like(half)), 0.0)

    def to_coefficients(self, codes: Float[Tensor, "*batch dimensions"]) -> Float[Tensor, "*batch dimensions"]:
        """Whitened coefficients of codes."""
        return self.centre + self.half_range * codes


@dataclass(frozen=True)
class TargetScaling:
    """The scalings of both targets."""

    identity: Scaling
    expression: Scaling
