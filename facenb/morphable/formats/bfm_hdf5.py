"""Basel Face Models 2017 and 2019 (Gerig et al. 2018), and any model in their statismo HDF5 layout. Millimetres.

Shape, colour and expression each hold a mean, an orthonormal basis and variances. The files name about sixty
landmarks of their own scheme and none of the 68; they become regions of one vertex, `landmark.<name>`.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from facenb.morphable.formats.reading import NO_LANDMARKS, expect, finish, index, reader, require, rows, tensor
from facenb.morphable.model import Embedding, MorphableModel

KIND, WHERE = "Basel Face Model 2017 or 2019 (HDF5)", "https://faces.dmi.unibas.ch (form of the University of Basel)"
SOURCE = "Basel Face Model 2017/2019 layout (Gerig et al. 2018), University of Basel, non-commercial, no redistribution"
LARGEST_DISTANCE = 5.0  # mm from a named landmark to a vertex; farther, it is not on this mesh


@reader(KIND, WHERE)
def read_bfm_hdf5(path: str | Path, landmarks: Sequence[int] | None = None) -> MorphableModel:
    """Return BFM-2017/2019; the mean includes the mean expression. `landmarks`: vertices of the 68 points, if known.

    Raise ModelFileError for a missing, damaged or other file.
    """
    with h5py.File(path) as file:
        mesh = "representer" if "representer/cells" in file else "shape/representer"  # one for all, or one a part
        require(file, ("shape/model/mean", f"{mesh}/points", f"{mesh}/cells"))
        mean, basis = _component(file, "shape")
        unit = file.get(f"{mesh}/length-unit")  # metres; BFM-2017 and 2019 do not say and use mm
        scale = 1.0 if unit is None else float(np.ravel(unit[()])[0]) * 1e3
        mean, expression = mean * scale, torch.zeros(0, len(mean), 3)
        if "expression" in file:
            offset, expression = _component(file, "expression")
            mean, expression = mean + offset * scale, expression * scale
        albedo, albedo_basis = _component(file, "color") if "color" in file else (None, None)
        return finish(
            "bfm-hdf5",
            mean,
            index(file[f"{mesh}/cells"][()].T),
            NO_LANDMARKS if landmarks is None else Embedding.at(landmarks),
            identity_basis=basis * scale,
            expression_basis=expression,
            albedo_mean=albedo,
            albedo_basis=albedo_basis,
            regions=_named_points(file, tensor(file[f"{mesh}/points"][()].T * scale), scale),
            source=SOURCE,
        )


def _component(file: h5py.File, part: str) -> tuple[Tensor, Tensor]:
    """Return the mean (V, 3) and the whitened basis (C, V, 3) in the file's unit."""
    model = file[f"{part}/model"]
    mean, basis, variance = (model[name][()] for name in ("mean", "pcaBasis", "pcaVariance"))
    expect(f"number of rows of {part}/model/pcaBasis", len(basis), mean.size)
    version = file.get(f"{part}/version")
    number = [int(np.ravel(version[name][()])[0]) for name in ("majorVersion", "minorVersion")] if version else [0, 9]
    deviation = 1.0 if number == [0, 8] else np.sqrt(variance)  # up to 0.8, statismo stored the basis scaled
    return tensor(mean.reshape(-1, 3)), rows(basis, deviation, 1.0)


def _named_points(file: h5py.File, reference: Tensor, scale: float) -> Mapping[str, Tensor]:
    """Return regions of one vertex for the named landmarks, which are points on the reference mesh."""
    points = {}
    if "metadata/landmarks/json" in file:
        text = np.ravel(file["metadata/landmarks/json"][()])[0]
        points = {point["id"]: point["coordinates"] for point in json.loads(text)}
    elif "metadata/landmarks/text" in file:
        text = np.ravel(file["metadata/landmarks/text"][()])[0].decode()
        lines = [line.split() for line in text.splitlines() if line.strip()]
        points = {line[0]: [float(number) for number in line[2:5]] for line in lines}
    named = {}
    for name, point in points.items():
        distance = (reference - torch.tensor(point) * scale).norm(dim=1)
        if distance.min() < LARGEST_DISTANCE:
            named[f"landmark.{name}"] = distance.argmin()[None]
    return named
