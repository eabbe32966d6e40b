"""What do the errors of MediaPipe's points bring to the fit of a photo? Prints a table, before and after.

"before": all 468 points with independent noise. "after": the shipped estimate (`bake/points.py`), made without the
people of LFW's folds 0 and 1. Needs the assets lfw, aflw2000-3d, the open scans, ict-facekit and mediapipe.
Usage: python benchmarks/photo_shape.py [--folds 0 1] [--estimate FILE] [--scans james leeperrysmith fran headsq]
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import normalize

from facenb.datasets.pictures.aflw2000 import read_aflw2000
from facenb.datasets.pictures.lfw import read_lfw
from facenb.datasets.scans.open_scans import prepared
from facenb.datasets.scans.views import render_views
from facenb.datasets.sets.build_photos import people_of_folds
from facenb.evaluation.claims import bootstrap, mean_of_pairs
from facenb.evaluation.landmarks import by_yaw, fitted_landmarks, mean_of_bins, nme
from facenb.evaluation.now import SEVEN, now_errors
from facenb.evaluation.recognition import verify
from facenb.evaluation.spread import ratio_of, within_and_between
from facenb.fitting.errors import SHIPPED, PointErrors
from facenb.photos.landmarks import MESH, detect
from facenb.photos.photo import fit_photos, ict_fitter
from facenb.photos.store import prepare_photos

SPAN = 45  # degrees of yaw to each side, in steps of 2: 45 views of each scan
LIPS = (13, 14)  # MediaPipe's points in the middle of the inner lips
OPEN = 8.0  # mm between them in an open mouth


def faces(paths):
    """Return MediaPipe's mesh points of photos, and which photos show a face."""
    photos = prepare_photos(paths)
    return photos.mesh, photos.found


def recognise(fitters, folds):
    """Verify LFW's pairs of these folds by fitted coefficients, and compare spread within and between people."""
    lfw = read_lfw()
    pairs, apart = [pair for pair in lfw.pairs() if pair.fold in folds], people_of_folds(lfw.pairs(), folds)
    paths = sorted({photo for pair in pairs for photo in (pair.first, pair.second)})
    row = {path: k for k, path in enumerate(paths)}
    points, found = faces(paths)
    train = [path for name, some in lfw.with_at_least(2).items() if name not in apart for path in some[:1]]
    for_mean, seen = faces(train)
    first, second = (torch.tensor([row[getattr(pair, side)] for pair in pairs]) for side in ("first", "second"))
    same, fold = torch.tensor([pair.same for pair in pairs]), torch.tensor([pair.fold for pair in pairs])
    person = torch.tensor(np.unique([path.parent.name for path in paths], return_inverse=True)[1])
    right = {}
    for name, fitter in fitters.items():
        start = time.process_time()
        fitted = fit_photos(fitter, points[found])
        milliseconds = 1e3 * (time.process_time() - start) / int(found.sum())
        codes = torch.zeros(len(paths), fitted.identity.shape[1])
        codes[found] = fitted.identity - fit_photos(fitter, for_mean[seen]).identity.mean(0)
        scores = (normalize(codes[first], dim=1) * normalize(codes[second], dim=1)).sum(1)
        result = verify(scores, same, fold)
        basis = fitter.model.identity_basis.flatten(1).double()
        values, vectors = torch.linalg.eigh(basis @ basis.T)
        in_mm = fitted.identity.double() @ (vectors * values.clamp(min=0).sqrt())
        people = [within_and_between(code, person[found]) for code in (fitted.identity, in_mm)]
        ratios = [bootstrap(ratio_of(*of_code), len(of_code[0])) for of_code in people]
        lips = list(LIPS)
        by_fold = ", ".join(f"{100 * rate:.1f}" for rate in result.values[:, 0].tolist())
        print(f"{name}: verification {100 * result.mean()['accuracy']:.2f} % (folds: {by_fold})", flush=True)
        print(f"  rms distance between over within people: coefficients {ratios[0]}, mm {ratios[1]}")
        print(f"  {milliseconds:.2f} ms of processor time a photo")
        right[name] = result.right.double()
        lip = fitter.embedding.vertices[lips], fitter.embedding.weights[lips]
        shape = fitter.model.shape(fitted.identity, fitted.expression)
        marks = (shape[:, lip[0]] * lip[1][..., None]).sum(2)
        drawn = fitted.camera.project(marks)[..., :2]
        gaps = [(p[:, 0] - p[:, 1]).norm(dim=1) / fitted.unit for p in (points[found][:, lips], drawn)]
        wide = gaps[0] > OPEN
        rms = float((gaps[0] - gaps[1])[wide].square().mean().sqrt())
        print(
            f"  open mouths ({int(wide.sum())}): {gaps[0][wide].mean():.1f} mm detected, {gaps[1][wide].mean():.1f} "
            f"drawn, rms difference {rms:.2f} mm",
            flush=True,
        )
    people = (np.array([getattr(pair, side).parent.name for pair in pairs]) for side in ("first", "second"))
    gain = mean_of_pairs(right["after"] - right["before"], *people).percent()
    print(f"paired gain in verification: {gain} points, {len(pairs)} pairs", flush=True)


def landmarks(fitters):
    """Compare the NME on AFLW2000-3D."""
    samples = [sample for sample in read_aflw2000()]
    truth, yaws = torch.stack([s.landmarks for s in samples]), torch.tensor([s.yaw for s in samples])
    points, found = faces([s.photo for s in samples])
    errors = {}
    for name, fitter in fitters.items():
        fitted = fit_photos(fitter, points[found])
        errors[name] = nme(fitted_landmarks(fitter.model, fitted), truth[found])
        bins = by_yaw(errors[name], yaws[found])
        print(f"{name}: NME {', '.join(f'{100 * b:.2f}' for b in bins.bins)}, mean {100 * bins.mean:.2f} %", flush=True)
    before, after = errors.values()
    owners = torch.arange(int(found.sum()))
    change = bootstrap(*mean_of_bins(after - before, yaws[found], owners))
    print(f"change of the mean {100 * change.value:+.2f} [{100 * change.low:+.2f}, {100 * change.high:+.2f}] points")


def scans(fitters, names):
    """Compare the shape at rest with open scans, from many views of each (NoW's protocol, mean distance)."""
    for name in names:
        scan = prepared(name).scan
        yaws = list(range(-SPAN + 1, SPAN, 2))
        seen = [detect(render_views(scan, [yaw])[0]) for yaw in yaws]
        points = torch.stack([found[0, :MESH] for found in seen if len(found)])
        model = next(iter(fitters.values())).model
        texts = [f"mean face {distance(scan, model, model.mean):.3f}"]
        for method, fitter in fitters.items():
            shapes = model.shape(fit_photos(fitter, points).identity)
            values = np.array([distance(scan, model, shape) for shape in shapes])
            texts.append(f"{method} {values.mean():.3f} (sd over views {values.std():.3f})")
        print(f"{name}, {len(points)} of {len(yaws)} views: {', '.join(texts)} mm", flush=True)


def distance(scan, model, vertices):
    """Return the mean distance in mm of a shape from a scan by NoW's protocol."""
    of_scan, marks = scan.landmarks[list(SEVEN)], model.landmarks.of(vertices)[list(SEVEN)]
    return float(now_errors(scan.vertices, of_scan, vertices, model.triangles, marks).distances.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folds", type=int, nargs="*", default=[0, 1], help="folds of LFW to verify")
    parser.add_argument("--estimate", type=Path, default=SHIPPED, help="a file of bake/points.py")
    parser.add_argument("--scans", nargs="*", default=["james", "leeperrysmith", "fran", "headsq"])
    asked = parser.parse_args()
    fitter = replace(ict_fitter(), errors=PointErrors.load(asked.estimate))
    fitters = {"before": replace(fitter, errors=None), "after": fitter}
    recognise(fitters, asked.folds)
    landmarks(fitters)
    scans(fitters, asked.scans)


if __name__ == "__main__":
    main()
