"""ResNet against a forward pass written from the published names, and its bad input."""

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional

from facenb.errors import ModelFileError
from facenb.networks.resnet import ResNet, load_resnet, places

BLOCKS, WIDTH = (2, 1, 2, 1), 4


def published_shapes(blocks=(3, 4, 6, 3), width=64, classes=1000) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published files, from the paper's table and torchvision's names."""

    def norm(name, channels):
        of_channels = ("weight", "bias", "running_mean", "running_var")
        return {f"{name}.{kind}": (channels,) for kind in of_channels} | {f"{name}.num_batches_tracked": ()}

    shapes = {"conv1.weight": (width, 3, 7, 7), **norm("bn1", width)}
    before = width
    for stage, count in enumerate(blocks):
        inside, after = width * 2**stage, 4 * width * 2**stage
        for k in range(count):
            at = f"layer{stage + 1}.{k}"
            shapes |= {f"{at}.conv1.weight": (inside, before, 1, 1), **norm(f"{at}.bn1", inside)}
            shapes |= {f"{at}.conv2.weight": (inside, inside, 3, 3), **norm(f"{at}.bn2", inside)}
            shapes |= {f"{at}.conv3.weight": (after, inside, 1, 1), **norm(f"{at}.bn3", after)}
            if k == 0:
                shapes |= {f"{at}.downsample.0.weight": (after, before, 1, 1), **norm(f"{at}.downsample.1", after)}
            before = after
    return shapes | {"fc.weight": (classes, before), "fc.bias": (classes,)}


def published_weights(**of) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, shape in published_shapes(**of).items():
        if name.endswith("tracked"):
            weights[name] = torch.tensor(7)
        elif name.endswith("running_var"):
            weights[name] = 0.5 + torch.rand(shape, generator=generator)
        else:
            fan = max(1, torch.Size(shape[1:]).numel()) if len(shape) > 1 else 1
            weights[name] = torch.randn(shape, generator=generator) / fan**0.5
    return weights


def published_forward(w, x, blocks=BLOCKS):
    def unit(x, conv, bn, stride=1, padding=0):
        x = functional.conv2d(x, w[f"{conv}.weight"], None, stride, padding)
        return functional.batch_norm(
            x, w[f"{bn}.running_mean"], w[f"{bn}.running_var"], w[f"{bn}.weight"], w[f"{bn}.bias"]
        )

    x = functional.max_pool2d(unit(x, "conv1", "bn1", 2, 3).relu(), 3, 2, 1)
    for stage, count in enumerate(blocks, 1):
        for k in range(count):
            at, stride = f"layer{stage}.{k}", 2 if stage > 1 and k == 0 else 1
            y = unit(x, f"{at}.conv1", f"{at}.bn1").relu()
            y = unit(y, f"{at}.conv2", f"{at}.bn2", stride, 1).relu()
            y = unit(y, f"{at}.conv3", f"{at}.bn3")
            x = unit(x, f"{at}.downsample.0", f"{at}.downsample.1", stride) if k == 0 else x
            x = (x + y).relu()
    return x.mean((2, 3)) @ w["fc.weight"].T + w["fc.bias"]


def test_names_and_shapes_are_those_of_resnet50():
    own = {name: tuple(tensor.shape) for name, tensor in ResNet(outputs=1000).state_dict().items()}
    assert own == published_shapes()


def test_gives_what_the_published_network_gives(tmp_path):
    weights = published_weights(blocks=BLOCKS, width=WIDTH, classes=10)
    save_file(weights, tmp_path / "resnet.safetensors")
    network = ResNet(BLOCKS, WIDTH, 10)
    load_resnet(network, tmp_path / "resnet.safetensors")
    images = torch.randn(2, 3, 65, 48, generator=torch.Generator().manual_seed(1))
    expected = published_forward(weights, images)
    torch.testing.assert_close(network.eval()(images), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_without_outputs_the_class_layer_is_left_out_and_features_come(tmp_path):
    torch.save(published_weights(blocks=BLOCKS, width=WIDTH, classes=10), tmp_path / "resnet.pth")
    network = ResNet(BLOCKS, WIDTH)
    load_resnet(network, tmp_path / "resnet.pth")
    assert network.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, network.features) == (1, 4 * WIDTH * 8)


def test_old_files_without_counts_are_read(tmp_path):
    weights = published_weights(blocks=BLOCKS, width=WIDTH, classes=10)
    save_file({n: t for n, t in weights.items() if not n.endswith("tracked")}, tmp_path / "old.safetensors")
    load_resnet(ResNet(BLOCKS, WIDTH, 10), tmp_path / "old.safetensors")


def test_places_are_where_a_channel_is_strongest():
    x = torch.zeros(2, 3, 4, 5)
    x[0, 1, 3, 0] = x[1, 2, 0, 4] = 100.0  # one bright spot, bottom left; another, top right
    found = places(x).view(2, 2, 3)
    torch.testing.assert_close(found[0, :, 1], torch.tensor([-0.8, 0.75]))
    torch.testing.assert_close(found[1, :, 2], torch.tensor([0.8, -0.75]))
    assert found[0, :, 0].abs().max() < 1e-6  # even: in the middle


@pytest.mark.parametrize("network", [ResNet(BLOCKS, WIDTH, outputs=5), ResNet(BLOCKS, WIDTH, places=True)])
def test_config_makes_it_again(network):
    again = ResNet(**network.config)
    assert {n: t.shape for n, t in again.state_dict().items()} == {n: t.shape for n, t in network.state_dict().items()}


def test_a_file_that_does_not_fit_is_refused(tmp_path):
    """The other kinds of bad files are in `test_sphereface`."""
    weights = published_weights(blocks=BLOCKS, width=WIDTH, classes=10)
    del weights["layer2.0.conv2.weight"]
    save_file(weights, tmp_path / "bad.safetensors")
    with pytest.raises(ModelFileError, match="lacks layer2.0.conv2.weight"):
        load_resnet(ResNet(BLOCKS, WIDTH, 10), tmp_path / "bad.safetensors")
