"""Pairs of a clear image and its occluded copy, as Rana's learner is taught with: the teacher sees the clear one.

The paper paints 45,000 copies beforehand and so do we: a copy is painted once, always the same for a seed. How large
occluders are, and which share of a batch stays clear, is not published.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from facenb.datasets.sets.augmentation import network_input
from facenb.datasets.sets.faces import FaceSet
from facenb.errors import ImageError, LandmarkError
from facenb.imaging.occlusion import KINDS, hidden_share, occlude

CLEAR = -1  # instead of a kind: nothing is painted
SIZES = (0.8, 1.0, 1.25)  # of occluders, 1 being natural: ours
TOGETHER = 64  # images painted at a time
TRIES = 20  # to place an occluder that leaves something of the face


@dataclass(frozen=True)
class Copies:
    """Occluded copies of faces."""

    row: Int[Tensor, " copies"]  # of the face
    kind: Int[Tensor, " copies"]  # in KINDS, or CLEAR
    size: Float[Tensor, " copies"]  # of the occluder
    image: UInt8[Tensor, "copies height width 3"]
    hidden: Float[Tensor, " copies"]  # share of the face (the hull of its landmarks) that is covered

    def __len__(self) -> int:
        return len(self.row)

    def inputs(self, rows: Int[Tensor, " batch"]) -> Float[Tensor, "batch 3 height width"]:
        """Return copies as a network takes them: RGB in [-1, 1], channels first."""
        return network_input(self.image[rows], None)


def join_faces(*sets: FaceSet) -> FaceSet:
    """Return faces of several sets as one in memory: image, landmarks and subject. Crops must have one size."""
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

    Copy k of face i depends on (seed, i, k) and the choices alone, whatever else is painted. A share `clear` of the
    copies stays as it is. An occluder that hides more than `most` of a face is placed anew; ImageError, naming the
    face, if it still does after 20 tries. `faces` need landmarks (pixels of the crop); LandmarkError names a face
    without any.
    """
    stored = faces.read(["image", "landmarks"])
    images, landmarks = stored["image"], stored["landmarks"].float()
    missing = (~landmarks.isfinite().flatten(1).all(1)).nonzero()[:, 0].tolist()
    if missing:
        raise LandmarkError(
            f"{len(missing)} of {len(faces)} images have no landmarks, the first is row {missing[0]}: no face was "
            "found there, so no occluder can be placed. Leave such images out, and count them."
        )
    draws = [np.random.Generator(np.random.PCG64([seed, i, k])) for i in range(len(faces)) for k in range(each)]
    numbers = [
        (draw.random() < clear, draw.integers(len(kinds)), draw.integers(len(sizes)), int(draw.integers(2**62)))
        for draw in draws
    ]
    row = torch.arange(len(faces)).repeat_interleave(each)
    image, hidden, groups = images[row], torch.zeros(len(row)), {}
    kind = torch.full((len(row),), CLEAR)
    size_of = torch.tensor([sizes[large] for _, _, large, _ in numbers], dtype=torch.float32)
    for copy, (stays, which, large, _) in enumerate(numbers):
        if not stays:
            kind[copy] = KINDS.index(kinds[which])
            groups.setdefault((kinds[which], float(sizes[large])), []).append(copy)
    for (name, size), copies in groups.items():
        for part in torch.tensor(copies).split(TOGETHER):
            seeds, rows = [numbers[copy][3] for copy in part.tolist()], row[part]
            image[part], hidden[part] = _paint(images[rows], landmarks[rows], name, seeds, size, most, rows)
    return Copies(row, kind, size_of, image, hidden)


def _paint(
    images: UInt8[Tensor, "faces height width 3"],
    landmarks: Float[Tensor, "faces 68 2"],
    kind: str,
    seeds: list[int],
    size: float,
    most: float,
    rows: Int[Tensor, " faces"],
) -> tuple[UInt8[Tensor, "faces height width 3"], Float[Tensor, " faces"]]:
    """Return the faces with an occluder each, and the share it hides. One that hides too much is placed anew."""
    painted, hidden, left = images.clone(), torch.zeros(len(images)), torch.arange(len(images))
    for attempt in range(TRIES):
        draws = [seeds[k] + attempt for k in left.tolist()]
        faces, mask = occlude(images[left] / 255, landmarks[left], kind, draws, size, most=1.0)
        painted[left], hidden[left] = (faces * 255).round().to(torch.uint8), hidden_share(mask, landmarks[left])
        left = left[hidden[left] > most]
        if not len(left):
            return painted, hidden
    raise ImageError(
        f"Face {int(rows[left[0]])}: in {TRIES} tries the {kind} hid {hidden[left[0]]:.0%} of the face, more than "
        f"{most:.0%}. Take smaller sizes than {size:g}, or raise `most`."
    )
