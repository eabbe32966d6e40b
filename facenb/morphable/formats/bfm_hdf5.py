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

from facenb.errors import ModelFileError
from facenb.morphable.formats import parts
from facenb.morphable.model import Embedding, MorphableModel

KIND, WHERE = "Basel Face Model 2017 or 2019 (HDF5)", "https://faces.dmi.unibas.ch (form of the University of Basel)"
SOURCE = "Basel Face Model 2017/2019 layout (Gerig et al. 2018), University of Basel, non-commercial, no redistribution"
LARGEST_DISTANCE = 5.0  # mm from a named landmark to a vertex; farther, it is not on this mesh


def read_bfm_hdf5(path: str | Path, landmarks: Sequence[int] | None = None) -> MorphableModel:
    """BFM-2017/2019; the mean includes the mean expression. `landmarks`: vertex indices of the 68 points, if known.

    Raises ModelFileError for a missing, truncated or other file.
    """
    path = parts.existing(path, KIND, WHERE)
    try:
        with h5py.File(path) as file:
            mesh = "representer" if "representer/cells" in file else "shape/representer"  # one for all, or one a part
            parts.require(file, ("shape/model/mean", f"{mesh}/points", f"{mesh}/cells"), path, KIND)
            return _read(path, file, mesh, landmarks)
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise ModelFileError(f"{path} is a damaged or foreign HDF5 file ({error}); fetch it again") from error


def _read(path: Path, file: h5py.File, mesh: str, landmarks: Sequence[int] | None) -> MorphableModel:
    mean, basis = _component(path, file, "shape")
    unit = file.get(f"{mesh}/length-unit")  # metres; BFM-2017 and 2019 do not say and use mm
    scale = 1.0 if unit is None else float(np.ravel(unit[()])[0]) * 1e3
    mean, basis = mean * scale, basis * scale
    expression = torch.zeros(0, len(mean), 3)
    albedo, albedo_basis = None, None
    if "expression" in file:
        offset, expression = _component(path, file, "expression")
        mean, expression = mean + offset * scale, expression * scale
    if "color" in file:
        albedo, albedo_basis = _component(path, file, "color")
    for what, part in (("expression", expression), ("colour", basis if albedo is None else albedo_basis)):
        parts.check_sizes(path, KIND, {f"vertices of the {what} basis": (part.shape[1], len(mean))})
    reference = parts.tensor(file[f"{mesh}/points"][()].T * scale)
    return parts.finish(
        path,
        "bfm-hdf5",
        mean,
        parts.index(file[f"{mesh}/cells"][()].T),
        parts.NO_LANDMARKS if landmarks is None else Embedding.at(landmarks),
        identity_basis=basis,
        expression_basis=expression,
        albedo_mean=albedo,
        albedo_basis=albedo_basis,
        regions=_named_points(path, file, reference, scale),
        source=SOURCE,
    )


def _component(path: Path, file: h5py.File, part: str) -> tuple[Tensor, Tensor]:
    """Mean (V, 3) and whitened basis (C, V, 3) in the file's unit."""
    model = file[f"{part}/model"]
    mean, basis, variance = (model[name][()] for name in ("mean", "pcaBasis", "pcaVariance"))
    parts.check_sizes(path, KIND, {f"rows of {part}/model/pcaBasis": (len(basis), mean.size),
                                   f"size of {part}/model/pcaVariance": (variance.size, basis.shape[1])})  # fmt: skip
    version = file.get(f"{part}/version")
    number = [int(np.ravel(version[name][()])[0]) for name in ("majorVersion", "minorVersion")] if version else [0, 9]
    deviation = 1.0 if number == [0, 8] else np.sqrt(variance)  # up to 0.8, statismo stored the basis scaled
    return parts.tensor(mean.reshape(-1, 3)), parts.rows(basis, deviation, 1.0)


def _named_points(path: Path, file: h5py.File, reference: Tensor, scale: float) -> Mapping[str, Tensor]:
    """Regions of one vertex for the named landmarks, which are points on the reference mesh."""
    found = {}
    if "metadata/landmarks/json" in file:
        text = np.ravel(file["metadata/landmarks/json"][()])[0]
        found = {point["id"]: point["coordinates"] for point in json.loads(text)}
    elif "metadata/landmarks/text" in file:
        text = np.ravel(file["metadata/landmarks/text"][()])[0].decode()
        lines = [line.split() for line in text.splitlines() if line.strip()]
        found = {line[0]: [float(number) for number in line[2:5]] for line in lines}
    named = {}
    for name, point in found.items():
        distance = (reference - torch.tensor(point) * scale).norm(dim=1)
        if distance.min() < LARGEST_DISTANCE:
            named[f"landmark.{name}"] = distance.argmin()[None]
    return named
