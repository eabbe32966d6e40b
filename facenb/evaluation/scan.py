"""Distances of points to a mesh's surface, never merely to its vertices.

Between vertices 3 mm apart the distance to the nearest vertex is about a millimetre even for points on the surface: as
much as whole methods differ by.
"""

import igl
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


class ScanToMesh:
    """A mesh with the tree of its triangles' boxes (libigl), built once.

    Triangles without area count as the segment or point that they are; vertices of no triangle are no surface.
    """

    def __init__(self, vertices: Float[Tensor, "vertices 3"], triangles: Int[Tensor, "triangles 3"]):
        """Raise ValueError for a mesh without triangles, vertices that are not finite, or corners it does not have."""
        self.vertices = np.ascontiguousarray(vertices.detach().cpu().numpy(), np.float64)
        self.triangles = np.ascontiguousarray(triangles.detach().cpu().numpy(), np.int64)
        if not len(self.triangles):
            raise ValueError("the mesh has no triangles; a surface is needed, points alone are none")
        low, high = self.triangles.min(), self.triangles.max()
        if low < 0 or high >= len(self.vertices):
            raise ValueError(
                f"a triangle names vertex {high if low >= 0 else low}, but the mesh has {len(self.vertices)} vertices: "
                "triangles of another mesh?"
            )
        _check_finite("vertex", "of the mesh ", self.vertices)
        self._tree = igl.AABB()
        self._tree.init(self.vertices, self.triangles)

    def closest(
        self, points: Float[Tensor, "points 3"]
    ) -> tuple[Float[Tensor, " points"], Float[Tensor, "points 3"], Int[Tensor, " points"]]:
        """Return each point's distance to the surface, its closest point there, and that point's triangle, in float64.

        The distance is unsigned, in the unit of the mesh. Raise ValueError for points that are not finite.
        """
        queries = np.ascontiguousarray(points.detach().cpu().numpy(), np.float64)
        _check_finite("point", "", queries)
        if not len(queries):
            return torch.zeros(0).double(), torch.zeros(0, 3).double(), torch.zeros(0, dtype=torch.int64)
        squared, triangle, closest = self._tree.squared_distance(self.vertices, self.triangles, queries)
        return torch.from_numpy(np.sqrt(squared)), torch.from_numpy(closest), torch.from_numpy(triangle)

    def normals(self) -> Float[Tensor, "triangles 3"]:
        """Return the triangles' unit normals, outward where corners run counter-clockwise; zero without area."""
        return torch.from_numpy(igl.per_face_normals(self.vertices, self.triangles, np.zeros(3)))


def _check_finite(name: str, owner: str, points: np.ndarray) -> None:
    if not np.isfinite(points).all():
        row = int(np.argwhere(~np.isfinite(points))[0, 0])
        raise ValueError(f"{name} {row} {owner}is not finite: {points[row].tolist()}")
