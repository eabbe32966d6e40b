"""SphereFace: the convolutional encoder of Liu et al. 2018, at any width and depth.

Liu et al. 2017, "SphereFace: Deep Hypersphere Embedding for Face Recognition", Table 2. Each stage halves the image by
a convolution of stride 2, followed by residual units of two convolutions. SphereFace-20 has 3, 5, 9 and 3
convolutions in its stages, and one fully connected layer. Images are RGB in [-1, 1], channels first.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from facenb.networks.weights import read_weights, take_over

HEAD = "fc6."  # the class head in published files: it knows the people of their training set, not ours
RESIDUAL_STD = 0.01  # of the residual units' first weights, as in the authors' network definition


class Convolution(nn.Module):
    """3x3 convolution, optional batch normalisation, PReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int, batch_norm: bool):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=not batch_norm)
        self.norm = nn.BatchNorm2d(outputs) if batch_norm else nn.Identity()
        self.relu = nn.PReLU(outputs)

    def forward(self, x: Float[Tensor, "batch inputs height width"]) -> Float[Tensor, "batch outputs high wide"]:
        """Return features, smaller by the stride."""
        return self.relu(self.norm(self.conv(x)))


class Residual(nn.Module):
    """Two convolutions beside the identity; the second PReLU comes before the sum."""

    def __init__(self, channels: int, batch_norm: bool):
        super().__init__()
        self.first = Convolution(channels, channels, 1, batch_norm)
        self.second = Convolution(channels, channels, 1, batch_norm)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """Return features of the same size."""
        return x + self.second(self.first(x))


class Stage(nn.Module):
    """A convolution of stride 2, then residual units."""

    def __init__(self, inputs: int, outputs: int, units: int, batch_norm: bool):
        super().__init__()
        self.down = Convolution(inputs, outputs, 2, batch_norm)
        self.units = nn.Sequential(*(Residual(outputs, batch_norm) for _ in range(units)))

    def forward(self, x: Float[Tensor, "batch inputs height width"]) -> Float[Tensor, "batch outputs high wide"]:
        """Return features of half the size."""
        return self.units(self.down(x))


class SphereFace(nn.Module):
    """Map images to features; the defaults are SphereFace-20 for crops of 112 x 96 (height, width).

    `channels` and `units` (residual units) of each stage; `features` of the fully connected layer. `batch_norm` is
    ours, not the paper's: it lets small sets and short trainings converge.
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
        self.channels, self.units = tuple(channels), tuple(units)
        self.features, self.size, self.batch_norm = features, tuple(size), batch_norm
        inputs = (3, *channels)
        self.stages = nn.Sequential(
            *(Stage(*sizes, batch_norm) for sizes in zip(inputs, channels, units, strict=False))
        )
        height, width = (math.ceil(side / 2 ** len(channels)) for side in size)
        self.fc = nn.Linear(channels[-1] * height * width, features)
        self._start()

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that make this architecture again, for JSON."""
        sizes = {"channels": list(self.channels), "units": list(self.units), "size": list(self.size)}
        return {**sizes, "features": self.features, "batch_norm": self.batch_norm}

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch features"]:
        """Return the features of RGB images in [-1, 1], of the network's size."""
        return self.fc(self.stages(images).flatten(1))

    def _start(self) -> None:
        """Set weights that keep a signal's spread; residual units start near zero, so that deep networks train."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d) and ".units." in name:
                nn.init.normal_(module.weight, std=RESIDUAL_STD)
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=0.25)  # the initial slope of a PReLU
            elif isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)


def published_names(network: SphereFace) -> dict[str, str]:
    """Return each parameter's name in published sphere20 files: `conv1_1.weight`, `relu1_1.weight`, ..., `fc5.bias`."""
    names = {}
    for name, _ in network.named_parameters():
        words = name.split(".")
        if words[0] == "fc":
            names[name] = f"fc5.{words[-1]}"
            continue
        number = 1 if words[2] == "down" else 2 + 2 * int(words[3]) + (words[4] == "second")
        names[name] = f"{words[-2]}{int(words[1]) + 1}_{number}.{words[-1]}"
    return names


def load_sphere20(network: SphereFace, path: str | Path) -> None:
    """Load a published sphere20 file into a network without batch normalisation; its class head fc6 is left out.

    The file is for BGR images as (byte - 127.5) / 128. The first convolution is changed so that our RGB images in
    [-1, 1] give the same features. Raise ModelFileError, and change nothing, if the file does not fit (`take_over`).
    """
    weights = {name: value for name, value in read_weights(Path(path)).items() if not name.startswith(HEAD)}
    if "conv1_1.weight" in weights:
        weights["conv1_1.weight"] = weights["conv1_1.weight"].flip(1) * (127.5 / 128)
    take_over(network, weights, Path(path), published_names(network))
