"""A face in an image as one flat vector: pose [f R | t], identity, expression (3DDFA, Luo et al. 2019).

The pose is a 3x4 matrix, stored row by row. It maps the model's axes (mm) to the image: u to the right, v down, and
depth away from the camera, all in pixels. So its 3x3 part is f diag(1, -1, -1) R, with the scale f. (In the released
3DDFA, v points up.) Weak perspective does not determine the depth of the origin, so we set t_z = 0.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from facenb.imaging.camera import WeakPerspective, matrix_to_euler
from facenb.morphable.alignment import Similarity
from facenb.morphable.layouts import Layout
from facenb.morphable.model import Embedding, MorphableModel

AXES = (1.0, -1.0, -1.0)  # from camera axes (x right, y up, z towards the camera) to u right, v down, depth


def own_layout(model: MorphableModel) -> Layout:
    """Return the layout with all components of a model: 12 for the pose, then identity and expression."""
    parts = {"pose": 12, "identity": len(model.identity_basis), "expression": len(model.expression_basis)}
    return Layout(model.name, parts)


def pose_of(camera: WeakPerspective) -> Float[Tensor, "batch 12"]:
    """Return [f R | t] of cameras, row by row."""
    turn = camera.scale[:, None, None] * torch.tensor(AXES).to(camera.rotation)[:, None] * camera.rotation
    shift = torch.cat([camera.translation, torch.zeros_like(camera.translation[:, :1])], 1)
    return torch.cat([turn, shift[..., None]], 2).flatten(1)


def camera_of(pose: Float[Tensor, "batch 12"]) -> WeakPerspective:
    """Return the camera of [f R | t]. If the 3x3 part is no scaled rotation, use the nearest one."""
    matrix = pose.unflatten(1, (3, 4))
    u, strength, v = torch.linalg.svd(torch.tensor(AXES).to(pose)[:, None] * matrix[:, :, :3])
    sign = torch.ones_like(strength)
    sign[:, 2] = torch.linalg.det(u @ v).sign()
    return WeakPerspective(u @ (sign[..., None] * v), (sign * strength).mean(1), matrix[:, :2, 3])


def yaw_of(pose: Float[Tensor, "batch 12"]) -> Float[Tensor, " batch"]:
    """Return the yaw in radians, in [-pi/2, pi/2]."""
    return matrix_to_euler(camera_of(pose).rotation)[:, 0]


def move_camera(camera: WeakPerspective, move: Similarity) -> WeakPerspective:
    """Return the camera after a similarity of the image's pixels, `u' = scale rotation u + shift`."""
    flip = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])  # v points down in pixels, y points up on the camera's axes
    turn = torch.eye(3, dtype=torch.float64).repeat(len(move.scale), 1, 1)
    turn[:, :2, :2] = flip * move.rotation
    rotation, scale = turn @ camera.rotation.double(), move.scale * camera.scale.double()
    shift = move.apply(camera.translation[:, None])[:, 0]
    return WeakPerspective(rotation.to(camera.rotation), scale.to(camera.scale), shift)


def mirrored_move(move: Similarity, width: Float[Tensor, " batch"], crop: int) -> Similarity:
    """Return the similarity from the mirrored image (`width` pixels) to the mirrored crop (`crop` pixels wide)."""
    flip = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    edge = move.scale[:, None] * (move.rotation[:, :, 0] * width[:, None]) + move.shift  # the image's right edge
    shift = flip * edge + torch.tensor([float(crop), 0.0])
    return Similarity(move.scale, flip[:, None] * move.rotation * flip, shift)


def leading(
    model: MorphableModel, identity: int, expression: int
) -> tuple[MorphableModel, Float[Tensor, "full reduced"], Float[Tensor, "full_e reduced_e"]]:
    """Return the model with the components of largest variance, and the matrices from old to new coefficients.

    With `basis = U S V^T`, the new components are the rows of `S V^T` and the new coefficients are `c U`. They stay
    whitened. If the basis already holds principal components, this only drops the last ones.
    """
    turns = []
    for basis, count in ((model.identity_basis, identity), (model.expression_basis, expression)):
        _, vectors = torch.linalg.eigh(basis.double().flatten(1) @ basis.double().flatten(1).T)
        turns.append(vectors.flip(1)[:, :count].to(basis))
    return turned(model, *turns), *turns


def turned(
    model: MorphableModel, identity: Float[Tensor, "full reduced"], expression: Float[Tensor, "full_e reduced_e"]
) -> MorphableModel:
    """Return the model with other components: each is the combination of the old ones in a column of the matrices."""
    bases = {
        "identity_basis": torch.tensordot(identity.T, model.identity_basis, 1),
        "expression_basis": torch.tensordot(expression.T, model.expression_basis, 1),
    }
    name = f"{model.name} {identity.shape[1]}+{expression.shape[1]}"
    return replace(model, name=name, expression_names=(), **bases)


def whitening(
    training: Float[Tensor, "rows coefficients"],
) -> tuple[Float[Tensor, " coefficients"], Float[Tensor, " coefficients"]]:
    """Return the mean and the standard deviation of the training images' coefficients, 1 where one never varies."""
    deviation = training.std(0, correction=0)
    return training.mean(0), deviation.where(deviation > 1e-6, 1.0)


class PosedModel(nn.Module):
    """Compute points of a model from flat coefficient vectors, and whiten these vectors for a network.

    `whitened = (flat - centre) / deviation` (see `whitening`). `points` None means all vertices. Raise ValueError if
    the layout is not the model's.
    """

    def __init__(
        self,
        model: MorphableModel,
        layout: Layout,
        centre: Float[Tensor, " coefficients"],
        deviation: Float[Tensor, " coefficients"],
        points: Embedding | None = None,
    ):
        super().__init__()
        if layout.parts != own_layout(model).parts:
            raise ValueError(f"{layout} is not the layout of {model.name}; use {own_layout(model)}")
        self.layout = layout
        buffers = {name: getattr(model, name) for name in ("mean", "identity_basis", "expression_basis")}
        buffers = {name: value if points is None else points.of(value) for name, value in buffers.items()}
        buffers |= {"centre": centre, "deviation": deviation}
        for name, value in buffers.items():
            self.register_buffer(name, value.clone(), persistent=False)

    def whiten(self, flat: Float[Tensor, "batch coefficients"]) -> Float[Tensor, "batch coefficients"]:
        """Return the whitened coefficients, which a network predicts."""
        return (flat - self.centre) / self.deviation

    def flat(self, whitened: Float[Tensor, "batch coefficients"]) -> Float[Tensor, "batch coefficients"]:
        """Return the coefficients for a network's outputs (the inverse of `whiten`)."""
        return self.centre + self.deviation * whitened

    def shape(self, parts: Mapping[str, Tensor]) -> Float[Tensor, "batch points 3"]:
        """Return the points in mm, without the pose."""
        coefficients = torch.cat([parts["identity"], parts["expression"]], 1)
        basis = torch.cat([self.identity_basis, self.expression_basis]).flatten(1)
        return self.mean + (coefficients @ basis).unflatten(1, (-1, 3))

    def forward(self, flat: Float[Tensor, "batch coefficients"]) -> Float[Tensor, "batch points 3"]:
        """Return the image positions V(p) of the points: u, v and depth in pixels."""
        parts = self.layout.split(flat)
        matrix = parts["pose"].unflatten(1, (3, 4))
        return self.shape(parts) @ matrix[:, :, :3].mT + matrix[:, None, :, 3]
