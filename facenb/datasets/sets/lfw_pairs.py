"""Pairs of photographs as crops, to test recognition on."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from facenb.datasets.pictures.lfw import LFW
from facenb.datasets.sets.augmentation import network_input
from facenb.photos.photo import Fitter
from facenb.photos.store import prepare_photos


@dataclass(frozen=True)
class TestPairs:
    """Pairs as rows of crops. Without a face (`found` False) a crop is the middle of the photo."""

    image: UInt8[Tensor, "photos height width 3"]
    photos: tuple[str, ...]  # file names
    first: Int[Tensor, " pairs"]
    second: Int[Tensor, " pairs"]
    same: Bool[Tensor, " pairs"]
    fold: Int[Tensor, " pairs"]
    identity: Float[Tensor, "photos identity"]  # whitened, of each photo's own fit; without a face the others' mean
    found: Bool[Tensor, " photos"]

    __test__ = False  # not a test for pytest

    @property
    def missing(self) -> int:
        """How many photos have no face."""
        return int((~self.found).sum())

    def inputs(self, rows: Int[Tensor, " batch"], mirror: bool = False) -> Float[Tensor, "batch 3 height width"]:
        """Return crops as a network takes them: channels first, in [-1, 1]; `mirror` turns them left to right."""
        image = network_input(self.image[rows], None)
        return image.flip(3) if mirror else image


def lfw_test_crops(folds: Sequence[int], size: tuple[int, int], lfw: LFW, fitter: Fitter) -> TestPairs:
    """Return crops of every photo in a pair of these folds, and the pairs. Raises ValueError for an unknown fold."""
    pairs = [pair for pair in lfw.pairs() if pair.fold in folds]
    absent = set(folds) - {pair.fold for pair in pairs}
    if absent or not pairs:
        raise ValueError(f"folds {sorted(absent) or list(folds)} are not in {lfw.pairs_file}, whose folds count from 0")
    paths = sorted({photo for pair in pairs for photo in (pair.first, pair.second)})
    row_of = {path: row for row, path in enumerate(paths)}
    photos = prepare_photos(paths)
    identity = photos.fit(fitter).identity
    identity[~photos.found] = identity[photos.found].mean(0)
    rows = [(row_of[pair.first], row_of[pair.second], pair.same, pair.fold) for pair in pairs]
    first, second, same, fold = (torch.tensor(column) for column in zip(*rows, strict=True))
    names = tuple(path.name for path in paths)
    return TestPairs(photos.crops(size), names, first, second, same, fold, identity, photos.found)
