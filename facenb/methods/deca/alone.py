"""Analysis by synthesis without a network: gradient descent on the coefficients of each image.

It takes seconds per image where a network takes milliseconds. In return its result fits the image closely. So the
comparison separates the network's errors from what the image does not determine.
"""

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from facenb.losses.deca import photometric_loss
from facenb.methods.deca.scene import Stage, landmarks_of
from facenb.methods.deca.teacher import to_picture
from facenb.morphable.mesh import cut, landmark_vertices
from facenb.networks.deca import unit_of

SPREAD = {"identity": 1.0, "albedo": 1.0, "expression": 0.4, "jaw_pose": 0.1}  # standard deviations of the prior
NOISE = 0.005  # standard deviation of a landmark's coordinate, as a fraction of the image's side
RATES = (0.05, 0.1)  # of Adam: landmarks alone, with colours
COLOUR = 2000.0  # weight of the photometric loss
TOGETHER = 32  # images rendered at once


def fit_vectors(
    stage: Stage,
    images: Float[Tensor, "batch 3 height width"],
    landmarks: Float[Tensor, "batch 68 2"],
    bare: Integer[Tensor, "batch height width"],
    start: Float[Tensor, "batch all"],
    steps: tuple[int, int],
) -> Float[Tensor, "batch all"]:
    """Return the coefficients of each image: `steps` of Adam on landmarks, then on landmarks and skin colours.

    It minimises a negative log posterior, starting at `start`. The landmark errors have the standard deviation NOISE,
    the coefficients SPREAD. Colours count where the drawing shows skin and `bare` is 1. Raise ValueError if landmarks
    are not finite.
    """
    if not (finite := landmarks.isfinite().flatten(1).all(1)).all():
        raise ValueError(f"The landmarks of image {int(finite.int().argmin())} are not finite. Leave it out.")
    size = tuple(images.shape[2:])
    layout, points = stage.layout, cut(stage.model, landmark_vertices(stage.model))
    unit = unit_of(layout).to(start)
    free = (start / unit).detach().clone().requires_grad_()

    def cost(rows: Tensor, colours: bool) -> Tensor:
        flat = unit * free[rows]
        parts = layout.split(flat)
        errors = (landmarks_of(points, layout, flat, size) - landmarks[rows]) / (NOISE * min(size))
        priors = [parts[name] / spread for name, spread in SPREAD.items()]
        total = sum(value.square().sum() / 2 for value in [errors, *priors])
        if colours:
            drawn = stage.coarse(flat, size)
            compared = drawn.image, to_picture(images[rows]), stage.skin_mask(drawn) & (bare[rows] == 1)
            # One mean per image, so that no image depends on the others in its batch.
            losses = [photometric_loss(*(value[k : k + 1] for value in compared)) for k in range(len(rows))]
            total = total + COLOUR * sum(losses)
        return total

    for colours, count, rate in zip((False, True), steps, RATES, strict=True):
        optimiser = torch.optim.Adam([free], lr=rate, betas=(0.8, 0.95))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(count, 1))
        for _ in range(count):
            optimiser.zero_grad()
            for rows in torch.arange(len(free), device=free.device).split(TOGETHER if colours else len(free)):
                cost(rows, colours).backward()
            optimiser.step()
            schedule.step()
    return (unit * free).detach()
