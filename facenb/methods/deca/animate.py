"""A face with its details set in motion: by sliders, by the expressions of another, as morph targets."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from facenb.methods.deca.scene import Stage, posed
from facenb.morphable.layouts import Layout
from facenb.networks.deca import Deca
from facenb.networks.detail import OPEN

MOVING = ("expression", "jaw_pose")  # what another's face lends


def moved_as(
    stage: Stage, own: Float[Tensor, "one all"], other: Float[Tensor, "frames all"]
) -> Float[Tensor, "frames all"]:
    """One person's vector with the expression and jaw of each of another's: identity, colour, camera, light stay."""
    mine, theirs = stage.layout.split(own), stage.layout.split(other)
    mine = {name: value.expand(len(other), -1) for name, value in mine.items()}
    return stage.layout.join({name: theirs[name] if name in MOVING else mine[name] for name in mine})


def facing(layout: Layout, flat: Float[Tensor, "batch all"]) -> Float[Tensor, "batch all"]:
    """The same without the turn of the head."""
    parts = layout.split(flat)
    return layout.join({**parts, "global_pose": torch.zeros_like(parts["global_pose"])})


@torch.no_grad()
def detailed_mesh(
    network: Deca, stage: Stage, flat: Float[Tensor, "batch all"], code: Float[Tensor, "#batch detail"],
    details: bool = True,
) -> Float[Tensor, "batch fine 3"]:  # fmt: skip
    """Vertices of the fine mesh, mm, with the wrinkles that the person has under each expression (or without)."""
    vertices = posed(stage.model, stage.layout, flat)
    if not details:
        return stage.fine.at(vertices)
    maps = network.displacement(flat, code.expand(len(flat), -1))
    return stage.relief(vertices, stage.displacement(network.decoder, maps))


def at_rest(stage: Stage, flat: Float[Tensor, "one all"]) -> Float[Tensor, "one all"]:
    """The person facing the viewer, without expression and with the mouth closed."""
    parts = stage.layout.split(facing(stage.layout, flat))
    return stage.layout.join({**parts, **{name: torch.zeros_like(parts[name]) for name in MOVING}})


def with_values(
    stage: Stage, flat: Float[Tensor, "one all"], values: Mapping[str, float], open_angle: float = OPEN
) -> Float[Tensor, "one all"]:
    """At rest but for some expressions by name, and "jaw": 1 opens the mouth by `open_angle` radians.

    Raises ValueError for an expression that the model does not have.
    """
    flat, names = at_rest(stage, flat), stage.model.expression_names
    where = stage.layout.slices
    for name, value in values.items():
        if name == "jaw":
            flat[:, where["jaw_pose"].start] = open_angle * value
        elif name in names and names.index(name) < stage.layout.parts["expression"]:
            flat[:, where["expression"].start + names.index(name)] = value
        else:
            raise ValueError(f"{stage.model.name} has no expression {name!r}; there are jaw, {', '.join(names)}")
    return flat


def morph_targets(
    network: Deca, stage: Stage, flat: Float[Tensor, "one all"], code: Float[Tensor, "one detail"]
) -> tuple[Float[Tensor, "fine 3"], dict[str, Float[Tensor, "fine 3"]]]:
    """The face at rest and, by name, what each expression and the open jaw add to it, wrinkles included; mm.

    Between its ends a wrinkle of the decoder may grow in a curve, a morph target's grows in a line.
    """
    names = ("jaw", *stage.model.expression_names[: stage.layout.parts["expression"]])
    rest = detailed_mesh(network, stage, at_rest(stage, flat), code)[0]
    every = torch.cat([with_values(stage, flat, {name: 1.0}) for name in names])
    full = detailed_mesh(network, stage, every, code)
    return rest, {name: whole - rest for name, whole in zip(names, full, strict=True)}
