"""SphereFace: the convolutional encoder of Liu et al. 2018, at any width and depth.

Liu et al. 2017, "SphereFace: Deep Hypersphere Embedding for Face Recognition", Table 2. A stage halves the picture by
a convolution of stride 2 and goes on with residual units of two convolutions; SphereFace-20 has 3, 5, 9 and 3
convolutions in its stages, and one fully connected layer. The pictures are channels first, RGB in [-1, 1].
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from facenb.errors import ModelFileError
from facenb.networks.weights import read_weights, some_of

HEAD = "fc6."  # the class head in published files: it knows the people of their training set, not ours
RESIDUAL_STD = 0.01  # of the residual units' weights at the start, as in the authors' own network definition


class Convolution(nn.Module):
    """3x3 convolution, batch normalisation where asked for, PReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int, batch_norm: bool):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=not batch_norm)
        self.norm = nn.BatchNorm2d(outputs) if batch_norm else nn.Identity()
        self.relu = nn.PReLU(outputs)

    def forward(self, x: Float[Tensor, "batch inputs height width"]) -> Float[Tensor, "batch outputs high wide"]:
        """Features a stride smaller."""
        return self.relu(self.norm(self.conv(x)))


class Residual(nn.Module):
    """Two convolutions beside the identity; the second one's PReLU comes before the sum."""

    def __init__(self, channels: int, batch_norm: bool):
        super().__init__()
        self.first = Convolution(channels, channels, 1, batch_norm)
        self.second = Convolution(channels, channels, 1, batch_norm)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """Features of the same size."""
        return x + self.second(self.first(x))


class Stage(nn.Module):
    """Half the size by a convolution of stride 2, then residual units."""

    def __init__(self, inputs: int, outputs: int, units: int, batch_norm: bool):
        super().__init__()
        self.down = Convolution(inputs, outputs, 2, batch_norm)
        self.units = nn.Sequential(*(Residual(outputs, batch_norm) for _ in range(units)))

    def forward(self, x: Float[Tensor, "batch inputs height width"]) -> Float[Tensor, "batch outputs high wide"]:
        """Features of half the size."""
        return self.units(self.down(x))


class SphereFace(nn.Module):
    """Pictures to features; as it stands, SphereFace-20 for crops of 112 x 96 (height, width).

    `channels` and `units` (residual units) of each stage, `features` of the fully connected layer. `batch_norm`: ours,
    not the paper's: it lets small sets and short trainings converge.
    """

    def __init__(
        self,
        channels: Sequence[int] = (64, 128, 256, 512),
        units: Sequence[int] = (1, 2, 4, 1),
        features: int = 512,
        size: Sequence[int] = (112, 96),
        batch_norm: bool = False,
    ):
        super().__init__()
        if len(channels) != len(units) or not channels:
            raise ValueError(
                f"channels {tuple(channels)} and units {tuple(units)} must name the same stages, one or more"
            )
        if min(*channels, features, *size) < 1 or min(units) < 0 or len(size) != 2:
            raise ValueError(
                f"channels {tuple(channels)}, features {features} and size {tuple(size)} (height, width) must be "
                f"positive, and units {tuple(units)} not negative"
            )
        self.channels, self.units = tuple(channels), tuple(units)
        self.features, self.size, self.batch_norm = features, tuple(size), batch_norm
        inputs = (3, *channels)
        self.stages = nn.Sequential(
            *(Stage(inputs[k], channels[k], units[k], batch_norm) for k in range(len(channels)))
        )
        height, width = (math.ceil(side / 2 ** len(channels)) for side in size)
        self.fc = nn.Linear(channels[-1] * height * width, features)
        self._start()

    @classmethod
    def narrow(cls, size: Sequence[int] = (64, 64), features: int = 256, **options: Any) -> "SphereFace":
        """A network that learns in minutes on two cores: a third of the width, batch normalisation."""
        return cls(**{"channels": (24, 48, 96, 192), "batch_norm": True, "features": features, "size": size, **options})

    @property
    def config(self) -> dict[str, Any]:
        """What makes this network again: `SphereFace(**config)`; fit for JSON."""
        return {
            "channels": list(self.channels),
            "units": list(self.units),
            "features": self.features,
            "size": list(self.size),
            "batch_norm": self.batch_norm,
        }

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch features"]:
        """Features of RGB pictures in [-1, 1]. Raises ValueError for pictures of another size than the network's."""
        if tuple(images.shape[1:]) != (3, *self.size):
            raise ValueError(
                f"pictures of shape {tuple(images.shape)} for a network of (batch, 3, {self.size[0]}, {self.size[1]}): "
                "crop them to that size, or make the network for theirs"
            )
        return self.fc(self.stages(images).flatten(1))

    def _start(self) -> None:
        """Weights that keep a signal's spread; residual units near zero, so that deep networks train unnormalised."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d) and ".units." in name:
                nn.init.normal_(module.weight, std=RESIDUAL_STD)
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=0.25)  # the slope a PReLU starts with
            elif isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)


def published_names(network: SphereFace) -> dict[str, str]:
    """Each parameter's name in published sphere20 files: `conv1_1.weight`, `relu1_1.weight`, ..., `fc5.weight`."""
    names = {}
    for name, _ in network.named_parameters():
        parts = name.split(".")
        if parts[0] == "fc":
            names[name] = f"fc5.{parts[-1]}"
            continue
        number = 1 if parts[2] == "down" else 2 + 2 * int(parts[3]) + (parts[4] == "second")
        names[name] = f"{parts[-2]}{int(parts[1]) + 1}_{number}.{parts[-1]}"
    return names


def load_sphere20(network: SphereFace, path: str | Path, published_colours: bool = True) -> None:
    """Take over the weights of a published sphere20 file, .safetensors or .pth; its class head fc6 is left out.

    `published_colours`: the file is for BGR pictures as (byte - 127.5) / 128, as the published ones are; the first
    convolution is turned so that our RGB pictures in [-1, 1] give the same features.
    Raises ModelFileError, and changes nothing, for a file that is missing, no file of weights, would run code, or does
    not fit the network: parameters missing, too many or of another shape are named with both shapes.
    """
    path = Path(path)
    if network.batch_norm:
        raise ModelFileError(
            f"{path} holds a sphere20 without batch normalisation, and this network has it: use SphereFace()"
        )
    # DataParallel saves names with `module.` before them.
    found = {name.removeprefix("module."): tensor for name, tensor in read_weights(path).items()}
    found = {name: tensor for name, tensor in found.items() if not name.startswith(HEAD)}
    names = published_names(network)
    own = network.state_dict()
    missing = sorted(set(names.values()) - set(found))
    extra = sorted(set(found) - set(names.values()))
    if missing or extra:
        raise ModelFileError(
            f"{path} is no sphere20 of stages {network.units} (residual units): "
            f"missing {some_of(missing)}; not of this network {some_of(extra)}"
        )
    for name, other in names.items():
        if found[other].shape != own[name].shape:
            raise ModelFileError(
                f"{path}: {other} has shape {tuple(found[other].shape)}, and the network's {name} has "
                f"{tuple(own[name].shape)}; channels {network.channels}, features {network.features} or size "
                f"{network.size} differ"
            )
        if not found[other].isfinite().all():
            raise ModelFileError(f"{path}: {other} holds values that are not finite; get the file again")
    weights = {name: found[other] for name, other in names.items()}
    if published_colours:
        first = "stages.0.down.conv.weight"
        weights[first] = weights[first].flip(1) * (127.5 / 128)
    network.load_state_dict(weights)
