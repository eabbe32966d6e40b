"""SynthFace's linear model, built as the real ones were: scan people, align them, and take principal components."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from facenb.errors import ModelFileError
from facenb.morphable.alignment import align
from facenb.morphable.model import MorphableModel
from facenb.morphable.synthetic.person import DATA, MODEL, SynthFace

VERSION = 3  # raise when heads change, so that models kept in folders are built again
EXPRESSION_PEOPLE = 12  # whose expressions are averaged


def procrustes(points: Float[Tensor, "batch vertices 3"], rounds: int = 4) -> tuple[Tensor, Tensor]:
    """Generalised Procrustes analysis without scale: the aligned shapes and their mean (Gower 1975).

    The mean keeps the pose and place that the plain mean of the shapes had.
    """
    start = points.mean(0)
    mean = start
    for _ in range(rounds):
        points = align(points, mean[None], scale=False)
        mean = align(points.mean(0)[None], start[None], scale=False)[0]
    return align(points, mean[None], scale=False), mean


def principal_components(
    rows: Float[Tensor, "samples vertices 3"], count: int
) -> tuple[Float[Tensor, "vertices 3"], Float[Tensor, "components vertices 3"]]:
    """Mean, and the `count` directions of largest variance, each as long as its standard deviation."""
    flat = rows.flatten(1).double()
    mean = flat.mean(0)
    values, vectors = torch.linalg.eigh((flat - mean) @ (flat - mean).T / (len(flat) - 1))
    order = values.argsort(descending=True)[:count]
    basis = vectors[:, order].T @ (flat - mean) / (len(flat) - 1) ** 0.5  # rows: sqrt(value) x unit direction
    sign = basis.gather(1, basis.abs().argmax(1, keepdim=True)).sign()  # the largest entry positive, on any machine
    return mean.to(rows).unflatten(0, (-1, 3)), (basis * sign).to(rows).unflatten(1, (-1, 3))


def build_model(seed: int = 0, people: int = 400, components: int = 80, albedo_components: int = 40) -> MorphableModel:
    """The linear model of SynthFace: sample neutral heads, Procrustes, PCA; expressions from averaged differences.

    The people are those of stream MODEL, whom no data set holds. Expression coefficients keep the meaning of the
    synthetic ones (1 is the full expression); identity and albedo are whitened. Raises ValueError if there are fewer
    people than components.
    """
    if people <= max(components, albedo_components):
        raise ValueError(f"{people} people give fewer than {components} components; sample more people")
    synth = SynthFace(seed, MODEL)
    aligned, _ = procrustes(synth.neutrals(list(range(people))))
    mean, identity = principal_components(aligned, components)
    subjects = [synth.subject(k) for k in range(max(albedo_components * 2, EXPRESSION_PEOPLE))]
    albedo_mean, albedo_basis = principal_components(torch.stack([s.albedo for s in subjects]), albedo_components)
    every = torch.eye(len(synth.expression_names))
    moved = [synth.shape(s, every, wrinkles=False) - s.neutral for s in subjects[:EXPRESSION_PEOPLE]]
    return MorphableModel(
        name="synthface", mean=mean, triangles=synth.triangles, identity_basis=identity,
        expression_basis=torch.stack(moved).mean(0), expression_names=synth.expression_names,
        landmarks=synth.landmarks, albedo_mean=albedo_mean, albedo_basis=albedo_basis, uv=synth.uv,
        uv_triangles=synth.uv_triangles, regions=synth.regions, contour=synth.contour,
        source=f"SynthFace (facenb, Apache-2.0): seed {seed}, {people} people, heads of version {VERSION}",
    )  # fmt: skip


def load_or_build(folder: str | Path, seed: int = 0, people: int = 400, components: int = 80) -> MorphableModel:
    """The model kept in `folder`, or a new one, which is then kept there. A damaged file is built again."""
    path = Path(folder) / f"synthface-v{VERSION}-seed{seed}-{people}-{components}.safetensors"
    if path.is_file():
        try:
            return MorphableModel.load(path)
        except ModelFileError:
            pass  # half a disk is no reason to stop: the model can be made again
    model = build_model(seed, people, components)
    model.save(path)
    return model


@dataclass(frozen=True)
class Residual:
    """What a linear model leaves out of people it has not seen."""

    components: tuple[int, ...]
    distances: Float[Tensor, "components people"]  # mm: of each person, mean vertex distance to the nearest model shape

    @property
    def mean(self) -> list[float]:
        """Mean over the people, mm, for each number of components."""
        return self.distances.mean(1).tolist()

    @property
    def margin(self) -> list[float]:
        """Half the 95 % interval of each mean, mm (normal approximation over people)."""
        return (1.96 * self.distances.std(1) / self.distances.shape[1] ** 0.5).tolist()


def residual_by_components(
    model: MorphableModel, components: tuple[int, ...] = (20, 40, 80), people: int = 40, seed: int = 0
) -> Residual:
    """Distance in mm between unseen people (stream DATA) and their projections on the first components."""
    faces = align(SynthFace(seed, DATA).neutrals(list(range(people))), model.mean[None], scale=False)
    distances = []
    for count in components:
        part = model.truncate(identity=count)
        identity, _ = part.project(faces, neutral=True)
        distances.append((part.shape(identity) - faces).norm(dim=-1).mean(1))
    return Residual(tuple(components), torch.stack(distances))
