"""The images of notebook 12: clear images and their occluded copies, of SynthFace's people or of photographs.

A learner needs no labels, only images of faces with landmarks, which place the occluders.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facenb.datasets.pictures.aflw2000 import read_aflw2000
from facenb.datasets.pictures.lfw import read_lfw
from facenb.datasets.sets.faces import FaceSet
from facenb.datasets.sets.occluded import Copies, join_faces, paint_copies
from facenb.methods.deca.pictures import build_pictures
from facenb.methods.deca.plans import LearnerPlan
from facenb.networks.tddfa_v2 import SIDE, crop, square_box
from facenb.photos.images import read_image
from facenb.photos.store import prepare_photos
from facenb.runs.results import Run
from facenb.synthface import SUBJECTS, SynthFace

SEEN = ("hand", "glasses", "sunglasses", "blocks")  # the occluders of the training
UNSEEN = "mask"  # an occluder of the test only
OCCLUDERS = (*SEEN, UNSEEN)
FURTHER = 10000  # the first of the people that no teacher was trained on, among the training people
JITTER = 0.06  # standard deviation of a training crop's position, as a fraction of its side; imitates a detector


@dataclass(frozen=True)
class Lessons:
    """Clear images to learn from, to choose with, and to test with; and their occluded copies."""

    run: Run
    plan: LearnerPlan
    clear: FaceSet
    held_back: FaceSet  # of other people; losses and fractions are chosen on them
    test: FaceSet
    truth: Tensor  # of the test: vertices with expression (images, V, 3) in mm, or landmarks (images, 68, 2) in pixels
    yaw: Float[Tensor, " test"]  # radians
    boxes: Float[Tensor, "test 4"] | None = None  # of the test's crops; None: the images are whole
    left_out: int = 0  # photographs without a detected face
    seen: tuple[str, ...] = SEEN  # occluders of the training

    @cached_property
    def copies(self) -> Copies:
        """Copies of the clear images under the occluders of the training; half of them stay clear."""
        return paint_copies(self.clear, self.seen, self.plan.copies, seed=self.run.seed, clear=0.5)

    @cached_property
    def held_back_copies(self) -> Copies:
        """One copy of each held-back image."""
        return paint_copies(self.held_back, self.seen, seed=self.run.seed + 2)

    @cached_property
    def tests(self) -> dict[str, FaceSet | Copies]:
        """The test images, clear and under each occluder."""
        copies = {kind: paint_copies(self.test, [kind], seed=self.run.seed + 1) for kind in OCCLUDERS}
        return {"clear": self.test} | copies


def synthetic_lessons(run: Run, plan: LearnerPlan, taught: FaceSet) -> Lessons:
    """Return images of SynthFace's people. `taught`: the images of the teacher's training, which join the clear ones.

    Truth is the shape with expression.
    """
    side, limit, synth = taught.size[0], taught.card["yaw_limit"], SynthFace(run.seed)
    others = SUBJECTS["training"][FURTHER : FURTHER + plan.people]
    clear = join_faces(taught, _synthetic(run, "clear", others, 4, side, limit))
    held_back = _synthetic(run, "watched", SUBJECTS["validation"][: plan.held_back], 4, side, limit)
    test = _synthetic(run, "test", SUBJECTS["test"][1000 : 1000 + plan.tested], 2, side, limit)
    expressions = zip(test.subjects.tolist(), test.truth["expression"], strict=True)
    truth = torch.cat([synth.shape(synth.subject(k), values[None]) for k, values in expressions])
    return Lessons(run, plan, clear, held_back, test, truth, test.truth["angles"][:, 0])


def photo_lessons(run: Run, plan: LearnerPlan) -> Lessons:
    """Return photographs: LFW with images of SynthFace's turned heads to learn from, AFLW2000-3D to test with.

    Half of LFW's photographs are the most turned ones, half are spread over the others. A tenth of the people is held
    back. Truth is AFLW2000-3D's landmarks.
    """
    paths = [path for several in read_lfw().with_at_least(2).values() for path in several][: plan.lfw]
    prepared = prepare_photos(paths)
    usable, points = prepared.found.nonzero()[:, 0], prepared.landmarks[prepared.found]
    order, half = by_turn(points), plan.photos
    chosen = torch.cat([order[:half], order[half :: max(1, (len(order) - half) // half)]])
    chosen = chosen[torch.randperm(len(chosen), generator=torch.Generator().manual_seed(run.seed))]
    lfw, _ = crops_of((read_image(paths[k]) for k in usable[chosen].tolist()), points[chosen], run.seed, JITTER)
    names = [paths[k].parent.name for k in usable[chosen].tolist()]
    tenth = set(sorted(set(names))[::10])
    held = torch.tensor([name in tenth for name in names])
    clear = join_faces(lfw.take(~held), _turned(run, "turned", SUBJECTS["training"][: plan.people]))
    back = join_faces(lfw.take(held), _turned(run, "turned_watched", SUBJECTS["validation"][: plan.held_back]))
    samples = read_aflw2000()[:: plan.every]
    truth, yaw = torch.stack([s.landmarks for s in samples]), torch.tensor([s.yaw for s in samples])
    test, boxes = crops_of((read_image(s.photo) for s in samples), truth)
    return Lessons(run, plan, clear, back, test, truth, yaw, boxes, len(paths) - len(usable))


def crops_of(
    images: Iterable[Float[Tensor, "height width 3"]],
    points: Float[Tensor, "faces 68 2"],
    seed: int = 0,
    jitter: float = 0.0,
) -> tuple[FaceSet, Float[Tensor, "faces 4"]]:
    """Return crops as 3DDFA-V2 takes them, with landmarks, and their boxes; `jitter` displaces the boxes at random."""
    boxes, crops, moved = square_box(points), [], []
    draw = torch.randn(3, len(boxes), 1, generator=torch.Generator().manual_seed(seed))
    side, middle = boxes[:, 2:] - boxes[:, :2], (boxes[:, 2:] + boxes[:, :2]) / 2
    middle, side = middle + jitter * side * torch.cat([draw[0], draw[1]], 1), side * torch.exp(1.5 * jitter * draw[2])
    boxes = torch.cat([middle - side / 2, middle + side / 2], 1)
    for image, box, landmarks in zip(images, boxes, points, strict=True):
        colours = crop(image, box[None])[0].flip(0)  # RGB
        crops.append((colours * 128 + 127.5).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0))
        moved.append((landmarks - box[:2]) / (box[2:] - box[:2]) * SIDE)
    faces = {"image": torch.stack(crops), "landmarks": torch.stack(moved), "subject": torch.arange(len(crops))}
    return FaceSet.in_memory(**faces), boxes


def by_turn(points: Float[Tensor, "faces 68 2"]) -> Int[Tensor, " faces"]:
    """Sort faces from the most turned to the least, by how unevenly the nose tip divides the width of the jaw."""
    left, right = ((points[:, 30] - points[:, end]).norm(dim=1) for end in (0, 16))
    return (left / right).log().abs().argsort(descending=True)


def _synthetic(run: Run, name: str, people: Iterable[int], each: int, size: int, yaw: float) -> FaceSet:
    folder, workers = run.path(f"sets/occluded_{name}"), os.cpu_count() or 1
    return build_pictures(folder, run.seed, people, each, size, yaw, workers=workers)


def _turned(run: Run, name: str, people: Iterable[int]) -> FaceSet:
    columns = _synthetic(run, name, people, 4, 150, 90).read(["image", "landmarks"])
    return crops_of(columns["image"] / 255, columns["landmarks"], run.seed, JITTER)[0]
