"""Lay a mesh onto a scan: the rigid motion, or similarity, of least squared scan-to-mesh distance.

The distance of a point to a surface changes with the surface's motion along the line to its closest point and, to first
order, not otherwise. That gives the exact derivatives of the distances, and scipy's Levenberg-Marquardt does the rest;
on smooth skin this is point-to-plane ICP (Chen and Medioni 1992). The tree of the mesh stays as it is: the points of
the scan are moved to it and the distances back, in the scan's unit. Minimised in the mesh's unit, a huge mesh would
win, since points shrunk to nothing are near any surface.
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

FEW = 2000, 15  # points that find most of the way before all take the last steps: so many, or one in so many
# Ends when a step lowers the cost, or is long against all steps before, by less than this share.
ENOUGH = 1e-7
MOST = 100  # looks for the closest points; a dozen is usual


@dataclass(frozen=True)
class Registration:
    """A mesh laid onto points."""

    similarity: Similarity  # of the mesh, from its own position to the points' (a batch of one)
    distances: Float[Tensor, " points"]  # of all points to the moved surface, in the points' unit


def icp(points: Float[Tensor, "points 3"], surface: ScanToMesh, start: Similarity, scale: bool = False) -> Registration:
    """Lay a mesh onto a scan's points, from `start` on (a batch of one); with its size free if `scale`.

    With `scale` this is the refinement of the NoW challenge, without it that of its metrical variant (Sanyal et al.
    2019). The result is the optimum near the start, never a reflection and never worse than the start. A motion that
    the points do not determine, as for collinear ones, is not made.
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
    """Return each point's distance to the moved surface, the unit direction to it from there, and the closest point."""
    scale, rotation, shift = placement.scale[0], placement.rotation[0], placement.shift[0]
    distances, closest, triangle = surface.closest(((points - shift) @ rotation) / scale)
    distances, closest = distances * scale, scale * closest @ rotation.T + shift
    apart = points - closest
    # On the surface itself the direction is the normal's; the distance there is zero whatever its sign.
    on_surface = distances <= 1e-9 * (1 + apart.abs().max())
    direction = apart / torch.where(on_surface, 1.0, distances)[:, None]
    direction[on_surface] = surface.normals()[triangle[on_surface]] @ rotation.T
    return distances, direction, closest


class _Distances:
    """The distances as a function of a step: a turn about the points' middle, a shift, and a growth, all in radii."""

    def __init__(
        self, points: Tensor, surface: ScanToMesh, start: Similarity, scale: bool, middle: Tensor, radius: float
    ):
        self.points, self.surface, self.start = points, surface, start
        self.middle, self.radius, self.unknowns = middle, radius, 7 if scale else 6
        self.last = None  # scipy asks for values and derivatives apart, at the same step

    def moved(self, step: np.ndarray) -> Similarity:
        """Return the start, turned and grown about the points' middle, then shifted."""
        turn = axis_angle_to_matrix(torch.from_numpy(step[:3]))
        growth = float(np.exp(step[6])) if len(step) > 6 else 1.0
        scale, rotation, shift = (part[0].double() for part in self.start)
        shift = self.middle + growth * turn @ (shift - self.middle) + torch.from_numpy(step[3:6]) * self.radius
        return Similarity((scale * growth)[None], (turn @ rotation)[None], shift[None])

    def look(self, step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the distances in radii and their derivatives by a step, exact for a small turn."""
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
        """Return the registration of least squared distances near the start."""
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
