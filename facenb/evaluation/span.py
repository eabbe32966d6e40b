"""The best that a model's span can do for a scan: the shape whose surface lies nearest to the scan's points.

A scan has other vertices than the model, so what belongs together is not known. It is found as ICP does: each point's
closest place on the surface is held for a step, its distance along the surface's normal is linear in coefficients,
turn, shift and size, and all are solved for together (point-to-plane, Chen and Medioni 1992, with the model's
coefficients among the unknowns). The prior that keeps the first steps sensible fades, so that the last have next to
none; a step that leads away is taken back and made shorter. This finds a shape near the start, not provably the
nearest of all.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from facenb.evaluation.scan import ScanToMesh
from facenb.evaluation.shape import check_millimetres
from facenb.morphable.alignment import Similarity, similarity
from facenb.morphable.model import MorphableModel, axis_angle_to_matrix

INNER = slice(17, 68)  # of the 68: brows, nose, eyes, mouth; the jaw line of a scan is a matter of opinion
ROUNDS = 16
PRIORS = (300.0, 1.0)  # mm^2: what a coefficient of 1 counts against the sum of squared distances, first and least
FADES = 0.6  # what a step that comes nearer makes of the prior
DAMPING = 1e-4, 10.0  # of the diagonal: the least, and what a step that leads away makes of it (Levenberg-Marquardt)
MOST = 6000  # points that are looked at: more would cost time, and tell no more about some 200 coefficients
ROBUST = 3.0  # mm: from here on a distance pulls no harder (Huber): hair and scanner's debris are no face
LENGTH = 50.0  # mm: brings turns to the size of shifts


@dataclass(frozen=True)
class SpanFit:
    """A shape of the model's span, laid onto a scan."""

    vertices: Float[Tensor, "vertices 3"]  # in the scan's place
    identity: Float[Tensor, " identity"]
    expression: Float[Tensor, " expression"]
    placement: Similarity  # from the model's axes to the scan's, a batch of one
    distances: tuple[
        float, ...
    ]  # mm: mean distance of the scan's points to the surface, at the start and at each step tried

    @property
    def distance(self) -> float:
        """Mean distance of the points to this shape's surface, mm."""
        return min(self.distances)


def fit_surface(
    model: MorphableModel,
    points: Float[Tensor, "points 3"],
    landmarks: Float[Tensor, "68 3"],
    scale: bool = True,
    neutral: bool = False,
    rounds: int = ROUNDS,
    prior: float | int = PRIORS[1],
    most: int = MOST,
    seed: int = 0,
) -> SpanFit:
    """The shape of the model's span nearest to a scan's points (mm), started from the scan's 68 landmarks.

    `points` should be those that are to be scored, cropped already. `scale` leaves the size free, `neutral` leaves the
    expressions out. Of all rounds the one with the smallest mean distance is given, so the result is never further away
    than the mean face where the landmarks put it. Of more than `most` points, so many are drawn (`seed`). Raises
    ValueError for no points, or some that are not finite or not in mm; LandmarkError for landmarks that are not finite
    or all alike.
    """
    if not len(points) or not points.isfinite().all():
        raise ValueError(f"{len(points)} points to fit to, or some that are not finite; crop the scan, and clean it")
    check_millimetres("the scan", points)
    if rounds < 0 or prior < 0:
        raise ValueError(f"rounds {rounds} and prior {prior} must not be negative")
    if len(points) > most:
        points = points[torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))[:most]]
    aim = points.double()
    basis = model.identity_basis if neutral else torch.cat([model.identity_basis, model.expression_basis])
    rows = basis.permute(1, 2, 0).contiguous()  # (V, 3, C): a vertex's displacements lie together
    coefficients = torch.zeros(len(basis), dtype=torch.float64)
    mean = model.mean
    marks, own_marks = landmarks[None, INNER], model.landmarks.of(mean)[None, INNER]
    similarity(marks, own_marks)  # raises for landmarks that tell no place
    place = similarity(own_marks, marks, scale)
    best: tuple | None = None
    history: list[float] = []
    strength, damping = PRIORS[0], DAMPING[0]
    for done in range(rounds + 1):
        shape = mean + (rows @ coefficients.float()) if len(basis) else mean
        own = _back(place, aim)  # the points on the model's axes
        size = float(place.scale)
        surface = ScanToMesh(shape, model.triangles)
        distances, closest, triangle = surface.closest(own.float())
        history.append(float(distances.mean()) * size)
        if history[-1] <= min(history):
            best = place, coefficients, shape, (own, closest, triangle)
            strength, damping = max(float(prior), 1e-6, strength * FADES), max(damping / DAMPING[1], DAMPING[0])
        else:
            damping *= DAMPING[1]
        if done < rounds:
            place, coefficients = _step(rows, model.triangles, *best, strength, damping, scale)
    place, coefficients, shape, _ = best
    count = len(model.identity_basis)
    values = coefficients.to(mean.dtype)
    expression = values.new_zeros(len(model.expression_basis)) if neutral else values[count:]
    return SpanFit(place.apply(shape[None])[0], values[:count], expression, place, tuple(history))


def _back(place: Similarity, points: Tensor) -> Tensor:
    """Points of the scan on the model's axes: the inverse of a similarity, in float64."""
    return ((points - place.shift[0]) @ place.rotation[0]) / place.scale[0]


def _step(rows, triangles, place, coefficients, shape, found, strength, damping, scale) -> tuple[Similarity, Tensor]:
    """One Gauss-Newton step on the distances along the normals at the closest places."""
    own, closest, triangle = found
    corners = triangles[triangle]  # (P, 3)
    a, b, c = shape[corners].double().unbind(1)
    normal = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=1)
    weight = _barycentric(closest.double(), a, b, c)
    residual = ((own - closest.double()) * normal).sum(1)
    along = (weight[:, :, None] * normal[:, None]).float()  # (P, 3 corners, 3)
    displaced = torch.einsum("pkd,pkdc->pc", along, rows[corners]).double()  # each coefficient's push along the normal
    # own' = growth * turn own + shift on the model's axes, to first order; the placement takes its inverse.
    turned = torch.linalg.cross(own, normal) / LENGTH
    columns = [displaced, -turned, -normal]
    if scale:
        columns.append(-(own * normal).sum(1, keepdim=True) / LENGTH)
    design = torch.cat(columns, 1)
    pull = (ROBUST / residual.abs().clamp(min=1e-9)).clamp(max=1.0)[:, None]
    count = len(coefficients)
    normal_matrix = design.T @ (pull * design)
    right = design.T @ (pull[:, 0] * residual)
    diagonal = normal_matrix.diagonal()
    hold = damping * (diagonal + 1e-6 * diagonal.mean()) + 1e-12
    hold[:count] += strength
    right[:count] -= strength * coefficients
    step = torch.linalg.solve(normal_matrix + hold.diag(), right)
    turn, shift = step[count : count + 3] / LENGTH, step[count + 3 : count + 6]
    growth = torch.exp(step[count + 6] / LENGTH) if scale else torch.ones((), dtype=torch.float64)
    rotation = place.rotation[0] @ axis_angle_to_matrix(turn).T
    size = place.scale[0] / growth
    moved = place.shift[0] - size * rotation @ shift
    return Similarity(size[None], rotation[None], moved[None]), coefficients + step[:count]


def _barycentric(point: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Float[Tensor, "points 3"]:
    """Barycentrics of points in their triangles' planes; a triangle without area counts as its first corner."""
    u, v, w = b - a, c - a, point - a
    uu, uv, vv, wu, wv = ((x * y).sum(1) for x, y in ((u, u), (u, v), (v, v), (w, u), (w, v)))
    area = uu * vv - uv * uv
    flat = area <= 1e-12 * uu * vv
    area = torch.where(flat, 1.0, area)
    second, third = (vv * wu - uv * wv) / area, (uu * wv - uv * wu) / area
    second, third = torch.where(flat, 0.0, second), torch.where(flat, 0.0, third)
    return torch.stack([1 - second - third, second, third], 1)
