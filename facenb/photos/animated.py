"""A face that moves, as files: GLB with morph targets and an animation of them, and GIF.

glTF 2.0 written by hand, since mesh libraries leave morph targets out: a JSON chunk that describes one binary chunk. A
viewer shows `vertices + sum of weight x target`. Lengths are metres and colours linear, as its standard says; the axes
are the project's. Normals go along, at rest and with each target: without them a viewer must draw every facet flat.
"""

import io
import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from facenb.photos.export import METRES, check_colours, save_bytes, smooth_normals

FLOAT, UINT, USHORT = 5126, 5125, 5123  # glTF's numbers for kinds of numbers
ARRAY, ELEMENTS = 34962, 34963  # what a view of the buffer is for: vertices, triangles


class _Buffer:
    """The binary chunk as it grows, and what describes it."""

    def __init__(self):
        self.bytes, self.views, self.accessors = bytearray(), [], []

    def add(self, values: np.ndarray, kind: int, shape: str, target: int | None = None, **more: Any) -> int:
        """Append an array; the number of its accessor."""
        self.bytes += b"\0" * (-len(self.bytes) % 4)
        view = {"buffer": 0, "byteOffset": len(self.bytes), "byteLength": values.nbytes}
        self.views.append(view | ({} if target is None else {"target": target}))
        self.bytes += np.ascontiguousarray(values).tobytes()
        self.accessors.append(
            {"bufferView": len(self.views) - 1, "componentType": kind, "count": len(values), "type": shape} | more
        )
        return len(self.accessors) - 1

    def points(self, points: Tensor) -> int:
        """Places or offsets in mm, with the ends that the standard asks for."""
        metres = (METRES * points.detach().cpu()).numpy().astype("<f4")
        ends = {"min": metres.min(0).tolist(), "max": metres.max(0).tolist()}
        return self.add(metres, FLOAT, "VEC3", ARRAY, **ends)

    def directions(self, directions: Tensor) -> int:
        """Normals, or what a target adds to them."""
        return self.add(directions.detach().cpu().numpy().astype("<f4"), FLOAT, "VEC3", ARRAY)


def _linear(shown: Tensor) -> Tensor:
    """Colours as a screen is given them (sRGB, IEC 61966-2-1) as amounts of light."""
    return torch.where(shown <= 0.04045, shown / 12.92, ((shown + 0.055) / 1.055) ** 2.4)


def _check_rate(frames_per_second: float | int) -> None:
    if not (math.isfinite(frames_per_second) and frames_per_second > 0):
        raise ValueError(f"{frames_per_second} frames per second cannot be played; give a number above 0")


def _check_face(vertices: Tensor, triangles: Tensor, colours: Tensor, targets: Mapping[str, Tensor]) -> None:
    if not targets or triangles.dim() != 2 or triangles.shape[1] != 3 or not len(triangles):
        raise ValueError(f"{len(targets)} targets, triangles {tuple(triangles.shape)}: give one or more of both")
    moved = {f"target {name}": offset for name, offset in targets.items()}
    for name, values in {"vertices": vertices, "colours": colours, **moved}.items():
        if values.shape != (len(vertices), 3) or not values.isfinite().all():
            raise ValueError(
                f"{name} {tuple(values.shape)} must be three finite numbers for each of {len(vertices)} vertices"
            )
    check_colours(colours)


def save_animated_glb(
    path: str | Path,
    vertices: Float[Tensor, "vertices 3"], triangles: Int[Tensor, "triangles 3"],
    colours: Float[Tensor, "vertices 3"], targets: Mapping[str, Float[Tensor, "vertices 3"]],
    weights: Float[Tensor, "frames targets"] | None = None, frames_per_second: float | int = 12,
) -> Path:  # fmt: skip
    """Write a binary glTF: a face in mm, RGB in [0, 1] as shown at its vertices, and by name what moves it (mm).

    `weights` of the targets, in their order, frame by frame, are an animation that viewers play. Raises ValueError, and
    writes nothing, for no target, triangle or frame, for shapes that do not fit each other, for numbers that are not
    finite, colours far outside [0, 1], and for a rate that is not above 0; RunError for a path that cannot be written.
    """
    _check_face(vertices, triangles, colours, targets)
    if weights is not None:
        _check_rate(frames_per_second)
        if weights.dim() != 2 or not len(weights) or weights.shape[1] != len(targets) or not weights.isfinite().all():
            raise ValueError(
                f"weights {tuple(weights.shape)} of {len(targets)} targets must be finite, one of each for each frame"
            )
    buffer = _Buffer()
    rgba = torch.cat([_linear(colours.detach().cpu().clamp(0, 1)), torch.ones(len(colours), 1)], 1)
    posed = torch.stack([vertices, *(vertices + offset for offset in targets.values())])
    rest, *moved = smooth_normals(posed, triangles)
    primitive = {
        "attributes": {
            "POSITION": buffer.points(vertices),
            "NORMAL": buffer.directions(rest),
            "COLOR_0": buffer.add((65535 * rgba).round().numpy().astype("<u2"), USHORT, "VEC4", ARRAY, normalized=True),
        },
        "indices": buffer.add(triangles.cpu().numpy().astype("<u4").reshape(-1), UINT, "SCALAR", ELEMENTS),
        "targets": [
            {"POSITION": buffer.points(offset), "NORMAL": buffer.directions(normals - rest)}
            for offset, normals in zip(targets.values(), moved, strict=True)
        ],
        "material": 0,
    }
    content = {
        "asset": {"version": "2.0", "generator": "facenb"},
        "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0, "name": "face"}],
        "meshes": [{"primitives": [primitive], "weights": [0.0] * len(targets), "name": "face",
                    "extras": {"targetNames": list(targets)}}],
        "materials": [{"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 0.9}, "doubleSided": True}],
    }  # fmt: skip
    if weights is not None:
        times = (np.arange(len(weights)) / frames_per_second).astype("<f4")
        start = buffer.add(times, FLOAT, "SCALAR", min=[float(times[0])], max=[float(times[-1])])
        moved = buffer.add(weights.detach().cpu().numpy().astype("<f4").reshape(-1), FLOAT, "SCALAR")
        content["animations"] = [{
            "name": "speaking",
            "samplers": [{"input": start, "output": moved, "interpolation": "LINEAR"}],
            "channels": [{"sampler": 0, "target": {"node": 0, "path": "weights"}}],
        }]  # fmt: skip
    binary = bytes(buffer.bytes) + b"\0" * (-len(buffer.bytes) % 4)
    content |= {"buffers": [{"byteLength": len(binary)}], "bufferViews": buffer.views, "accessors": buffer.accessors}
    text = json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return save_bytes(Path(path), struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)


def gif(frames: Float[Tensor, "frames height width 3"], frames_per_second: float | int = 12) -> bytes:
    """An endless GIF of RGB frames in [0, 1].

    Raises ValueError for no frames, frames of another shape or not finite, and a rate that is not above 0.
    """
    _check_rate(frames_per_second)
    if frames.dim() != 4 or frames.shape[-1] != 3 or not frames.numel() or not frames.isfinite().all():
        raise ValueError(f"frames {tuple(frames.shape)} must be one or more of (height, width, 3), and finite")
    pictures = [Image.fromarray((255 * frame.clamp(0, 1)).round().byte().numpy()) for frame in frames.detach().cpu()]
    palette = [picture.quantize(128, dither=Image.Dither.NONE) for picture in pictures]
    out = io.BytesIO()
    palette[0].save(
        out, "GIF", save_all=True, append_images=palette[1:], duration=round(1000 / frames_per_second), loop=0
    )
    return out.getvalue()


def save_gif(
    path: str | Path, frames: Float[Tensor, "frames height width 3"], frames_per_second: float | int = 12
) -> Path:
    """Write `gif`, beside and then renamed. ValueError as it does, and then nothing is written; RunError for a path."""
    return save_bytes(Path(path), gif(frames, frames_per_second))
