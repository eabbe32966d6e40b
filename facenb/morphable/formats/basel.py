"""Basel Face Models, licensed by the University of Basel: BFM-2009, BFM-2017/2019, and 3DDFA-V2's grid on BFM-2009.

BFM-2009 (Paysan et al. 2009, `01_MorphableModel.mat`) has no expressions and no landmarks. They come from other files,
which use 53,215 of its 53,490 vertices. `model_info.mat` of 3DDFA lists these vertices and the 68 landmarks. The basis
of FaceWarehouse is `Model_Expression.mat` (3DDFA, 29 components) or `Exp_Pca.bin` with `std_exp.txt` (79).
BFM-2017/2019 (Gerig et al. 2018) are in the HDF5 layout of statismo: shape, colour and expression each have a mean, an
orthonormal basis and variances. Their files name about sixty landmarks, but not the 68.
Here each of them is a region `landmark.<name>`.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from scipy.io import loadmat
from torch import Tensor

from facenb.morphable.formats import reading
from facenb.morphable.layouts import LUO19
from facenb.morphable.model import Embedding, MorphableModel

BASEL = "https://faces.dmi.unibas.ch (form of the University of Basel)"
PAGE_3DDFA = "the 3DDFA page (Face Profiling package)"
SOURCE = "Basel Face Model {}, University of Basel, non-commercial, no redistribution"
SOURCE_GRID = "BFM-2009 on a 64 x 64 grid, from 3DDFA-V2 (Guo et al. 2020), academic use only, no redistribution"
MM = 1e-3  # micrometres to mm, in BFM-2009 and the grid
LARGEST_DISTANCE = 5.0  # mm from a named landmark to the nearest vertex; landmarks farther away are not on this mesh
SIDE = 64  # of the grid
GRID = ("u_base", "w_shp_base", "w_exp_base", "paf_mu", "paf_w_shp", "paf_w_exp", "v2_std")


def read_bfm2009(
    path: str | Path, expression: str | Path | None = None, info: str | Path | None = None
) -> MorphableModel:
    """Return BFM-2009, with expressions and landmarks if these files are given.

    `info` (model_info.mat) gives the 68 landmarks and the vertices to keep. Expression bases are defined on these
    vertices. `expression` is Model_Expression.mat, or Exp_Pca.bin with std_exp.txt in the same folder. Raise
    ModelFileError if a file is missing, damaged or wrong, or if the expression basis is for another mesh.
    """
    with reading.file(path, "Basel Face Model 2009", BASEL) as path:
        mat = _read_mat(path, ("shapeMU", "shapePC", "shapeEV", "texMU", "texPC", "texEV", "tl"))
        mean = mat["shapeMU"].reshape(-1).astype(np.float64)
        for name in ("shapePC", "texMU", "texPC"):
            reading.expect(f"number of rows of {name}", len(mat[name]), len(mean))
        count = len(mean) // 3
        triangles = reading.index(mat["tl"] if mat["tl"].shape[1] == 3 else mat["tl"].T) - 1  # indices from 1
        reading.check_indices("triangles name vertices", triangles, count)
        kept, landmarks = (torch.arange(count), None) if info is None else _read_info(info, count)
        number = torch.full((count,), -1)
        number[kept] = torch.arange(len(kept))
        triangles = number[triangles]
        coordinates = (3 * kept[:, None] + torch.arange(3)).flatten().numpy()
        neutral, basis = _read_expression(expression, len(coordinates))
        return reading.finish(
            "bfm2009",
            reading.tensor(((mean[coordinates] + neutral) * MM).reshape(-1, 3)),
            triangles[(triangles >= 0).all(1)],
            landmarks,
            identity_basis=reading.rows(mat["shapePC"][coordinates], mat["shapeEV"], MM),
            expression_basis=basis,
            albedo_mean=reading.tensor(mat["texMU"].reshape(-1)[coordinates].reshape(-1, 3) / 255),
            albedo_basis=reading.rows(mat["texPC"][coordinates], mat["texEV"], 1 / 255),
            source=SOURCE.format("2009 (Paysan et al. 2009)"),
        )


def _read_mat(path: Path, needed: tuple[str, ...]) -> dict[str, np.ndarray]:
    mat = {name: value for name, value in loadmat(path).items() if not name.startswith("__")}
    reading.require(mat, needed)
    return mat


def _read_info(path: str | Path, count: int) -> tuple[Tensor, Embedding]:
    """Return which of `count` vertices are kept, and the 68 landmarks among them."""
    with reading.file(path, "model_info.mat of 3DDFA", PAGE_3DDFA) as path:
        info = _read_mat(path, ("trimIndex", "keypoints"))
        kept, keypoints = (reading.index(info[name]).flatten() - 1 for name in ("trimIndex", "keypoints"))
        reading.expect("number of landmarks", len(keypoints), 68)
        reading.check_indices("trimIndex names vertices", kept, count)
        reading.check_indices("keypoints name vertices", keypoints, len(kept))
        return kept, Embedding.at(keypoints)


def _read_expression(path: str | Path | None, count: int) -> tuple[np.ndarray, Tensor]:
    """Return the offset of the neutral face (3V,) in micrometres, and the basis (C, V, 3) in mm."""
    if path is None:
        return np.zeros(count), torch.zeros(0, count // 3, 3)
    with reading.file(path, "expression basis for BFM-2009", PAGE_3DDFA) as path:
        if reading.starts_with(path, b"MATLAB"):
            mat = _read_mat(path, ("mu_exp", "w_exp", "sigma_exp"))
            neutral, basis, deviation = mat["mu_exp"].reshape(-1), mat["w_exp"], mat["sigma_exp"].reshape(-1)
        else:
            neutral, basis, deviation = _read_exp_pca(path)
        if basis.shape != (count, len(deviation)) or len(neutral) != count:
            raise ValueError(
                f"it is made for {len(neutral) // 3} vertices, the model here has {count // 3}; "
                "give info=model_info.mat of 3DDFA, which lists the vertices to keep"
            )
        return neutral, reading.rows(basis, deviation, MM)


def _read_exp_pca(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read Exp_Pca.bin (number of components, mean, components, all little-endian) and the deviations in std_exp.txt.

    The stored mean is the mean of expressive faces. Deng et al. do not use it, and neither do we.
    """
    data = path.read_bytes()
    count = int.from_bytes(data[:4], "little", signed=True)
    floats = (len(data) - 4) // 4
    if not 0 < count < 1000 or len(data) % 4 or floats % (3 * (count + 1)):
        raise ValueError(f"{len(data)} bytes do not fit {count} components")
    table = np.frombuffer(data, "<f4", floats, 4).reshape(count + 1, -1)
    with reading.file(path.with_name("std_exp.txt"), "std_exp.txt", "where Exp_Pca.bin came from") as beside:
        deviation = np.loadtxt(beside).reshape(-1)
        reading.expect("number of deviations", len(deviation), count)
    return np.zeros(table.shape[1]), table[1:].T, deviation


def read_bfm_hdf5(path: str | Path, landmarks: Sequence[int] | None = None) -> MorphableModel:
    """Return BFM-2017/2019. The mean includes the mean expression. `landmarks`: vertices of the 68 points, if known.

    Raise ModelFileError for a missing, damaged or other file.
    """
    with reading.file(path, "Basel Face Model 2017 or 2019 (HDF5)", BASEL) as path, h5py.File(path) as file:
        mesh = "representer" if "representer/cells" in file else "shape/representer"  # one for all, or one per part
        reading.require(file, ("shape/model/mean", f"{mesh}/points", f"{mesh}/cells"))
        mean, basis = _component(file, "shape")
        unit = file.get(f"{mesh}/length-unit")  # in metres; BFM-2017 and 2019 do not write it and use mm
        scale = 1.0 if unit is None else float(np.ravel(unit[()])[0]) * 1e3
        mean, expression = mean * scale, torch.zeros(0, len(mean), 3)
        if "expression" in file:
            offset, expression = _component(file, "expression")
            mean, expression = mean + offset * scale, expression * scale
        albedo, albedo_basis = _component(file, "color") if "color" in file else (None, None)
        return reading.finish(
            "bfm-hdf5",
            mean,
            reading.index(file[f"{mesh}/cells"][()].T),
            None if landmarks is None else Embedding.at(landmarks),
            identity_basis=basis * scale,
            expression_basis=expression,
            albedo_mean=albedo,
            albedo_basis=albedo_basis,
            regions=_named_points(file, reading.tensor(file[f"{mesh}/points"][()].T * scale), scale),
            source=SOURCE.format("2017/2019 layout (Gerig et al. 2018)"),
        )


def _component(file: h5py.File, part: str) -> tuple[Tensor, Tensor]:
    """Return the mean (V, 3) and the whitened basis (C, V, 3) in the file's unit."""
    mean, basis, variance = (file[f"{part}/model/{name}"][()] for name in ("mean", "pcaBasis", "pcaVariance"))
    reading.expect(f"number of rows of {part}/model/pcaBasis", len(basis), mean.size)
    version = file.get(f"{part}/version")
    number = [int(np.ravel(version[name][()])[0]) for name in ("majorVersion", "minorVersion")] if version else [0, 9]
    deviation = 1.0 if number == [0, 8] else np.sqrt(variance)  # up to version 0.8, the stored basis is already scaled
    return reading.tensor(mean.reshape(-1, 3)), reading.rows(basis, deviation, 1.0)


def _named_points(file: h5py.File, reference: Tensor, scale: float) -> Mapping[str, Tensor]:
    """Return a region of one vertex for each named landmark, which is a point on the reference mesh."""
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


def read_bfm_grid(path: str | Path) -> MorphableModel:
    """Return the grid's 4,096 vertices, followed by the 68 landmarks as extra vertices without triangles.

    A coefficient of one is the standard deviation of that parameter over 3DDFA's training images (`v2_std`, the layout
    LUO19). We leave out the mean of the parameters, so that zero is BFM's mean face. Some files repeat the identity
    basis in place of the grid's expression basis. Then the expression offsets of the grid are zero, and only the
    landmarks have expressions. Raise ModelFileError if the file is missing, damaged or wrong.
    """
    with reading.file(path, "BFM grid of 3DDFA-V2", "https://github.com/cleardusk/3DDFA_V2") as path:
        arrays = reading.npz(path, GRID)
        deviation = LUO19.split(torch.from_numpy(arrays["v2_std"].reshape(-1)))
        grid_expression = arrays["paf_w_exp"]
        repeated = np.array_equal(grid_expression, arrays["paf_w_shp"][:, : grid_expression.shape[1]])
        if repeated:
            grid_expression = np.zeros_like(grid_expression)
        coordinates = np.concatenate([arrays["paf_mu"].reshape(-1), arrays["u_base"].reshape(-1)])
        reading.expect("number of coordinates", len(coordinates), 3 * (SIDE * SIDE + 68))
        identity = np.concatenate([arrays["paf_w_shp"], arrays["w_shp_base"]])
        expression = np.concatenate([grid_expression, arrays["w_exp_base"]])
        grid, marks = torch.arange(SIDE * SIDE).view(SIDE, SIDE), SIDE * SIDE + torch.arange(68)
        a, b, c, d = grid[:-1, :-1], grid[1:, :-1], grid[:-1, 1:], grid[1:, 1:]  # the corners of each cell
        triangles = torch.stack([torch.stack([a, c, b], -1), torch.stack([b, c, d], -1)], -2).view(-1, 3)
        return reading.finish(
            "bfm-grid",
            reading.tensor(coordinates.reshape(-1, 3) * MM),
            triangles,
            Embedding.at(marks),
            identity_basis=reading.rows(identity, deviation["identity"].numpy(), MM),
            expression_basis=reading.rows(expression, deviation["expression"].numpy(), MM),
            regions={"grid": grid.flatten(), "landmarks": marks},
            source=SOURCE_GRID + ("; expressions at the 68 landmarks only" if repeated else ""),
        )
