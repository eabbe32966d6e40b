"""3DDFA-V2 against a slow twin by the released file's own names, a projection written out by hand, and its photos."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from facenb.datasets.pictures.aflw2000 import read_aflw2000
from facenb.errors import LandmarkError, ModelFileError
from facenb.evaluation.landmarks import nme
from facenb.morphable.layouts import LUO19
from facenb.networks.tddfa_v2 import BLOCKS, TDDFA, MobileNet, crop, load_mobilenet, square_box

WIDTH = 0.125


def random(*shape, seed=0, low=-1.0, high=1.0):
    return torch.empty(shape).uniform_(low, high, generator=torch.Generator().manual_seed(seed))


def released(width=WIDTH) -> dict[str, torch.Tensor]:
    """A state_dict by the released names, as their own architecture has it, with random numbers."""
    tensors, channels = {}, int(32 * width)

    def norm(name, count):
        for kind in ("weight", "bias", "running_mean", "running_var"):
            tensors[f"{name}.{kind}"] = random(count, seed=len(tensors), low=0.5, high=1.5)
        tensors[f"{name}.num_batches_tracked"] = torch.tensor(7)

    tensors["conv1.weight"] = random(channels, 3, 3, 3)
    norm("bn1", channels)
    for block, (full, _) in BLOCKS.items():
        outputs = int(full * width)
        tensors[f"{block}.conv_dw.weight"] = random(channels, 1, 3, 3, seed=len(tensors))
        norm(f"{block}.bn_dw", channels)
        tensors[f"{block}.conv_sep.weight"] = random(outputs, channels, 1, 1, seed=len(tensors))
        norm(f"{block}.bn_sep", outputs)
        channels = outputs
    tensors["fc_param.weight"], tensors["fc_param.bias"] = random(62, channels), random(62)
    tensors["fc_lm.weight"], tensors["fc_lm.bias"] = random(136, channels), random(136)
    return {f"module.{name}": tensor for name, tensor in tensors.items()}


def slow_twin(tensors, x):
    """The released network as a list of convolutions, by name."""

    def norm(x, name):
        of = {kind: tensors[f"module.{name}.{kind}"] for kind in ("running_mean", "running_var", "weight", "bias")}
        return torch.relu(functional.batch_norm(x, *of.values()))

    x = norm(functional.conv2d(x, tensors["module.conv1.weight"], stride=2, padding=1), "bn1")
    halving = {"dw2_2", "dw3_2", "dw4_2", "dw5_6"}
    for block in BLOCKS:
        weight = tensors[f"module.{block}.conv_dw.weight"]
        x = functional.conv2d(x, weight, stride=1 + (block in halving), padding=1, groups=len(weight))
        x = norm(x, f"{block}.bn_dw")
        x = norm(functional.conv2d(x, tensors[f"module.{block}.conv_sep.weight"]), f"{block}.bn_sep")
    return x.mean((2, 3)) @ tensors["module.fc_param.weight"].T + tensors["module.fc_param.bias"]


@pytest.fixture
def folder(tmp_path):
    """A small network and random bases in the released layout."""
    torch.save({"epoch": 1, "state_dict": released()}, tmp_path / "mb05_120x120.pth")
    shapes = {
        "v2_mean": (62,),
        "v2_std": (62,),
        "u_base": (204,),
        "w_shp_base": (204, 40),
        "w_exp_base": (204, 10),
        "paf_mu": (4096, 3),
        "paf_w_shp": (12288, 40),
        "paf_w_exp": (12288, 10),
    }
    np.savez(
        tmp_path / "bfm68.npz", **{key: random(*shape, seed=k).numpy() for k, (key, shape) in enumerate(shapes.items())}
    )
    return tmp_path


def test_the_network_is_the_released_one(folder):
    network, pictures = load_mobilenet(folder / "mb05_120x120.pth"), random(2, 3, 120, 120)
    assert network.conv1.out_channels == 32 * WIDTH and not network.training
    with torch.no_grad():
        torch.testing.assert_close(network(pictures), slow_twin(released(), pictures), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("width", "millions"), [(0.5, 0.85), (1.0, 3.27)])
def test_size_is_as_its_authors_say(width, millions):
    """The README of the 3DDFA_V2 repository: 0.85 M and 3.27 M parameters."""
    assert sum(p.numel() for p in MobileNet(width).parameters()) / 1e6 == pytest.approx(millions, abs=0.02)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"paf_mu": None}, r"has no array paf_mu of shape \(4096, 3\)"),
        ({"u_base": np.zeros(203)}, r"has no array u_base of shape \(204,\)"),
    ],
)
def test_bases_that_are_none_are_named(folder, arrays, message):
    with np.load(folder / "bfm68.npz") as file:
        whole = dict(file) | arrays
    np.savez(folder / "bfm68.npz", **{key: value for key, value in whole.items() if value is not None})
    with pytest.raises(ModelFileError, match=message):
        TDDFA.load(folder)


def test_a_file_of_another_network_is_refused(tmp_path):
    """The other kinds of bad files are in `test_sphereface`."""
    tensors = released()
    del tensors["module.dw4_1.bn_dw.weight"]
    for content, message in ((tensors, "lacks dw4_1.bn_dw.weight"), ({}, "does not hold a MobileNet")):
        torch.save({"state_dict": content}, tmp_path / "some.pth")
        with pytest.raises(ModelFileError, match=message):
            load_mobilenet(tmp_path / "some.pth")


def test_bases_that_are_missing_or_cut_short(folder):
    path = folder / "bfm68.npz"
    for spoil in (lambda: path.write_bytes(path.read_bytes()[:1000]), path.unlink):
        spoil()
        with pytest.raises(ModelFileError, match="bfm68.npz"):
            TDDFA.load(folder)


def test_a_network_with_other_outputs_is_refused(folder):
    tensors = released()
    tensors["module.fc_param.weight"], tensors["module.fc_param.bias"] = random(60, 128), random(60)
    torch.save({"state_dict": tensors}, folder / "mb05_120x120.pth")
    with pytest.raises(ModelFileError, match="fc_param.bias has shape \\(60,\\), not \\(62,\\)"):
        TDDFA.load(folder)


def test_outputs_are_unwhitened(folder):
    method, crops = TDDFA.load(folder), random(2, 3, 120, 120)
    with np.load(folder / "bfm68.npz") as file, torch.no_grad():
        expected = method.network(crops).numpy() * file["v2_std"] + file["v2_mean"]
        np.testing.assert_allclose(method(crops).numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("box", [(0.0, 0.0, 120.0, 120.0), (10.0, -30.0, 250.0, 210.0)])
def test_landmarks_as_its_authors_compute_them(folder, box):
    """Column vectors, x and y by turns in the basis rows, pixels counted from 1, v upwards; then ours: +0.5."""
    method, flat = TDDFA.load(folder), random(1, 62, seed=3)
    flat[:, :12] *= 20
    with np.load(folder / "bfm68.npz") as file:
        pose, shape, expression = (part[0].numpy() for part in LUO19.split(flat).values())
        points = file["u_base"] + file["w_shp_base"] @ shape + file["w_exp_base"] @ expression
        grid = file["paf_mu"].reshape(-1) + file["paf_w_shp"] @ shape
    for found, flat_points in ((method.landmarks, points), (method.grid, grid)):
        x, y, z = pose.reshape(3, 4)[:, :3] @ flat_points.reshape(3, -1, order="F") + pose.reshape(3, 4)[:, 3:]
        u, v, larger = x - 1, 120 - y, (box[2] - box[0]) / 120  # in the crop, pixel centres at whole numbers
        expected = np.stack([(u + 0.5) * larger + box[0], (v + 0.5) * larger + box[1], -z * larger], 1)
        got = found(flat, torch.tensor([box])).reshape(-1, 3).numpy()
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-2)


def test_a_crop_of_the_same_size_is_the_picture_in_bgr():
    image = random(120, 120, 3, low=0, high=1)
    found = crop(image, torch.tensor([[0.0, 0.0, 120.0, 120.0]]))
    torch.testing.assert_close(found[0], (255 * image.flip(2).permute(2, 0, 1) - 127.5) / 128, atol=1e-4, rtol=0)


def test_a_crop_samples_what_the_box_says():
    """On a ramp bilinear sampling is exact: pixel k of the crop sees left + (k + 0.5) width / 120."""
    ramp = ((torch.arange(400) + 0.5) / 400).expand(300, 400)[..., None].expand(-1, -1, 3)
    left, width = 50.5, 240.0
    row = (crop(ramp, torch.tensor([[left, 10.0, left + width, 130.0]]))[0, 0, 60] * 128 + 127.5) / 255
    torch.testing.assert_close(row, (left + (torch.arange(120) + 0.5) * width / 120) / 400, atol=1e-5, rtol=0)


def test_outside_the_photo_is_black():
    found = crop(torch.ones(40, 40, 3), torch.tensor([[-120.0, 0.0, 0.0, 120.0]]))
    torch.testing.assert_close(found[..., :-1], torch.full_like(found[..., :-1], -127.5 / 128))


def test_the_square_box():
    points = torch.tensor([[[10.0, 20.0], [110.0, 60.0], [50.0, 30.0]]])
    half = 100 * 2**0.5 / 2
    torch.testing.assert_close(square_box(points), torch.tensor([[60 - half, 40 - half, 60 + half, 40 + half]]))


@pytest.mark.parametrize(("where", "value"), [((1, 5, 0), torch.inf), (1, torch.nan), (1, 3.0)])
def test_landmarks_without_a_box_name_the_face(where, value):
    points = random(3, 68, 2)
    points[where] = value
    with pytest.raises(LandmarkError, match="face 1"):
        square_box(points)


class TestReleased:
    def test_its_grid_of_expressions_is_a_copy_of_identities(self, real_asset):
        """Why `grid` is neutral. If a later copy of the file mends it, this fails, and the grid may learn to smile."""
        with np.load(real_asset("3ddfa-v2") / "bfm68.npz") as file:
            assert (file["paf_w_exp"] == file["paf_w_shp"][:, :10]).all()

    def test_landmarks_of_photographs(self, real_asset):
        """AFLW2000-3D, re-annotated: its owners' figure for all 2,000 images is 2.2 to 4.1 % by yaw."""
        method, data = TDDFA.load(real_asset("3ddfa-v2")), read_aflw2000(real_asset("aflw2000-3d"))
        assert method.network.conv1.out_channels == 16
        samples = [data[k] for k in range(0, 1000, 40)]
        boxes = square_box(torch.stack([sample.landmarks for sample in samples]))
        with torch.no_grad():
            flat = torch.cat([method(crop(s.image(), box[None])) for s, box in zip(samples, boxes, strict=True)])
        error = nme(method.landmarks(flat, boxes)[..., :2], torch.stack([sample.reannotated for sample in samples]))
        assert 0.015 < float(error.mean()) < 0.035 and float(error.max()) < 0.12
