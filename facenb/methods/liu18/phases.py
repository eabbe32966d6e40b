"""The losses of the three phases, and what they aim at."""

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
class CodesOnly:
    """Fitted codes without their pictures, as phase II learns from them; implements the protocol of training."""

    identity: Float[Tensor, "rows identity"]
    expression: Float[Tensor, "rows expression"]

    @classmethod
    def of(cls, subset: FaceSet) -> "CodesOnly":
        """Those of a subset, as its `load` gives them without mirroring."""
        stored = subset.read(["identity", "expression"])
        return cls(**{name: subset.scalings[name].to_codes(values) for name, values in stored.items()})

    def __len__(self) -> int:
        return len(self.identity)

    def load(self, rows: Int[Tensor, " batch"], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """A batch of both codes; nothing random is done to them."""
        return {"identity": self.identity[rows], "expression": self.expression[rows]}


class Supervision(nn.Module):
    """Fitted shapes from fitted codes: `ds = sum_k (centre_k + half_range_k code_k) basis_k`, in mm.

    `unit` is the mean squared length of a vertex's displacement over the training pictures, mm^2: what the mean face
    gets.
    """

    def __init__(self, model: MorphableModel, training: FaceSet):
        super().__init__()
        for name, basis in (("identity", model.identity_basis), ("expression", model.expression_basis)):
            flat, scaling = basis.flatten(1), training.scalings[name]
            self.register_buffer(f"{name}_basis", scaling.half_range[:, None] * flat, persistent=False)
            self.register_buffer(f"{name}_centre", scaling.centre @ flat, persistent=False)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))  # training steps, for lambda_R
        some = training.load(torch.arange(0, len(training), max(1, len(training) // 512)))
        self.unit = float(sum(part.square().sum(2).mean() for part in self(some)[:2]))

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Displacements (B, V, 3) by identity and by residual."""
        found = [
            torch.addmm(self.get_buffer(f"{name}_centre"), batch[name], self.get_buffer(f"{name}_basis")).unflatten(
                1, (-1, 3)
            )
            for name in ("identity", "expression")
        ]
        return found[0], found[1]


def phase_one(modules: dict[str, nn.Module], batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Phase I: the encoder regresses the fitted codes, Euclidean loss."""
    codes = modules["network"].encode(batch["image"])
    identity = coefficient_loss(codes.identity, batch["identity"])
    residual = coefficient_loss(codes.residual, batch["expression"])
    return {"loss": identity + residual, "identity": identity, "residual": residual}


def phase_two(modules: dict[str, nn.Module], batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Phase II: each decoder by itself, from fitted codes to fitted displacements, in units of `unit`."""
    made = modules["network"].shape(Codes(batch["identity"], batch["expression"]))
    aim = modules["targets"](batch)
    identity, residual = (shape_loss(made[k], aim[k]) / modules["targets"].unit for k in (0, 1))
    return {"loss": identity + residual, "identity": identity, "residual": residual}


def reconstruction_loss(network: JointNetwork, codes: Codes, aim: tuple[Tensor, Tensor]) -> Float[Tensor, ""]:
    """L_R, mm^2: each displacement against its own aim; where the network has one code, against the sum of both."""
    made = network.shape(codes)
    if network.residual:
        return shape_loss(made.identity, aim[0]) + shape_loss(made.residual, aim[1])
    return shape_loss(made.identity, aim[0] + aim[1])


def phase_three(steps: int, reconstruction: bool = True, identification: bool = True) -> Callable:
    """Phase III, `lambda_R L_R + L_C`: end to end. lambda_R rises from 0.5 to 1 after a third of the steps.

    L_R in mm^2, the mean over vertices; the paper does not print its unit, on which the meaning of lambda_R hangs.
    L_R counts the displacement by identity and the one by residual, each against its own target: what keeps the two
    apart. (The paper prints a loss on the shape; on the sum alone, c_id bends to the classes and c_res undoes it.)
    """

    def loss(modules: dict[str, nn.Module], batch: dict[str, Tensor]) -> dict[str, Tensor]:
        network, targets = modules["network"], modules["targets"]
        codes, parts = network.encode(batch["image"]), {}
        zero = codes.identity.new_zeros(())
        if reconstruction:
            parts["L_R"] = reconstruction_loss(network, codes, targets(batch))
        if identification:
            logits = modules["head"](codes.identity, batch["label"])
            parts["L_C"] = nn.functional.cross_entropy(logits, batch["label"])
        weight = LAMBDA_R[0] if int(targets.calls) < steps // 3 else LAMBDA_R[1]
        if targets.training:
            targets.calls += 1
        return {"loss": joint_loss(parts.get("L_R", zero), parts.get("L_C", zero), weight), **parts}

    return loss
