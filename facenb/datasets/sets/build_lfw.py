"""Labeled Faces in the Wild as a training set, and its pairs as crops: the people of the one are never in the other."""

import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from facenb.datasets.pictures.lfw import LFW, Pair, read_lfw
from facenb.datasets.sets.build_photos import Source, build_photos, crop_photos, fit_photos
from facenb.datasets.sets.build_set import TOGETHER
from facenb.datasets.sets.training_set import TrainingSet
from facenb.errors import RunError
from facenb.photos.images import read_image
from facenb.photos.landmarks import MESH, LandmarkTable, detect_all, five_points
from facenb.photos.photo import Fitter, ict_fitter

CACHE = "lfw"  # landmarks of LFW in the data folder, shared by all notebooks


def people_of_folds(pairs: Sequence[Pair], folds: Sequence[int]) -> set[str]:
    """Names of all people who occur in a pair of these folds."""
    return {photo.parent.name for pair in pairs if pair.fold in folds for photo in (pair.first, pair.second)}


def _landmarks(photos: list[Path], cache: str | Path, quiet: bool) -> LandmarkTable:
    return detect_all(photos, cache, quiet=quiet or not sys.stderr.isatty())


def build_lfw(
    folder: str | Path, at_least: int = 3, size: tuple[int, int] = (112, 96), exclude: Collection[str] = (),
    lfw: LFW | None = None, fitter: Fitter | None = None, cache: str | Path = CACHE, quiet: bool = False,
) -> TrainingSet:  # fmt: skip
    """LFW's people with `at_least` photos, without those of `exclude` (see people_of_folds), as a training set.

    To train on several choices of folds build the set of all people once, and leave the people of each choice out by
    `TrainingSet.split(without=...)`.
    Photos in which MediaPipe sees no face are left out, and people of whom fewer than two remain. A subject's number
    is its place in the card's `names`. Raises as build_photos; RunError where nobody is left.
    """
    lfw = lfw or read_lfw()
    people = {name: list(some) for name, some in lfw.with_at_least(at_least).items() if name not in exclude}
    if not people or at_least < 2:
        raise RunError(f"{len(people)} people of LFW may be used with at_least={at_least}; it must be 2 or more")
    assert not set(exclude) & set(people), "a person of the test is in the training"
    photos = [photo for some in people.values() for photo in some]
    known = dict(zip(photos, _landmarks(photos, cache, quiet).points, strict=True))
    source = Source(people, read_image, lambda keys, _: torch.stack([known[key] for key in keys]))
    card = {"kind": "lfw", "at_least": at_least, "excluded": sorted(exclude)}
    return build_photos(folder, source, card, size, fitter, quiet)


@dataclass(frozen=True)
class TestPairs:
    """Pairs of LFW as indices of crops. Where no face was found (`found` False) a crop is the photo's middle."""

    image: UInt8[Tensor, "photos height width 3"]
    photos: tuple[str, ...]  # file names
    first: Int[Tensor, " pairs"]
    second: Int[Tensor, " pairs"]
    same: Bool[Tensor, " pairs"]
    fold: Int[Tensor, " pairs"]
    # Of each photo's fit by itself, whitened; the mean of the others where no face was found.
    identity: Float[Tensor, "photos identity"]
    found: Bool[Tensor, " photos"]

    __test__ = False  # no test of pytest's

    @property
    def missing(self) -> int:
        """Photos without a face."""
        return int((~self.found).sum())

    def inputs(self, rows: Int[Tensor, " batch"], mirror: bool = False) -> Float[Tensor, "batch 3 height width"]:
        """Crops as a network takes them: channels first, in [-1, 1]; `mirror` turns them left to right."""
        image = self.image[rows].permute(0, 3, 1, 2).float().mul_(2 / 255).sub_(1)
        return image.flip(3) if mirror else image


def lfw_test_crops(
    folds: Sequence[int], size: tuple[int, int] = (112, 96), lfw: LFW | None = None, fitter: Fitter | None = None,
    cache: str | Path = CACHE, quiet: bool = False,
) -> TestPairs:  # fmt: skip
    """Crops of every photo that a pair of these folds names, and the pairs. ValueError for a fold that is not there."""
    lfw, fitter = lfw or read_lfw(), fitter or ict_fitter()
    pairs = [pair for pair in lfw.pairs() if pair.fold in folds]
    absent = set(folds) - {pair.fold for pair in pairs}
    if absent or not pairs:
        raise ValueError(f"folds {sorted(absent) or list(folds)} are not in {lfw.pairs_file}, whose folds count from 0")
    paths = sorted({photo for pair in pairs for photo in (pair.first, pair.second)})
    place = {path: index for index, path in enumerate(paths)}
    table = _landmarks(paths, cache, quiet)
    five = torch.stack([five_points(points) for points in table.points])
    image = torch.cat(
        [
            crop_photos([read_image(path) for path in paths[k : k + TOGETHER]], five[k : k + TOGETHER], size)
            for k in range(0, len(paths), TOGETHER)
        ]
    )
    identity = torch.zeros(len(paths), len(fitter.model.identity_basis))
    if table.found.any():
        identity[table.found] = fit_photos(fitter, table.points[table.found][:, :MESH], None).identity
        identity[~table.found] = identity[table.found].mean(0)
    return TestPairs(
        image, tuple(path.name for path in paths), torch.tensor([place[pair.first] for pair in pairs]),
        torch.tensor([place[pair.second] for pair in pairs]), torch.tensor([pair.same for pair in pairs]),
        torch.tensor([pair.fold for pair in pairs]), identity, table.found,
    )  # fmt: skip
