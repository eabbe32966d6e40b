"""MakeHuman's heads of `data/heads.safetensors` (`bake/makehuman.py`), with the landmarks and regions of their mesh.

Vertices are in mm on the project's axes. `bake/landmarks.py` computed the landmarks, the regions and the edges of the
lids.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from scipy.sparse import bsr_array, csr_array

from facenb.morphable.model import Embedding

DATA = Path(__file__).parent / "data"
COMPONENTS = ("skin", "socket", "mouth", "tongue", "eye", "upper_teeth", "lower_teeth")
PATH, LANDMARKS, REGIONS = DATA / "heads.safetensors", DATA / "landmarks.json", DATA / "regions.json"


@dataclass(frozen=True)
class Heads:
    """The baked data. `left` is the person's left, at positive x; V vertices."""

    corners: np.ndarray  # (2 x 2 x 3 x 3, 3 V): heads by sex, age, muscle, weight, without ancestry
    ancestry: np.ndarray  # (3 x 2 x 2, 3 V): displacement of each ancestry (African, Asian, Caucasian) by sex, age
    changes: csr_array  # (2 C, 3 V): each local change at +1, then at -1
    change_names: tuple[str, ...]  # C names; "l-" and "r-" for left and right
    actions: csr_array  # (A, 3 V): facial actions fully applied; jawOpen without its turn
    action_names: tuple[str, ...]
    jaw_share: np.ndarray  # (V,) in [0, 1]: how far a vertex turns with the jaw
    jaw_angle: float  # radians of the turn at jawOpen = 1
    jaw_hinge: np.ndarray  # (3,) on the mean head
    triangles: np.ndarray  # (T, 3) counter-clockwise from outside
    component: np.ndarray  # (V,) index into COMPONENTS
    mirror: np.ndarray  # (V,) the vertex at the mirrored position
    uv: np.ndarray  # (N, 2) float32 in [0, 1], origin bottom left: see `atlas`
    uv_triangles: np.ndarray  # (T, 3) into uv
    occlusion: np.ndarray  # (V,) float32: share of a vertex's outer hemisphere that the head does not hide

    def part(self, name: str) -> np.ndarray:
        """Return the vertices of a component."""
        return np.flatnonzero(self.component == COMPONENTS.index(name))

    def neutral(self, sex: float, age: float, muscle: float, weight: float, ancestry, changes) -> np.ndarray:
        """Return vertices (V, 3) of a head. Values are in [0, 1] as in MakeHuman; age 0 is 25 years, age 1 is 90.

        The table is interpolated along each axis, so the head is not a linear function of the values. `ancestry` (3,)
        sums to 1, `changes` (C,) lie in [-1, 1].
        """
        by_sex, by_age, by_muscle, by_weight = (_hat(x, n) for x, n in ((sex, 2), (age, 2), (muscle, 3), (weight, 3)))
        sex_age = np.outer(by_sex, by_age).ravel()
        shared = np.outer(sex_age, np.outer(by_muscle, by_weight)).ravel() @ self.corners
        head = shared + np.outer(ancestry, sex_age).ravel() @ self.ancestry
        both = np.stack([np.maximum(changes, 0.0), np.maximum(-np.asarray(changes), 0.0)], 1).ravel()
        return (head + both @ self.changes).reshape(-1, 3)


def _hat(value: float, count: int) -> np.ndarray:
    """Return the weights of linear interpolation between `count` points spread evenly over [0, 1]."""
    return np.maximum(1.0 - np.abs(value * (count - 1) - np.arange(count)), 0.0)


@cache
def load_heads() -> Heads:
    """Read the baked data in float64 (do not write to it)."""
    with safe_open(PATH, "np") as file:
        names = json.loads(file.metadata()["names"])
        arrays = {key: file.get_tensor(key) for key in file.keys()}
    vertices = len(arrays["component"])

    def shapes(prefix: str) -> csr_array:
        values, columns, starts = (arrays[f"{prefix}_{name}"] for name in ("values", "vertices", "starts"))
        blocks = values.astype(float)[:, None], columns.astype(np.int32), starts  # a block of a row: one vertex
        return bsr_array(blocks, shape=(len(starts) - 1, 3 * vertices)).tocsr()

    return Heads(
        corners=arrays["corners"].reshape(36, -1).astype(float),
        ancestry=arrays["ancestry"].reshape(12, -1).astype(float),
        changes=shapes("change"),
        change_names=tuple(names["changes"]),
        actions=shapes("action"),
        action_names=tuple(names["actions"]),
        jaw_angle=float(arrays["jaw_angle"][0]),
        **{name: arrays[name].astype(float) for name in ("jaw_share", "jaw_hinge")},
        **{name: arrays[name].astype(np.int64) for name in ("triangles", "mirror", "uv_triangles")},
        **{name: arrays[name] for name in ("component", "uv", "occlusion")},
    )


@cache
def mean_head() -> np.ndarray:
    """Return the head (V, 3) of average traits without local changes, mm (do not write to it)."""
    heads = load_heads()
    return heads.neutral(0.5, 0.2, 0.5, 0.5, np.full(3, 1 / 3), np.zeros(len(heads.change_names)))


@cache
def landmarks() -> Embedding:
    """Return the 68 points in the order of Multi-PIE / iBUG."""
    stored = json.loads(LANDMARKS.read_text())
    return Embedding(torch.tensor(stored["vertices"]), torch.tensor(stored["weights"], dtype=torch.float32))


@cache
def regions() -> dict[str, np.ndarray]:
    """Return vertex indices by the name of the region; `left` is the person's left."""
    return {name: np.array(vertices) for name, vertices in json.loads(REGIONS.read_text())["regions"].items()}


@cache
def lid_rims() -> list[list[np.ndarray]]:
    """Return the front edges of the upper and the lower lid, first of the left eye, then of the right; x increases."""
    return [[np.array(rim) for rim in eye] for eye in json.loads(REGIONS.read_text())["lid_rims"]]
