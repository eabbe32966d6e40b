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

from facenb.errors import ModelFileError
from facenb.morphable.formats import parts
from facenb.morphable.model import Embedding, MorphableModel

KIND, WHERE = "Basel Face Model 2009", "https://faces.dmi.unibas.ch (form of the University of Basel)"
PAGE_3DDFA = "the 3DDFA page (Face Profiling package)"
SOURCE = "Basel Face Model 2009 (Paysan et al. 2009), University of Basel, non-commercial, no redistribution"
MM = 1e-3  # micrometres to mm


def read_bfm2009(
    path: str | Path, expression: str | Path | None = None, info: str | Path | None = None
) -> MorphableModel:
    """BFM-2009, with expressions and landmarks where these files are given.

    `info` (model_info.mat) restricts the mesh to the vertices that expression bases are made for and brings the 68
    landmarks; `expression` is Model_Expression.mat or Exp_Pca.bin (with std_exp.txt beside it). Raises ModelFileError
    for a missing, damaged or other file, or an expression basis of another mesh.
    """
    path = parts.existing(path, KIND, WHERE)
    mat = _open_mat(path, KIND, ("shapeMU", "shapePC", "shapeEV", "texMU", "texPC", "texEV", "tl"))
    mean = np.asarray(mat["shapeMU"], np.float64).reshape(-1)
    for kind in ("shape", "tex"):
        sizes = {f"rows of {kind}{part}": (len(mat[f"{kind}{part}"].reshape(-1, width)), len(mean))
                 for part, width in (("MU", 1), ("PC", mat[f"{kind}EV"].size))}  # fmt: skip
        parts.check_sizes(path, KIND, sizes)
    kept, landmarks = np.arange(len(mean) // 3), parts.NO_LANDMARKS
    if info is not None:
        kept, landmarks = _read_info(Path(info), len(mean) // 3)
    coordinates = (3 * kept[:, None] + np.arange(3)).reshape(-1)
    neutral, basis = _read_expression(expression, len(coordinates))
    triangles = _restrict(mat["tl"].astype(np.int64) - 1, kept, len(mean) // 3)
    return parts.finish(
        path,
        "bfm2009",
        parts.tensor(((mean[coordinates] + neutral) * MM).reshape(-1, 3)),
        triangles,
        landmarks,
        identity_basis=parts.rows(mat["shapePC"][coordinates], mat["shapeEV"], MM),
        expression_basis=basis,
        albedo_mean=parts.tensor(mat["texMU"].reshape(-1)[coordinates].reshape(-1, 3) / 255),
        albedo_basis=parts.rows(mat["texPC"][coordinates], mat["texEV"], 1 / 255),
        source=SOURCE,
    )


def _open_mat(path: Path, kind: str, needed: tuple[str, ...]) -> dict[str, np.ndarray]:
    try:
        mat = {name: value for name, value in loadmat(path).items() if not name.startswith("__")}
    except Exception as error:  # scipy raises many kinds for damaged files
        raise ModelFileError(f"{path} is no readable MATLAB 5 file ({error}); fetch it again") from error
    parts.require(mat, needed, path, kind)
    return mat


def _read_info(path: Path, count: int) -> tuple[np.ndarray, Embedding]:
    """Which vertices are kept, and the 68 landmarks among them."""
    kind = "model_info.mat of 3DDFA"
    info = _open_mat(parts.existing(path, kind, PAGE_3DDFA), kind, ("trimIndex", "keypoints"))
    kept, keypoints = (info[name].astype(np.int64).reshape(-1) - 1 for name in ("trimIndex", "keypoints"))
    if kept.min() < 0 or kept.max() >= count or len(keypoints) != 68 or keypoints.max() >= len(kept):
        raise ModelFileError(f"{path} belongs to another mesh: vertices to {kept.max() + 1}, the model has {count}")
    return kept, Embedding.at(keypoints)


def _restrict(triangles: np.ndarray, kept: np.ndarray, count: int) -> Tensor:
    """The triangles among the kept vertices, renumbered."""
    triangles = triangles if triangles.shape[1] == 3 else triangles.T
    number = np.full(count, -1)
    number[kept] = np.arange(len(kept))
    if triangles.min() < 0 or triangles.max() >= count:
        return parts.index(triangles)  # refused, with the numbers, when the model is finished
    renumbered = number[triangles]
    return parts.index(renumbered[(renumbered >= 0).all(1)])


def _read_expression(path: str | Path | None, rows: int) -> tuple[np.ndarray, Tensor]:
    """Offset of the neutral face (3V,) in micrometres, and the basis (C, V, 3) in mm."""
    if path is None:
        return np.zeros(rows), torch.zeros(0, rows // 3, 3)
    path = parts.existing(path, "expression basis for BFM-2009", PAGE_3DDFA)
    if path.read_bytes()[:6] == b"MATLAB":
        mat = _open_mat(path, "Model_Expression.mat of 3DDFA", ("mu_exp", "w_exp", "sigma_exp"))
        neutral, basis, deviation = mat["mu_exp"].reshape(-1), mat["w_exp"], mat["sigma_exp"].reshape(-1)
    else:
        neutral, basis, deviation = _read_exp_pca(path)
    if basis.shape != (rows, len(deviation)) or len(neutral) != rows:
        raise ModelFileError(
            f"{path} is made for {len(neutral) // 3} vertices, the model here has {rows // 3}; "
            "give info=model_info.mat of 3DDFA, which says how the two meshes belong together"
        )
    return neutral, parts.rows(basis, deviation, MM)


def _read_exp_pca(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Exp_Pca.bin: the number of components, the mean, the components, all little-endian; deviations in std_exp.txt."""
    data = path.read_bytes()
    count = int.from_bytes(data[:4], "little", signed=True)
    floats = (len(data) - 4) // 4
    if not 0 < count < 1000 or len(data) % 4 or floats % (3 * (count + 1)):
        raise ModelFileError(f"{path} is no Exp_Pca.bin, or a truncated one ({len(data)} bytes for {count} components)")
    table = np.frombuffer(data, "<f4", floats, 4).reshape(count + 1, -1)
    beside = parts.existing(path.with_name("std_exp.txt"), "std_exp.txt", "where Exp_Pca.bin came from")
    try:
        deviation = np.loadtxt(beside).reshape(-1)
    except ValueError as error:
        raise ModelFileError(f"{beside} is no list of numbers ({error})") from error
    parts.check_sizes(beside, "std_exp.txt", {"number of deviations": (len(deviation), count)})
    return np.zeros(table.shape[1]), table[1:].T, deviation  # its mean is of expressive faces: Deng et al. leave it out
