"""The distillation loss of Rana: the learner on the occluded picture against its teacher on the clear one.

The paper's loss is the mean squared difference over the whole vector: `distillation_loss` without a spread. There a
coefficient counts by its unit, so what is measured in large numbers is all that is learned. Divided by each
coefficient's spread over the training pictures, all count alike; that one is ours, and so is `effect_loss`, which asks
what the coefficients do. The paper's text promises the detail code as well, and its loss leaves it out: a code in a
layout of its own is distilled in the same way.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from facenb.losses.common import check_alike, mean
from facenb.morphable.layouts import Layout, difference

SOFT = 0.01  # in the points' unit: below it a distance counts by its square, so that the loss has a slope at none
STILL = 1e-4  # of its largest value: a coefficient that moves less is held, as the depth t_z of 3DDFA-V2's pose


def distillation_loss(
    teacher: Float[Tensor, "batch teacher"],
    learner: Float[Tensor, "batch learner"],
    teacher_layout: Layout,
    learner_layout: Layout,
    spread: Float[Tensor, " coefficients"] | None = None,
) -> Float[Tensor, ""]:
    """Squared difference of the two vectors, the mean over pictures and coefficients; the teacher learns nothing.

    `spread`: each difference is divided by its coefficient's, as `coefficient_spread` gives it; None: as the paper.
    Raises ValueError, naming both layouts, where they are not the same one or a vector does not fit (the 236
    coefficients of DECA and the 257 of Deng have no difference), for batches of different sizes, and for a spread that
    is no single vector, of another length or not positive.
    """
    apart = difference(teacher.detach(), learner, teacher_layout, learner_layout)
    if spread is None:
        return mean(apart.square())
    if spread.dim() != 1:
        raise ValueError(f"the spread {tuple(spread.shape)} must be one vector, a number for each coefficient")
    teacher_layout.check(spread, "the spread")
    if not (spread > 0).all():  # NaN fails as well
        raise ValueError(
            f"the spread of {coefficient_name(teacher_layout, int((~(spread > 0)).nonzero()[0]))} is "
            f"{float(spread[~(spread > 0)][0]):g}; each must be positive (inf leaves a coefficient out)"
        )
    return mean((apart / spread).square())


def effect_loss(
    teacher: Float[Tensor, "batch teacher axes"], learner: Float[Tensor, "batch learner axes"]
) -> Float[Tensor, ""]:
    """Mean distance of the points that two vectors put somewhere, in their unit; the teacher learns nothing.

    No square: a point far off, under an occluder, weighs by its distance and not by that again. Raises ValueError for
    points of different shapes.
    """
    check_alike(("teacher", "learner"), teacher, learner)
    apart = (learner - teacher.detach()).square().sum(-1)
    return mean((apart + SOFT**2).sqrt() - SOFT)


def coefficient_spread(teacher: Float[Tensor, "pictures coefficients"]) -> Float[Tensor, " coefficients"]:
    """Standard deviation of each coefficient over the teacher's word on the training pictures, in its own unit.

    inf for one that never moves: it has no scale to be judged on, and counts for nothing. Raises ValueError for fewer
    than two pictures or coefficients that are not finite floats.
    """
    if len(teacher) < 2 or not teacher.is_floating_point() or not teacher.isfinite().all():
        raise ValueError(
            f"{len(teacher)} pictures of {teacher.dtype} give no spread: give two or more, of finite floats"
        )
    spread = teacher.double().std(0, correction=0)
    still = spread <= STILL * teacher.double().abs().amax(0)
    return spread.masked_fill(still, torch.inf).to(teacher.dtype)


def coefficient_name(layout: Layout, index: int) -> str:
    """A coefficient of a flat vector in words: its part and its place there, for instance `jaw_pose[2]`."""
    part, where = next((part, where) for part, where in layout.slices.items() if where.start <= index < where.stop)
    return f"{part}[{index - where.start}]"
