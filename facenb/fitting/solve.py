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
FORCING = 1e-6  # conjugate gradients end when the power of every subject's residual fell by this,
GAIN = 1e-7  # or when a step takes less than this share off the subject's objective
# Share of a normal matrix's mean diagonal that is added to it: with no prior it may lack rank, exactly or by rounding.
JITTER = {torch.float32: 1e-6, torch.float64: 1e-10}
STOP = 1e-4  # relative decrease of a batch's objective below which further rounds are not worth their time


@dataclass(frozen=True)
class State:
    """What is being fitted. Camera on y-up millimetres: q = scale (rotation x)[:2] + shift."""

    rotation: Float[Tensor, "images 3 3"]
    scale: Float[Tensor, " images"]
    shift: Float[Tensor, "images 2"]
    expression: Float[Tensor, "images expression"]
    identity: Float[Tensor, "subjects identity"]


@dataclass(frozen=True)
class Blocks:
    """Products of the bases that never change."""

    identity: Float[Tensor, "6 identity identity"]  # over the landmarks, for the preconditioner
    expression: Float[Tensor, "6 expression expression"] | Float[Tensor, "rows pairs"]
    uniform: bool  # all weights are one and nothing slides: then an image's normal matrix takes six numbers

    @classmethod
    def of(cls, points: Points, weights: Float[Tensor, "images landmarks"]) -> "Blocks":
        uniform = not points.candidates and bool((weights == 1).all())
        expression = gram_blocks(points.expression) if uniform else point_blocks(points.expression)
        return cls(gram_blocks(points.identity[:, : 3 * points.landmarks]), expression, uniform)


@dataclass(frozen=True)
class Problem:
    """Observations and what is known of them."""

    points: Points
    observed: Float[Tensor, "images points 2"]  # mm, y up
    weights: Float[Tensor, "images points"]  # of every candidate, whether chosen or not
    subject: Int[Tensor, " images"]
    identity_prior: float  # mm^2
    expression_prior: float
    blocks: Blocks

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


def solve(problem: Problem, state: State, rounds: int) -> tuple[State, list[float]]:
    """At most `rounds` rounds; returns the state and the objective of all subjects (mm^2) before and after each.

    A subject whose step does not lower its objective keeps what it had and tries a shorter one in the next round
    (Levenberg-Marquardt).
    """
    weights = choose(problem, state)
    y, residual, cost = evaluate(problem, state, weights)
    damping = state.identity.new_zeros(len(state.identity))
    history = [float(cost.sum())]
    for _ in range(rounds):
        before = float(cost.sum())
        trial = _moved(state, _step(problem, state, weights, y, residual, cost, damping))
        trial_y, trial_residual, trial_cost = evaluate(problem, trial, weights)
        better, worse = trial_cost < cost, ~(trial_cost <= (1 + STOP) * cost)  # a NaN is worse
        image = better[problem.subject]
        state = State(
            _where(image, trial.rotation, state.rotation),
            _where(image, trial.scale, state.scale),
            _where(image, trial.shift, state.shift),
            _where(image, trial.expression, state.expression),
            _where(better, trial.identity, state.identity),
        )
        y, residual, cost = _where(image, trial_y, y), _where(image, trial_residual, residual), _min(trial_cost, cost)
        damping = torch.where(worse, (damping * 10).clamp(min=1e-2), damping * 0.1)
        history.append(float(cost.sum()))
        if not bool(worse.any()) and before - history[-1] <= STOP * before:
            break
        if problem.points.candidates:  # the head has turned: another part of the cheek is the outline
            weights = choose(problem, state)
            y, residual, cost = evaluate(problem, state, weights)
    return state, history


def choose(problem: Problem, state: State) -> Tensor:
    """Weights with those of the candidates that do not stand for their landmark in this pose set to zero."""
    if not problem.points.candidates:
        return problem.weights
    turned = positions(problem.points, state, problem.subject) @ state.rotation.mT
    return problem.weights * problem.points.silhouette(turned, state.rotation)


def _step(problem, state, weights, y, residual, cost, damping) -> tuple[Tensor, Tensor, Tensor]:
    """The joint Gauss-Newton step: pose and expression of every image, identity of every subject."""
    points, blocks, subjects = problem.points, problem.blocks, len(state.identity)
    images = Images.of(problem, state, weights, y)
    factor = torch.linalg.cholesky(images.normal(damping[problem.subject]))
    own = problem.gather(images.six() * weights.mean(1, keepdim=True), subjects) @ blocks.identity.flatten(1)
    own = own.unflatten(1, blocks.identity.shape[1:]) * (weights.shape[1] / points.landmarks)
    own = own + problem.identity_prior * torch.eye(own.shape[1]).to(own)
    diagonal = own.diagonal(dim1=1, dim2=2)
    extra = damping[:, None] * diagonal + _jitter(diagonal)
    preconditioner = torch.linalg.cholesky(own + torch.diag_embed(extra))

    gradient, pull = images.gradient(residual, state.expression)
    eliminated = _solved(factor, gradient)
    rest = problem.gather(pull - images.taken(eliminated), subjects)
    right = -(rest @ points.identity.T) - problem.identity_prior * state.identity

    def schur(direction: Tensor) -> Tensor:
        """The identity's normal matrix, less what the images' own parameters can take over, times a direction."""
        offset = (direction @ points.identity)[problem.subject]  # (N, 3 P)
        local, pull = images.of_shape(offset)
        left = problem.gather(pull - images.taken(_solved(factor, local)), subjects)
        return left @ points.identity.T + (problem.identity_prior + extra) * direction

    identity = conjugate_gradients(schur, right, lambda v: _solved(preconditioner, v), GAIN * cost.to(right)[:, None])
    local, _ = images.of_shape((identity @ points.identity)[problem.subject])
    step = -eliminated - _solved(factor, local)
    return step[:, :6], step[:, 6:], identity


@dataclass(frozen=True)
class Images:
    """The Jacobian of every image's landmarks, applied and transposed but never stored."""

    problem: Problem
    view: Float[Tensor, "images 2 3"]  # mm on the model's axes to mm in the picture
    metric: Float[Tensor, "images 3 3"]  # view^T view
    lever: Float[Tensor, "images points 4"]  # what a pose step moves a landmark by is linear in it
    weighted: Float[Tensor, "images points 4"]
    weights: Float[Tensor, "images points 1"]

    @classmethod
    def of(cls, problem: Problem, state: State, weights: Tensor, y: Tensor) -> "Images":
        view = state.scale[:, None, None] * state.rotation[:, :2]
        lever = homogeneous(y)
        weighted = lever if problem.blocks.uniform else weights[..., None] * lever
        return cls(problem, view, view.mT @ view, lever, weighted, weights[..., None])

    def six(self) -> Float[Tensor, "images 6"]:
        """The entries of the metric that the Gram blocks are weighted with."""
        return torch.stack([self.metric[:, k, l] for k, l in PAIRS], 1)

    def _weigh(self, field: Tensor) -> Tensor:
        return (field if self.problem.blocks.uniform else self.weights * field).flatten(1)

    def gradient(self, residual: Tensor, expression: Tensor) -> tuple[Tensor, Tensor]:
        """Half the gradient in pose and expression (N, 6 + E), and the pull on the shape's coordinates (N, 3 P)."""
        pull = self._weigh(residual @ self.view)
        pose = pose_adjoint(self.weighted.mT @ residual)
        prior = self.problem.expression_prior * expression
        return torch.cat([pose, pull @ self.problem.points.expression.T + prior], 1), pull

    def of_shape(self, offset: Tensor) -> tuple[Tensor, Tensor]:
        """J^T W J of a change of shape (N, 3 P): its part in pose and expression, and on the shape itself."""
        offset = offset.unflatten(1, (-1, 3))
        pull = self._weigh(offset @ self.metric)
        pose = pose_adjoint((self.weighted.mT @ offset) @ self.view.mT)
        return torch.cat([pose, pull @ self.problem.points.expression.T], 1), pull

    def taken(self, local: Tensor) -> Tensor:
        """J^T W J of a step in pose and expression, on the shape's coordinates (N, 3 P)."""
        pose = torch.einsum("nc,cdk->nkd", local[:, :6], POSE_ROWS.to(local)) @ self.view  # (N, 4, 3)
        offset = (local[:, 6:] @ self.problem.points.expression).unflatten(1, (-1, 3))
        return self._weigh(torch.baddbmm(offset @ self.metric, self.lever, pose))

    def normal(self, damping: Tensor) -> Float[Tensor, "images local local"]:
        """Normal matrix of each image's own parameters, pose first."""
        points, blocks = self.problem.points, self.problem.blocks
        count = len(points.expression)
        normal = self.view.new_zeros(len(self.view), 6 + count, 6 + count)
        normal[:, :6, :6] = pose_normal(self.weighted.mT @ self.lever)
        basis = points.expression.T.reshape(len(points.mean), -1)  # (P, 3 E)
        moments = (self.weighted.mT @ basis).unflatten(2, (3, count))  # (N, 4, 3, E)
        cross = pose_adjoint(torch.einsum("ndk,nlke->nlde", self.view, moments))  # (N, 6, E)
        normal[:, 6:, :6], normal[:, :6, 6:] = cross.mT, cross
        if self.problem.blocks.uniform:
            normal[:, 6:, 6:] = (self.six() @ blocks.expression.flatten(1)).unflatten(1, (count, count))
        else:
            lower = (self.weights * self.six()[:, None]).flatten(1) @ blocks.expression
            a, b = torch.tril_indices(count, count, device=lower.device) + 6
            normal[:, a, b], normal[:, b, a] = lower, lower
        diagonal = normal.diagonal(dim1=1, dim2=2)  # a view
        diagonal[:, 6:] += self.problem.expression_prior
        diagonal += damping[:, None] * diagonal + _jitter(diagonal)
        return normal


def conjugate_gradients(apply, right: Tensor, precondition, enough: Tensor) -> Tensor:
    """Solve a batch of symmetric positive definite systems, one a row, at the same time.

    Ends when, for every row, the residual's power has fallen to FORCING or a step gains less than `enough` (S, 1).
    """
    solution, residual = torch.zeros_like(right), right
    direction = conditioned = precondition(residual)
    gain = power = start = (residual * conditioned).sum(1, keepdim=True)
    tiny = torch.finfo(right.dtype).tiny
    for _ in range(CONJUGATE_STEPS):
        if bool(((power <= FORCING * start) | (gain <= enough)).all()):
            break
        applied = apply(direction)
        length = power / (direction * applied).sum(1, keepdim=True).clamp(min=tiny)
        gain = length * power  # what this step takes off the linearised objective
        solution, residual = solution + length * direction, residual - length * applied
        conditioned = precondition(residual)
        before, power = power, (residual * conditioned).sum(1, keepdim=True)
        direction = conditioned + (power / before.clamp(min=tiny)) * direction
    return solution


def _jitter(diagonal: Tensor) -> Tensor:
    return JITTER[diagonal.dtype] * diagonal.mean(1, keepdim=True)


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


def _min(new: Tensor, old: Tensor) -> Tensor:
    return torch.where(new < old, new, old)  # not minimum(): a NaN must lose


def _where(which: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(which.view(-1, *[1] * (new.dim() - 1)), new, old)
