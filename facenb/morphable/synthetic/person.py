"""SynthFace: people made by rule, each the same on any machine, in any order, batch or process."""

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facenb.morphable.contour import contour_lines
from facenb.morphable.synthetic import anatomy, landmarks, wrinkles
from facenb.morphable.synthetic.albedo import Colouring, paint
from facenb.morphable.synthetic.expressions import EXPRESSIONS, express
from facenb.morphable.synthetic.head import mean_head
from facenb.morphable.synthetic.topology import topology

DATA, MODEL = 0, 1  # streams of people: subjects of data sets, and the people a model is built from


@dataclass(frozen=True)
class Subject:
    """One person: what SynthFace knows of subject `index` of a seed."""

    index: int
    traits: dict[str, float]  # sex (-1 to 1), age in years, weight in standard deviations
    anatomy: dict[str, float]  # parameters in standard deviations
    neutral: Float[Tensor, "vertices 3"]  # mm, without wrinkles
    albedo: Float[Tensor, "vertices 3"]  # RGB in [0, 1]
    pattern: np.ndarray  # of the wrinkles
    colouring: Colouring


class SynthFace:
    """A population of heads of one topology. People are drawn as they are asked for: `subject(k)`.

    The numbers of subject k come from `numpy.random.PCG64(SeedSequence([seed, k, stream, part]))`, never from a shared
    generator, so that a subject depends on seed, stream and k only. Heads are computed one by one in float64 and then
    rounded to float32: batches do not matter, and machines can differ in the last bit at most. `stream` DATA holds the
    subjects of data sets, MODEL those that models are built from: other people, whatever their number.
    """

    def __init__(self, seed: int = 0, stream: int = DATA):
        self.seed, self.stream = seed, stream
        self.triangles = torch.from_numpy(topology().triangles.copy())
        self.expression_names = EXPRESSIONS
        self.landmarks = landmarks.embedding()
        self.regions = landmarks.regions()
        self.uv, self.uv_triangles = landmarks.uv_layout()

    @cached_property
    def mean(self) -> Float[Tensor, "vertices 3"]:
        """The head of average parameters, mm."""
        return torch.from_numpy(mean_head().astype(np.float32))

    @cached_property
    def contour(self) -> Tensor:
        """Vertices (17, K) along which each jaw-line landmark slides as the head turns."""
        return contour_lines(self.mean, self.triangles, self.landmarks.of(self.mean))

    def _generator(self, index: int, part: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, index, self.stream, part])))

    def parameters(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Traits (3,) and anatomical parameters (63,) of subject `index`, in standard deviations."""
        if index < 0:
            raise ValueError(f"subject {index} of SynthFace: subjects are numbered from 0")
        return anatomy.draw_parameters(self._generator(index, 0))

    def _neutral(self, index: int) -> np.ndarray:
        relief = anatomy.draw_relief(self._generator(index, 3))
        return anatomy.shape_heads(self.parameters(index)[1][None], relief[None])[0]

    def neutrals(self, indices: list[int]) -> Float[Tensor, "subjects vertices 3"]:
        """Neutral heads of many subjects, mm, without wrinkles."""
        heads = [self._neutral(k) for k in indices]  # one by one: the same in any batch
        return torch.from_numpy(np.stack(heads).astype(np.float32))

    def subject(self, index: int) -> Subject:
        """Person `index`. Raises ValueError for a negative one."""
        traits, parameters = self.parameters(index)
        colouring = Colouring.draw(traits, self._generator(index, 1))
        return Subject(
            index=index,
            traits={"sex": float(traits[0]), "age": float(40 + 15 * traits[1]), "weight": float(traits[2])},
            anatomy=dict(zip(anatomy.NAMES, parameters.tolist(), strict=True)),
            neutral=self.neutrals([index])[0],
            albedo=torch.from_numpy(paint(colouring).astype(np.float32)),
            pattern=self._generator(index, 2).random(wrinkles.PATTERN),
            colouring=colouring,
        )

    def shape(
        self, subject: Subject, expression: Float[Tensor, "batch expressions"], wrinkles: bool = True
    ) -> Float[Tensor, "batch vertices 3"]:
        """A person's head with expressions (values in [0, 1], `expression_names` in order), mm.

        Raises ValueError if the number of values is not that of the expressions.
        """
        if expression.shape[1] != len(EXPRESSIONS):
            raise ValueError(
                f"{expression.shape[1]} expression values, but SynthFace has {len(EXPRESSIONS)} expressions"
            )
        values = expression.detach().cpu().double().numpy()
        points = express(subject.neutral.double().numpy(), values)
        if wrinkles:
            depth = self.wrinkles(subject, expression).double().numpy()
            points = points + depth[..., None] * normals(points)
        return torch.from_numpy(points.astype(np.float32))

    def wrinkles(
        self, subject: Subject, expression: Float[Tensor, "batch expressions"]
    ) -> Float[Tensor, "batch vertices"]:
        """Displacement along the outward normals in mm that `shape` adds: the wrinkles, negative inside a groove."""
        values = expression.detach().cpu().double().numpy()
        depth = wrinkles.displacement(subject.pattern, subject.traits["age"], values)
        return torch.from_numpy(depth.astype(np.float32))


@cache
def _incidence() -> tuple[np.ndarray, np.ndarray]:
    """The triangles of each vertex in turn, and where each vertex's begin (every vertex has some)."""
    corners = topology().triangles.ravel()
    order = np.argsort(corners, kind="stable")
    return order // 3, np.searchsorted(corners[order], np.arange(len(topology().level)))


def normals(points: np.ndarray) -> np.ndarray:
    """Unit outward normals (B, V, 3), the mean of the triangles around a vertex by area."""
    triangles, (around, begin) = topology().triangles, _incidence()
    a, b, c = (points[:, triangles[:, k]] for k in range(3))
    total = np.add.reduceat(np.cross(b - a, c - a)[:, around], begin, axis=1)
    return total / np.maximum(np.linalg.norm(total, axis=-1, keepdims=True), 1e-12)
