"""A face in an image as one flat vector: pose [f R | t], identity, expression (3DDFA, Luo et al. 2019).

The pose is a 3x4 matrix, row by row, that leads from the model's axes (mm) to the image as everywhere here: u to the
right and v down in pixels, depth in pixels growing away from the camera. So its 3x3 part is the scale f times a
rotation, diag(1, -1, -1) R. (The released 3DDFA counts v upwards.) Depth has no zero under weak perspective: t_z = 0.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from facenb.imaging.camera import WeakPerspective, matrix_to_euler
from facenb.morphable.alignment import Similarity
from facenb.morphable.layouts import Layout
from facenb.morphable.model import Embedding, MorphableModel

AXES = (1.0, -1.0, -1.0)  # from the camera's x right, y up, z towards it, to u right, v down, depth


def own_layout(model: MorphableModel) -> Layout:
    """Return the layout of a model with all its components: 12 pose, identity, expression."""
    parts = {"pose": 12, "identity": len(model.identity_basis), "expression": len(model.expression_basis)}
    return Layout(model.name, parts)


def pose_of(camera: WeakPerspective) -> Float[Tensor, "batch 12"]:
    """Return [f R | t] of cameras, row by row."""
    turn = camera.scale[:, None, None] * torch.tensor(AXES).to(camera.rotation)[:, None] * camera.rotation
    shift = torch.cat([camera.translation, torch.zeros_like(camera.translation[:, :1])], 1)
    return torch.cat([turn, shift[..., None]], 2).flatten(1)


def camera_of(pose: Float[Tensor, "batch 12"]) -> WeakPerspective:
    """Return the camera of [f R | t]: the nearest rotation and the mean scale if its 3x3 part is no scaled rotation."""
    matrix = pose.unflatten(1, (3, 4))
    u, strength, v = torch.linalg.svd(torch.tensor(AXES).to(pose)[:, None] * matrix[:, :, :3])
    sign = torch.ones_like(strength)
    sign[:, 2] = torch.linalg.det(u @ v).sign()
    return WeakPerspective(u @ (sign[..., None] * v), (sign * strength).mean(1), matrix[:, :2, 3])


def yaw_of(pose: Float[Tensor, "batch 12"]) -> Float[Tensor, " batch"]:
    """Return the yaw in radians, in [-pi/2, pi/2]."""
    return matrix_to_euler(camera_of(pose).rotation)[:, 0]


def move_camera(camera: WeakPerspective, move: Similarity) -> WeakPerspective:
    """Return the camera of the image after a similarity of its pixels, `u' = scale rotation u + shift`."""
    flip = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])  # pixels count v down, the camera's axes y up
    turn = torch.eye(3, dtype=torch.float64).repeat(len(move.scale), 1, 1)
    turn[:, :2, :2] = flip * move.rotation
    rotation, scale = turn @ camera.rotation.double(), move.scale * camera.scale.double()
    shift = move.apply(camera.translation[:, None])[:, 0]
    return WeakPerspective(rotation.to(camera.rotation), scale.to(camera.scale), shift)


def mirrored_move(move: Similarity, width: Float[Tensor, " batch"], crop: int) -> Similarity:
    """Return the move that cuts the mirrored crop (`crop` pixels wide) out of the mirrored image (`width` wide)."""
    flip = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    rotation = flip[:, None] * move.rotation * flip
    edge = torch.zeros_like(move.shift)
    edge[:, 0] = width
    shift = flip * (move.scale[:, None] * (move.rotation @ edge[..., None])[..., 0] + move.shift)
    return Similarity(move.scale, rotation, shift + torch.tensor([float(crop), 0.0]))


def leading(
    model: MorphableModel, identity: int, expression: int
) -> tuple[MorphableModel, Float[Tensor, "full reduced"], Float[Tensor, "full_e reduced_e"]]:
    """Return the model with the components that explain most, and the matrices from its coefficients to the new ones.

    `basis = U S V^T`: new components are the rows of `S V^T`, new coefficients `c U`, as white as the old. For a basis
    of principal components this is to cut it off.
    """
    bases, turns = {}, []
    for name, count in (("identity_basis", identity), ("expression_basis", expression)):
        basis = getattr(model, name)
        _, vectors = torch.linalg.eigh(basis.double().flatten(1) @ basis.double().flatten(1).T)
        turn = vectors.flip(1)[:, :count].to(basis)
        bases[name] = torch.tensordot(turn.T, basis, 1)
        turns.append(turn)
    surface = {
        name: getattr(model, name) for name in ("mean", "triangles", "landmarks", "regions", "contour", "source")
    }
    return MorphableModel(f"{model.name} {identity}+{expression}", **surface, **bases), *turns


class PosedModel(nn.Module):
    """Points of a model under flat coefficients of a layout, and how a network's outputs are whitened.

    `whitened = (flat - centre) / deviation`, both of the training images; what never varied has deviation 1.
    """

    def __init__(
        self,
        model: MorphableModel,
        layout: Layout,
        training: Float[Tensor, "rows coefficients"],
        points: Embedding | None = None,
    ):
        """Take flat vectors of the training images, and the points that count (None: all vertices).

        Raise ValueError if the layout is not the model's.
        """
        super().__init__()
        if layout.parts != own_layout(model).parts:
            raise ValueError(f"{layout} is not the layout of {model.name}, which needs {own_layout(model)}")
        self.layout = layout
        deviation = training.std(0, correction=0)
        buffers = {name: getattr(model, name) for name in ("mean", "identity_basis", "expression_basis")}
        buffers = {name: value if points is None else points.of(value) for name, value in buffers.items()}
        buffers |= {"centre": training.mean(0), "deviation": deviation.where(deviation > 1e-6, 1.0)}
        for name, value in buffers.items():
            self.register_buffer(name, value.clone(), persistent=False)

    def whiten(self, flat: Float[Tensor, "batch coefficients"]) -> Float[Tensor, "batch coefficients"]:
        """Return what a network should predict for these coefficients."""
        return (flat - self.centre) / self.deviation

    def flat(self, whitened: Float[Tensor, "batch coefficients"]) -> Float[Tensor, "batch coefficients"]:
        """Return the coefficients of a network's outputs."""
        return self.centre + self.deviation * whitened

    def shape(self, parts: Mapping[str, Tensor]) -> Float[Tensor, "batch points 3"]:
        """Return the points in mm, without the pose."""
        coefficients = torch.cat([parts["identity"], parts["expression"]], 1)
        basis = torch.cat([self.identity_basis, self.expression_basis]).flatten(1)
        return self.mean + (coefficients @ basis).unflatten(1, (-1, 3))

    def forward(self, flat: Float[Tensor, "batch coefficients"]) -> Float[Tensor, "batch points 3"]:
        """Return where the points lie in the image, V(p): u, v and depth in pixels."""
        parts = self.layout.split(flat)
        matrix = parts["pose"].unflatten(1, (3, 4))
        return self.shape(parts) @ matrix[:, :, :3].mT + matrix[:, None, :, 3]
