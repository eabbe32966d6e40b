"""SphereFace: the convolutional encoder of Liu et al. 2018, at any width and depth.

Liu et al. 2017, "SphereFace: Deep Hypersphere Embedding for Face Recognition", Table 2. Each stage halves the image by
a convolution of stride 2, followed by residual units of two convolutions. SphereFace-20 has 3, 5, 9 and 3
convolutions in its stages, and one fully connected layer. Images are RGB in [-1, 1], channels first.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from jaxtyping import Float
from torch import Tensor, nn

from facenb.networks.weights import read_weights, take_over

HEAD = "fc6."  # the class head in published files: its classes are the people of their training set, not of ours
RESIDUAL_STD = 0.01  # of the residual units' initial weights, as in the authors' network definition


def convolution(inputs: int, outputs: int, stride: int, batch_norm: bool) -> nn.Sequential:
    """Return a 3x3 convolution, batch normalisation if `batch_norm` is set, and PReLU."""
    conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=not batch_norm)
    norm = nn.BatchNorm2d(outputs) if batch_norm else nn.Identity()
    return nn.Sequential(OrderedDict(conv=conv, norm=norm, relu=nn.PReLU(outputs)))


class Residual(nn.Sequential):
    """Two convolutions whose output is added to the input. The second PReLU comes before the sum."""

    def __init__(self, channels: int, batch_norm: bool):
        layers = {name: convolution(channels, channels, 1, batch_norm) for name in ("first", "second")}
        super().__init__(OrderedDict(layers))

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        return x + super().forward(x)


def stage(inputs: int, outputs: int, units: int, batch_norm: bool) -> nn.Sequential:
    """Return a convolution of stride 2, then residual units."""
    down = convolution(inputs, outputs, 2, batch_norm)
    residuals = nn.Sequential(*(Residual(outputs, batch_norm) for _ in range(units)))
    return nn.Sequential(OrderedDict(down=down, units=residuals))


class SphereFace(nn.Module):
    """Map images to features; the defaults are SphereFace-20 for crops of 112 x 96 (height, width).

    `channels`, `units`: channels and residual units of each stage. `features`: outputs of the fully connected layer.
    `batch_norm` is ours, not the paper's: with it, trainings that are short or use small sets converge.
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
        self.features, self.size = features, tuple(size)
        self.config = {"channels": list(channels), "units": list(units), "size": list(size)}
        self.config |= {"features": features, "batch_norm": batch_norm}  # the arguments, for JSON
        layers = zip((3, *channels[:-1]), channels, units, strict=True)
        self.stages = nn.Sequential(*(stage(*sizes, batch_norm) for sizes in layers))
        height, width = (math.ceil(side / 2 ** len(channels)) for side in size)
        self.fc = nn.Linear(channels[-1] * height * width, features)
        self._start()

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch features"]:
        """Return the features of RGB images in [-1, 1], of the network's size."""
        return self.fc(self.stages(images).flatten(1))

    def _start(self) -> None:
        """Set weights that preserve a signal's variance. Residual units start near zero, so deep networks can train."""
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

    The file expects BGR images, scaled as (byte - 127.5) / 128. The first convolution is changed so that our RGB images
    in [-1, 1] give the same features. Raise ModelFileError, and change nothing, if the file does not fit (`take_over`).
    """
    weights = {name: value for name, value in read_weights(Path(path)).items() if not name.startswith(HEAD)}
    if "conv1_1.weight" in weights:
        weights["conv1_1.weight"] = weights["conv1_1.weight"].flip(1) * (127.5 / 128)
    take_over(network, weights, Path(path), published_names(network))
