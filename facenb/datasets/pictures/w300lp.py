"""300W-LP in its official layout (Zhu et al. 2016): photos of four sets, each turned to many yaws by face profiling.

`300W_LP/<SET>/<SET>_<photo>_<turn>.jpg` with a `.mat` of the same name, SET one of AFW, HELEN, IBUG and LFPW, turn 0
the photo itself; `<SET>_Flip/` holds all of them mirrored, under the same names. All turns of a photo show one person
in one expression: they are one identity here (the source image). Two photos of one person are two identities, for
nobody says who is on them. The labels are those of AFLW2000-3D: `pt2d` (2, 68), `Pose_Para`, `Shape_Para`, `Exp_Para`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.io import loadmat
from scipy.io.matlab import MatReadError
from torch import Tensor

from facenb.assets import asset
from facenb.datasets.pictures.aflw2000 import TO_OURS
from facenb.datasets.sets.build_photos import crop_photos
from facenb.datasets.sets.build_set import TOGETHER, finished, write_set
from facenb.datasets.sets.training_set import TrainingSet, describe
from facenb.errors import AssetError
from facenb.fitting import fit
from facenb.morphable.model import MorphableModel
from facenb.morphable.posed import move_camera, pose_of
from facenb.photos.crops import five_of_68, to_template
from facenb.photos.images import read_image

SETS = ("AFW", "HELEN", "IBUG", "LFPW")
AGAIN = "get 300W-LP again (`python -m data_download where 300w-lp` tells how)"


@dataclass(frozen=True)
class Sample:
    """One picture with its labels."""

    photo: Path
    landmarks: Float[Tensor, "68 2"]  # pixels, the far side's as well: points of a fitted face
    pitch: float  # radians, as its authors count
    yaw: float
    roll: float
    shape: Float[Tensor, " 199"]  # BFM-2009 coefficients, not whitened
    expression: Float[Tensor, " 29"]

    def image(self) -> Float[Tensor, "height width 3"]:
        return read_image(self.photo)


@dataclass(frozen=True)
class W300LP:
    """The pictures set by set in the order of their names; iterate for the samples."""

    photos: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.photos)

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """The photo that each picture was made from, as `HELEN/HELEN_2902154_1`; mirrored ones apart."""
        return tuple(f"{photo.parent.name}/{photo.stem.rpartition('_')[0]}" for photo in self.photos)

    @cached_property
    def people(self) -> dict[str, list[Path]]:
        """Source photo to its pictures, as the builders of sets take people."""
        found: dict[str, list[Path]] = {}
        for photo, source in zip(self.photos, self.sources, strict=True):
            found.setdefault(source, []).append(photo)
        return found

    @cached_property
    def identity(self) -> Int[Tensor, " pictures"]:
        """Number of each picture's source, 0 to sources - 1."""
        number = {source: k for k, source in enumerate(self.people)}
        return torch.tensor([number[source] for source in self.sources])

    def __getitem__(self, index: int) -> Sample:
        photo = self.photos[index]
        path = photo.with_suffix(".mat")
        if not path.is_file():
            raise AssetError(f"there is no {path} beside its picture; {AGAIN}")
        try:
            values = loadmat(path)
            points = np.asarray(values["pt2d"], dtype=np.float32)
            pose = np.asarray(values["Pose_Para"], dtype=np.float64).ravel()
            shape, expression = (np.asarray(values[key], np.float32).ravel() for key in ("Shape_Para", "Exp_Para"))
        except (KeyError, MatReadError, ValueError, TypeError, OSError, IndexError) as error:
            raise AssetError(f"{path} is no label file of 300W-LP ({error}); {AGAIN}") from error
        told = {"pt2d": points.shape, "Pose_Para": pose.shape, "Shape_Para": shape.shape, "Exp_Para": expression.shape}
        wanted = {"pt2d": (2, 68), "Pose_Para": (7,), "Shape_Para": (199,), "Exp_Para": (29,)}
        if told != wanted or not all(np.isfinite(x).all() for x in (points, pose, shape, expression)):
            raise AssetError(f"{path} holds {told} and not {wanted}, or numbers that are not finite; {AGAIN}")
        return Sample(photo, torch.from_numpy(points.T.copy()) + TO_OURS, *pose[:3].tolist(),
                      torch.from_numpy(shape), torch.from_numpy(expression))  # fmt: skip

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))


def read_w300lp(folder: str | Path | None = None, sets: Sequence[str] = SETS, flipped: bool = False) -> W300LP:
    """300W-LP from the folder with AFW/, HELEN/, IBUG/ and LFPW/, or the one above it; None: the asset `300w-lp`.

    `flipped` adds the mirrored pictures. Raises AssetError naming the set of which nothing is there, ValueError for a
    set that does not belong to 300W-LP.
    """
    unknown = [name for name in sets if name not in SETS]
    if unknown or not sets:
        raise ValueError(f"{unknown or 'no set'} is not of 300W-LP; choose among {', '.join(SETS)}")
    root = Path(folder) if folder is not None else asset("300w-lp")
    root = root / "300W_LP" if (root / "300W_LP").is_dir() else root
    photos: list[Path] = []
    for name in sets:
        for part in (name, f"{name}_Flip") if flipped else (name,):
            some = sorted((root / part).glob(f"{name}_*.jpg"), key=_place)
            if not some:
                raise AssetError(f"{root / part} holds no {name}_*.jpg; {AGAIN}")
            photos += some
    return W300LP(tuple(photos))


def _place(photo: Path) -> tuple[str, int]:
    """Source and turn: 10 comes after 9. AssetError for a name without a turn."""
    source, _, turn = photo.stem.rpartition("_")
    if not turn.isdigit():
        raise AssetError(f"{photo.name} is not named as 300W-LP names pictures (<set>_<photo>_<turn>.jpg); {AGAIN}")
    return source, int(turn)


def build_w300lp(
    folder: str | Path, model: MorphableModel, data: W300LP, size: tuple[int, int] = (112, 96), quiet: bool = False
) -> TrainingSet:
    """The pictures as a training set: crops, and the fit of `model` to the labels of all turns of a photo.

    The jaw line does not slide: the labels are points of a face, hidden ones as well. Coefficients are `model`'s own,
    not those of the label files, which are BFM-2009's. A subject's number is its place in the card's `names`.
    Raises RunError where the folder holds another set.
    """
    folder, sources = Path(folder), data.people
    card = {"kind": "300w-lp", "model": describe(model), "size": list(size), "names": list(sources),
            "pictures_given": len(data)}  # fmt: skip
    ready = finished(folder, card, model)
    if ready is not None:
        return ready
    place = {photo: index for index, photo in enumerate(data.photos)}
    batches, held = [[]], 0
    for number, photos in enumerate(sources.values()):
        if held and held + len(photos) > TOGETHER:
            batches, held = [*batches, []], 0
        batches[-1].append(number)
        held += len(photos)
    names = list(sources)

    def rows_of(people: list[int]) -> dict[str, Tensor]:
        samples = [data[place[photo]] for number in people for photo in sources[names[number]]]
        subject = torch.tensor([number for number in people for _ in sources[names[number]]])
        seen = torch.stack([sample.landmarks for sample in samples])
        found = fit(model, seen, subject, slide_contour=False)
        five = five_of_68(seen)
        crops = crop_photos([sample.image() for sample in samples], five, size)
        return {"image": crops, "subject": subject, "identity": found.identity[found.subject],
                "expression": found.expression,
                "pose": pose_of(move_camera(found.camera, to_template(five, size)))}  # fmt: skip

    return write_set(folder, card, len(batches), lambda first: map(rows_of, batches[first:]), quiet)
