"""How the points of a detector err: bias and covariance by yaw, for the fit of a morphable model.

A detector that regresses a smooth mesh errs at all points together. Independent noise would make a fit trust details
that are such common errors. `bake/points.py` estimates the file for MediaPipe's points on ICT-FaceKit.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from facenb import savefile
from facenb.fitting.pose import Camera
from facenb.imaging.camera import matrix_to_euler

KIND = "PointErrors 1"
SHIPPED = Path(__file__).parents[1] / "photos" / "mediapipe_on_ict.safetensors"


@dataclass(frozen=True)
class PointErrors:
    """Bias and covariance of a detector's points, in mm, in images where the face is upright (x right, y up).

    Bin k is for faces with a yaw between edges k - 1 and k. The coordinates are x of all points, then y. The covariance
    is `loading loading^T + diag(variance)`.
    """

    points: Int[Tensor, " points"]  # which of the detector's points to use
    edges: Float[Tensor, " edges"]  # degrees
    bias: Float[Tensor, "bins coordinates"]
    loading: Float[Tensor, "bins coordinates rank"]
    variance: Float[Tensor, "bins coordinates"]
    expression_prior: Float[Tensor, " expression"]  # 1 / variance of each coefficient, whose mean is 0

    @classmethod
    def load(cls, path: Path = SHIPPED) -> "PointErrors":
        """Return the estimate of a file of `bake/points.py`. Raise ModelFileError if it is missing or another file."""
        return cls(**savefile.load(path, KIND)[0])

    @cached_property
    def roots(self) -> Float[Tensor, "bins coordinates coordinates"]:
        """The inverse of each covariance's Cholesky factor."""
        covariance = (self.loading.double() @ self.loading.double().mT) + torch.diag_embed(self.variance.double())
        unit = torch.eye(covariance.shape[1], dtype=torch.float64, device=covariance.device)
        return torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), unit, upper=False).to(self.loading)

    def of(
        self, rotation: Float[Tensor, "images 3 3"]
    ) -> tuple[Float[Tensor, "images points 2"], Float[Tensor, "images coordinates coordinates"]]:
        """Return the bias and the whitening matrix of upright faces."""
        degrees = matrix_to_euler(rotation)[:, 0].rad2deg().contiguous()
        rows = torch.bucketize(degrees, self.edges.to(degrees))
        return self.bias.to(rotation)[rows].unflatten(1, (2, -1)).mT, self.roots.to(rotation)[rows]


def upright(rotation: Float[Tensor, "images 3 3"]) -> Float[Tensor, "images 3 3"]:
    """Return the rotations in the image plane after which the head's y axis points up."""
    x, y = normalize(rotation[:, :2, 1], dim=1).unbind(1)
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return torch.stack([y, -x, zero, x, y, zero, zero, zero, one], 1).unflatten(1, (3, 3))


def turned(camera: Camera, turn: Float[Tensor, "images 3 3"]) -> Camera:
    """Return cameras after rotations in the image plane."""
    rotation, scale, shift = camera
    return turn @ rotation, scale, (turn[:, :2, :2] @ shift[..., None])[..., 0]
