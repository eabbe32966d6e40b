"""Crops of faces on SphereFace's five-point template: the input images of the networks."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from facenb.morphable.alignment import Similarity, similarity
from facenb.photos.images import as_bytes

# Five points of SphereFace's 112x96 (height, width) crop: image-left eye, right eye, nose tip, mouth corners (x, y).
# Pixel centres lie at whole numbers, as in the MATLAB code of its authors.
SPHEREFACE = ((30.2946, 51.6963), (65.5318, 51.5014), (48.0252, 71.7366), (33.5493, 92.3655), (62.7299, 92.2041))
# Height of the crop of a photo without landmarks, as a fraction of the photo's shorter side. It is the median over the
# five-point crops of LFW's photos (10 % are below 0.48, and 10 % above 0.56).
MIDDLE = 0.51


def template(size: tuple[int, int]) -> Float[Tensor, "5 2"]:
    """Return SphereFace's five points (pixels) in a crop of (height, width): scaled by height / 112, centred in width.

    A crop with another aspect ratio than 112x96 shows more or less at its sides, but keeps the face's proportions. At
    112x112, the points are those of the aligned images that InsightFace publishes.
    """
    height, width = size
    scale = height / 112
    return (torch.tensor(SPHEREFACE) + 0.5) * scale + torch.tensor([(width - 96 * scale) / 2, 0.0])


def five_of_68(landmarks: Float[Tensor, "batch 68 2"]) -> Float[Tensor, "batch 5 2"]:
    """Return eye centres, nose tip and mouth corners, image left first, of the 68 landmarks of Multi-PIE / iBUG."""
    eyes = [landmarks[:, 36:42].mean(1), landmarks[:, 42:48].mean(1)]
    return torch.stack([*eyes, landmarks[:, 30], landmarks[:, 48], landmarks[:, 54]], 1)


def to_template(points: Float[Tensor, "batch 5 2"], size: tuple[int, int]) -> Similarity:
    """Return the similarity from image pixels to crop pixels that aligns five points with `template(size)`.

    Raise LandmarkError with the row if points are not finite or all equal.
    """
    return similarity(points, template(size).to(points.device)[None])


def crop_faces(
    images: Float[Tensor, "batch height width 3"], points: Float[Tensor, "batch 5 2"], size: tuple[int, int] = (112, 96)
) -> UInt8[Tensor, "batch rows columns 3"]:
    """Return the crop of each face, aligned by five points (pixels), as bytes. Raise LandmarkError as `to_template`."""
    return as_bytes(resample(images, to_template(points, size), size).permute(0, 2, 3, 1)).contiguous()


def crop_photos(
    images: Sequence[Float[Tensor, "_height _width 3"]], points: Float[Tensor, "photos 5 2"], size: tuple[int, int]
) -> UInt8[Tensor, "photos rows columns 3"]:
    """Return a crop of each photo, as `crop_faces` does. The photos may differ in size.

    If points are NaN, the crop is the centre of the photo. Its height is the fraction MIDDLE of the shorter side.
    """
    crops = []
    for image, five in zip(images, points, strict=True):
        if five.isnan().any():
            extent = torch.tensor([image.shape[1], image.shape[0]])
            five = (template(size) - torch.tensor(size[::-1]) / 2) * (MIDDLE * extent.min() / size[0]) + extent / 2
        crops.append(crop_faces(image[None], five[None], size))
    return torch.cat(crops)


def resample(
    images: Float[Tensor, "batch height width 3"], onto: Similarity, size: tuple[int, int]
) -> Float[Tensor, "batch 3 rows columns"]:
    """Return a crop of each image; `onto` maps the image's pixels to those of the crop.

    Images and crops are RGB in [0, 1]; the result is differentiable in the images. Outside an image, the edge pixels
    repeat. If an image shrinks to half its size or less, it is averaged first, to avoid aliasing.
    """
    height, width = size
    reduce = (1 / onto.scale).floor().clamp(min=1, max=min(images.shape[1:3])).long()
    v, u = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    centres = torch.stack([u, v], -1).view(1, -1, 2).to(onto.shift)  # (1, H W, 2)
    source = ((centres - onto.shift[:, None]) @ onto.rotation) / onto.scale[:, None, None]  # inverse, image pixels
    crops = images.new_empty((len(images), 3, height, width))
    for factor in reduce.unique().tolist():
        rows = reduce == factor
        planes = images[rows].permute(0, 3, 1, 2)
        if factor > 1:
            planes = functional.avg_pool2d(planes, factor, ceil_mode=True, count_include_pad=False)
        extent = factor * torch.tensor([planes.shape[3], planes.shape[2]]).to(source)
        grid = (2 * source[rows] / extent - 1).to(images.dtype).view(-1, height, width, 2)
        crops[rows] = functional.grid_sample(planes, grid, padding_mode="border", align_corners=False)
    return crops
