"""What does an identity code see? Verification while skin and hair, or the expression, mislead.

The images show SynthFace's test people, who keep their shapes, poses, expressions and light.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facenb.datasets.pictures.lfw import Pairs
from facenb.datasets.sets.build_synthetic import build_synthetic
from facenb.evaluation.recognition import Verification, cosine, verify
from facenb.methods.liu18.material import Material
from facenb.methods.liu18.measures import encode
from facenb.methods.liu18.recognition import Gallery
from facenb.networks.joint import JointNetwork
from facenb.synthface.people import SUBJECTS

CONDITIONS = ("as photographed", "identical skin and hair", "skin and hair swapped", "expression misleads")


@dataclass(frozen=True)
class Swaps:
    """The test images in three states, with the same rows, and the pairs of each condition.

    `swapped_pairs`: a pair of one person has that person's skin in the first image and another's in the second. A pair
    of two people has the same skin in both. `expression_pairs`: pairs of one person have different expressions, pairs
    of two people similar ones. Second images of `swapped_pairs` are rows of `swapped`; all others are original.
    """

    original: Material
    identical: Material  # everybody has the skin and hair of one validation person
    swapped: Material  # each person has the skin and hair of the next person in the same fold
    pairs: Pairs
    swapped_pairs: Pairs
    expression_pairs: Pairs

    @classmethod
    def of(cls, gallery: Gallery) -> "Swaps":
        """Render the images, or read them if they exist."""
        material, pairs = gallery.material, gallery.pairs
        subject, wearer = material.test.subjects, {}  # the person who wears a person's skin and hair
        for fold in pairs.fold.unique():
            rows = torch.cat([side[pairs.fold == fold] for side in (pairs.first, pairs.second)])
            people = subject[rows].unique().tolist()
            wearer |= dict(zip(people[1:] + people[:1], people, strict=True))
        looks = {person: skin for skin, person in wearer.items()}
        one = dict.fromkeys(material.test.people.tolist(), SUBJECTS["validation"][0])
        states = [_rendered(material, *state) for state in (("identical", one), ("swapped", looks))]
        return cls(material, *states, pairs, _misled(pairs, subject, wearer), _by_expression(material, pairs))

    def verify(self, codes: Mapping[str, Float[Tensor, "images features"]]) -> dict[str, Verification]:
        """Return the five measures of each condition. `codes`: those of `original`, `identical` and `swapped`."""
        first, second = codes["original"], codes["swapped"]
        chosen = {
            CONDITIONS[0]: (self.pairs, first, first),
            CONDITIONS[1]: (self.pairs, codes["identical"], codes["identical"]),
            CONDITIONS[2]: (self.swapped_pairs, first, second),
            CONDITIONS[3]: (self.expression_pairs, first, first),
        }
        return {
            name: verify(cosine(a[pairs.first], b[pairs.second]), pairs.same, pairs.fold)
            for name, (pairs, a, b) in chosen.items()
        }

    def codes(self, network: JointNetwork) -> dict[str, Float[Tensor, "images features"]]:
        """Return a network's c_id of the images in each state."""
        states = ("original", "identical", "swapped")
        return {name: encode(network, getattr(self, name).test).identity for name in states}

    def people(self, condition: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the two people of each pair of a condition."""
        subject = self.original.test.subjects.numpy()
        named = dict(zip(CONDITIONS[2:], (self.swapped_pairs, self.expression_pairs), strict=True))
        pairs = named.get(condition, self.pairs)
        return subject[pairs.first], subject[pairs.second]


def _rendered(material: Material, name: str, looks: dict[int, int]) -> Material:
    """Return the material with test images in which people have the skin and hair of others."""
    people, plan, run = material.test.people.tolist(), material.plan, material.run
    options = {"pictures": plan.pictures, "size": plan.size, "workers": os.cpu_count() or 1, "looks": looks}
    test = build_synthetic(run.path(f"sets/liu18-{name}"), material.model, run.seed, people, **options)
    return replace(material, test=test)


def _misled(pairs: Pairs, subject: Tensor, wearer: dict[int, int]) -> Pairs:
    """Return the pairs with, for two people, an image of the person who wears the first person's skin as second."""
    second = pairs.second.clone()
    for number in (~pairs.same).nonzero()[:, 0].tolist():
        rows = (subject == wearer[int(subject[pairs.first[number]])]).nonzero()[:, 0]
        second[number] = rows[int(pairs.second[number]) % len(rows)]
    return pairs._replace(second=second)


def _by_expression(material: Material, pairs: Pairs) -> Pairs:
    """Return the half of the pairs of each kind and fold whose expressions mislead most."""
    values = material.test.truth["expression"]
    distance = (values[pairs.first] - values[pairs.second]).norm(dim=1)
    misleading, kept = torch.where(pairs.same, distance, -distance), []
    for fold in pairs.fold.unique():
        for same in (True, False):
            rows = ((pairs.fold == fold) & (pairs.same == same)).nonzero()[:, 0]
            kept.append(rows[misleading[rows].argsort(descending=True)[: len(rows) // 2]])
    rows = torch.cat(kept)
    return Pairs(*(values[rows] for values in pairs))
