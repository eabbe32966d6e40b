"""The images that a run trains on and is tested with, split by people; built if they are missing."""

import os
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from facenb.assets import asset
from facenb.datasets.pictures.lfw import read_lfw
from facenb.datasets.sets.build_photos import PairCrops, build_folder, build_records, lfw_test_crops, people_of_folds
from facenb.datasets.sets.build_synthetic import build_synthetic, true_shapes
from facenb.datasets.sets.faces import FaceSet
from facenb.methods.liu18.phases import Supervision
from facenb.methods.liu18.plans import Plan, plan
from facenb.morphable.formats import read
from facenb.morphable.model import MorphableModel
from facenb.networks.heads import make_head
from facenb.networks.joint import JointNetwork
from facenb.networks.sphereface import SphereFace
from facenb.photos.canonical import mediapipe_embedding
from facenb.photos.photo import Fitter, ict_fitter
from facenb.runs.results import Run
from facenb.synthface.model import course_model
from facenb.synthface.people import SUBJECTS
from facenb.training import Settings, training_name


@dataclass(frozen=True)
class Material:
    """The images that a run trains on and is tested with."""

    run: Run
    plan: Plan
    model: MorphableModel
    train: FaceSet
    validation: FaceSet
    test: FaceSet | None  # SynthFace's people with their true shapes; None for photos
    folds: tuple[int, ...] = ()  # of LFW's pairs; with photos, their people are in none of the sets above
    fitter: Fitter | None = None  # for photos: the model and the landmarks to which it is fitted

    @cached_property
    def truth(self) -> Float[Tensor, "test vertices 3"]:
        """True shapes of the test images with expression, mm: for evaluation only."""
        return true_shapes(self.test)

    @cached_property
    def neutral(self) -> Float[Tensor, "test vertices 3"]:
        """True neutral shapes of the people in the test images, mm."""
        return true_shapes(self.test, neutral=True)

    @cached_property
    def pairs(self) -> PairCrops:
        """LFW's pairs of `folds`, photos only."""
        return lfw_test_crops(self.folds, self.plan.size, read_lfw(), self.fitter)

    @property
    def yaw(self) -> Float[Tensor, " test"]:
        """|yaw| of the test images, degrees."""
        return self.test.truth["angles"][:, 0].abs().rad2deg()

    def supervision(self) -> "Supervision":
        """Return the targets of phases II and III: the fitted shapes of the training people."""
        return Supervision(self.model, self.train)

    def new_network(self, seed: int = 0) -> JointNetwork:
        """Return an untrained network. It has the model's mean face, and is scaled by the training targets."""
        sizes = len(self.model.identity_basis), len(self.model.expression_basis), len(self.model.mean)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = JointNetwork(SphereFace(**self.plan.encoder), *sizes)
        targets = self.train.read(["identity", "expression"])
        network.identity_scaling.span(targets["identity"])
        network.residual_scaling.span(targets["expression"])
        network.set_mean_shape(self.model.mean)
        return network

    def new_head(self, seed: int, name: str, options: dict[str, Any]) -> nn.Module:
        """Return an untrained class head of phase III for the training people."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return make_head(name, len(self.model.identity_basis), self.train.classes, **options)


def prepare(run: Run, folds: tuple[int, int] | None = None, sizes: Plan | None = None) -> Material:
    """Return the images of a run, split by people. Build the sets if they are missing. `sizes`: another plan.

    `synthetic`: people of SynthFace. `photos`: people of LFW with two photos or more, without the people in `folds`, a
    pair of folds (None: the plan's first). `paper`: the records of CASIA-WebFace with BFM-2019, tested on all pairs of
    LFW. Raise AssetError if data is missing; it names the command that gets the data.
    """
    chosen = sizes or plan(run.profile, run.data, run.seed)
    if run.data == "synthetic":
        validation, test = (round(part * chosen.people) for part in (chosen.validation, chosen.test))
        counts = {"training": chosen.people - validation - test, "validation": validation, "test": test}
        people, model = {name: SUBJECTS[name][:count] for name, count in counts.items()}, course_model()
        everybody = [k for numbers in people.values() for k in numbers]
        options = {"pictures": chosen.pictures, "size": chosen.size, "workers": os.cpu_count() or 1}
        whole = build_synthetic(run.path("sets/liu18"), model, run.seed, everybody, **options)
        train, validation, test = (whole.of(people[name]) for name in ("training", "validation", "test"))
        return Material(run, chosen, model, train.augmented(**chosen.augmentation), validation, test)
    lfw = read_lfw()
    if run.data == "photos":
        folds, fitter = folds or chosen.folds[0], ict_fitter()
        whole = build_folder(run.path("sets/lfw"), lfw.people, 2, chosen.size, fitter)
        apart = people_of_folds(lfw.pairs(), folds)
    else:
        folds, fitter = tuple(sorted({pair.fold for pair in lfw.pairs()})), paper_fitter()
        records, size = asset("casia-webface-records"), chosen.size
        whole = build_records(run.path("sets/casia"), records, 2, size, fitter)
        apart = set()
    train, validation, _ = whole.split(chosen.validation, 0, run.seed, without=apart)
    names = whole.card.get("names", [])
    if run.profile == "smoke":
        train = whole.of(train.people[:24])
    assert not {names[k] for k in train.people.tolist()} & apart, "a person of the test is trained on"
    return Material(run, chosen, fitter.model, train.augmented(**chosen.augmentation), validation, None, folds, fitter)


def paper_fitter() -> Fitter:
    """Return BFM-2019 with MediaPipe's points (the paper's BFM-2009 has no expressions), or raise AssetError."""
    model = read(asset("bfm-2019") / "model2019_bfm.h5")
    return Fitter(model, mediapipe_embedding(model))


def training_folder(
    material: Material, name: str, settings: Settings, start: dict[str, nn.Module] | None = None, **more: Any
) -> Path:
    """Return the folder of a training. Its name depends on settings, images, weights (`start`) and facts (`more`)."""
    train = material.train
    facts = {
        "settings": settings.as_dict(),
        "card": train.card,
        "people": train.people.tolist(),
        "augmentation": asdict(train.augmentation),
        "encoder": material.plan.encoder,
        **more,
    }
    return material.run.path(f"training/{training_name(name, facts, start or {})}")


def mean_coefficients(material: Material) -> Float[Tensor, " identity"]:
    """Return the mean of the fitted identity coefficients over the training images."""
    return material.train.read(["identity"])["identity"].mean(0)
