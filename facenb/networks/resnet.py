"""ResNet of bottlenecks, at any depth and width (He et al. 2016, "Deep Residual Learning for Image Recognition").

Tensors have the names of the published ImageNet weights (torchvision's): `conv1.weight`, `layer1.0.conv1.weight`, ...,
`fc.bias`. As in torchvision, a block that halves the image has stride 2 in its 3x3 convolution.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from facenb.networks.weights import read_weights, take_over

EXPANSION = 4  # output channels of a bottleneck divided by its inner channels


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, added to the input; if the shape changes, a 1x1 convolution adapts the input."""

    def __init__(self, inputs: int, channels: int, stride: int):
        super().__init__()
        outputs = EXPANSION * channels
        self.conv1 = nn.Conv2d(inputs, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Float[Tensor, "batch inputs height width"]) -> Float[Tensor, "batch outputs high wide"]:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + shortcut)


class ResNet(nn.Module):
    """Map images of any size to features, or to `outputs` numbers; the defaults are ResNet-50.

    `blocks`: the number of blocks in each of four stages. `width`: the channels inside the first stage's blocks; each
    stage doubles them. `places` adds the position where each channel of the first three stages is strongest. This
    is ours. With means alone, a network must learn positions from the image's edges, which a short training does
    not do.
    """

    def __init__(
        self, blocks: Sequence[int] = (3, 4, 6, 3), width: int = 64, outputs: int | None = None, places: bool = False
    ):
        super().__init__()
        self.config = {"blocks": list(blocks), "width": width, "outputs": outputs, "places": places}  # for JSON
        self.places = places
        self.features = EXPANSION * width * (8 + 2 * (1 + 2 + 4) * places)
        self.conv1 = nn.Conv2d(3, width, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        inputs = width
        for stage, count in enumerate(blocks):
            channels = width * 2**stage
            first = Bottleneck(inputs, channels, 2 if stage > 0 else 1)
            inputs = EXPANSION * channels
            others = (Bottleneck(inputs, channels, 1) for _ in range(count - 1))
            setattr(self, f"layer{stage + 1}", nn.Sequential(first, *others))
        self.fc = None if outputs is None else nn.Linear(self.features, outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if isinstance(module, Bottleneck):
                nn.init.zeros_(module.bn3.weight)  # each block starts as its shortcut (Goyal et al. 2017)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch features"]:
        """Return features (means over the image), or the outputs computed from them."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        peaks = []
        for stage in (self.layer1, self.layer2, self.layer3):
            x = stage(x)
            peaks += [places(x)] if self.places else []
        x = torch.cat([self.layer4(x).mean((2, 3)), *peaks], 1)
        return x if self.fc is None else self.fc(x)


def places(x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch two_channels"]:
    """Return each channel's mean position under a softmax, in [-1, 1]: all horizontal, then all vertical ones."""
    weight = x.flatten(2).softmax(-1).view_as(x)
    across, down = (2 * (torch.arange(size, device=x.device) + 0.5) / size - 1 for size in (x.shape[3], x.shape[2]))
    return torch.cat([(weight.sum(2) * across).sum(-1), (weight.sum(3) * down).sum(-1)], 1)


def load_resnet(network: ResNet, path: str | Path) -> None:
    """Load published ImageNet weights, without their class layer if the network has no `outputs`.

    They expect RGB in [0, 1], minus the ImageNet mean, divided by its deviation. Raise ModelFileError, and change
    nothing, if the file is missing, could run code when it is read, or does not fit (`take_over`).
    """
    weights = read_weights(Path(path))
    if network.fc is None:
        weights = {name: value for name, value in weights.items() if not name.startswith("fc.")}
    take_over(network, weights, Path(path))
