"""Meshes: measured scans, parts of a model, subdivision for detailed faces, and texture coordinates per vertex."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facenb.morphable.model import Embedding, Joints, MorphableModel, Tensors


@dataclass(frozen=True)
class Scan:
    """A measured surface. Its vertices are exactly the points of its file; texture seams do not duplicate them."""

    name: str
    vertices: Float[Tensor, "vertices 3"]
    triangles: Int[Tensor, "triangles 3"]
    unit: str  # "mm", or "unknown"
    landmarks: Float[Tensor, "68 3"] | None = None
    uv: Float[Tensor, "texels 2"] | None = None  # in [0, 1], origin bottom left
    uv_triangles: Int[Tensor, "triangles 3"] | None = None  # rows of uv for each triangle's corners
    texture: Path | None = None  # the image file that uv refers to


@dataclass(frozen=True)
class Subdivision(Tensors):
    """A mesh with four times as many triangles. The old vertices come first, then the middle of each edge."""

    triangles: Int[Tensor, "fine 3"]
    edges: Int[Tensor, "edges 2"]

    @classmethod
    def of(cls, triangles: Int[Tensor, "triangles 3"], vertices: int) -> "Subdivision":
        """Return the subdivision of a mesh with that many vertices."""
        sides = torch.cat([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
        edges, which = sides.sort(1).values.unique(dim=0, return_inverse=True)
        a, b, c = triangles.unbind(1)
        ab, bc, ca = (vertices + which).view(3, -1)
        fine = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
        return cls(torch.stack([torch.stack(corners, 1) for corners in fine], 1).flatten(0, 1), edges)

    def at(self, values: Float[Tensor, "*batch vertices channels"]) -> Float[Tensor, "*batch fine channels"]:
        """Return values of the old vertices (positions, colours, uv) at all vertices of the fine mesh."""
        return torch.cat([values, values[..., self.edges, :].mean(-2)], -2)


def vertex_uv(model: MorphableModel) -> Float[Tensor, "vertices 2"]:
    """Return one texture coordinate per vertex (at seams the first one). Raise ValueError if a vertex has none."""
    if model.uv is None:
        raise ValueError(f"{model.name} has no texture coordinates; for FLAME, see read_flame's parameter `texture`")
    if model.uv_triangles is None:
        return model.uv
    texel = torch.full((len(model.mean),), len(model.uv)).to(model.uv_triangles)
    texel.scatter_reduce_(0, model.triangles.flatten(), model.uv_triangles.flatten(), "amin")
    if (texel == len(model.uv)).any():
        raise ValueError(f"{model.name} has vertices without a triangle, so without a texture coordinate; cut them out")
    return model.uv[texel]


def cut(model: MorphableModel, vertices: Int[Tensor, " kept"]) -> MorphableModel:
    """Return the part of a model with only these vertices, and the triangles all of whose corners are kept.

    The part has no contour lines. Raise ValueError if landmarks or joints depend on vertices that would be lost.
    """
    kept = vertices.unique()
    new = torch.full((len(model.mean),), -1).to(kept)
    new[kept] = torch.arange(len(kept)).to(kept)
    whole = (new[model.triangles] >= 0).all(1)
    if (new[landmark_vertices(model)] < 0).any():
        raise ValueError(f"the part of {model.name} lacks vertices of its landmarks or joints; keep them as well")
    joints = model.joints
    if joints is not None:
        correctives = None if joints.correctives is None else joints.correctives[:, kept]
        joints = Joints(joints.names, joints.parents, joints.regressor[:, kept], joints.weights[kept], correctives)
    names = ["mean", "identity_basis", "expression_basis", "albedo_mean", "albedo_basis"]
    names += ["uv"] if model.uv_triangles is None else []  # else uv has its own rows
    arrays = {name: getattr(model, name) for name in names if getattr(model, name) is not None}
    return replace(
        model,
        **{name: value.index_select(-2, kept) for name, value in arrays.items()},
        triangles=new[model.triangles[whole]],
        landmarks=Embedding(new[model.landmarks.vertices], model.landmarks.weights),
        joints=joints,
        regions={name: new[index][new[index] >= 0] for name, index in model.regions.items()},
        contour=None,
        uv_triangles=None if model.uv_triangles is None else model.uv_triangles[whole],
    )


def landmark_vertices(model: MorphableModel) -> Int[Tensor, " vertices"]:
    """Return all vertices that landmarks and joints depend on. They are enough to compute landmarks of a posed face."""
    needed = model.landmarks.vertices.flatten()
    if model.joints is not None:
        needed = torch.cat([needed, (model.joints.regressor != 0).any(0).nonzero()[:, 0]])
    return needed.unique()
