"""SynthFace's linear model, built as the real ones were: scan people, align them, and take principal components.

The course's own model is built once from 200 people and shipped. Eigenvectors may differ between machines, and a
trained network is valid for one basis only. `python -m facenb.synthface.model` builds it again.
"""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from facenb.morphable.alignment import similarity
from facenb.morphable.model import Joints, MorphableModel
from facenb.synthface.heads import load_heads
from facenb.synthface.people import SUBJECTS, VERSION, SynthFace

PATH = Path(__file__).parent / "data" / "model.safetensors"
PEOPLE, COMPONENTS, ALBEDO_COMPONENTS = 200, 80, 40
EXPRESSION_PEOPLE = 20  # whose expressions are averaged
SHARED = ("triangles", "expression_names", "landmarks", "uv", "uv_triangles", "regions", "contour")
MOVED = ("jawOpen", "jawLeft", "jawRight")  # expressions that a jaw joint replaces
GUIDES = (0, 1, 15, 16, 27)  # landmarks by the ears and between the eyes; they determine the hinge


def align_skin(heads: Float[Tensor, "_heads vertices 3"], onto: Float[Tensor, "vertices 3"], skin: Tensor) -> Tensor:
    """Return heads moved rigidly so that their skin is as near as possible to the skin of `onto`."""
    return similarity(heads[:, skin], onto[None, skin], scale=False).apply(heads)


def procrustes(heads: Float[Tensor, "batch vertices 3"], skin: Tensor) -> Tensor:
    """Return the heads after generalised Procrustes analysis of their skin, without scale (Gower 1975).

    The result's mean has the same pose and position as the mean of the given heads.
    """
    start = mean = heads.mean(0)
    for _ in range(4):
        heads = align_skin(heads, mean, skin)
        mean = align_skin(heads.mean(0)[None], start, skin)[0]
    return align_skin(heads, mean, skin)


def principal_components(
    rows: Float[Tensor, "samples vertices 3"], count: int, counted: Tensor
) -> tuple[Float[Tensor, "vertices 3"], Float[Tensor, "components vertices 3"]]:
    """Return the mean and the `count` directions of largest variance, each scaled to its standard deviation.

    Only the vertices `counted` determine these directions. The other vertices use the same weights of the samples.
    """
    rows = rows.double()
    mean = rows.mean(0)
    centred, seen = (rows - mean).flatten(1), (rows - mean)[:, counted].flatten(1)
    values, vectors = torch.linalg.eigh(seen @ seen.T / (len(rows) - 1))
    order = values.argsort(descending=True)[:count]
    basis = vectors[:, order].T @ centred / (len(rows) - 1) ** 0.5  # rows: standard deviation x unit direction
    sign = basis.gather(1, basis.abs().argmax(1, keepdim=True)).sign()  # the largest entry positive, on any machine
    return mean.float(), (basis * sign).float().unflatten(1, (-1, 3))


def build_model(
    seed: int = 0, people: int = PEOPLE, components: int = COMPONENTS, albedo_components: int = ALBEDO_COMPONENTS
) -> MorphableModel:
    """Build the linear model of SynthFace: neutral heads, Procrustes, PCA; expressions from averaged differences.

    The people are the first of the range `model`, which no data set uses. An expression coefficient of 1 is the full
    expression, as in SynthFace. Identity and albedo coefficients are whitened. Raise ValueError if there are
    fewer people than components.
    """
    if people <= max(components, albedo_components):
        raise ValueError(f"{people} people give fewer than {components} components; sample more people")
    synth = SynthFace(seed)
    subjects = [synth.subject(k) for k in SUBJECTS["model"][:people]]
    skin = synth.regions["skin"]
    heads = procrustes(torch.stack([s.neutral for s in subjects]), skin)
    mean, identity = principal_components(heads, components, skin)
    colours = torch.stack([s.albedo for s in subjects])
    albedo_mean, albedo_basis = principal_components(colours, albedo_components, torch.arange(colours.shape[1]))
    every = torch.eye(len(synth.expression_names))
    moved = [synth.shape(s, every) - s.neutral for s in subjects[:EXPRESSION_PEOPLE]]
    return MorphableModel(
        name="synthface",
        mean=mean,
        identity_basis=identity,
        expression_basis=torch.stack(moved).mean(0),
        albedo_mean=albedo_mean,
        albedo_basis=albedo_basis,
        **{name: getattr(synth, name) for name in SHARED},
        source=f"SynthFace (facenb, Apache-2.0; MakeHuman, CC0): seed {seed}, {people} people of version {VERSION}",
    )


@cache
def course_model() -> MorphableModel:
    """Return the course's model: 200 people, 80 identity and 29 expression components (do not write to it)."""
    return MorphableModel.load(PATH)


class Residual(NamedTuple):
    """Distance from unseen people to their nearest model shapes, in mm, for each number of components."""

    components: tuple[int, ...]
    distances: Float[Tensor, "components people"]  # mean vertex distance of each person
    mean: list[float]  # over the people
    margin: list[float]  # half the 95 % interval of the mean (normal approximation over people)


def residual_by_components(
    model: MorphableModel, components: tuple[int, ...] = (20, 40, 80), people: int = 40, seed: int = 0
) -> Residual:
    """Return the skin distances of unseen people (`exercises`) from their projections on the first components."""
    skin = model.regions["skin"]
    heads = align_skin(SynthFace(seed).neutrals(list(SUBJECTS["exercises"][:people])), model.mean, skin)[:, skin]
    offsets, basis = (heads - model.mean[skin]).flatten(1), model.identity_basis[:, skin].flatten(1)
    distances = []
    for count in components:
        identity = torch.linalg.lstsq(basis[:count].T, offsets.T).solution
        rest = (offsets - identity.T @ basis[:count]).unflatten(1, (-1, 3))
        distances.append(rest.norm(dim=-1).mean(1))
    distances = torch.stack(distances)
    margin = 1.96 * distances.std(1) / distances.shape[1] ** 0.5
    return Residual(tuple(components), distances, distances.mean(1).tolist(), margin.tolist())


def with_jaw(model: MorphableModel) -> MorphableModel:
    """Return SynthFace's model with joints (global, jaw), without the expressions that only open or shift the jaw.

    The global joint is the mean of the landmarks. So a head that turns keeps its position in the image, and a network
    need not learn a shift for each turn. The jaw's hinge depends on a few landmarks of the person. Their weights are
    the smallest that put it at SynthFace's hinge on the mean head. A positive turn about x opens the mouth. Raise
    ValueError for a model of other vertices or without the expressions.
    """
    heads = load_heads()
    if not set(MOVED) <= set(model.expression_names) or len(heads.jaw_share) != len(model.mean):
        raise ValueError(f"Expected SynthFace's own model, with {', '.join(MOVED)}; got {model.name}.")
    share = torch.from_numpy(heads.jaw_share).to(model.mean)
    guides = model.landmarks.vertices[list(GUIDES), 0]
    places = torch.cat([model.mean[guides], torch.ones(len(guides), 1).to(model.mean)], 1).double()  # (5, 4)
    hinge = torch.tensor([*heads.jaw_hinge, 1.0], dtype=torch.float64)
    regressor = torch.zeros(2, len(share)).to(model.mean)
    marks = model.landmarks
    regressor[0].index_add_(0, marks.vertices.ravel(), marks.weights.ravel().to(model.mean) / len(marks))
    regressor[1, guides] = (torch.linalg.pinv(places.T) @ hinge).to(model.mean)
    kept = [k for k, name in enumerate(model.expression_names) if name not in MOVED]
    return replace(
        model,
        name=f"{model.name} with a jaw",
        joints=Joints(("global", "jaw"), (-1, 0), regressor, torch.stack([1 - share, share], 1)),
        expression_basis=model.expression_basis[kept],
        expression_names=tuple(model.expression_names[k] for k in kept),
    )


if __name__ == "__main__":
    print(build_model().save(PATH))
