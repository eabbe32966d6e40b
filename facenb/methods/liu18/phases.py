"""The losses of the three phases, and their targets."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from facenb.datasets.sets.faces import FaceSet
from facenb.losses import coefficient_loss, joint_loss, shape_loss
from facenb.methods.liu18.plans import LAMBDA_R
from facenb.morphable.model import MorphableModel
from facenb.networks.joint import Codes, JointNetwork


@dataclass(frozen=True)
class Coefficients:
    """Fitted coefficients without images, the training data of phase II; implements the protocol of training."""

    identity: Float[Tensor, "rows identity"]  # whitened
    expression: Float[Tensor, "rows expression"]

    @classmethod
    def of(cls, subset: FaceSet) -> "Coefficients":
        """Return the coefficients of a set, without mirrored images."""
        return cls(**subset.read(["identity", "expression"]))

    def __len__(self) -> int:
        return len(self.identity)

    def load(self, rows: Int[Tensor, " batch"], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Return a batch, without augmentation."""
        return {"identity": self.identity[rows], "expression": self.expression[rows]}


class Supervision(nn.Module):
    """The targets of phases II and III: displacements from the mean face by the fitted coefficients, in mm.

    `unit` is the sum of the mean squared displacements of a vertex by identity and by expression, over the training
    images, in mm^2. It equals the loss of the mean face.
    """

    def __init__(self, model: MorphableModel, training: FaceSet):
        super().__init__()
        self.register_buffer("identity_basis", model.identity_basis.flatten(1), persistent=False)
        self.register_buffer("expression_basis", model.expression_basis.flatten(1), persistent=False)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))  # training steps, for lambda_R
        rows = torch.arange(0, len(training), max(1, len(training) // 512))
        sample = training.read(["identity", "expression"], rows)
        self.unit = float(sum(displacement.square().sum(2).mean() for displacement in self(sample)))

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return displacements (batch, vertices, 3) by identity and by expression."""
        identity, expression = batch["identity"] @ self.identity_basis, batch["expression"] @ self.expression_basis
        return identity.unflatten(1, (-1, 3)), expression.unflatten(1, (-1, 3))


def phase_one(modules: dict[str, nn.Module], batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the Euclidean loss of phase I: the encoder predicts the codes of the fitted coefficients."""
    codes = modules["network"].encode(batch["image"])
    target = modules["network"].codes(batch["identity"], batch["expression"])
    identity = coefficient_loss(codes.identity, target.identity)
    residual = coefficient_loss(codes.residual, target.residual)
    return {"loss": identity + residual, "identity": identity, "residual": residual}


def phase_two(modules: dict[str, nn.Module], batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the loss of phase II: each decoder learns displacements from codes, in units of `Supervision.unit`."""
    network, targets = modules["network"], modules["targets"]
    shape, target = network.shape(network.codes(batch["identity"], batch["expression"])), targets(batch)
    identity = shape_loss(shape.identity, target[0]) / targets.unit
    residual = shape_loss(shape.residual, target[1]) / targets.unit
    return {"loss": identity + residual, "identity": identity, "residual": residual}


def reconstruction_loss(network: JointNetwork, codes: Codes, target: tuple[Tensor, Tensor]) -> Float[Tensor, ""]:
    """Return L_R in mm^2. It compares each displacement with its own target, or a single one with their sum."""
    shape = network.shape(codes)
    if network.residual:
        return shape_loss(shape.identity, target[0]) + shape_loss(shape.residual, target[1])
    return shape_loss(shape.identity, target[0] + target[1])


def phase_three(
    steps: int, reconstruction: bool = True, identification: bool = True, factor: float = 1.0
) -> Callable[..., dict]:
    """Return the loss of phase III, `lambda_R L_R + L_C`.

    lambda_R rises from 0.5 to 1 after a third of the steps, both times `factor`.

    L_R is in mm^2, a mean over vertices. The paper does not print this unit, but the meaning of lambda_R depends on it.
    L_R compares the identity displacement and the residual displacement each with its own target. This separates them.
    (The paper prints a loss on the shape. With the sum alone, c_id follows the classes and c_res cancels it.)
    """

    def loss(modules: dict[str, nn.Module], batch: dict[str, Tensor]) -> dict[str, Tensor]:
        network, targets = modules["network"], modules["targets"]
        codes, losses = network.encode(batch["image"]), {}
        zero = codes.identity.new_zeros(())
        if reconstruction:
            losses["L_R"] = reconstruction_loss(network, codes, targets(batch))
        if identification:
            logits = modules["head"](codes.identity, batch["label"])
            losses["L_C"] = nn.functional.cross_entropy(logits, batch["label"])
        weight = factor * (LAMBDA_R[0] if int(targets.calls) < steps // 3 else LAMBDA_R[1])
        if targets.training:
            targets.calls += 1
        return {"loss": joint_loss(losses.get("L_R", zero), losses.get("L_C", zero), weight), **losses}

    return loss
