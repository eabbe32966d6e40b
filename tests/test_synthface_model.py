"""SynthFace's linear model: aligned, whitened, falling residual, blind to part of the truth, and shipped."""

import pytest
import torch

from facenb.imaging.camera import euler_to_matrix
from facenb.morphable import MorphableModel
from facenb.synthface.heads import load_heads
from facenb.synthface.model import (
    MOVED,
    align_skin,
    build_model,
    course_model,
    principal_components,
    procrustes,
    residual_by_components,
    with_jaw,
)
from facenb.synthface.people import SUBJECTS, SynthFace

SYNTH = SynthFace(0)
SKIN = SYNTH.regions["skin"]


@pytest.fixture(scope="module")
def small() -> MorphableModel:
    return build_model(people=12, components=5, albedo_components=3)


def test_procrustes_brings_moved_heads_together():
    heads = SYNTH.neutrals(list(range(8)))
    torch.manual_seed(0)
    turn = euler_to_matrix(0.3 * torch.randn(8, 3))
    shaken = heads @ turn.transpose(1, 2) + 20 * torch.randn(8, 1, 3)
    spread = [(x - x.mean(0))[:, SKIN].norm(dim=-1).mean() for x in (procrustes(heads, SKIN), procrustes(shaken, SKIN))]
    assert spread[1] == pytest.approx(float(spread[0]), rel=0.02)


def test_components_are_those_of_a_known_gaussian():
    torch.manual_seed(1)
    directions = torch.linalg.qr(torch.randn(30, 2)).Q.T.reshape(2, 10, 3)
    rows = 5 + torch.randn(500, 2) @ (torch.tensor([[3.0], [1.0]]) * directions.flatten(1))
    mean, basis = principal_components(rows.reshape(-1, 10, 3), 2, torch.arange(10))
    torch.testing.assert_close(mean, torch.full((10, 3), 5.0), atol=0.2, rtol=0)
    lengths = basis.flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, torch.tensor([3.0, 1.0]), rtol=0.1, atol=0)
    assert (basis[0].flatten() @ directions[0].flatten()).abs() > 0.99 * lengths[0]


def test_identity_is_whitened():
    model = course_model()
    heads = align_skin(SYNTH.neutrals(list(SUBJECTS["model"][:200])), model.mean, SKIN)[:, SKIN].flatten(1).double()
    basis = model.identity_basis[:, SKIN].flatten(1).double()
    identity = (heads - model.mean[SKIN].flatten()) @ torch.linalg.pinv(basis)
    torch.testing.assert_close(identity.mean(0), torch.zeros(80).double(), atol=0.05, rtol=0)
    torch.testing.assert_close(identity.var(0), torch.ones(80).double(), atol=0.05, rtol=0)


def test_the_truth_is_outside_the_model():
    residual = residual_by_components(course_model(), (20, 40, 80), people=12)
    assert residual.mean[0] > residual.mean[1] > residual.mean[2] > 0.2  # mm
    assert residual.mean[0] < 2


def test_expressions_are_mean_differences(small):
    subjects = [SYNTH.subject(k) for k in SUBJECTS["model"][:12]]
    index = small.expression_names.index("jawOpen")
    opened = torch.eye(len(small.expression_names))[[index]]
    moved = torch.cat([SYNTH.shape(subject, opened) - subject.neutral for subject in subjects]).mean(0)
    torch.testing.assert_close(small.expression_basis[index], moved)
    lips = small.landmarks.of(small.shape(None, opened))[0, :, 1]
    assert lips[62] - lips[66] > 25


def test_the_shipped_model_is_what_build_model_makes(small):
    model = course_model()
    assert (len(model.identity_basis), len(model.expression_basis), len(model.albedo_basis)) == (80, 29, 40)
    assert model.expression_names == SYNTH.expression_names and torch.equal(model.triangles, SYNTH.triangles)
    assert (model.mean - small.mean).norm(dim=-1).mean() < 4.0  # 12 of the 200 people
    assert torch.equal(model.contour, SYNTH.contour) and torch.equal(model.uv, SYNTH.uv)


def test_the_jaw_joint_opens_as_the_expression_does():
    model = course_model()
    jawed = with_jaw(model)
    assert set(model.expression_names) - set(jawed.expression_names) == set(MOVED)
    pose = torch.zeros(1, 2, 3)
    pose[0, 1, 0] = load_heads().jaw_angle
    teeth = load_heads().part("lower_teeth")
    turned = (jawed.shape(pose=pose) - model.mean)[0, teeth]
    opened = model.expression_basis[model.expression_names.index("jawOpen")][teeth]
    assert (turned - opened).norm(dim=-1).mean() < 0.1 * opened.norm(dim=-1).mean()
    with pytest.raises(ValueError, match="own model, with jawOpen"):
        with_jaw(jawed)


def test_too_few_people_are_refused():
    with pytest.raises(ValueError, match="20 people"):
        build_model(people=20, components=20)
