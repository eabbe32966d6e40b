"""The distillation loss of Rana: the learner on the occluded image against its teacher on the clear one.

The paper's loss is the mean squared difference over the whole vector: `distillation_loss` without a spread. There each
coefficient counts by its unit, so coefficients with large numbers dominate. Ours divides by each coefficient's spread
over the training images, so that all count alike. `effect_loss`, also ours, compares what the coefficients do. The
paper's text promises the detail code as well, but its loss leaves it out; a code is distilled in the same way.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from facenb.losses.common import mean
from facenb.morphable.layouts import Layout, difference

SOFT = 0.01  # in the points' unit: shorter distances count by their square, so that the slope at 0 is defined
STILL = 1e-4  # relative spread below which a coefficient counts as constant, as the depth t_z of 3DDFA-V2's pose


def distillation_loss(
    teacher: Float[Tensor, "batch teacher"],
    learner: Float[Tensor, "batch learner"],
    teacher_layout: Layout,
    learner_layout: Layout,
    spread: Float[Tensor, " coefficients"] | None = None,
) -> Float[Tensor, ""]:
    """Return the mean squared difference of two vectors; the teacher gets no gradient.

    `spread`: divides each difference (`coefficient_spread`); None: as in the paper. Raise ValueError if the layouts
    differ: the 236 coefficients of DECA and the 257 of Deng have no difference.
    """
    error = difference(teacher.detach(), learner, teacher_layout, learner_layout)
    return mean((error if spread is None else error / spread).square())


def effect_loss(
    teacher: Float[Tensor, "batch points axes"], learner: Float[Tensor, "batch points axes"]
) -> Float[Tensor, ""]:
    """Return the mean distance of the points that two vectors place, in their unit; the teacher gets no gradient.

    The distance is not squared, so that points far off, under an occluder, do not dominate.
    """
    square = (learner - teacher.detach()).square().sum(-1)
    return mean((square + SOFT**2).sqrt() - SOFT)


def coefficient_spread(teacher: Float[Tensor, "images coefficients"]) -> Float[Tensor, " coefficients"]:
    """Return the standard deviation of each of the teacher's coefficients over the training images, in its own unit.

    A coefficient that never changes has the spread inf: it counts for nothing.
    """
    spread = teacher.double().std(0, correction=0)
    still = spread <= STILL * teacher.double().abs().amax(0)
    return spread.masked_fill(still, torch.inf).to(teacher.dtype)
