"""Training sets of photographs: MediaPipe's landmarks, multi-image fits of a person's photos, crops.

Targets of the mirrored photo are the fit of the mirrored landmarks: in MediaPipe's mesh, which is symmetric, each point
changes places with its partner. So the model need not be symmetric.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from facenb.datasets.pictures.folders import read_folder
from facenb.datasets.pictures.lfw import LFW, Pair
from facenb.datasets.pictures.records import read_records
from facenb.datasets.pictures.w300lp import W300LP
from facenb.datasets.sets.build_synthetic import TOGETHER, fitted_targets
from facenb.datasets.sets.faces import TURNED, FaceSet, describe, read_faces
from facenb.fitting import fit
from facenb.fitting.posed import mirrored_move
from facenb.morphable.model import MorphableModel
from facenb.photos.canonical import mirrored_landmarks
from facenb.photos.crops import crop_photos, five_of_68, to_template
from facenb.photos.photo import Fitter, fit_photos
from facenb.photos.store import Prepared, prepare_images, prepare_photos
from facenb.table import build_table


def _build(
    folder: str | Path,
    people: dict[str, Sequence],
    rows: Callable[[list, Tensor], dict[str, Tensor]],
    card: dict,
    size: tuple[int, int],
    model: MorphableModel,
) -> FaceSet:
    """Return the set of all people's photos; `rows` makes the rows of a few people's, given whose each photo is.

    A subject's number is its place in the card's `names`. Raises RunError if the folder holds another set, or nobody
    is left.
    """
    groups = list(people.values())
    counts = list(map(len, groups))
    card = {**card, "model": describe(model), "size": list(size), "names": list(people), "pictures_given": sum(counts)}
    blocks = _blocks(counts)

    def make(first: int) -> Iterator[dict[str, Tensor]]:
        for block in blocks[first:]:
            subject = torch.tensor([number for number in block for _ in groups[number]])
            yield rows([photo for number in block for photo in groups[number]], subject)

    build_table(folder, card, make, len(blocks))
    return read_faces(folder)


def _blocks(counts: Sequence[int]) -> list[list[int]]:
    """Return the numbers of the people of each block, so that it has about TOGETHER images."""
    blocks, held = [[]], 0
    for number, count in enumerate(counts):
        if held and held + count > TOGETHER:
            blocks, held = [*blocks, []], 0
        blocks[-1].append(number)
        held += count
    return blocks


def _rows(
    prepare: Callable[[list], Prepared], fitter: Fitter, size: tuple[int, int], photos: list, subject: Tensor
) -> dict[str, Tensor]:
    """Return the rows of a block: crops with the targets of the fit, and those of the mirrored photo.

    Photos without a face are left out, then people with fewer than two photos (see FaceSet.left_out).
    """
    photos = prepare(photos)
    usable = photos.found.clone()
    usable &= subject[usable].bincount(minlength=int(subject.max()) + 1)[subject] >= 2
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


def build_lfw(folder: str | Path, at_least: int, size: tuple[int, int], lfw: LFW, fitter: Fitter) -> FaceSet:
    """Return LFW's people with `at_least` photos as a training set.

    To train on several choices of folds, leave the people of each choice out by `FaceSet.split(without=...)`.
    """
    card = {"kind": "lfw", "at_least": at_least}
    rows = partial(_rows, prepare_photos, fitter, size)
    return _build(folder, lfw.with_at_least(at_least), rows, card, size, fitter.model)


def build_folder(
    folder: str | Path,
    pictures: str | Path,
    at_least: int,
    size: tuple[int, int],
    fitter: Fitter,
    aligned: bool = False,
) -> FaceSet:
    """Return the people with `at_least` images in a folder with one directory for each person as a training set.

    `aligned` images are 112x112 on InsightFace's five points already; others are cropped by their landmarks. Raises
    ImageError naming an aligned image of another size; otherwise as read_folder.
    """
    people, card = read_folder(pictures), {"kind": "folder", "at_least": at_least, "aligned": aligned}
    people = {name: images for name, images in people.items() if len(images) >= at_least}
    rows = partial(_rows, partial(prepare_photos, aligned=aligned), fitter, size)
    return _build(folder, people, rows, card, size, fitter.model)


def build_records(
    folder: str | Path,
    records: str | Path,
    at_least: int,
    size: tuple[int, int],
    fitter: Fitter,
    aligned: bool = True,
) -> FaceSet:
    """Return the people with `at_least` images in a record file (CASIA-WebFace's `train.rec`), as build_folder.

    People are named by their labels. Raises AssetError for a damaged file.
    """
    given, people = read_records(records), {}
    for index, label in enumerate(given.labels.tolist()):
        people.setdefault(label, []).append(index)
    people = {str(label): people[label] for label in sorted(people) if len(people[label]) >= at_least}

    def prepare(indices: list[int]) -> Prepared:
        return prepare_images((given.picture(index).float() / 255 for index in indices), aligned)

    card = {"kind": "records", "at_least": at_least, "aligned": aligned}
    return _build(folder, people, partial(_rows, prepare, fitter, size), card, size, fitter.model)


def build_w300lp(folder: str | Path, model: MorphableModel, data: W300LP, size: tuple[int, int]) -> FaceSet:
    """Return 300W-LP as a training set: crops, and the fit of `model` to the landmarks of all turns of a photo.

    The jaw line does not slide, because the landmarks are fixed points of a face, hidden ones too.
    """

    def rows(images: list[int], subject: Tensor) -> dict[str, Tensor]:
        samples = [data[row] for row in images]
        seen = torch.stack([sample.landmarks for sample in samples])
        five = five_of_68(seen)
        crops = crop_photos([sample.image() for sample in samples], five, size)
        targets = fitted_targets(fit(model, seen, subject, contour="fixed"), to_template(five, size))
        return {"image": crops, "subject": subject, **targets}

    return _build(folder, data.sources, rows, {"kind": "300w-lp"}, size, model)
