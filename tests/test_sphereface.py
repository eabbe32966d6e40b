"""SphereFace against an independent forward pass written from the published layer names, and its bad input."""

import io
import json
import pickle

import pytest
import torch
from helpers import Hostile
from safetensors.torch import save, save_file
from torch.nn import functional

from facenb.errors import ModelFileError
from facenb.networks.sphereface import SphereFace, load_sphere20, published_names

STAGES = {1: (3, 64, 3), 2: (64, 128, 5), 3: (128, 256, 9), 4: (256, 512, 3)}  # inputs, channels, convolutions


def published_weights(stages=STAGES, cells=7 * 6, features=512) -> dict[str, torch.Tensor]:
    """Random weights by the names and in the shapes of the published file, its class head included."""
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for stage, (inputs, channels, count) in stages.items():
        for number in range(1, count + 1):
            before = inputs if number == 1 else channels
            spread = (1 if number == 1 else 0.3) / (9 * before) ** 0.5
            weights[f"conv{stage}_{number}.weight"] = spread * torch.randn(channels, before, 3, 3, generator=generator)
            weights[f"conv{stage}_{number}.bias"] = 0.1 * torch.randn(channels, generator=generator)
            weights[f"relu{stage}_{number}.weight"] = torch.rand(channels, generator=generator)
        last = channels
    weights["fc5.weight"] = torch.randn(features, last * cells, generator=generator) / (last * cells) ** 0.5
    weights["fc5.bias"] = torch.randn(features, generator=generator)
    weights["fc6.weight"] = torch.randn(features, 10, generator=generator)
    return weights


def published_forward(weights, x, stages=STAGES):
    """The published network, from its description: PReLU after each convolution, pairs beside the identity."""

    def layer(x, name, stride=1):
        x = functional.conv2d(x, weights[f"conv{name}.weight"], weights[f"conv{name}.bias"], stride, 1)
        return functional.prelu(x, weights[f"relu{name}.weight"])

    for stage, (_, _, count) in stages.items():
        x = layer(x, f"{stage}_1", 2)
        for number in range(2, count, 2):
            x = x + layer(layer(x, f"{stage}_{number}"), f"{stage}_{number + 1}")
    return functional.linear(x.reshape(len(x), -1), weights["fc5.weight"], weights["fc5.bias"])


SMALL = {1: (3, 4, 3), 2: (4, 8, 5), 3: (8, 12, 9), 4: (12, 16, 3)}


def small(**options) -> SphereFace:
    torch.manual_seed(1)
    return SphereFace(**{"channels": (4, 8, 12, 16), "features": 20, "size": (32, 24), **options})


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    """Of the small network, as a published file would hold them."""
    return published_weights(SMALL, cells=2 * 2, features=20)


def test_the_names_and_shapes_of_sphere20_are_those_of_the_published_file():
    network = SphereFace()
    names = published_names(network)
    shapes = {names[name]: value.shape for name, value in network.state_dict().items()}
    assert shapes == {name: value.shape for name, value in published_weights().items() if not name.startswith("fc6")}


def test_published_weights_give_the_published_features(tmp_path):
    weights = published_weights()
    save_file(weights, tmp_path / "sphere20.safetensors")
    network = SphereFace()
    load_sphere20(network, tmp_path / "sphere20.safetensors")
    pixels = torch.randint(0, 256, (2, 3, 112, 96)).float()  # RGB bytes
    with torch.no_grad():
        ours = network(pixels / 255 * 2 - 1)
        theirs = published_forward(weights, (pixels.flip(1) - 127.5) / 128)
    assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_pth_file_loads_like_a_safetensors_file(tmp_path, weights, zipped, prefix):
    save_file(weights, tmp_path / "small.safetensors")
    one, other = small(), small()
    load_sphere20(one, tmp_path / "small.safetensors")
    renamed = {prefix + name: value for name, value in weights.items()}
    torch.save(renamed, tmp_path / "small.pth", _use_new_zipfile_serialization=zipped)
    load_sphere20(other, tmp_path / "small.pth")
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("size", [(112, 96), (64, 64), (64, 56), (63, 50), (16, 16), (5, 3)])
def test_any_size_of_picture_gives_features(size):
    assert small(size=size)(torch.zeros(2, 3, *size)).shape == (2, 20)


@pytest.mark.parametrize("network", [small(), small(batch_norm=True)])
def test_configuration_makes_the_same_network_again(network):
    again = SphereFace(**json.loads(json.dumps(network.config)))
    again.load_state_dict(network.state_dict())
    images = torch.rand(2, 3, *network.size)
    assert torch.equal(again.eval()(images), network.eval()(images))


@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_picture_does_not_depend_on_those_beside_it(batch_norm):
    network = small(batch_norm=batch_norm).eval()
    images = torch.rand(5, 3, 32, 24)
    assert torch.allclose(network(images)[2:3], network(images[2:3]), atol=1e-6)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_every_parameter_gets_a_gradient(batch_norm):
    network = small(batch_norm=batch_norm)
    network(torch.rand(4, 3, 32, 24)).square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_gradient_is_that_of_finite_differences():
    network = SphereFace(channels=(2, 3), units=(1, 1), features=2, size=(6, 5)).double()
    for parameter in network.parameters():  # away from the kinks at zero
        torch.nn.init.normal_(parameter, std=0.5)
    assert torch.autograd.gradcheck(network, torch.randn(2, 3, 6, 5, dtype=torch.float64, requires_grad=True))


def test_without_normalisation_a_signal_of_use_arrives_at_the_features():
    """The features' spread over pictures of noise lies within a factor of ten of the pictures' own."""
    network = SphereFace()
    with torch.no_grad():
        spread = network(torch.randn(8, 3, 112, 96)).std(0).mean().item()
    assert 0.1 < spread < 10


# Bad files


def changed(changes):
    """Write the weights with some tensors changed, and without those that are None."""
    return lambda path, weights: save_file({k: v for k, v in (weights | changes).items() if v is not None}, path)


def saved(weights) -> bytes:
    file = io.BytesIO()
    torch.save(weights, file)
    return file.getvalue()


NO_WEIGHTS = "damaged or not a file of weights"


@pytest.mark.parametrize(
    ("kind", "write", "told"),
    [
        ("safetensors", lambda path, weights: None, "There is no file"),
        ("safetensors", lambda path, weights: path.write_bytes(save(weights)[:-50]), NO_WEIGHTS),
        ("safetensors", lambda path, weights: path.write_text("no weights at all"), NO_WEIGHTS),
        ("pth", lambda path, weights: path.write_bytes(saved(weights)[:-500]), NO_WEIGHTS),
        ("pth", lambda path, weights: path.touch(), NO_WEIGHTS),
        ("pth", lambda path, weights: torch.save(list(weights.values()), path), "holds no named tensors"),
        ("safetensors", changed({"conv3_9.bias": None}), "lacks conv3_9.bias"),
        ("safetensors", changed({"conv3_10.weight": torch.zeros(1)}), "unknown tensor conv3_10.weight"),
        ("safetensors", changed({"fc5.weight": torch.zeros(20, 50)}), "fc5.weight has shape .20, 50., not .20, 64."),
        (
            "safetensors",
            changed({"relu2_2.weight": torch.zeros(8) / 0}),
            "relu2_2.weight has values that are not finite",
        ),
    ],
)
def test_a_bad_file_is_told_apart_and_changes_nothing(tmp_path, weights, kind, write, told):
    path = tmp_path / f"sphere20.{kind}"
    write(path, weights)
    network = small()
    before = [parameter.clone() for parameter in network.parameters()]
    with pytest.raises(ModelFileError, match=told) as error:
        load_sphere20(network, path)
    assert path.name in str(error.value)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


@pytest.mark.parametrize("write", [torch.save, lambda what, path: path.write_bytes(pickle.dumps(what, 2))])
def test_code_in_a_file_is_not_run(tmp_path, write):
    proof = tmp_path / "it-ran"
    write({"conv1_1.weight": Hostile(proof.touch)}, tmp_path / "sphere20.pth")
    with pytest.raises(ModelFileError, match="could run code"):
        load_sphere20(small(), tmp_path / "sphere20.pth")
    assert not proof.exists()
