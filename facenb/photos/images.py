"""Read photos: any image file that a viewer shows, as upright RGB float32 in [0, 1]."""

import contextlib
import struct
import warnings
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from facenb.errors import ImageError

SMALLEST = 32  # pixels on the shorter side: no face in a smaller image has a usable shape
LARGEST = 300_000_000  # pixels a file may claim: a larger one is taken for a decompression bomb
BOMB = Image.DecompressionBombError  # of an image that claims even more


def read_image(path: str | Path, limit: int | None = None) -> Float[Tensor, "height width 3"]:
    """Return an image file as RGB in [0, 1], turned as its EXIF orientation says.

    Greyscale and palettes become RGB. 16 bits are kept as fractions. CMYK is converted without a colour profile.
    Transparent pixels are laid on white. Of an animation the first image is read. If the longer side has more than
    `limit` pixels, the image is scaled down to it. Raise ImageError, which names the file, if it is missing, not an
    image, truncated, smaller than 32 pixels on a side or larger than 300 megapixels.
    """
    return read_photo(path, limit)[0]


def read_photo(path: str | Path, limit: int | None) -> tuple[Float[Tensor, "height width 3"], tuple[int, int]]:
    """Return an image as `read_image`, and the height and width (pixels) of the whole upright image in the file."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            return _decoded(path, image, limit)
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, struct.error, BOMB) as error:
        message = f"{path} is not a whole image file ({error}); give a JPEG or PNG that a viewer opens"
        raise ImageError(message) from error


def as_bytes(image: Float[Tensor, "*any 3"]) -> UInt8[Tensor, "*any 3"]:
    """Return RGB in [0, 1] as bytes."""
    return (image.clamp(0, 1) * 255).round().to(torch.uint8)


def _decoded(path: str | Path, image: Image.Image, limit: int | None) -> tuple[Tensor, tuple[int, int]]:
    width, height = image.size
    if min(width, height) < SMALLEST or width * height > LARGEST:
        limits = f"at least {SMALLEST} on each side, at most {LARGEST // 10**6} million in all"
        raise ImageError(f"{path} is {width} x {height} pixels; a photo needs {limits}")
    if limit is not None and max(image.size) > limit:
        image.draft("RGB", (limit, limit))  # a JPEG decodes faster at a half, quarter or eighth
    image.load()
    before = image.size
    with contextlib.suppress(Exception):  # broken EXIF; if Pillow cannot write it again, the pixels are turned already
        ImageOps.exif_transpose(image, in_place=True)
    size = (height, width) if image.size == before else (width, height)
    return torch.from_numpy(_rgb(image, limit)), size


def _rgb(image: Image.Image, limit: int | None) -> np.ndarray:
    """Return (H, W, 3) float32 of a loaded image."""
    deep = image.mode in ("I", "F") or image.mode.startswith("I;16")
    transparent = "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa")
    if not deep:
        image = image.convert("RGBA" if transparent else "RGB")
    elif image.mode != "F":
        image = image.convert("I").convert("F").point(lambda value: value * (1 / 65535))
    if limit is not None and max(image.size) > limit:
        image.thumbnail((limit, limit), Image.Resampling.LANCZOS)
    values = np.asarray(image, dtype=np.float32)
    if deep:
        return np.repeat(np.clip(values, 0, 1)[..., None], 3, axis=2)
    values = values / 255
    if values.shape[2] == 4:
        values = values[..., :3] * values[..., 3:] + (1 - values[..., 3:])
    return np.ascontiguousarray(values)
