"""Errors of a teacher against SynthFace's truth: landmarks, shape at rest, wrinkles. For evaluation only."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facenb.datasets.sets.faces import FaceSet
from facenb.evaluation.shape import shape_errors
from facenb.imaging.texture import sample
from facenb.losses.deca import local_photometric_loss
from facenb.methods.deca.animate import facing
from facenb.methods.deca.scene import Stage, landmarks_of, posed
from facenb.methods.deca.teacher import to_picture
from facenb.methods.deca.trainings import Material, predict
from facenb.morphable.layouts import Layout
from facenb.morphable.mesh import vertex_uv
from facenb.morphable.model import MorphableModel
from facenb.networks.deca import Deca
from facenb.synthface.people import SynthFace
from facenb.synthface.photographs import NOISE
from facenb.synthface.wrinkles import displacement

SAMPLED = 40  # training people whose wrinkles determine the zone
DEEP = 0.1  # mm: the zone is where the mean depth over these people is larger
RENDERED, TOGETHER = 32, 128  # images rendered at a time; otherwise


def landmark_error(
    model: MorphableModel, layout: Layout, flat: Float[Tensor, "images all"], faces: FaceSet
) -> Float[Tensor, " images"]:
    """Return the mean distance to the set's landmarks, in % of the image's side."""
    predicted = landmarks_of(model, layout, flat, faces.size)
    return 100 * (predicted - faces.read(["landmarks"])["landmarks"]).norm(dim=-1).mean(1) / min(faces.size)


def errors_at_rest(
    material: Material, faces: FaceSet, flat: Float[Tensor, "images all"] | None = None, averaged: bool = False
) -> Float[Tensor, " images"]:
    """Return the mean vertex distance to the true neutral shapes of a set's images, mm. None: of the mean face.

    `averaged`: first replace each image's identity by the mean over the images of its person.
    """
    model, layout, who = material.model, material.layout, faces.subjects
    synth = SynthFace(material.run.seed)
    shapes = {k: synth.subject(k).neutral for k in who.unique().tolist()}
    truth = torch.stack([shapes[k] for k in who.tolist()])
    if flat is None:
        return shape_errors(model.mean.expand_as(truth), truth, model).mean
    identity = layout.split(flat)["identity"]
    return shape_errors(model.shape(mean_of_people(identity, who) if averaged else identity), truth, model).mean


def watch_shapes(material: Material) -> Callable[[Deca], dict[str, float]]:
    """Return a `validate` function for `train`: errors of landmarks (%) and of shapes at rest, on validation people.

    The second is divided by the mean face's. Nothing is chosen by it.
    """
    faces, model, layout = material.validation, material.model, material.layout
    mean_face = errors_at_rest(material, faces).mean()

    def validate(network: Deca) -> dict[str, float]:
        flat = predict(network, faces)
        at_rest = errors_at_rest(material, faces, flat).mean() / mean_face
        return {"landmarks": float(landmark_error(model, layout, flat, faces).mean()), "at rest": float(at_rest)}

    return validate


def mean_of_people(values: Float[Tensor, "images ..."], subjects: Int[Tensor, " images"]) -> Tensor:
    """Return for each image the mean of `values` over the images of its person."""
    means = {k: values[subjects == k].mean(0) for k in subjects.unique().tolist()}
    return torch.stack([means[k] for k in subjects.tolist()])


def true_wrinkles(
    synth: SynthFace, number: int, expression: Float[Tensor, "faces expressions"], uv: Float[Tensor, "points 2"]
) -> Float[Tensor, "faces points"]:
    """Return the true displacement in mm of a person, given by number, at texture coordinates."""
    maps = displacement(synth, synth.subject(number), expression)
    return sample(maps[..., None], uv.expand(len(maps), 1, -1, -1))[:, 0, :, 0]


@torch.no_grad()
def predicted_wrinkles(
    network: Deca, stage: Stage, flat: Float[Tensor, "images all"], codes: Float[Tensor, "images detail"]
) -> Float[Tensor, "images fine"]:
    """Return the predicted displacement in mm on the fine mesh of a stage."""
    return stage.displacement(network.decoder, network.displacement(flat, codes))


class DetailLossAt(NamedTuple):
    """The detail loss of test images, without any training."""

    smooth: float  # without displacement
    wrinkled: float  # with the true wrinkles
    push: Float[Tensor, "images points"]  # the negative gradient at smooth skin: where a first step would go


@torch.no_grad()
def vertex_errors(
    model: MorphableModel,
    layout: Layout,
    flat: Float[Tensor, "images all"],
    truth: Float[Tensor, "images vertices 3"],
) -> Float[Tensor, " images"]:
    """Return the mean vertex distance of the faces with expression and jaw, without the head's turn, mm."""
    errors = []
    for rows in torch.arange(len(flat)).split(TOGETHER):
        errors.append(shape_errors(posed(model, layout, facing(layout, flat[rows])), truth[rows], model).mean)
    return torch.cat(errors)


@torch.no_grad()
def relief(
    network: Deca, model: MorphableModel, flat: Float[Tensor, "images all"], codes: Float[Tensor, "images detail"]
) -> Float[Tensor, "images face"]:
    """Return the predicted displacement at the vertices of the model's region `face`, mm, on the CPU."""
    device = network.unit.device
    texels = vertex_uv(model)[model.regions["face"]].to(device)
    maps = (
        network.displacement(flat[rows].to(device), codes[rows].to(device))
        for rows in torch.arange(len(flat)).split(TOGETHER)
    )
    return torch.cat([network.decoder.at(batch, texels).cpu() for batch in maps])


@dataclass(frozen=True)
class Wrinkles:
    """The true wrinkles of the test images on the fine mesh, and how near a prediction is to them."""

    material: Material
    points: Int[Tensor, " points"]  # of the fine mesh: where the decoder can move the face
    zone: Bool[Tensor, " points"]  # where the training people have wrinkles
    true: Float[Tensor, "images points"]  # mm

    @classmethod
    def of(cls, material: Material) -> "Wrinkles":
        """Return the true wrinkles of a run's test images."""
        stage, test, synth = material.stage.to("cpu"), material.test, SynthFace(material.run.seed)
        points = (stage.share > 0).nonzero()[:, 0]
        uv, expressions = stage.uv[points], test.truth["expression"]
        everything = torch.ones(1, expressions.shape[1])  # all expressions at once
        sampled = material.train.people[:: max(1, material.plan.people // SAMPLED)].tolist()
        depth = sum(true_wrinkles(synth, k, everything, uv)[0].abs() for k in sampled) / len(sampled)
        true = torch.empty(len(test), len(points))
        for k in test.people.tolist():
            own = test.subjects == k
            true[own] = true_wrinkles(synth, k, expressions[own], uv)
        return cls(material, points, depth > DEEP, true)

    def errors(self, values: Float[Tensor, "rows points"]) -> tuple[Tensor, Tensor]:
        """Return the mean |difference| of each image in the zone, mm: of the displacement, and of its change.

        The change is the displacement minus its mean over the images of the person. One row of values serves all.
        """
        values, target = values[:, self.zone].expand(len(self.true), -1), self.true[:, self.zone]
        who = self.material.test.subjects
        values_change, target_change = (part - mean_of_people(part, who) for part in (values, target))
        return (values - target).abs().mean(1), (values_change - target_change).abs().mean(1)

    def correlation(self, values: Float[Tensor, "rows points"]) -> Float[Tensor, " images"]:
        """Return the correlation over the zone's points of each image's displacement with the true one."""
        parts = values[:, self.zone].expand(len(self.true), -1), self.true[:, self.zone]
        centred = [part - part.mean(1, keepdim=True) for part in parts]
        return torch.cosine_similarity(*centred, dim=1)

    def loss_at(self, vectors: Float[Tensor, "images all"], drawn: bool = False) -> DetailLossAt:
        """Return the detail loss with the faces placed by `vectors`: see DetailLossAt.

        `drawn`: take drawings in place of the images: the same faces with the true wrinkles and the sensor's noise. So
        they differ from the smooth faces by wrinkles and noise only.
        """
        relief = torch.zeros(len(self.true), len(self.material.stage.uv))
        wrinkles = relief.index_copy(1, self.points, self.true)
        instead = wrinkles if drawn else None
        smooth, push = self._loss(vectors, relief, instead)
        wrinkled, _ = self._loss(vectors, wrinkles, instead)
        return DetailLossAt(smooth, wrinkled, push)

    def _loss(self, vectors: Tensor, relief: Tensor, drawn: Tensor | None = None) -> tuple[float, Tensor]:
        """Return the mean loss with a relief (mm, on the fine mesh), and the negative gradient of each image's loss.

        `drawn`: the relief of the drawings that take the place of the images.
        """
        test, stage, device = self.material.test, self.material.stage, self.material.run.device
        loss, push, generator = 0.0, torch.empty(len(test), len(self.points)), torch.Generator().manual_seed(0)
        for rows in torch.arange(len(test)).split(RENDERED):
            placed, shift = vectors[rows].to(device), relief[rows].to(device).requires_grad_()
            face = stage.detailed(placed, shift, test.size)
            image, bare = to_picture(test.inputs(rows).to(device)), test.read(["bare"], rows)["bare"].to(device) == 1
            if drawn is not None:
                noise = NOISE * torch.randn(image.shape, generator=generator)
                image = stage.detailed(placed, drawn[rows].to(device), test.size).image + noise.to(device)
            mask = stage.skin_mask(face, even=True) & bare
            value = local_photometric_loss(face.image, image, mask) * len(rows)
            push[rows] = -torch.autograd.grad(value, shift)[0].cpu()[:, self.points]
            loss += float(value.detach())
        return loss / len(test), push
