"""The reference parts of teacher, details and learner, at smoke: what ships is what was measured."""

import pytest
import torch

from facenb.methods.deca import reference
from facenb.methods.deca.measures import errors_at_rest
from facenb.methods.deca.plans import learner_plan, teacher_plan
from facenb.methods.deca.trainings import predict, prepare
from facenb.reference import read_part
from facenb.reference.shipment import write_part
from facenb.runs.results import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = Run("reference", "smoke", "synthetic", 0, "cpu", str(tmp_path_factory.mktemp("run")))
    for name in ("teacher", "details", "learner"):
        write_part(run.folder / "parts", name, getattr(reference, name)(run), {})
    return run


def test_the_shipped_teacher_has_the_measured_errors(run):
    material, part = prepare(run, teacher_plan("smoke")), read_part("teacher", folder=run.folder / "parts")
    errors = errors_at_rest(material, material.test, predict(reference.read_network(run, "teacher"), material.test))
    torch.testing.assert_close(part.measures["teacher/at rest"], errors)
    figures = {row["name"]: row["value"] for row in part.card["figures"]}
    ratio = errors.mean() / part.measures["mean face/at rest"].mean()
    below = figures["teacher, shape at rest, below the mean face's"]
    assert below == pytest.approx(100 * (1 - float(ratio)), abs=1e-3)


def test_details_leave_the_coarse_network_as_it_shipped(run):
    coarse, whole = reference.read_network(run, "teacher"), reference.read_network(run, "details")
    ends = whole.coarse.state_dict()
    assert all(torch.equal(value, ends[name]) for name, value in coarse.coarse.state_dict().items())
    assert whole.decoder.maps.abs().max() > 0 == coarse.decoder.maps.abs().max()


def test_details_trained_again_are_the_same(run):
    again, shipped = reference.details(run).networks["details"], reference.read_network(run, "details")
    torch.testing.assert_close(again.fine.state_dict(), shipped.fine.state_dict())
    torch.testing.assert_close(again.decoder.maps, shipped.decoder.maps)


def test_the_learner_is_measured_beside_its_teacher(run):
    part, teacher = read_part("learner", folder=run.folder / "parts"), reference.read_network(run, "details")
    learner, measures = reference.read_network(run, "learner"), part.measures
    assert not torch.equal(learner.coarse.layers[-1].weight, teacher.coarse.layers[-1].weight)
    assert torch.equal(learner.decoder.maps, teacher.decoder.maps)
    assert (measures["teacher/clear/displacement"] == 0).all() and (measures["learner/clear/displacement"] > 0).any()
    assert (measures[f"{part.card['best']}/hand/disagreement"] > 0).all()
    assert "learner, seen occluders, vertices, below its teacher's" in {row["name"] for row in part.card["figures"]}


def test_plans_of_the_reference_differ_from_the_notebooks():
    quick, plan = teacher_plan("quick", 3), teacher_plan("reference", 3)
    assert plan.image.seed == quick.image.seed == 3 and plan.people > quick.people
    assert learner_plan("reference", False).limit < learner_plan("quick", False).limit
