"""Write an animated face: GLB with morph targets and their animation, and GIF.

We write glTF 2.0 ourselves because mesh libraries do not support morph targets. A JSON chunk describes one binary
chunk. A viewer shows `vertices + sum of weight x target`. The standard requires metres and linear colours.
"""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from facenb.files import atomic_write
from facenb.photos.export import METRES, smooth_normals
from facenb.photos.images import as_bytes

COMPONENTS = {torch.float32: 5126, torch.uint32: 5125, torch.uint16: 5123}  # glTF's numbers
ARRAY, ELEMENTS = 34962, 34963  # glTF's numbers for the use of data: vertices, triangles
FRAMES_PER_SECOND = 12


class _Buffer:
    """The binary chunk as it grows, with the views and accessors that describe it."""

    def __init__(self):
        self.bytes, self.views, self.accessors = bytearray(), [], []

    def add(self, values: Tensor, use: int | None = None, **facts: Any) -> int:
        """Append numbers, or rows of three or four, and return the number of their accessor."""
        array, shape = values.detach().cpu().numpy(), f"VEC{values.shape[-1]}" if values.ndim == 2 else "SCALAR"
        view = {"buffer": 0, "byteOffset": len(self.bytes), "byteLength": array.nbytes}
        self.views.append(view | ({} if use is None else {"target": use}))
        self.bytes += array.tobytes() + b"\0" * (-array.nbytes % 4)
        accessor = {"bufferView": len(self.views) - 1, "componentType": COMPONENTS[values.dtype], "count": len(array)}
        self.accessors.append(accessor | {"type": shape} | facts)
        return len(self.accessors) - 1

    def points(self, millimetres: Tensor) -> int:
        """Append positions or offsets, with the minimum and maximum that the standard requires."""
        metres = (METRES * millimetres.detach().cpu()).float()
        extremes = {"min": metres.amin(0).tolist(), "max": metres.amax(0).tolist()}
        return self.add(metres, ARRAY, **extremes)


def save_animated_glb(
    path: str | Path,
    vertices: Float[Tensor, "vertices 3"],
    triangles: Int[Tensor, "triangles 3"],
    colours: Float[Tensor, "vertices 3"],
    targets: Mapping[str, Float[Tensor, "vertices 3"]],
    weights: Float[Tensor, "frames targets"],
) -> Path:
    """Write a binary glTF of a face (mm, sRGB in [0, 1]) with named offsets (mm), its morph targets. Return the path.

    `weights` gives the animation: one row per frame, one column per target, in the same order. Raise ValueError, and
    write nothing, if vertices are not finite.
    """
    offsets, buffer = torch.stack(list(targets.values())), _Buffer()
    shown = colours.detach().cpu().clamp(0, 1)  # sRGB (IEC 61966-2-1); glTF needs linear values
    linear = torch.where(shown <= 0.04045, shown / 12.92, ((shown + 0.055) / 1.055) ** 2.4)
    rgba = torch.cat([linear, torch.ones(len(colours), 1)], 1)
    rest, *moved = smooth_normals(torch.cat([vertices[None], vertices + offsets]), triangles)
    primitive = {
        "attributes": {
            "POSITION": buffer.points(vertices),
            "NORMAL": buffer.add(rest, ARRAY),
            "COLOR_0": buffer.add((65535 * rgba).round().to(torch.uint16), ARRAY, normalized=True),
        },
        "indices": buffer.add(triangles.reshape(-1).to(torch.uint32), ELEMENTS),
        "targets": [
            {"POSITION": buffer.points(offset), "NORMAL": buffer.add(normals - rest, ARRAY)}
            for offset, normals in zip(offsets, moved, strict=True)
        ],
        "material": 0,
    }
    times = torch.arange(len(weights)) / FRAMES_PER_SECOND
    start = buffer.add(times, min=[0.0], max=[float(times[-1])])
    sampler = {"input": start, "output": buffer.add(weights.reshape(-1)), "interpolation": "LINEAR"}
    channel = {"sampler": 0, "target": {"node": 0, "path": "weights"}}
    mesh = {"primitives": [primitive], "weights": [0.0] * len(targets), "name": "face"}
    look = {"metallicFactor": 0.0, "roughnessFactor": 0.9}
    content = {
        "asset": {"version": "2.0", "generator": "facenb"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "face"}],
        "meshes": [mesh | {"extras": {"targetNames": list(targets)}}],
        "materials": [{"pbrMetallicRoughness": look, "doubleSided": True}],
        "animations": [{"name": "speaking", "samplers": [sampler], "channels": [channel]}],
        "buffers": [{"byteLength": len(buffer.bytes)}],
        "bufferViews": buffer.views,
        "accessors": buffer.accessors,
    }
    text = json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    size, binary = len(text) + len(buffer.bytes) + 28, bytes(buffer.bytes)
    with atomic_write(path) as partial:
        header = struct.pack("<4sIII4s", b"glTF", 2, size, len(text), b"JSON")
        partial.write_bytes(header + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary)
    return Path(path)


def save_gif(path: str | Path, frames: Float[Tensor, "frames height width 3"]) -> Path:
    """Write RGB frames in [0, 1] as an endless GIF and return its path."""
    images = [Image.fromarray(as_bytes(frame).numpy()) for frame in frames.detach().cpu()]
    first, *others = (image.quantize(128, dither=Image.Dither.NONE) for image in images)
    milliseconds = round(1000 / FRAMES_PER_SECOND)
    with atomic_write(path) as partial:
        first.save(partial, "GIF", save_all=True, append_images=others, duration=milliseconds, loop=0)
    return Path(path)
