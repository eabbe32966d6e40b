"""Photographs as numbers: any file a person may have, as RGB float32 in [0, 1], upright; and the five-point crop."""

import warnings
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional

from facenb.errors import ImageError
from facenb.morphable.alignment import similarity

SMALLEST = 32  # pixels on the shorter side: below, no face in it has a usable shape
LARGEST = 300_000_000  # pixels a file may claim; more is taken for a decompression bomb
# Five points of SphereFace's 112x96 (height, width) crop: image-left eye, right eye, nose tip, mouth corners (x, y),
# counted with pixel centres at whole numbers as its authors' MATLAB code resamples.
SPHEREFACE = ((30.2946, 51.6963), (65.5318, 51.5014), (48.0252, 71.7366), (33.5493, 92.3655), (62.7299, 92.2041))


def read_image(path: str | Path, limit: int | None = None) -> Float[Tensor, "height width 3"]:
    """An image file as RGB in [0, 1], turned upright by its EXIF tag.

    Greyscale and palettes become RGB, 16 bits are kept as fractions, CMYK is converted without a colour profile,
    transparent pixels are laid on white, of an animation the first picture is taken. `limit`: a longer side of more
    pixels is scaled down to it. Raises ImageError, naming the file, for one that is missing, no image, truncated,
    smaller than 32 pixels on a side or larger than 300 megapixels.
    """
    path = Path(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # LARGEST is the rule here
            warnings.simplefilter("ignore", UserWarning)
            with Image.open(path) as image:
                _check_size(image, path)
                if limit is not None and max(image.size) > limit:
                    image.draft("RGB", (limit, limit))  # a JPEG decodes faster at a half, quarter or eighth
                return torch.from_numpy(_rgb(ImageOps.exif_transpose(image), limit))
    except FileNotFoundError as error:
        raise ImageError(f"there is no image file {path}") from error
    except IsADirectoryError as error:
        raise ImageError(f"{path} is a folder; give an image file") from error
    except PermissionError as error:
        raise ImageError(f"{path} may not be read by this user") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{path} is no image of a kind known here; save it as JPEG or PNG") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path} claims too many pixels ({error}); scale it down first") from error
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError) as error:
        raise ImageError(f"{path} is a damaged or truncated image ({error}); get a whole copy") from error


def _check_size(image: Image.Image, path: Path) -> None:
    width, height = image.size
    if min(width, height) < SMALLEST:
        raise ImageError(f"{path} is {width} x {height} pixels; a face needs at least {SMALLEST} on each side")
    if width * height > LARGEST:
        raise ImageError(f"{path} is {width} x {height} pixels, more than {LARGEST // 10**6} million; scale it down")


def _rgb(image: Image.Image, limit: int | None) -> np.ndarray:
    """(H, W, 3) float32 of a loaded image."""
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


def five_point_crop(
    image: Float[Tensor, "height width 3"],
    points: Float[Tensor, "5 2"],
    size: tuple[int, int] = (112, 96),
    template: tuple[tuple[float, float], ...] = SPHEREFACE,
) -> Float[Tensor, "rows columns 3"]:
    """The face brought onto SphereFace's template by a similarity; what lies outside the photo is black.

    `points` in pixels: eye centres (image left, right), nose tip, mouth corners (left, right). `size` is
    (height, width); another one than 112x96 scales the template. Shrinking averages over the shrunk pixel's area by
    first reducing the photo, so that no detail is skipped.
    """
    height, width = size
    aim = (torch.tensor(template) + 0.5) * torch.tensor([width / 96, height / 112])
    scale, rotation, shift = (part[0] for part in similarity(points[None], aim[None]))
    planes = image.permute(2, 0, 1)[None]
    reduce = max(1, int(1 / float(scale)))
    if reduce > 1:
        planes = functional.avg_pool2d(planes, reduce, ceil_mode=True, count_include_pad=False)
    v, u = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    onto = (torch.stack([u, v], -1).double() - shift) @ rotation / scale / reduce  # inverse similarity, pixels
    extent = torch.tensor([planes.shape[3], planes.shape[2]], dtype=torch.float64)
    grid = (2 * onto / extent - 1).to(image.dtype)[None]
    return functional.grid_sample(planes, grid, align_corners=False)[0].permute(1, 2, 0).contiguous()
