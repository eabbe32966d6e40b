"""Meshes cut out of a model, and made finer: what a detailed face is drawn on."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facenb.morphable.model import Embedding, Joints, MorphableModel


@dataclass(frozen=True)
class Subdivision:
    """A mesh four times as fine: a new vertex in the middle of each edge; the old ones come first and stay in place."""

    triangles: Int[Tensor, "fine 3"]
    edges: Int[Tensor, "edges 2"]

    @classmethod
    def of(cls, triangles: Int[Tensor, "triangles 3"], vertices: int) -> "Subdivision":
        """Of a mesh of that many vertices."""
        sides = torch.cat([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
        edges, which = sides.sort(1).values.unique(dim=0, return_inverse=True)
        a, b, c = triangles.unbind(1)
        ab, bc, ca = (vertices + which).view(3, -1)
        fine = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
        return cls(torch.stack([torch.stack(corners, 1) for corners in fine], 1).flatten(0, 1), edges)

    def at(self, values: Float[Tensor, "*batch vertices channels"]) -> Float[Tensor, "*batch fine channels"]:
        """Values of the old vertices (positions, colours, texture coordinates) at all vertices of the fine mesh."""
        return torch.cat([values, values[..., self.edges, :].mean(-2)], -2)

    def to(self, device) -> "Subdivision":
        return Subdivision(self.triangles.to(device), self.edges.to(device))


def vertex_uv(model: MorphableModel) -> Float[Tensor, "vertices 2"]:
    """One texture coordinate a vertex; where a seam gives a vertex several, the first. ValueError without any."""
    if model.uv is None:
        raise ValueError(
            f"{model.name} has no texture coordinates; FLAME's are in a file of their own (read_flame's `texture`: "
            "head_template.obj or FLAME_texture.npz)"
        )
    if model.uv_triangles is None:
        return model.uv
    texel = torch.full((len(model.mean),), len(model.uv)).to(model.uv_triangles)
    texel.scatter_reduce_(0, model.triangles.flatten(), model.uv_triangles.flatten(), "amin")
    if (texel == len(model.uv)).any():
        raise ValueError(f"{model.name} has vertices of no triangle, which have no texture coordinate; cut them out")
    return model.uv[texel]


def cut(model: MorphableModel, vertices: Int[Tensor, " kept"]) -> MorphableModel:
    """The part of a model with only these vertices, and the triangles all of whose corners are kept.

    Without the lines that jaw landmarks slide along. Raises ValueError where landmarks or joints hang on vertices that
    would be lost.
    """
    kept = vertices.unique()
    new = torch.full((len(model.mean),), -1).to(kept)
    new[kept] = torch.arange(len(kept)).to(kept)
    whole = (new[model.triangles] >= 0).all(1)
    if (new[model.landmarks.vertices] < 0).any():
        raise ValueError(f"the part of {model.name} lacks vertices of its landmarks; keep them as well")
    joints = model.joints
    if joints is not None:
        lost = joints.regressor.clone()
        lost[:, kept] = 0
        if lost.any():
            raise ValueError(f"the part of {model.name} lacks vertices that its joints hang on; keep them as well")
        correctives = None if joints.correctives is None else joints.correctives[:, kept]
        joints = Joints(joints.names, joints.parents, joints.regressor[:, kept], joints.weights[kept], correctives)
    own_uv = model.uv is not None and model.uv_triangles is None
    regions = {name: new[index][new[index] >= 0] for name, index in model.regions.items()}
    return replace(
        model, mean=model.mean[kept], triangles=new[model.triangles[whole]], joints=joints, regions=regions,
        identity_basis=model.identity_basis[:, kept], expression_basis=model.expression_basis[:, kept],
        landmarks=Embedding(new[model.landmarks.vertices], model.landmarks.weights),
        albedo_mean=None if model.albedo_mean is None else model.albedo_mean[kept],
        albedo_basis=None if model.albedo_basis is None else model.albedo_basis[:, kept],
        uv=model.uv[kept] if own_uv else model.uv, contour=None,
        uv_triangles=None if model.uv_triangles is None else model.uv_triangles[whole],
    )  # fmt: skip


def landmark_vertices(model: MorphableModel) -> Int[Tensor, " vertices"]:
    """All vertices that landmarks and joints hang on: what is needed to know where a face's landmarks are."""
    hung = model.landmarks.vertices[model.landmarks.weights != 0]
    if model.joints is not None:
        hung = torch.cat([hung, (model.joints.regressor != 0).any(0).nonzero()[:, 0]])
    return torch.cat([hung, model.landmarks.vertices.flatten()]).unique()
