"""A face in a picture as one flat vector: pose [f R | t], identity, expression (3DDFA, Luo et al. 2019).

The pose is a 3x4 matrix, row by row, that leads from the model's axes (mm) to the picture as everywhere here: u to the
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
    """The layout of a model with all its components: 12 pose, identity, expression."""
    parts = {"pose": 12, "identity": len(model.identity_basis), "expression": len(model.expression_basis)}
    return Layout(model.name, parts)


def pose_of(camera: WeakPerspective) -> Float[Tensor, "batch 12"]:
    """[f R | t] of cameras, row by row."""
    turn = camera.scale[:, None, None] * torch.tensor(AXES).to(camera.rotation)[:, None] * camera.rotation
    shift = torch.cat([camera.translation, torch.zeros_like(camera.translation[:, :1])], 1)
    return torch.cat([turn, shift[..., None]], 2).flatten(1)


def camera_of(pose: Float[Tensor, "batch 12"]) -> WeakPerspective:
    """The camera of [f R | t], the nearest rotation and the mean scale where its 3x3 part is no scaled rotation."""
    matrix = pose.unflatten(1, (3, 4))
    u, strength, v = torch.linalg.svd(torch.tensor(AXES).to(pose)[:, None] * matrix[:, :, :3])
    sign = torch.ones_like(strength)
    sign[:, 2] = torch.linalg.det(u @ v).sign()
    return WeakPerspective(u @ (sign[..., None] * v), (sign * strength).mean(1), matrix[:, :2, 3])


def yaw_of(pose: Float[Tensor, "batch 12"]) -> Float[Tensor, " batch"]:
    """Yaw in radians, in [-pi/2, pi/2]."""
    return matrix_to_euler(camera_of(pose).rotation)[:, 0]


def move_camera(camera: WeakPerspective, move: Similarity) -> WeakPerspective:
    """The camera of the picture after a similarity of its pixels, `u' = scale rotation u + shift`, as cropping is."""
    flip = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])  # pixels count v down, the camera's axes y up
    turn = torch.eye(3, dtype=torch.float64).repeat(len(move.scale), 1, 1)
    turn[:, :2, :2] = flip * move.rotation
    rotation, scale = turn @ camera.rotation.double(), move.scale * camera.scale.double()
    shift = move.apply(camera.translation[:, None])[:, 0]
    return WeakPerspective(rotation.to(camera.rotation), scale.to(camera.scale), shift)


def mirrored_move(move: Similarity, width: Float[Tensor, " batch"], crop: int) -> Similarity:
    """The same crop `crop` pixels wide of the picture turned left to right, itself turned: from its pixels."""
    flip = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    rotation = flip[:, None] * move.rotation * flip
    edge = torch.zeros_like(move.shift)
    edge[:, 0] = width
    shift = flip * (move.scale[:, None] * (move.rotation @ edge[..., None])[..., 0] + move.shift)
    return Similarity(move.scale, rotation, shift + torch.tensor([float(crop), 0.0]))


def leading(
    model: MorphableModel, identity: int, expression: int
) -> tuple[MorphableModel, Float[Tensor, "full reduced"], Float[Tensor, "full_e reduced_e"]]:
    """The model with so many components, those that explain most, and what turns its coefficients into the new ones.

    `basis = U S V^T`: new components are the rows of `S V^T`, new coefficients `c U`, as white as the old. For a basis
    of principal components that is to cut it off. Raises ValueError where the model has fewer components.
    """
    bases, turns = {}, []
    for name, count in (("identity", identity), ("expression", expression)):
        basis = getattr(model, f"{name}_basis")
        if count > len(basis):
            raise ValueError(f"{model.name} has {len(basis)} {name} components, not the {count} that were asked for")
        _, vectors = torch.linalg.eigh(basis.double().flatten(1) @ basis.double().flatten(1).T)
        turn = vectors.flip(1)[:, :count].to(basis)
        bases[name] = torch.tensordot(turn.T, basis, 1)
        turns.append(turn)
    reduced = MorphableModel(
        f"{model.name} {identity}+{expression}", model.mean, model.triangles, bases["identity"], bases["expression"],
        model.landmarks, regions=model.regions, contour=model.contour, source=model.source,
    )  # fmt: skip
    return reduced, *turns


class PosedModel(nn.Module):
    """Points of a model under flat coefficients of a layout, and how a network's outputs are whitened.

    `whitened = (flat - centre) / deviation`, both of the training pictures; what never varied has deviation 1.
    """

    def __init__(
        self, model: MorphableModel, layout: Layout, training: Float[Tensor, "rows coefficients"],
        points: Embedding | None = None,
    ):  # fmt: skip
        """`training`: flat vectors of the training pictures; `points`: of the model that count (None: all vertices).

        Raises ValueError for a layout of other parts or sizes, and training vectors that are none, of another length or
        not finite.
        """
        super().__init__()
        if layout.parts != own_layout(model).parts:
            raise ValueError(f"{layout} is not the layout of {model.name}, which needs {own_layout(model)}")
        layout.check(training, "a training vector")
        if training.dim() != 2 or not len(training) or not training.isfinite().all():
            raise ValueError(
                f"training vectors {tuple(training.shape)} must be one or more rows, and finite, to whiten by; leave "
                "out pictures without a fit"
            )
        self.layout = layout
        of = points.of if points is not None else lambda x: x
        deviation = training.std(0, correction=0)
        buffers = {
            "mean": of(model.mean), "identity_basis": of(model.identity_basis),
            "expression_basis": of(model.expression_basis), "centre": training.mean(0),
            "deviation": deviation.where(deviation > 1e-6, torch.ones_like(deviation)),
        }  # fmt: skip
        for name, value in buffers.items():
            self.register_buffer(name, value.clone(), persistent=False)

    def whiten(self, flat: Float[Tensor, "batch coefficients"]) -> Float[Tensor, "batch coefficients"]:
        """What a network is to give for these coefficients."""
        return (flat - self.centre) / self.deviation

    def flat(self, whitened: Float[Tensor, "batch coefficients"]) -> Float[Tensor, "batch coefficients"]:
        """Coefficients of a network's outputs."""
        return self.centre + self.deviation * whitened

    def shape(self, parts: Mapping[str, Tensor]) -> Float[Tensor, "batch points 3"]:
        """The points in mm, without the pose."""
        moved = torch.cat([parts["identity"], parts["expression"]], 1)
        basis = torch.cat([self.identity_basis, self.expression_basis]).flatten(1)
        return self.mean + (moved @ basis).unflatten(1, (-1, 3))

    def forward(self, flat: Float[Tensor, "batch coefficients"]) -> Float[Tensor, "batch points 3"]:
        """Where the points lie in the picture, V(p): u, v and depth in pixels."""
        parts = self.layout.split(flat)
        matrix = parts["pose"].unflatten(1, (3, 4))
        return self.shape(parts) @ matrix[:, :, :3].mT + matrix[:, None, :, 3]
