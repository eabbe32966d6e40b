"""Distances from points to the surface of a mesh, not only to its vertices.

If vertices are 3 mm apart, a point on the surface is about a millimetre from the nearest vertex. This is as large as
the differences between methods.
"""

import igl
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


class ScanToMesh:
    """A mesh with a search tree over its triangles (libigl), built once.

    A triangle without area counts as a segment or a point. A vertex without a triangle does not belong to the surface.
    """

    def __init__(self, vertices: Float[Tensor, "vertices 3"], triangles: Int[Tensor, "triangles 3"]):
        """Raise ValueError if there are no triangles, a vertex is not finite, or a triangle has an unknown vertex."""
        self.vertices = np.ascontiguousarray(vertices.detach().cpu().numpy(), np.float64)
        self.triangles = np.ascontiguousarray(triangles.detach().cpu().numpy(), np.int64)
        if not len(self.triangles):
            raise ValueError("the mesh has no triangles; pass a surface, not points alone")
        low, high = self.triangles.min(), self.triangles.max()
        if low < 0 or high >= len(self.vertices):
            raise ValueError(
                f"a triangle uses vertex {high if low >= 0 else low}, but the mesh has {len(self.vertices)} vertices; "
                "check that the triangles belong to this mesh"
            )
        _check_finite("vertex", "of the mesh ", self.vertices)
        self._tree = igl.AABB()
        self._tree.init(self.vertices, self.triangles)

    def closest(
        self, points: Float[Tensor, "points 3"]
    ) -> tuple[Float[Tensor, " points"], Float[Tensor, "points 3"], Int[Tensor, " points"]]:
        """Return each point's distance to the surface, the closest surface point, and its triangle, in float64.

        The distance is unsigned, in the unit of the mesh. Raise ValueError for points that are not finite.
        """
        queries = np.ascontiguousarray(points.detach().cpu().numpy(), np.float64)
        _check_finite("point", "", queries)
        if not len(queries):
            return torch.zeros(0).double(), torch.zeros(0, 3).double(), torch.zeros(0, dtype=torch.int64)
        squared, triangle, closest = self._tree.squared_distance(self.vertices, self.triangles, queries)
        return torch.from_numpy(np.sqrt(squared)), torch.from_numpy(closest), torch.from_numpy(triangle)

    def normals(self) -> Float[Tensor, "triangles 3"]:
        """Return the triangles' unit normals, outward if corners are counter-clockwise; zero if the area is zero."""
        return torch.from_numpy(igl.per_face_normals(self.vertices, self.triangles, np.zeros(3)))


def _check_finite(name: str, owner: str, points: np.ndarray) -> None:
    if not np.isfinite(points).all():
        row = int(np.argwhere(~np.isfinite(points))[0, 0])
        raise ValueError(f"{name} {row} {owner}is not finite: {points[row].tolist()}")
