"""Rana's distillation loss: compare the learner on the occluded image with its teacher on the clear image.

The paper's loss is the mean squared difference over the whole vector (`distillation_loss` without a spread). There the
weight of a coefficient depends on its unit, so coefficients with large values dominate. Our version divides by each
coefficient's spread over the training images, so that all have the same weight. `effect_loss`, also ours, compares the
points of the face that the coefficients produce. The paper's text includes the detail code as well, but its loss does
not. A detail code can be distilled with the same functions.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from facenb.losses.common import mean
from facenb.morphable.layouts import Layout

SOFT = 0.01  # in the points' unit: smaller distances count quadratically, so that the gradient at 0 is defined
STILL = 1e-4  # relative spread below which a coefficient is constant, such as the depth t_z of 3DDFA-V2's pose


def distillation_loss(
    teacher: Float[Tensor, "batch teacher"],
    learner: Float[Tensor, "batch learner"],
    teacher_layout: Layout,
    learner_layout: Layout,
    spread: Float[Tensor, " coefficients"] | None = None,
) -> Float[Tensor, ""]:
    """Return the mean squared difference of two vectors; the teacher gets no gradient.

    `spread` divides each difference (`coefficient_spread`); None gives the paper's loss. Raise ValueError if the
    layouts differ: DECA's 236 coefficients cannot be compared with Deng's 257.
    """
    if teacher_layout != learner_layout:
        raise ValueError(
            f"the teacher has {teacher_layout}, the learner {learner_layout}: use one layout on both sides"
        )
    teacher_layout.check(teacher, "the teacher's vector")
    learner_layout.check(learner, "the learner's vector")
    error = learner - teacher.detach()
    return mean((error if spread is None else error / spread).square())


def effect_loss(
    teacher: Float[Tensor, "batch points axes"], learner: Float[Tensor, "batch points axes"]
) -> Float[Tensor, ""]:
    """Return the mean distance between the points of two coefficient vectors. The teacher gets no gradient.

    The distance is in the points' unit. It is not squared, so that large errors under an occluder do not dominate.
    """
    square = (learner - teacher.detach()).square().sum(-1)
    return mean((square + SOFT**2).sqrt() - SOFT)


def coefficient_spread(teacher: Float[Tensor, "images coefficients"]) -> Float[Tensor, " coefficients"]:
    """Return the standard deviation of each of the teacher's coefficients over the training images, in its own unit.

    A coefficient that never changes gets the spread inf, so it has no weight.
    """
    spread = teacher.double().std(0, correction=0)
    still = spread <= STILL * teacher.double().abs().amax(0)
    return spread.masked_fill(still, torch.inf).to(teacher.dtype)
