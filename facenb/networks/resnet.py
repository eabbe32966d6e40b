"""ResNet of bottlenecks, at any depth and width (He et al. 2016, "Deep Residual Learning for Image Recognition").

Names of tensors are those of the published ImageNet weights (torchvision's): `conv1.weight`, `layer1.0.conv1.weight`,
..., `fc.bias`. As there, a block that halves the picture does it in its 3x3 convolution.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from facenb.errors import ModelFileError
from facenb.networks.weights import read_weights, some_of

EXPANSION = 4  # channels that leave a bottleneck, for each inside it


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside the identity (or a 1x1 convolution where the size changes)."""

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
        """Features a stride smaller."""
        beside = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + beside)


class ResNet(nn.Module):
    """Pictures of any size to features, or with `outputs` to as many numbers; as it stands, ResNet-50.

    `blocks` of each of the four stages; `width` channels inside the first stage's blocks, doubled at each stage.
    `places`: beside the means over the picture stands, for each channel of the first three stages, where it is
    strongest. Ours: means alone have to learn where things are from the picture's edges; a short training does not.
    """

    def __init__(
        self, blocks: Sequence[int] = (3, 4, 6, 3), width: int = 64, outputs: int | None = None,
        places: bool = False,
    ):  # fmt: skip
        super().__init__()
        if len(blocks) != 4 or min(*blocks, width, 1 if outputs is None else outputs) < 1:
            raise ValueError(f"blocks {tuple(blocks)} must be four numbers; they, width {width} and outputs {outputs} "
                             "must be positive")  # fmt: skip
        self.blocks, self.width, self.outputs, self.places = tuple(blocks), width, outputs, places
        self.features = EXPANSION * width * (8 + 2 * (1 + 2 + 4) * places)
        self.conv1 = nn.Conv2d(3, width, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        inputs = width
        for stage, count in enumerate(self.blocks):
            channels = width * 2**stage
            strides = (1 if stage == 0 else 2, *(1,) * (count - 1))
            units = []
            for stride in strides:
                units.append(Bottleneck(inputs, channels, stride))
                inputs = EXPANSION * channels
            setattr(self, f"layer{stage + 1}", nn.Sequential(*units))
        self.fc = None if outputs is None else nn.Linear(self.features, outputs)
        self._start()

    @property
    def config(self) -> dict[str, Any]:
        """What makes this network again: `ResNet(**config)`; fit for JSON."""
        return {"blocks": list(self.blocks), "width": self.width, "outputs": self.outputs,
                "places": self.places}  # fmt: skip

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch features"]:
        """Features, the mean over the picture, or the outputs made of them."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        found = []
        for stage in (self.layer1, self.layer2, self.layer3):
            x = stage(x)
            found += [places(x)] if self.places else []
        x = torch.cat([self.layer4(x).mean((2, 3)), *found], 1)
        return x if self.fc is None else self.fc(x)

    def _start(self) -> None:
        """Weights that keep a signal's spread; each block begins as what is beside it (Goyal et al. 2017)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for module in self.modules():
            if isinstance(module, Bottleneck):
                nn.init.zeros_(module.bn3.weight)


def places(x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch two_channels"]:
    """Where each channel is strongest: the mean place under a softmax, -1 to 1, across (all channels), then down."""
    share = x.flatten(2).softmax(-1).view_as(x)
    across, down = (2 * (torch.arange(size, device=x.device) + 0.5) / size - 1 for size in (x.shape[3], x.shape[2]))
    return torch.cat([(share.sum(2) * across).sum(-1), (share.sum(3) * down).sum(-1)], 1)


def load_resnet(network: ResNet, path: str | Path) -> None:
    """Take over published ImageNet weights, .safetensors or .pth; without `outputs` their class layer is left out.

    They are for RGB in [0, 1] less the ImageNet mean, over its deviation. Raises ModelFileError, and changes nothing,
    for a file that is missing, would run code, or does not fit: what is missing, too much or of another shape is named.
    """
    path = Path(path)
    found = {name.removeprefix("module."): tensor for name, tensor in read_weights(path).items()}
    if network.fc is None:
        found = {name: tensor for name, tensor in found.items() if not name.startswith("fc.")}
    take_over(network, found, path)


def take_over(network: nn.Module, found: dict[str, Tensor], path: Path) -> None:
    """Load tensors by name; ModelFileError naming what does not fit.

    Old files lack batch normalisation's count of batches, which nothing here uses.
    """
    own = network.state_dict()
    found = {name: own[name] for name in own if name.endswith("num_batches_tracked")} | found
    kind = type(network).__name__
    if missing := sorted(set(own) - set(found)):
        raise ModelFileError(f"{path} does not fit this {kind}: missing {some_of(missing)}")
    if extra := sorted(set(found) - set(own)):
        raise ModelFileError(f"{path} does not fit this {kind}: not of this network {some_of(extra)}")
    for name, tensor in found.items():
        if tensor.shape != own[name].shape:
            raise ModelFileError(
                f"{path}: {name} has shape {tuple(tensor.shape)}, and the network's has {tuple(own[name].shape)}"
            )
        if not tensor.isfinite().all():
            raise ModelFileError(f"{path}: {name} holds values that are not finite; get the file again")
    network.load_state_dict(found)
