"""Pairs of a clear picture and its occluded copy, as Rana's learner is taught with: the teacher sees the first of them.

The paper paints 45,000 copies beforehand and so do we: a copy is painted once, always the same for a seed. How large
occluders are, and which share of a batch stays clear, is not published.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from facenb.datasets.sets.augmentation import network_input
from facenb.errors import ImageError, LandmarkError
from facenb.imaging.occlusion import KINDS, check_faces, hidden_share, occlude

CLEAR = -1  # instead of a kind: nothing is painted
SIZES = (0.8, 1.0, 1.25)  # of occluders, 1 being natural: ours
TOGETHER = 64  # pictures painted at a time
SMALLEST = 4  # pixels across: landmarks within less are shares of the picture, and no face
LINE = 1e-4  # landmarks no wider than this share of their length lie on a line
TRIES = 20  # to place an occluder that leaves something of the face


@dataclass(frozen=True)
class Faces:
    """Crops with the landmarks that occluders are placed by.

    Raises LandmarkError naming rows in which there is no face and for what are not the 68, ValueError for pictures that
    are not bytes or not RGB, and for numbers of each that differ.
    """

    image: UInt8[Tensor, "faces height width 3"]
    landmarks: Float[Tensor, "faces 68 2"]  # pixels of the crop
    subject: Int[Tensor, " faces"]

    def __post_init__(self):
        pictures, landmarks, subjects = len(self.image), len(self.landmarks), len(self.subject)
        if not pictures == landmarks == subjects:
            raise ValueError(
                f"{pictures} pictures, {landmarks} sets of landmarks and {subjects} subjects: give one of each a face"
            )
        check_faces(self.image, self.landmarks)
        if self.image.dtype != torch.uint8:
            raise ValueError(
                f"pictures of {self.image.dtype} must be bytes: (255 * x).round().to(torch.uint8) for [0, 1]"
            )
        missing = (~self.landmarks.isfinite().flatten(1).all(1)).nonzero()[:, 0].tolist()
        if missing:
            raise LandmarkError(
                f"{len(missing)} of {len(self)} pictures have no landmarks, the first is row {missing[0]}: no face was "
                "found there, so no occluder can be placed; leave such pictures out, and count them"
            )

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, rows: Int[Tensor, " rows"] | Bool[Tensor, " faces"] | slice) -> "Faces":
        return Faces(self.image[rows], self.landmarks[rows], self.subject[rows])

    def __add__(self, other: "Faces") -> "Faces":
        """These and the other ones. ValueError for crops of another size."""
        if self.image.shape[1:] != other.image.shape[1:]:
            sizes = [tuple(one.image.shape[1:3]) for one in (self, other)]
            raise ValueError(f"crops of {sizes[0]} and of {sizes[1]} pixels do not go together; cut them to one size")
        pairs = ((getattr(self, name), getattr(other, name)) for name in ("image", "landmarks", "subject"))
        return Faces(*(torch.cat(pair) for pair in pairs))

    def inputs(self, rows: Int[Tensor, " batch"]) -> Float[Tensor, "batch 3 height width"]:
        """The clear crops as a network takes them: RGB in [-1, 1], channels first."""
        return network_input(self.image[rows], None)


@dataclass(frozen=True)
class Copies:
    """Occluded copies of some faces; implements the protocol of `facenb.training`."""

    faces: Faces
    row: Int[Tensor, " copies"]  # of the face
    kind: Int[Tensor, " copies"]  # in KINDS, or CLEAR
    size: Float[Tensor, " copies"]  # of the occluder
    image: UInt8[Tensor, "copies height width 3"]
    hidden: Float[Tensor, " copies"]  # share of the face (the hull of its landmarks) that is covered

    def __len__(self) -> int:
        return len(self.row)

    def of_kind(self, kind: str) -> Bool[Tensor, " copies"]:
        """Which copies have this occluder. Raises ValueError for a kind that there is not."""
        if kind not in KINDS:
            raise ValueError(f"occluder {kind!r} is unknown; there are {', '.join(KINDS)}")
        return self.kind == KINDS.index(kind)

    def inputs(self, rows: Int[Tensor, " batch"]) -> Float[Tensor, "batch 3 height width"]:
        """The copies as a network takes them: RGB in [-1, 1], channels first."""
        return network_input(self.image[rows], None)

    def load(self, rows: Int[Tensor, " batch"], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """A batch: `occluded` and `clear` (B, 3, H, W) in [-1, 1], and `row`, the faces. Nothing is random here."""
        return {"occluded": self.inputs(rows), "clear": self.faces.inputs(self.row[rows]), "row": self.row[rows]}


def paint_copies(
    faces: Faces, kinds: Sequence[str], each: int = 1, seed: int = 0, sizes: Sequence[float] = SIZES,
    clear: float | int = 0.0, most: float = 0.9,
) -> Copies:  # fmt: skip
    """`each` occluded copies of every face, by occluders of these kinds and sizes, drawn alike for a copy and a seed.

    Copy k of face i depends on (seed, i, k) and the choices alone, whatever else is painted. A share `clear` of the
    copies is left as it was. An occluder that hides more than `most` of a face is placed anew; ImageError, naming the
    face, where it still does after 20 tries. Raises ValueError for unknown kinds, none of kinds, sizes or copies, and a
    size, `clear` or `most` (above 0, 1 at most) that cannot be; LandmarkError for landmarks on one line, or not in the
    crops' own pixels.
    """
    unknown = sorted(set(kinds) - set(KINDS))
    sized = bool(sizes) and all(size > 0 for size in sizes)
    if unknown or not kinds or not sized or each < 1 or not 0 <= clear <= 1 or not 0 < most <= 1:
        raise ValueError(
            f"cannot paint {each} copies a face with kinds {list(kinds)}, sizes {list(sizes)}, {clear} left clear and "
            f"{most} hidden at most; there are {', '.join(KINDS)}, one or more of each is needed, and shares up to 1"
        )
    _check_spread(faces.landmarks)
    _check_place(faces)
    row = torch.arange(len(faces)).repeat_interleave(each)
    draws = [np.random.Generator(np.random.PCG64([seed, i, k])) for i in range(len(faces)) for k in range(each)]
    numbers = [
        (draw.random() < clear, draw.integers(len(kinds)), draw.integers(len(sizes)), draw.integers(2**62))
        for draw in draws
    ]
    kind = torch.tensor([CLEAR if left else KINDS.index(kinds[which]) for left, which, _, _ in numbers]).long()
    size = torch.tensor([sizes[which] for _, _, which, _ in numbers], dtype=torch.float32)
    seeds = torch.tensor([int(start) for *_, start in numbers], dtype=torch.int64)
    image, hidden = faces.image[row], torch.zeros(len(row))
    for name in dict.fromkeys(kinds):
        for large in dict.fromkeys(sizes):
            group = ((kind == KINDS.index(name)) & (size == torch.tensor(large))).nonzero()[:, 0]
            for some in group.split(TOGETHER):
                given = seeds[some].tolist(), float(large), float(most), row[some].tolist()
                image[some], hidden[some] = _paint(faces[row[some]], name, *given)
    return Copies(faces, row, kind, size, image, hidden)


def _check_spread(landmarks: Tensor) -> None:
    """LandmarkError where they enclose nothing of which a share could be hidden."""
    length, width = torch.linalg.svdvals((landmarks - landmarks.mean(1, keepdim=True)).double()).unbind(1)
    flat = (width <= LINE * length).nonzero()[:, 0].tolist()
    if flat:
        raise LandmarkError(
            f"face {flat[0]}: its landmarks are all on one line, so no occluder can be placed; leave such pictures out "
            f"({len(flat)} of {len(landmarks)})"
        )


def _check_place(faces: Faces) -> None:
    """LandmarkError where landmarks are not in the crop's own pixels: the occluder would be painted elsewhere."""
    extent = faces.landmarks.new_tensor([faces.image.shape[2], faces.image.shape[1]])
    within = ((faces.landmarks >= 0) & (faces.landmarks <= extent)).all(-1).float().mean(1)
    across = (faces.landmarks.amax(1) - faces.landmarks.amin(1)).amax(1)
    bad = ((within < 0.5) | (across < SMALLEST)).nonzero()[:, 0].tolist()
    if bad:
        raise LandmarkError(
            f"face {bad[0]}: {within[bad[0]]:.0%} of its landmarks lie in its picture of {int(extent[0])} x "
            f"{int(extent[1])} pixels, and all within {float(across[bad[0]]):.3g} pixels; landmarks must be in the "
            f"crop's own pixels, not in a photo's or as shares ({len(bad)} of {len(faces)} faces: {bad[:9]})"
        )


def _paint(
    faces: Faces, kind: str, seeds: list[int], size: float, most: float, rows: list[int]
) -> tuple[UInt8[Tensor, "faces height width 3"], Float[Tensor, " faces"]]:
    """The faces with an occluder each, and how much of them it hides; a face at a time where one is hidden too much."""
    alone, error, points = len(faces) == 1, None, faces.landmarks.float()
    for more in range(TRIES if alone else 1):
        given = [seed + more for seed in seeds]
        try:
            painted, mask = occlude(faces.image / 255, points, kind, given, size, most=most)
        except ImageError as found:
            error = found
        else:
            return (painted * 255).round().to(torch.uint8), hidden_share(mask, points)
    if alone:
        raise ImageError(f"face {rows[0]}: {TRIES} times, {error}") from error
    parts = [slice(k, k + 1) for k in range(len(faces))]
    made = [_paint(faces[part], kind, seeds[part], size, most, rows[part]) for part in parts]
    return torch.cat([image for image, _ in made]), torch.cat([share for _, share in made])
