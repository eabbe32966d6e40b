"""3DDFA-V2 (Guo et al., ECCV 2020), an external method for comparison: map a crop to 62 coefficients of a Basel face.

The network is a MobileNet-V1 of any width, whose tensors have the names of the released files; the released one has
width 0.5. Its 62 outputs are whitened. Multiplied by the deviation, plus the mean, they have the layout LUO19: the 3x4
matrix [f R | t], 40 identity and 10 expression coefficients.

Conventions. Crops are 120 x 120 pixels, BGR, (byte - 127.5) / 128, channels first. [f R | t] maps to the crop in
the authors' pixel coordinates: v points upwards, and the first pixel is 1. A *box* is (left, top, right, bottom) in the
photo's pixels; pixel edges are whole numbers. Returned landmarks follow the project's convention: origin top left,
pixel centres at +0.5.
"""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from facenb.arrays import read_arrays
from facenb.errors import LandmarkError, ModelFileError
from facenb.morphable.layouts import LUO19
from facenb.networks.weights import read_weights, take_over

SIDE = 120  # pixels of a crop
GRID = 64  # the grid over the face has GRID x GRID points
# The blocks: names, channels at width 1, stride (Howard et al. 2017, Table 1).
BLOCKS = {
    "dw2_1": (64, 1),
    "dw2_2": (128, 2),
    "dw3_1": (128, 1),
    "dw3_2": (256, 2),
    "dw4_1": (256, 1),
    "dw4_2": (512, 2),
    **{f"dw5_{number}": (512, 1) for number in range(1, 6)},
    "dw5_6": (1024, 2),
    "dw6": (1024, 1),
}
SECOND_HEAD = "fc_lm."  # a head for landmarks, used only in the authors' training
ARRAYS = {  # of bfm68.npz: their names here, and their shapes in the file
    "v2_mean": ("centre", (62,)),
    "v2_std": ("deviation", (62,)),
    "u_base": ("mean", (204,)),
    "w_shp_base": ("identity_basis", (204, 40)),
    "w_exp_base": ("expression_basis", (204, 10)),
    "paf_mu": ("grid_mean", (GRID * GRID, 3)),
    "paf_w_shp": ("grid_basis", (3 * GRID * GRID, 40)),
}


def separable(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Return a depthwise 3x3 convolution (each channel separately), then a 1x1 convolution over the channels."""
    depthwise = nn.Conv2d(inputs, inputs, 3, stride, padding=1, groups=inputs, bias=False)
    first = OrderedDict(conv_dw=depthwise, bn_dw=nn.BatchNorm2d(inputs), relu_dw=nn.ReLU())
    pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
    return nn.Sequential(first | OrderedDict(conv_sep=pointwise, bn_sep=nn.BatchNorm2d(outputs), relu_sep=nn.ReLU()))


class MobileNet(nn.Module):
    """MobileNet-V1 (Howard et al. 2017) for images of any size; `width` multiplies the channels."""

    def __init__(self, width: float = 0.5):
        super().__init__()
        channels = int(32 * width)
        self.conv1 = nn.Conv2d(3, channels, 3, 2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        for name, (count, stride) in BLOCKS.items():
            self.add_module(name, separable(channels, int(count * width), stride))
            channels = int(count * width)
        self.fc_param = nn.Linear(channels, LUO19.size)

    def forward(self, crops: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 62"]:
        """Return the outputs for BGR images, scaled as (byte - 127.5) / 128."""
        x = functional.relu(self.bn1(self.conv1(crops)))
        for name in BLOCKS:
            x = self.get_submodule(name)(x)
        return self.fc_param(x.mean((2, 3)))


def load_mobilenet(path: str | Path) -> MobileNet:
    """Return a released network on the CPU, in eval mode; the width follows from its tensors.

    Raise ModelFileError if the file is missing, would run code, or is not such a network.
    """
    path = Path(path)
    weights = {name: value for name, value in read_weights(path).items() if not name.startswith(SECOND_HEAD)}
    if "conv1.weight" not in weights:
        raise ModelFileError(f"{path} does not hold a MobileNet of 3DDFA-V2. Get the asset 3ddfa-v2 again.")
    network = MobileNet(len(weights["conv1.weight"]) / 32)
    take_over(network, weights, path)
    return network.eval()


class TDDFA(nn.Module):
    """3DDFA-V2: predict coefficients, landmarks and a grid of points on the face from a photo and a box.

    The grid shows the neutral face. In the file, the grid's expression basis is by mistake a copy of the first
    ten identity components, so we do not use it.
    """

    def __init__(self, network: MobileNet, buffers: Mapping[str, Tensor]):
        super().__init__()
        self.network = network
        for name, value in buffers.items():
            self.register_buffer(name, value)

    @classmethod
    def load(cls, folder: str | Path) -> "TDDFA":
        """Return the released network of a folder with mb05_120x120.pth and bfm68.npz.

        Raise ModelFileError if one of them is missing, damaged or of another network.
        """
        network, path = load_mobilenet(Path(folder) / "mb05_120x120.pth"), Path(folder) / "bfm68.npz"
        arrays, buffers = read_arrays(path, ModelFileError), {}
        for key, (name, shape) in ARRAYS.items():
            if key not in arrays or arrays[key].shape != shape:
                raise ModelFileError(f"{path} has no array {key} of shape {shape}. Get the asset 3ddfa-v2 again.")
            value = torch.from_numpy(arrays[key]).float()
            if name.endswith("mean"):
                value = value.reshape(-1, 3)
            if name.endswith("basis"):
                value = value.T.unflatten(1, (-1, 3)).contiguous()  # (coefficients, points, 3)
            buffers[name] = value
        return cls(network, buffers).eval()

    def forward(self, crops: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 62"]:
        """Return the coefficients, in the layout LUO19, of crops that `crop` makes."""
        return self.network(crops) * self.deviation + self.centre

    def landmarks(
        self, coefficients: Float[Tensor, "faces 62"], boxes: Float[Tensor, "faces 4"]
    ) -> Float[Tensor, "faces 68 3"]:
        """Return the 68 landmarks in the photo: (u, v) in pixels, and depth in pixels away from the camera.

        They are fixed points of the head. Landmarks of the far side lie behind the face, not on its outline.
        """
        parts = LUO19.split(coefficients)
        shape = self.mean + torch.tensordot(parts["identity"], self.identity_basis, 1)
        return _in_photo(shape + torch.tensordot(parts["expression"], self.expression_basis, 1), parts["pose"], boxes)

    def grid(
        self, coefficients: Float[Tensor, "faces 62"], boxes: Float[Tensor, "faces 4"]
    ) -> Float[Tensor, "faces 64 64 3"]:
        """Return 64 x 64 points over the neutral face, from cheek to cheek and brow to chin; units as `landmarks`."""
        parts = LUO19.split(coefficients)
        shape = self.grid_mean + torch.tensordot(parts["identity"], self.grid_basis, 1)
        return _in_photo(shape, parts["pose"], boxes).unflatten(1, (GRID, GRID))


def _in_photo(
    shape: Float[Tensor, "faces points 3"], pose: Float[Tensor, "faces 12"], boxes: Float[Tensor, "faces 4"]
) -> Float[Tensor, "faces points 3"]:
    """Return points of the model in the photo: [f R | t] maps them to the crop, the box maps the crop to the photo."""
    matrix = pose.unflatten(1, (3, 4))
    x, y, z = (shape @ matrix[:, :, :3].mT + matrix[:, None, :, 3]).unbind(-1)
    # In the authors' coordinates the first pixel's centre is 1, and v points upwards. So the distance from the left
    # edge is x - 0.5, and the distance from the top edge is SIDE - y + 0.5.
    scale = ((boxes[:, 2:] - boxes[:, :2]) / SIDE)[:, None]  # (faces, 1, 2), photo pixels per crop pixel
    uv = torch.stack([x - 0.5, SIDE - y + 0.5], -1) * scale + boxes[:, None, :2]
    return torch.cat([uv, -z[..., None] * scale.mean(-1, keepdim=True)], -1)


def square_box(points: Float[Tensor, "faces points 2"]) -> Float[Tensor, "faces 4"]:
    """Return the network's square around a face, from landmarks (pixels), by its authors' rule.

    It has the centre of the landmarks' box. Its side is sqrt(2) times the longer side of that box. Raise LandmarkError
    if landmarks are not finite or all equal.
    """
    low, high = points.amin(1), points.amax(1)
    side = (high - low).amax(1, keepdim=True)
    valid = (side[:, 0] > 0) & side[:, 0].isfinite()  # NaN is not above 0
    if not valid.all():
        raise LandmarkError(f"the landmarks of face {int((~valid).nonzero()[0])} are not finite, or all alike")
    centre, half = (low + high) / 2, side * 2**0.5 / 2
    return torch.cat([centre - half, centre + half], 1)


def crop(image: Float[Tensor, "height width 3"], boxes: Float[Tensor, "faces 4"]) -> Float[Tensor, "faces 3 120 120"]:
    """Return each box of an RGB photo in [0, 1] as the network's input: BGR, (byte - 127.5) / 128; black outside.

    Pixels are interpolated bilinearly without antialiasing, as in the network's training images.
    """
    steps = (torch.arange(SIDE, device=image.device) + 0.5) / SIDE
    v, u = torch.meshgrid(steps, steps, indexing="ij")
    extent = (boxes[:, 2:] - boxes[:, :2])[:, None, None]
    uv = boxes[:, None, None, :2] + torch.stack([u, v], -1) * extent
    sides = torch.tensor([image.shape[1], image.shape[0]], device=image.device)
    planes = image.permute(2, 0, 1).flip(0).expand(len(boxes), -1, -1, -1)
    return (255 * functional.grid_sample(planes, 2 * uv / sides - 1, align_corners=False) - 127.5) / 128
