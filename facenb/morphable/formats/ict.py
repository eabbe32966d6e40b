"""ICT-FaceKit Light (Li et al. 2020, "Learning Formation of Physically-Based Face Attributes"), MIT licence.

The authors' folder of OBJ files and the compact npz are both in centimetres. An identity row is the offset of one
standard deviation. An expression row is a blendshape fully applied (weights from 0 to 1). The identity modes are
orthogonal on the full mesh of 26,719 vertices, but not on the face and head kept here. We keep them as published, so
identity coefficients are N(0, 1).
"""

import json
from pathlib import Path

import numpy as np
import torch

from facenb.errors import ModelFileError
from facenb.morphable.formats import reading
from facenb.morphable.model import Embedding, MorphableModel

KIND, WHERE = "ICT-FaceKit model", "https://github.com/ICT-VGL/ICT-FaceKit"
KEPT = 11248  # vertices of face, head and neck; after them come mouth socket, teeth, eyes and lashes
REGIONS = {"narrow_face": torch.arange(6706), "face": torch.arange(9409), "head_neck": torch.arange(9409, KEPT)}
MM_PER_CM = 10.0
NEUTRAL, INDICES = "generic_neutral_mesh.obj", "vertex_indices.json"
IDENTITIES = 100
UNLISTED = ("PupilDilate_L", "PupilDilate_R", "cheekRaiser_L", "cheekRaiser_R")  # published, not in the json
NEEDED = ("v_template", "id_basis", "expr_basis", "expr_names", "faces", "uv", "uv_faces", "landmarks68")
FACTS = {"regions": REGIONS, "source": "ICT-FaceKit Light (Li et al. 2020), MIT licence"}


def read_ict(path: str | Path) -> MorphableModel:
    """Return ICT-FaceKit from its compact npz. Raise ModelFileError if the file is missing, damaged or wrong."""
    with reading.file(path, KIND, WHERE) as path:
        arrays = reading.npz(path, NEEDED)
        reading.expect("number of vertices", len(arrays["v_template"]), KEPT)
        reading.expect("number of expression names", len(arrays["expr_names"]), len(arrays["expr_basis"]))
        reading.expect("number of landmarks", len(arrays["landmarks68"]), 68)
        return reading.finish(
            "ict-facekit",
            reading.tensor(arrays["v_template"] * MM_PER_CM),
            reading.index(arrays["faces"]),
            Embedding.at(reading.index(arrays["landmarks68"])),
            identity_basis=reading.tensor(arrays["id_basis"].astype(np.float32) * MM_PER_CM),
            expression_basis=reading.tensor(arrays["expr_basis"].astype(np.float32) * MM_PER_CM),
            expression_names=tuple(map(str, arrays["expr_names"])),
            uv=reading.tensor(arrays["uv"]),
            uv_triangles=reading.index(arrays["uv_faces"]),
            **FACTS,
        )


def read_ict_folder(path: str | Path) -> MorphableModel:
    """Return ICT-FaceKit from the OBJ files in its folder FaceXModel. Quads are split; teeth and eyes are dropped.

    Raise ModelFileError with the file names if files are missing or not an OBJ of this mesh.
    """
    folder = Path(path)
    with reading.file(folder / INDICES, KIND, WHERE) as file:
        indices = json.loads(file.read_text())
        reading.require(indices, ("expressions", "idx_to_landmark_verts"))
    identities = [f"identity{k:03d}" for k in range(IDENTITIES)]
    expressions = sorted({*indices["expressions"], *UNLISTED})
    missing = [name for name in identities + expressions if not (folder / f"{name}.obj").is_file()]
    if missing:
        raise ModelFileError(
            f"{folder} lacks {len(missing)} of {IDENTITIES + len(expressions)} files: "
            f"{', '.join(f'{name}.obj' for name in missing[:20])}, ...; get all of them from {WHERE}"
        )
    with reading.file(folder / NEUTRAL, KIND, WHERE) as file:
        text = file.read_text()
        neutral = reading.obj_numbers(text, "v ", 3)
        triangles, uv, uv_triangles = _surface(text)
        return reading.finish(
            "ict-facekit",
            reading.tensor(neutral[:KEPT] * MM_PER_CM),
            reading.index(triangles),
            Embedding.at(indices["idx_to_landmark_verts"]),
            identity_basis=_offsets(folder, identities, neutral),
            expression_basis=_offsets(folder, expressions, neutral),
            expression_names=tuple(expressions),
            uv=reading.tensor(uv),
            uv_triangles=reading.index(uv_triangles),
            **FACTS,
        )


def _offsets(folder: Path, names: list[str], neutral: np.ndarray) -> torch.Tensor:
    """Return the offsets in mm of the kept vertices of each mesh from the neutral one."""
    offsets = []
    for name in names:
        with reading.file(folder / f"{name}.obj", "OBJ of ICT-FaceKit", WHERE) as path:
            vertices = reading.obj_numbers(path.read_text(), "v ", 3)
            reading.expect("number of vertices", len(vertices), len(neutral))
            offsets.append((vertices - neutral)[:KEPT] * MM_PER_CM)
    return reading.tensor(np.stack(offsets))


def _surface(text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return triangles among the kept vertices, the UV points they use and UV triangles. Polygons are cut into fans."""
    fans = []
    for words in reading.obj_lines(text, "f "):
        corners = [[int(number) - 1 for number in word.split("/")[:2]] for word in words]
        if max(vertex for vertex, _ in corners) < KEPT:
            fans += [[corners[0], corners[k], corners[k + 1]] for k in range(1, len(corners) - 1)]
    triangles, uv_triangles = np.moveaxis(np.array(fans), 2, 0)
    used, compact = np.unique(uv_triangles, return_inverse=True)
    return triangles, reading.obj_numbers(text, "vt ", 2)[used], compact.reshape(-1, 3)
