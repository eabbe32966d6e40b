"""GLB with morph targets: read back by the standard's own rules, and by trimesh; GIF by Pillow."""

import json
import struct

import numpy as np
import pytest
import torch
import trimesh
from helpers import tensors
from PIL import Image

from facenb.photos.animated import save_animated_glb, save_gif

GENERATOR = torch.Generator().manual_seed(0)
VERTICES, COLOURS = 100 * torch.randn(5, 3, generator=GENERATOR), torch.rand(5, 3, generator=GENERATOR)
TRIANGLES = torch.tensor([[0, 1, 2], [2, 3, 4]])
TARGETS = {"smile": torch.randn(5, 3, generator=GENERATOR), "jaw": torch.randn(5, 3, generator=GENERATOR)}
WEIGHTS = torch.rand(4, 2, generator=GENERATOR)
KINDS = {5126: ("<f4", 4), 5125: ("<u4", 4), 5123: ("<u2", 2)}
LENGTHS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}


def read(path):
    """(JSON, accessor -> array) by Section 4.4 of the glTF 2.0 specification."""
    data = path.read_bytes()
    magic, version, length = struct.unpack_from("<4sII", data)
    assert (magic, version, length) == (b"glTF", 2, len(data))
    size, kind = struct.unpack_from("<I4s", data, 12)
    assert kind == b"JSON" and size % 4 == 0
    content = json.loads(data[20 : 20 + size])
    more, kind = struct.unpack_from("<I4s", data, 20 + size)
    assert kind == b"BIN\0" and more % 4 == 0 and 28 + size + more == len(data)
    binary = data[28 + size :]
    assert content["buffers"] == [{"byteLength": len(binary)}]

    def array(number):
        accessor = content["accessors"][number]
        view = content["bufferViews"][accessor["bufferView"]]
        kind, width = KINDS[accessor["componentType"]]
        assert view["byteOffset"] % width == 0
        part = binary[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
        values = np.frombuffer(part, kind).reshape(accessor["count"], LENGTHS[accessor["type"]])
        if "min" in accessor:
            np.testing.assert_allclose(values.min(0), accessor["min"], rtol=1e-6)
            np.testing.assert_allclose(values.max(0), accessor["max"], rtol=1e-6)
        return values

    return content, array


@pytest.fixture
def saved(tmp_path):
    return save_animated_glb(tmp_path / "face.glb", VERTICES, TRIANGLES, COLOURS, TARGETS, WEIGHTS)


def test_mesh_and_targets_come_back(saved):
    content, array = read(saved)
    mesh = content["meshes"][0]
    [primitive] = mesh["primitives"]
    np.testing.assert_allclose(array(primitive["attributes"]["POSITION"]), VERTICES / 1000, rtol=1e-6)
    assert array(primitive["indices"]).reshape(-1, 3).tolist() == TRIANGLES.tolist()
    assert mesh["extras"]["targetNames"] == ["smile", "jaw"] and mesh["weights"] == [0, 0]
    for target, offset in zip(primitive["targets"], TARGETS.values(), strict=True):
        np.testing.assert_allclose(array(target["POSITION"]), offset / 1000, rtol=1e-6)


def test_colours_are_linear_with_full_cover(saved):
    content, array = read(saved)
    number = content["meshes"][0]["primitives"][0]["attributes"]["COLOR_0"]
    assert content["accessors"][number]["normalized"] is True
    linear = array(number) / 65535
    shown = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)  # IEC 61966-2-1
    assert np.abs(shown[:, :3] - COLOURS.numpy()).max() < 1e-3
    assert (linear[:, 3] == 1).all()


def test_normals_of_a_ball_at_rest_and_stretched(tmp_path):
    places, faces = tensors(trimesh.creation.icosphere(2, 80.0))
    targets = {"flat": places * torch.tensor([0.0, 0.0, -0.5]), "long": places * torch.tensor([1.0, 0.0, 0.0])}
    path = save_animated_glb(tmp_path / "ball.glb", places, faces, places.abs() / 80, targets, WEIGHTS)
    content, array = read(path)
    [primitive] = content["meshes"][0]["primitives"]
    rest = array(primitive["attributes"]["NORMAL"])
    np.testing.assert_allclose(rest, places / 80, atol=0.03)  # a ball's normals point away from its middle
    for target, stretch in zip(primitive["targets"], ([1, 1, 2], [0.5, 1, 1]), strict=True):
        normals = rest + array(target["NORMAL"])
        np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, rtol=1e-5)
        ellipsoid = places.numpy() * stretch  # a stretched ball's normals are shrunk by as much
        ellipsoid /= np.linalg.norm(ellipsoid, axis=1, keepdims=True)
        assert (normals * ellipsoid).sum(1).min() > 0.99


def test_the_animation_moves_the_weights(saved):
    content, array = read(saved)
    [animation] = content["animations"]
    sampler = animation["samplers"][0]
    np.testing.assert_allclose(array(sampler["input"])[:, 0], np.arange(4) / 12, rtol=1e-6)
    np.testing.assert_allclose(array(sampler["output"]).reshape(4, 2), WEIGHTS, rtol=1e-6)
    assert animation["channels"][0]["target"] == {"node": 0, "path": "weights"}


def test_trimesh_reads_the_face(saved):
    scene = trimesh.load(saved, process=False)
    [mesh] = scene.geometry.values()
    np.testing.assert_allclose(mesh.vertices, VERTICES / 1000, rtol=1e-5)
    assert mesh.faces.tolist() == TRIANGLES.tolist()


def test_numbers_that_json_cannot_hold_are_refused(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_animated_glb(tmp_path / "face.glb", VERTICES * torch.nan, TRIANGLES, COLOURS, TARGETS, WEIGHTS)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_face_on_a_gpu(tmp_path):
    targets = {name: offset.cuda() for name, offset in TARGETS.items()}
    face = VERTICES.cuda(), TRIANGLES.cuda(), COLOURS.cuda(), targets, WEIGHTS.cuda()
    content, array = read(save_animated_glb(tmp_path / "face.glb", *face))
    [primitive] = content["meshes"][0]["primitives"]
    assert array(primitive["indices"]).reshape(-1, 3).tolist() == TRIANGLES.tolist()


def test_a_gif_holds_every_frame(tmp_path):
    frames = torch.stack([torch.full((8, 6, 3), shade) for shade in (0.0, 0.5, 1.0)])
    with Image.open(save_gif(tmp_path / "face.gif", frames)) as image:
        assert (image.n_frames, image.size, image.info["duration"]) == (3, (6, 8), 80)
        image.seek(1)
        assert abs(np.asarray(image.convert("RGB")).mean() - 128) < 3
