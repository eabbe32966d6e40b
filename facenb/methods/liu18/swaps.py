"""What does an identity code see? Verification while skin and hair, or the expression, mislead.

The images show SynthFace's test people, who keep their shapes, poses, expressions and light.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facenb.datasets.pictures.lfw import Pairs
from facenb.datasets.sets.build_synthetic import build_synthetic
from facenb.datasets.sets.faces import FaceSet
from facenb.evaluation.recognition import Verification, cosine, verify
from facenb.methods.liu18.material import Material
from facenb.methods.liu18.measures import encode
from facenb.methods.liu18.recognition import Gallery
from facenb.networks.joint import JointNetwork
from facenb.synthface.people import SUBJECTS


@dataclass(frozen=True)
class Swaps:
    """The test images in three states, with the same rows, and the pairs of each condition.

    In the state `identical`, everybody has the skin and hair of one validation person. In `swapped`, each person has
    those of the next person in the same fold. A condition has pairs, and the states of first and second images.
    """

    states: dict[str, FaceSet]  # original, identical, swapped
    conditions: dict[str, tuple[Pairs, str, str]]

    @classmethod
    def of(cls, gallery: Gallery) -> "Swaps":
        """Render the images, or read them if they exist."""
        test, pairs = gallery.material.test, gallery.pairs
        wearer = {}  # the person who wears a person's skin and hair
        for fold in pairs.fold.unique():
            rows = torch.cat([side[pairs.fold == fold] for side in (pairs.first, pairs.second)])
            people = test.subjects[rows].unique().tolist()
            wearer |= dict(zip(people[1:] + people[:1], people, strict=True))
        looks = {person: skin for skin, person in wearer.items()}
        same_look = dict.fromkeys(test.people.tolist(), SUBJECTS["validation"][0])
        states = {
            "original": test,
            "identical": _rendered(gallery.material, "identical", same_look),
            "swapped": _rendered(gallery.material, "swapped", looks),
        }
        conditions = {
            "as photographed": (pairs, "original", "original"),
            "identical skin and hair": (pairs, "identical", "identical"),
            "skin and hair swapped": (_misled(pairs, test.subjects, wearer), "original", "swapped"),
            "expression misleads": (_by_expression(pairs, test.truth["expression"]), "original", "original"),
        }
        return cls(states, conditions)

    def verify(self, codes: Mapping[str, Float[Tensor, "images features"]]) -> dict[str, Verification]:
        """Return the five measures of each condition, from the codes of each state."""
        return {
            name: verify(cosine(codes[one][pairs.first], codes[other][pairs.second]), pairs.same, pairs.fold)
            for name, (pairs, one, other) in self.conditions.items()
        }

    def codes(self, network: JointNetwork) -> dict[str, Float[Tensor, "images features"]]:
        """Return a network's c_id of the images in each state."""
        return {name: encode(network, images).identity for name, images in self.states.items()}

    def people(self, condition: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the two people of each pair of a condition."""
        subject, (pairs, *_) = self.states["original"].subjects.numpy(), self.conditions[condition]
        return subject[pairs.first], subject[pairs.second]


def _rendered(material: Material, name: str, looks: dict[int, int]) -> FaceSet:
    """Return test images in which people have the skin and hair of others."""
    people, plan, run = material.test.people.tolist(), material.plan, material.run
    options = {"pictures": plan.pictures, "size": plan.size, "workers": os.cpu_count() or 1, "looks": looks}
    return build_synthetic(run.path(f"sets/liu18-{name}"), material.model, run.seed, people, **options)


def _misled(pairs: Pairs, subject: Tensor, wearer: dict[int, int]) -> Pairs:
    """Return pairs in which the skin misleads, if second images are of the state `swapped`.

    A pair of one person has that person's skin in the first image and another's in the second. A pair of two people has
    the same skin in both: the second image shows the person who wears the first person's skin.
    """
    second = pairs.second.clone()
    for number in (~pairs.same).nonzero()[:, 0].tolist():
        rows = (subject == wearer[int(subject[pairs.first[number]])]).nonzero()[:, 0]
        second[number] = rows[int(pairs.second[number]) % len(rows)]
    return pairs._replace(second=second)


def _by_expression(pairs: Pairs, expression: Float[Tensor, "images expression"]) -> Pairs:
    """Return the half of the pairs of each kind and fold whose expressions mislead most.

    Their pairs of one person have different expressions, and their pairs of two people similar ones.
    """
    distance = (expression[pairs.first] - expression[pairs.second]).norm(dim=1)
    misleading, kept = torch.where(pairs.same, distance, -distance), []
    for fold in pairs.fold.unique():
        for same in (True, False):
            rows = ((pairs.fold == fold) & (pairs.same == same)).nonzero()[:, 0]
            kept.append(rows[misleading[rows].argsort(descending=True)[: len(rows) // 2]])
    rows = torch.cat(kept)
    return Pairs(*(values[rows] for values in pairs))
