"""The fitting problem in the solver's form: model points, observations (mm, y up), parameters and the objective."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from facenb.errors import LandmarkError
from facenb.fitting.errors import upright
from facenb.morphable.contour import JAW
from facenb.morphable.model import Embedding, MorphableModel, Tensors

LEAST = 4  # fewest landmarks that determine a weak perspective camera
CONTOURS = ("fixed", "sliding")
# For sliding contour landmarks, residuals above this value count linearly (Huber). It is 2 standard deviations of the
# noise that the prior assumes. A landmark with a larger residual is probably not on the outline, and must not distort
# the face.
OUTLIER = 4.0  # mm


@dataclass(frozen=True)
class Points(Tensors):
    """The model points that can match a landmark: first the landmarks themselves, then the vertices of contour lines.

    With a fixed contour there are no contour lines, and point j is landmark j.
    """

    mean: Float[Tensor, "points 3"]  # mm
    identity: Float[Tensor, "identity coordinates"]  # coordinates = 3 points, mm per standard deviation
    expression: Float[Tensor, "expression coordinates"]
    landmarks: int
    candidates: int  # number of points on a contour line; 0 with a fixed contour
    outward: Float[Tensor, "17 2"] | None = None  # unit vectors (x, y) from the centre of the face to the jaw landmarks

    @classmethod
    def of(cls, model: MorphableModel, embedding: Embedding | None, contour: str) -> "Points":
        """Gather the model's points. Raise ValueError if `contour` is unknown, or "sliding" without contour lines."""
        if contour not in CONTOURS:
            raise ValueError(f"contour is {contour!r}; it must be one of {', '.join(CONTOURS)}")
        chosen = (model.landmarks if embedding is None else embedding).to(model.device)
        count, candidates, outward = len(chosen), 0, None
        if contour == "sliding":
            if embedding is not None or model.contour is None or count != 68:
                raise ValueError(
                    f"contour='sliding' needs the model's own 68 landmarks and its contour lines, but {model.name} has "
                    f"{'no' if model.contour is None else '17'} lines and {count} landmarks are fitted; pass 'fixed'"
                )
            candidates = model.contour.shape[1]
            jaw = chosen.of(model.mean)[:, :2]
            outward = normalize(jaw[:JAW] - jaw[JAW:].mean(0), dim=1)
            lines = Embedding.at(model.contour.flatten().cpu()).to(model.device)
            chosen = Embedding(torch.cat([chosen.vertices, lines.vertices]), torch.cat([chosen.weights, lines.weights]))
        identity, expression = (chosen.of(basis).flatten(1) for basis in (model.identity_basis, model.expression_basis))
        return cls(chosen.of(model.mean), identity, expression, count, candidates, outward)

    def on_outline(
        self, positions: Float[Tensor, "images points 3"], rotation: Float[Tensor, "images 3 3"]
    ) -> Int[Tensor, "images landmarks"]:
        """Return the model point for each landmark: a point of the outline on the far side, else the landmark itself.

        `positions` are on camera axes. A jaw landmark is on the far side if the direction to it from the centre of the
        face points away from the viewer. There an annotator marks the outline. So we rotate this direction by the
        head's roll, and take the point of the contour line that lies farthest out along it (Zhu et al. 2015). The point
        nearest to the observed landmark would fit better. But then a face that is too wide could match landmarks inside
        its outline, and nothing would make the face narrower.
        """
        turned_away = rotation[:, 2, :2] @ self.outward.T < 0  # (N, 17)
        direction = self.outward @ upright(rotation)[:, :2, :2]  # (N, 17, 2)
        lines = positions[:, self.landmarks :, :2].unflatten(1, (JAW, self.candidates))
        farthest = (lines * direction[:, :, None]).sum(-1).argmax(2)  # (N, 17)
        jaw = torch.arange(JAW, device=positions.device)
        point = torch.arange(self.landmarks, device=positions.device).repeat(len(positions), 1)
        point[:, :JAW] = torch.where(turned_away, self.landmarks + jaw * self.candidates + farthest, jaw)
        return point


class State(NamedTuple):
    """The fitted parameters. The camera works in mm with y up: q = scale (rotation x)[:2] + shift."""

    rotation: Float[Tensor, "images 3 3"]
    scale: Float[Tensor, " images"]
    shift: Float[Tensor, "images 2"]
    expression: Float[Tensor, "images expression"]
    identity: Float[Tensor, "subjects identity"]


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
    identity_prior: float  # mm^2; with `root`, without unit
    expression_prior: float | Float[Tensor, " expression"]
    root: Float[Tensor, "images coordinates coordinates"] | None = None  # whitens residuals (all x, then all y)

    def whiten(
        self, values: Float[Tensor, "images coordinates columns"]
    ) -> Float[Tensor, "images coordinates columns"]:
        """Return values with covariance 1 if those given have the points' covariance."""
        return values if self.root is None else self.root @ values

    def gather(self, values: Float[Tensor, "images ..."]) -> Float[Tensor, "subjects ..."]:
        """Sum the rows of each subject's images."""
        return values.new_zeros(self.subjects, *values.shape[1:]).index_add_(0, self.subject, values)


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
    if problem.root is not None:
        cost = problem.whiten(residual.mT.flatten(1)[..., None]).double().square().sum((1, 2))
    cost = cost + (problem.expression_prior * state.expression.double().square()).sum(1)
    prior = problem.identity_prior * state.identity.double().square().sum(1)
    return Residuals(point, turned, residual, weights, prior + problem.gather(cost))


def check(
    points: Points, landmarks: Tensor, subject: Tensor | None, weights: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return landmarks (0 if ignored), weights, and each image's row of the identity table.

    Raise LandmarkError with the number of the first image that cannot be fitted, and the reason.
    """
    if landmarks.shape[1:] != (points.landmarks, 2):
        raise LandmarkError(
            f"landmarks have shape {tuple(landmarks.shape)}, but the model's embedding needs "
            f"(images, {points.landmarks}, 2): (u, v) in pixels of {points.landmarks} points"
        )
    count = len(landmarks)
    if count == 0:
        raise LandmarkError("there are no images: landmarks have length 0; pass at least one image")
    weights = torch.ones_like(landmarks[..., 0]) if weights is None else weights.to(landmarks)
    _refuse(~(weights.isfinite() & (weights >= 0)).all(1), "a weight that is negative or not finite; use weights >= 0")
    seen = weights > 0
    broken = (seen & ~landmarks.isfinite().all(-1)).any(1)
    _refuse(broken, "a landmark that is not finite; set its weight to 0 or leave the image out")
    landmarks = torch.where(seen[..., None], landmarks, torch.zeros_like(landmarks))
    _refuse(seen.sum(1) < LEAST, f"fewer than {LEAST} landmarks with weight, too few to find a camera; leave it out")
    _refuse(_flat(landmarks, seen), "landmarks that are all equal or on one line; leave it out")
    subject = torch.arange(count) if subject is None else subject
    if subject.shape != (count,):
        raise LandmarkError(f"subject has shape {tuple(subject.shape)}, but there are {count} images; pass one each")
    return landmarks, weights, torch.unique(subject.to(landmarks.device), return_inverse=True)[1]


def _flat(landmarks: Tensor, seen: Tensor) -> Tensor:
    """Return whether the used landmarks of an image lie on a line: their width is below 1/1000 of their length."""
    share = seen.double()[..., None] / seen.sum(1).clamp(min=1)[:, None, None]
    centred = landmarks.double() - (share * landmarks).sum(1, keepdim=True)
    spread = (share * centred).mT @ centred  # (N, 2, 2)
    both = spread.diagonal(dim1=1, dim2=2).sum(1)
    size = landmarks.abs().amax((1, 2)).double().clamp(min=1e-30)
    return (torch.linalg.det(spread) <= 1e-6 * both.square()) | (both <= 1e-12 * size.square())


def _refuse(bad: Tensor, reason: str) -> None:
    if bad.any():
        others = int(bad.sum()) - 1
        number = f"image {int(bad.nonzero()[0])}" + (f" (and {others} more)" if others else "")
        raise LandmarkError(f"{number} has {reason}")
