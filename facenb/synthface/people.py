"""SynthFace: MakeHuman's heads as people, each the same on any machine, in any order, batch or process."""

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facenb.morphable.contour import contour_lines
from facenb.synthface.atlas import at_vertices
from facenb.synthface.expressions import EXPRESSIONS, Mimic, clear_eyeballs, express
from facenb.synthface.heads import landmarks, load_heads, mean_head, regions
from facenb.synthface.skin import Look, paint

VERSION = 1  # increase it if the people change; folders with other people are then refused
# The purpose of each range of subject numbers. The ranges do not overlap.
SUBJECTS = {
    "exercises": range(0, 10_000),  # shown in notebooks and tests
    "model": range(10_000, 20_000),  # the course's morphable model is built from the first of them
    "training": range(20_000, 60_000),
    "validation": range(60_000, 70_000),
    "test": range(70_000, 80_000),
}
TRAITS, CHANGES, MIMIC, LOOK = 0, 1, 2, 10  # streams of a subject's random numbers
ALBEDO_TEXELS = 416  # side of the texture that vertex colours are read from
# Standard deviation of the local changes by area, as a share of MakeHuman's full change. Larger ones give caricatures.
SPREAD = {"head": 0.15, "neck": 0.15, "forehead": 0.2, "ear": 0.2, "eye": 0.25, "eyebrows": 0.2}
SPREAD |= {"nose": 0.21, "mouth": 0.2, "chin": 0.24, "cheek": 0.24}
USUAL = {"chin-height-incr": 0.12}  # MakeHuman's chins are 3 mm shorter than measured ones; other changes have mean 0
FARTHEST = 2.5  # mm: most standard deviation of a change at the vertex that it moves most
ASYMMETRY = 0.3  # share of the spread by which left and right differ


@dataclass(frozen=True)
class Subject:
    """One person: the properties of subject `index` of a seed."""

    index: int
    # sex from 0 (male) to 1 (female), age in years; weight, muscle in [0, 1]; african, asian, caucasian sum to 1.
    traits: dict[str, float]
    neutral: Float[Tensor, "vertices 3"]  # mm
    mimic: Mimic  # how the person moves
    look: Look  # the person's colouring

    @cached_property
    def albedo(self) -> Float[Tensor, "vertices 3"]:
        """Linear RGB in [0, 1] at the vertices, from the person's texture at rest."""
        return at_vertices(torch.from_numpy(paint(self.look, ALBEDO_TEXELS))[None])[0]


class SynthFace:
    """A population of heads with one topology. `subject(k)` computes person k.

    Each subject has its own random numbers, so it depends only on the seed and its index. Heads are computed one by one
    in float64 and rounded to float32. So batches do not matter, and machines can differ only in the last bit.
    """

    def __init__(self, seed: int = 0):
        self.seed = seed
        heads = load_heads()
        self.triangles = torch.from_numpy(heads.triangles.copy())
        self.uv, self.uv_triangles = torch.from_numpy(heads.uv.copy()), torch.from_numpy(heads.uv_triangles.copy())
        self.expression_names = EXPRESSIONS
        self.landmarks = landmarks()
        self.regions = {name: torch.from_numpy(vertices) for name, vertices in regions().items()}

    @cached_property
    def mean(self) -> Float[Tensor, "vertices 3"]:
        """The head of average traits, mm."""
        return torch.from_numpy(mean_head().astype(np.float32))

    @cached_property
    def contour(self) -> Tensor:
        """Vertices (17, K) along which each jaw-line landmark slides as the head turns."""
        return contour_lines(self.mean, self.triangles, self.landmarks.of(self.mean))

    def generator(self, index: int, *stream: int) -> np.random.Generator:
        """Return the generator of one stream of a subject's random numbers. Raise ValueError for a negative index."""
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, index, *stream])))

    def _person(self, index: int) -> tuple[dict[str, float], np.ndarray]:
        traits = draw_traits(self.generator(index, TRAITS))
        ancestry = np.array([traits[name] for name in ("african", "asian", "caucasian")])
        age, changes = np.clip((traits["age"] - 25) / 65, 0, 1), draw_changes(self.generator(index, CHANGES))
        head = load_heads().neutral(traits["sex"], age, traits["muscle"], traits["weight"], ancestry, changes)
        return traits, clear_eyeballs(head[None], head)[0]

    def neutrals(self, indices: list[int]) -> Float[Tensor, "subjects vertices 3"]:
        """Return neutral heads of many subjects, mm."""
        return torch.from_numpy(np.stack([self._person(k)[1] for k in indices]).astype(np.float32))

    def subject(self, index: int) -> Subject:
        """Return person `index`. Raise ValueError for a negative one."""
        traits, head = self._person(index)
        mimic = Mimic.draw(self.generator(index, MIMIC), head)
        look = Look.draw(traits, self.generator(index, LOOK))
        return Subject(index, traits, torch.from_numpy(head.astype(np.float32)), mimic, look)

    def shape(
        self, subject: Subject, expression: Float[Tensor, "batch expressions"]
    ) -> Float[Tensor, "batch vertices 3"]:
        """Return a person's head with expressions (values in [0, 1], `expression_names` in order), mm."""
        values = expression.detach().cpu().double().numpy()
        points = express(subject.neutral.double().numpy(), subject.mimic, values)
        return torch.from_numpy(points.astype(np.float32))


def draw_traits(generator: np.random.Generator) -> dict[str, float]:
    """Draw sex, adult age, build and ancestry."""
    female = generator.random() < 0.5
    feminine, weight, muscle = np.clip(generator.standard_normal(3), -2.5, 2.5)
    age = 18.0 + 57.0 * generator.beta(1.3, 1.8)
    african, asian, caucasian = generator.dirichlet((0.6, 0.6, 0.6))
    sex = abs(float(female) - min(abs(0.13 * feminine), 0.4))
    traits = {"sex": sex, "age": age, "weight": 0.5 + 0.18 * weight, "muscle": 0.5 + 0.15 * muscle}
    traits |= {"african": african, "asian": asian, "caucasian": caucasian}
    return {name: float(value) for name, value in traits.items()}


@cache
def _spreads() -> tuple[np.ndarray, np.ndarray]:
    """Return each local change's standard deviation, and the index of its mirror change (or its own index)."""
    heads = load_heads()
    names = heads.change_names
    reach = np.sqrt((heads.changes.toarray().reshape(len(names), 2, -1, 3) ** 2).sum(-1)).max((1, 2))
    area = np.array([SPREAD[name.removeprefix("l-").removeprefix("r-").split("-")[0]] for name in names])
    swapped = [{"l-": "r-", "r-": "l-"}.get(name[:2], name[:2]) + name[2:] for name in names]
    spread = np.minimum(area, FARTHEST / reach)
    sideways = np.array([name.endswith("-trans-out") and name[:2] not in ("l-", "r-") for name in names])
    return np.where(sideways, ASYMMETRY * spread, spread), np.array([names.index(name) for name in swapped])


def draw_changes(generator: np.random.Generator) -> np.ndarray:
    """Draw the local changes (C,); left and right differ a little."""
    spread, other = _spreads()
    single, shared = np.clip(generator.standard_normal((2, len(spread))), -2.5, 2.5)
    shared = np.where(other < np.arange(len(other)), shared[other], shared)
    paired = np.sqrt(1 - ASYMMETRY**2) * shared + ASYMMETRY * single
    usual = np.array([USUAL.get(name, 0.0) for name in load_heads().change_names])
    return usual + spread * np.where(other == np.arange(len(other)), single, paired)
