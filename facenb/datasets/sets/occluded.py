"""Pairs of a clear image and its occluded copy, to train Rana's learner; the teacher sees the clear image.

The paper paints 45,000 copies before the training. We also paint each copy once, and a seed always gives the same
copies. The size of occluders and the fraction of a batch that stays clear are not published.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from facenb.datasets.sets.augmentation import network_input
from facenb.datasets.sets.faces import FaceSet
from facenb.errors import ImageError, LandmarkError
from facenb.imaging.occlusion import KINDS, hidden_share, occlude
from facenb.photos.images import as_bytes

CLEAR = -1  # instead of a kind: nothing is painted
SIZES = (0.8, 1.0, 1.25)  # sizes of occluders, where 1 is natural; our choice
TOGETHER = 64  # images painted at a time
TRIES = 20  # attempts to place an occluder that does not hide too much of the face


@dataclass(frozen=True)
class Copies:
    """Occluded copies of faces."""

    row: Int[Tensor, " copies"]  # of the face
    kind: Int[Tensor, " copies"]  # in KINDS, or CLEAR
    size: Float[Tensor, " copies"]  # of the occluder
    image: UInt8[Tensor, "copies height width 3"]
    hidden: Float[Tensor, " copies"]  # fraction of the face (the hull of its landmarks) that is covered

    def __len__(self) -> int:
        return len(self.row)

    def inputs(self, rows: Int[Tensor, " batch"]) -> Float[Tensor, "batch 3 height width"]:
        """Return copies as network inputs: RGB in [-1, 1], channels first."""
        return network_input(self.image[rows], None)


def join_faces(*sets: FaceSet) -> FaceSet:
    """Return the faces of several sets as one set in memory: image, landmarks and subject. Crops need one size."""
    stored = [faces.read(["image", "landmarks", "subject"]) for faces in sets]
    return FaceSet.in_memory(**{name: torch.cat([columns[name] for columns in stored]) for name in stored[0]})


def paint_copies(
    faces: FaceSet,
    kinds: Sequence[str],
    each: int = 1,
    seed: int = 0,
    sizes: Sequence[float] = SIZES,
    clear: float | int = 0.0,
    most: float = 0.9,
) -> Copies:
    """Return `each` occluded copies of every face, by occluders of these kinds and sizes, all equally likely.

    Copy k of face i depends only on (seed, i, k) and the other arguments, not on other copies. A fraction `clear` of
    the copies is not changed. An occluder that hides more than `most` of a face is placed again. Raises ImageError
    naming the face if this fails 20 times. `faces` need landmarks (pixels of the crop). Raises LandmarkError naming a
    face without landmarks.
    """
    stored = faces.read(["image", "landmarks"])
    images, landmarks = stored["image"], stored["landmarks"].float()
    missing = (~landmarks.isfinite().flatten(1).all(1)).nonzero()[:, 0].tolist()
    if missing:
        problem = f"{len(missing)} of {len(faces)} images have no landmarks, the first is row {missing[0]}"
        raise LandmarkError(f"{problem}. Leave such images out, and count them.")
    draws = [np.random.Generator(np.random.PCG64([seed, i, k])) for i in range(len(faces)) for k in range(each)]
    stays = torch.tensor([draw.random() < clear for draw in draws])
    which, large = (torch.tensor([draw.integers(len(given)) for draw in draws]) for given in (kinds, sizes))
    seeds = [int(draw.integers(2**62)) for draw in draws]
    row = torch.arange(len(faces)).repeat_interleave(each)
    image, hidden = images[row], torch.zeros(len(row))
    for (number, name), (index, size) in product(enumerate(kinds), enumerate(sizes)):
        copies = (~stays & (which == number) & (large == index)).nonzero()[:, 0]
        for left in copies.split(TOGETHER):
            for attempt in range(TRIES):  # an occluder that hides too much is placed anew
                if not len(left):
                    break
                points, numbers = landmarks[row[left]], [seeds[copy] + attempt for copy in left.tolist()]
                painted, mask = occlude(images[row[left]] / 255, points, name, numbers, float(size), most=1.0)
                image[left], hidden[left] = as_bytes(painted), hidden_share(mask, points)
                left = left[hidden[left] > most]
            if len(left):
                raise ImageError(
                    f"Face {int(row[left[0]])}: in {TRIES} tries the {name} hid {hidden[left[0]]:.0%} of the face, "
                    f"more than {most:.0%}. Take smaller sizes than {size:g}, or raise `most`."
                )
    kind = torch.tensor([KINDS.index(name) for name in kinds])[which].where(~stays, CLEAR)
    return Copies(row, kind, torch.tensor(sizes, dtype=torch.float32)[large], image, hidden)
