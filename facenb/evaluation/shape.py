"""Shape accuracy as Liu18 measures it, and the best that any shape in a model's span could reach.

Procrustes on the 3D landmarks, then a crop about the nose tip. The paper's "RMSE", the mean of
|s* - s| / n over shapes, would be too small by about sqrt(n) if taken literally; both the mean distance and the root of
the mean square are given, by name.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from facenb.morphable.alignment import similarity
from facenb.morphable.model import Embedding, MorphableModel, axis_angle_to_matrix

CHUNK = 2**20  # vertices at a time: memory does not grow with the number of faces
ROUNDS = 20
SPREAD = (3.0, 1000.0)  # mm: a face's vertices about their middle, from a part of 20 mm to a whole body, by far


@dataclass(frozen=True)
class ShapeErrors:
    """Distances of corresponding vertices within the crop, in mm."""

    mean: Float[Tensor, " faces"]  # mean distance
    rms: Float[Tensor, " faces"]  # root of the mean squared distance
    per_vertex: Float[Tensor, "faces vertices"]  # NaN outside the crop

    def map(self) -> Float[Tensor, " vertices"]:
        """Mean distance of each vertex over the faces whose crop holds it; NaN where none does."""
        return self.per_vertex.nanmean(0)


def _check(what: str, vertices: Tensor) -> None:
    usable = vertices.isfinite().flatten(1).all(1)
    if not usable.all():
        raise ValueError(f"{what} of face {int((~usable).nonzero()[0])} is not finite; a missing shape must be counted")


def check_millimetres(what: str, points: Float[Tensor, "*faces points 3"]) -> None:
    """ValueError unless points spread about their middle (root of the mean square) as those of a face in mm do.

    Tells metres and micrometres from millimetres, for any part of a head; centimetres of a head could be a part of one.
    """
    if not points.numel():
        return
    spread = points.var(-2, correction=0).sum(-1).sqrt()
    strange = spread[~((spread >= SPREAD[0]) & (spread <= SPREAD[1]))]  # NaN as well
    if len(strange):
        raise ValueError(f"{what} is not in mm: it spreads by {float(strange[0]):.3g} about its middle, faces by "
                         f"{SPREAD[0]:g} to {SPREAD[1]:g} mm, most by about 80; bring it to mm")  # fmt: skip


def check_radius(radius: float | int) -> None:
    """ValueError for the radius of a crop that is not above 0."""
    if not radius > 0:
        raise ValueError(f"the radius of a crop is {radius} mm; it must be above 0")


def crop(
    vertices: Float[Tensor, "faces vertices 3"], landmarks: Embedding, radius: float = 95.0, nose_tip: int = 30
) -> Bool[Tensor, "faces vertices"]:
    """The vertices within `radius` mm of a face's nose tip (landmark 30 of iBUG's 68).

    Raises ValueError for landmarks without that point, a radius not above 0, vertices that are not in mm, and where
    none is so near.
    """
    check_radius(radius)
    if not 0 <= nose_tip < len(landmarks):
        raise ValueError(f"there is no landmark {nose_tip} for the nose tip; the embedding has {len(landmarks)}")
    check_millimetres("the shape", vertices)
    middle = landmarks.of(vertices)[:, nose_tip]
    inside = (vertices - middle[:, None]).square().sum(-1) <= radius**2
    if not inside.any(1).all():
        raise ValueError(f"no vertex lies within {radius} mm of the nose tip; is it on the shapes?")
    return inside


def shape_errors(
    predicted: Float[Tensor, "faces vertices 3"],
    truth: Float[Tensor, "#faces vertices 3"],
    landmarks: Embedding,
    radius: float = 95.0,
    nose_tip: int = 30,
    scale: bool = True,
    align: bool = True,
) -> ShapeErrors:
    """Error of predicted shapes in correspondence with the truth (Liu18, section 4.1).

    Each is moved by the similarity (rigid motion if not `scale`) that brings its landmarks onto the true ones, unless
    `align` is False; errors are taken over the vertices within `radius` mm of the true nose tip. One truth serves all
    predictions, whose own unit matters only where their size does. Raises ValueError for shapes that are not finite or
    not in mm, a missing nose tip or an empty crop; LandmarkError for landmarks all alike.
    """
    _check("the predicted shape", predicted)
    _check("the true shape", truth)
    if not (align and scale):
        check_millimetres("the predicted shape", predicted)
    inside = crop(truth, landmarks, radius, nose_tip).expand(len(predicted), -1)
    truth = truth.expand(len(predicted), -1, -1)
    distances = predicted.new_empty(predicted.shape[:2])
    rows = max(1, CHUNK // predicted.shape[1])
    for start in range(0, len(predicted), rows):
        part = slice(start, start + rows)
        moved, aim = predicted[part].double(), truth[part].double()
        if align:
            moved = similarity(landmarks.of(moved), landmarks.of(aim), scale).apply(moved)
        distances[part] = (moved - aim).norm(dim=-1).to(distances.dtype)
    count = inside.sum(1)
    kept = torch.where(inside, distances, 0.0)
    mean, rms = kept.sum(1, dtype=torch.float64) / count, (kept.square().sum(1, dtype=torch.float64) / count).sqrt()
    nothing = distances.new_tensor(torch.nan)
    return ShapeErrors(mean.to(kept.dtype), rms.to(kept.dtype), torch.where(inside, distances, nothing))


def best_in_span(
    model: MorphableModel,
    truth: Float[Tensor, "faces vertices 3"],
    radius: float | None = 95.0,
    nose_tip: int = 30,
    scale: bool = True,
    neutral: bool = False,
) -> Float[Tensor, "faces vertices 3"]:
    """The shape of the model's span nearest to each true one (least squares over the crop), in the truth's place.

    Coefficients (without any prior), rotation, shift and, where `scale`, size are solved for together: linear least
    squares in all but the rotation, which takes Gauss-Newton steps until it stands. So `shape_errors(best, truth, ...,
    align=False).rms` is what no shape of the span goes below, however it is aligned: the bound that claim L5 asks for.
    Its mean distance and its errors after `align` have no such guarantee. `radius=None` counts every vertex; outside
    the crop the result is an extrapolation. `neutral` leaves the expressions out. Raises ValueError for a mesh of
    another number of vertices, and as `crop` does.
    """
    if truth.shape[1:] != model.mean.shape:
        raise ValueError(f"{model.name} has {len(model.mean)} vertices, the true shapes have {truth.shape[1]}")
    _check("the true shape", truth)
    basis = model.identity_basis if neutral else torch.cat([model.identity_basis, model.expression_basis])
    shifts = torch.eye(3).to(model.mean)[:, None].expand(-1, len(model.mean), -1)
    # The mean among the components is the size left free, and the problem stays linear.
    design = torch.cat([basis, shifts, *([model.mean[None]] if scale else [])]).double().flatten(1)  # (C, 3V)
    design = design / design.norm(dim=1, keepdim=True).clamp(min=1e-12)
    everywhere = torch.ones(1, len(model.mean), dtype=torch.bool, device=truth.device)
    best = torch.empty_like(truth)
    rows = max(1, CHUNK // 4 // len(model.mean))
    for start in range(0, len(truth), rows):
        aim = truth[start : start + rows]
        inside = everywhere if radius is None else crop(aim, model.landmarks, radius, nose_tip)
        best[start : start + rows] = _nearest(design, model.mean.double(), aim.double(), inside)
    return best


def _inverse_gram(design: Tensor, inside: Bool[Tensor, "faces vertices"]) -> Float[Tensor, "faces c c"]:
    """Pseudo-inverse of `D W D^T` for each face's crop; crops differ in few vertices: only those are counted anew."""
    common = inside.double().mean(0) > 0.5
    part = design.unflatten(1, (-1, 3))  # (C, V, 3)
    shared = part[:, common].flatten(1)
    gram = (shared @ shared.T).repeat(len(inside), 1, 1)
    for row, differs in enumerate(inside != common):
        for sign, which in ((1, differs & inside[row]), (-1, differs & common)):
            change = part[:, which].flatten(1)
            gram[row] += sign * change @ change.T
    return torch.linalg.pinv(gram, hermitian=True, rtol=1e-12)


def _nearest(design: Tensor, mean: Tensor, truth: Tensor, inside: Tensor) -> Tensor:
    """`best_in_span` of a few faces: D p + mean, turned and back in the truth's frame."""
    weights = inside.double()[..., None].expand(len(truth), -1, 1)
    # All in the model's axes, about the middle of the truth: x -> R^T (x - middle).
    middle = (truth * weights).sum(1, keepdim=True) / weights.sum(1, keepdim=True)
    rotation = similarity(mean[None], truth).rotation
    inverse = _inverse_gram(design, inside).expand(len(truth), -1, -1)
    axes = torch.eye(3).to(truth)[:, None, None]

    def project(vectors: Tensor) -> Tensor:  # (B, V, 3) -> (B, C)
        return (vectors * weights).flatten(1) @ design.T

    for _ in range(ROUNDS):
        aim = (truth - middle) @ rotation - mean
        right = project(aim)[..., None]
        first = inverse @ right
        shape = (first[..., 0] @ design).unflatten(-1, (-1, 3)) + mean
        turning = [torch.linalg.cross(axis.expand_as(shape), shape) for axis in axes]
        cross = torch.stack([project(column) for column in turning], 2)  # (B, C, 3)
        columns = torch.stack(turning, 1).flatten(2)  # (B, 3, 3V)
        weighted = (torch.stack(turning, 1) * weights[:, None]).flatten(2)
        normal = weighted @ columns.transpose(1, 2) - cross.transpose(1, 2) @ inverse @ cross
        residual = (weighted @ aim.flatten(1)[..., None]) - cross.transpose(1, 2) @ first
        turn = (torch.linalg.pinv(normal, hermitian=True) @ residual)[..., 0]
        if turn.abs().max() < 1e-7:  # a hundred-thousandth of a mm on a head
            break
        rotation = rotation @ axis_angle_to_matrix(turn)
    aim = (truth - middle) @ rotation - mean
    shape = ((inverse @ project(aim)[..., None])[..., 0] @ design).unflatten(-1, (-1, 3)) + mean
    return shape @ rotation.transpose(1, 2) + middle
