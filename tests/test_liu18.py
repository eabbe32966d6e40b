"""Phases, material and measures of Liu et al. 2018 on a set of two dozen people."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from facenb.datasets.sets.build_synthetic import true_shapes
from facenb.errors import FacenbError
from facenb.methods import liu18
from facenb.methods.liu18.__main__ import main
from facenb.networks.heads import make_head
from facenb.networks.joint import Codes
from facenb.runs.results import Run
from facenb.training import train


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return liu18.prepare(Run("06_test", "smoke", "synthetic", 0, "cpu", str(tmp_path_factory.mktemp("run"))))


@pytest.fixture(scope="module")
def in_closed_form(material):
    """A network whose decoders are the 3DMM's own."""
    network = material.new_network()
    network.set_bases(material.model.identity_basis, material.model.expression_basis)
    return network


@pytest.fixture
def batch(material):
    return material.train.load(torch.arange(6), torch.Generator().manual_seed(0))


def modules_of(material, network):
    torch.manual_seed(0)
    head = make_head("softmax", network.identity, material.train.classes)
    return {"network": network, "head": head, "targets": material.supervision()}


class TestMaterial:
    def test_nobody_is_in_two_parts(self, material):
        parts = [set(part.subjects.tolist()) for part in (material.train, material.validation, material.test)]
        assert sum(map(len, parts)) == len(set.union(*parts)) == liu18.plan("smoke", "synthetic").people

    def test_again_is_the_same_set_and_split(self, material):
        again = liu18.prepare(material.run)
        assert torch.equal(again.train.rows, material.train.rows)
        assert torch.equal(again.test.rows, material.test.rows)

    def test_scaling_knows_training_people_only(self, material):
        batch = material.train.load(torch.arange(len(material.train)))
        for codes in material.new_network().codes(batch["identity"], batch["expression"]):
            assert codes.abs().max() <= 1 + 1e-5
            torch.testing.assert_close(codes.amax(0), torch.ones(codes.shape[1]))

    def test_same_seed_same_network(self, material):
        one, two, other = material.new_network(3), material.new_network(3), material.new_network(4)
        assert torch.equal(one.to_identity.weight, two.to_identity.weight)
        assert not torch.equal(one.to_identity.weight, other.to_identity.weight)

    def test_truth_is_that_of_the_pictures(self, material):
        rows = torch.tensor([0, 5])
        torch.testing.assert_close(material.truth[rows], true_shapes(material.test.take(rows)))

    def test_paper_data_says_what_is_missing(self, tmp_path, monkeypatch):
        monkeypatch.setenv("FACENB_DATA", str(tmp_path / "data"))
        monkeypatch.delenv("FACENB_MIRROR", raising=False)
        with pytest.raises(FacenbError, match="lfw|bfm-2019"):
            liu18.prepare(Run("06_test", "smoke", "paper", 0, "cpu", str(tmp_path)))

    @pytest.mark.parametrize("profile", ["smoke", "quick", "full"])
    @pytest.mark.parametrize("data", ["synthetic", "photos", "paper"])
    def test_every_profile_has_a_plan_that_fits_together(self, profile, data):
        plan = liu18.plan(profile, data, seed=3)
        assert {settings.seed for settings in (plan.one, plan.two, plan.three, plan.ablation)} == {3}
        assert tuple(plan.encoder["size"]) == plan.size
        assert plan.folds or data != "photos"
        assert 0 <= plan.test + plan.validation < 1


class TestSupervision:
    def test_targets_are_the_models_shapes_of_the_fitted_coefficients(self, material, batch):
        identity, residual = material.supervision()(batch)
        fitted = material.train.table.read(batch["row"], ["identity", "expression"])
        model = material.model
        expected = model.shape(fitted["identity"], fitted["expression"])
        torch.testing.assert_close(model.mean + identity + residual, expected, atol=2e-3, rtol=0)

    def test_unit_is_what_the_mean_face_gets(self, material):
        rows = torch.arange(0, len(material.train), max(1, len(material.train) // 512))
        targets = material.supervision()
        parts = targets(material.train.load(rows))
        own = np.mean([part.double().square().sum(2).mean().item() for part in parts]) * 2
        assert targets.unit == pytest.approx(own, rel=1e-5)


class TestPhases:
    def test_phase_one_is_the_mean_squared_code_error(self, material, batch):
        network = material.new_network().eval()
        found = liu18.phase_one({"network": network}, batch)
        pairs = zip(network.encode(batch["image"]), network.codes(batch["identity"], batch["expression"]), strict=True)
        expected = sum(((a - b).detach().numpy() ** 2).mean() for a, b in pairs)
        assert found["loss"].item() == pytest.approx(float(expected), rel=1e-5)

    def test_phase_two_vanishes_for_the_models_own_decoders(self, material, in_closed_form, batch):
        found = liu18.phase_two({"network": in_closed_form, "targets": material.supervision()}, batch)
        assert found["loss"].item() < 1e-9

    def test_phase_three_is_the_weighted_sum(self, material, in_closed_form, batch):
        modules = modules_of(material, in_closed_form.eval())
        modules["targets"].eval()
        found = liu18.phase_three(steps=30)(modules, batch)
        codes = in_closed_form.encode(batch["image"])
        aim = modules["targets"](batch)
        made = in_closed_form.shape(codes)
        by_vertex = [(m - a).double().norm(dim=2).square().mean() for m, a in zip(made[:2], aim, strict=True)]
        classes = modules["head"](codes.identity, batch["label"]).double().log_softmax(1)
        own = -classes[torch.arange(6), batch["label"]].mean()
        assert found["L_R"].item() == pytest.approx(sum(by_vertex).item(), rel=1e-4)
        assert found["loss"].item() == pytest.approx((0.5 * sum(by_vertex) + own).item(), rel=1e-4)

    def test_weight_rises_after_a_third_and_is_kept_by_the_module(self, material, in_closed_form, batch):
        modules, loss = modules_of(material, in_closed_form), liu18.phase_three(steps=6)
        modules["targets"].train()
        weights = []
        for _ in range(4):
            found = loss(modules, batch)
            weights.append(round(((found["loss"] - found["L_C"]) / found["L_R"]).item(), 3))
        assert weights == [0.5, 0.5, 1.0, 1.0]
        assert modules["targets"].state_dict().keys() == {"calls"}  # so that a checkpoint goes on with the right one

    def test_an_arm_without_a_part_does_not_train_it(self, material, batch):
        network = material.new_network()
        modules = modules_of(material, network)
        liu18.phase_three(6, reconstruction=False)(modules, batch)["loss"].backward()
        assert network.identity_decoder.fc.weight.grad is None and network.to_identity.weight.grad is not None
        network.zero_grad(set_to_none=True)
        modules["head"].zero_grad(set_to_none=True)
        liu18.phase_three(6, identification=False)(modules, batch)["loss"].backward()
        assert modules["head"].weight.grad is None and network.to_residual.weight.grad is not None

    def test_training_lowers_the_loss_on_what_it_sees(self, material, tmp_path):
        settings = replace(material.plan.one, steps=12, log_every=4)
        history = train({"network": material.new_network()}, liu18.phase_one, material.train, settings, tmp_path)
        assert history.log["loss"].iloc[-1] < history.log["loss"].iloc[0]


class TestMeasures:
    def test_encode_goes_by_batches_without_augmentation(self, material, monkeypatch):
        network = material.new_network().eval()
        monkeypatch.setattr("facenb.methods.liu18.measures.TOGETHER", 7)
        found = liu18.encode(network, material.train, torch.arange(20))
        with torch.no_grad():
            own = network.encode(material.train.load(torch.arange(20))["image"])
        torch.testing.assert_close(found.identity, own.identity, atol=1e-5, rtol=1e-4)

    def test_the_truth_itself_has_no_error(self, material):
        found = liu18.measure(material, lambda rows: (material.truth[rows], material.neutral[rows]))
        assert float(found.whole.max()) < 1e-3 and float(found.identity.max()) < 1e-3

    def test_closed_form_decoders_measure_as_the_model_does(self, material, in_closed_form):
        generator = torch.Generator().manual_seed(0)
        rows = len(material.test)
        codes = Codes(*(0.3 * torch.randn(rows, n, generator=generator) for n in (80, 29)))
        one = liu18.measure_network(material, in_closed_form, codes)
        two = liu18.measure_model(material, in_closed_form, codes)
        torch.testing.assert_close(one.whole, two.whole, atol=2e-3, rtol=0)
        torch.testing.assert_close(one.identity, two.identity, atol=2e-3, rtol=0)

    def test_another_network_is_refused_by_name(self, material):
        network = material.new_network()
        network.save(material.run.path("networks/test.safetensors"), {})
        wrong = network.config | {"identity": 79}
        with pytest.raises(FacenbError, match="identity is 80, not 79"):
            liu18.need_network(material.run, "test", "06_test", wrong)


class TestCommand:
    def test_a_notebook_finds_the_training_done(self, material):
        """`python -m facenb.methods.liu18 I` and notebook 06 train the same thing in the same folder."""
        main(["I", "--profile", "smoke", "--device", "cpu", "--run-folder", str(material.run.folder), "--tensorboard"])
        history = liu18.train_phase_one(material, material.new_network(0))
        assert history.resumed_from == material.plan.one.steps
        assert list(material.run.folder.glob("tensorboard/phase_I/events*"))

    def test_names_what_is_missing(self, material):
        with pytest.raises(FacenbError, match="07_phase_two_decoders"):
            main(["III", "--profile", "smoke", "--device", "cpu", "--run-folder", str(material.run.folder)])
