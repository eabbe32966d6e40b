"""Basel Face Model 2009 (Paysan et al. 2009), `01_MorphableModel.mat`: licensed by the University of Basel.

Micrometres; indices from 1; albedo in 0 to 255. It has no expressions and names no landmarks. Both circulate apart,
on a mesh of 53,215 of its 53,490 vertices: `model_info.mat` of 3DDFA (which vertices; 68 landmarks) and a basis made
from FaceWarehouse, as `Model_Expression.mat` (3DDFA, 29 components) or `Exp_Pca.bin` with `std_exp.txt` (79).
"""

from pathlib import Path

import numpy as np
import torch
from scipy.io import loadmat
from torch import Tensor

from facenb.morphable.formats.reading import NO_LANDMARKS, expect, finish, index, reader, reading, require, rows, tensor
from facenb.morphable.model import Embedding, MorphableModel

KIND, WHERE = "Basel Face Model 2009", "https://faces.dmi.unibas.ch (form of the University of Basel)"
PAGE_3DDFA = "the 3DDFA page (Face Profiling package)"
SOURCE = "Basel Face Model 2009 (Paysan et al. 2009), University of Basel, non-commercial, no redistribution"
MM = 1e-3  # micrometres to mm


@reader(KIND, WHERE)
def read_bfm2009(
    path: str | Path, expression: str | Path | None = None, info: str | Path | None = None
) -> MorphableModel:
    """Return BFM-2009, with expressions and landmarks where these files are given.

    `info` (model_info.mat) restricts the mesh to the vertices that expression bases are made for and brings the 68
    landmarks; `expression` is Model_Expression.mat or Exp_Pca.bin (with std_exp.txt beside it). Raise ModelFileError
    for a missing, damaged or other file, or an expression basis of another mesh.
    """
    mat = _read_mat(path, ("shapeMU", "shapePC", "shapeEV", "texMU", "texPC", "texEV", "tl"))
    mean = mat["shapeMU"].reshape(-1).astype(np.float64)
    for name in ("shapePC", "texMU", "texPC"):
        expect(f"number of rows of {name}", len(mat[name]), len(mean))
    kept, landmarks = np.arange(len(mean) // 3), NO_LANDMARKS
    if info is not None:
        kept, landmarks = _read_info(info, len(mean) // 3)
    coordinates = (3 * kept[:, None] + np.arange(3)).reshape(-1)
    neutral, basis = _read_expression(expression, len(coordinates))
    return finish(
        "bfm2009",
        tensor(((mean[coordinates] + neutral) * MM).reshape(-1, 3)),
        _restrict(mat["tl"].astype(np.int64) - 1, kept, len(mean) // 3),
        landmarks,
        identity_basis=rows(mat["shapePC"][coordinates], mat["shapeEV"], MM),
        expression_basis=basis,
        albedo_mean=tensor(mat["texMU"].reshape(-1)[coordinates].reshape(-1, 3) / 255),
        albedo_basis=rows(mat["texPC"][coordinates], mat["texEV"], 1 / 255),
        source=SOURCE,
    )


def _read_mat(path: Path, needed: tuple[str, ...]) -> dict[str, np.ndarray]:
    mat = {name: value for name, value in loadmat(path).items() if not name.startswith("__")}
    require(mat, needed)
    return mat


def _read_info(path: str | Path, count: int) -> tuple[np.ndarray, Embedding]:
    """Return which of `count` vertices are kept, and the 68 landmarks among them."""
    with reading(path, "model_info.mat of 3DDFA", PAGE_3DDFA) as path:
        info = _read_mat(path, ("trimIndex", "keypoints"))
        kept, keypoints = (info[name].astype(np.int64).reshape(-1) - 1 for name in ("trimIndex", "keypoints"))
        if kept.min() < 0 or kept.max() >= count or len(keypoints) != 68 or keypoints.max() >= len(kept):
            raise ValueError(f"it belongs to another mesh: vertices to {kept.max() + 1}, the model has {count}")
        return kept, Embedding.at(keypoints)


def _restrict(triangles: np.ndarray, kept: np.ndarray, count: int) -> Tensor:
    """Return the triangles among the kept vertices, renumbered."""
    triangles = triangles if triangles.shape[1] == 3 else triangles.T
    number = np.full(count, -1)
    number[kept] = np.arange(len(kept))
    if triangles.min() < 0 or triangles.max() >= count:
        return index(triangles)  # `finish` refuses it with the numbers
    renumbered = number[triangles]
    return index(renumbered[(renumbered >= 0).all(1)])


def _read_expression(path: str | Path | None, count: int) -> tuple[np.ndarray, Tensor]:
    """Return the offset of the neutral face (3V,) in micrometres, and the basis (C, V, 3) in mm."""
    if path is None:
        return np.zeros(count), torch.zeros(0, count // 3, 3)
    with reading(path, "expression basis for BFM-2009", PAGE_3DDFA) as path:
        if path.read_bytes()[:6] == b"MATLAB":
            mat = _read_mat(path, ("mu_exp", "w_exp", "sigma_exp"))
            neutral, basis, deviation = mat["mu_exp"].reshape(-1), mat["w_exp"], mat["sigma_exp"].reshape(-1)
        else:
            neutral, basis, deviation = _read_exp_pca(path)
        if basis.shape != (count, len(deviation)) or len(neutral) != count:
            raise ValueError(
                f"it is made for {len(neutral) // 3} vertices, the model here has {count // 3}; "
                "give info=model_info.mat of 3DDFA, which says how the two meshes belong together"
            )
        return neutral, rows(basis, deviation, MM)


def _read_exp_pca(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Exp_Pca.bin: the number of components, the mean, the components, all little-endian; deviations in std_exp.txt.

    Its mean is of expressive faces; Deng et al. leave it out, and so do we.
    """
    data = path.read_bytes()
    count = int.from_bytes(data[:4], "little", signed=True)
    floats = (len(data) - 4) // 4
    if not 0 < count < 1000 or len(data) % 4 or floats % (3 * (count + 1)):
        raise ValueError(f"{len(data)} bytes do not fit {count} components")
    table = np.frombuffer(data, "<f4", floats, 4).reshape(count + 1, -1)
    with reading(path.with_name("std_exp.txt"), "std_exp.txt", "where Exp_Pca.bin came from") as beside:
        deviation = np.loadtxt(beside).reshape(-1)
        expect("number of deviations", len(deviation), count)
    return np.zeros(table.shape[1]), table[1:].T, deviation
