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
LARGEST = 300_000_000  # pixels; a file with a larger size is treated as a decompression bomb
BOMB = Image.DecompressionBombError  # Pillow's error for an even larger size


def read_image(path: str | Path, limit: int | None = None) -> Float[Tensor, "height width 3"]:
    """Return an image file as RGB in [0, 1], turned upright by its EXIF orientation.

    Greyscale and palette images become RGB. 16-bit values are not reduced to 8 bits. CMYK is converted without a
    colour profile. Transparent pixels are blended with white. Only the first image of an animation is read. If the
    longer side has more than `limit` pixels, the image is scaled down to `limit`. Raise ImageError with the file name
    if it is missing, not an image, truncated, smaller than 32 pixels on a side or larger than 300 megapixels.
    """
    return read_photo(path, limit)[0]


def read_photo(path: str | Path, limit: int | None) -> tuple[Float[Tensor, "height width 3"], tuple[int, int]]:
    """Return an image as `read_image` does, and the height and width (pixels) of the full-size upright image."""
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
    with contextlib.suppress(Exception):  # broken EXIF; if Pillow fails to rewrite it, the pixels are already turned
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
