"""Training targets of Luo et al. 2019: the fit of each image as one flat vector, and pairs of such images."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facenb.datasets.pictures.w300lp import read_w300lp
from facenb.datasets.sets.build_photos import build_w300lp
from facenb.datasets.sets.faces import FaceSet
from facenb.datasets.sets.pairs import PairData
from facenb.fitting.posed import PosedModel, leading, own_layout, whitening, yaw_of
from facenb.methods import liu18
from facenb.methods.liu18.recognition import materials
from facenb.methods.luo19.plans import Plan
from facenb.morphable.layouts import LUO19, Layout
from facenb.morphable.model import Embedding, MorphableModel
from facenb.runs.results import Run

RANDOM_POINTS = 200  # vertices in the losses, beside the 68 landmarks: all would take longer and add little
WATCHED = 800  # validation images at most (about)


@dataclass(frozen=True)
class Reduction:
    """A model with a layout's components, and the matrices from the whole model's coefficients to them."""

    model: MorphableModel
    layout: Layout
    identity: Float[Tensor, "whole_identity identity"]
    expression: Float[Tensor, "whole_expression expression"]

    @classmethod
    def of(cls, model: MorphableModel, layout: str) -> "Reduction":
        """Return the model's components of largest variance: 40 + 10 for "LUO19", all of them for "own"."""
        sizes = {"LUO19": (40, 10), "own": (len(model.identity_basis), len(model.expression_basis))}[layout]
        reduced, *turns = leading(model, *sizes)
        return cls(reduced, LUO19 if layout == "LUO19" else own_layout(reduced), *turns)

    def flat(self, batch: dict[str, Tensor]) -> Float[Tensor, "images coefficients"]:
        """Return pose, identity and expression of a batch of fits as flat vectors."""
        return torch.cat([batch["pose"], batch["identity"] @ self.identity, batch["expression"] @ self.expression], 1)


@dataclass(frozen=True)
class FlatImages:
    """Images with their flat coefficients, of which pairs are made."""

    subset: FaceSet
    reduction: Reduction

    @property
    def labels(self) -> Int[Tensor, " images"]:
        """The class of each image."""
        return self.subset.labels

    def __len__(self) -> int:
        return len(self.subset)

    def load(self, rows: Int[Tensor, " batch"], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Return inputs (B, 3, H, W) in [-1, 1] and flat coefficients (B, C), with the subset's random changes."""
        batch = self.subset.load(rows, generator)
        return {"image": batch["image"], "flat": self.reduction.flat(batch)}


@dataclass(frozen=True)
class PairMaterial:
    """What all trainings of a run share: images, flat targets, pairs."""

    material: liu18.Material  # its training images are not mirrored
    plan: Plan
    reduction: Reduction
    fitted: Float[Tensor, "images coefficients"]  # of the training images
    data: PairData

    @classmethod
    def of(cls, material: liu18.Material, plan: Plan, layout: str = "LUO19") -> "PairMaterial":
        """Return the pairs of the training people. Raise RunError if no pair can be drawn."""
        options = material.plan.augmentation | {"mirror": False}  # mirroring would change the yaw
        material = replace(material, train=material.train.augmented(**options))
        reduction = Reduction.of(material.model, layout)
        fitted = reduction.flat(material.train.read(["pose", "identity", "expression"]))
        data = PairData(FlatImages(material.train, reduction), yaw_of(fitted[:, :12]), plan.apart, plan.near)
        return cls(material, plan, reduction, fitted, data)

    @property
    def identity(self) -> slice:
        """Where the identity coefficients lie in a flat vector."""
        return self.reduction.layout.slices["identity"]

    def face(self, seed: int) -> PosedModel:
        """Return the map from flat coefficients to the points of the losses: landmarks and random vertices."""
        model, generator = self.material.model, torch.Generator().manual_seed(seed)
        random = Embedding.at(torch.randperm(len(model.mean), generator=generator)[:RANDOM_POINTS])
        marks = model.landmarks
        vertices, weights = [marks.vertices, random.vertices], [marks.weights, random.weights]
        return self._posed(Embedding(torch.cat(vertices), torch.cat(weights)))

    @cached_property
    def marks(self) -> PosedModel:
        """The map from flat coefficients to the 68 landmarks."""
        return self._posed(self.material.model.landmarks)

    def _posed(self, points: Embedding) -> PosedModel:
        return PosedModel(self.reduction.model, self.reduction.layout, *whitening(self.fitted), points)

    @cached_property
    def validation(self) -> dict[str, Tensor]:
        """A batch of validation people: images (N, 3, H, W), their fits, also as `flat` (N, C), and `subject` (N)."""
        subset = self.material.validation
        rows = torch.arange(0, len(subset), max(1, len(subset) // WATCHED))
        batch = subset.load(rows)
        return {**batch, "flat": self.reduction.flat(batch), "subject": subset.subjects[rows]}


def prepare(run: Run) -> tuple[liu18.Material, str]:
    """Return a run's images and the suffix of its network of phase I. For `paper`, they come from 300W-LP.

    For `photos`, the people of the plan's first two folds of LFW are not trained on.
    """
    if run.data != "paper":
        suffix, material = next(iter(materials(run).items()))
        return material, suffix
    plan, fitter = liu18.plan(run.profile, run.data), liu18.paper_fitter()
    whole = build_w300lp(run.path("sets/300w-lp"), fitter.model, read_w300lp(), plan.size)
    split = whole.split(0.02, 0.1, run.seed)
    return liu18.Material(run, plan, fitter.model, split.train, split.validation, split.test, (), fitter), ""
