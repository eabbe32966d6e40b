"""Rana's learner: its lessons, its training, and how far it goes from its teacher."""

from dataclasses import replace

import pytest
import torch

from facenb.datasets.sets.faces import FaceSet
from facenb.methods.deca.learner import LOSSES, DecaReading, Distillation, TddfaReading, spreads_apart
from facenb.methods.deca.lessons import Lessons, by_turn, crops_of, synthetic_lessons
from facenb.methods.deca.measures import relief, vertex_errors
from facenb.methods.deca.pictures import build_pictures
from facenb.methods.deca.plans import SMOKE, learner_plan
from facenb.methods.deca.scene import posed
from facenb.morphable.layouts import LUO19
from facenb.networks.deca import UNITS, Deca, layout_of
from facenb.networks.detail import RATE
from facenb.networks.tddfa_v2 import SIDE
from facenb.runs.results import Run
from facenb.synthface import course_model, with_jaw


@pytest.fixture(scope="module")
def model():
    return with_jaw(course_model())


@pytest.fixture(scope="module")
def distillation(model, tmp_path_factory):
    run = Run("12_learner_under_occlusion", "smoke", "synthetic", 0, "cpu", str(tmp_path_factory.mktemp("run")))
    plan = replace(learner_plan("smoke", photos=False), people=1, held_back=2, tested=1)
    torch.manual_seed(0)
    teacher = Deca(layout_of(model), units=UNITS, **SMOKE.network).eval().requires_grad_(False)
    with torch.no_grad():  # an untrained network answers nearly the same for all images
        teacher.coarse.layers[-1].weight.mul_(20)
    taught = build_pictures(run.path("sets/teacher"), 0, [0, 1], 2, 48)
    reading = DecaReading(model, teacher.layout, (48, 48), run.device)
    return Distillation(teacher, reading, synthetic_lessons(run, plan, taught))


def turned(layout, angle):
    parts = {name: torch.zeros(2, length) for name, length in layout.parts.items()}
    parts["global_pose"][:, 1] = torch.tensor([angle, -angle])
    parts["camera"][:, 0] = 11
    return layout.join(parts)


@pytest.fixture(scope="module")
def learner(distillation):
    return distillation.train("by effect")[0]


def changed(distillation, learner):
    """Return the names of the tensors that differ from the teacher's."""
    ends, starts = learner.state_dict(), distillation.teacher.state_dict()
    return {name for name, start in starts.items() if not torch.equal(ends[name], start)}


class TestReadings:
    def test_yaw_of_both(self, distillation):
        flat = turned(distillation.reading.layout, 0.7)
        torch.testing.assert_close(distillation.reading.yaw(flat), torch.tensor([0.7, 0.7]))
        pose = torch.zeros(1, 62)
        cosine, sine = torch.tensor(0.7).cos(), torch.tensor(0.7).sin()
        rows = torch.stack([torch.stack([cosine, 0 * sine, -sine, 0 * sine]), torch.tensor([0.0, 1, 0, 0])])
        pose[:, LUO19.slices["pose"]] = torch.cat([3 * rows.flatten(), torch.zeros(4)])
        assert TddfaReading().yaw(pose).item() == pytest.approx(0.7, abs=1e-5)

    def test_points_are_vertices_of_the_face_in_pixels(self, distillation, model):
        """Each lies on a vertex of the whole head, projected here by hand: s (x + t) from -1 to 1, y up."""
        reading = distillation.reading
        flat = turned(reading.layout, 0.3)
        points = reading.points(distillation.teacher, flat)
        pixels = 11 * 24 / 1000  # of a millimetre
        head = posed(model, reading.layout, flat) * pixels
        places = 24 + head[..., :2] * torch.tensor([1.0, -1.0])
        assert points.shape[1] > 300 and torch.cdist(points[..., :2], places).amin(2).max() < 0.05  # pixels
        depths = head[..., 2]
        assert points[..., 2].amin() > depths.amin() - 1e-3 and points[..., 2].amax() < depths.amax() + 1e-3


class TestTraining:
    def test_only_the_coarse_part_learns_and_its_statistics_stay(self, distillation, learner):
        names = changed(distillation, learner)
        assert names and all(name.startswith("coarse.") and "running" not in name for name in names)

    def test_a_second_call_finds_the_training_done(self, distillation, learner):
        again, history = distillation.train("by effect")
        assert history.resumed_from == distillation.lessons.plan.learn.steps
        assert all(torch.equal(value, learner.state_dict()[name]) for name, value in again.state_dict().items())

    def test_details_learn_alone(self, distillation):
        names = changed(distillation, distillation.train_details()[0])
        assert names and all(name.startswith("fine.") for name in names)

    def test_losses_against_closed_forms(self, distillation):
        batch = {"occluded": torch.zeros(2, 3, 48, 48), "target": distillation.target[:2]}
        learned = distillation.teacher(batch["occluded"])
        difference = learned - batch["target"]
        assert distillation.loss("plain")(distillation.teacher, batch)["loss"] == difference.square().mean()
        spread = distillation.target.std(0, correction=0)
        value = distillation.loss("by spread")(distillation.teacher, batch)["loss"]
        torch.testing.assert_close(value, (difference / spread).square().mean())
        # By effect: albedo and light by spread, and the mean distance of the points.
        layout, points = distillation.reading.layout, distillation.reading.points
        still = torch.zeros(layout.size, dtype=torch.bool)
        for part in ("albedo", "light"):
            still[layout.slices[part]] = True
        distance = points(distillation.teacher, learned) - points(distillation.teacher, batch["target"])
        expected = distance.norm(dim=-1).mean() + (difference / spread)[:, still].square().sum() / difference.numel()
        value = distillation.loss("by effect")(distillation.teacher, batch)["loss"]
        torch.testing.assert_close(value, expected, atol=0.01, rtol=0)

    def test_clear_copies_are_drawn_three_times_as_often(self, distillation):
        """The probability of a copy is its weight's fraction; here all heads lie in few bins of yaw."""
        copies = distillation.lessons.copies
        plan = replace(distillation.lessons.plan, learn=replace(distillation.lessons.plan.learn, steps=1000))
        many = replace(distillation, lessons=replace(distillation.lessons, plan=plan))
        counts = many.drawn.bincount(minlength=len(copies)).float()
        bins = (distillation.reading.yaw(distillation.target).rad2deg() / 30.0001).long()[copies.row]
        for number in bins.unique():
            clear, painted = (counts[(bins == number) & mask] for mask in (copies.kind < 0, copies.kind >= 0))
            if len(clear) and len(painted):
                assert clear.mean() / painted.mean() == pytest.approx(3, rel=0.1)


class TestChoice:
    def test_between_the_ends(self, distillation):
        learner = distillation.train("plain")[0]
        start, end = distillation.teacher.coarse.layers[-1].bias, learner.coarse.layers[-1].bias
        for part in (0.0, 0.5, 1.0):
            mixed = distillation.between(part, learner).coarse.layers[-1].bias
            torch.testing.assert_close(mixed, (1 - part) * start + part * end)

    def test_a_learner_that_hardly_moved_goes_all_the_way_and_one_that_moved_far_does_not(self, distillation):
        near, far = (distillation.between(1, distillation.teacher) for _ in range(2))
        where = distillation.reading.layout.slices["camera"]
        with torch.no_grad():
            far.coarse.layers[-1].bias[where.start + 1] += 3.0  # the unit is 0.01: 30 mm to the right
        choice = distillation.choose({LOSSES[0]: near, LOSSES[1]: far})
        assert choice.fractions[LOSSES[0]] == 1 and 0 < choice.fractions[LOSSES[1]] < 0.25
        clear, _ = choice.tried[LOSSES[1], choice.fractions[LOSSES[1]]]
        assert clear.max() == pytest.approx(0.5, abs=0.1)  # pixels
        assert choice.best == LOSSES[0]

    def test_spreads_apart(self):
        values, aim = torch.tensor([[2.0, 0.0, 5.0]]), torch.zeros(1, 3)
        assert spreads_apart(values, aim, torch.tensor([1.0, 2.0, torch.inf])).item() == pytest.approx(2**0.5)


class TestLessons:
    def test_landmarks_lie_in_the_crop_where_they_lie_in_the_image(self):
        generator = torch.Generator().manual_seed(0)
        points = 100 + 60 * torch.rand(2, 68, 2, generator=generator)
        v, u = torch.meshgrid(torch.arange(256) + 0.5, torch.arange(256) + 0.5, indexing="ij")
        spot = points[:, 30, :, None, None]
        images = (-((u - spot[:, 0]) ** 2 + (v - spot[:, 1]) ** 2) / 18).exp()[..., None].expand(-1, -1, -1, 3)
        for jitter in (0.0, 0.06):
            faces, boxes = crops_of(images, points, 3, jitter)
            weight = faces.image[..., 0].double() / faces.image[..., 0].double().sum((1, 2), keepdim=True)
            v, u = torch.meshgrid(torch.arange(SIDE) + 0.5, torch.arange(SIDE) + 0.5, indexing="ij")
            found = torch.stack([(weight * u).sum((1, 2)), (weight * v).sum((1, 2))], -1).float()
            marked = faces.read(["landmarks"])["landmarks"][:, 30]
            torch.testing.assert_close(found, marked, atol=0.6, rtol=0)
            assert boxes.shape == (2, 4)

    def test_turned_faces_come_first(self):
        points = torch.zeros(3, 68, 2)
        points[:, 16, 0] = 100
        points[:, 30, 0] = torch.tensor([50.0, 90, 30])
        assert by_turn(points).tolist() == [1, 2, 0]

    def test_only_the_occluders_asked_for_are_painted(self, distillation):
        blocks = replace(distillation.lessons, seen=("blocks",))
        assert isinstance(blocks, Lessons) and len(blocks.copies.kind.unique()) == 2  # blocks, and clear

    def test_nobody_is_in_two_sets(self, distillation):
        lessons = distillation.lessons
        sets = [{*faces.subjects.tolist()} for faces in (lessons.clear, lessons.held_back, lessons.test)]
        assert not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])
        assert isinstance(lessons.clear, FaceSet) and len(lessons.truth) == len(lessons.test)


class TestMeasures:
    def test_vertex_errors_do_not_count_the_heads_turn(self, distillation, model):
        lessons, layout = distillation.lessons, distillation.reading.layout
        flat = turned(layout, 0.8)
        straight = turned(layout, 0.0)
        errors = [vertex_errors(model, layout, vectors, lessons.truth[:2]) for vectors in (flat, straight)]
        torch.testing.assert_close(*errors, atol=1e-3, rtol=0)
        own = posed(model, layout, straight)
        assert vertex_errors(model, layout, flat, own).max() < 1e-3 < errors[0].min()

    def test_relief_of_a_constant_map(self, distillation, model):
        network = distillation.between(0, distillation.teacher)
        with torch.no_grad():
            network.decoder.maps.zero_()[0] = 0.01
        values = relief(network, model, turned(network.layout, 0.1), torch.zeros(2, network.config["detail"]))
        expected = network.decoder.reach * torch.tensor(RATE * 0.01).tanh()
        torch.testing.assert_close(values, expected.expand_as(values))
        assert values.shape == (2, len(model.regions["face"]))
