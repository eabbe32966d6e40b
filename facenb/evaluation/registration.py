"""Align a mesh with a scan: find the rigid motion or similarity with the smallest squared scan-to-mesh distances.

If the surface moves, the distance of a point to it changes, to first order, only by the motion along the line to its
closest point. This gives exact derivatives of the distances for scipy's Levenberg-Marquardt method. On smooth skin the
method equals point-to-plane ICP (Chen and Medioni 1992). We move the points of the scan and not the mesh, so that the
mesh's search tree can be reused. Distances are converted back to the scan's unit. In the mesh's unit, enlarging the
mesh would always help, since the scan would shrink to a point on its surface.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import least_squares
from torch import Tensor

from facenb.evaluation.scan import ScanToMesh
from facenb.morphable.alignment import Similarity
from facenb.morphable.model import axis_angle_to_matrix

FEW = 2000, 15  # the first steps use only some points: at least 2000, or one in 15
# Stop when the relative decrease of the cost, or the relative length of the step, is below this.
ENOUGH = 1e-7
MOST = 100  # most searches for the closest points; about twelve are usual


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
    middle = points.mean(0)
    radius = float((points - middle).norm(dim=1).max())
    few = max(FEW[0], len(points) // FEW[1])
    if len(points) > 2 * few:
        chosen = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))[:few]
        start = _Distances(points[chosen], surface, start, scale, middle, radius).minimised().similarity
    return _Distances(points, surface, start, scale, middle, radius).minimised()


def _look(points: Tensor, surface: ScanToMesh, placement: Similarity) -> tuple[Tensor, Tensor, Tensor]:
    """Return each point's distance to the moved surface, the unit vector from there to the point, and the closest."""
    scale, rotation, shift = placement.scale[0], placement.rotation[0], placement.shift[0]
    distances, closest, triangle = surface.closest(((points - shift) @ rotation) / scale)
    distances, closest = distances * scale, scale * closest @ rotation.T + shift
    apart = points - closest
    # For a point on the surface the direction is the normal. Its sign does not matter, since the distance is zero.
    on_surface = distances <= 1e-9 * (1 + apart.abs().max())
    direction = apart / torch.where(on_surface, 1.0, distances)[:, None]
    direction[on_surface] = surface.normals()[triangle[on_surface]] @ rotation.T
    return distances, direction, closest


class _Distances:
    """The distances as a function of a step: rotation about the points' centre, shift and scaling, in radii."""

    def __init__(
        self, points: Tensor, surface: ScanToMesh, start: Similarity, scale: bool, middle: Tensor, radius: float
    ):
        self.points, self.surface, self.start = points, surface, start
        self.middle, self.radius, self.unknowns = middle, radius, 7 if scale else 6
        self.last = None  # scipy asks for values and derivatives separately, at the same step

    def moved(self, step: np.ndarray) -> Similarity:
        """Return the start after a step: rotated and scaled about the points' centre, then shifted."""
        turn = axis_angle_to_matrix(torch.from_numpy(step[:3]))
        growth = float(np.exp(step[6])) if len(step) > 6 else 1.0
        scale, rotation, shift = (part[0].double() for part in self.start)
        shift = self.middle + growth * turn @ (shift - self.middle) + torch.from_numpy(step[3:6]) * self.radius
        return Similarity((scale * growth)[None], (turn @ rotation)[None], shift[None])

    def look(self, step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the distances in radii and their derivatives with respect to a step, exact for small rotations."""
        if self.last is None or not np.array_equal(self.last[0], step):
            placement = self.moved(step)
            distances, direction, closest = _look(self.points, self.surface, placement)
            arm = (closest - self.middle) / self.radius
            turned = arm - torch.from_numpy(step[3:6])
            columns = [torch.linalg.cross(turned, direction), direction, (turned * direction).sum(1, keepdim=True)]
            jacobian = -torch.cat(columns, 1)[:, : self.unknowns]
            self.last = step.copy(), distances.numpy() / self.radius, jacobian.numpy()
        return self.last[1:]

    def minimised(self) -> Registration:
        """Return the registration that minimises the squared distances near the start."""
        result = least_squares(
            lambda step: self.look(step)[0],
            np.zeros(self.unknowns),
            lambda step: self.look(step)[1],
            method="lm" if len(self.points) >= self.unknowns else "trf",
            ftol=ENOUGH,
            xtol=ENOUGH,
            max_nfev=MOST,
        )
        return Registration(self.moved(result.x), torch.from_numpy(result.fun * self.radius))
