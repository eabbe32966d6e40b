"""Fit a mesh or a morphable model to a scan: minimise the squared distances from the scan's points to the surface.

If the surface moves, the distance of a point to it changes, to first order, only by the motion along the line to its
closest point. This gives exact derivatives of the distances for scipy's least squares. On smooth skin the method equals
point-to-plane ICP (Chen and Medioni 1992). We move the points of the scan and not the mesh, so that the mesh's search
tree can be reused. Distances are converted back to the scan's unit. In the mesh's unit, a larger mesh would always fit
better, since the scan would shrink to a point on its surface.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import igl
import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import OptimizeResult, least_squares
from torch import Tensor

from facenb.evaluation.scan import ScanToMesh
from facenb.evaluation.shape import check_millimetres
from facenb.morphable.alignment import Similarity, similarity
from facenb.morphable.model import MorphableModel, axis_angle_to_matrix

FEW = 2000, 15  # the first steps of `icp` use only this many points: 2000, or one in 15 if that is more
MOST = 6000  # most points in `fit_surface`; more would take longer and not determine 200 coefficients better
SEARCHES = 100  # most searches for the closest points; about twelve are usual for `icp`, and twenty for `fit_surface`
INNER = slice(17, 68)  # of the 68: brows, nose, eyes, mouth; sources define the jaw line of a scan differently
ROBUST = 3.0  # mm: larger distances count linearly (a smooth Huber loss), so that hair and scan artefacts matter less
PRIOR = 1.0  # mm: a coefficient of 1 costs as much as this distance of one point, a very weak prior


@dataclass(frozen=True)
class Registration:
    """A mesh aligned with points."""

    similarity: Similarity  # from the mesh to the points (a batch of one)
    distances: Float[Tensor, " points"]  # from each point to the moved surface, in the points' unit


def icp(points: Float[Tensor, "points 3"], surface: ScanToMesh, start: Similarity, scale: bool = False) -> Registration:
    """Return the alignment of a mesh with a scan's points, starting from `start` (a batch of one).

    `scale` allows the size to change. With it, this is the refinement of the NoW challenge; without it, the refinement
    of the metrical variant (Sanyal et al. 2019). The result is a local optimum. It is never a reflection and never
    worse than the start. A motion that the points do not determine, for instance with collinear points, stays zero.
    """
    points = points.detach().double().cpu()
    few = max(FEW[0], len(points) // FEW[1])
    chosen = [points]
    if len(points) > 2 * few:
        chosen.insert(0, _some(points, few))
    for some in chosen:
        problem = _Distances(some, start, scale, lambda _: surface)
        method = "lm" if len(some) >= problem.motion else "trf"
        result = problem.minimised(method=method, ftol=1e-7, xtol=1e-7)
        start = problem.placed(result.x)
    return Registration(start, torch.from_numpy(result.fun))


def fit_surface(
    model: MorphableModel,
    points: Float[Tensor, "points 3"],
    landmarks: Float[Tensor, "68 3"],
    scale: bool = True,
    neutral: bool = False,
) -> Float[Tensor, "vertices 3"]:
    """Return the shape in the model's span that is nearest to a scan's points (mm), aligned with the scan.

    It starts from the mean face, aligned by the scan's 68 landmarks. Pass only the `points` that are used for the
    error, after the crop. `scale` allows the size to change, and `neutral` leaves out the expressions. The result is a
    local optimum of robust squared distances. Raise ValueError if the points are not in mm.
    """
    check_millimetres("the scan", points)
    if len(points) > MOST:
        points = _some(points, MOST)
    basis = model.identity_basis if neutral else torch.cat([model.identity_basis, model.expression_basis])
    basis = basis.permute(1, 2, 0).contiguous()  # (V, 3, C): the values of a vertex are contiguous
    start = similarity(model.landmarks.of(model.mean)[None, INNER], landmarks[None, INNER], scale)

    def surface(coefficients: np.ndarray) -> ScanToMesh:
        return ScanToMesh(model.mean + basis @ torch.from_numpy(coefficients).float(), model.triangles)

    problem = _Distances(points.double(), start, scale, surface, basis)
    unknowns = problem.minimised(loss="soft_l1", f_scale=ROBUST, x_scale="jac", ftol=1e-4, xtol=1e-4).x
    vertices = torch.from_numpy(surface(unknowns[problem.motion :]).vertices).to(model.mean)
    return problem.placed(unknowns).apply(vertices[None])[0]


def _some(points: Tensor, count: int) -> Tensor:
    """Return at most `count` of the points, at random but always the same."""
    return points[torch.randperm(len(points), generator=torch.Generator().manual_seed(0))[:count]]


class _Distances:
    """The distances as a function of the unknowns: rotation about the points' centre, shift, scaling, coefficients."""

    def __init__(
        self,
        points: Float[Tensor, "points 3"],
        start: Similarity,
        scale: bool,
        surface: Callable[[np.ndarray], ScanToMesh],
        basis: Float[Tensor, "vertices 3 coefficients"] | None = None,
    ):
        """`surface` makes a mesh from coefficients; `basis` is its vertices' derivative (None: no coefficients)."""
        self.points, self.start, self.surface, self.basis = points, start, surface, basis
        self.middle = points.mean(0)
        self.radius = float((points - self.middle).norm(dim=1).max())  # unit of the shift
        self.motion, self.coefficients = 7 if scale else 6, 0 if basis is None else basis.shape[2]
        self.last = None  # scipy asks for values and derivatives separately, at the same unknowns

    def placed(self, unknowns: np.ndarray) -> Similarity:
        """Return the start after a motion: rotated and scaled about the points' centre, then shifted."""
        step = torch.from_numpy(unknowns[: self.motion])
        turn, growth = axis_angle_to_matrix(step[:3]), step[6:].sum().exp()  # without scaling the sum is zero
        scale, rotation, shift = (part[0].double() for part in self.start)
        shift = self.middle + growth * turn @ (shift - self.middle) + step[3:6] * self.radius
        return Similarity((scale * growth)[None], (turn @ rotation)[None], shift[None])

    def look(self, unknowns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the residuals (distances, then the prior) and their derivatives, exact for small rotations."""
        if self.last is not None and np.array_equal(self.last[0], unknowns):
            return self.last[1:]
        surface = self.surface(unknowns[self.motion :])
        scale, rotation, shift = (part[0] for part in self.placed(unknowns))
        distances, closest, triangle = surface.closest(((self.points - shift) @ rotation) / scale)
        distances, on_scan = distances * scale, scale * closest @ rotation.T + shift
        apart = self.points - on_scan
        # For a point on the surface the direction is the normal. Its sign does not matter, since the distance is zero.
        on_surface = distances <= 1e-9 * (1 + apart.abs().max())
        direction = apart / torch.where(on_surface, 1.0, distances)[:, None]
        direction[on_surface] = surface.normals()[triangle[on_surface]] @ rotation.T
        arm = (on_scan - self.middle) / self.radius - torch.from_numpy(unknowns[3:6])
        columns = [torch.linalg.cross(arm, direction), direction, (arm * direction).sum(1, keepdim=True)]
        columns = [self.radius * torch.cat(columns, 1)[:, : self.motion]]
        if self.coefficients:
            corners = surface.triangles[triangle.numpy()]  # (P, 3)
            places = (np.ascontiguousarray(surface.vertices[corners[:, k]]) for k in range(3))
            weights = igl.barycentric_coordinates(closest.contiguous().numpy(), *places)
            weights[~np.isfinite(weights).all(1)] = 1.0, 0.0, 0.0  # a triangle without area counts as its first corner
            along = (torch.from_numpy(weights)[:, :, None] * (scale * direction @ rotation)[:, None]).float()
            columns.append(torch.einsum("pkd,pkdc->pc", along, self.basis[corners]).double())
        prior = PRIOR * np.eye(self.coefficients, self.motion + self.coefficients, self.motion)
        values = np.concatenate([distances.numpy(), PRIOR * unknowns[self.motion :]])
        self.last = unknowns.copy(), values, np.concatenate([-torch.cat(columns, 1).numpy(), prior])
        return self.last[1:]

    def minimised(self, **options: Any) -> OptimizeResult:
        """Return scipy's result for the unknowns that minimise the squared values near the start."""
        zero = np.zeros(self.motion + self.coefficients)
        return least_squares(lambda x: self.look(x)[0], zero, lambda x: self.look(x)[1], max_nfev=SEARCHES, **options)
