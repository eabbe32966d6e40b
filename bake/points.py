"""Estimate how MediaPipe's points err on photographs, for the fit of ICT-FaceKit (`facenb.fitting.errors`).

A photo's points are `camera(mean + identity + expression) + bias + noise`. All photos of a person share the identity.
We linearise this at a first fit, and estimate bias and covariance of the noise and the variance of each expression by
expectation maximisation. A plain residual would be too small, since a fit absorbs part of the noise. Expectation
maximisation adds the part that the fit may have absorbed: the covariance of the unknowns, given the points.
The bias also holds how LFW's mean face differs from the model's mean face: photographs cannot tell the two apart.

`python bake/points.py` uses LFW's people outside folds 0 and 1 and writes the file that the package ships.
`--renders` takes bias and covariance from photographs of SynthFace instead, whose true points are known.
Usage: python bake/points.py [--apart 0 1] [--people 674] [--renders] [--out FILE]
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from facenb import savefile
from facenb.assets import asset
from facenb.datasets.pictures.lfw import read_lfw
from facenb.datasets.sets.build_photos import people_of_folds
from facenb.fitting.errors import KIND, SHIPPED, PointErrors, upright
from facenb.fitting.pose import pose_jacobian
from facenb.imaging.camera import matrix_to_euler
from facenb.photos.canonical import mediapipe_embedding, read_canonical
from facenb.photos.landmarks import IBUG68
from facenb.photos.photo import Fitter, fit_photos, read_ict
from facenb.photos.store import prepare_images, prepare_photos
from facenb.synthface import SynthFace, course_model
from facenb.synthface.photographs import photograph

POINTS = 100  # the 68 of iBUG and points far from them; more verify no better, the 68 alone have a higher NME
EDGES = (-40.0, -25.0, -12.0, 12.0, 25.0, 40.0)  # degrees of yaw
RANK, ROUNDS = 10, 3  # more of either overfits: verification of other training people falls
START, PSEUDO = 4.0, 150.0  # mm^2 of the first covariance; photos' worth of the mean covariance in each bin
MOST = 20  # photos of one person
LEAST = 0.02  # mm^2, variance of a point's own noise


def mirror_partners() -> Tensor:
    """Return for each mesh point its partner on the other side of the face."""
    mesh, _ = read_canonical(asset("mediapipe") / "canonical_face_model.obj")
    return torch.cdist(mesh * torch.tensor([-1.0, 1.0, 1.0]), mesh).argmin(1)


def choose_points(mean: Tensor) -> Tensor:
    """Return the mesh points to use, closed under mirroring: iBUG's and then always the farthest from those chosen."""
    chosen, partner = set(IBUG68) | set(mirror_partners()[list(IBUG68)].tolist()), mirror_partners()
    while len(chosen) < POINTS:
        farthest = int(torch.cdist(mean, mean[sorted(chosen)]).amin(1).argmax())
        chosen |= {farthest, int(partner[farthest])}
    return torch.tensor(sorted(chosen))


class Mirror:
    """Mirror vectors and matrices of point coordinates (x of all points, then y)."""

    def __init__(self, points: Tensor):
        row = {int(point): k for k, point in enumerate(points)}
        partner = torch.tensor([row[int(mirror_partners()[point])] for point in points])
        self.index = torch.cat([partner, len(points) + partner])
        self.sign = torch.cat([-torch.ones(len(points)), torch.ones(len(points))])

    def both(self, bins: Tensor) -> Tensor:
        """Return sums (bins, coordinates[, coordinates]) plus those of the mirrored photos, in the mirrored bin."""
        flipped = bins.flip(0)[:, self.index] * self.sign.view(-1, *[1] * (bins.ndim - 2))
        return bins + (flipped if bins.ndim == 2 else flipped[..., self.index] * self.sign)


class Linearised:
    """Points of photos, and their derivatives by pose, expression and identity, at a first fit; mm, face upright."""

    def __init__(self, fitter, points: Tensor, chosen: Tensor):
        fit, model = fit_photos(fitter, points), fitter.model
        mean, identity, expression = (
            fitter.embedding.of(part)[..., chosen, :]
            for part in (model.mean, model.identity_basis, model.expression_basis)
        )
        turn = upright(fit.camera.rotation)
        seen = (points[:, chosen] - fit.camera.translation[:, None]) * torch.tensor([1.0, -1.0])
        seen = (seen / fit.unit[:, None, None]) @ turn[:, :2, :2].mT
        rotation = turn @ fit.camera.rotation
        self.view = (fit.camera.scale / fit.unit)[:, None, None] * rotation
        self.bin = bin_of(rotation)
        self.basis = torch.cat([expression, identity])
        shape = torch.tensordot(torch.cat([fit.expression, fit.identity], 1), self.basis, 1)
        self.turned = (mean + shape) @ self.view.mT
        self.rest = (seen - (mean @ self.view.mT)[..., :2]).mT.flatten(1)

    def jacobian(self, rows: Tensor) -> Tensor:
        """Return the derivatives (rows, coordinates, 6 + expressions + identities)."""
        shape = torch.einsum("ncd,kpd->ncpk", self.view[rows, :2], self.basis)
        return torch.cat([pose_jacobian(self.turned[rows]), shape], -1).flatten(1, 2)


def bin_of(rotation: Tensor) -> Tensor:
    return torch.bucketize(matrix_to_euler(rotation)[:, 0].rad2deg().contiguous(), torch.tensor(EDGES))


def posterior(jacobian: Tensor, rest: Tensor, precision: Tensor, expression_variance: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean (photos, unknowns) and covariance of the unknowns of one person's photos; identity is shared."""
    local, weighted = 6 + len(expression_variance), precision @ jacobian
    normal, right = jacobian.mT @ weighted, (weighted.mT @ rest[..., None])
    inner = normal[:, :local, :local] + torch.diag(torch.cat([torch.full((6,), 1e-6), 1 / expression_variance]))
    factor = torch.linalg.cholesky(inner)
    solved = torch.cholesky_solve(torch.cat([normal[:, :local, local:], right[:, :local]], 2), factor)
    across, alone = solved[..., :-1], solved[..., -1]
    shared = (normal[:, local:, local:] - normal[:, local:, :local] @ across).sum(0)
    shared = torch.linalg.cholesky(shared + torch.eye(len(shared)))
    pull = (right[:, local:] - normal[:, local:, :local] @ alone[..., None]).sum(0)
    identity = torch.cholesky_solve(pull, shared)[:, 0]
    mean = torch.cat([alone - across @ identity, identity.expand(len(rest), -1)], 1)
    of_identity = torch.cholesky_inverse(shared)
    cross = -across @ of_identity
    top = torch.cat([torch.cholesky_inverse(factor) - cross @ across.mT, cross], 2)
    return mean, torch.cat([top, torch.cat([cross.mT, of_identity.expand(len(rest), -1, -1)], 2)], 1)


def expectation_maximisation(photos: Linearised, people: list[Tensor], mirror: Mirror) -> tuple[Tensor, ...]:
    """Return bias and covariance (by bin) and the variance of each expression. `people` holds rows of photos."""
    bins, size, expressions = len(EDGES) + 1, photos.rest.shape[1], len(photos.basis) - 100
    bias, variance = torch.zeros(bins, size), torch.ones(expressions)
    covariance = START * torch.eye(size).repeat(bins, 1, 1)
    for _ in range(ROUNDS):
        precision, total = torch.linalg.inv(covariance.double()).float(), torch.zeros(bins, size)
        square, spread, count = torch.zeros(bins, size, size), torch.zeros(expressions), torch.zeros(bins, 1)
        for rows in people:
            where, jacobian = photos.bin[rows], photos.jacobian(rows)
            mean, unknown = posterior(jacobian, photos.rest[rows] - bias[where], precision[where], variance)
            error = photos.rest[rows] - (jacobian @ mean[..., None])[..., 0]
            total.index_add_(0, where, error)
            square.index_add_(0, where, error[:, :, None] * error[:, None] + jacobian @ unknown @ jacobian.mT)
            count.index_add_(0, where, torch.ones(len(rows), 1))
            local = slice(6, 6 + expressions)
            spread += (mean[:, local].square() + unknown.diagonal(dim1=1, dim2=2)[:, local]).sum(0)
        variance = (spread + 0.25) / (count.sum() + 5)
        bias, covariance = moments(mirror.both(total), mirror.both(square), count + count.flip(0))
    return bias, covariance, variance


def moments(total: Tensor, square: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and covariance of each bin. Bins with few photos borrow from the mean covariance."""
    bias = total / count.clamp(min=1)
    centred = square - count[..., None] * bias[:, :, None] * bias[:, None]
    pooled = PSEUDO * centred.sum(0) / count.sum()
    return bias, (centred + pooled) / (count[..., None] + PSEUDO) + LEAST / 2 * torch.eye(total.shape[1])


def low_rank(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Return loading (coordinates, RANK) and variance (coordinates,) of one covariance: principal factors."""
    covariance = covariance.double()
    variance = 0.3 * covariance.diagonal()
    for _ in range(10):
        values, vectors = torch.linalg.eigh(covariance - torch.diag(variance))
        loading = vectors[:, -RANK:] * values[-RANK:].clamp(min=0).sqrt()
        variance = (covariance - loading @ loading.T).diagonal().clamp(min=LEAST)
    return loading.float(), variance.float()


def of_renders(chosen: Tensor, mirror: Mirror, people: int = 700) -> tuple[Tensor, Tensor]:
    """Return bias and covariance of MediaPipe's points on photographs of SynthFace (two of each person)."""
    embedding, size, bins = mediapipe_embedding(course_model()), 2 * len(chosen), len(EDGES) + 1
    total, square, count = torch.zeros(bins, size), torch.zeros(bins, size, size), torch.zeros(bins, 1)
    for first in range(0, people, 25):
        subjects = [20_000 + k for k in range(first, first + 25) for _ in range(2)]
        shots = photograph(SynthFace(0), subjects, [300, 301] * 25, size=(256, 256), yaw_limit=60)
        shown = torch.where(shots.image < 0.0031308, 12.92 * shots.image, 1.055 * shots.image ** (1 / 2.4) - 0.055)
        seen, true = prepare_images(shown.clamp(0, 1)).mesh, shots.camera.project(embedding.of(shots.shape))[..., :2]
        error = (seen - true) * torch.tensor([1.0, -1.0]) / shots.camera.scale[:, None, None]
        found = error.norm(dim=-1).mean(1) < 15  # mm; false where no face or another face was found
        turn = upright(shots.camera.rotation)
        error = (error @ turn[:, :2, :2].mT)[found][:, chosen].mT.flatten(1)
        where = bin_of(turn @ shots.camera.rotation)[found]
        total.index_add_(0, where, error)
        square.index_add_(0, where, error[:, :, None] * error[:, None])
        count.index_add_(0, where, torch.ones(len(error), 1))
    return moments(mirror.both(total), mirror.both(square), count + count.flip(0))


def estimate(apart: list[int], people: int | None = None, renders: bool = False) -> tuple[PointErrors, dict]:
    """Return the estimate from LFW's people outside the folds `apart` (the first `people`), and its facts."""
    lfw, model = read_lfw(), read_ict()
    fitter = Fitter(model, mediapipe_embedding(model))
    names = sorted(lfw.with_at_least(2).keys() - people_of_folds(lfw.pairs(), apart))[:people]
    photos = prepare_photos([path for name in names for path in lfw.people[name][:MOST]])
    owner = torch.tensor([k for k, name in enumerate(names) for _ in lfw.people[name][:MOST]])[photos.found]
    chosen = choose_points(fitter.embedding.of(model.mean))
    mirror, linear = Mirror(chosen), Linearised(fitter, photos.mesh[photos.found], chosen)
    groups = torch.arange(len(owner)).split(torch.bincount(owner)[torch.bincount(owner) > 0].tolist())
    bias, covariance, variance = expectation_maximisation(linear, groups, mirror)
    if renders:
        bias, covariance = of_renders(chosen, mirror)
    loading, own = map(torch.stack, zip(*map(low_rank, covariance), strict=True))
    source = "photographs of SynthFace with known points" if renders else "multi-photo fits"
    facts = {"source": source, "data": "LFW", "apart": apart, "people": len(names), "photos": len(owner)}
    facts |= {"model": model.name, "command": "python bake/points.py"}
    return PointErrors(chosen, torch.tensor(EDGES), bias, loading, own, 1 / variance), facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--apart", type=int, nargs="*", default=[0, 1], help="folds of LFW whose people are not used")
    parser.add_argument("--people", type=int, help="use only the first people, to choose settings on the others")
    parser.add_argument("--renders", action="store_true", help="bias and covariance from renders with exact truth")
    parser.add_argument("--out", type=Path, default=SHIPPED)
    asked = parser.parse_args()
    errors, facts = estimate(asked.apart, asked.people, asked.renders)
    print(savefile.save(asked.out, KIND, vars(errors), facts), facts)


if __name__ == "__main__":
    main()
