"""Class heads: compute logits for `torch.nn.functional.cross_entropy` from codes and labels.

`head(codes, labels)` returns the logits for training. The head's margin lowers the logit of the true class. theta_j is
the angle between a code and the weight of class j. Heads compute in 32 bits, even if the training uses 16 bits, because
angles near 0 need this precision.
"""

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

SHORTEST = 1e-6  # lower limit of a code's length in the division, so that a zero code has a finite gradient


class Softmax(nn.Module):
    """Plain softmax: `w_j c + b_j`, the identification loss of Liu et al. 2018."""

    def __init__(self, features: int, classes: int):
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(classes, features)))
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(
        self, codes: Float[Tensor, "batch features"], labels: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch classes"]:
        """Return the logits; softmax has no margin, so the labels do not matter."""
        with torch.autocast(codes.device.type, enabled=False):
            return functional.linear(codes.to(self.weight), self.weight, self.bias)


class Angular(nn.Module):
    """Base class of the margin heads: cosines of codes and class weights, with a margin for the true class.

    Subclasses define `length(codes)`, the factor of the cosines, and `margin(cosine)`, which replaces the cosine of the
    true class.
    """

    def __init__(self, features: int, classes: int):
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(classes, features)))

    def forward(
        self, codes: Float[Tensor, "batch features"], labels: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch classes"]:
        """Return the logits to train on. A code of length zero has cosines of 0."""
        with torch.autocast(codes.device.type, enabled=False):
            directions = functional.normalize(codes.to(self.weight), eps=SHORTEST)
            cosines = functional.linear(directions, functional.normalize(self.weight, eps=SHORTEST)).clamp(-1, 1)
            harder = self.margin(cosines.gather(1, labels[:, None])[:, 0])
            return self.length(codes) * cosines.scatter(1, labels[:, None], harder[:, None])


class CosFace(Angular):
    """`s (cos theta_y - m)` for the true class, `s cos theta_j` for the others (Wang et al. 2018, Eq. 4)."""

    def __init__(self, features: int, classes: int, scale: float = 64.0, margin: float = 0.35):
        super().__init__(features, classes)
        self.scale, self.m = float(scale), float(margin)

    def length(self, codes: Float[Tensor, "batch features"]) -> float:
        return self.scale

    def margin(self, cosine: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        return cosine - self.m


class ArcFace(CosFace):
    """`s cos(theta_y + m)` for the true class (Deng et al. 2019, Eq. 3).

    Where theta_y + m exceeds 180 degrees the cosine would rise again. There we use `cos theta_y - m sin m`, as the
    authors' code does, so that a larger angle never scores higher.
    """

    def __init__(self, features: int, classes: int, scale: float = 64.0, margin: float = 0.5):
        super().__init__(features, classes, scale, margin)

    def margin(self, cosine: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        # The derivative of the root is unbounded at theta = 0, so the sine is at least 0.001.
        sine = (1 - cosine.square()).clamp_min(1e-6).sqrt()
        turned = cosine * math.cos(self.m) - sine * math.sin(self.m)
        return torch.where(cosine > -math.cos(self.m), turned, cosine - self.m * math.sin(self.m))


class ASoftmax(Angular):
    """`|c| psi(theta_y)` for the true class, with psi = (-1)^k cos(m theta) - 2k on [k pi/m, (k+1) pi/m].

    SphereFace, Eq. 7, with m = 4. The cosine of the true class is (lambda cos theta_y + psi) / (1 + lambda), where
    lambda = max(5, 1000 / (1 + 0.12 t)) at training step t, as in the authors' code. Training with the full margin from
    the first step does not converge. t is a buffer, so that a resumed training continues with it.
    """

    M = 4
    START, RATE, LEAST = 1000.0, 0.12, 5.0  # of lambda

    def __init__(self, features: int, classes: int):
        super().__init__(features, classes)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    @property
    def annealing(self) -> Float[Tensor, ""]:
        """lambda, the weight of the plain cosine relative to psi."""
        return (self.START / (1 + self.RATE * self.calls)).clamp_min(self.LEAST)

    def length(self, codes: Float[Tensor, "batch features"]) -> Float[Tensor, "#batch 1"]:
        return codes.to(self.weight).norm(dim=1, keepdim=True)

    def margin(self, cosine: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        # k comes from comparisons and cos 4 theta from a polynomial: the derivative of arccos is unbounded at +-1.
        k = sum((cosine < math.cos(turn * math.pi / self.M)).to(cosine) for turn in range(1, self.M))
        psi = (1 - 2 * (k % 2)) * (8 * cosine**4 - 8 * cosine**2 + 1) - 2 * k
        weight = self.annealing.to(cosine)
        if self.training:
            self.calls.add_(1)
        return (weight * cosine + psi) / (1 + weight)


HEADS = {"softmax": Softmax, "a-softmax": ASoftmax, "cosface": CosFace, "arcface": ArcFace}


def make_head(name: str, features: int, classes: int, **options: Any) -> nn.Module:
    """Return the head called `name` in HEADS for codes of length `features`. Raise ValueError for an unknown name."""
    if name not in HEADS:
        raise ValueError(f"there is no head {name!r}; choose one of {', '.join(HEADS)}")
    return HEADS[name](features, classes, **options)
