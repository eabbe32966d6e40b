"""The smallest error that a model's span can reach on a scan: fit the model's surface to the scan's points.

The vertices of scan and model do not correspond, so we find correspondences as in ICP. In each step the closest surface
point of each scan point is fixed. The distance along the surface normal is then linear in the coefficients, rotation,
shift and size, and we solve for all of them together (point-to-plane, Chen and Medioni 1992). A prior stabilises the
first steps and becomes weaker until it hardly matters. A step that increases the distance is dropped, and the next one
is shorter. The result is a local optimum.
"""

from dataclasses import dataclass

import igl
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facenb.evaluation.scan import ScanToMesh
from facenb.evaluation.shape import check_millimetres
from facenb.morphable.alignment import Similarity, similarity
from facenb.morphable.model import MorphableModel, axis_angle_to_matrix

INNER = slice(17, 68)  # of the 68: brows, nose, eyes, mouth; sources define the jaw line of a scan differently
ROUNDS = 16
PRIORS = (300.0, 1.0)  # mm^2: weight of the squared coefficients, in the first step and at least
FADES = 0.6  # factor on the prior after a step that lowers the distance
DAMPING = 1e-4, 10.0  # relative to the diagonal: the smallest, and the factor after a step that increases the distance
MOST = 6000  # most points used; more would take longer and not determine 200 coefficients better
ROBUST = 3.0  # mm: larger distances count linearly (Huber), so that hair and scan artefacts matter less
LENGTH = 50.0  # mm: scales rotations to the size of shifts


@dataclass(frozen=True)
class SpanFit:
    """A shape in the model's span, aligned with a scan."""

    vertices: Float[Tensor, "vertices 3"]  # on the scan's axes
    identity: Float[Tensor, " identity"]
    expression: Float[Tensor, " expression"]
    placement: Similarity  # from the model's axes to the scan's, a batch of one
    distances: tuple[float, ...]  # mm: mean distance of the points to the surface, at the start and after each step

    @property
    def distance(self) -> float:
        """The mean distance from the points to the surface of this shape, mm."""
        return min(self.distances)


@dataclass(frozen=True)
class _Shape:
    """A shape with its placement, and the surface point closest to each scan point, on the model's axes."""

    placement: Similarity
    coefficients: Float[Tensor, " components"]
    vertices: Float[Tensor, "vertices 3"]
    points: Float[Tensor, "points 3"]
    closest: Float[Tensor, "points 3"]
    triangle: Tensor
    distance: float  # mean, in the scan's unit

    @classmethod
    def of(
        cls, model: MorphableModel, rows: Tensor, target: Tensor, placement: Similarity, coefficients: Tensor
    ) -> "_Shape":
        """Compute the shape, and find the closest point for each scan point."""
        vertices = model.mean + (rows @ coefficients.float()) if len(coefficients) else model.mean
        points = ((target - placement.shift[0]) @ placement.rotation[0]) / placement.scale[0]
        distances, closest, triangle = ScanToMesh(vertices, model.triangles).closest(points.float())
        distance = float(distances.mean() * placement.scale)
        return cls(placement, coefficients, vertices, points, closest, triangle, distance)


def fit_surface(
    model: MorphableModel,
    points: Float[Tensor, "points 3"],
    landmarks: Float[Tensor, "68 3"],
    scale: bool = True,
    neutral: bool = False,
) -> SpanFit:
    """Return the shape in the model's span nearest to a scan's points (mm), starting from the scan's 68 landmarks.

    Pass only the `points` that are used for the error, after the crop. `scale` allows the size to change, and `neutral`
    leaves out the expressions. The result is the step with the smallest mean distance. So it is never farther away than
    the start, the mean face aligned by landmarks. Raise ValueError if the points are not in mm.
    """
    check_millimetres("the scan", points)
    if len(points) > MOST:
        points = points[torch.randperm(len(points), generator=torch.Generator().manual_seed(0))[:MOST]]
    target = points.double()
    basis = model.identity_basis if neutral else torch.cat([model.identity_basis, model.expression_basis])
    rows = basis.permute(1, 2, 0).contiguous()  # (V, 3, C): the values of a vertex are contiguous
    placement = similarity(model.landmarks.of(model.mean)[None, INNER], landmarks[None, INNER], scale)
    best = _Shape.of(model, rows, target, placement, torch.zeros(len(basis), dtype=torch.float64))
    history = [best.distance]
    strength, damping = PRIORS[0] * FADES, DAMPING[0]
    for _ in range(ROUNDS):
        trial = _Shape.of(model, rows, target, *_step(best, rows, model.triangles, strength, damping, scale))
        history.append(trial.distance)
        if trial.distance <= best.distance:
            best = trial
            strength, damping = max(PRIORS[1], strength * FADES), max(damping / DAMPING[1], DAMPING[0])
        else:
            damping *= DAMPING[1]
    count = len(model.identity_basis)
    values = best.coefficients.to(model.mean.dtype)
    expression = values.new_zeros(len(model.expression_basis)) if neutral else values[count:]
    vertices = best.placement.apply(best.vertices[None])[0]
    return SpanFit(vertices, values[:count], expression, best.placement, tuple(history))


def _step(
    current: _Shape, rows: Tensor, triangles: Tensor, strength: float, damping: float, scale: bool
) -> tuple[Similarity, Tensor]:
    """Return placement and coefficients after a Gauss-Newton step that reduces the distances along the normals."""
    corners = triangles[current.triangle]  # (P, 3)
    a, b, c = current.vertices[corners].double().unbind(1)
    normal = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=1)
    weights = igl.barycentric_coordinates(*(x.numpy() for x in (current.closest.contiguous(), a, b, c)))
    weights[~np.isfinite(weights).all(1)] = 1.0, 0.0, 0.0  # a triangle without area counts as its first corner
    residual = ((current.points - current.closest) * normal).sum(1)
    along = (torch.from_numpy(weights)[:, :, None] * normal[:, None]).float()  # (P, 3 corners, 3)
    displaced = torch.einsum("pkd,pkdc->pc", along, rows[corners]).double()  # mm along the normal per coefficient
    # To first order, the points move by a similarity on the model's axes. The placement changes by its inverse.
    columns = [displaced, -torch.linalg.cross(current.points, normal) / LENGTH, -normal]
    if scale:
        columns.append(-(current.points * normal).sum(1, keepdim=True) / LENGTH)
    design = torch.cat(columns, 1)
    pull = (ROBUST / residual.abs().clamp(min=1e-9)).clamp(max=1.0)[:, None]
    count = len(current.coefficients)
    system = design.T @ (pull * design)
    right = design.T @ (pull[:, 0] * residual)
    diagonal = system.diagonal()
    hold = damping * (diagonal + 1e-6 * diagonal.mean()) + 1e-12
    hold[:count] += strength
    right[:count] -= strength * current.coefficients
    step = torch.linalg.solve(system + hold.diag(), right)
    turn, shift = step[count : count + 3] / LENGTH, step[count + 3 : count + 6]
    growth = torch.exp(step[count + 6] / LENGTH) if scale else torch.ones((), dtype=torch.float64)
    placement = current.placement
    rotation = placement.rotation[0] @ axis_angle_to_matrix(turn).T
    size = placement.scale[0] / growth
    moved = placement.shift[0] - size * rotation @ shift
    return Similarity(size[None], rotation[None], moved[None]), current.coefficients + step[:count]
