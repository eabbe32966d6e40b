"""300W-LP as a training set."""

from pathlib import Path

import torch
from torch import Tensor

from facenb.datasets.pictures.w300lp import W300LP
from facenb.datasets.sets.build_photos import crop_photos
from facenb.datasets.sets.build_set import TOGETHER, finished, write_set
from facenb.datasets.sets.training_set import TrainingSet, describe
from facenb.fitting import fit
from facenb.fitting.posed import move_camera, pose_of
from facenb.morphable.model import MorphableModel
from facenb.photos.crops import five_of_68, to_template


def build_w300lp(
    folder: str | Path, model: MorphableModel, data: W300LP, size: tuple[int, int] = (112, 96), quiet: bool = False
) -> TrainingSet:
    """Return the images as a training set: crops, and the fit of `model` to the landmarks of all turns of a photo.

    The jaw line does not slide, because the landmarks are fixed points of a face, hidden ones too. A subject's number
    is its place in the card's `names`. Raises RunError if the folder holds another set.
    """
    folder, sources = Path(folder), list(data.sources.values())
    names = list(data.sources)
    card = {"kind": "300w-lp", "model": describe(model), "size": list(size), "names": names}
    card["pictures_given"] = len(data)
    ready = finished(folder, card, model)
    if ready is not None:
        return ready
    batches, held = [[]], 0
    for number, rows in enumerate(sources):
        if held and held + len(rows) > TOGETHER:
            batches, held = [*batches, []], 0
        batches[-1].append(number)
        held += len(rows)

    def rows_of(people: list[int]) -> dict[str, Tensor]:
        samples = [data[row] for number in people for row in sources[number]]
        subject = torch.tensor([number for number in people for _ in sources[number]])
        seen = torch.stack([sample.landmarks for sample in samples])
        fitted = fit(model, seen, subject, contour="fixed")
        five = five_of_68(seen)
        crops = crop_photos([sample.image() for sample in samples], five, size)
        pose = pose_of(move_camera(fitted.camera, to_template(five, size)))
        coefficients = {"identity": fitted.identity[fitted.subject], "expression": fitted.expression}
        return {"image": crops, "subject": subject, **coefficients, "pose": pose}

    return write_set(folder, card, len(batches), lambda first: map(rows_of, batches[first:]), quiet)
