"""The face that the reference network sees in a photo."""

from dataclasses import replace
from pathlib import Path

import torch

from facenb.datasets.sets.augmentation import network_input
from facenb.fitting import fit
from facenb.networks.joint import JointNetwork
from facenb.photos.crops import crop_photos
from facenb.photos.landmarks import five_points, to_68
from facenb.photos.photo import Fitter, PhotoFace, find_face, textured
from facenb.reference import read_part
from facenb.synthface.model import course_model

RIGID = {"identity_prior": 1e8, "expression_prior": 1e8}  # the shape stays as it is


def synthetic_network(phase: str = "III") -> JointNetwork:
    """Return the reference network after phase I or III. It was trained on SynthFace's people only.

    Raise ModelFileError if its file is damaged.
    """
    return read_part("liu18").network(f"phase_{phase}", JointNetwork, course_model())


@torch.no_grad()
def predict_photo(path: str | Path, which: str = "largest") -> PhotoFace:
    """Return the 3D face that the reference network after phase III predicts from a photo.

    The network sees a small crop and returns a shape without a pose. The camera is fitted to MediaPipe's landmarks,
    without the jaw line, and only the texture has the photo's resolution. `which`: largest or central, if the photo
    shows several faces. Raise ImageError as `find_face`.
    """
    image, original, points, faces = find_face(path, which)
    network, fitter, marks = synthetic_network(), Fitter(course_model()), to_68(points)
    codes = network.encode(network_input(crop_photos([image], five_points(points)[None], network.encoder.size), None))
    shape = network.shape(codes).whole[0]
    inner = torch.ones(1, 68)
    inner[:, :17] = 0
    placed = fit(replace(fitter.model, mean=shape), marks[None], weights=inner, contour="fixed", **RIGID)
    placed = replace(placed, identity=codes.identity, expression=codes.residual)
    face = textured(image, original, marks, faces, placed, fitter, shape)
    return replace(face, network="Liu18 after phase III, trained on SynthFace (facenb/reference/liu18)")
