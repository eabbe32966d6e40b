"""What is where on SynthFace's mesh: the 68 landmarks, and regions found on the mean head."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from facenb.morphable.model import Embedding
from facenb.synthface.expressions import mean_head
from facenb.synthface.heads import load_heads

LANDMARKS = Path(__file__).parent / "data" / "landmarks.json"
LIP_RINGS = 8  # rings of vertices from the mouth's lining to the border of the red
# Skin below this line of (depth, height) in mm belongs to the neck: nape, ear, angle of the jaw, chin.
NECK_LINE = ((-140.0, -40.0, 0.0, 66.0), (-62.0, -48.0, -66.0, -100.0))


@cache
def landmarks() -> Embedding:
    """Return the 68 points in the order of Multi-PIE / iBUG, as `benchmarks/landmarks.py` measured them."""
    stored = json.loads(LANDMARKS.read_text())
    return Embedding(torch.tensor(stored["vertices"]), torch.tensor(stored["weights"], dtype=torch.float32))


@cache
def regions() -> dict[str, np.ndarray]:
    """Return vertex indices by the name of the region; `left` is the person's left."""
    heads, mean = load_heads(), mean_head()
    x, y, z = np.abs(mean[:, 0]), mean[:, 1], mean[:, 2]
    skin, eye = _mask(heads.part("skin")), _mask(heads.part("eye"))
    ear = skin & (_moved("l-ear-scale-incr") + _moved("r-ear-scale-incr") > 2.0)
    ear &= (np.abs(y - 1) < 36) & (np.abs(z + 24) < 26) & (x > 55)
    neck = skin & ~ear & (y < np.interp(z, *NECK_LINE))
    scalp = skin & ~ear & ~neck & ((y > 74) | ((z < -30) & (y > 0)) | ((z < 5) & (y > 40)) | (z < -50))
    face = _largest(skin & ~ear & ~neck & ~scalp & (z > 5) | _mask(landmarks().vertices.numpy()))
    ear, neck, scalp = (mask & ~face for mask in (ear, neck, scalp))
    inside = [_mask(heads.part(name)) for name in ("mouth", "tongue", "upper_teeth", "lower_teeth")]
    masks = dict(
        face=face,
        nose=face & (_moved("nose-trans-forward") > 2.5),
        brows=face & (_from_brow_line(mean) < 4.5),
        lips=skin & _around(heads.part("mouth"), LIP_RINGS),
        ears=ear,
        neck=neck,
        scalp=scalp,
        skin=skin,
        eyelids=face & (((x - 31.0) / 18) ** 2 + ((y - 21.5) / 11) ** 2 < 1) & (z > 40),
        left_eye=eye & (mean[:, 0] > 0),
        right_eye=eye & (mean[:, 0] < 0),
        mouth_inside=np.logical_or.reduce(inside),
        forehead=face & (y > 52),
        chin=face & (y < -66) & (x < 25) & (z > 40),
        cheeks=face & (x > 25) & (y < 8) & (y > -60),
    )
    return {name: np.flatnonzero(mask) for name, mask in masks.items()}


def _mask(vertices: np.ndarray) -> np.ndarray:
    return np.isin(np.arange(len(mean_head())), vertices)


def _largest(mask: np.ndarray) -> np.ndarray:
    """Return the mask (V,) of the largest connected part of the triangles that lie wholly in a mask."""
    triangles = load_heads().triangles
    inside = triangles[mask[triangles].all(1)]
    links = coo_array((np.ones(len(inside)), (inside[:, 0], inside[:, 1])), shape=(len(mask), len(mask)))
    links += coo_array((np.ones(len(inside)), (inside[:, 1], inside[:, 2])), shape=(len(mask), len(mask)))
    part = connected_components(links, directed=False)[1]
    return part == np.bincount(part[inside[:, 0]]).argmax()


def _moved(change: str) -> np.ndarray:
    """Return how far (V,) in mm a local change moves each vertex."""
    heads = load_heads()
    row = heads.changes[[2 * heads.change_names.index(change)]].toarray()
    return np.linalg.norm(row.reshape(-1, 3), axis=1)


def _around(vertices: np.ndarray, rings: int) -> np.ndarray:
    """Return the mask (V,) of the vertices within so many edges, without the vertices themselves."""
    triangles, start = load_heads().triangles, _mask(vertices)
    near = start.copy()
    for _ in range(rings):
        near[triangles[near[triangles].any(1)]] = True
    return near & ~start


def _from_brow_line(mean: np.ndarray) -> np.ndarray:
    """Return the distance (V,) in mm, seen from the front, to the lines through the landmarks of a brow."""
    marks = landmarks().of(torch.from_numpy(mean))[17:27, :2].numpy()
    distances = []
    for a, b in [(k, k + 1) for k in range(9) if k != 4]:
        along = marks[b] - marks[a]
        share = np.clip((mean[:, :2] - marks[a]) @ along / (along @ along), 0, 1)
        distances.append(np.linalg.norm(mean[:, :2] - marks[a] - share[:, None] * along, axis=1))
    return np.where(mean[:, 2] > 30, np.min(distances, 0), np.inf)
