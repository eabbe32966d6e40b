"""Gauss-Newton steps on camera, expression and shared identity together. Only steps that lower the objective are taken.

One **round** linearises every image once and solves the joint normal equations. Pose and expression belong to one image
and are eliminated first. The remaining equations (the Schur complement) give the identity, which all images of a
subject share. The paper alternates between the three instead. Where they depend on each other, alternation converges
slowly.

`DirectStep` builds these matrices, for few images or unequal weights. `facenb.fitting.shared` solves the same equations
without building them, which is faster for many images.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facenb.fitting.pose import apply_step, pose_jacobian, where
from facenb.fitting.problem import JAW, Points

# Added to the diagonal of a normal matrix, relative to its mean: without a prior the matrix may be singular.
JITTER = {torch.float32: 1e-6, torch.float64: 1e-10}
STOP = 1e-4  # stop if a round lowers the objective of a batch by less than this fraction
# For sliding contour landmarks, larger residuals count linearly (Huber). This is 2 standard deviations of the noise
# that the prior assumes. A landmark so far from the outline is probably not on it, and must not distort the face.
OUTLIER = 4.0  # mm


class State(NamedTuple):
    """The fitted parameters. The camera works in mm with y up: q = scale (rotation x)[:2] + shift."""

    rotation: Float[Tensor, "images 3 3"]
    scale: Float[Tensor, " images"]
    shift: Float[Tensor, "images 2"]
    expression: Float[Tensor, "images expression"]
    identity: Float[Tensor, "subjects identity"]

    def moved(self, pose: Tensor, expression: Tensor, identity: Tensor) -> "State":
        """Return the state after a step."""
        camera = apply_step(self.rotation, self.scale, self.shift, pose)
        return State(*camera, self.expression + expression, self.identity + identity)


class Residuals(NamedTuple):
    """The differences between a state's landmarks and the observed landmarks."""

    point: Int[Tensor, "images landmarks"] | None  # model point of each landmark; None: point j for landmark j
    turned: Float[Tensor, "images landmarks 3"]  # scaled camera coordinates
    residual: Float[Tensor, "images landmarks 2"]  # mm
    weights: Float[Tensor, "images landmarks"]  # the caller's weights, lowered for outliers of a sliding contour
    cost: Float[Tensor, " subjects"]  # the objective in mm^2, float64


@dataclass(frozen=True)
class Problem:
    """The observations, their weights and subjects, and the priors."""

    points: Points
    observed: Float[Tensor, "images landmarks 2"]  # mm, y up
    weights: Float[Tensor, "images landmarks"]
    subject: Int[Tensor, " images"]
    subjects: int
    identity_prior: float  # mm^2
    expression_prior: float

    def gather(self, values: Float[Tensor, "images ..."]) -> Float[Tensor, "subjects ..."]:
        """Sum the rows of each subject's images."""
        return values.new_zeros(self.subjects, *values.shape[1:]).index_add_(0, self.subject, values)


Step = Callable[[Problem, State, Residuals, Tensor], tuple[Tensor, Tensor, Tensor]]


def evaluate(problem: Problem, state: State) -> Residuals:
    """Return the residuals of a state and each subject's objective, with the contour points chosen for this state."""
    points = problem.points
    offset = (state.identity @ points.identity)[problem.subject] + state.expression @ points.expression
    turned = (points.mean + offset.unflatten(1, (-1, 3))) @ (state.scale[:, None, None] * state.rotation).mT
    point = None
    if points.candidates:
        point = points.on_outline(turned, state.rotation)
        turned = turned.gather(1, point[..., None].expand(-1, -1, 3))
    residual = turned[..., :2] + state.shift[:, None] - problem.observed
    square, weights = residual.square().sum(-1), problem.weights
    if points.candidates:
        distance = square[:, :JAW].sqrt().clamp(min=OUTLIER)
        weights = torch.cat([weights[:, :JAW] * OUTLIER / distance, weights[:, JAW:]], 1)
        square = torch.cat([square[:, :JAW] - (distance - OUTLIER).square(), square[:, JAW:]], 1)  # Huber's loss
    cost = (problem.weights * square).sum(1).double()
    cost = cost + problem.expression_prior * state.expression.double().square().sum(1)
    prior = problem.identity_prior * state.identity.double().square().sum(1)
    return Residuals(point, turned, residual, weights, prior + problem.gather(cost))


def solve(problem: Problem, state: State, rounds: int, step: Step) -> tuple[State, Residuals, list[float]]:
    """Run at most `rounds` rounds; return the state, its residuals, and the objective (mm^2) before and after each.

    If a step does not lower a subject's objective, the subject keeps its state and tries a shorter step in the next
    round (Levenberg-Marquardt). The objective of a trial uses the contour points of the trial state. So the objective
    never rises.
    """
    current = evaluate(problem, state)
    damping = state.scale.new_zeros(problem.subjects)
    history = [float(current.cost.sum())]
    for _ in range(rounds):
        trial = state.moved(*step(problem, state, current, damping))
        tried = evaluate(problem, trial)
        better = tried.cost < current.cost
        worse = ~(tried.cost <= (1 + STOP) * current.cost)  # NaN counts as worse
        if bool(better.all()):
            state, current = trial, tried
        else:
            state, current = _keep_better(better, problem.subject, (state, current), (trial, tried))
        damping = torch.where(worse, (damping * 10).clamp(min=1e-2), damping * 0.1)
        history.append(float(current.cost.sum()))
        if history[-2] - history[-1] <= STOP * history[-2] and not bool(worse.any()):
            break
    return state, current, history


def _keep_better(better: Tensor, subject: Tensor, old: tuple, new: tuple) -> tuple[State, Residuals]:
    """Return the new state and residuals of the subjects that improved, and the old ones of all other subjects."""
    image = better[subject]
    rows = (*[image] * 4, better), (*[image] * 4, better)  # rows are images, except in the last field: subjects
    state, residuals = (
        kind(*(a if a is None else where(mask, b, a) for mask, a, b in zip(masks, before, after, strict=True)))
        for kind, masks, before, after in zip((State, Residuals), rows, old, new, strict=True)
    )
    return state, residuals


def jitter(diagonal: Tensor) -> Tensor:
    """Return the small values to add to the diagonals (rows, components) of normal matrices that may be singular."""
    return JITTER[diagonal.dtype] * diagonal.mean(1, keepdim=True)


@dataclass(frozen=True)
class DirectStep:
    """The Gauss-Newton step of pose, expression and identity, from explicit Jacobians."""

    axes: Float[Tensor, "3 points components"]  # the bases of expression and identity, one slice per axis

    @classmethod
    def of(cls, points: Points) -> "DirectStep":
        """Arrange the bases of a model's points."""
        basis = torch.cat([points.expression, points.identity])
        return cls(basis.T.unflatten(0, (-1, 3)).transpose(0, 1).contiguous())

    def __call__(
        self, problem: Problem, state: State, current: Residuals, damping: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the step of pose and expression for each image, and of identity for each subject."""
        local = 6 + len(problem.points.expression)
        jacobian = torch.cat([pose_jacobian(current.turned), self._shape_jacobian(state, current.point)], -1)
        jacobian = jacobian.flatten(1, 2)  # (N, 2 L, 6 + E + I)
        weighted = (current.weights.repeat(1, 2)[..., None] * jacobian).mT
        # The last column is the gradient. It is eliminated like all other columns.
        system = weighted @ torch.cat([jacobian, current.residual.mT.flatten(1)[..., None]], 2)
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

    def _shape_jacobian(
        self, state: State, point: Int[Tensor, "images landmarks"] | None
    ) -> Float[Tensor, "images 2 landmarks components"]:
        """Return the derivatives of the projected landmarks with respect to expression and identity."""
        axes = self.axes if point is None else self.axes[:, point].transpose(0, 1)  # (3, L, C) or (N, 3, L, C)
        view = state.scale[:, None, None] * state.rotation[:, :2]
        return (view @ axes.flatten(-2)).unflatten(2, axes.shape[-2:])
