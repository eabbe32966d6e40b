"""FLAME (Li et al. 2017): versions 2020 and 2023 as published (pickles), and an npz of the 2023 Open mean and basis.

Metres. Identity rows come first (300) and expressions after them, both scaled by their standard deviations. Texture
coordinates are in neither; they are read from one of the two files that hold them, the template mesh of DECA's
repository (`head_template.obj`) or FLAME's texture space (`FLAME_texture.npz`, of which only vt and ft are read). The
pickles are licensed by the Max Planck Institute (registration; non-commercial; not to be passed on); FLAME 2023 Open is
CC-BY-4.0 with restrictions on use.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from facenb.errors import ModelFileError
from facenb.morphable.formats import parts
from facenb.morphable.formats.safe_pickle import read_pickle
from facenb.morphable.model import Embedding, Joints, MorphableModel

KIND, WHERE = "FLAME model", "https://flame.is.tue.mpg.de"
EMBEDDING_KIND, EMBEDDING_WHERE = "FLAME landmark embedding", "https://github.com/soubhiksanyal/RingNet (flame_model)"
EMBEDDING = "flame_landmark_embedding.npz"
TEXTURE_KIND = "file of FLAME's texture coordinates"
TEXTURE_WHERE = (
    "https://github.com/yfeng95/DECA (data/head_template.obj) or https://flame.is.tue.mpg.de (texture space)"
)
TEXTURES = ("head_template.obj", "FLAME_texture.npz")  # looked for beside the model, in this order
SHARED = 0.05  # of the texture coordinates may be those of several vertices; in another order nearly all are
SOURCE = "FLAME 2020/2023 (Li et al. 2017), Max Planck Institute, non-commercial, no redistribution"
SOURCE_OPEN = "FLAME 2023 Open (Li et al. 2017), Max Planck Institute, CC-BY-4.0 with restrictions on use"
JOINTS = ("global", "neck", "jaw", "left_eye", "right_eye")
IDENTITIES = 300
MM = 1e3  # metres to mm


def read_flame(
    path: str | Path, embedding: str | Path | None = None, texture: str | Path | None = None
) -> MorphableModel:
    """FLAME from its pickle, with joints; 68 landmarks from `embedding` (npz) or from such a file beside the model.

    Texture coordinates from `texture` (`head_template.obj` or `FLAME_texture.npz`) or from such a file beside the
    model; none otherwise. Nothing in the pickle is run. Raises ModelFileError for a missing, damaged, other or hostile
    file, and for texture coordinates of another mesh.
    """
    path = parts.existing(path, KIND, WHERE)
    content = read_pickle(path)
    needed = ("v_template", "f", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table")
    parts.require(content, needed, path, KIND)
    regressor = content["J_regressor"]
    regressor = np.asarray(regressor.toarray() if hasattr(regressor, "toarray") else regressor)
    arrays = {name: np.asarray(content[name]) for name in needed} | {"J_regressor": regressor}
    count, joints = len(arrays["v_template"]), len(regressor)
    parts.check_sizes(path, KIND, {
        "size of shapedirs": (arrays["shapedirs"].size, 3 * count * arrays["shapedirs"].shape[-1]),
        "size of posedirs": (arrays["posedirs"].size, 3 * count * 9 * (joints - 1)),
        "size of J_regressor": (regressor.size, joints * count),
        "size of weights": (arrays["weights"].size, joints * count),
        "size of kintree_table": (arrays["kintree_table"].size, 2 * joints),
    })  # fmt: skip
    mesh = arrays["v_template"], arrays["shapedirs"], arrays["f"]
    return _finish(path, *mesh, embedding, texture, _joints(path, arrays), SOURCE)


def read_flame_npz(
    path: str | Path, embedding: str | Path | None = None, texture: str | Path | None = None
) -> MorphableModel:
    """FLAME's mean and first identity components from an npz (v_template, shapedirs, faces); no joints in it.

    `embedding` and `texture` as for `read_flame`. Raises ModelFileError for a missing, damaged or other file.
    """
    path = parts.existing(path, KIND, WHERE)
    arrays = parts.open_npz(path, KIND, ("v_template", "shapedirs", "faces"))
    sizes = {"vertices of shapedirs": (len(arrays["shapedirs"]), len(arrays["v_template"]))}
    parts.check_sizes(path, KIND, sizes)
    mesh = arrays["v_template"], arrays["shapedirs"], arrays["faces"]
    return _finish(path, *mesh, embedding, texture, None, SOURCE_OPEN)


def _joints(path: Path, arrays: dict[str, np.ndarray]) -> Joints:
    parents = [int(parent) for parent in arrays["kintree_table"][0].astype(np.int64)]
    parents[0] = -1  # stored as 2^32 - 1
    if any(not 0 <= parent < joint for joint, parent in enumerate(parents) if joint):
        raise ModelFileError(f"{path} is a damaged {KIND}: the parents of its joints are {parents}")
    names = JOINTS if len(parents) == len(JOINTS) else tuple(f"joint_{j}" for j in range(len(parents)))
    correctives = arrays["posedirs"].reshape(-1, 9 * (len(parents) - 1)).T * MM  # feature-major, as smplx uses it
    return Joints(
        names=names,
        parents=tuple(parents),
        regressor=parts.tensor(arrays["J_regressor"]),
        weights=parts.tensor(arrays["weights"]),
        correctives=parts.tensor(correctives.reshape(len(correctives), -1, 3)),
    )


def _finish(
    path: Path,
    mean: np.ndarray,
    directions: np.ndarray,
    faces: np.ndarray,
    embedding: str | Path | None,
    texture: str | Path | None,
    joints: Joints | None,
    source: str,
) -> MorphableModel:
    """The model in mm, with landmarks, contour and texture coordinates where files of them are known."""
    vertices = parts.tensor(mean * MM)
    triangles = parts.index(faces)
    basis = parts.rows(directions.reshape(vertices.numel(), -1), 1.0, MM)
    landmarks, contour, uv, uv_triangles = parts.NO_LANDMARKS, None, None, None
    embedding = _beside(path, EMBEDDING) if embedding is None else embedding
    if embedding is not None:
        landmarks, contour = _read_embedding(Path(embedding), triangles)
    texture = _beside(path, *TEXTURES) if texture is None else texture
    if texture is not None:
        uv, uv_triangles = _read_texture(Path(texture), triangles)
    return parts.finish(
        path,
        "flame",
        vertices,
        triangles,
        landmarks,
        identity_basis=basis[:IDENTITIES],
        expression_basis=basis[IDENTITIES:],
        joints=joints,
        contour=contour,
        uv=uv,
        uv_triangles=uv_triangles,
        source=source,
    )


def _beside(path: Path, *names: str) -> Path | None:
    """The first file of these names that lies beside the model."""
    return next((path.with_name(name) for name in names if path.with_name(name).is_file()), None)


def _read_texture(path: Path, triangles: Tensor) -> tuple[Tensor, Tensor]:
    """Texture coordinates (origin bottom left), and for each of the model's triangles the three of its corners."""
    path = parts.existing(path, TEXTURE_KIND, TEXTURE_WHERE)
    with path.open("rb") as file:
        is_npz = file.read(4) == b"PK\x03\x04"
    if is_npz:
        arrays = parts.open_npz(path, TEXTURE_KIND, ("vt", "ft"), others=False)
        uv, corners = arrays["vt"], arrays["ft"]
    else:
        uv, corners = _read_template(path, triangles)
    if uv.ndim != 2 or uv.shape[1] != 2 or corners.shape != tuple(triangles.shape):
        raise ModelFileError(
            f"{path}: vt has shape {uv.shape} and ft {corners.shape}; (texture coordinates, 2) and "
            f"{tuple(triangles.shape)} are needed, as many triangles as the model has"
        )
    corners = parts.index(corners)
    if not 0 <= int(corners.min()) <= int(corners.max()) < len(uv):
        raise ModelFileError(
            f"{path} is damaged: its triangles name texture coordinates {int(corners.min())} to {int(corners.max())}, "
            f"but there are {len(uv)}"
        )
    owners = torch.stack([corners.flatten(), triangles.flatten()], 1).unique(dim=0)[:, 0].bincount()
    if (shared := int((owners > 1).sum())) > SHARED * len(uv):
        raise ModelFileError(
            f"{path}: {shared} of {len(uv)} texture coordinates would be those of several vertices: its triangles are "
            "not the model's in the same order; get the file that belongs to this model"
        )
    return parts.tensor(uv), corners


def _read_template(path: Path, triangles: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """vt and ft of an OBJ whose triangles must be the model's; its vertices may lie elsewhere (DECA's do)."""
    lines = parts.obj_lines(path, "f ", TEXTURE_KIND, TEXTURE_WHERE)
    uv = parts.obj_numbers(path, "vt ", 2, TEXTURE_KIND, TEXTURE_WHERE)
    try:
        faces = np.array([[corner.split("/")[:2] for corner in line.split()] for line in lines], np.int64) - 1
    except ValueError:  # corners without a texture coordinate, or not three everywhere
        faces = np.zeros(0)
    if not len(uv) or faces.shape[1:] != (3, 2):
        raise ModelFileError(
            f"{path} is no {TEXTURE_KIND}: an OBJ needs lines vt, and triangles f with vertex/texture at each of three "
            f"corners; get it from {TEXTURE_WHERE}"
        )
    own = triangles.numpy()
    if len(faces) != len(own):
        raise ModelFileError(f"{path} has {len(faces)} triangles, and the model {len(own)}: it is of another mesh")
    if len(other := np.flatnonzero((faces[..., 0] != own).any(1))):
        k = int(other[0])
        raise ModelFileError(
            f"{path}: {len(other)} of {len(own)} triangles are not the model's in the same order; number {k + 1} has "
            f"vertices {faces[k, :, 0].tolist()} (from 0), and the model's {own[k].tolist()}"
        )
    return uv, faces[..., 1]


def _read_embedding(path: Path, triangles: Tensor) -> tuple[Embedding, Tensor]:
    """68 points (17 of the jaw line at yaw 0, then 51 fixed) and the vertices that the jaw line runs through.

    The table has a row for each degree of the head's yaw, 0 to 39 and then -1 to -39.
    """
    path = parts.existing(path, EMBEDDING_KIND, EMBEDDING_WHERE)
    needed = ("static_face_idx", "static_bary", "dynamic_face_idx", "dynamic_bary")
    arrays = parts.open_npz(path, EMBEDDING_KIND, needed)
    faces = [parts.index(arrays[name]) for name in ("dynamic_face_idx", "static_face_idx")]
    weights = [parts.tensor(arrays[name]) for name in ("dynamic_bary", "static_bary")]
    sizes = {"points": (faces[0].shape[-1] + len(faces[1]), 68), "weights": (weights[0].numel(), 3 * faces[0].numel())}
    parts.check_sizes(path, EMBEDDING_KIND, sizes)
    if max(int(face.max()) for face in faces) >= len(triangles):
        raise ModelFileError(f"{path} names triangles that this mesh of {len(triangles)} does not have")
    landmarks = Embedding(triangles[torch.cat([faces[0][0], faces[1]])], torch.cat([weights[0][0], weights[1]]))
    degrees = torch.cat([torch.arange(78, 39, -1), torch.arange(40)])  # rows in order of yaw, -39 to 39
    nearest = weights[0][degrees].argmax(-1, keepdim=True)
    vertices = triangles[faces[0][degrees]].gather(-1, nearest)[..., 0].T  # (17, 79)
    lines = [torch.unique_consecutive(line if j <= 8 else line.flip(0)) for j, line in enumerate(vertices)]
    longest = max(map(len, lines))
    padded = [torch.cat([line, line[-1:].expand(longest - len(line))]) for line in lines]
    return landmarks, torch.stack(padded)
