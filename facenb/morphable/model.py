"""A face as a vector: the linear 3D morphable model (Blanz and Vetter 1999), with optional joints (FLAME 2017)."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facenb import savefile

KIND = "MorphableModel 2"  # increase the number if a change makes old files unreadable


def axis_angle_to_matrix(axis_angle: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Return the rotation matrix of an axis-angle vector in radians (Rodrigues' formula), smooth through zero."""
    x, y, z = axis_angle.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    return torch.linalg.matrix_exp(cross)


class Tensors:
    """A base class that adds the method `to` to dataclasses of tensors, plain values or other such dataclasses."""

    def to(self, *device_or_dtype) -> "Tensors":
        """Return a copy with every tensor on a device or in a dtype."""

        def move(value):
            if isinstance(value, Mapping):
                return {name: move(item) for name, item in value.items()}
            return value.to(*device_or_dtype) if isinstance(value, (Tensor, Tensors)) else value

        return replace(self, **{spec.name: move(getattr(self, spec.name)) for spec in fields(self)})


@dataclass(frozen=True)
class Embedding(Tensors):
    """Points on a mesh's surface, each a weighted mean of three vertices (a vertex: 1, 0, 0)."""

    vertices: Int[Tensor, "points 3"]
    weights: Float[Tensor, "points 3"]

    @classmethod
    def at(cls, vertices) -> "Embedding":
        """Return the embedding whose points are the given vertices."""
        index = torch.as_tensor(vertices, dtype=torch.int64)
        weights = torch.zeros(len(index), 3)
        weights[:, 0] = 1.0
        return cls(index[:, None].expand(-1, 3).contiguous(), weights)

    def of(self, vertices: Float[Tensor, "*batch vertices values"]) -> Float[Tensor, "*batch points values"]:
        """Interpolate vertex values at the points. The values are positions, offsets for each basis row, or others."""
        corners = zip(self.vertices.T, self.weights.to(vertices.dtype).T, strict=True)
        first, second, third = (vertices.index_select(-2, row) * share[:, None] for row, share in corners)
        return first + second + third

    def __len__(self) -> int:
        return len(self.vertices)


@dataclass(frozen=True)
class Joints(Tensors):
    """A skeleton that bends the mesh by linear blend skinning, as in FLAME (global, neck, jaw, left and right eye)."""

    names: tuple[str, ...]
    parents: tuple[int, ...]  # -1 for the root; a parent comes before its children
    regressor: Float[Tensor, "joints vertices"]  # joint positions from the unposed vertices
    weights: Float[Tensor, "vertices joints"]
    correctives: Float[Tensor, "features vertices 3"] | None = None  # mm per unit of (R - I), 9 per non-root joint

    def skin(
        self, vertices: Float[Tensor, "batch vertices 3"], pose: Float[Tensor, "batch joints 3"]
    ) -> Float[Tensor, "batch vertices 3"]:
        """Return vertices bent by one axis-angle rotation per joint (Li et al. 2017, Eq. 1-2).

        Vertices and result are in mm, the pose in radians. Raise ValueError unless the pose has one rotation per joint.
        """
        if pose.shape[1] != len(self.parents):
            raise ValueError(f"the pose has {pose.shape[1]} rotations, {len(self.parents)} are needed: {self.names}")
        rotations = axis_angle_to_matrix(pose)  # (B, J, 3, 3)
        positions = self.regressor @ vertices  # (B, J, 3)
        if self.correctives is not None:
            feature = (rotations[:, 1:] - torch.eye(3).to(rotations)).flatten(1)  # (B, 9 (J - 1))
            vertices = vertices + torch.tensordot(feature, self.correctives, 1)
        world_rotation, world_position = [rotations[:, 0]], [positions[:, 0]]
        for joint, parent in list(enumerate(self.parents))[1:]:
            offset = (positions[:, joint] - positions[:, parent])[..., None]
            world_position.append(world_position[parent] + (world_rotation[parent] @ offset)[..., 0])
            world_rotation.append(world_rotation[parent] @ rotations[:, joint])
        turn = torch.stack(world_rotation, 1)  # (B, J, 3, 3)
        shift = torch.stack(world_position, 1) - (turn @ positions[..., None])[..., 0]  # (B, J, 3)
        vertex_turn = torch.einsum("vj,bjkl->bvkl", self.weights, turn)
        return (vertex_turn @ vertices[..., None])[..., 0] + torch.einsum("vj,bjk->bvk", self.weights, shift)


@dataclass(frozen=True)
class MorphableModel(Tensors):
    """A mean face plus linear bases: `s = mean + identity_basis a + expression_basis e` (Liu et al. 2018, Eq. 6).

    Everything is in millimetres on the project's axes. A basis row is the offset of one standard deviation, so
    coefficients of people are about N(0, 1). Where the expressions are blendshapes (ICT-FaceKit, Surrey), a row is the
    blendshape fully applied, and its coefficient lies between 0 and 1.
    """

    name: str
    mean: Float[Tensor, "vertices 3"]
    triangles: Int[Tensor, "triangles 3"]  # counter-clockwise seen from outside
    identity_basis: Float[Tensor, "identity vertices 3"]
    expression_basis: Float[Tensor, "expression vertices 3"]
    landmarks: Embedding  # the 68 points of Multi-PIE / iBUG, in their order; empty if the source has none
    expression_names: tuple[str, ...] = ()
    albedo_mean: Float[Tensor, "vertices 3"] | None = None  # RGB in [0, 1]
    albedo_basis: Float[Tensor, "albedo vertices 3"] | None = None
    uv: Float[Tensor, "texels 2"] | None = None  # in [0, 1], origin bottom left as in OBJ
    uv_triangles: Int[Tensor, "triangles 3"] | None = None  # rows of uv; None: uv has one row per vertex
    regions: Mapping[str, Int[Tensor, "..."]] = field(default_factory=dict)  # vertex indices by name
    joints: Joints | None = None
    # For each of the 17 jaw-line landmarks the vertices it may slide along when the head turns, from front to back.
    contour: Int[Tensor, "17 candidates"] | None = None
    source: str = ""  # origin and licence of the model, for records and captions

    @property
    def device(self) -> torch.device:
        return self.mean.device

    @property
    def skin(self) -> Bool[Tensor, " vertices"]:
        """Which vertices are skin: the region `skin` if the model has one (SynthFace), else all."""
        skin = torch.zeros(len(self.mean), dtype=torch.bool, device=self.device)
        skin[self.regions.get("skin", slice(None))] = True
        return skin

    def shape(
        self,
        identity: Float[Tensor, "#batch identity"] | None = None,
        expression: Float[Tensor, "#batch expression"] | None = None,
        pose: Float[Tensor, "#batch joints 3"] | None = None,
    ) -> Float[Tensor, "batch vertices 3"]:
        """Return vertices in mm for whitened coefficients. n coefficients belong to the first n components.

        A batch of one is broadcast. Raise ValueError if there are more coefficients than components, or if a pose is
        given for a model without joints.
        """
        parts = ("identity", identity, self.identity_basis), ("expression", expression, self.expression_basis)
        vertices = self.mean[None] + sum(self._offset(*part) for part in parts if part[1] is not None)
        if pose is None:
            return vertices
        if self.joints is None:
            raise ValueError(f"{self.name} has no joints, so it takes no pose; turn the head with the camera instead")
        batch = max(len(vertices), len(pose))
        return self.joints.skin(vertices.expand(batch, -1, -1), pose.expand(batch, -1, -1))

    def albedo(self, coefficients: Float[Tensor, "batch albedo"] | None = None) -> Float[Tensor, "batch vertices 3"]:
        """Return vertex colours (RGB, not clipped) for whitened albedo coefficients. The default is the mean.

        Raise ValueError if the model has no albedo, or fewer components than there are coefficients.
        """
        if self.albedo_mean is None:
            raise ValueError(f"{self.name} has no albedo; colour its vertices from a photograph or give a plain colour")
        if coefficients is None:
            return self.albedo_mean[None]
        basis = self.mean.new_zeros(0, *self.mean.shape) if self.albedo_basis is None else self.albedo_basis
        return self.albedo_mean + self._offset("albedo", coefficients, basis)

    def _offset(self, what: str, coefficients: Tensor, basis: Tensor) -> Float[Tensor, "batch vertices 3"]:
        count = coefficients.shape[1]
        if count > len(basis):
            raise ValueError(f"{self.name} has {len(basis)} {what} components, but {count} coefficients were given")
        return (coefficients @ basis[:count].flatten(1)).unflatten(-1, (-1, 3))

    def sample(
        self, count: int, generator: torch.Generator | None = None, expression: bool = True
    ) -> tuple[Float[Tensor, "batch identity"], Float[Tensor, "batch expression"]]:
        """Return coefficients of random faces, drawn from N(0, 1). With `expression=False` the faces are neutral."""
        identity = torch.randn(count, len(self.identity_basis), generator=generator).to(self.mean)
        size = count, len(self.expression_basis)
        expressions = torch.randn(size, generator=generator) if expression else torch.zeros(size)
        return identity, expressions.to(self.mean)

    def explained_variance(self) -> Float[Tensor, " identity"]:
        """Return the share of the variance of random faces (mm^2) that the first 1, 2, ... components explain.

        It is the variance of faces after projection onto the span of the first k components. With `basis^T = Q R`, it
        is the sum of the squared norms of the first k rows of R. For an orthogonal basis, this is the usual sum of
        eigenvalues.
        """
        variance = torch.linalg.qr(self.identity_basis.double().flatten(1).T, mode="r").R.square().sum(1)
        return (variance.cumsum(0) / variance.sum()).to(self.mean.dtype)

    def save(self, path: str | Path) -> Path:
        """Write the model into one file (`facenb.savefile`). Raise ModelFileError if it cannot be written."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        tensors |= {"landmarks.vertices": self.landmarks.vertices, "landmarks.weights": self.landmarks.weights}
        tensors |= {f"regions.{name}": index for name, index in self.regions.items()}
        card = {"name": self.name, "source": self.source, "expression_names": self.expression_names}
        if self.joints is not None:
            card["joints"] = {"names": self.joints.names, "parents": self.joints.parents}
            tensors |= {f"joints.{name}": x for name, x in vars(self.joints).items() if isinstance(x, Tensor)}
        return savefile.save(path, KIND, tensors, card)

    @classmethod
    def load(cls, path: str | Path) -> "MorphableModel":
        """Return a model that `save` wrote. Raise ModelFileError if the file is missing, damaged or of another kind."""
        tensors, card = savefile.load(path, KIND)
        groups = {"landmarks": {}, "regions": {}, "joints": {}}
        for name in [name for name in tensors if "." in name]:
            group, _, field_name = name.partition(".")
            groups[group][field_name] = tensors.pop(name)
        joints = {name: tuple(values) for name, values in card.get("joints", {}).items()}
        return cls(
            card["name"],
            landmarks=Embedding(**groups["landmarks"]),
            regions=groups["regions"],
            joints=Joints(**joints, **groups["joints"]) if joints else None,
            expression_names=tuple(card["expression_names"]),
            source=card["source"],
            **tensors,
        )
