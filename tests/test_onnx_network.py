"""ONNX networks: a tiny one written here byte by byte, and the released MobileFaceNet where the mirror is."""

import struct

import pytest
import torch

from facenb.datasets.pictures.lfw import read_lfw
from facenb.errors import ModelFileError
from facenb.evaluation.recognition import area_under_roc, cosine
from facenb.networks.onnx_network import IMAGENET, OnnxNetwork
from facenb.photos.store import prepare_photos

pytest.importorskip("onnxruntime", reason="needs onnxruntime")


def field(number: int, content) -> bytes:
    """A field of a protocol buffer: a whole number, or bytes with their length before them."""

    def varint(value):
        out = b""
        while value > 127:
            out, value = out + bytes([value & 127 | 128]), value >> 7
        return out + bytes([value])

    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    content = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(content)) + content


def value(name: str, sides: list) -> bytes:
    shape = b"".join(field(1, field(1, side) if isinstance(side, int) else field(2, side)) for side in sides)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, shape)))  # 1: float


def model(inputs: list, nodes=(("GlobalAveragePool", "x", "p"), ("Flatten", "p", "y")), outputs=("N", 3)) -> bytes:
    """An ONNX file: by default the mean of each channel."""
    graph = b"".join(field(1, field(1, a) + field(2, b) + field(4, kind)) for kind, a, b in nodes)
    graph += field(2, "g") + field(11, value("x", inputs)) + field(12, value("y", list(outputs)))
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13))


@pytest.fixture
def write(tmp_path):
    def written(*arguments, **more):
        path = tmp_path / "tiny.onnx"
        path.write_bytes(model(*arguments, **more))
        return path

    return written


@pytest.mark.parametrize("batch", [1, 4, "N"])
def test_features_are_of_pictures_less_the_mean(write, batch):
    network = OnnxNetwork(write([batch, 3, 6, 5], outputs=(batch, 3)), *IMAGENET)
    assert network.size == (6, 5)
    images = torch.rand(70, 6, 5, 3, generator=torch.Generator().manual_seed(0))
    mean, deviation = (torch.tensor(part) for part in IMAGENET)
    torch.testing.assert_close(network(images), (images.mean((1, 2)) - mean) / deviation, rtol=1e-4, atol=1e-5)


def test_a_network_of_any_size_takes_any(write):
    network = OnnxNetwork(write(["N", 3, "h", "w"]))
    assert network.size is None and network(torch.full((2, 4, 9, 3), 0.5)).abs().max() < 1e-6


class TestBadInput:
    def test_files_that_are_none(self, tmp_path, write):
        with pytest.raises(ModelFileError, match="There is no file"):
            OnnxNetwork(tmp_path / "none.onnx")
        (tmp_path / "bad.onnx").write_bytes(struct.pack("<8f", *range(8)))
        with pytest.raises(ModelFileError, match="onnxruntime cannot run .*bad.onnx"):
            OnnxNetwork(tmp_path / "bad.onnx")

    def test_networks_of_other_inputs_and_outputs(self, write):
        with pytest.raises(ModelFileError, match="takes x .*Give a network of float images"):
            OnnxNetwork(write(["N", 1, 6, 5]))
        with pytest.raises(ModelFileError, match="returns .*Give a network that returns a vector"):
            OnnxNetwork(write(["N", 3, 6, 5], nodes=(("Relu", "x", "y"),), outputs=("N", 3, 6, 5)))


def test_the_released_mobilefacenet_knows_people(real_asset):
    """With its training's mean and deviation; another scaling does about as well on LFW, and none may do better."""
    pairs = read_lfw(real_asset("lfw")).pairs()
    pairs = pairs[:30] + pairs[300:330]  # of one person, and of two
    photos = [photo for pair in pairs for photo in (pair.first, pair.second)]
    images = prepare_photos(photos).crops((112, 112)).float() / 255
    same, path = torch.tensor([pair.same for pair in pairs]), real_asset("mobilefacenet") / "MobileFaceNet.onnx"
    areas = {}
    for name, network in (("imagenet", OnnxNetwork(path, *IMAGENET)), ("half", OnnxNetwork(path))):
        features = network(images)
        areas[name] = area_under_roc(cosine(features[::2], features[1::2]), same)
    assert areas["imagenet"] > 0.98 and areas["imagenet"] >= areas["half"] - 0.01
