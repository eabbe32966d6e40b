"""Any recognition network in an ONNX file, run by onnxruntime: pictures to features. Nothing of it is trained here."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facenb.errors import ModelFileError

# Mean and deviation of RGB in [0, 1]. MobileFaceNet of foamliu (MobileFaceNet.onnx) was trained with them.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
TOGETHER = 32  # pictures a call, where the file allows it


class OnnxNetwork:
    """RGB pictures in [0, 1] to features, by a file of one input (batch, 3, height, width) and a vector for each.

    `mean`, `deviation`: what the file was trained with; pictures go in as `(rgb - mean) / deviation`. InsightFace's own
    networks have 0.5 and 0.5 (up to 127.5 / 128). The file does not tell, and a wrong one may go unnoticed.
    Raises ModelFileError for a file that is missing, no network, or of other inputs and outputs.
    """

    def __init__(
        self, path: str | Path, mean: Sequence[float] = (0.5, 0.5, 0.5), deviation: Sequence[float] = (0.5, 0.5, 0.5)
    ):
        try:
            import onnxruntime
        except ImportError as error:
            raise ModelFileError("ONNX networks need onnxruntime: pip install 'facenb[photos]'") from error
        path = Path(path)
        if not path.is_file():
            raise ModelFileError(f"there is no network {path}; give the path of an .onnx file")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only
        options.intra_op_num_threads = 1  # many files take one picture a call: a core for each picture is faster
        try:
            self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has no error of its own that is public
            raise ModelFileError(f"{path} is no network that onnxruntime can run ({error})") from error
        inputs = self.session.get_inputs()
        shape = inputs[0].shape
        if len(inputs) != 1 or len(shape) != 4 or shape[1] != 3 or inputs[0].type != "tensor(float)":
            told = "; ".join(f"{one.name} {one.shape} {one.type}" for one in inputs)
            raise ModelFileError(f"{path} takes {told}, and pictures (batch, 3, height, width) of float are needed")
        self.path, self.mean, self.deviation = path, np.array(mean, np.float32), np.array(deviation, np.float32)
        self._fixed = isinstance(shape[0], int)
        self.batch = shape[0] if self._fixed else TOGETHER
        self.size = (shape[2], shape[3]) if all(isinstance(side, int) for side in shape[2:]) else None

    def __call__(self, images: Float[Tensor, "batch height width 3"]) -> Float[Tensor, "batch features"]:
        """Features of pictures. ValueError for none, pictures of another size, or values outside of [0, 1]."""
        if self.size is not None and tuple(images.shape[1:3]) != self.size:
            raise ValueError(f"pictures are {tuple(images.shape[1:3])} (height, width), the network's {self.size}")
        low, high = (float(end) for end in images.aminmax()) if images.numel() else (1.0, 0.0)
        if not -1e-3 <= low <= high <= 1.001:
            raise ValueError(f"{len(images)} pictures with values from {low:g} to {high:g}; they must be RGB in [0, 1]")
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            return torch.cat(list(pool.map(self._some, images.split(self.batch))))

    def _some(self, images: Tensor) -> Tensor:
        rows = len(images)
        pixels = np.zeros(
            (self.batch if rows < self.batch and self._fixed else rows, 3, *images.shape[1:3]), np.float32
        )
        pixels[:rows] = ((images.cpu().numpy() - self.mean) / self.deviation).transpose(0, 3, 1, 2)
        features = self.session.run(None, {self.session.get_inputs()[0].name: pixels})[0]
        if features.ndim != 2 or len(features) != len(pixels):
            raise ModelFileError(f"{self.path} gives {features.shape} of {len(pixels)} pictures, not a vector for each")
        return torch.from_numpy(features[:rows])
