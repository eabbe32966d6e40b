"""Training and test sets from photographs: landmarks by MediaPipe, multi-image fits of a person's photos, crops.

Targets of the mirrored photo are the fit of the mirrored landmarks: of MediaPipe's mesh, which is symmetric, each point
changes places with its partner. No symmetry of the model is needed.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from facenb.assets import asset
from facenb.datasets.pictures.folders import read_folder
from facenb.datasets.pictures.records import read_records
from facenb.datasets.sets.build_set import TOGETHER, finished, write_set
from facenb.datasets.sets.training_set import TrainingSet, describe
from facenb.errors import AssetError
from facenb.fitting import Fit, fit
from facenb.fitting.posed import mirrored_move, move_camera, pose_of
from facenb.photos.canonical import read_canonical
from facenb.photos.crops import ALIGNED, crop_centres, crop_faces, to_template
from facenb.photos.images import read_image
from facenb.photos.landmarks import MESH, POINTS, detect, five_points
from facenb.photos.photo import LIMIT, PRIOR, Fitter, ict_fitter

AT_ONCE = 16  # photos held in memory


@functools.cache
def _partners() -> Int[Tensor, " 468"]:
    """The point of MediaPipe's mesh at the mirrored place of each."""
    mesh, _ = read_canonical(asset("mediapipe") / "canonical_face_model.obj")
    away = torch.cdist(mesh * torch.tensor([-1.0, 1.0, 1.0]), mesh)
    return away.argmin(1)


def mirrored_landmarks(points: Float[Tensor, "photos 468 2"], width: Float[Tensor, " photos"]) -> Tensor:
    """Where MediaPipe's mesh points would lie on photos of `width` pixels turned left to right."""
    turned = points[:, _partners()]
    return torch.stack([width[:, None] - turned[..., 0], turned[..., 1]], -1)


def fit_photos(fitter: Fitter, points: Float[Tensor, "photos 468 2"], subject: Int[Tensor, " photos"] | None) -> Fit:
    """The model of `fitter` on MediaPipe's mesh points, with the prior that goes with so many (facenb.photos.photo)."""
    priors = {"identity_prior": PRIOR, "expression_prior": PRIOR}
    return fit(fitter.model, points, subject, contour="fixed", embedding=fitter.embedding, **priors)


def crop_photos(
    images: Sequence[Float[Tensor, "_height _width 3"]],
    points: Float[Tensor, "photos 5 2"],
    size: tuple[int, int],
) -> UInt8[Tensor, "photos rows columns 3"]:
    """Crops of photos of any sizes, those of one size together; where points are NaN, the middle of the photo."""
    crops = torch.empty(len(images), *size, 3, dtype=torch.uint8)
    groups: dict[tuple, list[int]] = {}
    for index, image in enumerate(images):
        groups.setdefault((*image.shape[:2], bool(points[index].isnan().any())), []).append(index)
    for (_, _, missing), some in groups.items():
        stack = torch.stack([images[index] for index in some])
        crops[some] = crop_centres(stack, size) if missing else crop_faces(stack, points[some], size)
    return crops


@dataclass(frozen=True)
class Source:
    """People and their photos, however they are kept."""

    people: dict[str, list]  # name to the keys of photos
    photo: Callable[[Any], Float[Tensor, "height width 3"]]
    landmarks: Callable[[list, list[Tensor]], Float[Tensor, "photos 478 2"]]  # of keys and photos; NaN where no face
    aligned: bool = False  # five points already at 112x112: not cropped by their landmarks


def _batches(source: Source, together: int) -> list[list[int]]:
    """People by number, so many that their photos are about `together`."""
    batches, held = [[]], 0
    for number, photos in enumerate(source.people.values()):
        if held and held + len(photos) > together:
            batches, held = [*batches, []], 0
        batches[-1].append(number)
        held += len(photos)
    return batches


def _rows(source: Source, people: list[int], fitter: Fitter, size: tuple[int, int]) -> dict[str, Tensor]:
    """The rows of some people; photos without a face are left out, then people with fewer than two."""
    names = list(source.people)
    keys = [key for number in people for key in source.people[names[number]]]
    subject = torch.tensor([number for number in people for _ in source.people[names[number]]])
    points, width, crops, fives = [], [], [], []
    for first in range(0, len(keys), AT_ONCE):
        some = keys[first : first + AT_ONCE]
        photos = [source.photo(key) for key in some]
        points.append(source.landmarks(some, photos))
        width += [float(photo.shape[1]) for photo in photos]
        five = torch.stack([five_points(one) for one in points[-1]])
        if source.aligned:
            five = (torch.tensor(ALIGNED) + 0.5).expand(len(photos), -1, -1)
        fives.append(five)
        crops.append(crop_photos(photos, five, size))
    mesh = torch.cat(points)[:, :MESH]
    usable = ~mesh.isnan().any(2).any(1)
    usable &= torch.bincount(subject[usable], minlength=len(names))[subject] >= 2
    if not usable.any():
        return {}
    mesh, subject, wide = mesh[usable], subject[usable], torch.tensor(width)[usable]
    found = fit_photos(fitter, mesh, subject)
    other = fit_photos(fitter, mirrored_landmarks(mesh, wide), subject)
    onto = to_template(torch.cat(fives)[usable], size)
    return {"image": torch.cat(crops)[usable], "subject": subject,
            "identity": found.identity[found.subject], "expression": found.expression,
            "identity_mirrored": other.identity[other.subject], "expression_mirrored": other.expression,
            "pose": pose_of(move_camera(found.camera, onto)),
            "pose_mirrored": pose_of(move_camera(other.camera, mirrored_move(onto, wide, size[1])))}  # fmt: skip


def build_photos(
    folder: str | Path, source: Source, card: dict, size: tuple[int, int], fitter: Fitter | None = None,
    quiet: bool = False,
) -> TrainingSet:  # fmt: skip
    """The training set of any source of photos; `TrainingSet.left_out` tells of photos without a face.

    Raises RunError where the folder holds another set, or no person has two photos with a face.
    """
    fitter, folder = fitter or ict_fitter(), Path(folder)
    card = {**card, "model": describe(fitter.model), "size": list(size), "names": list(source.people),
            "pictures_given": sum(map(len, source.people.values()))}  # fmt: skip
    ready = finished(folder, card, fitter.model)
    if ready is not None:
        return ready
    batches = _batches(source, TOGETHER)

    def make(first: int) -> Iterator[dict[str, Tensor]]:
        for people in batches[first:]:
            yield _rows(source, people, fitter, size)

    return write_set(folder, card, len(batches), make, quiet)


def _check_people(people: dict[str, list], at_least: int, where: Path, leave_out: bool) -> dict[str, list]:
    """The people with enough pictures; AssetError naming one with fewer, unless such are to be left out."""
    few = {name: len(some) for name, some in people.items() if len(some) < at_least}
    if few and not leave_out:
        name, count = next(iter(few.items()))
        raise AssetError(
            f"{name} in {where} has {count} picture{'s' if count > 1 else ''}, fewer than {at_least} ({len(few)} such "
            "people); add some, or leave these people out with leave_out=True"
        )
    kept = {name: some for name, some in people.items() if name not in few}
    if not kept:
        raise AssetError(f"nobody in {where} has {at_least} pictures; there is nothing to train on")
    return kept


def _check_aligned(photo: Tensor, what: str) -> Tensor:
    if photo.shape[:2] != (112, 112):
        raise AssetError(
            f"{what} is {photo.shape[1]} x {photo.shape[0]} pixels; aligned pictures are all 112 x 112: "
            "scale it, or give aligned=False to crop by landmarks"
        )
    return photo


def detect_padded(photos: list[Float[Tensor, "_height _width 3"]]) -> Float[Tensor, "photos 478 2"]:
    """MediaPipe's points on pictures that a face fills to the edge, NaN where it sees none.

    The detector expects room about a face: a picture in which it sees none is shown to it again with a margin.
    """
    points = torch.full((len(photos), POINTS, 2), float("nan"))
    for index, photo in enumerate(photos):
        for margin in (0, max(photo.shape[:2]) // 2):
            shown = torch.nn.functional.pad(photo, (0, 0, margin, margin, margin, margin))
            found = detect(shown)
            if found.count:
                points[index] = found.pick("central") - margin
                break
    return points


def build_folder(
    folder: str | Path, pictures: str | Path, at_least: int = 2, size: tuple[int, int] = (112, 96),
    aligned: bool = False, leave_out: bool = False, fitter: Fitter | None = None, quiet: bool = False,
) -> TrainingSet:  # fmt: skip
    """A folder of one directory a person as a training set.

    `aligned`: pictures are 112x112 on InsightFace's five points already, and only their middle is taken; others are
    cropped by their landmarks. Raises AssetError naming a person with fewer than `at_least` pictures (`leave_out`:
    such people are left out), or an aligned picture of another size; otherwise as read_folder and build_photos.
    """
    given = read_folder(pictures)
    people = _check_people({name: list(some) for name, some in given.people.items()}, at_least, given.folder, leave_out)

    def photo(path: Path) -> Tensor:
        return _check_aligned(read_image(path), str(path)) if aligned else read_image(path, LIMIT)

    source = Source(people, photo, lambda _, photos: detect_padded(photos), aligned)
    card = {"kind": "folder", "at_least": at_least, "aligned": aligned}
    return build_photos(folder, source, card, size, fitter, quiet)


def build_records(
    folder: str | Path, records: str | Path, at_least: int = 2, size: tuple[int, int] = (112, 96),
    aligned: bool = True, leave_out: bool = False, fitter: Fitter | None = None, quiet: bool = False,
) -> TrainingSet:  # fmt: skip
    """A record file (CASIA-WebFace's `train.rec`) as a training set; options as build_folder.

    Raises AssetError for labels with gaps, which tell of people whose pictures are missing (`leave_out` accepts them).
    """
    given = read_records(records)
    labels = given.labels
    if given.gaps and not leave_out:
        raise AssetError(
            f"no picture in {given.path} has label {given.gaps[0]} ({len(given.gaps)} such numbers between the lowest "
            "and the highest): get the whole file, or go on without these people with leave_out=True"
        )
    people: dict[str, list] = {str(label): [] for label in labels.unique().tolist()}
    for index, label in enumerate(labels.tolist()):
        people[str(label)].append(index)
    people = _check_people(people, at_least, given.path, leave_out)

    def photo(index: int) -> Tensor:
        image = given.picture(index).float() / 255
        return _check_aligned(image, f"record {given.keys[index]} of {given.path}") if aligned else image

    source = Source(people, photo, lambda _, photos: detect_padded(photos), aligned)
    card = {"kind": "records", "at_least": at_least, "aligned": aligned}
    return build_photos(folder, source, card, size, fitter, quiet)
