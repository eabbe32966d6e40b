"""Rana's learner: a copy of its teacher that learns, under occluders, what the teacher predicts for clear images.

Three losses train one learner each. Held-back people decide which loss represents the method, and how far the learner
moves from its teacher's weights, without any truth. The same code serves DECA and 3DDFA-V2 (see the two readings).
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from facenb.datasets.sets.faces import FaceSet
from facenb.datasets.sets.occluded import Copies
from facenb.evaluation.landmarks import BINS, yaw_bin
from facenb.losses import coefficient_spread, distillation_loss, effect_loss
from facenb.methods.deca.lessons import Lessons
from facenb.methods.deca.scene import camera_of, posed
from facenb.morphable.layouts import LUO19, Layout
from facenb.morphable.mesh import cut, landmark_vertices
from facenb.morphable.model import MorphableModel, axis_angle_to_matrix
from facenb.networks.tddfa_v2 import SIDE, TDDFA
from facenb.training import History, Settings, train, training_name
from facenb.training.checkpoint import weights_digest

LOSSES = ("plain", "by spread", "by effect")  # one learner each
APART = 0.2  # the codes of clear images may change by this fraction of their spread
FRACTIONS = (0.25, 0.5, 0.75, 1.0)  # of the way from teacher to learner that are tried
CLEAR_WEIGHT = 3.0  # of an unpainted copy; a painted one has 1
TOGETHER = 128  # images that a network sees at a time, without training


class DecaReading:
    """What the coefficients of a Deca mean: points of the face in the image, and the head's turn."""

    part, still = "coarse", ("albedo", "light")  # the part that learns; the coefficients that do not move points

    def __init__(self, model: MorphableModel, layout: Layout, size: tuple[int, int], device: torch.device):
        few = torch.cat([model.regions["face"][::8], landmark_vertices(model)])
        self.layout, self.size, self.few = layout, size, cut(model, few).to(device)

    def predict(self, network: nn.Module, images: Float[Tensor, "batch 3 height width"]) -> Tensor:
        """Return flat coefficients of RGB images in [-1, 1]."""
        return network(images)

    def points(self, network: nn.Module, flat: Float[Tensor, "batch all"]) -> Float[Tensor, "batch points 3"]:
        """Return points of the predicted face in image coordinates, with depth (pixels)."""
        camera = camera_of(self.layout, flat, self.size)
        points = camera.project(posed(self.few, self.layout, flat))
        return torch.cat([points[..., :2], points[..., 2:] * camera.scale[:, None, None]], -1)

    def yaw(self, flat: Float[Tensor, "batch all"]) -> Float[Tensor, " batch"]:
        """Return |yaw| of the head, radians."""
        return _yaw(axis_angle_to_matrix(self.layout.split(flat)["global_pose"]))


class TddfaReading:
    """The same for 3DDFA-V2, which takes BGR and (byte - 127.5) / 128."""

    part, still, layout = "network", (), LUO19

    def predict(self, network: nn.Module, images: Float[Tensor, "batch 3 height width"]) -> Tensor:
        """Return flat coefficients of RGB images in [-1, 1]."""
        return network(images.flip(1) * (127.5 / 128))

    def points(self, network: TDDFA, flat: Float[Tensor, "batch all"]) -> Float[Tensor, "batch points 3"]:
        """Return the landmarks in the crop, with depth (pixels)."""
        return network.landmarks(flat, flat.new_tensor([[0.0, 0.0, SIDE, SIDE]]).expand(len(flat), -1))

    def yaw(self, flat: Float[Tensor, "batch all"]) -> Float[Tensor, " batch"]:
        """Return |yaw| of the head, radians."""
        rows = self.layout.split(flat)["pose"].unflatten(1, (3, 4))[:, :2, :3]
        rows = rows / rows.norm(dim=-1, keepdim=True)
        return _yaw(torch.cat([rows, torch.cross(rows[:, :1], rows[:, 1:], dim=-1)], 1))


def _yaw(rotation: Float[Tensor, "batch 3 3"]) -> Float[Tensor, " batch"]:
    return torch.atan2(rotation[:, 0, 2], rotation[:, 2, 2]).abs()


class Drawn:
    """Copies, drawn with weights, with the teacher's answer for the clear image; the protocol of training."""

    def __init__(self, copies: Copies, target: Float[Tensor, "images values"], rows: Int[Tensor, " drawn"]):
        self.copies, self.target, self.rows = copies, target, rows

    def __len__(self) -> int:
        return len(self.rows)

    def load(self, rows: Int[Tensor, " batch"], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Return the copies as "occluded" and the teacher's answers as "target"."""
        rows = self.rows[rows]
        return {"occluded": self.copies.inputs(rows), "target": self.target[self.copies.row[rows]]}


class Choice(NamedTuple):
    """How far each learner goes, and which of them represents the method."""

    best: str  # of LOSSES
    fractions: dict[str, float]  # of the way from the teacher, for each loss
    learners: dict[str, nn.Module]  # at these fractions
    tried: dict[tuple[str, float], list[Tensor]]  # departures by loss and fraction (`Distillation.departures`)


@dataclass(frozen=True)
class Distillation:
    """A frozen teacher and the images from which its learners learn."""

    teacher: nn.Module  # on the run's device, without gradients
    reading: DecaReading | TddfaReading
    lessons: Lessons

    @torch.no_grad()
    def predict(self, network: nn.Module, faces: FaceSet | Copies, detail: bool = False) -> Tensor:
        """Return the coefficients (images, all), or the detail codes (`detail`), of a set's images, on the CPU."""
        network.eval()
        device, batches = self.lessons.run.device, torch.arange(len(faces)).split(TOGETHER)

        def answer(images: Tensor) -> Tensor:
            return network.detail_code(images) if detail else self.reading.predict(network, images)

        return torch.cat([answer(faces.inputs(rows).to(device)).cpu() for rows in batches])

    @cached_property
    def target(self) -> Float[Tensor, "images all"]:
        """The teacher's coefficients of the clear images."""
        return self.predict(self.teacher, self.lessons.clear)

    @cached_property
    def codes(self) -> Float[Tensor, "images detail"]:
        """The teacher's detail codes of the clear images."""
        return self.predict(self.teacher, self.lessons.clear, detail=True)

    @cached_property
    def drawn(self) -> Int[Tensor, " drawn"]:
        """The copies in the order of the training, drawn with weights.

        Each bin of |yaw|, as the teacher predicts it, has the same weight.
        """
        copies, settings = self.lessons.copies, self.lessons.plan.learn
        bins = yaw_bin(self.reading.yaw(self.target))[copies.row]
        weight = torch.where(copies.kind < 0, CLEAR_WEIGHT, 1.0) / bins.bincount()[bins]
        generator = torch.Generator().manual_seed(self.lessons.run.seed)
        return torch.multinomial(weight, settings.steps * settings.batch, True, generator=generator)

    def loss(self, kind: str) -> Callable[[nn.Module, dict[str, Tensor]], dict[str, Tensor]]:
        """Return the loss function of one of LOSSES."""
        reading, layout = self.reading, self.reading.layout
        scale = coefficient_spread(self.target).to(self.lessons.run.device)
        if kind == "by effect":  # the points determine all but what does not move them
            for part in {*layout.parts} - {*reading.still}:
                scale[layout.slices[part]] = torch.inf

        def loss(network: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            learned, target = reading.predict(network, batch["occluded"]), batch["target"]
            value = distillation_loss(target, learned, layout, layout, None if kind == "plain" else scale)
            if kind == "by effect":
                value = value + effect_loss(reading.points(network, target), reading.points(network, learned))
            return {"loss": value}

        return loss

    def train(self, kind: str) -> tuple[nn.Module, History]:
        """Return a learner trained by one of LOSSES, and its history."""
        return self._train(self.reading.part, self.loss(kind), self.target, self.lessons.plan.learn, kind)

    def train_details(self) -> tuple[nn.Module, History]:
        """Return a learner whose detail encoder was trained on the teacher's detail codes, and its history."""
        layout = Layout("detail", {"detail": self.codes.shape[1]})
        spread = coefficient_spread(self.codes).to(self.lessons.run.device)

        def loss(network: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            code = network.detail_code(batch["occluded"])
            return {"loss": distillation_loss(batch["target"], code, layout, layout, spread)}

        return self._train("fine", loss, self.codes, self.lessons.plan.details, "detail")

    def _train(
        self, part: str, loss: Callable, target: Tensor, settings: Settings, name: str
    ) -> tuple[nn.Module, History]:
        """Train one part of a copy of the teacher; its batch normalisation stays fixed."""
        learner, run, copies = copy.deepcopy(self.teacher), self.lessons.run, self.lessons.copies
        for module in learner.get_submodule(part).modules():
            if not isinstance(module, nn.BatchNorm2d):
                for parameter in module.parameters(recurse=False):
                    parameter.requires_grad_(True)
        images = {"image": copies.image, "target": target, "drawn": self.drawn}
        facts = {"settings": settings.as_dict(), "loss": name, "images": weights_digest(images)}
        folder = training_name(f"12_{name.replace(' ', '_')}", facts, {"teacher": self.teacher})
        data = Drawn(copies, target, self.drawn)
        history = train(learner, loss, data, settings, run.path(f"training/{folder}"), device=run.device)
        return learner.requires_grad_(False), history

    def between(self, fraction: float, learner: nn.Module) -> nn.Module:
        """Return the network at a fraction of the way from the teacher's weights to the learner's."""
        mixed, ends = copy.deepcopy(self.teacher), learner.state_dict()
        for name, start in self.teacher.state_dict().items():
            ends[name] = start + fraction * (ends[name] - start) if start.is_floating_point() else start
        mixed.load_state_dict(ends)
        return mixed

    @cached_property
    def aim(self) -> Float[Tensor, "images all"]:
        """The teacher's coefficients of the held-back clear images."""
        return self.predict(self.teacher, self.lessons.held_back)

    @cached_property
    def bins(self) -> dict[int, Tensor]:
        """The bins of |yaw| with enough held-back images, and which images (a mask) each of them holds."""
        bins, least = yaw_bin(self.reading.yaw(self.aim)), min(10, len(self.aim) // 4)
        masks = {number: bins == number for number in range(len(BINS))}
        return {number: mask for number, mask in masks.items() if mask.sum() >= least}

    def departures(self, network: nn.Module) -> list[Float[Tensor, " bins"]]:
        """Return the mean distance to the teacher's points in pixels, by bin: on clear images, and on copies."""
        device, means = self.lessons.run.device, []
        aim = self.reading.points(self.teacher, self.aim.to(device)).cpu()
        for faces in (self.lessons.held_back, self.lessons.held_back_copies):
            points = self.reading.points(network, self.predict(network, faces).to(device)).cpu()
            distance = (points - aim).norm(dim=-1).mean(1)
            means.append(torch.stack([distance[mask].mean() for mask in self.bins.values()]))
        return means

    def choose(self, trained: dict[str, nn.Module]) -> Choice:
        """Choose fractions and the best of the learners on held-back people.

        Each learner gets the largest fraction whose departure on clear images, in the worst bin of |yaw|, is at most
        the plan's limit. The best learner has the smallest departure on copies.
        """
        tried, fractions = {("teacher", 0.0): self.departures(self.teacher)}, {}
        for kind, learner in trained.items():
            tried |= {(kind, part): self.departures(self.between(part, learner)) for part in FRACTIONS}
            worst = [0.0, *(float(tried[kind, part][0].max()) for part in FRACTIONS)]
            fractions[kind] = round(float(np.interp(self.lessons.plan.limit, worst, [0.0, *FRACTIONS])), 2)
            tried[kind, fractions[kind]] = self.departures(self.between(fractions[kind], learner))
        learners = {kind: self.between(part, trained[kind]) for kind, part in fractions.items()}
        best = min(trained, key=lambda kind: float(tried[kind, fractions[kind]][1].mean()))
        return Choice(best, fractions, learners, tried)

    def choose_details(self, fine: nn.Module) -> tuple[float, dict[float, list[float]]]:
        """Return the fraction of the way to a learner of `train_details`, and the distances for the tried fractions.

        The distances, in spreads, are to the teacher's codes of the held-back clear images: on these and on their
        copies. The fraction is the largest whose distance on clear images is at most APART.
        """
        spread, tried = coefficient_spread(self.codes), {}
        sets = self.lessons.held_back, self.lessons.held_back_copies
        aim = self.predict(self.teacher, sets[0], detail=True)
        for part in (0.0, *FRACTIONS):
            codes = [self.predict(self.between(part, fine), faces, detail=True) for faces in sets]
            tried[part] = [float(spreads_apart(code, aim, spread).mean()) for code in codes]
        return round(float(np.interp(APART, [clean for clean, _ in tried.values()], list(tried))), 2), tried


def spreads_apart(
    values: Float[Tensor, "images values"], aim: Float[Tensor, "images values"], spread: Float[Tensor, " values"]
) -> Float[Tensor, " images"]:
    """Return the RMS difference of each image's values, in spreads; values that never change are left out."""
    moving = spread.isfinite()
    return ((values - aim) / spread)[:, moving].square().mean(1).sqrt()
