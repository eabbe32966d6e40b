"""DECA's networks: layouts, what is saved, the released file's layout, and bad input."""

from dataclasses import replace

import pytest
import torch
from test_resnet import published_forward, published_shapes
from torch.nn import functional

from data_download.entries import load_entry
from facenb.errors import ModelFileError
from facenb.imaging.lighting import from_deca, irradiance
from facenb.morphable.layouts import DECA
from facenb.morphable.model import Embedding, Joints, MorphableModel
from facenb.networks.deca import UNITS, Deca, layout_of, load_deca, unit_of
from facenb.networks.detail import DetailDecoder, LinearDecoder

NARROW = {"blocks": (1, 1, 1, 1), "width": 4}


def model(identity=5, expression=4, albedo=3) -> MorphableModel:
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(6, 3, generator=generator)
    joints = Joints(("global", "jaw"), (-1, 0), torch.full((2, 6), 1 / 6), torch.full((6, 2), 0.5))
    return MorphableModel(
        "toy",
        mean,
        torch.tensor([[0, 1, 2]]),
        torch.randn(identity, 6, 3, generator=generator),
        torch.randn(expression, 6, 3, generator=generator),
        Embedding.at([0]),
        albedo_mean=mean.abs(),
        albedo_basis=torch.randn(albedo, 6, 3, generator=generator),
        joints=joints,
    )


def small(**options) -> Deca:
    return Deca(layout_of(model()), NARROW, hidden=16, detail=8, decoder={"channels": (4, 3, 2)}, **options)


def test_layout_is_decas_where_the_model_has_as_much():
    assert layout_of(model(120, 50, 60)) == DECA


def test_layout_follows_a_smaller_model():
    layout = layout_of(model())
    assert dict(layout.parts) == {
        "identity": 5,
        "albedo": 3,
        "expression": 4,
        "global_pose": 3,
        "jaw_pose": 3,
        "camera": 3,
        "light": 27,
    }


def test_a_model_without_a_jaw_has_no_such_layout():
    with pytest.raises(ValueError, match="no joints 'global' and 'jaw'"):
        layout_of(replace(model(), joints=None))


def test_sizes_are_those_of_the_paper():
    network = Deca()
    assert network.layout.size == 236
    assert network.coarse.layers[0].weight.shape == (1024, 2048)
    assert network.decoder.size == 256 and network.decoder.codes == 128 + 50 + 3


def test_starts_near_the_mean_face_in_the_middle():
    network = small().eval()
    parts = network.layout.split(network(torch.rand(4, 3, 64, 64) * 2 - 1))
    assert parts["camera"][:, 0].sub(9).abs().max() < 1 and parts["identity"].abs().max() < 1


@pytest.mark.parametrize("units", [{}, UNITS])
def test_starts_in_even_light(units):
    """Of the last layer's bias alone: a white surface takes 3 / sqrt(4 pi) of each colour, wherever it faces."""
    network = small(units=units).eval()
    torch.nn.init.zeros_(network.coarse.layers[-1].weight)
    light = network.layout.split(network(torch.zeros(1, 3, 32, 32)))["light"]
    normals = functional.normalize(torch.randn(1, 20, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    colour = irradiance(normals, from_deca(light.unflatten(1, (9, 3))))
    torch.testing.assert_close(colour, torch.full((1, 20, 3), 0.8463), atol=1e-4, rtol=0)


def test_units_go_to_their_parts():
    """One for all of a part, or one for each of its coefficients."""
    unit = DECA.split(unit_of(DECA, {"light": 0.5, "camera": [2.0, 0.1, 0.2]}))
    assert unit["camera"].tolist() == pytest.approx([2.0, 0.1, 0.2])
    assert set(unit["light"].tolist()) == {0.5} and set(unit["identity"].tolist()) == {1.0}


def test_what_is_saved_comes_back(tmp_path):
    network, images = small().eval(), torch.rand(1, 3, 32, 32)
    network.save(tmp_path / "deca.safetensors", {"seed": 3})
    again = Deca.load(tmp_path / "deca.safetensors", like=network.config)
    assert again.card == {"seed": 3} and again.layout == network.layout and not again.training
    assert torch.equal(again(images), network(images))


class TestReleased:
    """A file as the authors' code saves it: three state dicts beside others. Names and shapes are written down here."""

    @staticmethod
    def shapes() -> dict[str, dict[str, tuple[int, ...]]]:
        resnet = {f"encoder.{n}": s for n, s in published_shapes().items() if not n.startswith("fc.")}

        def encoder(outputs):
            return resnet | {
                "layers.0.weight": (1024, 2048),
                "layers.0.bias": (1024,),
                "layers.2.weight": (outputs, 1024),
                "layers.2.bias": (outputs,),
            }

        decoder = {"l1.0.weight": (128 * 64, 181), "l1.0.bias": (128 * 64,)}
        norms = {0: 128, 3: 128, 7: 64, 11: 64, 15: 32, 19: 16}
        for k, channels in norms.items():
            of_channels = ("weight", "bias", "running_mean", "running_var")
            decoder |= {f"conv_blocks.{k}.{kind}": (channels,) for kind in of_channels}
            decoder |= {f"conv_blocks.{k}.num_batches_tracked": ()}
        convolutions = {2: (128, 128), 6: (64, 128), 10: (64, 64), 14: (32, 64), 18: (16, 32), 21: (1, 16)}
        for k, (after, before) in convolutions.items():
            decoder |= {f"conv_blocks.{k}.weight": (after, before, 3, 3), f"conv_blocks.{k}.bias": (after,)}
        return {"E_flame": encoder(236), "E_detail": encoder(128), "D_detail": decoder}

    def write(self, path, change=lambda content: None):
        def value(name, shape):
            if name.endswith("tracked"):
                return torch.tensor(1)
            return torch.full(shape, 1.0 if name.endswith(("running_var", "bn3.weight")) else 0.001)

        content = {part: {n: value(n, s) for n, s in names.items()} for part, names in self.shapes().items()}
        content["opt"] = {"state": {}, "param_groups": [{"lr": 1e-4}]}
        change(content)
        torch.save(content, path)

    @pytest.fixture(scope="class")
    @classmethod
    def read(cls, tmp_path_factory):
        """Random weights, and the network that reads them from a file."""
        generator = torch.Generator().manual_seed(0)

        def value(name, shape):
            if name.endswith("tracked"):
                return torch.tensor(7)
            if name.endswith("running_var"):
                return 0.5 + torch.rand(shape, generator=generator)
            fan = torch.Size(shape[1:]).numel() if len(shape) > 1 else 1
            return torch.randn(shape, generator=generator) / fan**0.5

        content = {part: {n: value(n, s) for n, s in names.items()} for part, names in cls.shapes().items()}
        for name, tensor in content["D_detail"].items():  # so that a map has ups and downs, short of its limits
            tensor.mul_(0.3 if "blocks.21" in name else 2 if tensor.ndim == 4 else 1)
        path = tmp_path_factory.mktemp("deca") / "deca_model.tar"
        torch.save(content, path)
        network = load_deca(path)
        path.unlink()
        return content, network

    @pytest.mark.parametrize(("part", "own"), [("E_flame", "forward"), ("E_detail", "detail_code")])
    @torch.no_grad()
    def test_pictures_give_what_the_released_encoders_give(self, read, part, own):
        """The authors' ResNet-50 and two layers, of pictures in [0, 1]."""
        content, network = read
        weights = content[part]
        resnet = {name.removeprefix("encoder."): tensor for name, tensor in weights.items()}
        resnet |= {"fc.weight": weights["layers.0.weight"], "fc.bias": weights["layers.0.bias"]}
        pictures = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
        hidden = published_forward(resnet, pictures, (3, 4, 6, 3)).relu()
        expected = hidden @ weights["layers.2.weight"].T + weights["layers.2.bias"]
        found = getattr(network, own)(2 * pictures - 1)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.std()))

    @torch.no_grad()
    def test_codes_give_what_the_released_decoder_gives(self, read):
        """The authors' code is jaw, expression, detail; their map, times 0.01, is in metres."""
        content, network = read
        w = content["D_detail"]
        generator = torch.Generator().manual_seed(1)
        flat, detail = torch.randn(1, 236, generator=generator), torch.randn(1, 128, generator=generator)

        def norm(x, name, eps):
            of = [w[f"{name}.{kind}"] for kind in ("running_mean", "running_var", "weight", "bias")]
            return functional.batch_norm(x, *of, eps=eps)

        def convolved(x, k):
            return functional.conv2d(x, w[f"conv_blocks.{k}.weight"], w[f"conv_blocks.{k}.bias"], padding=1)

        code = torch.cat([flat[:, 203:206], flat[:, 150:200], detail], 1)
        x = functional.linear(code, w["l1.0.weight"], w["l1.0.bias"]).reshape(1, 128, 8, 8)
        x = norm(x, "conv_blocks.0", 1e-5)
        for k in (2, 6, 10, 14, 18):
            x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = functional.leaky_relu(norm(convolved(x, k), f"conv_blocks.{k + 1}", 0.8), 0.2)
        expected = 1000 * 0.01 * convolved(x, 21).tanh()[:, 0]  # mm
        assert expected.std() > 0.5 and expected.abs().max() < 9
        torch.testing.assert_close(network.displacement(flat, detail), expected, rtol=1e-3, atol=1e-3)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda c: c.pop("E_detail"), "no named tensors in its part 'E_detail'"),
            (lambda c: c["D_detail"].pop("l1.0.bias"), "lacks l1.0.bias"),
            (lambda c: c["E_flame"].update({"layers.2.bias": torch.zeros(257)}), r"\(257,\)"),
        ],
        ids=["no part", "no tensor", "another layout"],
    )
    def test_other_networks_are_refused(self, tmp_path, change, words):
        self.write(tmp_path / "deca_model.tar", change)
        with pytest.raises(ModelFileError, match=words):
            load_deca(tmp_path / "deca_model.tar")

    @pytest.mark.parametrize("given", ["deca_model.tar", ""], ids=["file", "folder"])
    def test_a_missing_file_says_where_it_comes_from(self, tmp_path, given):
        with pytest.raises(ModelFileError, match="no .*deca_model.tar.*data_download where deca"):
            load_deca(tmp_path / given)
        assert any(place.path == "deca_model.tar" for place in load_entry("deca").places)


class TestDetailDecoder:
    def test_a_map_is_read_at_texture_coordinates(self):
        """A ramp from left to right and bottom to top comes back as the coordinates themselves."""
        decoder = DetailDecoder(4, (3, 2), window=(0.2, 0.1, 0.6, 0.9))
        steps = (torch.arange(decoder.size) + 0.5) / decoder.size
        u, v = 0.2 + 0.4 * steps, 0.1 + 0.8 * (1 - steps)
        uv = torch.tensor([[0.3, 0.2], [0.5, 0.7], [0.4, 0.5]])
        across = decoder.at(u.expand(1, decoder.size, -1), uv)[0]
        upward = decoder.at(v[:, None].expand(1, -1, decoder.size), uv)[0]
        torch.testing.assert_close(torch.stack([across, upward], 1), uv)

    def test_outside_the_window_nothing_moves(self):
        decoder = DetailDecoder(4, (3, 2), window=(0.2, 0.1, 0.6, 0.9))
        assert decoder.at(torch.ones(1, 16, 16), torch.tensor([[0.1, 0.5], [0.4, 0.95]])).abs().max() == 0

    def test_never_reaches_further_than_its_reach(self):
        decoder = DetailDecoder(6, (3, 2), reach=1.5)
        maps = decoder(1e3 * torch.randn(3, 2), torch.zeros(3, 1), torch.zeros(3, 3))
        assert maps.abs().max() <= 1.5

    def test_begins_with_the_smooth_face(self):
        decoder = DetailDecoder(6, (8, 4), reach=1.5)
        assert decoder(torch.randn(3, 2), torch.zeros(3, 1), torch.zeros(3, 3)).abs().max() < 0.05

    def test_a_linear_decoder_sums_its_maps(self):
        """Far from its reach: the map of everybody, and of each number of the code as much as it says."""
        decoder = LinearDecoder(5, 16, reach=100.0)
        torch.nn.init.normal_(decoder.maps, std=1e-4)
        code = torch.zeros(4, 1), torch.tensor([[0.0], [1.0], [2.0], [0.0]]), torch.tensor([[0.0, 0, 0]] * 4)
        code[2][3, 0] = 0.36  # an open jaw
        rest, one, two, jaw = decoder(*code)
        torch.testing.assert_close(two - rest, 2 * (one - rest), atol=1e-4, rtol=1e-3)
        assert (jaw - rest).abs().max() > 0.01 and (jaw - one).abs().max() > 0.01
        assert LinearDecoder(5, 16)(*code).abs().max() == 0  # at the start

    def test_a_deca_with_one_is_saved_and_comes_back(self, tmp_path):
        network = Deca(layout_of(model()), NARROW, hidden=16, detail=8, decoder={"texels": 8}, shrink=2).eval()
        torch.nn.init.normal_(network.decoder.maps)
        network.save(tmp_path / "deca.safetensors", {})
        again, images = Deca.load(tmp_path / "deca.safetensors"), torch.rand(2, 3, 32, 32)
        assert isinstance(again.decoder, LinearDecoder) and again.config == network.config
        maps = [one.displacement(one(images), one.detail_code(images)) for one in (network, again)]
        assert torch.equal(*maps)
