"""ICT-FaceKit Light (Li et al. 2020, "Learning Formation of Physically-Based Face Attributes"), MIT licence.

Two forms of the same model: the folder of OBJ files as its authors publish it, and a compact npz of it. Both hold
centimetres. An identity row is one standard deviation; an expression row is the blendshape fully applied (weights
from 0 to 1). The identity modes are orthogonal on the authors' full mesh of 26,719 vertices and not on the face and
head kept here: they stay as published, so that coefficients still are N(0, 1).
"""

import json
from pathlib import Path

import numpy as np
import torch

from facenb.errors import ModelFileError
from facenb.morphable.formats import parts
from facenb.morphable.model import Embedding, MorphableModel

KIND, WHERE = "ICT-FaceKit model", "https://github.com/ICT-VGL/ICT-FaceKit"
SOURCE = "ICT-FaceKit Light (Li et al. 2020), MIT licence"
KEPT = 11248  # vertices of face, head and neck; behind them come mouth socket, teeth, eyes and lashes
REGIONS = {"narrow_face": (0, 6706), "face": (0, 9409), "head_neck": (9409, KEPT)}
MM_PER_CM = 10.0
NEUTRAL, INDICES = "generic_neutral_mesh.obj", "vertex_indices.json"
IDENTITIES = 100
UNLISTED = ("PupilDilate_L", "PupilDilate_R", "cheekRaiser_L", "cheekRaiser_R")  # published, not in the json


def read_ict(path: str | Path) -> MorphableModel:
    """ICT-FaceKit from its compact npz. Raises ModelFileError for a missing, damaged or other file."""
    path = parts.existing(path, KIND, WHERE)
    needed = ("v_template", "id_basis", "expr_basis", "expr_names", "faces", "uv", "uv_faces", "landmarks68")
    arrays = parts.open_npz(path, KIND, needed)
    ranges = {key[:-13]: arrays[key] for key in arrays if key.endswith("_vertex_range")}
    count = len(arrays["v_template"])
    sizes = {f"vertices of {name}": (arrays[name].shape[1], count) for name in ("id_basis", "expr_basis")}
    sizes["number of expression names"] = (len(arrays["expr_names"]), len(arrays["expr_basis"]))
    parts.check_sizes(path, KIND, sizes | {"number of landmarks": (len(arrays["landmarks68"]), 68)})
    mean = parts.tensor(arrays["v_template"] * MM_PER_CM)
    triangles = parts.index(arrays["faces"])
    return parts.finish(
        path,
        "ict-facekit",
        mean,
        triangles,
        Embedding.at(parts.index(arrays["landmarks68"])),
        identity_basis=parts.tensor(arrays["id_basis"].astype(np.float32) * MM_PER_CM),
        expression_basis=parts.tensor(arrays["expr_basis"].astype(np.float32) * MM_PER_CM),
        expression_names=tuple(map(str, arrays["expr_names"])),
        uv=parts.tensor(arrays["uv"]),
        uv_triangles=parts.index(arrays["uv_faces"]),
        regions={name: torch.arange(int(first), int(last)) for name, (first, last) in ranges.items()},
        source=SOURCE,
    )


def read_ict_folder(path: str | Path, partial: bool = False) -> MorphableModel:
    """ICT-FaceKit from its folder FaceXModel of OBJ files; quads become two triangles, teeth and eyes are left out.

    `partial` accepts a folder that lacks identities or expressions and gives a model of what is there. Raises
    ModelFileError that names missing files, or a file that is no OBJ of this mesh.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise ModelFileError(f"there is no folder of an {KIND} at {folder}; get it from {WHERE}")
    indices = _indices(parts.existing(folder / INDICES, KIND, WHERE))
    identities = [f"identity{k:03d}" for k in range(IDENTITIES)]
    expressions = sorted({*indices["expressions"], *UNLISTED})
    missing = [name for name in identities + expressions if not (folder / f"{name}.obj").is_file()]
    if missing and not partial:
        raise ModelFileError(
            f"{folder} lacks {len(missing)} of {IDENTITIES + len(expressions)} files: "
            f"{', '.join(f'{name}.obj' for name in missing[:20])}{' ...' if len(missing) > 20 else ''}; "
            f"get them from {WHERE} or read what is there with partial=True"
        )
    neutral = _vertices(folder / NEUTRAL)
    if len(neutral) < KEPT:
        raise ModelFileError(f"{folder / NEUTRAL} has {len(neutral)} vertices, at least {KEPT} are needed")
    offsets = {
        name: _offset(folder / f"{name}.obj", neutral) for name in identities + expressions if name not in missing
    }
    triangles, uv, uv_triangles = _surface(folder / NEUTRAL)
    names = tuple(name for name in expressions if name in offsets)
    empty = np.zeros((0, KEPT, 3))
    return parts.finish(
        folder,
        "ict-facekit",
        parts.tensor(neutral[:KEPT] * MM_PER_CM),
        parts.index(triangles),
        Embedding.at(indices["idx_to_landmark_verts"]),
        identity_basis=parts.tensor(np.stack([offsets[n] for n in identities if n in offsets] or empty)),
        expression_basis=parts.tensor(np.stack([offsets[n] for n in names] or empty)),
        expression_names=names,
        uv=parts.tensor(uv),
        uv_triangles=parts.index(uv_triangles),
        regions={name: torch.arange(first, last) for name, (first, last) in REGIONS.items()},
        source=SOURCE,
    )


def _indices(path: Path) -> dict:
    try:
        indices = json.loads(path.read_text())
    except ValueError as error:
        raise ModelFileError(f"{path} is no readable json file ({error}); fetch it again") from error
    parts.require(indices, ("expressions", "idx_to_landmark_verts"), path, KIND)
    return indices


def _vertices(path: Path) -> np.ndarray:
    return parts.obj_numbers(path, "v ", 3, KIND, WHERE)


def _offset(path: Path, neutral: np.ndarray) -> np.ndarray:
    """Offset in mm of the kept vertices from the neutral mesh."""
    vertices = _vertices(path)
    parts.check_sizes(path, "OBJ of ICT-FaceKit", {"number of vertices": (len(vertices), len(neutral))})
    return (vertices - neutral)[:KEPT] * MM_PER_CM


def _surface(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Triangles among the kept vertices, the UV points they use and the UV triangles; polygons are cut as fans."""
    fans, uv_fans = [], []
    for line in parts.obj_lines(path, "f ", KIND, WHERE):
        corners = [[int(number) - 1 for number in corner.split("/")[:2]] for corner in line.split()]
        if max(corner[0] for corner in corners) >= KEPT:
            continue
        for k in range(1, len(corners) - 1):
            fans.append([corners[j][0] for j in (0, k, k + 1)])
            uv_fans.append([corners[j][1] for j in (0, k, k + 1)])
    used, compact = np.unique(np.array(uv_fans), return_inverse=True)
    return np.array(fans), parts.obj_numbers(path, "vt ", 2, KIND, WHERE)[used], compact.reshape(-1, 3)
