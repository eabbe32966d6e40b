"""Build a training set of SynthFace in blocks of people: images, crops and multi-image fits."""

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facenb.datasets.sets.faces import TRUE, FaceSet, describe, read_faces
from facenb.datasets.sets.table import build_table
from facenb.errors import RunError
from facenb.fitting import Fit, fit
from facenb.fitting.posed import move_camera, pose_of
from facenb.morphable.alignment import Similarity
from facenb.morphable.model import MorphableModel
from facenb.photos.crops import crop_faces, five_of_68, to_template
from facenb.synthface.people import VERSION, SynthFace
from facenb.synthface.photographs import photograph

TOGETHER = 200  # approximate number of images in a block, which a worker holds in memory
NOISE = 101  # number of the subject's random stream for the noise of its landmarks
ENLARGE = 2.3  # an image is that much higher than its crop; cropping then smooths jagged edges
VIEW = 290.0  # mm that an image shows at least, so that nearly all crops lie inside


def build_synthetic(
    folder: str | Path,
    model: MorphableModel,
    seed: int,
    people: Sequence[int],
    pictures: int = 20,
    size: tuple[int, int] = (112, 96),
    yaw_limit: float | int = 90.0,
    landmark_noise: float | int = 1.5,
    workers: int = 1,
    looks: Mapping[int, int] | None = None,
) -> FaceSet:
    """Return images 0 to `pictures` - 1 of each of SynthFace's `people` (subject numbers of `seed`), with targets.

    Targets are the multi-image fit of `model` to the 68 landmarks of all images of a person. `landmark_noise` is the
    standard deviation of each coordinate, in mm at the image's scale. The jaw line does not slide, because SynthFace's
    landmarks are fixed points. Crops of `size` (height, width) use the same noisy landmarks. `looks` gives subjects the
    skin and hair of other subjects (`photograph`). If the folder already holds this set, it is read; an unfinished set
    is continued. `workers` processes share the work (a script then needs the usual `if __name__ == "__main__"`). Raises
    RunError if the folder holds another set.
    """
    people = list(people)
    consecutive = people == list(range(people[0], people[0] + len(people)))
    options = {"seed": seed, "pictures": pictures, "size": size}
    options |= {"yaw_limit": float(yaw_limit), "landmark_noise": float(landmark_noise)}
    card = {"kind": "synthetic", "population": VERSION, "view": VIEW, "model": describe(model), **options}
    if looks:
        options["looks"] = dict(looks)
        card["looks"] = [list(pair) for pair in looks.items()]
    card["people"] = f"{people[0]} to {people[-1]}" if consecutive else people
    blocks = [[people[number] for number in block] for block in blocks_of([pictures] * len(people))]
    return build_faces(folder, card, partial(_rows, model, **options), blocks, workers)


def build_faces(folder: str | Path, card: dict, rows: Callable, blocks: Sequence, workers: int = 1) -> FaceSet:
    """Return the set that `card` describes; `workers` processes compute `rows` of each block (see `build_table`)."""
    build_table(folder, card, lambda first: _in_order(rows, blocks[first:], workers), len(blocks))
    return read_faces(folder)


def blocks_of(counts: Sequence[int]) -> list[list[int]]:
    """Return the numbers of the people of each block, so that it has about TOGETHER images."""
    blocks, held = [[]], 0
    for number, count in enumerate(counts):
        if held and held + count > TOGETHER:
            blocks, held = [*blocks, []], 0
        blocks[-1].append(number)
        held += count
    return blocks


def fitted_targets(fitted: Fit, move: Similarity, suffix: str = "") -> dict[str, Tensor]:
    """Return the fields of a fit: each image's coefficients, and its pose after `move` maps its pixels to the crop."""
    pose = pose_of(move_camera(fitted.camera, move))
    targets = {"identity": fitted.identity[fitted.subject], "expression": fitted.expression, "pose": pose}
    return {f"{name}{suffix}": values for name, values in targets.items()}


def _rows(
    model: MorphableModel,
    people: list[int],
    seed: int,
    pictures: int,
    size: tuple[int, int],
    yaw_limit: float,
    landmark_noise: float,
    looks: Mapping[int, int] | None = None,
) -> dict[str, Tensor]:
    """Return the rows of a block of people."""
    subjects, numbers = [k for k in people for _ in range(pictures)], list(range(pictures)) * len(people)
    side, synth = round(ENLARGE * max(size)), SynthFace(seed)
    shots = photograph(synth, subjects, numbers, (side, side), yaw_limit, supersample=1, view=VIEW, looks=looks)
    noise = torch.cat([noise_of(synth, k, pictures, NOISE) for k in people])
    seen = shots.landmarks + landmark_noise * shots.camera.scale[:, None, None] * noise
    five = five_of_68(seen)
    move = to_template(five, size)
    rows = {"image": crop_faces(shots.image, five, size), "subject": shots.subject}
    truth = {"angles": shots.angles, "expression": shots.expression, "landmarks": move.apply(shots.landmarks)}
    targets = fitted_targets(fit(model, seen, shots.subject, contour="fixed"), move)
    return {**rows, **targets, **{f"{TRUE}{name}": values for name, values in truth.items()}}


def noise_of(synth: SynthFace, subject: int, images: int, stream: int) -> Float[Tensor, "images 68 2"]:
    """Return standard normal noise for one person's landmarks from its own random stream, equal in any batch."""
    return torch.from_numpy(synth.generator(subject, 0, stream).standard_normal((images, 68, 2)).astype(np.float32))


def _in_order(task: Callable, items: Sequence, workers: int) -> Iterator:
    """Yield `task` of each item, in order, computed by `workers` processes."""
    if workers <= 1 or len(items) <= 1:
        yield from map(task, items)
        return
    # Spawned, not forked: a forked child of a process with threads may wait for ever.
    options = {"mp_context": multiprocessing.get_context("spawn"), "initializer": torch.set_num_threads}
    with ProcessPoolExecutor(min(workers, len(items)), **options, initargs=(1,)) as pool:
        try:
            yield from pool.map(task, items)
        except BrokenProcessPool as error:
            raise RunError(
                "A process that makes the training set was ended. Memory may have run out, or the script that started "
                'it has no `if __name__ == "__main__"`. Use workers=1; finished blocks are kept.'
            ) from error


def true_shapes(faces: FaceSet, neutral: bool = False) -> Float[Tensor, "rows vertices 3"]:
    """Return true shapes (mm) of a synthetic set's images, or `neutral` heads. Raises RunError without ground truth."""
    expressions, synth = faces.truth["expression"], SynthFace(faces.card["seed"])
    people = {k: synth.subject(k) for k in faces.people.tolist()}
    subjects = [people[k] for k in faces.subjects.tolist()]
    if neutral:
        return torch.stack([person.neutral for person in subjects])
    return torch.cat([synth.shape(person, e[None]) for person, e in zip(subjects, expressions, strict=True)])
