"""Gauss-Newton steps on camera, expression and shared identity together. Only steps that lower the objective are taken.

A **round** linearises every image once and solves the joint normal equations. Pose and expression belong to one image
and are eliminated first. The remaining equations (the Schur complement) give the identity, which all images of a
subject share. The paper updates the three in turn instead. This converges slowly where they depend on each other.

`DirectStep` builds these matrices, for few images or unequal weights. `SharedStep` solves the same equations by
conjugate gradients, which is faster for many images with equal weights. It only needs products of the Schur complement
with a vector. It computes them from landmark positions, without forming the matrix. The preconditioner is the block of
the normal matrix for the identity coefficients: a sum of six constant Gram blocks of the basis, weighted by six numbers
per image.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from facenb.fitting.pose import POSE_FORM, apply_step, homogeneous, pose_jacobian, where
from facenb.fitting.problem import Points, Problem, Residuals, State, evaluate

# Added to the diagonal of a normal matrix, relative to its mean: without a prior the matrix may be singular.
JITTER = {torch.float32: 1e-6, torch.float64: 1e-10}
STOP = 1e-4  # stop if a round lowers the objective of a batch by less than this fraction
PAIRS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))  # the six distinct entries of a symmetric 3x3 matrix
MOST_STEPS = 200  # of conjugate gradients; with ordinary priors, ten to forty are enough
# Conjugate gradients stop when one of the two holds for every subject:
FORCING = 1e-6  # its squared (preconditioned) residual is at most this fraction of the first
GAIN = 1e-7  # a step lowers its objective by at most this fraction

Change = tuple[Tensor, Tensor, Tensor]  # of pose and expression for each image, and of identity for each subject
Step = Callable[[Problem, State, Residuals, Tensor], Change]


def solve(problem: Problem, state: State, rounds: int, step: Step) -> tuple[State, Residuals, list[float]]:
    """Run at most `rounds` rounds; return the state, its residuals, and the objective (mm^2) before and after each.

    If a step does not lower a subject's objective, the subject keeps its state. If the objective rose by more than the
    fraction STOP, the next step is shorter (Levenberg-Marquardt). The contour points are chosen for the trial state
    before the objectives are compared, so the accepted objective never rises.
    """
    current = evaluate(problem, state)
    damping = state.scale.new_zeros(problem.subjects)
    history = [float(current.cost.sum())]
    for _ in range(rounds):
        pose, expression, identity = step(problem, state, current, damping)
        trial = State(*apply_step(state[:3], pose), state.expression + expression, state.identity + identity)
        tried = evaluate(problem, trial)
        better = tried.cost < current.cost
        worse = ~(tried.cost <= (1 + STOP) * current.cost)  # NaN counts as worse
        state = _better_rows(better, problem.subject, trial, state)
        current = _better_rows(better, problem.subject, tried, current)
        damping = torch.where(worse, (damping * 10).clamp(min=1e-2), damping * 0.1)
        history.append(float(current.cost.sum()))
        if history[-2] - history[-1] <= STOP * history[-2] and not bool(worse.any()):
            break
    return state, current, history


def _better_rows(better: Tensor, subject: Tensor, new: tuple, old: tuple) -> tuple:
    """Return `new` for the improved subjects, else `old`. The last field is per subject, the others per image."""
    image = better[subject]
    rows = [where(image, a, b) for a, b in zip(new[:-1], old[:-1], strict=True)]
    return type(new)(*rows, where(better, new[-1], old[-1]))


def jitter(diagonal: Tensor) -> Tensor:
    """Return the small values to add to the diagonals (rows, components) of normal matrices that may be singular."""
    return JITTER[diagonal.dtype] * diagonal.mean(1, keepdim=True)


class DirectStep:
    """The Gauss-Newton step of pose, expression and identity, from explicit Jacobians."""

    def __init__(self, points: Points):
        basis = torch.cat([points.expression, points.identity])
        self.axes = basis.T.unflatten(0, (-1, 3)).transpose(0, 1).contiguous()  # (3, P, E + I)

    def __call__(self, problem: Problem, state: State, current: Residuals, damping: Tensor) -> Change:
        local, point = 6 + len(problem.points.expression), current.point
        axes = self.axes if point is None else self.axes[:, point].transpose(0, 1)  # ([N,] 3, L, E + I)
        view = state.scale[:, None, None] * state.rotation[:, :2]
        shape = (view @ axes.flatten(-2)).unflatten(2, axes.shape[-2:])
        jacobian = torch.cat([pose_jacobian(current.turned), shape], -1).flatten(1, 2)  # (N, 2 L, 6 + E + I)
        # The last column is the gradient. It is eliminated like all other columns.
        columns = problem.whiten(torch.cat([jacobian, current.residual.mT.flatten(1)[..., None]], 2))
        system = (current.weights.repeat(1, 2)[..., None] * columns[..., :-1]).mT @ columns
        system[:, 6:local, -1] += problem.expression_prior * state.expression
        inner = system[:, :local, :local]
        diagonal = inner.diagonal(dim1=1, dim2=2)  # a view
        diagonal[:, 6:] += problem.expression_prior
        diagonal += damping[problem.subject][:, None] * diagonal + jitter(diagonal)
        eliminated = torch.cholesky_solve(system[:, :local, local:], torch.linalg.cholesky(inner))  # (N, 6 + E, I + 1)

        shared = problem.gather(system[:, local:, local:])  # (S, I, I + 1)
        diagonal = shared.diagonal(dim1=1, dim2=2) + problem.identity_prior
        extra = damping[:, None] * diagonal + jitter(diagonal) + problem.identity_prior
        reduced = shared - problem.gather(system[:, local:, :local] @ eliminated)
        right = reduced[..., -1:] + problem.identity_prior * state.identity[..., None]
        factor = torch.linalg.cholesky(reduced[..., :-1] + torch.diag_embed(extra))
        identity = -torch.cholesky_solve(right, factor)[..., 0]
        step = -eliminated[..., -1] - (eliminated[..., :-1] @ identity[problem.subject][..., None])[..., 0]
        return step[:, :6], step[:, 6:], identity


def gram_blocks(basis: Float[Tensor, "components coordinates"]) -> Float[Tensor, "6 components components"]:
    """Return G_kk, and G_kl + G_lk for k < l: products of the basis' coordinates k and l, summed over points.

    For a symmetric 3 x 3 matrix C at every point, B^T C B = sum_kl C_kl G_kl.
    """
    axes = basis.unflatten(1, (-1, 3))
    blocks = torch.einsum("ajk,bjl->klab", axes, axes)
    return torch.stack([blocks[k, l] if k == l else blocks[k, l] + blocks[l, k] for k, l in PAIRS])


class SharedStep:
    """The same step by conjugate gradients. The Gram blocks of the bases are computed once for all rounds."""

    def __init__(self, points: Points):
        self.identity, self.expression = gram_blocks(points.identity), gram_blocks(points.expression)

    def __call__(self, problem: Problem, state: State, current: Residuals, damping: Tensor) -> Change:
        points, images = problem.points, Images(problem, state, current)
        factor = torch.linalg.cholesky(images.normal(self.expression, damping[problem.subject]))
        shared = (problem.gather(images.six) @ self.identity.flatten(1)).unflatten(1, self.identity.shape[1:])
        shared = shared + problem.identity_prior * torch.eye(shared.shape[1]).to(shared)
        diagonal = shared.diagonal(dim1=1, dim2=2)
        extra = damping[:, None] * diagonal + jitter(diagonal)
        preconditioner = torch.linalg.cholesky(shared + torch.diag_embed(extra))

        gradient, pull = images.gradient(current.residual, state.expression)
        eliminated = _solved(factor, gradient)
        rest = problem.gather(pull - images.to_shape(eliminated))
        right = -(rest @ points.identity.T) - problem.identity_prior * state.identity

        def schur(direction: Tensor) -> Tensor:
            """Return the product of the Schur complement with a change of identity."""
            offset = (direction @ points.identity)[problem.subject]  # (N, 3 P)
            local, pull = images.of_shape(offset)
            left = problem.gather(pull - images.to_shape(_solved(factor, local)))
            return left @ points.identity.T + (problem.identity_prior + extra) * direction

        enough = GAIN * current.cost.to(right)[:, None]
        identity = conjugate_gradients(schur, right, lambda rows: _solved(preconditioner, rows), enough)
        local, _ = images.of_shape((identity @ points.identity)[problem.subject])
        step = -eliminated - _solved(factor, local)
        return step[:, :6], step[:, 6:], identity


class Images:
    """Compute products with the Jacobian of each image's landmarks, and with its transpose, without storing it."""

    def __init__(self, problem: Problem, state: State, current: Residuals):
        self.problem, self.turned = problem, current.turned
        self.view = state.scale[:, None, None] * state.rotation[:, :2]  # (N, 2, 3): the model's axes to the image, mm
        self.metric = self.view.mT @ self.view
        self.six = torch.stack([self.metric[:, k, l] for k, l in PAIRS], 1)  # (N, 6), the weights of the Gram blocks
        self.lever = homogeneous(self.turned)  # (N, P, 4): a landmark's motion in a pose step is linear in these values

    def gradient(self, residual: Tensor, expression: Tensor) -> tuple[Tensor, Tensor]:
        """Return half the gradient for pose and expression (N, 6 + E), and for the shape's coordinates (N, 3 P)."""
        pull = (residual @ self.view).flatten(1)
        prior = self.problem.expression_prior * expression
        inner = pull @ self.problem.points.expression.T + prior
        return torch.cat([_pose_adjoint(self.lever.mT @ residual), inner], 1), pull

    def of_shape(self, offset: Tensor) -> tuple[Tensor, Tensor]:
        """Return J^T J times a displacement (N, 3 P): the rows for pose and expression, and those for displacements."""
        offset = offset.unflatten(1, (-1, 3))
        pull = (offset @ self.metric).flatten(1)
        pose = _pose_adjoint((self.lever.mT @ offset) @ self.view.mT)
        return torch.cat([pose, pull @ self.problem.points.expression.T], 1), pull

    def to_shape(self, local: Tensor) -> Float[Tensor, "images coordinates"]:
        """Return J^T J times a step of pose and expression: only the rows for the landmarks' 3D coordinates."""
        pose = torch.einsum("nc,kdc->nkd", local[:, :6], POSE_FORM.to(local)) @ self.view  # (N, 4, 3)
        offset = (local[:, 6:] @ self.problem.points.expression).unflatten(1, (-1, 3))
        return torch.baddbmm(offset @ self.metric, self.lever, pose).flatten(1)

    def normal(self, gram: Tensor, damping: Tensor) -> Float[Tensor, "images local local"]:
        """Return each image's normal matrix for pose and expression, in this order."""
        points = self.problem.points
        count = len(points.expression)
        normal = self.view.new_zeros(len(self.view), 6 + count, 6 + count)
        pose = pose_jacobian(self.turned).flatten(1, 2)
        normal[:, :6, :6] = pose.mT @ pose
        basis = points.expression.T.reshape(len(points.mean), -1)  # (P, 3 E)
        moments = (self.lever.mT @ basis).unflatten(2, (3, count))  # (N, 4, 3, E)
        cross = _pose_adjoint(torch.einsum("ndk,nlke->nlde", self.view, moments))  # (N, 6, E)
        normal[:, 6:, :6], normal[:, :6, 6:] = cross.mT, cross
        normal[:, 6:, 6:] = (self.six @ gram.flatten(1)).unflatten(1, (count, count))
        diagonal = normal.diagonal(dim1=1, dim2=2)  # a view
        diagonal[:, 6:] += self.problem.expression_prior
        diagonal += damping[:, None] * diagonal + jitter(diagonal)
        return normal


def _pose_adjoint(moments: Float[Tensor, "images 4 2 ..."]) -> Float[Tensor, "images 6 ..."]:
    """Return J^T f for the pose part of J, from the moments sum_j (1, y_j) f_j^T; y_j: see `pose`."""
    return torch.einsum("kc,nk...->nc...", POSE_FORM.to(moments).flatten(0, 1), moments.flatten(1, 2))


def conjugate_gradients(
    apply: Callable[[Tensor], Tensor], right: Tensor, precondition: Callable[[Tensor], Tensor], enough: Tensor
) -> Float[Tensor, "systems unknowns"]:
    """Solve a batch of symmetric positive definite systems, one per row, at the same time.

    Stop when each row meets one of two conditions. Its squared residual has fallen by the factor FORCING, or a step
    lowers its objective by at most `enough` (S, 1).
    """
    solution, residual = torch.zeros_like(right), right
    direction = conditioned = precondition(residual)
    gain = power = start = (residual * conditioned).sum(1, keepdim=True)
    tiny = torch.finfo(right.dtype).tiny
    for _ in range(MOST_STEPS):
        if bool(((power <= FORCING * start) | (gain <= enough)).all()):
            break
        applied = apply(direction)
        length = power / (direction * applied).sum(1, keepdim=True).clamp(min=tiny)
        gain = length * power  # how much this step lowers the linearised objective
        solution, residual = solution + length * direction, residual - length * applied
        conditioned = precondition(residual)
        before, power = power, (residual * conditioned).sum(1, keepdim=True)
        direction = conditioned + (power / before.clamp(min=tiny)) * direction
    return solution


def _solved(factor: Tensor, right: Tensor) -> Tensor:
    return torch.cholesky_solve(right[..., None], factor)[..., 0]
