"""Recognition of people who are not in the training set, for notebooks 08 and 09.

A gallery holds images of SynthFace's test people, or the photos of LFW's pairs. Both are verified in folds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from facenb.evaluation.recognition import Pairs, Verification, area_under_roc, cosine, draw_pairs, verify
from facenb.fitting import fit
from facenb.imaging.camera import WeakPerspective, euler_to_matrix
from facenb.methods.liu18.material import Material, mean_coefficients, prepare
from facenb.methods.liu18.measures import TOGETHER, encode, encode_crops
from facenb.methods.liu18.phases import reconstruction_loss
from facenb.methods.liu18.plans import plan
from facenb.networks.joint import JointNetwork
from facenb.runs.results import Run

NOISE = 1.5  # mm, of the landmarks, as in the training set
WATCHED = 512  # most validation images, so that a validation is not slower than the steps between two validations


@dataclass(frozen=True)
class Gallery:
    """Test images, the person in each, and the pairs to verify."""

    material: Material
    person: np.ndarray  # name or number of the person in each image
    pairs: Pairs

    @classmethod
    def of(cls, material: Material) -> "Gallery":
        """Return LFW's pairs of the material's folds, or pairs of SynthFace's test people drawn in the same way."""
        if material.test is None:
            photos = material.pairs
            person = np.array([photo.parent.name for photo in photos.photos])
            return cls(material, person, photos.pairs)
        each, folds = material.run.choose(smoke=(10, 4), quick=(250, 10), full=(300, 10))
        subject = material.test.subjects
        return cls(material, subject.numpy(), draw_pairs(subject, each, folds, material.run.seed))

    def pictures(self, rows: Int[Tensor, " rows"]) -> Float[Tensor, "rows height width 3"]:
        """Return crops in [0, 1], to look at."""
        test = self.material.test
        return self.material.pairs.image[rows].float() / 255 if test is None else test.pictures(rows)

    def codes(self, network: JointNetwork, mirror: bool = False) -> Float[Tensor, "pictures identity"]:
        """Return c_id of each image. `mirror` (photos only) appends the mirrored photo's, as LFW's usual script."""
        if self.material.test is None:
            return encode_crops(network, self.material.pairs.image, mirror)
        return encode(network, self.material.test).identity

    @cached_property
    def fitted(self) -> Float[Tensor, "pictures identity"]:
        """Whitened identity coefficients of a fit to each image, minus their mean over the training images.

        Each image is fitted alone, since a network also gets one image. Training targets use all images of a person.
        """
        material, count = self.material, len(self.person)
        mean = mean_coefficients(material)
        if material.test is None:
            return material.pairs.identity - mean
        # Scale and position affect neither fit nor measure, so one pixel is one millimetre of the head.
        turned = euler_to_matrix(material.test.truth["angles"])
        camera = WeakPerspective(turned, torch.ones(count), torch.zeros(count, 2))
        marks = camera.project(material.model.landmarks.of(material.truth))[..., :2]
        generator = torch.Generator().manual_seed(material.run.seed)
        marks = marks + NOISE * torch.randn(marks.shape, generator=generator)
        return fit(material.model, marks, contour="fixed").identity - mean

    def scores(self, codes: Float[Tensor, "pictures features"]) -> Float[Tensor, " pairs"]:
        """Return the cosine of each pair. Raise ValueError unless there is one code for each image."""
        if len(codes) != len(self.person):
            raise ValueError(f"expected {len(self.person)} codes, one for each image, got {len(codes)}")
        return cosine(codes[self.pairs.first], codes[self.pairs.second])

    def verify(self, codes: Float[Tensor, "pictures features"]) -> Verification:
        """Return the five measures of each fold."""
        return verify(self.scores(codes), self.pairs.same, self.pairs.fold)

    @property
    def people(self) -> tuple[np.ndarray, np.ndarray]:
        """The two people of each pair, whom a bootstrap interval resamples."""
        return self.person[self.pairs.first.numpy()], self.person[self.pairs.second.numpy()]


def of_test(gallery: Gallery) -> dict[str, Tensor]:
    """Return who is in each test image and the gallery's pairs, for a file of measures. SynthFace: also |yaw|, degrees.

    `first`, `second`, `same` and `fold` of the pairs are named "pairs/first" and so on.
    """
    of_pairs = {f"pairs/{name}": values for name, values in gallery.pairs._asdict().items()}
    person = torch.from_numpy(np.unique(gallery.person, return_inverse=True)[1])
    yaw = {} if gallery.material.test is None else {"yaw": gallery.material.yaw}
    return {"subject": person, **yaw, **of_pairs}


class Galleries:
    """All test folds of a run. Each pair of folds is tested with a network that was not trained on its people."""

    def __init__(self, parts: tuple[Gallery, ...]):
        self.parts = parts
        self.same, self.fold = (torch.cat([getattr(part.pairs, name) for part in parts]) for name in ("same", "fold"))
        self.people = tuple(np.concatenate(side) for side in zip(*(part.people for part in parts), strict=True))

    def verify(self, codes: Sequence[Float[Tensor, "pictures features"]]) -> Verification:
        """Return `Gallery.verify` of the codes of all parts together."""
        return Verification.join([part.verify(values) for part, values in zip(self.parts, codes, strict=True)])

    def scores(self, codes: Sequence[Float[Tensor, "pictures features"]]) -> Float[Tensor, " pairs"]:
        """Return the cosines of all pairs."""
        return torch.cat([part.scores(values) for part, values in zip(self.parts, codes, strict=True)])


def materials(run: Run) -> dict[str, Material]:
    """Return the material of each network of a run, by the suffix of its file: for LFW, one for each pair of folds."""
    if run.data != "photos":
        return {"": prepare(run)}
    folds = plan(run.profile, run.data).folds
    return {f"_folds{first}-{second}": prepare(run, (first, second)) for first, second in folds}


def mean_codes(material: Material, network: JointNetwork, mirror: bool = False) -> Float[Tensor, " features"]:
    """Return the mean c_id of about 1024 training images; `mirror` as in `Gallery.codes`."""
    rows = torch.arange(0, len(material.train), max(1, len(material.train) // 1024))
    return encode_crops(network, material.train.read(["image"], rows)["image"], mirror).mean(0)


def auc_of_all_pairs(codes: Float[Tensor, "pictures features"], person: Int[Tensor, " pictures"]) -> float:
    """Return the area under the ROC of the cosine over all pairs of these images."""
    direction = nn.functional.normalize(codes, dim=1)
    first, second = torch.triu_indices(len(codes), len(codes), 1)
    return area_under_roc((direction @ direction.T)[first, second], person[first] == person[second])


def watch_validation(material: Material) -> Callable[[dict[str, nn.Module]], dict[str, float]]:
    """Return a `validate` function for `train`: AUC over all pairs and L_R (mm^2) on the validation people."""
    subset = material.validation
    rows = torch.arange(0, len(subset), max(1, len(subset) // WATCHED))

    @torch.no_grad()
    def validate(modules: dict[str, nn.Module]) -> dict[str, float]:
        network, targets, identity, total = modules["network"], modules["targets"], [], 0.0
        for batch_rows in rows.split(TOGETHER):
            batch = {name: value.to(network.mean_shape.device) for name, value in subset.load(batch_rows).items()}
            codes = network.encode(batch["image"])
            total += float(reconstruction_loss(network, codes, targets(batch))) * len(batch_rows)
            identity.append(codes.identity.float().cpu())
        return {"AUC": auc_of_all_pairs(torch.cat(identity), subset.subjects[rows]), "L_R": total / len(rows)}

    return validate
