"""The camera that sees known points at given places: closed form first, then Gauss-Newton.

Conventions of this package: observations `q` are (x, y) with y **up**, so a weak perspective camera is
`q = g (R x)[:2] + s` without a sign. `facenb.fitting.fit` turns pixels into this form and back.

A pose step is the vector (w_x, w_y, w_z, log g, s_x, s_y): R becomes exp(w) R. The first four are in units of
1 / LENGTH (radians, or relative scale), so that a unit of each moves a point of the face by about a millimetre; this
keeps the normal matrix well conditioned in float32.
"""

import torch
from jaxtyping import Float
from torch import Tensor

LENGTH = 50.0  # mm, the typical distance of a landmark from the axes it is turned about


def _pose_rows() -> Tensor:
    """(6, 2, 4): d(q_x, q_y) / d(step) as a linear form in (1, y_x, y_y, y_z), y = g R x in units of LENGTH."""
    rows = torch.zeros(6, 2, 4)
    rows[0, 1, 3] = -1  # w_x lowers y by z
    rows[1, 0, 3] = 1
    rows[2, 0, 2], rows[2, 1, 1] = -1, 1
    rows[3, 0, 1], rows[3, 1, 2] = 1, 1
    rows[4, 0, 0], rows[5, 1, 0] = 1, 1
    return rows


POSE_ROWS = _pose_rows()


def rotation_step(step: Float[Tensor, "batch 3"]) -> Float[Tensor, "batch 3 3"]:
    """exp of an axis-angle vector in radians (Rodrigues), exact to rounding for any length."""
    angle = step.norm(dim=1).clamp(min=1e-12)[:, None, None]
    x, y, z = (step / angle[:, :, 0]).unbind(1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).unflatten(1, (3, 3))
    return torch.eye(3).to(step) + angle.sin() * cross + (1 - angle.cos()) * (cross @ cross)


def homogeneous(turned: Float[Tensor, "images points 3"]) -> Float[Tensor, "images points 4"]:
    """(1, y / LENGTH): what every pose derivative is linear in."""
    return torch.cat([torch.ones_like(turned[..., :1]), turned / LENGTH], -1)


def pose_adjoint(moments: Float[Tensor, "images 4 2 ..."]) -> Float[Tensor, "images 6 ..."]:
    """J^T f from the moments sum_j w_j (1, y_j) f_j^T of a field f over the landmarks."""
    rows = POSE_ROWS.to(moments).transpose(1, 2).reshape(6, 8)
    return torch.einsum("ck,nk...->nc...", rows, moments.flatten(1, 2))


def pose_normal(moments: Float[Tensor, "images 4 4"]) -> Float[Tensor, "images 6 6"]:
    """J^T J from the second moments sum_j w_j (1, y_j) (1, y_j)^T."""
    rows = POSE_ROWS.to(moments)
    table = torch.einsum("adk,bdl->klab", rows, rows).reshape(16, 36)
    return (moments.flatten(1) @ table).unflatten(1, (6, 6))


def apply_step(
    rotation: Float[Tensor, "images 3 3"],
    scale: Float[Tensor, " images"],
    shift: Float[Tensor, "images 2"],
    step: Float[Tensor, "images 6"],
) -> tuple[Tensor, Tensor, Tensor]:
    """The camera after a pose step; one step turns by at most one radian and scales by at most e."""
    small = step[:, :4] / LENGTH
    small = small / small.norm(dim=1, keepdim=True).clamp(min=1.0)
    return rotation_step(small[:, :3]) @ rotation, scale * small[:, 3].exp(), shift + step[:, 4:]


def scaled_orthographic(
    points: Float[Tensor, "any points 3"],
    observed: Float[Tensor, "images points 2"],
    weights: Float[Tensor, "images points"],
) -> tuple[Float[Tensor, "images 3 3"], Float[Tensor, " images"], Float[Tensor, "images 2"]]:
    """Rotation, scale and shift in closed form: the affine camera by least squares, then the nearest scaled rotation.

    `points` in mm, one set for all images or one an image; `observed` with y up. The affine part M (2, 3) is
    brought to the nearest matrix with orthogonal rows of equal length by its polar decomposition, (M M^T)^(-1/2) M.
    Exact (to the ridge of 1e-6) where the observations are; otherwise a start for `refine_pose`.
    (DeMenthon and Davis 1995, POS.)
    """
    total = weights.sum(1).clamp(min=torch.finfo(weights.dtype).tiny)[:, None]
    share = (weights / total)[..., None]
    centre, middle = (share * points).sum(1), (share * observed).sum(1)
    x = points - centre[:, None]
    second = (share * x).mT @ x  # (N, 3, 3)
    ridge = 1e-6 * second.diagonal(dim1=1, dim2=2).sum(
        1
    )  # seen points that lie nearly in a plane leave one direction open
    second = second + ridge[:, None, None] * torch.eye(3).to(x)
    affine = torch.linalg.solve(second, (share * x).mT @ (observed - middle[:, None])).mT  # (N, 2, 3)
    gram = affine @ affine.mT
    root_det = torch.linalg.det(gram).clamp(min=0).sqrt()  # product of the singular values of M
    trace = (gram[:, 0, 0] + gram[:, 1, 1] + 2 * root_det).clamp(min=1e-20).sqrt()  # sum of them
    root = (gram + root_det[:, None, None] * torch.eye(2).to(x)) / trace[:, None, None]
    floor = 1e-6 * trace[:, None, None] * torch.eye(2).to(x)
    rows = torch.linalg.solve(root + floor, affine)
    first = torch.nn.functional.normalize(rows[:, 0], dim=1)
    second_row = rows[:, 1] - (rows[:, 1] * first).sum(1, keepdim=True) * first
    second_row = torch.nn.functional.normalize(second_row, dim=1)
    rotation = torch.stack([first, second_row, torch.linalg.cross(first, second_row)], 1)
    scale = trace / 2
    shift = middle - scale[:, None] * (rotation[:, :2] @ centre[..., None])[..., 0]
    return rotation, scale, shift


def refine_pose(
    points: Float[Tensor, "any points 3"],
    observed: Float[Tensor, "images points 2"],
    weights: Float[Tensor, "images points"],
    rotation: Float[Tensor, "images 3 3"],
    scale: Float[Tensor, " images"],
    shift: Float[Tensor, "images 2"],
    steps: int = 4,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gauss-Newton on the camera alone; steps that do not lower an image's error are dropped and shortened.

    Returns rotation, scale, shift and the weighted sum of squared residuals of each image.
    """
    camera = (rotation, scale, shift)
    y, residual = _see(points, observed, *camera)
    cost = (weights * residual.square().sum(-1)).sum(1)
    damping = torch.full_like(cost, 1e-4)
    for _ in range(steps):
        weighted = weights[..., None] * homogeneous(y)  # (N, P, 4)
        normal = pose_normal(weighted.mT @ homogeneous(y))
        gradient = pose_adjoint(weighted.mT @ residual)
        loaded = normal + torch.diag_embed(normal.diagonal(dim1=1, dim2=2) * damping[:, None] + 1e-12)
        trial = apply_step(*camera, -torch.linalg.solve(loaded, gradient))
        trial_y, trial_residual = _see(points, observed, *trial)
        trial_cost = (weights * trial_residual.square().sum(-1)).sum(1)
        better = trial_cost < cost
        camera = tuple(_choose(better, new, old) for new, old in zip(trial, camera, strict=True))
        y, residual = _choose(better, trial_y, y), _choose(better, trial_residual, residual)
        cost = torch.where(better, trial_cost, cost)
        damping = torch.where(better, damping * 0.1, damping * 100)
    return *camera, cost


def _see(points: Tensor, observed: Tensor, rotation: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Scaled camera coordinates y = g R x of the points, and how far they land from the observations."""
    y = points @ (scale[:, None, None] * rotation).mT
    return y, y[..., :2] + shift[:, None] - observed


def _choose(which: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(which.view(-1, *[1] * (new.dim() - 1)), new, old)
