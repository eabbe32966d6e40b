"""The contour lines on which the 17 jaw-line landmarks may slide when the head turns.

An annotator marks the outline of the face in the image as its jaw line. When the head turns, another part of the cheek
becomes the outline ("landmark marching", Zhu et al. 2015). A contour line is the intersection of the mean face with a
half-plane that starts at an axis parallel to z and contains one jaw-line landmark. It runs over the cheek, from beside
the nose to behind the jaw. In any pose, the outline crosses it near the point where an annotator marks this landmark.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facenb.errors import ModelFileError

JAW = 17  # landmarks 0 to 16 of the 68
CANDIDATES = 26  # number of vertices of each line
# The front end of a line, as a fraction of its landmark's distance from the axis. It lies beside the nose on the cheeks
# and below the lower lip at the chin, so nose and lips are never taken for the outline of the face.
FRONT_SIDEWAYS, FRONT_BELOW = 0.4, 0.75
# How far a line continues behind its landmark, as a fraction of the same distance. In FLAME's table, the jaw line moves
# by a similar distance (0.25 to 0.38) for a yaw of 39 degrees. At the chin, the line reaches the lower edge of the
# face, which is the outline.
BACK = 0.3
FLARE = 1.04  # the line ends at this multiple of the landmark's distance from the axis, where the ear begins


def contour_lines(
    mean: Float[Tensor, "vertices 3"], triangles: Int[Tensor, "triangles 3"], landmarks: Float[Tensor, "68 3"]
) -> Int[Tensor, "17 candidates"]:
    """Return the vertices of the contour line of each jaw-line landmark, from the cheek to behind the jaw.

    `mean` and `landmarks` (its 68 points) are in mm on the model's axes. All half-planes start at an axis parallel to z
    through the mean of the inner 51 landmarks. The vertex nearest to a landmark is always on its line. If the mesh is
    coarse, vertices repeat. Raise ModelFileError if a half-plane does not meet the mesh.
    """
    mean, landmarks = mean.double(), landmarks.double()
    centre = landmarks[JAW:, :2].mean(0)
    return torch.stack([_line(mean, triangles, centre, point) for point in landmarks[:JAW]])


def _line(mean: Tensor, triangles: Tensor, centre: Tensor, landmark: Tensor) -> Tensor:
    """Return evenly spaced vertices along the contour line of one landmark."""
    outward = landmark[:2] - centre
    reach = outward.norm()
    edges, points, links = _section(mean, triangles, centre, outward / reach)
    if len(edges) == 0:
        raise ModelFileError(f"no triangle near the jaw-line landmark {landmark.tolist()} mm; check the 68 landmarks")
    start = int((points - landmark).square().sum(-1).argmin())
    front, back = sorted(_walks(links, start), key=lambda walk: -float(points[walk[:6], 2].mean()))
    sideways = 1 - (outward[1] / reach).square()
    nearest = reach * (FRONT_BELOW + (FRONT_SIDEWAYS - FRONT_BELOW) * sideways)
    rho = (points[:, :2] - centre) @ outward / reach
    front = _until(front, rho[front] < nearest)
    back = _until(back, (arc_length(points[back]) > BACK * reach) | (rho[back] > FLARE * reach))
    chain = torch.tensor([*reversed(front), *back[1:]])  # crossings from front to back
    stops = torch.linspace(0, 1, CANDIDATES, dtype=torch.float64) * arc_length(points[chain])[-1]
    chosen = chain[(arc_length(points[chain]) - stops[:, None]).abs().argmin(1)]
    ends = edges[chosen]  # (26, 2), the mesh edge of each crossing
    distance = (mean[ends] - points[chosen, None]).norm(dim=-1)
    line = ends.gather(1, distance.argmin(1, keepdim=True))[:, 0]
    line[(points[chosen] - landmark).norm(dim=-1).argmin()] = (mean - landmark).norm(dim=-1).argmin()
    return line


def _section(mean: Tensor, triangles: Tensor, centre: Tensor, outward: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return edges that cross the half-plane (E, 2), the crossings (E, 3), and the two in each cut triangle (S, 2)."""
    flat = mean[:, :2] - centre
    side = flat[:, 0] * outward[1] - flat[:, 1] * outward[0]
    above, ahead = (side >= 0)[triangles], (flat @ outward > 0)[triangles]
    cut = triangles[above.any(1) & ~above.all(1) & ahead.all(1)]  # (S, 3)
    pairs = torch.stack([cut, cut.roll(-1, 1)], -1)  # (S, 3, 2), the triangle's edges
    crossed = (side[pairs[..., 0]] >= 0) != (side[pairs[..., 1]] >= 0)  # two of the three edges
    edges, links = torch.unique(pairs[crossed].sort(-1).values, dim=0, return_inverse=True)
    a, b = edges.unbind(-1)
    share = side[a] / (side[a] - side[b])
    return edges, mean[a] + share[:, None] * (mean[b] - mean[a]), links.view(-1, 2)


def _walks(links: Tensor, start: int) -> tuple[list[int], list[int]]:
    """Return the crossings from `start` in both directions. Each walk ends at a border or after a full circle."""
    neighbours: dict[int, list[int]] = {}
    for a, b in links.tolist():
        neighbours.setdefault(a, []).append(b)
        neighbours.setdefault(b, []).append(a)
    walks = []
    for first in (neighbours[start] + [None, None])[:2]:
        walk = [start]
        while first is not None and first not in walk:
            walk.append(first)
            first = next((n for n in neighbours[first] if n != walk[-2]), None)
        walks.append(walk)
    return walks[0], walks[1]


def _until(walk: list[int], beyond: Tensor) -> list[int]:
    """Return the walk up to the first crossing that lies beyond a limit."""
    return walk[: max(int((beyond.cumsum(0) == 0).sum()), 1)]


def arc_length(points: Tensor) -> Tensor:
    """Return the length along a chain of points from its start to each point."""
    return torch.cat([points.new_zeros(1), (points[1:] - points[:-1]).norm(dim=-1).cumsum(0)])
