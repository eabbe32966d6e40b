"""Make a training set, a batch of people at a time: pictures, crops, multi-image fits. An interrupted run goes on."""

import itertools
import multiprocessing
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from facenb.datasets.sets.shards import INDEX, ShardWriter, differences
from facenb.datasets.sets.training_set import TRUTH, TrainingSet, describe, read_training_set
from facenb.errors import RunError
from facenb.fitting import fit
from facenb.fitting.posed import move_camera, pose_of
from facenb.morphable.model import MorphableModel
from facenb.morphable.synthetic import SynthFace
from facenb.photos.crops import crop_faces, five_of_68, to_template
from facenb.synthface.photographs import photograph

TOGETHER = 200  # pictures of a batch, about: what a worker holds in memory
ROWS = 2048  # rows of a shard: what a killed run loses at most
NOISE = 101  # part of a subject's random numbers that the noise of its landmarks uses
ENLARGE = 1.5  # a picture is so much higher than its crop, whose resampling then smooths jagged edges


def finished(folder: Path, card: dict, model: MorphableModel | None = None) -> TrainingSet | None:
    """The set if the folder holds a finished one of this very card; RunError, naming what differs, for another."""
    if not (folder / INDEX).is_file():
        return None
    kept = read_training_set(folder, model)
    wrong = differences({key: kept.card.get(key) for key in card}, card)
    if wrong:
        raise RunError(f"{folder} holds a training set of another kind ({wrong}); choose another folder or remove it")
    return kept


def write_set(
    folder: Path, card: dict, batches: int, make: Callable[[int], Iterator], quiet: bool, truth: bool = False,
    finish: Callable[[], dict] = dict,
) -> TrainingSet:  # fmt: skip
    """Write batches `make(first)` gives from `first` on: dictionaries of rows, or pairs of them where there is truth.

    None instead of a batch is one without rows. `finish` gives what the card learns at the end.
    """
    writers = [ShardWriter(folder, card, ROWS)]
    if truth:
        writers.append(ShardWriter(folder / TRUTH, card, ROWS, reopen=True))
    first = min(writer.done for writer in writers)
    for writer in writers:
        writer.keep(first)
    hide = quiet or not sys.stderr.isatty()
    shown = tqdm(make(first), desc="training set", total=batches, initial=first, disable=hide, leave=False)
    for made in shown:
        for writer, rows in zip(writers, made if truth else (made,), strict=True):
            writer.append(rows)
    for writer in reversed(writers):  # the set itself last: once it has its index, all of it is there
        writer.close(**finish())
    return read_training_set(folder)


@dataclass(frozen=True)
class _Synthetic:
    """One worker's means to make batches of SynthFace."""

    model: MorphableModel
    seed: int
    pictures: int
    size: tuple[int, int]
    yaw_limit: float
    landmark_noise: float

    def __call__(self, people: list[int]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        synth = SynthFace(self.seed)
        subjects = [k for k in people for _ in range(self.pictures)]
        side = round(ENLARGE * max(self.size))
        shots = photograph(
            synth, subjects, list(range(self.pictures)) * len(people), (side, side), self.yaw_limit, supersample=1
        )
        noise = torch.cat([self._noise(k, shots.landmarks.shape[1]) for k in people])
        seen = shots.landmarks + self.landmark_noise * shots.camera.scale[:, None, None] * noise
        found = fit(self.model, seen, shots.subject, contour="fixed")
        five = five_of_68(seen)
        onto = to_template(five, self.size)
        rows = {"image": crop_faces(shots.image, five, self.size), "subject": shots.subject,
                "identity": found.identity[found.subject], "expression": found.expression,
                "pose": pose_of(move_camera(found.camera, onto))}  # fmt: skip
        truth = {"angles": shots.angles, "expression": shots.expression, "subject": shots.subject,
                 "landmarks": onto.apply(shots.landmarks)}  # fmt: skip
        return rows, truth

    def _noise(self, subject: int, points: int) -> Float[Tensor, "pictures points 2"]:
        """Of one person's own generator: the same in any batch."""
        draw = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, subject, 0, NOISE])))
        return torch.from_numpy(draw.standard_normal((self.pictures, points, 2)).astype(np.float32))


_task: Any = None  # of a worker process


def _start(task: Any) -> None:
    global _task
    _task = task
    torch.set_num_threads(1)


def _work(item: Any) -> Any:
    return _task(item)


def _in_order(task: Callable, items: Sequence, workers: int) -> Iterator:
    """`task` of each item, in order, by `workers` processes that are never more than a few items ahead."""
    if workers <= 1 or len(items) <= 1:
        yield from map(task, items)
        return
    # Spawned, not forked: a forked child of a process with threads may wait for ever.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(items)), context, initializer=_start, initargs=(task,)) as pool:
        waiting = deque()
        rest = iter(items)
        try:
            for item in itertools.islice(rest, 2 * workers):
                waiting.append(pool.submit(_work, item))
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(_work, item) for item in itertools.islice(rest, 1))
                yield result
        except BrokenProcessPool as error:
            raise RunError(
                "a process that makes the training set was ended: memory may have run out, or the script that began "
                'it has no `if __name__ == "__main__"`; take workers=1, what is made already is kept'
            ) from error
        finally:
            for future in waiting:
                future.cancel()


def build_synthetic(
    folder: str | Path, model: MorphableModel, seed: int, people: Sequence[int], pictures: int = 20,
    size: tuple[int, int] = (112, 96), yaw_limit: float | int = 90.0, landmark_noise: float | int = 1.5,
    workers: int = 1, quiet: bool = False,
) -> TrainingSet:  # fmt: skip
    """Pictures 0 to `pictures` - 1 of each of SynthFace's `people` (subject numbers of `seed`), a person after another.

    Targets are the multi-image fit of `model` to the 68 landmarks of all of a person's pictures with noise of
    `landmark_noise` mm (standard deviation of each coordinate, at the picture's scale), the jaw line not sliding, since
    SynthFace's landmarks stay in place. Crops of `size` (height, width) go by the same noisy landmarks; `pose` is the
    fit's camera in the crop, [f R | t] row by row (facenb.fitting.posed). A folder that
    holds this set already is read, one half made is finished. `workers` processes share the work (a script then needs
    the usual `if __name__ == "__main__"`). Raises RunError where the folder holds another set, ValueError for no
    people, people given twice, or fewer than two pictures.
    """
    people, folder = list(people), Path(folder)
    if not people or len(set(people)) != len(people) or pictures < 2:
        raise ValueError(f"{len(people)} people ({len(set(people))} of them different) with {pictures} pictures each: "
                         "give each person once, at least one, and two pictures or more")  # fmt: skip
    listed = people == list(range(people[0], people[0] + len(people)))
    card = {"kind": "synthetic", "model": describe(model), "seed": seed,
            "people": f"{people[0]} to {people[-1]}" if listed else people, "pictures": pictures, "size": list(size),
            "yaw_limit": float(yaw_limit), "landmark_noise": float(landmark_noise)}  # fmt: skip
    ready = finished(folder, card, model)
    if ready is not None:
        return ready
    task = _Synthetic(model, seed, pictures, size, float(yaw_limit), float(landmark_noise))
    each = max(1, TOGETHER // pictures)
    batches = [people[first : first + each] for first in range(0, len(people), each)]
    return write_set(
        folder, card, len(batches), lambda first: _in_order(task, batches[first:], workers), quiet, truth=True
    )


def true_shapes(
    training_set: TrainingSet, rows: Int[Tensor, " rows"], neutral: bool = False
) -> Float[Tensor, "rows vertices 3"]:
    """The true shapes (mm) behind rows of a synthetic set, made again from subject and true expression.

    `neutral`: at rest, without wrinkles. RunError for a set without ground truth.
    """
    truth, synth = training_set.truth_of(rows), SynthFace(training_set.card["seed"])
    people = {k: synth.subject(k) for k in truth["subject"].unique().tolist()}
    subjects = [people[k] for k in truth["subject"].tolist()]
    if neutral:
        return torch.stack([person.neutral for person in subjects])
    return torch.cat([synth.shape(person, e[None]) for person, e in zip(subjects, truth["expression"], strict=True)])
