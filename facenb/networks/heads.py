"""Class heads: codes and labels to logits for `torch.nn.functional.cross_entropy`.

All by one interface: `head(codes, labels)` gives the logits that are trained on, the label's own made harder by the
head's margin; `head.scores(codes)` the same without margin. theta_j is the angle between a code and class j's weight.
Computed in the weights' precision (32 bits), also where a training runs in 16: angles near 0 need it.
"""

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from facenb.networks.precision import full_precision

SHORTEST = 1e-6  # lengths below count as this, so that a code of zero has a gradient that is finite


class Softmax(nn.Module):
    """Plain softmax: `w_j c + b_j`, the identification loss of Liu et al. 2018."""

    def __init__(self, features: int, classes: int):
        super().__init__()
        _check_sizes(features, classes)
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(classes, features)))
        self.bias = nn.Parameter(torch.zeros(classes))

    def scores(self, codes: Float[Tensor, "batch features"]) -> Float[Tensor, "batch classes"]:
        """Logits without margin."""
        with full_precision(codes):
            return functional.linear(codes.to(self.weight), self.weight, self.bias)

    def forward(
        self, codes: Float[Tensor, "batch features"], labels: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch classes"]:
        """Logits to train on. Raises ValueError for a label that is no class."""
        _check_labels(labels, len(self.weight))
        return self.scores(codes)


class Angular(nn.Module, ABC):
    """What the margin heads share: cosines of codes and class weights, and a margin for the label's own."""

    def __init__(self, features: int, classes: int):
        super().__init__()
        _check_sizes(features, classes)
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(classes, features)))

    def cosines(self, codes: Float[Tensor, "batch features"]) -> Float[Tensor, "batch classes"]:
        """cos theta_j; a code of length zero is at right angles to all."""
        codes = functional.normalize(codes.to(self.weight), eps=SHORTEST)
        return functional.linear(codes, functional.normalize(self.weight, eps=SHORTEST)).clamp(-1, 1)

    @abstractmethod
    def length(self, codes: Float[Tensor, "batch features"]) -> Float[Tensor, "#batch 1"]:
        """What cosines are multiplied by."""

    @abstractmethod
    def margin(self, cosine: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """What the label's own cosine becomes."""

    def scores(self, codes: Float[Tensor, "batch features"]) -> Float[Tensor, "batch classes"]:
        """Logits without margin."""
        with full_precision(codes):
            return self.length(codes) * self.cosines(codes)

    def forward(
        self, codes: Float[Tensor, "batch features"], labels: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch classes"]:
        """Logits to train on. Raises ValueError for a label that is no class."""
        _check_labels(labels, len(self.weight))
        with full_precision(codes):
            cosines = self.cosines(codes)
            own = cosines.gather(1, labels[:, None])
            harder = cosines.scatter(1, labels[:, None], self.margin(own[:, 0])[:, None])
            return self.length(codes) * harder


class CosFace(Angular):
    """`s (cos theta_y - m)` for the label, `s cos theta_j` for the others (Wang et al. 2018, Eq. 4).

    `margin=0` is cosine softmax.
    """

    def __init__(self, features: int, classes: int, scale: float = 64.0, margin: float = 0.35):
        super().__init__(features, classes)
        _check_scale(scale, margin)
        self.scale, self.m = float(scale), float(margin)

    def length(self, codes: Float[Tensor, "batch features"]) -> Float[Tensor, "#batch 1"]:
        return self.weight.new_full((1, 1), self.scale)

    def margin(self, cosine: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        return cosine - self.m


class ArcFace(CosFace):
    """`s cos(theta_y + m)` for the label (Deng et al. 2019, Eq. 3).

    Where theta_y + m passes 180 degrees the cosine would rise again; there `cos theta_y - m sin m`, as in the
    authors' code, so that a larger angle never scores more.
    """

    def __init__(self, features: int, classes: int, scale: float = 64.0, margin: float = 0.5):
        super().__init__(features, classes, scale, margin)
        if self.m > math.pi / 2:
            raise ValueError(f"margin {margin} is an angle in radians, at most pi / 2")

    def margin(self, cosine: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        # The slope of the root has no bound at theta = 0: below a thousandth of a radian the sine is held.
        sine = (1 - cosine.square()).clamp_min(1e-6).sqrt()
        turned = cosine * math.cos(self.m) - sine * math.sin(self.m)
        return torch.where(cosine > -math.cos(self.m), turned, cosine - self.m * math.sin(self.m))


class ASoftmax(Angular):
    """`|c| psi(theta_y)` for the label, `psi = (-1)^k cos(m theta) - 2k` on `[k pi/m, (k+1) pi/m]` (SphereFace, Eq. 7).

    The label's cosine is `(lambda cos theta_y + psi) / (1 + lambda)` with `lambda = max(least, start / (1 + rate t))`
    at training call t, as in the authors' code: the whole margin from the first step on does not converge. t is a
    buffer, so a resumed training goes on where it was.
    """

    CHEBYSHEV = {  # cos(m theta) as a polynomial in cos theta
        1: lambda x: x,
        2: lambda x: 2 * x**2 - 1,
        3: lambda x: 4 * x**3 - 3 * x,
        4: lambda x: 8 * x**4 - 8 * x**2 + 1,
    }

    def __init__(
        self,
        features: int,
        classes: int,
        margin: int = 4,
        start: float = 1000.0,
        rate: float = 0.12,
        least: float = 5.0,
    ):
        super().__init__(features, classes)
        if margin not in self.CHEBYSHEV:
            raise ValueError(f"margin {margin} is none of {', '.join(map(str, self.CHEBYSHEV))}")
        if not (start >= 0 and rate >= 0 and least >= 0):
            raise ValueError(f"start {start}, rate {rate} and least {least} of lambda must not be negative")
        self.m, self.start, self.rate, self.least = margin, float(start), float(rate), float(least)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    @property
    def annealing(self) -> Float[Tensor, ""]:
        """lambda, the weight of the plain cosine beside psi."""
        return (self.start / (1 + self.rate * self.calls)).clamp_min(self.least)

    def length(self, codes: Float[Tensor, "batch features"]) -> Float[Tensor, "#batch 1"]:
        return codes.to(self.weight).norm(dim=1, keepdim=True)

    def margin(self, cosine: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        # k from comparisons and cos(m theta) as a polynomial: no arc cosine, whose slope has no bound at +-1.
        turns = torch.zeros_like(cosine)  # k
        for k in range(1, self.m):
            turns += cosine < math.cos(k * math.pi / self.m)
        psi = (1 - 2 * (turns % 2)) * self.CHEBYSHEV[self.m](cosine) - 2 * turns
        weight = self.annealing.to(cosine)
        return (weight * cosine + psi) / (1 + weight)

    def forward(
        self, codes: Float[Tensor, "batch features"], labels: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch classes"]:
        """Logits to train on. Raises ValueError for a label that is no class."""
        logits = super().forward(codes, labels)
        if self.training:
            self.calls.add_(1)
        return logits


HEADS = {"softmax": Softmax, "a-softmax": ASoftmax, "cosface": CosFace, "arcface": ArcFace}


def make_head(name: str, features: int, classes: int, **options: Any) -> nn.Module:
    """The head of that name (HEADS) for codes of length `features`; ValueError for an unknown name or option."""
    if name not in HEADS:
        raise ValueError(f"there is no head {name!r}; there are {', '.join(HEADS)}")
    try:
        return HEADS[name](features, classes, **options)
    except TypeError as error:
        raise ValueError(f"head {name!r} does not take these options: {options} ({error})") from error


def _check_sizes(features: int, classes: int) -> None:
    if features < 1 or classes < 2:
        raise ValueError(f"{features} features and {classes} classes: a head needs at least 1 and 2")


def _check_scale(scale: float, margin: float) -> None:
    if not (scale > 0 and math.isfinite(scale) and margin >= 0 and math.isfinite(margin)):
        raise ValueError(f"scale {scale} must be positive and margin {margin} not negative, both finite")


def _check_labels(labels: Tensor, classes: int) -> None:
    """On a GPU this waits for it; an index out of range there ends the process without saying which."""
    if len(labels) and (int(labels.min()) < 0 or int(labels.max()) >= classes):
        raise ValueError(
            f"labels {int(labels.min())} to {int(labels.max())} for a head of {classes} classes: "
            f"number the training people 0 to {classes - 1} without gaps"
        )
