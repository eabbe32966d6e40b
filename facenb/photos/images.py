"""Read photos: any image file that a viewer shows, as upright RGB float32 in [0, 1]."""

import contextlib
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from facenb.errors import ImageError

SMALLEST = 32  # pixels on the shorter side: no face in a smaller image has a usable shape
LARGEST = 300_000_000  # pixels a file may claim: a larger one is taken for a decompression bomb
BOMB = Image.DecompressionBombError  # of an image that claims even more
ORIENTATION = 0x0112  # EXIF tag: how the camera was held
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(path: str | Path, limit: int | None = None) -> Float[Tensor, "height width 3"]:
    """Return an image file as RGB in [0, 1], turned as its EXIF orientation says.

    Greyscale and palettes become RGB. 16 bits are kept as fractions. CMYK is converted without a colour profile.
    Transparent pixels are laid on white. Of an animation the first image is read. If the longer side has more than
    `limit` pixels, the image is scaled down to it. Raises ImageError, naming the file, if it is missing, not an image,
    truncated, smaller than 32 pixels on a side or larger than 300 megapixels.
    """
    with _opened(Path(path)) as image:
        turn = UPRIGHT.get(_orientation(image))
        if limit is not None and max(image.size) > limit:
            image.draft("RGB", (limit, limit))  # a JPEG decodes faster at a half, quarter or eighth
        return torch.from_numpy(_rgb(image if turn is None else image.transpose(turn), limit))


def upright_size(path: str | Path) -> tuple[int, int]:
    """Return (height, width) in pixels of an image file turned upright, without decoding it. Raises as `read_image`."""
    with _opened(Path(path)) as image:
        width, height = image.size
        return (width, height) if _orientation(image) >= 5 else (height, width)


def as_bytes(image: Float[Tensor, "*any 3"]) -> UInt8[Tensor, "*any 3"]:
    """Return RGB in [0, 1] as bytes."""
    return (image.clamp(0, 1) * 255).round().to(torch.uint8)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open an image file of a sensible size. Raise an ImageError that names the file for anything that goes wrong."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # LARGEST is the rule here
            warnings.simplefilter("ignore", UserWarning)
            with Image.open(path) as image:
                width, height = image.size
                if min(width, height) < SMALLEST or width * height > LARGEST:
                    limits = f"at least {SMALLEST} on each side, at most {LARGEST // 10**6} million in all"
                    raise ImageError(f"{path} is {width} x {height} pixels; a photo needs {limits}")
                yield image
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, struct.error, BOMB) as error:
        raise ImageError(
            f"{path} is not a whole image file ({error}); give a JPEG or PNG that a viewer opens"
        ) from error


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation: a key of UPRIGHT, or 1 (upright), also if the EXIF data cannot be read."""
    try:
        orientation = image.getexif().get(ORIENTATION)
    except Exception:  # cameras and programs write broken EXIF of every kind; viewers show the image all the same
        return 1
    return orientation if orientation in UPRIGHT else 1


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
