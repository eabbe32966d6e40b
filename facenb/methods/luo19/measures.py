"""What is measured of each network: spread within a person, ratio of between to within, verification, NME."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facenb.datasets.pictures.aflw2000 import read_aflw2000
from facenb.datasets.sets.augmentation import network_input
from facenb.evaluation.landmarks import nme
from facenb.evaluation.shape import crop, shape_errors
from facenb.evaluation.spread import within_and_between
from facenb.methods.liu18.measures import TOGETHER
from facenb.methods.liu18.recognition import Gallery, auc_of_all_pairs
from facenb.methods.luo19.network import Siamese
from facenb.methods.luo19.targets import PairMaterial
from facenb.photos.crops import to_template
from facenb.photos.store import Prepared, prepare_photos

RIDGE = 1e-9  # of the mean diagonal: keeps the Gram matrix of a basis positive definite


@torch.no_grad()
def predict(
    network: Siamese, count: int, inputs: Callable[[Int[Tensor, " rows"]], Float[Tensor, "rows 3 height width"]]
) -> Float[Tensor, "images coefficients"]:
    """Return the whitened outputs, on the CPU, for the `count` images that `inputs(rows)` returns."""
    network.eval()
    batches = torch.arange(count).split(TOGETHER)
    return torch.cat([network(inputs(rows).to(network.centre.device))[1].float().cpu() for rows in batches])


def judge(pairs: PairMaterial, network: Siamese) -> tuple[float, float]:
    """Return the AUC of identity coefficients and the NME (%) against the fits' landmarks, on validation people."""
    watched, marks = pairs.validation, pairs.marks
    codes = predict(network, len(watched["flat"]), lambda rows: watched["image"][rows])
    error = nme(marks(marks.flat(codes))[..., :2], marks(watched["flat"])[..., :2])
    return auc_of_all_pairs(codes[:, pairs.identity], watched["subject"]), 100 * float(error.mean())


@dataclass(frozen=True)
class IdentityTest:
    """Images of the test people, and what their predicted coefficients say about identity."""

    pairs: PairMaterial
    gallery: Gallery

    @classmethod
    def of(cls, pairs: PairMaterial) -> "IdentityTest":
        return cls(pairs, Gallery.of(pairs.material))

    @cached_property
    def person(self) -> Int[Tensor, " images"]:
        """The person in each image, numbered from 0."""
        return torch.from_numpy(np.unique(self.gallery.person, return_inverse=True)[1])

    @cached_property
    def several(self) -> Bool[Tensor, " images"]:
        """Whether the test has another image of the same person: a person with one image has no spread."""
        return torch.bincount(self.person)[self.person] > 1

    @cached_property
    def people(self) -> Int[Tensor, " people"]:
        """The people with several images."""
        return self.person[self.several].unique()

    @cached_property
    def front(self) -> Bool[Tensor, " vertices"]:
        """Which vertices lie in the crop of Liu et al.: 95 mm around the nose tip."""
        return crop(self.pairs.material.model.mean[None], self.pairs.material.model)[0]

    def codes(self, network: Siamese) -> Float[Tensor, "images coefficients"]:
        """Return the whitened outputs of each image."""

        def inputs(rows: Tensor) -> Tensor:
            return self.gallery.pictures(rows).permute(0, 3, 1, 2) * 2 - 1

        return predict(network, len(self.person), inputs)

    def shape_spread(self, codes: Float[Tensor, "images coefficients"]) -> Float[Tensor, " people"]:
        """Return each person's spread of neutral shapes, mm: the rms distance over the vertices of the face."""
        # The Gram matrix of the basis gives |B x|^2, so that no shape has to be made.
        basis = self.pairs.reduction.model.identity_basis[:, self.front].flatten(1).double()
        gram = basis @ basis.T
        factor = torch.linalg.cholesky(gram + RIDGE * gram.diagonal().mean() * torch.eye(len(gram)))
        alpha = self.pairs.marks.flat(codes)[:, self.pairs.identity].double()
        return (within_and_between(alpha @ factor, self.person)[0] / self.front.sum()).sqrt()

    def shape_error(self, codes: Float[Tensor, "images coefficients"]) -> Float[Tensor, " images"]:
        """Return the error of the neutral shape of each image, mm. Only for SynthFace, whose true shapes are known."""
        material, model = self.pairs.material, self.pairs.reduction.model
        shapes = (model.shape(alpha) for alpha in self.pairs.marks.flat(codes)[:, self.pairs.identity].split(TOGETHER))
        pairs = zip(shapes, material.neutral.split(TOGETHER), strict=True)
        return torch.cat([shape_errors(shape, truth, material.model).mean for shape, truth in pairs])


@dataclass(frozen=True)
class LandmarkTest:
    """Images with labelled landmarks: SynthFace's test people, or AFLW2000-3D for photographs."""

    pairs: PairMaterial
    source: str
    truths: dict[str, Float[Tensor, "images 68 2"]]  # by the name of the labels; the first decide the claim
    yaw: Float[Tensor, " images"]  # radians
    faces: Int[Tensor, " images"]  # the person in each; AFLW2000-3D's are unknown, so each counts as one
    resampled: str  # what an interval resamples
    photos: Prepared | None = None

    @classmethod
    def of(cls, pairs: PairMaterial) -> "LandmarkTest":
        """Return the test of a run. At the profile `smoke`, every 25th photograph."""
        run, test = pairs.material.run, pairs.material.test
        if run.data == "synthetic":
            truths, yaw = {"exact labels": test.truth["landmarks"]}, test.truth["angles"][:, 0]
            return cls(pairs, "SynthFace, unseen people", truths, yaw, test.subjects, "people")
        aflw = read_aflw2000()
        samples = [aflw[k] for k in range(0, len(aflw), run.choose(smoke=25, quick=1, full=1))]
        truths = {"original labels": torch.stack([s.landmarks for s in samples])}
        if all(s.reannotated is not None for s in samples):
            truths["re-annotated labels"] = torch.stack([s.reannotated for s in samples])
        yaw, photos = torch.tensor([s.yaw for s in samples]), prepare_photos([s.photo for s in samples])
        return cls(pairs, "AFLW2000-3D", truths, yaw, torch.arange(len(samples)), "photographs", photos)

    def landmarks(self, network: Siamese, codes: Float[Tensor, "test coefficients"]) -> Float[Tensor, "images 68 2"]:
        """Return the predicted landmarks in each image, pixels; NaN where the detector found no face.

        `codes` are those of `IdentityTest`, whose images are SynthFace's test images.
        """
        marks, size = self.pairs.marks, self.pairs.material.plan.size
        if self.photos is None:
            return marks(marks.flat(codes))[..., :2]
        predicted = torch.full_like(next(iter(self.truths.values())), torch.nan)
        detected, crops = self.photos.found, self.photos.crops(size)
        flat = marks.flat(predict(network, len(crops), lambda rows: network_input(crops[rows], None)))
        onto = to_template(self.photos.five[detected], size)
        in_photo = marks(flat)[detected][..., :2].double() - onto.shift[:, None]
        predicted[detected] = (in_photo @ onto.rotation / onto.scale[:, None, None]).float()
        return predicted


@dataclass(frozen=True)
class Measured:
    """What is measured of one network. The people are those with several test images."""

    within: Float[Tensor, " people"]  # variance of a person's coefficients, summed over them, deviations^2
    mean: Float[Tensor, "people identity"]  # of a person's coefficients, deviations
    count: Float[Tensor, " people"]  # a person's images
    shapes: Float[Tensor, " people"]  # spread of the neutral shapes, mm
    right: Bool[Tensor, " pairs"]  # whether verification decides each pair rightly
    nme: dict[str, Float[Tensor, " images"]]  # a fraction, by the name of the labels; NaN where no face was found

    @classmethod
    def of(cls, network: Siamese, identity: IdentityTest, landmarks: LandmarkTest) -> "Measured":
        """Measure a network on both tests."""
        codes = identity.codes(network)
        alpha = codes[:, identity.pairs.identity]
        right = identity.gallery.verify(alpha).right
        people = within_and_between(alpha, identity.person)
        marks = landmarks.landmarks(network, codes)
        errors = {labels: nme(marks, truth) for labels, truth in landmarks.truths.items()}
        return cls(*people, identity.shape_spread(codes), right, errors)

    @property
    def people(self) -> tuple[Tensor, Tensor, Tensor]:
        """Variance, mean and number of images of each person, for `spread.ratio_of`."""
        return self.within, self.mean, self.count

    @property
    def spread(self) -> Float[Tensor, " people"]:
        """Each person's spread: the rms distance of a coefficient from the person's mean, deviations."""
        return (self.within / self.mean.shape[1]).sqrt()

    def tensors(self) -> dict[str, Tensor]:
        """Return the measurements by name, for a file. The means, most of the numbers, have half precision."""
        facts = {name: value.float() for name, value in vars(self).items() if name not in ("right", "nme")}
        errors = {f"NME, {labels}": error for labels, error in self.nme.items()}
        return {**facts, "mean": self.mean.half(), "right": self.right, **errors}

    @classmethod
    def read(cls, tensors: Mapping[str, Tensor], prefix: str) -> "Measured":
        """Return the measurements of a file whose names begin with `prefix` (the inverse of `tensors`)."""
        own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        errors = {name: own.pop(name) for name in list(own) if name.startswith("NME, ")}
        own["mean"] = own["mean"].float()
        return cls(**own, nme={name.removeprefix("NME, "): error for name, error in errors.items()})
