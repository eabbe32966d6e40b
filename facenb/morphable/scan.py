"""Scans: measured surfaces."""

from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Scan:
    """A measured surface, with exactly the points of its file. Texture seams do not repeat points."""

    name: str
    vertices: Float[Tensor, "vertices 3"]
    triangles: Int[Tensor, "triangles 3"]
    unit: str  # "mm", or "unknown"
    landmarks: Float[Tensor, "68 3"] | None = None
    uv: Float[Tensor, "texels 2"] | None = None  # in [0, 1], origin bottom left
    uv_triangles: Int[Tensor, "triangles 3"] | None = None  # rows of uv for each triangle's corners
    texture: Path | None = None  # the image file that uv refers to
