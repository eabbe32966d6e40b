"""Gauss-Newton on camera, expression and shared identity together, each eliminated in turn.

One **round** linearises every image once and solves the joint normal equations exactly enough: in each image the
pose and the expression are eliminated (a small Cholesky), the identity that a subject's images share is solved from
what is left (the Schur complement), then expression and pose are substituted back. Plain alternation, as the paper
writes it, stops where the three depend on each other; this does not. The Schur complement is never formed: conjugate
gradients apply it through the landmarks, preconditioned with the identity's own normal matrix. That matrix needs only
six Gram blocks of the basis, which never change, and six numbers an image.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facenb.fitting.pose import POSE_ROWS, apply_step, homogeneous, pose_adjoint, pose_normal
from facenb.fitting.problem import Points

PAIRS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))  # the entries of a symmetric 3x3 matrix
CONJUGATE_STEPS = 200  # at most; ordinary priors end after ten to forty
STOP = 1e-5  # relative decrease of a batch's objective below which further rounds are not worth their time


@dataclass(frozen=True)
class State:
    """What is being fitted. Camera on y-up millimetres: q = scale (rotation x)[:2] + shift."""

    rotation: Float[Tensor, "images 3 3"]
    scale: Float[Tensor, " images"]
    shift: Float[Tensor, "images 2"]
    expression: Float[Tensor, "images expression"]
    identity: Float[Tensor, "subjects identity"]


@dataclass(frozen=True)
class Problem:
    """Observations and what is known of them; `gram_*` are products of the bases that every round uses."""

    points: Points
    observed: Float[Tensor, "images points 2"]  # mm, y up
    weights: Float[Tensor, "images points"]  # of every candidate, whether chosen or not
    subject: Int[Tensor, " images"]
    identity_prior: float  # mm^2
    expression_prior: float
    uniform: bool  # all weights are one and nothing slides: the expression's normal matrix takes six numbers an image

    def gather(self, values: Tensor, subjects: int) -> Tensor:
        """Sum rows of images into rows of subjects."""
        return values.new_zeros(subjects, *values.shape[1:]).index_add_(0, self.subject, values)


def gram_blocks(left: Float[Tensor, "components coordinates"]) -> Float[Tensor, "6 components components"]:
    """G_kl + G_lk over axes k <= l of a basis, summed over points: B^T C B = sum_kl C_kl G_kl for a symmetric C."""
    axes = left.unflatten(1, (-1, 3))
    blocks = torch.einsum("ajk,bjl->klab", axes, axes)
    return torch.stack([blocks[k, l] if k == l else blocks[k, l] + blocks[l, k] for k, l in PAIRS])


def point_blocks(left: Float[Tensor, "components coordinates"]) -> Float[Tensor, "rows pairs"]:
    """The same for each point by itself, lower triangle only: rows = 6 points, for general weights."""
    axes = left.unflatten(1, (-1, 3))
    a, b = torch.tril_indices(len(left), len(left), device=left.device)
    blocks = [axes[a, :, k] * axes[b, :, l] + (axes[a, :, l] * axes[b, :, k] if k != l else 0) for k, l in PAIRS]
    return torch.stack(blocks).permute(2, 0, 1).flatten(0, 1)  # (points, 6, pairs)


def positions(points: Points, state: State, subject: Tensor) -> Float[Tensor, "images points 3"]:
    """The points of every image in mm on the model's axes."""
    offset = (state.identity @ points.identity)[subject] + state.expression @ points.expression
    return points.mean + offset.unflatten(1, (-1, 3))


def evaluate(problem: Problem, state: State, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scaled camera coordinates y, residuals in mm, and each subject's objective (float64)."""
    x = positions(problem.points, state, problem.subject)
    y = x @ (state.scale[:, None, None] * state.rotation).mT
    residual = y[..., :2] + state.shift[:, None] - problem.observed
    cost = (weights * residual.square().sum(-1)).sum(1).double()
    cost = cost + problem.expression_prior * state.expression.double().square().sum(1)
    prior = problem.identity_prior * state.identity.double().square().sum(1)
    return y, residual, prior + problem.gather(cost, len(state.identity))


def solve(problem: Problem, state: State, rounds: int) -> tuple[State, Float[Tensor, " subjects"], list[float]]:
    """At most `rounds` rounds; returns the state, each subject's objective (mm^2) and the total before and after each.

    A subject whose step does not lower its objective keeps what it had and tries a shorter one in the next round
    (Levenberg-Marquardt).
    """
    points = problem.points
    identity_blocks = gram_blocks(points.identity[:, : 3 * points.landmarks])
    expression_blocks = gram_blocks(points.expression) if problem.uniform else point_blocks(points.expression)
    weights = choose(problem, state)
    y, residual, cost = evaluate(problem, state, weights)
    damping = torch.zeros_like(state.identity[:, 0])
    history = [float(cost.sum())]
    for _ in range(rounds):
        step = _step(problem, state, weights, y, residual, damping, identity_blocks, expression_blocks)
        trial = _moved(state, step)
        trial_weights = choose(problem, trial)
        trial_y, trial_residual, trial_cost = evaluate(problem, trial, trial_weights)
        better = trial_cost < cost
        image = better[problem.subject]
        state = State(
            _where(image, trial.rotation, state.rotation),
            _where(image, trial.scale, state.scale),
            _where(image, trial.shift, state.shift),
            _where(image, trial.expression, state.expression),
            _where(better, trial.identity, state.identity),
        )
        y, residual = _where(image, trial_y, y), _where(image, trial_residual, residual)
        weights, cost = _where(image, trial_weights, weights), torch.where(better, trial_cost, cost)
        damping = torch.where(better, damping * 0.1, (damping * 10).clamp(min=1e-2))
        history.append(float(cost.sum()))
        if bool(better.all()) and history[-2] - history[-1] <= STOP * history[-2]:
            break
    return state, cost, history


def choose(problem: Problem, state: State) -> Tensor:
    """Weights with those of the candidates that do not stand for their landmark in this pose set to zero."""
    if not problem.points.candidates:
        return problem.weights
    turned = positions(problem.points, state, problem.subject) @ state.rotation.mT
    return problem.weights * problem.points.silhouette(turned, state.rotation)


def _step(problem, state, weights, y, residual, damping, identity_blocks, expression_blocks) -> tuple[Tensor, ...]:
    """The joint Gauss-Newton step (pose and expression of every image, identity of every subject)."""
    points, subjects = problem.points, len(state.identity)
    view = state.scale[:, None, None] * state.rotation[:, :2]  # (N, 2, 3): mm of the model to mm of the picture
    metric = view.mT @ view  # (N, 3, 3)
    six = torch.stack([metric[:, k, l] for k, l in PAIRS], 1)  # (N, 6)
    lever = homogeneous(y)  # (N, P, 4)
    weighted = weights[..., None] * lever
    images = _Images(problem, view, metric, weights, weighted)

    local = _local_normal(problem, six, weights, weighted, lever, view, expression_blocks)
    diagonal = local.diagonal(dim1=1, dim2=2)
    local = local + torch.diag_embed(damping[problem.subject, None] * diagonal)
    factor = torch.linalg.cholesky(local)

    share = weights.sum(1) / weights.new_tensor(points.landmarks)
    numbers = problem.gather(six * share[:, None], subjects)  # (S, 6)
    own = (numbers @ identity_blocks.flatten(1)).unflatten(1, identity_blocks.shape[1:])
    own = own + problem.identity_prior * torch.eye(own.shape[1]).to(own)
    own_diagonal = damping[:, None] * own.diagonal(dim1=1, dim2=2)
    preconditioner = torch.linalg.cholesky(own + torch.diag_embed(own_diagonal))

    pull = images.to_shape(residual)  # (N, P, 3): weighted residuals on the model's axes
    local_gradient = torch.cat(
        [
            pose_adjoint(weighted.mT @ residual),
            pull.flatten(1) @ points.expression.T + problem.expression_prior * state.expression,
        ],
        1,
    )
    eliminated = _solved(factor, local_gradient)
    rest = problem.gather(pull - images.to_shape(images.of_local(eliminated, lever)), subjects)
    right = -(rest.flatten(1) @ points.identity.T) - problem.identity_prior * state.identity

    def schur(direction: Tensor) -> Tensor:
        """Identity's normal matrix less what the images' own parameters can take over, times a direction."""
        offset = (direction @ points.identity).unflatten(1, (-1, 3))[problem.subject]  # (N, P, 3)
        seen = offset @ view.mT
        taken = _solved(factor, images.to_local(seen))
        left = images.to_shape(seen - images.of_local(taken, lever))
        out = problem.gather(left, subjects).flatten(1) @ points.identity.T
        return out + problem.identity_prior * direction + own_diagonal * direction

    identity = conjugate_gradients(schur, right, lambda v: _solved(preconditioner, v), CONJUGATE_STEPS)
    offset = (identity @ points.identity).unflatten(1, (-1, 3))[problem.subject] @ view.mT
    own_step = -eliminated - _solved(factor, images.to_local(offset))
    return own_step[:, :6], own_step[:, 6:], identity


@dataclass(frozen=True)
class _Images:
    """The Jacobian of every image, applied and transposed; never stored."""

    problem: Problem
    view: Tensor
    metric: Tensor
    weights: Tensor
    weighted: Tensor

    def to_shape(self, field: Tensor) -> Tensor:
        """Weighted picture offsets (N, P, 2) turned back to the model's axes (N, P, 3)."""
        return (self.weights[..., None] * field) @ self.view

    def to_local(self, field: Tensor) -> Tensor:
        """J^T W f for pose and expression: (N, P, 2) to (N, 6 + E)."""
        pose = pose_adjoint(self.weighted.mT @ field)
        return torch.cat([pose, self.to_shape(field).flatten(1) @ self.problem.points.expression.T], 1)

    def of_local(self, step: Tensor, lever: Tensor) -> Tensor:
        """J times a step of pose and expression: (N, 6 + E) to (N, P, 2)."""
        pose = torch.einsum("nc,cdk->nkd", step[:, :6], POSE_ROWS.to(step))  # (N, 4, 2)
        offset = (step[:, 6:] @ self.problem.points.expression).unflatten(1, (-1, 3))
        return lever @ pose + offset @ self.view.mT


def _local_normal(problem, six, weights, weighted, lever, view, blocks) -> Float[Tensor, "images local local"]:
    """Normal matrix of each image's own parameters, pose first."""
    points = problem.points
    count = len(points.expression)
    normal = six.new_zeros(len(six), 6 + count, 6 + count)
    normal[:, :6, :6] = pose_normal(weighted.mT @ lever)
    basis = points.expression.T.reshape(len(points.mean), -1)  # (P, 3 E)
    moments = (weighted.mT @ basis).unflatten(2, (3, count))  # (N, 4, 3, E)
    cross = pose_adjoint(torch.einsum("ndk,nlke->nlde", view, moments))  # (N, 6, E)
    normal[:, 6:, :6], normal[:, :6, 6:] = cross.mT, cross
    if problem.uniform:
        own = (six @ blocks.flatten(1)).unflatten(1, (count, count))
    else:
        lower = (weights[..., None] * six[:, None]).flatten(1) @ blocks
        a, b = torch.tril_indices(count, count, device=six.device)
        own = six.new_zeros(len(six), count, count)
        own[:, a, b], own[:, b, a] = lower, lower
    normal[:, 6:, 6:] = own + problem.expression_prior * torch.eye(count).to(six)
    scale = 1e-7 * normal.diagonal(dim1=1, dim2=2)[:, :6]
    normal[:, range(6), range(6)] += scale + 1e-12
    return normal


def conjugate_gradients(apply, right: Tensor, precondition, steps: int) -> Tensor:
    """Solve a batch of symmetric positive definite systems, one a row, to a relative 1e-4 or `steps` steps."""
    solution, residual = torch.zeros_like(right), right
    direction = conditioned = precondition(residual)
    power = start = (residual * conditioned).sum(1, keepdim=True)
    tiny = torch.finfo(right.dtype).tiny
    for _ in range(steps):
        if bool((power <= 1e-8 * start).all()):
            break
        applied = apply(direction)
        length = power / (direction * applied).sum(1, keepdim=True).clamp(min=tiny)
        solution, residual = solution + length * direction, residual - length * applied
        conditioned = precondition(residual)
        before, power = power, (residual * conditioned).sum(1, keepdim=True)
        direction = conditioned + (power / before.clamp(min=tiny)) * direction
    return solution


def _solved(factor: Tensor, right: Tensor) -> Tensor:
    return torch.cholesky_solve(right[..., None], factor)[..., 0]


def _moved(state: State, step: tuple[Tensor, ...]) -> State:
    rotation, scale, shift = apply_step(state.rotation, state.scale, state.shift, step[0])
    return replace(
        state,
        rotation=rotation,
        scale=scale,
        shift=shift,
        expression=state.expression + step[1],
        identity=state.identity + step[2],
    )


def _where(which: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(which.view(-1, *[1] * (new.dim() - 1)), new, old)
