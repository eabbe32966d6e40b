"""Build training sets of photographs (landmarks of MediaPipe, multi-image fits, crops), and LFW's pairs for tests.

The targets of a mirrored photo come from a fit to the mirrored landmarks. MediaPipe's mesh is symmetric, so each point
is exchanged with its mirror partner. Therefore the model need not be symmetric.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from facenb.datasets.pictures.insightface_bin import read_records
from facenb.datasets.pictures.lfw import LFW, Pair, Pairs
from facenb.datasets.pictures.w300lp import read_turn
from facenb.datasets.sets.build_synthetic import blocks_of, build_faces, fitted_targets
from facenb.datasets.sets.faces import TURNED, FaceSet, describe
from facenb.fitting import fit
from facenb.fitting.posed import mirrored_move
from facenb.morphable.model import MorphableModel
from facenb.photos.canonical import mirrored_landmarks
from facenb.photos.crops import crop_photos, five_of_68, to_template
from facenb.photos.photo import Fitter, fit_photos
from facenb.photos.store import Prepared, prepare_images, prepare_photos


def _build(
    folder: str | Path,
    people: dict[str, Sequence],
    rows: Callable[[list, Tensor], dict[str, Tensor]],
    card: dict,
    size: tuple[int, int],
    model: MorphableModel,
) -> FaceSet:
    """Return the set of all people's photos, subjects in the order of `names`. `rows` makes the rows of a block."""
    groups = list(people.values())
    counts = list(map(len, groups))

    def rows_of(block: list[int]) -> dict[str, Tensor]:
        subject = torch.tensor([number for number in block for _ in groups[number]])
        return rows([photo for number in block for photo in groups[number]], subject)

    card = {**card, "model": describe(model), "size": list(size), "names": list(people), "pictures_given": sum(counts)}
    return build_faces(folder, card, rows_of, blocks_of(counts))


def _rows(
    prepare: Callable[[list], Prepared], fitter: Fitter, size: tuple[int, int], photos: list, subject: Tensor
) -> dict[str, Tensor]:
    """Return the rows of a block: crops, the targets of the fit, and the targets of the mirrored photo.

    Photos without a face are left out, then people with fewer than two photos (see FaceSet.left_out).
    """
    photos = prepare(photos)
    usable = photos.found & (subject[photos.found].bincount(minlength=int(subject.max()) + 1)[subject] >= 2)
    if not usable.any():
        return {}
    photos, subject = photos[usable], subject[usable]
    move, width = to_template(photos.five, size), photos.size[:, 1].float()
    plain = fit_photos(fitter, photos.mesh, subject)
    turned = fit_photos(fitter, mirrored_landmarks(photos.mesh, width), subject)
    targets = fitted_targets(plain, move) | fitted_targets(turned, mirrored_move(move, width, size[1]), TURNED)
    return {"image": photos.crops(size), "subject": subject, **targets}


def people_of_folds(pairs: Sequence[Pair], folds: Sequence[int]) -> set[str]:
    """Return the names of all people who occur in a pair of these folds."""
    return {photo.parent.name for pair in pairs if pair.fold in folds for photo in (pair.first, pair.second)}


def build_folder(
    folder: str | Path,
    people: dict[str, Sequence[Path]],
    at_least: int,
    size: tuple[int, int],
    fitter: Fitter,
    aligned: bool = False,
) -> FaceSet:
    """Return people with `at_least` or more images as a training set. `read_folder` and `read_lfw` return such people.

    `aligned` images are already 112x112 and aligned to InsightFace's five points; others are cropped by landmarks.
    Raises ImageError naming an aligned image of another size. To train on several choices of LFW's folds, exclude the
    people of each choice with `FaceSet.split(without=...)`.
    """
    card = {"kind": "folder", "at_least": at_least, "aligned": aligned}
    people = {name: images for name, images in people.items() if len(images) >= at_least}
    rows = partial(_rows, partial(prepare_photos, aligned=aligned), fitter, size)
    return _build(folder, people, rows, card, size, fitter.model)


def build_records(
    folder: str | Path, records: str | Path, at_least: int, size: tuple[int, int], fitter: Fitter
) -> FaceSet:
    """Return people with `at_least` or more images in a record file (CASIA-WebFace's `train.rec`) as a training set.

    Images are aligned as in `build_folder`. People are named by their labels. Raises AssetError or ImageError.
    """
    given, people = read_records(records), {}
    for index, label in enumerate(given.labels.tolist()):
        people.setdefault(label, []).append(index)
    people = {str(label): people[label] for label in sorted(people) if len(people[label]) >= at_least}

    def prepare(indices: list[int]) -> Prepared:
        return prepare_images((given.image(index).float() / 255 for index in indices), aligned=True)

    card = {"kind": "records", "at_least": at_least}
    return _build(folder, people, partial(_rows, prepare, fitter, size), card, size, fitter.model)


def build_w300lp(
    folder: str | Path, model: MorphableModel, sources: dict[str, list[Path]], size: tuple[int, int]
) -> FaceSet:
    """Return 300W-LP (`read_w300lp`) as a training set: crops, and the fit of `model` to all turns of a photo.

    The jaw line does not slide, because all landmarks, even hidden ones, are fixed points of a face.
    """

    def rows(images: list[Path], subject: Tensor) -> dict[str, Tensor]:
        samples = [read_turn(image) for image in images]
        seen = torch.stack([sample.landmarks for sample in samples])
        five = five_of_68(seen)
        crops = crop_photos([sample.image() for sample in samples], five, size)
        targets = fitted_targets(fit(model, seen, subject, contour="fixed"), to_template(five, size))
        return {"image": crops, "subject": subject, **targets}

    return _build(folder, sources, rows, {"kind": "300w-lp"}, size, model)


class PairCrops(NamedTuple):
    """Crops of photos, and pairs of them. If no face is found in a photo, the crop is the middle of the photo."""

    image: UInt8[Tensor, "photos height width 3"]
    photos: tuple[Path, ...]
    pairs: Pairs
    identity: Float[Tensor, "photos identity"]  # whitened, from a fit to each photo; without a face, the others' mean


def lfw_test_crops(folds: Sequence[int], size: tuple[int, int], lfw: LFW, fitter: Fitter) -> PairCrops:
    """Return crops of every photo in a pair of these folds, and the pairs. Raises ValueError for an unknown fold."""
    pairs = [pair for pair in lfw.pairs() if pair.fold in folds]
    absent = set(folds) - {pair.fold for pair in pairs}
    if absent or not pairs:
        raise ValueError(f"folds {sorted(absent) or list(folds)} are not in {lfw.pairs_file}, whose folds count from 0")
    paths = sorted({photo for pair in pairs for photo in (pair.first, pair.second)})
    row_of = {path: row for row, path in enumerate(paths)}
    photos = prepare_photos(paths)
    fitted = photos[photos.found].fit(fitter).identity
    identity = fitted.mean(0).repeat(len(photos), 1)
    identity[photos.found] = fitted
    rows = [(row_of[pair.first], row_of[pair.second], pair.same, pair.fold) for pair in pairs]
    columns = (torch.tensor(column) for column in zip(*rows, strict=True))
    return PairCrops(photos.crops(size), tuple(paths), Pairs(*columns), identity)
