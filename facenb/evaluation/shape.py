"""Shape accuracy as Liu18 measures it, and the smallest error that any shape in a model's span can reach.

Shapes are aligned by Procrustes on the 3D landmarks and compared within a crop around the nose tip. Only the skin
counts: eyeballs and the inside of the mouth are no part of the paper's scans. The paper defines
"RMSE" as the mean of |s* - s| / n over shapes. Taken literally, this is too small by a factor of about sqrt(n). We
report the mean distance and the root mean square distance, each under its own name.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from facenb.morphable.alignment import similarity
from facenb.morphable.model import MorphableModel, axis_angle_to_matrix

RADIUS = 95.0  # mm around the nose tip (Liu et al. 2018, section 4.1)
NOSE_TIP = 30  # of iBUG's 68 landmarks
CHUNK = 2**20  # vertices at a time: memory does not grow with the number of faces
ROUNDS = 20
SPREAD = (3.0, 1000.0)  # mm: plausible spread of vertices about their mean, from part of an eye to a whole body


@dataclass(frozen=True)
class ShapeErrors:
    """Distances of corresponding vertices within the crop, in mm."""

    mean: Float[Tensor, " faces"]  # mean distance
    rms: Float[Tensor, " faces"]  # root mean square distance
    per_vertex: Float[Tensor, "faces vertices"]  # NaN outside the crop

    def map(self) -> Float[Tensor, " vertices"]:
        """Return each vertex's mean distance over the faces with this vertex in the crop; NaN if there is none."""
        return self.per_vertex.nanmean(0)


def _check(name: str, vertices: Tensor) -> None:
    usable = vertices.isfinite().flatten(1).all(1)
    if not usable.all():
        raise ValueError(f"{name} of face {int((~usable).nonzero()[0])} is not finite; leave out missing shapes")


def check_millimetres(name: str, points: Float[Tensor, "*faces points 3"]) -> None:
    """Raise ValueError unless the spread of the points (root mean square about their mean) is plausible in mm.

    This finds points in metres or micrometres, for any part of a head. It cannot find centimetres, since a head in cm
    is as large as an eye in mm.
    """
    spread = points.var(-2, correction=0).sum(-1).sqrt()
    strange = spread[~((spread >= SPREAD[0]) & (spread <= SPREAD[1]))]  # true for NaN, too
    if len(strange):
        raise ValueError(
            f"{name} is not in mm: its spread about the mean is {float(strange[0]):.3g}, but {SPREAD[0]:g} to "
            f"{SPREAD[1]:g} is expected (about 80 for a face); convert it to mm"
        )


def crop(vertices: Float[Tensor, "faces vertices 3"], model: MorphableModel) -> Bool[Tensor, "faces vertices"]:
    """Return which vertices are skin (`MorphableModel.skin`) and lie within RADIUS of a face's nose tip.

    Raise ValueError if the vertices are not in mm, or if none is that near.
    """
    check_millimetres("the shape", vertices)
    tip = model.landmarks.of(vertices)[:, NOSE_TIP]
    inside = ((vertices - tip[:, None]).square().sum(-1) <= RADIUS**2) & model.skin
    if not inside.any(1).all():
        raise ValueError(f"no vertex of the skin lies within {RADIUS} mm of the nose tip; check the landmarks")
    return inside


def shape_errors(
    predicted: Float[Tensor, "faces vertices 3"],
    truth: Float[Tensor, "#faces vertices 3"],
    model: MorphableModel,
    align: bool = True,
) -> ShapeErrors:
    """Return the errors of predicted shapes whose vertices correspond to the truth (Liu18, section 4.1).

    Unless `align` is False, a similarity first aligns the landmarks of each prediction with the true landmarks. Errors
    are computed over the skin near the true nose tip (`crop`). A truth with a batch of one is used for all
    predictions. Raise ValueError if a shape is not finite, the truth is not in mm, a prediction that is not aligned is
    not in mm, or the crop is empty.
    """
    _check("the predicted shape", predicted)
    _check("the true shape", truth)
    if not align:
        check_millimetres("the predicted shape", predicted)
    inside = crop(truth, model).expand(len(predicted), -1)
    truth = truth.expand(len(predicted), -1, -1)
    distances = predicted.new_empty(predicted.shape[:2])
    rows = max(1, CHUNK // predicted.shape[1])
    for start in range(0, len(predicted), rows):
        chunk = slice(start, start + rows)
        moved, target = predicted[chunk].double(), truth[chunk].double()
        if align:
            moved = similarity(model.landmarks.of(moved), model.landmarks.of(target)).apply(moved)
        distances[chunk] = (moved - target).norm(dim=-1).to(distances.dtype)
    count = inside.sum(1)
    kept = torch.where(inside, distances, 0.0).double()
    mean, rms = kept.sum(1) / count, (kept.square().sum(1) / count).sqrt()
    outside = distances.new_tensor(torch.nan)
    return ShapeErrors(mean.to(distances.dtype), rms.to(distances.dtype), torch.where(inside, distances, outside))


def best_in_span(
    model: MorphableModel, truth: Float[Tensor, "faces vertices 3"], neutral: bool = False
) -> Float[Tensor, "faces vertices 3"]:
    """Return the shape in the model's span that is nearest to each true shape (least squares over the crop).

    Solve for coefficients (without a prior), rotation, shift and size together. The problem is linear in all of them
    except the rotation, which takes Gauss-Newton steps. The result is aligned with the truth. No shape in the span has
    a smaller rms, however it is aligned, than `shape_errors(best, truth, ..., align=False).rms`. Claim L5 needs this
    bound. It does not hold for the mean distance, or for errors after `align`. Outside the crop the result is an
    extrapolation. `neutral` leaves out the expressions. Raise ValueError for a truth that is not finite, or as `crop`.
    """
    _check("the true shape", truth)
    basis = model.identity_basis if neutral else torch.cat([model.identity_basis, model.expression_basis])
    shifts = torch.eye(3).to(model.mean)[:, None].expand(-1, len(model.mean), -1)
    # With the mean face as one more component, the size is free and the problem stays linear.
    design = torch.cat([basis, shifts, model.mean[None]]).double().flatten(1)  # (C, 3V)
    design = design / design.norm(dim=1, keepdim=True).clamp(min=1e-12)
    best = torch.empty_like(truth)
    rows = max(1, CHUNK // 4 // len(model.mean))
    for start in range(0, len(truth), rows):
        target = truth[start : start + rows]
        best[start : start + rows] = _nearest(design, model.mean.double(), target.double(), crop(target, model))
    return best


def _inverse_gram(design: Tensor, inside: Bool[Tensor, "faces vertices"]) -> Float[Tensor, "faces c c"]:
    """Return the pseudo-inverse of `D W D^T` for each face's crop.

    Crops differ in few vertices, so the product over the common vertices is computed once.
    """
    common = inside.double().mean(0) > 0.5
    columns = design.unflatten(1, (-1, 3))  # (C, V, 3)
    shared = columns[:, common].flatten(1)
    gram = (shared @ shared.T).repeat(len(inside), 1, 1)
    for row, differs in enumerate(inside != common):
        for sign, which in ((1, differs & inside[row]), (-1, differs & common)):
            change = columns[:, which].flatten(1)
            gram[row] += sign * change @ change.T
    return torch.linalg.pinv(gram, hermitian=True, rtol=1e-12)


def _nearest(design: Tensor, mean: Tensor, truth: Tensor, inside: Tensor) -> Float[Tensor, "faces vertices 3"]:
    """Return `best_in_span` of a few faces: D p + mean, rotated back to the axes of the truth."""
    weights = inside.double()[..., None]
    # Work on the model's axes, with the mean of the truth as origin: x -> R^T (x - middle).
    middle = (truth * weights).sum(1, keepdim=True) / weights.sum(1, keepdim=True)
    rotation = similarity(mean[None], truth).rotation
    inverse = _inverse_gram(design, inside)
    axes = torch.eye(3).to(truth)[:, None, None]

    def project(vectors: Tensor) -> Tensor:  # (B, V, 3) -> (B, C)
        return (vectors * weights).flatten(1) @ design.T

    for _ in range(ROUNDS):
        target = (truth - middle) @ rotation - mean
        right = project(target)[..., None]
        solution = inverse @ right
        shape = (solution[..., 0] @ design).unflatten(-1, (-1, 3)) + mean
        turning = [torch.linalg.cross(axis.expand_as(shape), shape) for axis in axes]
        cross = torch.stack([project(column) for column in turning], 2)  # (B, C, 3)
        columns = torch.stack(turning, 1).flatten(2)  # (B, 3, 3V)
        weighted = (torch.stack(turning, 1) * weights[:, None]).flatten(2)
        normal = weighted @ columns.transpose(1, 2) - cross.transpose(1, 2) @ inverse @ cross
        residual = (weighted @ target.flatten(1)[..., None]) - cross.transpose(1, 2) @ solution
        turn = (torch.linalg.pinv(normal, hermitian=True) @ residual)[..., 0]
        if turn.abs().max() < 1e-7:  # a hundred-thousandth of a mm on a head
            break
        rotation = rotation @ axis_angle_to_matrix(turn)
    target = (truth - middle) @ rotation - mean
    shape = ((inverse @ project(target)[..., None])[..., 0] @ design).unflatten(-1, (-1, 3)) + mean
    return shape @ rotation.transpose(1, 2) + middle
