"""A teacher's stages of training and its errors against the truth."""

from dataclasses import replace

import pytest
import torch

from facenb.methods.deca import measures
from facenb.methods.deca.measures import (
    Wrinkles,
    errors_at_rest,
    landmark_error,
    predicted_wrinkles,
    true_wrinkles,
    watch_shapes,
)
from facenb.methods.deca.plans import SMOKE, teacher_plan
from facenb.methods.deca.scene import landmarks_of
from facenb.methods.deca.trainings import optimise, place, predict, prepare, train_coarse, train_details
from facenb.runs.results import Run
from facenb.synthface import SynthFace
from facenb.synthface.wrinkles import displacement


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    run = Run("11_teacher", "smoke", "synthetic", 0, "cpu", str(tmp_path_factory.mktemp("run")))
    return prepare(run, replace(SMOKE, people=2, watched=1, tested=2, pictures=2, near=2, descents=(4, 1)))


@pytest.fixture(scope="module")
def wrinkles(material):
    return Wrinkles.of(material)


class TestTrainings:
    def test_stages_train_one_part_each_and_the_run_folder_keeps_them(self, material):
        network = material.new_network()
        start = {name: value.clone() for name, value in network.state_dict().items()}
        assert list(train_coarse(material, network)) == ["landmarks", "image"]
        coarse = {name: value.clone() for name, value in network.state_dict().items()}
        changed = {name.split(".")[0] for name, value in coarse.items() if not torch.equal(value, start[name])}
        assert changed == {"coarse"}
        train_details(material, network, place(material, network))
        after = network.state_dict()
        changed = {name.split(".")[0] for name, value in after.items() if not torch.equal(value, coarse[name])}
        assert changed == {"fine", "decoder"}

        again = material.new_network()
        histories = train_coarse(material, again)
        assert {name: history.resumed_from for name, history in histories.items()} == {"landmarks": 6, "image": 4}
        assert all(torch.equal(value, coarse[name]) for name, value in again.state_dict().items())

    def test_optimised_vectors_explain_the_landmarks_better(self, material):
        network = material.new_network()
        vectors = predict(network, material.test), optimise(material, network, material.test)
        before, after = (landmark_error(material.model, material.layout, flat, material.test) for flat in vectors)
        assert (after < before).all()

    def test_the_seed_decides_the_weights_and_the_order(self, material):
        runs = [Run("11_teacher", "smoke", "synthetic", seed, "cpu", str(material.run.folder)) for seed in (0, 0, 1)]
        one, same, other = (replace(material, run=run).new_network().coarse.encoder.conv1.weight for run in runs)
        assert torch.equal(one, same) and not torch.equal(one, other)
        assert teacher_plan("quick", 3).image.seed == 3


def test_landmark_error_in_percent_of_the_side(material):
    """Against the same mean, one image after the other."""
    flat = predict(material.new_network(), material.test)
    places = landmarks_of(material.model, material.layout, flat, material.test.size)
    error = landmark_error(material.model, material.layout, flat, material.test)
    given = material.test.load(torch.arange(len(flat)))["landmarks"]
    expected = torch.stack([(a - b).square().sum(1).sqrt().mean() for a, b in zip(places, given, strict=True)])
    torch.testing.assert_close(error, 100 * expected / material.plan.side)


class TestRest:
    def test_the_truths_own_identity_is_nearer_than_the_mean_face(self, material):
        """The model's coefficients of the true shape (least squares) leave less than the mean face leaves."""
        synth, model, layout = SynthFace(0), material.model, material.layout
        parts = {name: torch.zeros(len(material.test), length) for name, length in layout.parts.items()}
        basis = model.identity_basis.flatten(1).T  # (3 V, identity)
        for k, who in enumerate(material.test.subjects.tolist()):
            moved = (synth.subject(who).neutral - model.mean).flatten()
            parts["identity"][k] = torch.linalg.lstsq(basis, moved[:, None]).solution[:, 0]
        best, mean = (
            errors_at_rest(material, material.test, layout.join(parts)),
            errors_at_rest(material, material.test),
        )
        assert (best < 0.8 * mean).all() and (mean > 1).all()
        zero = torch.zeros_like(layout.join(parts))
        torch.testing.assert_close(errors_at_rest(material, material.test, zero), mean)

    def test_averaged_identities_are_those_of_the_person(self, material):
        layout, where = material.layout, material.layout.slices["identity"]
        flat = torch.randn(len(material.test), layout.size, generator=torch.Generator().manual_seed(0))
        mean = flat.clone()
        mean[:, where] = flat[:, where].unflatten(0, (2, 2)).mean(1).repeat_interleave(2, 0)
        averaged = errors_at_rest(material, material.test, flat, averaged=True)
        torch.testing.assert_close(averaged, errors_at_rest(material, material.test, mean))

    def test_an_untrained_network_is_watched_as_the_mean_face(self, material):
        assert watch_shapes(material)(material.new_network())["at rest"] == pytest.approx(1, abs=0.05)


class TestWrinkles:
    def test_true_wrinkles_are_the_texels_of_the_map(self):
        """At the centre of a texel the interpolated value is the texel's own."""
        synth, expression = SynthFace(0), torch.ones(1, len(SynthFace(0).expression_names))
        whole = displacement(synth, synth.subject(5), expression)[0]
        side, (row, column) = len(whole), divmod(int(whole.argmin()), len(whole))
        uv = torch.tensor([[(column + 0.5) / side, 1 - (row + 0.5) / side]])
        value = true_wrinkles(synth, 5, expression, uv)
        assert whole.min() < -0.5 and value.item() == pytest.approx(whole.min().item(), abs=1e-3)

    def test_the_truth_has_no_error_and_an_offset_has_its_own(self, wrinkles):
        assert all((error == 0).all() for error in wrinkles.errors(wrinkles.true))
        displaced, changed = wrinkles.errors(wrinkles.true + 0.25)
        torch.testing.assert_close(displaced, torch.full_like(displaced, 0.25))
        torch.testing.assert_close(changed, torch.zeros_like(changed), atol=1e-6, rtol=0)

    def test_correlation(self, wrinkles):
        torch.testing.assert_close(wrinkles.correlation(3 * wrinkles.true + 1), torch.ones(len(wrinkles.true)))
        generator = torch.Generator().manual_seed(0)
        values = torch.randn(len(wrinkles.true), len(wrinkles.points), generator=generator)
        expected = [
            torch.corrcoef(torch.stack(pair))[0, 1]
            for pair in zip(values[:, wrinkles.zone], wrinkles.true[:, wrinkles.zone], strict=True)
        ]
        torch.testing.assert_close(wrinkles.correlation(values), torch.stack(expected))

    def test_a_decoder_at_its_start_predicts_none(self, material, wrinkles):
        network = material.new_network()
        flat, codes = predict(network, material.test), predict(network, material.test, detail=True)
        assert predicted_wrinkles(network, material.stage, flat, codes).abs().max() == 0

    def test_the_push_is_the_slope_of_the_loss(self, material, wrinkles):
        """Against a difference quotient along the true wrinkles."""
        flat = optimise(material, material.new_network(), material.test)
        direction = torch.zeros(len(material.stage.uv)).index_copy(0, wrinkles.points, wrinkles.true.mean(0))
        relief = torch.zeros(len(flat), len(direction))
        _, push = wrinkles._loss(flat, relief)
        ends = [wrinkles._loss(flat, relief + step * direction)[0] for step in (0.05, -0.05)]
        slope = -float((push * wrinkles.true.mean(0)).sum()) / len(flat)
        assert slope == pytest.approx((ends[0] - ends[1]) / 0.1, rel=0.2, abs=1e-6)

    def test_a_drawing_differs_by_its_wrinkles_and_the_noise(self, material, wrinkles, monkeypatch):
        flat = optimise(material, material.new_network(), material.test)
        noisy = wrinkles.loss_at(flat, drawn=True)
        monkeypatch.setattr(measures, "NOISE", 0.0)
        clean = wrinkles.loss_at(flat, drawn=True)
        assert clean.wrinkled == 0 < clean.smooth < noisy.smooth
        assert (wrinkles.correlation(clean.push) > 0).all()
