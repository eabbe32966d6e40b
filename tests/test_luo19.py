"""The pairs, network, arms and measures of Luo et al. 2019 on a set of two dozen people."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import truncated

from facenb.datasets.sets.augmentation import NONE
from facenb.errors import ModelFileError
from facenb.evaluation.spread import within_and_between
from facenb.fitting.posed import camera_of
from facenb.losses import vdc, wpdc
from facenb.methods import liu18, luo19
from facenb.methods.luo19.reference import read_arms, read_margins, siamese
from facenb.reference.shipment import Shipment, read_part, write_part
from facenb.runs.results import Run


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    material, _ = luo19.prepare(Run("10_test", "smoke", "synthetic", 0, "cpu", str(tmp_path_factory.mktemp("run"))))
    return luo19.PairMaterial.of(material, luo19.plan("smoke", "synthetic"))


@pytest.fixture(scope="module")
def untrained(pairs):
    return luo19.new_network(pairs, 0).eval()


@pytest.fixture(scope="module")
def identity_test(pairs):
    return luo19.IdentityTest.of(pairs)


@pytest.fixture
def codes(pairs, identity_test):
    shape = len(identity_test.person), pairs.reduction.layout.size
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


class TestTargets:
    def test_all_components_place_the_fits_points(self, pairs):
        """Flat vectors with all components show the fitted face through the fitted camera."""
        whole = luo19.PairMaterial.of(pairs.material, pairs.plan, "own")
        fits = replace(pairs.material.train, augmentation=NONE).load(torch.arange(5))
        shape = pairs.material.model.shape(fits["identity"], fits["expression"])
        expected = camera_of(fits["pose"]).project(pairs.material.model.landmarks.of(shape))
        torch.testing.assert_close(whole.marks(whole.fitted[:5])[..., :2], expected[..., :2], atol=0.01, rtol=0)

    def test_images_of_pairs_are_not_mirrored(self, pairs):
        assert not pairs.material.train.augmentation.mirror

    def test_points_of_the_losses_begin_with_the_landmarks(self, pairs):
        face, other = pairs.face(0), pairs.face(1)
        torch.testing.assert_close(face.mean[:68], pairs.marks.mean)
        assert len(face.mean) == 268 and not torch.equal(face.mean[68:], other.mean[68:])


class TestNetwork:
    def test_a_saved_network_places_the_landmarks_alone(self, pairs, untrained, tmp_path):
        model = pairs.material.model
        again = luo19.Siamese.load(untrained.save(tmp_path / "siamese.safetensors", {}))
        images = pairs.validation["image"][:3]
        with torch.no_grad():
            mine, expected = again(images)[1], untrained(images)[1]
            assert torch.equal(mine, expected)
            marks = again.posed(model, model.landmarks)(again.flat(mine))
        torch.testing.assert_close(marks, pairs.marks(pairs.marks.flat(expected)))

    def test_outputs_start_near_the_mean_of_the_targets(self, pairs, untrained):
        flat = untrained.flat(torch.zeros(1, 62))
        torch.testing.assert_close(flat[0], pairs.fitted.mean(0))

    def test_a_model_of_other_sizes_is_refused(self, pairs, untrained):
        with pytest.raises(ValueError, match="80 identity and 29 expression"):
            untrained.posed(truncated(pairs.material.model, 40, 10))

    def test_another_encoder_is_refused(self, untrained, tmp_path):
        path = untrained.save(tmp_path / "siamese.safetensors", {})
        with pytest.raises(ModelFileError, match="encoder"):
            luo19.Siamese.load(path, {"encoder": {"name": "ResNet", "arguments": {}}})


class TestArms:
    def test_the_loss_is_the_weighted_sum(self, pairs, untrained):
        batch, face = pairs.data.load(torch.arange(6), torch.Generator().manual_seed(0)), pairs.face(0)
        loss = luo19.pair_loss(vdc, contrast=0.3, margin=4.0, identity=2.0)
        with torch.no_grad():
            found = loss({"network": untrained, "face": face}, batch)
            features, predicted = (value.numpy() for value in untrained(batch["image"]))
            moved = face(face.flat(torch.from_numpy(predicted))) - face(batch["flat"])
        same, alpha = batch["same"].numpy(), predicted[:, 12:52]
        distance = np.linalg.norm(alpha[:6] - alpha[6:], axis=1)
        contrastive = np.where(same, distance**2, np.maximum(4.0 - distance, 0) ** 2).mean()
        feature = ((features[:6] - features[6:]) ** 2).mean(1)[same].mean()
        expected = float(moved.square().sum(2).mean()) + 0.3 * contrastive + 2 * feature
        assert float(found["loss"]) == pytest.approx(expected, rel=1e-5)

    def test_plain_regression_has_no_loss_on_pairs(self, pairs, untrained):
        batch = pairs.data.load(torch.arange(4))
        assert set(luo19.pair_loss(wpdc)({"network": untrained, "face": pairs.face(0)}, batch)) == {"loss", "L_param"}

    def test_arms_see_the_same_batches(self, pairs, untrained):
        """With a weight that is almost zero, an arm ends where plain regression ends."""
        plain, _ = luo19.train_arm(pairs, untrained)
        nearly, _ = luo19.train_arm(pairs, untrained, identity=1e-12)
        for one, other in zip(plain.parameters(), nearly.parameters(), strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


class TestSweep:
    def test_takes_the_highest_auc_within_the_tolerance(self, pairs, untrained):
        sweep = luo19.Sweep(pairs, untrained, plain=(0.5, 3.0))
        assert sweep.best_of({(1.0,): (0.9, 3.2), (2.0,): (0.8, 3.01), (3.0,): (0.7, 2.9)}) == (2.0,)
        assert sweep.best_of({(1.0,): (0.9, 3.2), (2.0,): (0.8, 3.1)}) == (2.0,)  # none is allowed: the lowest NME

    @pytest.mark.parametrize(("best", "margins", "edges"), [(6, {3, 6, 10}, []), (99, {3, 6, 10, 17, 29}, ["margin"])])
    def test_extends_a_grid_at_most_twice(self, pairs, untrained, monkeypatch, best, margins, edges):
        """The AUC is highest at the margin `best`, at w_c = 0.3 and at w_i = 1."""

        def tried(sweep, options):
            far = abs(options.get("margin", 0) - best), abs(options.get("contrast", 0) - 0.3)
            return 1000 - sum(far) - abs(options.get("identity", 0) - 1), 3.0

        monkeypatch.setattr(luo19.Sweep, "_tried", tried)
        plan = replace(pairs.plan, contrasts=(0.1, 0.3, 0.9))
        sweep = luo19.Sweep(replace(pairs, plan=plan), untrained)
        chosen = sweep.run()
        assert {margin for _, margin in sweep.tables["contrast, margin"]} == margins
        assert chosen == {"contrast": 0.3, "margin": max(margins) if edges else best, "identity": 1.0}
        assert sweep.edges == edges


class TestMeasures:
    def test_spread_is_the_rms_distance_from_the_persons_mean(self, pairs, identity_test, codes):
        measured = measure_codes(identity_test, codes)
        own = codes[identity_test.person == 0][:, 12:52].double()
        expected = ((own - own.mean(0)).square().sum() / (len(own) - 1) / 40).sqrt()
        torch.testing.assert_close(measured.spread[0], expected)

    def test_spread_of_shapes_is_that_of_their_vertices(self, pairs, identity_test, codes):
        alpha = pairs.marks.flat(codes[identity_test.person == 0])[:, 12:52]
        shapes = pairs.reduction.model.shape(alpha)[:, identity_test.front].double()
        square = (shapes - shapes.mean(0)).square().sum(2).mean(1).sum() / (len(shapes) - 1)
        torch.testing.assert_close(identity_test.shape_spread(codes)[0], square.sqrt(), rtol=1e-4, atol=0)

    def test_the_mean_faces_shape_error_is_that_of_liu18(self, pairs, identity_test):
        white = pairs.marks.whiten(torch.zeros(len(identity_test.person), 62))
        expected = liu18.mean_face(pairs.material).identity
        torch.testing.assert_close(identity_test.shape_error(white), expected, atol=1e-3, rtol=0)

    def test_the_fits_own_coefficients_place_the_landmarks(self, pairs, untrained):
        """Within 1.5 pixels, which is about what the fits reach."""
        test = luo19.LandmarkTest.of(pairs)
        fits = pairs.reduction.flat(pairs.material.test.read(["pose", "identity", "expression"]))
        marks = test.landmarks(untrained, pairs.face(0).whiten(fits))
        assert float((marks - test.truths["exact labels"]).norm(dim=2).mean()) < 1.5


def measure_codes(identity_test, codes, noise=0.0):
    """Return what is measured of codes, with an NME of 10 % everywhere but for noise."""
    alpha = codes[:, identity_test.pairs.identity]
    error = 0.1 + noise * torch.rand(len(codes), generator=torch.Generator().manual_seed(1))
    right = torch.ones(4, dtype=torch.bool)
    people = within_and_between(alpha, identity_test.person)
    return luo19.Measured(*people, identity_test.shape_spread(codes), right, {"exact labels": error})


class TestEffects:
    def test_half_the_coefficients_have_half_the_spread_and_the_same_ratio(self, identity_test, codes):
        plain, half = ([measure_codes(identity_test, values)] for values in (codes, codes / 2))
        less, more = luo19.spread_less(plain, half, "spread"), luo19.ratio_more(plain, half)
        assert less.value == pytest.approx(luo19.spread(plain, "spread").value / 2)
        assert more.value == pytest.approx(0, abs=1e-9)

    def test_several_seeds_are_averaged(self, identity_test, codes):
        seeds = [measure_codes(identity_test, factor * codes) for factor in (1.0, 2.0, 4.0)]
        mean = luo19.spread(seeds, "spread")
        assert mean.value == pytest.approx(luo19.spread(seeds[:1], "spread").value * 7 / 3) and mean.seeds == 3

    def test_falls_are_relative_to_plain_regression(self, pairs, identity_test, codes):
        test = luo19.LandmarkTest.of(pairs)
        plain = [measure_codes(identity_test, codes, noise=0.05)]
        lower = [replace(plain[0], nme={"exact labels": 0.9 * plain[0].nme["exact labels"]})]
        falls = luo19.nme_falls(plain, lower, "exact labels", test.yaw, test.faces)
        assert [falls[name].value for name in luo19.METRICS] == pytest.approx([10.0] * 4)
        assert falls[luo19.LARGE_YAW].value == pytest.approx(0, abs=1e-6)


@pytest.fixture(scope="module")
def reference(pairs):
    """The part `siamese` at smoke, started from an untrained phase I, and its run."""
    run, material = pairs.material.run, pairs.material
    phase_one = material.new_network()
    phase_one.set_bases(material.model.identity_basis, material.model.expression_basis)
    write_part(run.folder / "parts", "liu18", Shipment(material.model, {"phase_I": phase_one.eval()}, {}, {}), {})
    write_part(run.folder / "parts", "siamese", siamese(run), {})
    return read_part("siamese", folder=run.folder / "parts")


class TestReference:
    def test_measures_are_those_of_the_shipped_networks(self, reference, pairs, identity_test):
        network = reference.network("both", luo19.Siamese, pairs.material.model)
        again = luo19.Measured.of(network, identity_test, luo19.LandmarkTest.of(pairs))
        stored = luo19.Measured.read(reference.measures, "+ both/seed0/")
        torch.testing.assert_close(stored.nme["exact labels"], again.nme["exact labels"])
        torch.testing.assert_close(stored.mean, again.mean.half().float(), atol=1e-5, rtol=1e-4)
        assert torch.equal(stored.right, again.right)

    def test_every_arm_and_seed_is_measured(self, reference):
        arms = read_arms(reference.measures, reference.card["seeds"])
        assert [len(seeds) for seeds in arms.values()] == [2] * 5
        one, other = arms["plain regression"]
        assert not torch.equal(one.mean, other.mean)

    def test_the_card_has_the_choice_and_how_it_was_made(self, reference):
        card = reference.card
        assert card["choice"] == {"contrast": 0.1, "margin": 4.0, "identity": 1.0}
        [[contrast, margin, auc, error]] = card["sweep"]["tables"]["contrast, margin"]
        assert (contrast, margin) == (0.1, 4.0) and 0 < auc < 1 and error > 0
        assert set(read_margins(reference.measures)) == {"plain", "4"}


def test_every_profile_has_a_plan():
    for profile in ("smoke", "quick", "full"):
        for data in ("synthetic", "photos", "paper"):
            plan = luo19.plan(profile, data, seed=3)
            assert {settings.seed for settings in (plan.start, plan.sweep, plan.arm)} == {3}
            assert plan.apart > plan.near
    assert liu18.plan("quick", "photos").augmentation["mirror"]  # so that `PairMaterial.of` has something to turn off
