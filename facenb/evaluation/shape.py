"""Shape accuracy as Liu18 measures it, and the smallest error that any shape in a model's span can reach.

Shapes are aligned by Procrustes on the 3D landmarks and compared within a crop around the nose tip. Only the skin
counts: the paper's scans do not contain eyeballs or the inside of the mouth. The paper defines
"RMSE" as the mean of |s* - s| / n over shapes. Taken literally, this is too small by a factor of about sqrt(n). We
report the mean distance and the root mean square distance, each under its own name.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation
from torch import Tensor

from facenb.morphable.alignment import similarity
from facenb.morphable.model import MorphableModel

RADIUS = 95.0  # mm around the nose tip (Liu et al. 2018, section 4.1)
NOSE_TIP = 30  # of iBUG's 68 landmarks
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
    are computed over the skin near the true nose tip (`crop`). A truth with a batch of one is used for all predictions.
    The errors of a prediction that is not finite are NaN. Raise ValueError if the truth is not in mm, a prediction that
    is not aligned is not in mm, or the crop is empty.
    """
    if not align:
        check_millimetres("the predicted shape", predicted)
    inside, moved, target = crop(truth, model), predicted.double(), truth.double()
    if align:
        moved = similarity(model.landmarks.of(moved), model.landmarks.of(target)).apply(moved)
    distances = (moved - target).norm(dim=-1)
    kept, count = torch.where(inside, distances, 0.0), inside.sum(1)
    mean, rms = kept.sum(1) / count, (kept.square().sum(1) / count).sqrt()
    return ShapeErrors(*(x.to(predicted.dtype) for x in (mean, rms, torch.where(inside, distances, torch.nan))))


def best_in_span(
    model: MorphableModel, truth: Float[Tensor, "faces vertices 3"], neutral: bool = False
) -> Float[Tensor, "faces vertices 3"]:
    """Return the shape in the model's span that is nearest to each true shape (least squares over the crop).

    Solve for coefficients (without a prior), rotation, shift and size together. The result is aligned with the truth.
    No shape of the span, however it is aligned, has a smaller `shape_errors(..., align=False).rms`. Claim L5 needs this
    bound. It does not hold for the mean distance, or for errors after `align`. Outside the crop the result is an
    extrapolation. `neutral` leaves out the expressions. Raise ValueError as `crop` does.

    The shape is linear in all unknowns except the rotation. So, with the best other unknowns, the remaining error is
    linear in the nine entries of the rotation matrix. Only the three angles need an iterative solver.
    """
    basis = model.identity_basis if neutral else torch.cat([model.identity_basis, model.expression_basis])
    shifts = torch.eye(3).to(model.mean)[:, None].expand(-1, len(model.mean), -1)
    # With the mean face as one more component, the size is free and the problem stays linear.
    design = torch.cat([basis, shifts, model.mean[None]]).double()  # (C, V, 3)
    design = design / design.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None]
    best = torch.empty_like(truth)
    for row, inside in enumerate(crop(truth, model)):
        target, rows = truth[row].double(), design[:, inside].flatten(1)
        middle = target[inside].mean(0)
        # `turned` times the entries of R is X R. `rest` is its part outside the span, as a triangular matrix (9, 9).
        turned = torch.kron(target[inside] - middle, torch.eye(3).to(target))
        solution = torch.linalg.pinv(rows @ rows.T, hermitian=True, rtol=1e-12) @ (rows @ turned)
        rest = torch.linalg.qr(turned - rows.T @ solution).R.numpy()
        start = similarity(model.mean[None].double(), target[None]).rotation[0]
        turn = least_squares(
            lambda turn, rest=rest: rest @ Rotation.from_rotvec(turn).as_matrix().ravel(),
            Rotation.from_matrix(start.numpy()).as_rotvec(),
            xtol=1e-12,
            ftol=1e-12,
        ).x
        rotation = torch.from_numpy(Rotation.from_rotvec(turn).as_matrix())
        best[row] = torch.tensordot(solution @ rotation.ravel(), design, 1) @ rotation.T + middle
    return best
