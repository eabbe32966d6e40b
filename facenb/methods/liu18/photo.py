"""The face that the reference network sees in a photo."""

import functools
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from facenb.datasets.sets.augmentation import network_input
from facenb.fitting import fit
from facenb.networks.joint import JointNetwork
from facenb.photos.crops import crop_photos, five_of_68
from facenb.photos.landmarks import to_68
from facenb.photos.photo import Fitter, PhotoFace, find_face, textured
from facenb.reference import read_part
from facenb.synthface.model import course_model

NAME = "Liu18 after phase III, trained on SynthFace (facenb/reference/liu18)"
RIGID = {"identity_prior": 1e8, "expression_prior": 1e8}  # the shape stays as it is


def synthetic_network() -> JointNetwork:
    """Return the reference network after phase III. It was trained on SynthFace's people only.

    Raise ModelFileError if its file is damaged.
    """
    return read_part("liu18").network("phase_III", JointNetwork, course_model())


@functools.cache
def synthface_fitter() -> Fitter:
    """Return SynthFace's model with the surface and the texels that are computed once for it."""
    return Fitter(course_model())


@torch.no_grad()
def predict_face(
    image: Float[Tensor, "height width 3"],
    landmarks: Float[Tensor, "68 2"],
    original: tuple[int, int] | None = None,
    faces: int = 1,
) -> PhotoFace:
    """Return the 3D face that the reference network after phase III predicts from an image, RGB in [0, 1].

    The network sees a small crop around the landmarks (pixels) and returns a shape without a pose. The camera is then
    fitted to the landmarks, without the jaw line. The texture has the image's resolution.
    """
    network, fitter = synthetic_network(), synthface_fitter()
    crop = crop_photos([image], five_of_68(landmarks[None]), network.encoder.size)
    codes = network.encode(network_input(crop, None))
    shape, inner = network.shape(codes).whole[0], torch.ones(1, 68)
    inner[:, :17] = 0
    placed = fit(replace(fitter.model, mean=shape), landmarks[None], weights=inner, contour="fixed", **RIGID)
    placed = replace(placed, identity=codes.identity, expression=codes.residual)
    return replace(textured(image, original, landmarks, faces, placed, fitter, shape), network=NAME)


def predict_photo(path: str | Path, which: str = "largest") -> PhotoFace:
    """Return `predict_face` of a photo file. `which`: largest or central, if the photo shows several faces.

    Raise ImageError as `find_face`.
    """
    image, original, points, faces = find_face(path, which)
    return predict_face(image, to_68(points), original, faces)
