"""The arms of the ablation, on a set of two dozen people."""

import pytest
import torch

from facenb.methods import liu18
from facenb.methods.liu18.ablation import (
    ARMS,
    Ablation,
    OneCode,
    distance_to_fit,
    measure_arms,
    network_of_one_code,
    network_of_two_codes,
)
from facenb.networks.joint import Codes
from facenb.runs.results import Run


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return liu18.prepare(Run("09_test", "smoke", "synthetic", 0, "cpu", str(tmp_path_factory.mktemp("run"))))


@pytest.fixture(scope="module")
def ablation(material):
    return Ablation(material, seed=1)


@pytest.fixture(scope="module")
def networks(ablation):
    return ablation.arms()


class TestOneCode:
    @pytest.fixture
    def coefficients(self, material):
        stored = material.train.read(["identity", "expression"])
        return torch.cat([stored["identity"], stored["expression"]], 1)

    def test_decoder_gives_the_fitted_displacements(self, material, coefficients):
        code = OneCode(material)
        codes = code(coefficients)
        shape = network_of_one_code(material, code, 0).shape(Codes(codes, torch.zeros(len(codes), 0)))
        identity, expression = coefficients.split([len(material.model.identity_basis), 29], 1)
        expected = material.model.shape(identity, expression)
        torch.testing.assert_close(shape.whole, expected, atol=0.05, rtol=0)

    def test_codes_of_training_people_fill_their_range(self, material, coefficients):
        codes = OneCode(material)(coefficients)
        torch.testing.assert_close(codes.aminmax(dim=0)[1], torch.ones(codes.shape[1]), atol=1e-3, rtol=0)


class TestArms:
    def test_all_arms_are_trained_for_as_many_steps(self, ablation, networks):
        steps = {name: int(history.log["step"].iloc[-1]) for name, history in ablation.histories.items()}
        one = ablation.settings.steps
        assert steps == {"a_I": one, "bc_I": one, "a": one, "b": one, "c": one, "d": 2 * one}

    def test_b_and_c_start_from_the_same_weights(self, ablation, networks):
        starts = ablation.starts()
        for value, other in zip(starts["b"].parameters(), starts["c"].parameters(), strict=True):
            assert torch.equal(value, other)
        assert not torch.equal(networks["b"].to_identity.weight, networks["c"].to_identity.weight)

    def test_measures_agree_with_each_other(self, material, networks):
        measures = measure_arms(material, networks)
        gallery = liu18.recognition.Gallery.of(material)
        for arm, network in networks.items():
            verified = gallery.verify(liu18.encode(network, material.test).identity)
            assert torch.equal(measures[f"{arm}/right"], verified.right)
            torch.testing.assert_close(measures[f"{arm}/score"], verified.scores)
        assert {name.split("/")[0] for name in measures} == {*ARMS, "pairs", "people", "subject", "yaw"}


def test_distance_to_the_fit_of_a_network_that_always_predicts_the_mean(material):
    network = network_of_two_codes(material, 0)
    with torch.no_grad():  # codes whose coefficients are 0
        for head, scaling in (
            (network.to_identity, network.identity_scaling),
            (network.to_residual, network.residual_scaling),
        ):
            head.weight.zero_()
            head.bias.copy_(scaling.to_codes(torch.zeros(len(scaling.centre))))
    distance, subject = distance_to_fit(material, network, material.test, "whole")
    stored = material.test.read(["identity", "expression"])
    moved = material.model.shape(stored["identity"], stored["expression"]) - material.model.mean
    torch.testing.assert_close(distance, moved.square().sum(2).mean(1), rtol=1e-3, atol=1e-3)
    assert torch.equal(subject, material.test.subjects)


class TestGap:
    SUBJECT = torch.tensor([0, 0, 1, 1, 2, 2])

    @pytest.mark.parametrize(("error", "closed"), [(3.0, 0.0), (2.0, 50.0), (1.0, 100.0)])
    def test_between_mean_face_and_targets(self, error, closed):
        ones = torch.ones(6)
        assert liu18.gap_closed(3 * ones, error * ones, ones, self.SUBJECT).value == pytest.approx(closed)

    def test_each_person_counts_the_same(self):
        subject, network = torch.tensor([0, 0, 0, 1]), torch.tensor([1.0, 1.0, 1.0, 3.0])
        assert liu18.gap_closed(torch.full((4,), 3.0), network, torch.ones(4), subject).value == pytest.approx(50)
