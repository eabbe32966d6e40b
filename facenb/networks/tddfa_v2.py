"""3DDFA-V2 (Guo et al., ECCV 2020), an external method to compare with: a crop to 62 coefficients of a Basel face.

The network is a MobileNet-V1 of any width, by our own definition; the released one has width 0.5. Its 62 outputs are
whitened; with their mean and deviation put back they are the layout LUO19: the 3x4 matrix [f R | t], 40 identity and 10
expression coefficients.

Conventions. Crops are 120 x 120 pixels, BGR, (byte - 127.5) / 128, channels first. [f R | t] leads to the crop as its
authors count it: v upwards, pixels from 1. A *box* is (left, top, right, bottom) in the photo's pixels, edges at
whole numbers: 0, 0, 120, 120 is the first 120 pixels either way; the crop shows just what is in it. Landmarks come
out as everywhere here: origin top left, pixel centres at +0.5.
"""

from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from facenb.errors import LandmarkError, ModelFileError
from facenb.morphable.layouts import LUO19
from facenb.networks.weights import read_weights, some_of

SIDE = 120  # pixels of a crop
GRID = 64  # points on a side of the grid over the face
BRIGHTEST = 10.0  # in a crop, where bytes end at 1: what is beyond was not normalised
MICROMETRES = 1e-3  # mm of the released bases' unit
# Blocks at width 1: their names in released files, channels, stride (Howard et al. 2017, Table 1).
BLOCKS = {
    "dw2_1": (64, 1), "dw2_2": (128, 2), "dw3_1": (128, 1), "dw3_2": (256, 2), "dw4_1": (256, 1), "dw4_2": (512, 2),
    "dw5_1": (512, 1), "dw5_2": (512, 1), "dw5_3": (512, 1), "dw5_4": (512, 1), "dw5_5": (512, 1), "dw5_6": (1024, 2),
    "dw6": (1024, 1),
}  # fmt: skip
PARTS = {
    "depthwise.conv": "conv_dw",
    "depthwise.norm": "bn_dw",
    "pointwise.conv": "conv_sep",
    "pointwise.norm": "bn_sep",
}
SECOND_HEAD = "fc_lm."  # a head for landmarks that helped the training


class Convolution(nn.Module):
    """Convolution without bias, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Float[Tensor, "batch inputs height width"]) -> Float[Tensor, "batch outputs high wide"]:
        """Features a stride smaller."""
        return functional.relu(self.norm(self.conv(x)))


class Separable(nn.Module):
    """A 3x3 convolution of each channel by itself, then a 1x1 convolution over the channels."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.depthwise = Convolution(inputs, inputs, 3, stride, groups=inputs)
        self.pointwise = Convolution(inputs, outputs, 1)

    def forward(self, x: Float[Tensor, "batch inputs height width"]) -> Float[Tensor, "batch outputs high wide"]:
        """Features a stride smaller."""
        return self.pointwise(self.depthwise(x))


class MobileNet(nn.Module):
    """MobileNet-V1 (Howard et al. 2017) for pictures of any size; `width` multiplies the channels."""

    def __init__(self, width: float = 0.5, outputs: int = LUO19.size):
        super().__init__()
        first = int(32 * width)
        if first < 1 or outputs < 1:
            raise ValueError(
                f"width {width} leaves {first} channels of 32, for {outputs} outputs: both must be positive"
            )
        self.width = width
        self.first = Convolution(3, first, 3, 2)
        channels = [first, *(int(count * width) for count, _ in BLOCKS.values())]
        strides = [stride for _, stride in BLOCKS.values()]
        self.blocks = nn.Sequential(*(Separable(channels[k], channels[k + 1], strides[k]) for k in range(len(strides))))
        self.fc = nn.Linear(channels[-1], outputs)

    def forward(self, crops: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch outputs"]:
        """Outputs of BGR pictures, (byte - 127.5) / 128."""
        return self.fc(self.blocks(self.first(crops)).mean((2, 3)))


def published_name(name: str) -> str:
    """What released files call a tensor of `MobileNet`: `conv1.weight`, `dw2_1.bn_sep.bias`, ..., `fc_param.bias`."""
    where, _, kind = name.rpartition(".")
    if where == "fc":
        return f"fc_param.{kind}"
    if where.startswith("first."):
        return f"{'conv1' if where.endswith('conv') else 'bn1'}.{kind}"
    _, number, part = where.split(".", 2)
    return f"{list(BLOCKS)[int(number)]}.{PARTS[part]}.{kind}"


def load_mobilenet(path: str | Path) -> MobileNet:
    """A released network on the CPU, in eval mode; its width is read from its tensors.

    Raises ModelFileError for a file that is missing, would run code, or is not such a network, naming what differs.
    """
    path = Path(path)
    # DataParallel saves names with `module.` before them.
    found = {name.removeprefix("module."): tensor for name, tensor in read_weights(path).items()}
    found = {name: tensor for name, tensor in found.items() if not name.startswith(SECOND_HEAD)}
    first, last = found.get("conv1.weight"), found.get("fc_param.weight")
    if first is None or last is None or first.ndim != 4 or last.ndim != 2:
        raise ModelFileError(f"{path} is no MobileNet of 3DDFA-V2: it has {some_of(sorted(found))}; get it again")
    network = MobileNet(len(first) / 32, len(last))
    own = network.state_dict()
    names = {name: published_name(name) for name in own}
    missing, extra = sorted(set(names.values()) - set(found)), sorted(set(found) - set(names.values()))
    if missing or extra:
        raise ModelFileError(
            f"{path} is no MobileNet-V1: missing {some_of(missing)}; not of this network {some_of(extra)}"
        )
    for name, other in names.items():
        if found[other].shape != own[name].shape or not found[other].isfinite().all():
            raise ModelFileError(
                f"{path}: {other} has shape {tuple(found[other].shape)} where width {network.width:g} has "
                f"{tuple(own[name].shape)}, or holds values that are not finite; get the file again"
            )
    network.load_state_dict({name: found[other] for name, other in names.items()})
    return network.eval()


class TDDFA(nn.Module):
    """3DDFA-V2: photo and box to coefficients, landmarks and a grid of points on the face.

    The grid is neutral: what the file holds as its expression basis is a copy of the first ten identity components, a
    slip that would bend the face by the wrong thing, so it is not used.
    """

    def __init__(
        self,
        network: MobileNet,
        centre: Float[Tensor, "62"],
        deviation: Float[Tensor, "62"],
        mean: Float[Tensor, "points 3"],
        identity_basis: Float[Tensor, "40 points 3"],
        expression_basis: Float[Tensor, "10 points 3"],
        grid_mean: Float[Tensor, "grid 3"],
        grid_basis: Float[Tensor, "40 grid 3"],
    ):
        super().__init__()
        self.network = network
        buffers = {"centre": centre, "deviation": deviation, "mean": mean, "identity_basis": identity_basis,
                   "expression_basis": expression_basis, "grid_mean": grid_mean, "grid_basis": grid_basis}  # fmt: skip
        for name, value in buffers.items():
            self.register_buffer(name, value)

    @classmethod
    def load(cls, folder: str | Path) -> "TDDFA":
        """The released network of a folder with mb05_120x120.pth and bfm68.npz. ModelFileError naming what is wrong."""
        folder = Path(folder)
        network = load_mobilenet(folder / "mb05_120x120.pth")
        if network.fc.out_features != LUO19.size:
            raise ModelFileError(
                f"{folder}/mb05_120x120.pth has {network.fc.out_features} outputs, and {LUO19} is needed"
            )
        path = folder / "bfm68.npz"
        try:
            with np.load(path, allow_pickle=False) as file:
                read = {key: torch.from_numpy(file[key].astype(np.float32)) for key in _BASES}
        except (OSError, KeyError, ValueError, EOFError, BadZipFile) as error:
            raise ModelFileError(f"{path} is not here or not whole ({error}); get the asset 3ddfa-v2 again") from error
        for key, shape in _BASES.items():
            if tuple(read[key].shape) != shape or not read[key].isfinite().all():
                raise ModelFileError(
                    f"{path}: {key} has shape {tuple(read[key].shape)} and not {shape}, or is not finite"
                )
        points = {key: value.unflatten(0, (-1, 3)) for key, value in read.items() if key in ("u_base", *_COLUMNS)}
        columns = {key: points[key].permute(2, 0, 1).contiguous() for key in _COLUMNS}
        return cls(
            network, read["v2_mean"], read["v2_std"], points["u_base"], columns["w_shp_base"], columns["w_exp_base"],
            read["paf_mu"], columns["paf_w_shp"],
        ).eval()  # fmt: skip

    def forward(self, crops: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 62"]:
        """Coefficients in the layout LUO19 of crops as `crop` makes them. Raises ValueError for what is none."""
        if crops.dim() != 4 or crops.shape[1] != 3 or not crops.is_floating_point():
            raise ValueError(f"crops {tuple(crops.shape)}, {crops.dtype}, must be floats (batch, 3, height, width)")
        if crops.numel() and crops.detach().amax() > BRIGHTEST:
            raise ValueError(
                f"crops reach {float(crops.max()):g} and must be BGR, (byte - 127.5) / 128, which ends at 1; `crop` "
                "makes them of a photo"
            )
        return self.network(crops) * self.deviation + self.centre

    def landmarks(
        self, coefficients: Float[Tensor, "faces 62"], boxes: Float[Tensor, "faces 4"]
    ) -> Float[Tensor, "faces 68 3"]:
        """The 68 landmarks in the photo: (u, v) in pixels, and depth in pixels, growing away from the camera.

        Those of the far side are there as well, behind the face: the head's own points, not its outline. Raises
        ValueError for boxes that are not one for each face or have no area.
        """
        parts = LUO19.split(coefficients)
        shape = self.mean + torch.tensordot(parts["identity"], self.identity_basis, 1)
        return _in_photo(shape + torch.tensordot(parts["expression"], self.expression_basis, 1), parts["pose"], boxes)

    def grid(
        self, coefficients: Float[Tensor, "faces 62"], boxes: Float[Tensor, "faces 4"]
    ) -> Float[Tensor, "faces 64 64 3"]:
        """64 x 64 points over the face at rest, from one cheek to the other and from brow to chin, as `landmarks`."""
        parts = LUO19.split(coefficients)
        shape = self.grid_mean + torch.tensordot(parts["identity"], self.grid_basis, 1)
        return _in_photo(shape, parts["pose"], boxes).unflatten(1, (GRID, GRID))

    def neutral(self, coefficients: Float[Tensor, "faces 62"]) -> Float[Tensor, "faces 4096 3"]:
        """The grid's points at rest on the model's own axes, mm: a shape without its pose."""
        return MICROMETRES * (
            self.grid_mean + torch.tensordot(LUO19.split(coefficients)["identity"], self.grid_basis, 1)
        )


_COLUMNS = ("w_shp_base", "w_exp_base", "paf_w_shp")
_BASES = {
    "v2_mean": (62,), "v2_std": (62,), "u_base": (204,), "w_shp_base": (204, 40), "w_exp_base": (204, 10),
    "paf_mu": (GRID * GRID, 3), "paf_w_shp": (3 * GRID * GRID, 40),
}  # fmt: skip


def _in_photo(shape: Tensor, pose: Tensor, boxes: Tensor) -> Float[Tensor, "faces points 3"]:
    """Points of the model by [f R | t] into the crop, and from there into the photo."""
    extent = _extent(boxes)
    if len(boxes) != len(pose):
        raise ValueError(f"{len(pose)} faces and {len(boxes)} boxes: give one for each")
    matrix = pose.unflatten(1, (3, 4))
    x, y, z = (shape @ matrix[:, :, :3].mT + matrix[:, None, :, 3]).unbind(-1)
    # Counted from 1 at a pixel's centre, v upwards: x is x - 0.5 from the left edge, y is SIDE - y + 0.5 from the top.
    scale = (extent / SIDE)[:, None]  # (faces, 1, 2), photo pixels per crop pixel
    place = torch.stack([x - 0.5, SIDE - y + 0.5], -1) * scale + boxes[:, None, :2]
    return torch.cat([place, -z[..., None] * scale.mean(-1, keepdim=True)], -1)


def _extent(boxes: Tensor) -> Float[Tensor, "faces 2"]:
    """Width and height of boxes. Raises ValueError for what is no box."""
    if boxes.dim() != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes {tuple(boxes.shape)} must be (faces, 4): left, top, right, bottom")
    extent = boxes[:, 2:] - boxes[:, :2]
    fine = (extent > 0) & (extent < torch.inf)  # NaN is neither
    if not fine.all():
        row = int((~fine).nonzero()[0, 0])
        raise ValueError(
            f"box {row} has no area: {boxes[row].tolist()} must be left, top, right, bottom, the last two larger"
        )
    return extent


def square_box(points: Float[Tensor, "faces points 2"]) -> Float[Tensor, "faces 4"]:
    """The square that the network wants around a face, from landmarks (pixels): its authors' rule.

    Middle of the landmarks' box, side sqrt(2) times its longer side. LandmarkError for landmarks not finite or alike.
    """
    low, high = points.amin(1), points.amax(1)
    side = (high - low).amax(1, keepdim=True)
    fine = (side[:, 0] > 0) & side[:, 0].isfinite()  # NaN is not above 0
    if not fine.all():
        row = int((~fine).nonzero()[0])
        raise LandmarkError(
            f"the landmarks of face {row} are all alike or not finite: there is nothing to put a box around"
        )
    middle, half = (low + high) / 2, side * 2**0.5 / 2
    return torch.cat([middle - half, middle + half], 1)


def crop(
    image: Float[Tensor, "height width 3"], boxes: Float[Tensor, "faces 4"], size: int = SIDE
) -> Float[Tensor, "faces 3 size size"]:
    """Each box of an RGB photo in [0, 1] as the network takes it: BGR, (byte - 127.5) / 128; black outside the photo.

    Bilinear, without averaging where it shrinks: so were the pictures that the network was trained on.
    Raises ValueError for a box without area, and for a photo of other channels or of bytes.
    """
    if image.dim() != 3 or image.shape[2] != 3 or not image.is_floating_point():
        raise ValueError(f"photo {tuple(image.shape)}, {image.dtype}, must be floats (height, width, 3), RGB in [0, 1]")
    extent = _extent(boxes)
    steps = (torch.arange(size, device=image.device) + 0.5) / size
    v, u = torch.meshgrid(steps, steps, indexing="ij")
    place = boxes[:, None, None, :2] + torch.stack([u, v], -1) * extent[:, None, None]
    whole = torch.tensor([image.shape[1], image.shape[0]], device=image.device)
    planes = image.permute(2, 0, 1).flip(0).expand(len(boxes), -1, -1, -1)
    found = functional.grid_sample(planes, 2 * place / whole - 1, align_corners=False)
    if found.numel() and found.detach().amax() > BRIGHTEST:
        raise ValueError(f"the photo reaches {float(found.max()):g} and must be RGB in [0, 1]; divide bytes by 255")
    return (255 * found - 127.5) / 128
