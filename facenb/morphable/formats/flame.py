"""FLAME (Li et al. 2017): versions 2020 and 2023 as published (pickles), and an npz of the 2023 Open mean and basis.

The files are in metres. The basis has 300 identity components, followed by the expression components. All are scaled
by their standard deviations. Texture coordinates come from a separate file, available from DECA's repository or FLAME's
page. Downloading the pickles needs registration.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from facenb.morphable.formats import reading
from facenb.morphable.formats.safe_pickle import read_plain
from facenb.morphable.model import Embedding, Joints, MorphableModel

EMBEDDING_WHERE = "https://github.com/soubhiksanyal/RingNet (flame_model)"
TEXTURE_WHERE = (
    "https://github.com/yfeng95/DECA (data/head_template.obj) or https://flame.is.tue.mpg.de (texture space)"
)
SHARED = 0.05  # largest fraction of texture coordinates shared by vertices; nearly 1 if the order differs
SOURCE = "FLAME 2020/2023 (Li et al. 2017), Max Planck Institute, non-commercial, no redistribution"
SOURCE_OPEN = "FLAME 2023 Open (Li et al. 2017), Max Planck Institute, CC-BY-4.0 with restrictions on use"
JOINTS = ("global", "neck", "jaw", "left_eye", "right_eye")
PICKLED = ("v_template", "f", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table")
IDENTITIES = 300
MM = 1e3  # metres to mm


def read_flame(
    path: str | Path, embedding: str | Path | None = None, texture: str | Path | None = None
) -> MorphableModel:
    """Return FLAME from its pickle, without running its code, or from the npz of FLAME 2023 Open (without joints).

    The 68 landmarks come from `embedding` (npz), and the texture coordinates from `texture` (`head_template.obj` or
    `FLAME_texture.npz`). The default is a file of that name in the model's folder. Raise ModelFileError if a file is
    missing, damaged, unsafe or of another kind, or if the texture coordinates are for another mesh.
    """
    with reading.file(path, "FLAME model", "https://flame.is.tue.mpg.de") as path:
        if reading.starts_with(path, reading.ZIP):
            content = reading.npz(path, ("v_template", "shapedirs", "faces"))
            triangles, joints, source = reading.index(content["faces"]), None, SOURCE_OPEN
        else:
            content = read_plain(path)
            reading.expect("what it holds", type(content).__name__, "dict")
            reading.require(content, PICKLED)
            triangles, joints, source = reading.index(content["f"]), _joints(content), SOURCE
        mean, directions = np.asarray(content["v_template"]), np.asarray(content["shapedirs"])
        reading.expect("number of vertices of shapedirs", len(directions), len(mean))
        basis = reading.rows(directions.reshape(mean.size, -1), 1.0, MM)
        embedding = reading.beside(path, embedding, "flame_landmark_embedding.npz")
        texture = reading.beside(path, texture, "head_template.obj", "FLAME_texture.npz")
        landmarks, contour = (None, None) if embedding is None else _read_embedding(embedding, triangles)
        uv, uv_triangles = (None, None) if texture is None else _read_texture(texture, triangles)
        return reading.finish(
            "flame",
            reading.tensor(mean * MM),
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


def _joints(content: dict) -> Joints:
    regressor, vertices = content["J_regressor"], len(content["v_template"])
    regressor = np.asarray(regressor.toarray() if hasattr(regressor, "toarray") else regressor)
    count = len(regressor)
    parents = [-1, *np.asarray(content["kintree_table"])[0, 1:].astype(np.int64).tolist()]  # the root's is 2^32 - 1
    if len(parents) != count or any(not 0 <= parent < joint for joint, parent in enumerate(parents) if joint):
        raise ValueError(f"the parents of its {count} joints are {parents}")
    weights, correctives = np.asarray(content["weights"]), np.asarray(content["posedirs"])
    reading.expect("shape of J_regressor", regressor.shape, (count, vertices))
    reading.expect("shape of weights", weights.shape, (vertices, count))
    reading.expect("size of posedirs", correctives.size, 27 * vertices * (count - 1))
    correctives = correctives.reshape(-1, 9 * (count - 1)).T * MM  # feature-major, as smplx uses it
    return Joints(
        names=JOINTS if count == len(JOINTS) else tuple(f"joint_{j}" for j in range(count)),
        parents=tuple(parents),
        regressor=reading.tensor(regressor),
        weights=reading.tensor(weights),
        correctives=reading.tensor(correctives.reshape(len(correctives), -1, 3)),
    )


def _read_texture(path: str | Path, triangles: Tensor) -> tuple[Tensor, Tensor]:
    """Return texture coordinates (origin bottom left), and their triangles in the order of the model's triangles."""
    with reading.file(path, "file of FLAME's texture coordinates", TEXTURE_WHERE) as path:
        if reading.starts_with(path, reading.ZIP):
            arrays = reading.npz(path, ("vt", "ft"))
            uv, corners = arrays["vt"], arrays["ft"]
        else:
            uv, corners = _read_template(path, triangles)
        reading.expect("number of columns of vt", uv.shape[1], 2)
        reading.expect("shape of ft", corners.shape, tuple(triangles.shape))
        corners = reading.index(corners)
        reading.check_indices("triangles name texture coordinates", corners, len(uv))
        owners = torch.stack([corners.flatten(), triangles.flatten()], 1).unique(dim=0)[:, 0].bincount()
        if (shared := int((owners > 1).sum())) > SHARED * len(uv):
            raise ValueError(
                f"{shared} of {len(uv)} texture coordinates would belong to several vertices: its triangles are not "
                "the model's in the same order"
            )
        return reading.tensor(uv), corners


def _read_template(path: Path, triangles: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return vt and ft of an OBJ with the model's triangles. Its vertex positions may differ (DECA's do)."""
    text = path.read_text(errors="replace")
    uv, lines = reading.obj_numbers(text, "vt ", 2), reading.obj_lines(text, "f ")
    if not len(uv) or any(len(words) != 3 or any("/" not in word for word in words) for words in lines):
        raise ValueError("it needs lines vt, and triangles f with vertex/texture at each of three corners")
    faces = np.array([[word.split("/")[:2] for word in words] for words in lines], np.int64) - 1
    reading.expect("number of triangles", len(faces), len(triangles))
    if other := int((faces[..., 0] != triangles.numpy()).any(1).sum()):
        raise ValueError(f"{other} of {len(faces)} triangles are not the model's in the same order")
    return uv, faces[..., 1]


def _read_embedding(path: str | Path, triangles: Tensor) -> tuple[Embedding, Tensor]:
    """Return 68 points (17 of the jaw line at yaw 0, then 51 fixed) and the vertices along which the jaw line moves.

    The table has a row for each degree of the head's yaw, 0 to 39 and then -1 to -39.
    """
    with reading.file(path, "FLAME landmark embedding", EMBEDDING_WHERE) as path:
        arrays = reading.npz(path, ("static_face_idx", "static_bary", "dynamic_face_idx", "dynamic_bary"))
        faces = [reading.index(arrays[name]) for name in ("dynamic_face_idx", "static_face_idx")]
        weights = [reading.tensor(arrays[name]) for name in ("dynamic_bary", "static_bary")]
        reading.expect("number of points", faces[0].shape[-1] + len(faces[1]), 68)
        reading.check_indices("points name triangles", torch.cat([face.flatten() for face in faces]), len(triangles))
        landmarks = Embedding(triangles[torch.cat([faces[0][0], faces[1]])], torch.cat([weights[0][0], weights[1]]))
        degrees = torch.cat([torch.arange(78, 39, -1), torch.arange(40)])  # rows in order of yaw, -39 to 39
        nearest = weights[0][degrees].argmax(-1, keepdim=True)
        vertices = triangles[faces[0][degrees]].gather(-1, nearest)[..., 0].T  # (17, 79)
        lines = [torch.unique_consecutive(line if j <= 8 else line.flip(0)) for j, line in enumerate(vertices)]
        longest = max(map(len, lines))
        return landmarks, torch.stack([torch.cat([line, line[-1:].expand(longest - len(line))]) for line in lines])
