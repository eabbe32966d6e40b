"""DECA (Feng et al. 2021): map an image to coefficients of face, camera and light, and to a detail code.

Two ResNets. The coarse one is followed by layers 2048 -> 1024 -> ReLU -> 236 (the layout DECA), the fine one by
2048 -> 1024 -> ReLU -> 128. A decoder makes a displacement map from the detail code, expression and jaw. Images are RGB
in [-1, 1], as everywhere here; the network converts them to [0, 1] for the released weights.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from facenb.errors import ModelFileError
from facenb.morphable.layouts import DECA, Layout
from facenb.morphable.model import MorphableModel
from facenb.networks.detail import DetailDecoder, LinearDecoder
from facenb.networks.resnet import ResNet
from facenb.networks.weights import Saved, fixed_image, read_weights, take_over

SCALE = 9.0  # scale of DECA's camera with which a head fills the image
# In a network trained here, the last layer's outputs are multiplied by the unit of their part. A unit is about the
# spread between images, so that one learning rate suits all parts. In the released weights each unit is 1.
UNITS = {"expression": 0.5, "global_pose": 0.2, "jaw_pose": 0.1, "camera": (1.0, 0.01, 0.01), "light": 0.5}


def check_jaw(model: MorphableModel) -> None:
    """Raise ValueError unless a model has the joints "global" and "jaw", whose rotations are in the layout DECA."""
    if model.joints is None or not {"global", "jaw"} <= set(model.joints.names):
        raise ValueError(
            f"{model.name} has no joints 'global' and 'jaw', which DECA poses. Use FLAME's own .pkl file (the npz of "
            "FLAME 2023 Open has no joints), or SynthFace's model after facenb.synthface.with_jaw."
        )


def layout_of(model: MorphableModel) -> Layout:
    """Return DECA's layout with no more identity, albedo and expression coefficients than the model has.

    Raise ValueError for a model without a jaw.
    """
    check_jaw(model)
    albedo = 0 if model.albedo_basis is None else len(model.albedo_basis)
    sizes = {"identity": len(model.identity_basis), "albedo": albedo, "expression": len(model.expression_basis)}
    parts = {part: min(size, sizes.get(part, size)) for part, size in DECA.parts.items()}
    return DECA if parts == DECA.parts else Layout(f"DECA of {model.name}", parts)


def unit_of(layout: Layout, units: Mapping[str, float | Sequence[float]] = UNITS) -> Float[Tensor, " coefficients"]:
    """Return the unit of each coefficient of a layout, 1 for parts that `units` does not name."""
    return layout.join(
        {part: torch.ones(size) * torch.tensor(units.get(part, 1.0)) for part, size in layout.parts.items()}
    )


class Encoder(nn.Module):
    """A ResNet and two layers with the released weights' names; images are first reduced by the factor `shrink`."""

    def __init__(self, encoder: ResNet, hidden: int, outputs: int, shrink: int = 1):
        super().__init__()
        self.encoder, self.shrink = encoder, shrink
        self.layers = nn.Sequential(nn.Linear(encoder.features, hidden), nn.ReLU(), nn.Linear(hidden, outputs))

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch outputs"]:
        images = functional.avg_pool2d(images, self.shrink) if self.shrink > 1 else images
        # In this memory order convolutions on a CPU are a third faster.
        return self.layers(self.encoder(((images + 1) / 2).contiguous(memory_format=torch.channels_last)))


class Deca(Saved, nn.Module):
    """Map images to flat vectors of `layout` and to detail codes, and compute displacement maps from both.

    `encoder`: arguments of both ResNets (None: ResNet-50); `hidden`: width of the hidden layer. `detail`: length of
    the detail code. `decoder`: arguments of LinearDecoder if they contain `texels`, else of DetailDecoder. `scale`: the
    camera's scale at the start of a training. `units`: see UNITS. `shrink`: factor that reduces the image for the
    coarse network; the fine network gets the full image.
    """

    kind = "Deca 3"

    def __init__(
        self,
        layout: Layout = DECA,
        encoder: dict[str, Any] | None = None,
        hidden: int = 1024,
        detail: int = 128,
        decoder: dict[str, Any] | None = None,
        scale: float = SCALE,
        units: Mapping[str, float | Sequence[float]] | None = None,
        shrink: int = 1,
    ):
        super().__init__()
        self.layout, decoder, units = layout, decoder or {}, units or {}
        codes = detail + layout.parts["expression"] + layout.parts["jaw_pose"]
        self.coarse = Encoder(ResNet(**(encoder or {})), hidden, layout.size, shrink)
        self.fine = Encoder(ResNet(**(encoder or {})), hidden, detail)
        self.decoder = (LinearDecoder if "texels" in decoder else DetailDecoder)(codes, **decoder)
        self.register_buffer("unit", unit_of(layout, units), persistent=False)
        self.config = {
            "layout": {"name": layout.name, "parts": dict(layout.parts)},
            "encoder": {key: value for key, value in self.coarse.encoder.config.items() if key != "outputs"},
            "hidden": hidden,
            "detail": detail,
            "decoder": {key: value for key, value in self.decoder.config.items() if key != "codes"},
            "scale": scale,
            "units": {part: list(unit) if isinstance(unit, Sequence) else unit for part, unit in units.items()},
            "shrink": shrink,
        }
        self._start(scale)

    @torch.no_grad()
    def _start(self, scale: float) -> None:
        """Make a training start at the neutral mean face, in the middle of the image, in even light."""
        last, where = self.coarse.layers[-1], self.layout.slices
        last.weight.mul_(0.1)
        last.bias.zero_()
        last.bias[where["camera"].start] = scale
        last.bias[where["light"].start : where["light"].start + 3] = 3.0  # about 0.85 of each colour
        last.bias.div_(self.unit)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Deca":
        return cls(**{**config, "layout": Layout(**config["layout"])})

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch coefficients"]:
        """Return flat vectors of `layout` for RGB images in [-1, 1]."""
        return self.unit * self.coarse(images)

    def detail_code(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch detail"]:
        """Return the detail codes of RGB images in [-1, 1]."""
        return self.fine(images)

    def displacement(
        self, flat: Float[Tensor, "batch coefficients"], detail: Float[Tensor, "batch detail"]
    ) -> Float[Tensor, "batch rows columns"]:
        """Return displacement maps along the normals, mm, for detail codes with the expression and jaw of `flat`."""
        parts = self.layout.split(flat)
        return self.decoder(detail, parts["expression"], parts["jaw_pose"])

    @torch.no_grad()
    def probe(self) -> Float[Tensor, " outputs"]:
        image = fixed_image((64, 64)).to(self.unit)
        flat = self.eval()(image)
        maps = self.displacement(flat, self.detail_code(image))
        return torch.cat([flat[0, :8], maps[0].diagonal()[::8][:8]]).cpu()


RELEASED = "deca_model.tar"
PARTS = {"E_flame": "coarse", "E_detail": "fine", "D_detail": "decoder"}  # name in the released file: name here
GET = "`python -m data_download where deca` says how to get the released weights."


def load_deca(path: str | Path) -> Deca:
    """Return the released network (`deca_model.tar`, or its folder) on the CPU, in eval mode.

    The file holds three state dicts, E_flame, E_detail and D_detail; other content is ignored. Raise ModelFileError if
    the file is missing, could run code when it is read, or holds other networks.
    """
    path, network = Path(path), Deca()
    path = path / RELEASED if path.is_dir() else path
    try:
        for name, module in PARTS.items():
            take_over(network.get_submodule(module), read_weights(path, part=name), path)
    except ModelFileError as error:
        raise ModelFileError(f"{error} {GET}") from error
    return network.eval()
