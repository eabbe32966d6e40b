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

from facenb.morphable.formats.reading import (
    NO_LANDMARKS,
    expect,
    finish,
    index,
    obj_lines,
    obj_numbers,
    read_npz,
    reader,
    reading,
    require,
    rows,
    tensor,
)
from facenb.morphable.formats.safe_pickle import read_pickle
from facenb.morphable.model import Embedding, Joints, MorphableModel

KIND, WHERE = "FLAME model", "https://flame.is.tue.mpg.de"
EMBEDDING_KIND, EMBEDDING_WHERE = "FLAME landmark embedding", "https://github.com/soubhiksanyal/RingNet (flame_model)"
EMBEDDINGS = ("flame_landmark_embedding.npz",)  # looked for beside the model
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


@reader(KIND, WHERE)
def read_flame(
    path: str | Path, embedding: str | Path | None = None, texture: str | Path | None = None
) -> MorphableModel:
    """Return FLAME from its pickle, with joints; 68 landmarks from `embedding` (npz), by default from beside the model.

    Texture coordinates come from `texture` (`head_template.obj` or `FLAME_texture.npz`) or from such a file beside the
    model. Nothing in the pickle is run. Raise ModelFileError for a missing, damaged, other or hostile file, and for
    texture coordinates of another mesh.
    """
    content = read_pickle(path)
    require(content, ("v_template", "f", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table"))
    mean = np.asarray(content["v_template"])
    return _finish(path, mean, content["shapedirs"], content["f"], embedding, texture, _joints(content), SOURCE)


@reader(KIND, WHERE)
def read_flame_npz(
    path: str | Path, embedding: str | Path | None = None, texture: str | Path | None = None
) -> MorphableModel:
    """Return FLAME's mean and first identity components from an npz (v_template, shapedirs, faces); it has no joints.

    `embedding` and `texture` as for `read_flame`. Raise ModelFileError for a missing, damaged or other file.
    """
    mean, basis, faces = read_npz(path, ("v_template", "shapedirs", "faces")).values()
    return _finish(path, mean, basis, faces, embedding, texture, None, SOURCE_OPEN)


def _joints(content: dict) -> Joints:
    regressor, vertices = content["J_regressor"], len(content["v_template"])
    regressor = np.asarray(regressor.toarray() if hasattr(regressor, "toarray") else regressor)
    count = len(regressor)
    parents = [-1, *np.asarray(content["kintree_table"])[0, 1:].astype(np.int64).tolist()]  # the root's is 2^32 - 1
    if len(parents) != count or any(not 0 <= parent < joint for joint, parent in enumerate(parents) if joint):
        raise ValueError(f"the parents of its {count} joints are {parents}")
    weights, correctives = np.asarray(content["weights"]), np.asarray(content["posedirs"])
    expect("shape of J_regressor", regressor.shape, (count, vertices))
    expect("shape of weights", weights.shape, (vertices, count))
    expect("size of posedirs", correctives.size, 27 * vertices * (count - 1))
    correctives = correctives.reshape(-1, 9 * (count - 1)).T * MM  # feature-major, as smplx uses it
    return Joints(
        names=JOINTS if count == len(JOINTS) else tuple(f"joint_{j}" for j in range(count)),
        parents=tuple(parents),
        regressor=tensor(regressor),
        weights=tensor(weights),
        correctives=tensor(correctives.reshape(len(correctives), -1, 3)),
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
    """Return the model in mm, with landmarks, contour and texture coordinates where files of them are known."""
    triangles, directions = index(faces), np.asarray(directions)
    expect("number of vertices of shapedirs", len(directions), len(mean))
    basis = rows(directions.reshape(mean.size, -1), 1.0, MM)
    embedding, texture = embedding or _beside(path, EMBEDDINGS), texture or _beside(path, TEXTURES)
    landmarks, contour = (NO_LANDMARKS, None) if embedding is None else _read_embedding(embedding, triangles)
    uv, uv_triangles = (None, None) if texture is None else _read_texture(texture, triangles)
    return finish(
        "flame",
        tensor(mean * MM),
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


def _beside(path: Path, names: tuple[str, ...]) -> Path | None:
    """Return the first file of these names that lies beside the model."""
    return next((path.with_name(name) for name in names if path.with_name(name).is_file()), None)


def _read_texture(path: str | Path, triangles: Tensor) -> tuple[Tensor, Tensor]:
    """Return texture coordinates (origin bottom left), and their triangles in the order of the model's."""
    with reading(path, TEXTURE_KIND, TEXTURE_WHERE) as path:
        if path.read_bytes()[:4] == b"PK\x03\x04":
            uv, corners = read_npz(path, ("vt", "ft")).values()
        else:
            uv, corners = _read_template(path, triangles)
        expect("number of columns of vt", uv.shape[1], 2)
        expect("shape of ft", corners.shape, tuple(triangles.shape))
        corners = index(corners)
        if not 0 <= int(corners.min()) <= int(corners.max()) < len(uv):
            low, high = int(corners.min()), int(corners.max())
            raise ValueError(f"its triangles name texture coordinates {low} to {high}, but there are {len(uv)}")
        owners = torch.stack([corners.flatten(), triangles.flatten()], 1).unique(dim=0)[:, 0].bincount()
        if (shared := int((owners > 1).sum())) > SHARED * len(uv):
            raise ValueError(
                f"{shared} of {len(uv)} texture coordinates would be those of several vertices: its triangles are not "
                "the model's in the same order"
            )
        return tensor(uv), corners


def _read_template(path: Path, triangles: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return vt and ft of an OBJ whose triangles must be the model's; its vertices may lie elsewhere (DECA's do)."""
    text = path.read_text(errors="replace")
    uv, lines = obj_numbers(text, "vt ", 2), obj_lines(text, "f ")
    if not len(uv) or any(len(words) != 3 or any("/" not in word for word in words) for words in lines):
        raise ValueError("it needs lines vt, and triangles f with vertex/texture at each of three corners")
    faces = np.array([[word.split("/")[:2] for word in words] for words in lines], np.int64) - 1
    expect("number of triangles", len(faces), len(triangles))
    other = int((faces[..., 0] != triangles.numpy()).any(1).sum())
    if other:
        raise ValueError(f"{other} of {len(faces)} triangles are not the model's in the same order")
    return uv, faces[..., 1]


def _read_embedding(path: str | Path, triangles: Tensor) -> tuple[Embedding, Tensor]:
    """Return 68 points (17 of the jaw line at yaw 0, then 51 fixed) and the vertices that the jaw line runs through.

    The table has a row for each degree of the head's yaw, 0 to 39 and then -1 to -39.
    """
    with reading(path, EMBEDDING_KIND, EMBEDDING_WHERE) as path:
        arrays = read_npz(path, ("static_face_idx", "static_bary", "dynamic_face_idx", "dynamic_bary"))
        faces = [index(arrays[name]) for name in ("dynamic_face_idx", "static_face_idx")]
        weights = [tensor(arrays[name]) for name in ("dynamic_bary", "static_bary")]
        expect("number of points", faces[0].shape[-1] + len(faces[1]), 68)
        if min(int(face.min()) for face in faces) < 0 or max(int(face.max()) for face in faces) >= len(triangles):
            raise ValueError(f"it names triangles that this mesh of {len(triangles)} does not have")
        landmarks = Embedding(triangles[torch.cat([faces[0][0], faces[1]])], torch.cat([weights[0][0], weights[1]]))
        degrees = torch.cat([torch.arange(78, 39, -1), torch.arange(40)])  # rows in order of yaw, -39 to 39
        nearest = weights[0][degrees].argmax(-1, keepdim=True)
        vertices = triangles[faces[0][degrees]].gather(-1, nearest)[..., 0].T  # (17, 79)
        lines = [torch.unique_consecutive(line if j <= 8 else line.flip(0)) for j, line in enumerate(vertices)]
        longest = max(map(len, lines))
        return landmarks, torch.stack([torch.cat([line, line[-1:].expand(longest - len(line))]) for line in lines])
