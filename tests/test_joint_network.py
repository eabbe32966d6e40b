"""The joint network against the linear model it contains."""

import json

import pytest
import torch

from facenb.errors import ModelFileError
from facenb.morphable.model import Embedding, MorphableModel
from facenb.networks.deca import Deca
from facenb.networks.joint import Codes, JointNetwork, LinearDecoder, Scaling
from facenb.networks.sphereface import SphereFace

IDENTITY, RESIDUAL, VERTICES = 5, 3, 12


def network(residual: int = RESIDUAL, seed: int = 0, **encoder) -> JointNetwork:
    torch.manual_seed(seed)
    options = {"channels": (4, 6), "units": (1, 1), "features": 8, "size": (16, 12), **encoder}
    return JointNetwork(SphereFace(**options), IDENTITY, residual, VERTICES).eval()


def small_deca() -> Deca:
    encoder, decoder = {"blocks": (1, 1, 1, 1), "width": 4}, {"channels": (4, 3, 2)}
    return Deca(encoder=encoder, hidden=8, detail=4, decoder=decoder)


def scaled(joint: JointNetwork) -> JointNetwork:
    """The network with a random scaling."""
    generator = torch.Generator().manual_seed(3)
    for scaling in (joint.identity_scaling, joint.residual_scaling):
        scaling.centre.copy_(torch.rand(len(scaling.centre), generator=generator) + 0.5)
        scaling.half_range.copy_(torch.rand(len(scaling.centre), generator=generator) + 0.5)
    return joint


def codes(count: int = 4, residual: int = RESIDUAL) -> Codes:
    generator = torch.Generator().manual_seed(4)
    return Codes(torch.randn(count, IDENTITY, generator=generator), torch.randn(count, residual, generator=generator))


def images(count: int = 4) -> torch.Tensor:
    return torch.rand(count, 3, 16, 12, generator=torch.Generator().manual_seed(5)) * 2 - 1


@pytest.fixture
def model() -> MorphableModel:
    """A random linear model of the network's size."""
    generator = torch.Generator().manual_seed(6)
    mean, identity, expression = (
        torch.randn(*count, VERTICES, 3, generator=generator) for count in ((), (IDENTITY,), (RESIDUAL,))
    )
    return MorphableModel(
        name="random",
        mean=100 * mean,
        identity_basis=identity,
        expression_basis=expression,
        triangles=torch.tensor([[0, 1, 2]]),
        landmarks=Embedding.at([]),
    )


def with_model(joint: JointNetwork, model: MorphableModel) -> JointNetwork:
    """The network whose decoders are the model's own bases."""
    scaled(joint).set_mean_shape(model.mean)
    joint.set_bases(model.identity_basis, model.expression_basis)
    return joint


def test_decoders_of_the_models_bases_give_the_models_faces(model):
    joint, code = with_model(network(), model), codes()
    expected = model.shape(*joint.coefficients(code))
    assert torch.allclose(joint.shape(code).whole, expected, atol=1e-4)


def test_the_parts_of_a_shape_are_the_models_two_displacements(model):
    joint, code = with_model(network(), model), codes()
    (identity, expression), parts = joint.coefficients(code), joint.shape(code)
    assert torch.allclose(parts.identity, model.shape(identity) - model.mean, atol=1e-4)
    alone = torch.einsum("bk,kvc->bvc", expression, model.expression_basis)
    assert torch.allclose(parts.residual, alone, atol=1e-4)


def test_the_whole_is_the_mean_and_the_two_displacements():
    joint = network()
    joint.set_mean_shape(torch.randn(VERTICES, 3))
    parts = joint.shape(codes())
    assert torch.allclose(parts.whole, joint.mean_shape + parts.identity + parts.residual)


def test_each_part_follows_its_own_code_only():
    joint, code = network(), codes()
    parts = joint.shape(code)
    other = joint.shape(Codes(code.identity, code.residual + 1))
    assert torch.equal(parts.identity, other.identity) and not torch.allclose(parts.residual, other.residual)


def test_a_decoder_without_code_says_nothing_at_first():
    assert not LinearDecoder(4, 7)(torch.zeros(2, 4)).any()


class TestScaling:
    def test_spans_exactly_minus_one_to_one(self):
        values, scaling = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)), Scaling(6)
        scaling.span(values)
        codes = scaling.to_codes(values)
        torch.testing.assert_close(codes.amin(0), -torch.ones(6))
        torch.testing.assert_close(codes.amax(0), torch.ones(6))

    def test_a_dimension_without_spread_comes_back_as_its_one_value(self):
        scaling = Scaling(2)
        scaling.span(torch.tensor([[1.0, 2.0], [3.0, 2.0]]))
        codes = scaling.to_codes(torch.tensor([[2.0, 2.0], [3.0, 7.0]]))
        assert torch.equal(codes, torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
        assert scaling.to_coefficients(codes)[:, 1].tolist() == [2.0, 2.0]

    @pytest.mark.parametrize("residual", [RESIDUAL, 0])
    def test_coefficients_undo_codes(self, residual):
        joint, coefficients = scaled(network(residual)), codes(residual=residual)
        for back, expected in zip(joint.coefficients(joint.codes(*coefficients)), coefficients, strict=True):
            assert torch.allclose(back, expected, atol=1e-6)


def test_encoding_gives_codes_of_the_asked_lengths():
    found = network().encode(images())
    assert (found.identity.shape, found.residual.shape) == ((4, IDENTITY), (4, RESIDUAL))


def test_both_codes_come_from_the_same_features():
    joint = network()
    features = joint.encoder(images())
    found = joint.encode(images())
    assert torch.allclose(found.identity, features @ joint.to_identity.weight.T + joint.to_identity.bias, atol=1e-6)
    assert torch.allclose(found.residual, features @ joint.to_residual.weight.T + joint.to_residual.bias, atol=1e-6)


def test_without_residual_there_is_one_code_and_one_decoder():
    joint = network(residual=0)
    found = joint.encode(images())
    parts = joint.shape(found)
    assert found.residual.shape == (4, 0)
    assert not parts.residual.any() and torch.equal(parts.whole, joint.mean_shape + parts.identity)
    assert not [name for name, _ in joint.named_parameters() if "residual" in name]


@pytest.mark.parametrize("residual", [RESIDUAL, 0])
def test_every_parameter_gets_a_gradient_from_the_shape(residual):
    joint = network(residual).train()
    joint.shape(joint.encode(images())).whole.square().sum().backward()
    assert [name for name, p in joint.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_mean_and_scaling_do_not_train_and_are_saved():
    fixed = {"mean_shape", "identity_scaling.centre", "residual_scaling.half_range"}
    assert not fixed & dict(network().named_parameters()).keys() and fixed <= network().state_dict().keys()


def test_sixteen_bits_cost_a_shape_less_than_a_hundredth_of_its_displacement(model):
    joint, code = with_model(network(), model), codes()
    full = joint.shape(code)
    with torch.autocast("cpu", torch.bfloat16):
        half = joint.shape(code)
    assert half.whole.dtype == torch.float32
    assert (half.whole - full.whole).norm() < 0.01 * (full.whole - model.mean).norm()


# Saved networks


@pytest.mark.parametrize("residual", [RESIDUAL, 0])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_saved_network_comes_back_to_the_bit(tmp_path, residual, batch_norm):
    joint = network(residual, batch_norm=batch_norm)
    joint.train().encode(images(8))  # moves the running statistics of the normalisation
    scaled(joint.eval())
    joint.set_mean_shape(torch.randn(VERTICES, 3))
    again = JointNetwork.load(joint.save(tmp_path / "joint.safetensors", {"seed": 7}))
    assert again.card == {"seed": 7}
    assert again.config == joint.config and not again.training
    one, other = joint.encode(images()), again.encode(images())
    assert torch.equal(joint.shape(one).whole, again.shape(other).whole)
    for a, b in zip(joint.coefficients(one), again.coefficients(other), strict=True):
        assert torch.equal(a, b)


def test_the_configuration_is_json_and_makes_the_architecture_again():
    joint = network()
    again = JointNetwork.from_config(json.loads(json.dumps(joint.config)))
    assert {n: v.shape for n, v in again.state_dict().items()} == {n: v.shape for n, v in joint.state_dict().items()}


def test_loading_another_network_than_expected_names_what_differs(tmp_path):
    path = network().save(tmp_path / "joint", {})
    with pytest.raises(ModelFileError, match="another size: residual is 3, not 0. Train it again"):
        JointNetwork.load(path, network(residual=0).config)


def test_another_network_is_refused(tmp_path):
    small_deca().save(tmp_path / "deca", {})
    with pytest.raises(ModelFileError, match="deca holds 'Deca 3', not 'JointNetwork 3'"):
        JointNetwork.load(tmp_path / "deca")
