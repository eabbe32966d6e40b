"""A vector for each picture, found by descent and without a network: analysis by synthesis in its plainest form.

It needs seconds a picture where a network needs milliseconds, but it lies where the picture says. So it tells what of a
network's errors is the network's, and what the pictures themselves leave open.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from facenb.losses.deca import photometric_loss
from facenb.methods.deca.scene import Stage, landmarks_of
from facenb.methods.deca.teacher import to_picture
from facenb.morphable.mesh import cut, landmark_vertices
from facenb.networks.deca import unit_of

SPREAD = {"identity": 1.0, "albedo": 1.0, "expression": 0.4, "jaw_pose": 0.1}  # standard deviations of the prior
TOGETHER = 32  # pictures drawn at once


def fit_vectors(
    stage: Stage, images: Float[Tensor, "batch 3 height width"], landmarks: Float[Tensor, "batch 68 2"],
    start: Float[Tensor, "batch all"], steps: tuple[int, int] = (150, 25), noise: float = 0.005,
    rates: tuple[float, float] = (0.05, 0.1), colour: float = 2000.0,
) -> Float[Tensor, "batch all"]:  # fmt: skip
    """Each picture's own vector: `steps` of Adam on its landmarks, then on landmarks and colours of the skin.

    Minimises the negative logarithm of a posterior: landmarks have normal errors of `noise` (of the side), coefficients
    the spread of the model; `colour` is the weight of the photometric loss. Begins at `start`. Raises ValueError where
    pictures, landmarks and `start` differ in number, or landmarks are not finite.
    """
    if not len(images) == len(landmarks) == len(start):
        raise ValueError(
            f"{len(images)} pictures, {len(landmarks)} sets of landmarks, {len(start)} vectors: one of each"
        )
    if not (finite := landmarks.isfinite().flatten(1).all(1)).all():
        raise ValueError(f"landmarks of picture {int(finite.int().argmin())} are not finite; leave it out")
    size = tuple(images.shape[2:])
    layout, points = stage.layout, cut(stage.model, landmark_vertices(stage.model))
    unit = unit_of(layout).to(start)
    free = (start / unit).detach().clone().requires_grad_()

    def cost(rows: Tensor, colours: bool) -> Tensor:
        flat = unit * free[rows]
        parts = layout.split(flat)
        away = (landmarks_of(points, layout, flat, size) - landmarks[rows]) / (noise * min(size))
        total = away.square().sum() / 2 + sum((parts[name] / s).square().sum() / 2 for name, s in SPREAD.items())
        if colours:
            drawn = stage.coarse(flat, size)
            seen = drawn.image, to_picture(images[rows]), stage.skin_mask(drawn)
            each = (photometric_loss(*(part[k : k + 1] for part in seen)) for k in range(len(rows)))
            total = total + colour * sum(each)  # a mean of its own each: no picture depends on its neighbours
        return total

    for colours, count, rate in zip((False, True), steps, rates, strict=True):
        optimiser = torch.optim.Adam([free], lr=rate, betas=(0.8, 0.95))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(count, 1))
        for _ in range(count):
            optimiser.zero_grad()
            for rows in torch.arange(len(free), device=free.device).split(TOGETHER if colours else len(free)):
                cost(rows, colours).backward()
            optimiser.step()
            schedule.step()
    return (unit * free).detach()
