"""Recognition networks in ONNX files: onnxruntime computes features from images. Nothing is trained here."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facenb.errors import ModelFileError

# Mean and deviation of RGB in [0, 1], with which foamliu's MobileFaceNet.onnx was trained.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
TOGETHER = 32  # images per call, if the file allows any batch size


class OnnxNetwork:
    """Map RGB images in [0, 1] to features with an ONNX file that has one input (batch, 3, height, width).

    `mean`, `deviation`: the network receives `(rgb - mean) / deviation`. The file does not store them, and wrong ones
    may go unnoticed; InsightFace's own networks use 0.5 and 0.5. Raise ModelFileError if the file is missing, is no
    network, or has other inputs or outputs.
    """

    def __init__(
        self, path: str | Path, mean: Sequence[float] = (0.5, 0.5, 0.5), deviation: Sequence[float] = (0.5, 0.5, 0.5)
    ):
        try:
            import onnxruntime
        except ImportError as error:
            raise ModelFileError("ONNX networks need onnxruntime: pip install 'facenb[photos]'") from error
        if not Path(path).is_file():
            raise ModelFileError(f"There is no file {path}. Give the path of an .onnx file.")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only
        options.intra_op_num_threads = 1  # many files take one image per call; one core per image is faster
        try:
            self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own errors are not public
            raise ModelFileError(f"onnxruntime cannot run {path} ({error}). Get the file again.") from error
        inputs = self.session.get_inputs()
        shape = inputs[0].shape
        if len(inputs) != 1 or len(shape) != 4 or shape[1] != 3 or inputs[0].type != "tensor(float)":
            described = "; ".join(f"{value.name} {value.shape} {value.type}" for value in inputs)
            raise ModelFileError(f"{path} takes {described}. Give a network of float images (batch, 3, height, width).")
        outputs = self.session.get_outputs()
        if len(outputs[0].shape) != 2:
            raise ModelFileError(f"{path} returns {outputs[0].shape}. Give a network that returns a vector an image.")
        self.name, self.mean, self.deviation = inputs[0].name, np.float32(mean), np.float32(deviation)
        self.fixed = isinstance(shape[0], int)
        self.batch = shape[0] if self.fixed else TOGETHER
        self.size = (shape[2], shape[3]) if all(isinstance(side, int) for side in shape[2:]) else None

    def __call__(self, images: Float[Tensor, "batch height width 3"]) -> Float[Tensor, "batch features"]:
        """Return the features of images of the network's size."""
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            return torch.cat(list(pool.map(self._run, images.split(self.batch))))

    def _run(self, images: Tensor) -> Tensor:
        rows = len(images)
        pixels = np.zeros((self.batch if self.fixed else rows, 3, *images.shape[1:3]), np.float32)
        pixels[:rows] = ((images.cpu().numpy() - self.mean) / self.deviation).transpose(0, 3, 1, 2)
        return torch.from_numpy(self.session.run(None, {self.name: pixels})[0][:rows])
