"""Find the weak perspective camera that projects known points to observed positions: closed form, then Gauss-Newton.

Observations `q` are (x, y) with y **up**, so the camera is `q = scale (R x)[:2] + shift` without a change of sign.

A pose step is the vector (w_x, w_y, w_z, log scale, shift_x, shift_y): R becomes exp(w) R. The first four are divided
by LENGTH, so that one unit of each moves a point of the face by about a millimetre. This keeps the normal matrix well
conditioned in float32.
"""

import torch
from jaxtyping import Float
from torch import Tensor

LENGTH = 50.0  # mm, the typical distance of a landmark from an axis of rotation
# The derivative of (q_x, q_y) by a pose step is linear in (1, y_x, y_y, y_z), with y = scale R x.
POSE_FORM = torch.zeros(4, 2, 6)
POSE_FORM[3, 1, 0] = -1  # a rotation w_x lowers y by z
POSE_FORM[3, 0, 1] = 1
POSE_FORM[2, 0, 2], POSE_FORM[1, 1, 2] = -1, 1
POSE_FORM[1, 0, 3], POSE_FORM[2, 1, 3] = 1, 1
POSE_FORM[0, 0, 4], POSE_FORM[0, 1, 5] = 1, 1
# w @ CROSS is the flattened matrix of the cross product with w.
CROSS = torch.tensor([[0, 0, 0, 0, 0, -1, 0, 1, 0], [0, 0, 1, 0, 0, 0, -1, 0, 0], [0, -1, 0, 1, 0, 0, 0, 0, 0.0]])
SETTLED = 1e-6  # `refine_pose` ends early if no image's error decreases by more than this fraction
# Rotation, scale (pixels per mm) and shift (pixels) of N images.
Camera = tuple[Float[Tensor, "images 3 3"], Float[Tensor, " images"], Float[Tensor, "images 2"]]


def homogeneous(turned: Float[Tensor, "images points 3"]) -> Float[Tensor, "images points 4"]:
    """Return (1, y / LENGTH). Every pose derivative is linear in it."""
    return torch.cat([torch.ones_like(turned[..., :1]), turned / LENGTH], -1)


def pose_jacobian(turned: Float[Tensor, "images points 3"]) -> Float[Tensor, "images 2 points 6"]:
    """Return the derivatives of projected points with respect to a pose step. `turned` holds y = scale R x."""
    return (homogeneous(turned) @ POSE_FORM.to(turned).flatten(1)).unflatten(-1, (2, 6)).transpose(1, 2)


def apply_step(camera: Camera, step: Float[Tensor, "images 6"]) -> Camera:
    """Return the camera after a pose step, limited to one radian of rotation and a factor e of scale."""
    rotation, scale, shift = camera
    small = step[:, :4] / LENGTH
    small = small / small.norm(dim=1, keepdim=True).clamp(min=1.0)
    angle = small[:, :3].norm(dim=1)[:, None, None] / torch.pi
    cross = (small[:, :3] @ CROSS.to(step)).unflatten(1, (3, 3))
    # sin(a) / a and (1 - cos(a)) / a^2 of Rodrigues' formula; torch.sinc(x) is sin(pi x) / (pi x), and 1 at 0.
    linear, square = angle.sinc(), (angle / 2).sinc().square() / 2
    turn = torch.baddbmm(torch.eye(3).to(step) + linear * cross, square * cross, cross)
    return turn @ rotation, scale * small[:, 3].exp(), shift + step[:, 4:]


def scaled_orthographic(
    points: Float[Tensor, "any points 3"],
    observed: Float[Tensor, "images points 2"],
    weights: Float[Tensor, "images points"],
) -> Camera:
    """Return rotation, scale and shift in closed form (DeMenthon and Davis 1995, POS).

    `points` in mm, one set for all images or one per image; `observed` with y up. Solves for the affine camera M (2, 3)
    by least squares. Then the polar decomposition (M M^T)^(-1/2) M gives the nearest matrix with orthogonal rows of
    equal length. The result is exact for exact observations. Otherwise it is a start for `refine_pose`.
    """
    share = (weights / weights.sum(1, keepdim=True))[..., None]
    centre, middle = (share * points).sum(1), (share * observed).sum(1)
    x = points - centre[:, None]
    second = (share * x).mT @ x  # (N, 3, 3)
    # If the points lie nearly in a plane, one direction is not determined. The ridge makes the system solvable.
    ridge = 1e-6 * second.diagonal(dim1=1, dim2=2).sum(1)
    second = second + ridge[:, None, None] * torch.eye(3).to(x)
    affine = torch.linalg.solve(second, (share * x).mT @ (observed - middle[:, None])).mT  # (N, 2, 3)
    gram = affine @ affine.mT
    root_det = torch.linalg.det(gram).clamp(min=0).sqrt()  # product of the singular values of M
    trace = (gram[:, 0, 0] + gram[:, 1, 1] + 2 * root_det).clamp(min=1e-20).sqrt()  # their sum
    root = (gram + root_det[:, None, None] * torch.eye(2).to(x)) / trace[:, None, None]
    floor = 1e-6 * trace[:, None, None] * torch.eye(2).to(x)
    rows = torch.linalg.solve(root + floor, affine)
    first = torch.nn.functional.normalize(rows[:, 0], dim=1)
    second_row = rows[:, 1] - (rows[:, 1] * first).sum(1, keepdim=True) * first
    second_row = torch.nn.functional.normalize(second_row, dim=1)
    rotation = torch.stack([first, second_row, torch.linalg.cross(first, second_row)], 1)
    scale = trace / 2
    return rotation, scale, middle - scale[:, None] * (rotation[:, :2] @ centre[..., None])[..., 0]


def refine_pose(
    points: Float[Tensor, "any points 3"],
    observed: Float[Tensor, "images points 2"],
    weights: Float[Tensor, "images points"],
    camera: Camera,
    steps: int = 4,
) -> Camera:
    """Return the camera after Gauss-Newton steps on the camera alone.

    A step that does not lower an image's error is dropped, and the next one is shorter (Levenberg-Marquardt). Stops
    early when no error decreases any more.
    """
    both = weights.repeat(1, 2)  # weights of x, then of y
    turned, residual = _project(points, observed, camera)
    cost = (both * residual.square()).sum(1)
    damping = torch.full_like(cost, 1e-4)
    for _ in range(steps):
        jacobian = pose_jacobian(turned).flatten(1, 2)  # (N, 2 P, 6)
        weighted = (both[..., None] * jacobian).mT
        normal = weighted @ jacobian
        loaded = normal + torch.diag_embed(normal.diagonal(dim1=1, dim2=2) * damping[:, None] + 1e-12)
        step = -torch.linalg.solve(loaded, (weighted @ residual[..., None])[..., 0])
        trial = apply_step(camera, step)
        trial_turned, trial_residual = _project(points, observed, trial)
        trial_cost = (both * trial_residual.square()).sum(1)
        better = trial_cost < cost
        settled = bool((cost - trial_cost <= SETTLED * cost).all())
        camera = tuple(where(better, new, old) for new, old in zip(trial, camera, strict=True))
        turned, residual = where(better, trial_turned, turned), where(better, trial_residual, residual)
        cost = where(better, trial_cost, cost)
        damping = torch.where(better, damping * 0.1, damping * 100)
        if settled and bool(better.all()):
            break
    return camera


def _project(points: Tensor, observed: Tensor, camera: Camera) -> tuple[Tensor, Tensor]:
    """Return the scaled camera coordinates y (N, P, 3), and the residuals (N, 2 P): all x, then all y."""
    rotation, scale, shift = camera
    turned = points @ (scale[:, None, None] * rotation).mT
    return turned, (turned[..., :2] + shift[:, None] - observed).mT.flatten(1)


def where(rows: Tensor, new: Tensor | None, old: Tensor | None) -> Tensor | None:
    """Return `new` in the rows that are True and `old` in the others."""
    return None if new is None else torch.where(rows.view(-1, *[1] * (new.dim() - 1)), new, old)
