"""The training of the teacher in three stages: landmarks, colours, details. Notebook 11 and the command share it."""

import os
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from facenb import savefile, training
from facenb.datasets.sets.faces import FaceSet
from facenb.methods.deca.alone import fit_vectors
from facenb.methods.deca.pictures import PicturePairs, build_pictures
from facenb.methods.deca.plans import TeacherPlan
from facenb.methods.deca.scene import Stage, window_of
from facenb.methods.deca.teacher import (
    CoarseLoss,
    DetailLoss,
    Recogniser,
    Weights,
    start_detail,
    train_only,
    training_name,
)
from facenb.morphable.layouts import Layout
from facenb.morphable.mesh import cut, landmark_vertices
from facenb.morphable.model import MorphableModel
from facenb.networks.deca import UNITS, Deca, layout_of
from facenb.runs.results import Run
from facenb.synthface import SUBJECTS, course_model, with_jaw

TOGETHER = 64  # images that a network sees at a time, without training
OPTIMISED = 1024  # images whose vectors are optimised at a time
NORMALISED = 1000  # about so many images normalise the detail codes at the start


@dataclass(frozen=True)
class Material:
    """What a teacher is trained on and tested with."""

    run: Run
    plan: TeacherPlan
    model: MorphableModel  # SynthFace's, with a jaw
    skin: MorphableModel  # cut to the face without eyes and mouth: its texture coordinates are the decoder's window
    train: FaceSet
    validation: FaceSet
    test: FaceSet

    @property
    def layout(self) -> Layout:
        """The layout of the coefficients."""
        return layout_of(self.model)

    @cached_property
    def stage(self) -> Stage:
        """The face without the rest of the head, which training draws; on the run's device."""
        inner = [self.model.regions[name] for name in ("left_eye", "right_eye", "mouth_inside")]
        face = cut(self.model, torch.cat([face_vertices(self.model), *inner]).unique())
        return Stage.of(face, self.layout).to(self.run.device)

    def new_network(self) -> Deca:
        """Return an untrained network; its weights depend on the run's seed."""
        options = dict(self.plan.network)
        decoder = {"window": window_of(self.skin), **options.pop("decoder")}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.run.seed)
            return Deca(self.layout, decoder=decoder, units=UNITS, **options)


def face_vertices(model: MorphableModel) -> Tensor:
    """Return the numbers of the vertices of the face and of those that the landmarks need."""
    return torch.cat([model.regions["face"], landmark_vertices(model)]).unique()


def prepare(run: Run, plan: TeacherPlan) -> Material:
    """Return the images of a run, in training, validation and test people. Build them if they are missing."""
    counts = {"training": plan.people, "validation": plan.watched, "test": plan.tested}
    people = [SUBJECTS[name][:count] for name, count in counts.items()]
    everybody, workers = [k for several in people for k in several], os.cpu_count() or 1
    every = build_pictures(run.path("sets/teacher"), run.seed, everybody, plan.pictures, plan.side, workers=workers)
    model = with_jaw(course_model())
    return Material(run, plan, model, cut(model, face_vertices(model)), *(every.of(several) for several in people))


@torch.no_grad()
def predict(network: Deca, faces: FaceSet, detail: bool = False) -> Float[Tensor, "images values"]:
    """Return the vectors, or the detail codes (`detail`), of a set's images, on the CPU."""
    network.eval()
    answer = network.detail_code if detail else network
    batches = torch.arange(len(faces)).split(TOGETHER)
    return torch.cat([answer(faces.inputs(rows).to(network.unit.device)).cpu() for rows in batches])


def optimise(material: Material, network: Deca, faces: FaceSet) -> Float[Tensor, "images all"]:
    """Return the vectors of `fit_vectors` for a set's images, on the CPU; each starts at the network's prediction."""
    start, device, vectors = predict(network, faces), material.run.device, []
    for rows in torch.arange(len(faces)).split(OPTIMISED):
        batch = faces.load(rows)
        given = (values.to(device) for values in (batch["image"], batch["landmarks"], batch["bare"], start[rows]))
        vectors.append(fit_vectors(material.stage, *given, material.plan.descents).cpu())
    return torch.cat(vectors)


def train_coarse(
    material: Material, network: Deca, recogniser: Recogniser | None = None, **reports: Any
) -> dict[str, training.History]:
    """Train the coarse network in place: on landmarks alone, then on colours too. Return a history for each.

    `reports` are the arguments `validate` and `watch` of `train`.
    """
    shrink, pairs = network.config["shrink"], PicturePairs(material.train, varied=True)
    weights = replace(Weights(), **material.plan.coarse_weights)
    losses = {
        "landmarks": CoarseLoss(material.stage, weights, render=False),
        "image": CoarseLoss(material.stage, weights, recogniser=recogniser, shrink=shrink),
    }
    train_only(network, "coarse")
    return {name: _train(material, network, name, loss, pairs, **reports) for name, loss in losses.items()}


def place(material: Material, network: Deca) -> PicturePairs:
    """Return the images that train the details, with their optimised vectors.

    A wrinkle is a pixel or two wide, and the position that a network predicts may be wrong by as much.
    """
    run, near = material.run, material.train.of(material.train.people[: material.plan.near])
    facts = {"rows": near.rows.tolist(), "card": near.card, "steps": material.plan.descents}
    path = run.path(f"training/{training.training_name('11_placed', facts, {'network': network.coarse})}.safetensors")
    if not path.exists():
        savefile.save(path, "vectors", {"vector": optimise(material, network, near)}, {})
    return PicturePairs(near, vectors=savefile.load(path, "vectors")[0]["vector"])


def train_details(
    material: Material, network: Deca, placed: PicturePairs, weights: Weights | None = None
) -> training.History:
    """Train the detail network and the decoder in place (`start_detail`, then `DetailLoss`)."""
    rows = torch.arange(0, len(placed), max(1, len(placed) // NORMALISED))
    images = placed.faces.inputs(rows).to(material.run.device)
    train_only(network.to(material.run.device), *material.plan.detailed, "decoder")
    start_detail(network, images)
    return _train(material, network, "details", DetailLoss(material.stage, weights or Weights()), placed)


def _train(
    material: Material, network: Deca, stage: str, loss: CoarseLoss | DetailLoss, pairs: PicturePairs, **reports: Any
) -> training.History:
    run, settings = material.run, getattr(material.plan, stage)
    folder = run.path(f"training/{training_name(f'11_{stage}', network, loss, pairs, settings)}")
    return training.train(network, loss, pairs, settings, folder, device=run.device, **reports)
