"""Animation of a face with details: by named expressions, by another person's expressions, as morph targets."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from facenb.methods.deca.scene import Stage, posed
from facenb.morphable.layouts import Layout
from facenb.networks.deca import Deca
from facenb.networks.detail import OPEN

MOVING = ("expression", "jaw_pose")  # the parts that an animation changes


def moved_as(
    stage: Stage, own: Float[Tensor, "one all"], other: Float[Tensor, "frames all"]
) -> Float[Tensor, "frames all"]:
    """Return the vector `own` with the expression and jaw pose of each vector in `other`. The rest is unchanged."""
    kept, moving = stage.layout.split(own.expand(len(other), -1)), stage.layout.split(other)
    return stage.layout.join(kept | {name: moving[name] for name in MOVING})


def facing(layout: Layout, flat: Float[Tensor, "batch all"]) -> Float[Tensor, "batch all"]:
    """Return the vectors with the head turned to the camera."""
    parts = layout.split(flat)
    return layout.join({**parts, "global_pose": torch.zeros_like(parts["global_pose"])})


@torch.no_grad()
def detailed_mesh(
    network: Deca, stage: Stage, flat: Float[Tensor, "batch all"], code: Float[Tensor, "#batch detail"]
) -> Float[Tensor, "batch fine 3"]:
    """Return the vertices of the fine mesh in mm. They include the person's wrinkles for each expression."""
    maps = network.displacement(flat, code.expand(len(flat), -1))
    return stage.relief(posed(stage.model, stage.layout, flat), stage.displacement(network.decoder, maps))


def at_rest(stage: Stage, flat: Float[Tensor, "one all"]) -> Float[Tensor, "one all"]:
    """Return the vector with the head turned to the camera, no expression and a closed mouth."""
    parts = stage.layout.split(facing(stage.layout, flat))
    return stage.layout.join(parts | {name: torch.zeros_like(parts[name]) for name in MOVING})


def with_values(stage: Stage, flat: Float[Tensor, "one all"], values: Mapping[str, float]) -> Float[Tensor, "one all"]:
    """Return the vector at rest with the named expressions. "jaw": 1 opens the mouth by OPEN radians.

    Raise ValueError for an expression that the model does not have.
    """
    flat, names = at_rest(stage, flat), stage.model.expression_names
    where = stage.layout.slices
    for name, value in values.items():
        if name == "jaw":
            flat[:, where["jaw_pose"].start] = OPEN * value
        elif name in names and names.index(name) < stage.layout.parts["expression"]:
            flat[:, where["expression"].start + names.index(name)] = value
        else:
            raise ValueError(f"{stage.model.name} has no expression {name!r}. It has: jaw, {', '.join(names)}")
    return flat


def morph_targets(
    network: Deca, stage: Stage, flat: Float[Tensor, "one all"], code: Float[Tensor, "one detail"]
) -> tuple[Float[Tensor, "fine 3"], dict[str, Float[Tensor, "fine 3"]]]:
    """Return the vertices at rest and, by name, the displacement of each expression and of the open jaw, mm.

    Both include the wrinkles. A morph target's wrinkles grow linearly; the decoder's may not.
    """
    names = ("jaw", *stage.model.expression_names[: stage.layout.parts["expression"]])
    rest = detailed_mesh(network, stage, at_rest(stage, flat), code)[0]
    vectors = torch.cat([with_values(stage, flat, {name: 1.0}) for name in names])
    moved = detailed_mesh(network, stage, vectors, code)
    return rest, dict(zip(names, moved - rest, strict=True))
