"""What notebooks 08 and 09 share: recognition on people nobody trained on, and watching it.

A gallery's pictures are SynthFace's test people or the photos of LFW's pairs; both are verified in folds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from facenb.datasets.sets.augmentation import NONE
from facenb.evaluation.recognition import Pairs, Verification, area_under_roc, cosine, draw_pairs, verify
from facenb.fitting import fit
from facenb.imaging.camera import WeakPerspective, euler_to_matrix
from facenb.methods import liu18
from facenb.networks.joint import JointNetwork
from facenb.runs.results import Run

NOISE = 1.5  # mm, of the landmarks: that of the training set
WATCHED = 512  # validation pictures at most: a validation must not cost more than the steps between two


@dataclass(frozen=True)
class Gallery:
    """Test pictures, who is on each, and the pairs to verify."""

    material: liu18.Material
    person: np.ndarray  # of each picture, a name or number
    pairs: Pairs

    @classmethod
    def of(cls, material: liu18.Material) -> "Gallery":
        """LFW's pairs of the material's folds; of SynthFace, pairs drawn from the test people in the same way."""
        if material.test is None:
            photos = material.pairs
            person = np.array([name.rsplit("_", 1)[0] for name in photos.photos])
            return cls(material, person, Pairs(photos.first, photos.second, photos.same, photos.fold))
        each, folds = material.run.choose(smoke=(10, 4), quick=(250, 10), full=(300, 10))
        subject = material.test.subjects
        return cls(material, subject.numpy(), draw_pairs(subject, each, folds, material.run.seed))

    def pictures(self, rows: Int[Tensor, " rows"]) -> Float[Tensor, "rows height width 3"]:
        """Crops in [0, 1], to look at."""
        test = self.material.test
        if test is None:
            return self.material.pairs.image[rows].float() / 255
        return test.pictures(rows)

    def codes(self, network: JointNetwork, mirror: bool = False) -> Float[Tensor, "pictures identity"]:
        """c_id of every picture. `mirror` (photos only) adds that of the mirrored photo, as LFW's usual script does."""
        if self.material.test is None:
            return liu18.encode_pairs(network, self.material.pairs, mirror)
        if mirror:
            raise ValueError("SynthFace's pictures have no mirrored twins; mirror is for photos")
        return liu18.encode(network, self.material.test).identity

    @cached_property
    def fitted(self) -> Float[Tensor, "pictures identity"]:
        """Identity coefficients (whitened) of each picture's own fit, less the mean of the training people's.

        One picture at a time, as a network sees it; the training targets are fits of all of a person's pictures.
        """
        material = self.material
        mean = liu18.mean_coefficients(material)
        if material.test is None:
            return material.pairs.identity - mean
        # Fit and measure are blind to scale and place, so the marks are made in the head's own millimetres.
        count = len(self.person)
        turned = euler_to_matrix(material.test.truth["angles"])
        camera = WeakPerspective(turned, torch.ones(count), torch.zeros(count, 2))
        marks = camera.project(material.model.landmarks.of(material.truth))[..., :2]
        generator = torch.Generator().manual_seed(material.run.seed)
        marks = marks + NOISE * torch.randn(marks.shape, generator=generator)
        return fit(material.model, marks, contour="fixed").identity - mean

    def scores(self, codes: Float[Tensor, "pictures features"]) -> Float[Tensor, " pairs"]:
        """Cosine of each pair. Raises ValueError unless there is a code for every picture."""
        if len(codes) != len(self.person):
            raise ValueError(f"{len(codes)} codes of {len(self.person)} pictures; give that of every picture, in order")
        return cosine(codes[self.pairs.first], codes[self.pairs.second])

    def verify(self, codes: Float[Tensor, "pictures features"]) -> Verification:
        """The five measures of each fold."""
        return verify(self.scores(codes), self.pairs.same, self.pairs.fold)

    @property
    def people(self) -> tuple[np.ndarray, np.ndarray]:
        """The two people of each pair, whom an interval draws."""
        return self.person[self.pairs.first.numpy()], self.person[self.pairs.second.numpy()]


@dataclass(frozen=True)
class Galleries:
    """All test folds of a run, each pair of them with the network that has not seen its people."""

    parts: tuple[Gallery, ...]

    def verify(self, codes: Sequence[Float[Tensor, "pictures features"]]) -> Verification:
        """`Gallery.verify` of each part's codes, as one."""
        return Verification.join([part.verify(some) for part, some in zip(self.parts, codes, strict=True)])

    def scores(self, codes: Sequence[Float[Tensor, "pictures features"]]) -> Float[Tensor, " pairs"]:
        """Cosines of all pairs."""
        return torch.cat([part.scores(some) for part, some in zip(self.parts, codes, strict=True)])

    @property
    def same(self) -> Tensor:
        """Whether each pair is of one person."""
        return torch.cat([part.pairs.same for part in self.parts])

    @property
    def fold(self) -> Tensor:
        """Each pair's fold."""
        return torch.cat([part.pairs.fold for part in self.parts])

    @property
    def people(self) -> tuple[np.ndarray, np.ndarray]:
        """The two people of each pair."""
        return tuple(np.concatenate(side) for side in zip(*(part.people for part in self.parts), strict=True))


def materials(run: Run) -> dict[str, liu18.Material]:
    """What each network of a run is trained with, by the suffix of its file: LFW's own people, one for two folds."""
    folds = liu18.plan(run.profile, run.data).folds
    if run.data != "photos":
        return {"": liu18.prepare(run)}
    return {f"_folds{one}-{two}": liu18.prepare(run, (one, two)) for one, two in folds}


@torch.no_grad()
def mean_codes(material: liu18.Material, network: JointNetwork, mirror: bool = False) -> Float[Tensor, " features"]:
    """Mean c_id of the training people (of about 1024 pictures); `mirror` as in `Gallery.codes`."""
    plain = replace(material.train, augmentation=NONE)
    image = plain.load(torch.arange(0, len(plain), max(1, len(plain) // 1024)))["image"].to(network.mean_shape.device)
    sides = [image, image.flip(3)] if mirror else [image]
    return torch.cat([network.encode(side).identity.float().mean(0).cpu() for side in sides])


def auc_of_all_pairs(codes: Float[Tensor, "pictures features"], person: Int[Tensor, " pictures"]) -> float:
    """Area under the ROC over every pair of these pictures, by cosine. ValueError unless each has its person."""
    if len(codes) != len(person):
        raise ValueError(f"{len(codes)} codes, but people of {len(person)} pictures; give one of each a picture")
    direction = nn.functional.normalize(codes, dim=1)
    first, second = torch.triu_indices(len(codes), len(codes), 1)
    return area_under_roc((direction @ direction.T)[first, second], person[first] == person[second])


def watch_validation(material: liu18.Material) -> Callable[[dict[str, nn.Module]], dict[str, float]]:
    """A `validate` for `train`: recognition (AUC over all pairs) and L_R (mm^2) of people who are not trained on."""
    subset = material.validation
    rows = torch.arange(0, len(subset), max(1, len(subset) // WATCHED))

    @torch.no_grad()
    def validate(modules: dict[str, nn.Module]) -> dict[str, float]:
        network, targets = modules["network"], modules["targets"]
        device, identity, total = network.mean_shape.device, [], 0.0
        for some in rows.split(liu18.TOGETHER):
            batch = {name: value.to(device) for name, value in subset.load(some).items()}
            codes = network.encode(batch["image"])
            total += float(liu18.reconstruction_loss(network, codes, targets(batch))) * len(some)
            identity.append(codes.identity.float().cpu())
        return {"AUC": auc_of_all_pairs(torch.cat(identity), subset.subjects[rows]), "L_R": total / len(rows)}

    return validate
