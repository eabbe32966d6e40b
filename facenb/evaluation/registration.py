"""A mesh laid onto a scan: the rigid motion, and where wanted the size, of least squared scan-to-mesh distance.

The distance of a point to a surface changes with the surface's motion along the line to the closest place and, to
first order, not otherwise. So the places are held, a least squares step in six or seven unknowns is taken
(Levenberg-Marquardt; on smooth skin this is point-to-plane ICP, Chen and Medioni 1992), and the closest places are
found anew. The tree of the mesh stays as it is: the scan's points are carried to it and the distances back, in the
scan's unit. Minimised in the mesh's unit, a huge mesh would win: points shrunk to nothing are near any surface.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from facenb.evaluation.scan import ScanToMesh
from facenb.morphable.alignment import Similarity
from facenb.morphable.model import axis_angle_to_matrix

ROUNDS = 60
STILL = 2e-5  # a step is none if it moves points by less than this, of the cloud's radius: 0.002 mm on a face
SOME = 2000, 15  # points that find most of the way before all take the last steps: so many, or one in so many
DAMPING = 1e-6  # of the diagonal, to begin with


@dataclass(frozen=True)
class Registration:
    """A mesh laid onto points."""

    similarity: Similarity  # of the mesh, from its place to the points' (a batch of one)
    distances: Float[Tensor, " points"]  # of all points to the moved surface, in the points' unit
    rounds: int  # steps taken
    converged: bool  # the last step was none


@dataclass
class _State:
    """Where the mesh lies, and what that means for the points."""

    place: Similarity
    distances: Tensor  # (P,) float64, in the points' unit
    direction: Tensor  # (P, 3) from the closest place to the point
    closest: Tensor  # (P, 3) in the points' place
    cost: float


def icp(
    points: Float[Tensor, "points 3"],
    surface: ScanToMesh,
    start: Similarity | None = None,
    scale: bool = False,
    trim: float | int = 0.0,
    rounds: int = ROUNDS,
) -> Registration:
    """Lay a mesh onto a scan's points, from `start` (the mesh's similarity) on: rigid ICP, with size where `scale`.

    Without a start only the middles are brought together. In each round the `trim` share of points that are farthest
    away is left out. The result is never a reflection and never worse than the start; where points leave a motion
    undetermined, as collinear ones do, the mesh is not moved that way. It is the optimum near the start, not of all.
    Raises ValueError for fewer than three points, points all alike or not finite, or a trim outside [0, 1).
    """
    if not 0 <= trim < 1:
        raise ValueError(f"trim {trim} is no share of points to leave out; give one from 0 up to, not including, 1")
    points = points.detach().double().cpu()
    if len(points) < 3 or not points.isfinite().all():
        raise ValueError(f"{len(points)} points, of which {int(points.isfinite().all(1).sum())} are finite: a mesh "
                         "needs three or more to be laid onto, all finite")  # fmt: skip
    middle = points.mean(0)
    radius = float((points - middle).norm(dim=1).max())
    if not radius > 1e-9 * max(1.0, float(points.abs().max())):
        raise ValueError("all points are alike; nothing tells how the mesh lies on them")
    place = _start(start, surface, middle)
    done = 0
    some = max(SOME[0], len(points) // SOME[1])
    if len(points) > 2 * some:
        few = points[torch.randperm(len(points), generator=torch.Generator().manual_seed(0))[:some]]
        state, done, _ = _descend(few, surface, place, scale, trim, rounds, middle, radius)
        place = state.place
    state, more, still = _descend(points, surface, place, scale, trim, rounds, middle, radius)
    return Registration(state.place, state.distances, done + more, still)


def refine(
    points: Float[Tensor, "points 3"], surface: ScanToMesh, start: Similarity, scale: bool = True
) -> Registration:
    """The refinement of NoW: scale, rotation and translation of least squared scan-to-mesh distance, from `start` on.

    `icp` with every point; the metrical variant is without `scale` (Sanyal et al. 2019, the challenge's evaluation).
    """
    return icp(points, surface, start, scale)


def _start(start: Similarity | None, surface: ScanToMesh, middle: Tensor) -> Similarity:
    if start is None:
        corners = torch.from_numpy(surface.vertices[surface.triangles].reshape(-1, 3))
        return Similarity(torch.ones(1).double(), torch.eye(3).double()[None], (middle - corners.mean(0))[None])
    if len(start.scale) != 1 or not all(part.isfinite().all() for part in start) or not float(start.scale) > 0:
        raise ValueError(f"the start must be one similarity, finite and of positive size, got {start}")
    return Similarity(*(part.double() for part in start))


def _look(points: Tensor, surface: ScanToMesh, place: Similarity, trim: float) -> _State:
    """Find the closest places anew; the cost is the mean square of the distances that count."""
    scale, rotation, shift = place.scale[0], place.rotation[0], place.shift[0]
    distances, closest, triangle = surface.closest(((points - shift) @ rotation) / scale)
    distances, closest = distances * scale, scale * closest @ rotation.T + shift
    along = points - closest
    # On the surface itself the direction is the normal's; the distance there is zero whatever its sign.
    flat = distances <= 1e-9 * (1 + along.abs().max())
    direction = torch.where(flat[:, None], 0.0, along) / torch.where(flat, 1.0, distances)[:, None]
    if flat.any():
        direction[flat] = surface.normals()[triangle[flat]] @ rotation.T
    cost = float(distances.square()[_counted(distances, trim)].mean())
    return _State(place, distances, direction, closest, cost)


def _counted(distances: Tensor, trim: float) -> Tensor:
    """Indices of the points that count: all but the `trim` share farthest away."""
    kept = max(3, len(distances) - int(trim * len(distances)))
    return distances.topk(min(kept, len(distances)), largest=False).indices if trim else torch.arange(len(distances))


def _descend(points, surface, place, scale, trim, rounds, middle, radius) -> tuple[_State, int, bool]:
    """Steps until one is none; also how many were taken, and whether the last was none."""
    state, damping = _look(points, surface, place, trim), DAMPING
    for done in range(rounds):
        step, moves = _step(state, _counted(state.distances, trim), scale, damping, middle, radius)
        if moves < STILL:
            return state, done, True
        tried = _look(points, surface, _moved(state.place, step, middle, radius), trim)
        if tried.cost < state.cost:
            state, damping = tried, max(damping / 10, 1e-12)
        elif damping > 1e3:  # no step helps: this is as low as it gets
            return state, done, True
        else:
            damping *= 100
    return state, rounds, False


def _step(
    state: _State, counted: Tensor, scale: bool, damping: float, middle: Tensor, radius: float
) -> tuple[Tensor, float]:
    """Turn, shift and growth that lower the distances most, and how far they move points, both in radii."""
    arm = (state.closest[counted] - middle) / radius
    along = state.direction[counted]
    columns = [torch.linalg.cross(arm, along), along]
    if scale:
        columns.append((arm * along).sum(1, keepdim=True))
    design = torch.cat(columns, 1)
    normal = design.T @ design
    # Damping of the mean besides each unknown's own: a motion that no distance tells of is not made.
    ridge = damping * (normal.diagonal() + normal.diagonal().mean())
    step = torch.linalg.solve(normal + ridge.diag(), design.T @ state.distances[counted]) / radius
    step = torch.cat([step, step.new_zeros(7 - len(step))])
    step = step / max(1.0, float(step.norm()) / 0.5)  # half a radius or radian at a time, at most
    return step, float(step[:3].norm() + step[3:6].norm() + step[6].abs())


def _moved(place: Similarity, step: Tensor, middle: Tensor, radius: float) -> Similarity:
    """The similarity after a step: turned and grown about the points' middle, then shifted."""
    turn, growth = axis_angle_to_matrix(step[:3]), step[6].exp()
    shift = middle + growth * turn @ (place.shift[0] - middle) + step[3:6] * radius
    rotation = turn @ place.rotation[0]
    left, _, right = torch.linalg.svd(rotation)  # rounding must not add up to a shear
    return Similarity(place.scale * growth, (left @ right)[None], shift[None])
