"""DECA (Feng et al. 2021): a picture to the coefficients of a face, its camera and its light, and to a detail code.

Two ResNets. The coarse one's features go through 2048 -> 1024 -> ReLU -> 236 (the layout DECA), the other one's through
2048 -> 1024 -> ReLU -> 128, and a decoder makes a displacement map of the detail code, expression and jaw. Our pictures
are RGB in [-1, 1], as everywhere here; inside, they go to [0, 1], which the released weights are for.
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
from facenb.networks.resnet import ResNet, take_over
from facenb.networks.saved import Saved
from facenb.networks.weights import read_weights

SCALE = 9.0  # of DECA's camera: a head fills the picture
# What one unit of the last layer means, by part, in a network trained here: about how far pictures differ, so that one
# rate of learning suits all. In the released weights each unit is 1.
UNITS = {"expression": 0.5, "global_pose": 0.2, "jaw_pose": 0.1, "camera": (1.0, 0.01, 0.01), "light": 0.5}


# Where a model with a jaw comes from, for error messages.
WITH_JAW = (
    "models with a jaw are FLAME's own file (sources.read_flame, a .pkl; the npz of FLAME 2023 Open has no joints) and "
    "SynthFace's after synthetic.jaw.with_jaw"
)


def layout_of(model: MorphableModel, name: str = "") -> Layout:
    """DECA's layout cut to what a model has: its identity, albedo and expression, DECA's numbers at most.

    Raises ValueError for a model without joints: the layout's pose turns the head and the jaw.
    """
    if model.joints is None or "jaw" not in model.joints.names:
        raise ValueError(f"{model.name} has no jaw joint, which DECA's layout poses; {WITH_JAW}")
    albedo = 0 if model.albedo_basis is None else len(model.albedo_basis)
    own = {"identity": len(model.identity_basis), "albedo": albedo, "expression": len(model.expression_basis)}
    parts = {part: min(size, own.get(part, size)) for part, size in DECA.parts.items()}
    return DECA if parts == DECA.parts else Layout(name or f"DECA of {model.name}", parts)


def unit_of(layout: Layout, units: Mapping[str, float | Sequence[float]] = UNITS) -> Float[Tensor, " coefficients"]:
    """The unit of each coefficient of a layout, 1 where `units` does not name its part.

    Raises ValueError for a part that the layout does not have, a unit that is not positive and finite, or another
    number of units than one or one for each of the part's coefficients.
    """
    if unknown := sorted(set(units) - set(layout.parts)):
        raise ValueError(f"units of {', '.join(unknown)}, no part of {layout.name}; it has {', '.join(layout.parts)}")
    values = {}
    for part, size in layout.parts.items():
        unit = torch.tensor(units.get(part, 1.0))
        if unit.numel() not in (1, size) or not bool(((unit > 0) & unit.isfinite()).all()):
            raise ValueError(f"units of {part} are {units[part]}; give 1 or {size} positive finite numbers")
        values[part] = torch.ones(size) * unit
    return layout.join(values)


class Encoder(nn.Module):
    """A ResNet and two fully connected layers; names of tensors are those of the released weights.

    `shrink`: the picture is made so many times smaller first.
    """

    def __init__(self, encoder: ResNet, hidden: int, outputs: int, shrink: int = 1):
        super().__init__()
        self.encoder, self.shrink = encoder, shrink
        self.layers = nn.Sequential(nn.Linear(encoder.features, hidden), nn.ReLU(), nn.Linear(hidden, outputs))

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch outputs"]:
        """Outputs of RGB pictures in [-1, 1]."""
        images = functional.avg_pool2d(images, self.shrink) if self.shrink > 1 else images
        # The order of memory in which convolutions on a CPU are a third faster; nothing else changes.
        return self.layers(self.encoder(((images + 1) / 2).contiguous(memory_format=torch.channels_last)))


class Deca(Saved, nn.Module):
    """Pictures to flat vectors of `layout`, to detail codes, and these to displacement maps.

    `encoder` is the configuration of both ResNets (None: ResNet-50), `hidden` the width between; `detail` the length of
    the detail code and `decoder` the options of its DetailDecoder (channels, reach, window) or, where `texels` is among
    them, its LinearDecoder. `scale`: the camera's at the start of a training; `units` by part (see UNITS): what the
    last layer's outputs are multiplied with; `shrink`: the coarse network looks at the picture so many times smaller
    (the details need all of it). Raises ValueError for units or options that are impossible (`unit_of`, the decoders).
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
        self.layout, self.hidden, self.detail, self.options = layout, hidden, detail, dict(decoder or {})
        self.scale, self.units, self.shrink = scale, dict(units or {}), shrink
        codes = detail + layout.parts["expression"] + layout.parts["jaw_pose"]
        self.coarse = Encoder(ResNet(**(encoder or {})), hidden, layout.size, shrink)
        self.fine = Encoder(ResNet(**(encoder or {})), hidden, detail)
        kind = LinearDecoder if "texels" in self.options else DetailDecoder
        self.decoder = kind(codes, **self.options)
        self.register_buffer("unit", unit_of(layout, self.units), persistent=False)
        self.card: dict[str, Any] = {}  # what a saved network says of its training
        self._start()

    @torch.no_grad()
    def _start(self) -> None:
        """The mean face at rest, in the middle of the picture, in even light: there the training begins."""
        last = self.coarse.layers[-1]
        last.weight.mul_(0.1)
        last.bias.zero_()
        where = self.layout.slices
        last.bias[where["camera"].start] = self.scale
        last.bias[where["light"].start : where["light"].start + 3] = 3.0  # about 0.85 of each colour
        last.bias.div_(self.unit)

    @property
    def config(self) -> dict[str, Any]:
        """What makes this network again, without its weights: `Deca.from_config(config)`; fit for JSON."""
        return {
            "layout": {"name": self.layout.name, "parts": dict(self.layout.parts)},
            "encoder": {key: value for key, value in self.coarse.encoder.config.items() if key != "outputs"},
            "hidden": self.hidden,
            "detail": self.detail,
            "decoder": {key: value for key, value in self.decoder.config.items() if key != "codes"},
            "scale": self.scale,
            "units": {part: list(unit) if isinstance(unit, Sequence) else unit for part, unit in self.units.items()},
            "shrink": self.shrink,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Deca":
        """Return an untrained network of a configuration."""
        return cls(**{**config, "layout": Layout(**config["layout"])})

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch coefficients"]:
        """Flat vectors of `layout`, of RGB pictures in [-1, 1]."""
        return self.unit * self.coarse(images)

    def detail_code(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch detail"]:
        """Detail codes of RGB pictures in [-1, 1]."""
        return self.fine(images)

    def displacement(
        self, flat: Float[Tensor, "batch coefficients"], detail: Float[Tensor, "batch detail"]
    ) -> Float[Tensor, "batch rows columns"]:
        """Maps of displacements along the normals, mm, of detail codes under the expression and jaw of `flat`."""
        parts = self.layout.split(flat)
        return self.decoder(detail, parts["expression"], parts["jaw_pose"])


RELEASED = "deca_model.tar"
PARTS = {"E_flame": "coarse", "E_detail": "fine", "D_detail": "decoder"}  # of the released file, and here
GET = "`python -m data_download where deca` says how to get the released weights"


def load_deca(path: str | Path) -> Deca:
    """The released weights (`deca_model.tar`, or its folder) on the CPU, in eval mode; code in the file is not run.

    It holds three state dicts, E_flame, E_detail and D_detail (as in the authors' public code); what else is in it is
    passed over. Raises ModelFileError for a file that is missing, would run code, or holds other networks.
    """
    path = Path(path)
    path = path / RELEASED if path.is_dir() else path
    network = Deca()
    try:
        for name, own in PARTS.items():
            take_over(network.get_submodule(own), read_weights(path, part=name), path)
    except ModelFileError as error:
        raise ModelFileError(f"{error}; {GET}") from error
    return network.eval()
