"""ICT-FaceKit Light (Li et al. 2020, "Learning Formation of Physically-Based Face Attributes"), MIT licence.

It has two forms: the folder of OBJ files as its authors publish it, and a compact npz. Both hold centimetres. An
identity row is one standard deviation. An expression row is the blendshape fully applied (weights from 0 to 1). The
identity modes are orthogonal on the authors' full mesh of 26,719 vertices, but not on the face and head kept here. We
keep them as published, so that coefficients are N(0, 1).
"""

import json
from functools import partial
from pathlib import Path

import numpy as np
import torch

from facenb.errors import ModelFileError
from facenb.morphable.formats.reading import (
    expect,
    finish,
    index,
    obj_lines,
    obj_numbers,
    read_npz,
    reading,
    require,
    tensor,
)
from facenb.morphable.model import Embedding, MorphableModel

KIND, WHERE = "ICT-FaceKit model", "https://github.com/ICT-VGL/ICT-FaceKit"
KEPT = 11248  # vertices of face, head and neck; after them come mouth socket, teeth, eyes and lashes
REGIONS = {"narrow_face": torch.arange(6706), "face": torch.arange(9409), "head_neck": torch.arange(9409, KEPT)}
MM_PER_CM = 10.0
NEUTRAL, INDICES = "generic_neutral_mesh.obj", "vertex_indices.json"
IDENTITIES = 100
UNLISTED = ("PupilDilate_L", "PupilDilate_R", "cheekRaiser_L", "cheekRaiser_R")  # published, not in the json
NEEDED = ("v_template", "id_basis", "expr_basis", "expr_names", "faces", "uv", "uv_faces", "landmarks68")

_finish = partial(finish, "ict-facekit", regions=REGIONS, source="ICT-FaceKit Light (Li et al. 2020), MIT licence")


def read_ict(path: str | Path) -> MorphableModel:
    """Return ICT-FaceKit from its compact npz. Raise ModelFileError for a missing, damaged or other file."""
    with reading(path, KIND, WHERE) as path:
        arrays = read_npz(path, NEEDED)
        expect("number of vertices", len(arrays["v_template"]), KEPT)
        expect("number of expression names", len(arrays["expr_names"]), len(arrays["expr_basis"]))
        expect("number of landmarks", len(arrays["landmarks68"]), 68)
        return _finish(
            tensor(arrays["v_template"] * MM_PER_CM),
            index(arrays["faces"]),
            Embedding.at(index(arrays["landmarks68"])),
            identity_basis=tensor(arrays["id_basis"].astype(np.float32) * MM_PER_CM),
            expression_basis=tensor(arrays["expr_basis"].astype(np.float32) * MM_PER_CM),
            expression_names=tuple(map(str, arrays["expr_names"])),
            uv=tensor(arrays["uv"]),
            uv_triangles=index(arrays["uv_faces"]),
        )


def read_ict_folder(path: str | Path) -> MorphableModel:
    """Return ICT-FaceKit from its folder FaceXModel of OBJ files, with triangles for quads, without teeth and eyes.

    Raise ModelFileError, with their names, if files are missing or are no OBJ of this mesh.
    """
    folder = Path(path)
    with reading(folder / INDICES, KIND, WHERE) as file:
        indices = json.loads(file.read_text())
        require(indices, ("expressions", "idx_to_landmark_verts"))
    identities = [f"identity{k:03d}" for k in range(IDENTITIES)]
    expressions = sorted({*indices["expressions"], *UNLISTED})
    missing = [name for name in identities + expressions if not (folder / f"{name}.obj").is_file()]
    if missing:
        raise ModelFileError(
            f"{folder} lacks {len(missing)} of {IDENTITIES + len(expressions)} files: "
            f"{', '.join(f'{name}.obj' for name in missing[:20])}, ...; get all of them from {WHERE}"
        )
    with reading(folder / NEUTRAL, KIND, WHERE) as file:
        text = file.read_text()
        neutral = obj_numbers(text, "v ", 3)
        triangles, uv, uv_triangles = _surface(text)
        return _finish(
            tensor(neutral[:KEPT] * MM_PER_CM),
            index(triangles),
            Embedding.at(indices["idx_to_landmark_verts"]),
            identity_basis=tensor(np.stack([_offset(folder / f"{name}.obj", neutral) for name in identities])),
            expression_basis=tensor(np.stack([_offset(folder / f"{name}.obj", neutral) for name in expressions])),
            expression_names=tuple(expressions),
            uv=tensor(uv),
            uv_triangles=index(uv_triangles),
        )


def _offset(path: Path, neutral: np.ndarray) -> np.ndarray:
    """Return the offset in mm of the kept vertices from the neutral mesh."""
    with reading(path, "OBJ of ICT-FaceKit", WHERE) as path:
        vertices = obj_numbers(path.read_text(), "v ", 3)
        expect("number of vertices", len(vertices), len(neutral))
        return (vertices - neutral)[:KEPT] * MM_PER_CM


def _surface(text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return triangles among the kept vertices, the UV points they use and UV triangles. Polygons are cut into fans."""
    fans = []
    for words in obj_lines(text, "f "):
        corners = [[int(number) - 1 for number in word.split("/")[:2]] for word in words]
        if max(vertex for vertex, _ in corners) < KEPT:
            fans += [[corners[0], corners[k], corners[k + 1]] for k in range(1, len(corners) - 1)]
    triangles, uv_triangles = np.moveaxis(np.array(fans), 2, 0)
    used, compact = np.unique(uv_triangles, return_inverse=True)
    return triangles, obj_numbers(text, "vt ", 2)[used], compact.reshape(-1, 3)
