"""Where MediaPipe's 468 mesh points lie on a morphable model's surface.

Found once for a model: MediaPipe's canonical mesh is brought to the model's mean by a similarity on shared landmarks,
then bent smoothly towards the surface (Amberg et al. 2007, optimal step non-rigid ICP, with a Laplacian as stiffness),
and each vertex goes to its closest point on the surface.
"""

import hashlib
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import coo_matrix, diags, identity
from scipy.sparse.linalg import spsolve
from scipy.spatial import cKDTree
from torch import Tensor

from data_download.folders import data_folder
from facenb.assets import asset
from facenb.errors import AssetError
from facenb.files import atomic_write
from facenb.morphable.alignment import similarity
from facenb.morphable.model import Embedding, MorphableModel
from facenb.photos.landmarks import IBUG68, MESH

INNER = slice(17, 68)  # brows, nose, eyes, mouth: the same places in both; the jaw line is not
STIFFNESS = (300.0, 100.0, 30.0, 10.0, 3.0, 1.0)  # from nearly rigid to soft, a few rounds each
ROUNDS, LANDMARK_WEIGHT = 4, 3.0
VERSION = 1  # raise when the method changes: kept results are then found anew


def read_canonical(path: str | Path) -> tuple[Float[Tensor, "468 3"], Int[Tensor, "triangles 3"]]:
    """MediaPipe's canonical mesh in mm (the file holds cm). Raises AssetError for another file."""
    vertices, triangles = [], []
    try:
        for line in Path(path).read_text(encoding="utf-8").splitlines():
            words = line.split()
            if words[:1] == ["v"]:
                vertices.append([10 * float(word) for word in words[1:4]])
            elif words[:1] == ["f"]:
                triangles.append([int(word.split("/")[0]) - 1 for word in words[1:4]])
    except (OSError, ValueError, IndexError) as error:
        raise AssetError(
            f"{path} is no readable canonical face mesh ({error}); get the asset mediapipe again"
        ) from error
    if len(vertices) != MESH:
        raise AssetError(f"{path} has {len(vertices)} vertices, MediaPipe's canonical mesh has {MESH}")
    return torch.tensor(vertices), torch.tensor(triangles)


def closest_on_mesh(
    points: Float[Tensor, "points 3"], vertices: Float[Tensor, "vertices 3"], triangles: Int[Tensor, "triangles 3"]
) -> tuple[Int[Tensor, " points"], Float[Tensor, "points 3"]]:
    """Triangle and barycentrics of each point's closest surface point, among the triangles at its 8 nearest vertices.

    (Ericson 2005, section 5.1.5, written as the best of the projection into the plane and onto the three edges.)
    """
    corners = triangles.numpy()
    used = np.unique(corners)
    near = used[cKDTree(vertices.numpy()[used]).query(points.numpy(), k=8)[1]]  # (P, 8)
    order = np.argsort(corners.ravel(), kind="stable")
    start = np.searchsorted(corners.ravel()[order], np.arange(len(vertices) + 1))
    most = int(np.diff(start).max())
    place = np.minimum(start[near][..., None] + np.arange(most), start[near + 1][..., None] - 1)  # the last one repeats
    candidates = torch.from_numpy(order[place].reshape(len(points), -1) // 3)  # (P, T)
    shapes = vertices[triangles[candidates]].double()  # (P, T, 3, 3)
    target = points.double()[:, None].expand(-1, candidates.shape[1], -1).reshape(-1, 3)
    weights = _barycentric(target, shapes.flatten(0, 1)).unflatten(0, candidates.shape)  # (P, T, 4, 3)
    there = torch.einsum("ptkc,ptcd->ptkd", weights, shapes)
    best = (there - points.double()[:, None, None]).square().sum(-1).flatten(1).argmin(1)
    rows = torch.arange(len(points))
    return candidates[rows, best // 4], weights.flatten(1, 2)[rows, best].to(vertices.dtype)


def _barycentric(point: Tensor, corners: Tensor) -> Tensor:
    """Barycentrics (T, 4, 3) of four candidates, for a point (T, 3) and a triangle (T, 3, 3) each: its projection into
    the plane, where that is inside, and its closest points on the three edges."""
    candidates = []
    for first in range(3):
        second = (first + 1) % 3
        edge = corners[:, second] - corners[:, first]
        along = ((point - corners[:, first]) * edge).sum(-1) / edge.square().sum(-1).clamp(min=1e-12)
        weights = torch.zeros(len(corners), 3, dtype=corners.dtype)
        weights[:, first], weights[:, second] = 1 - along.clamp(0, 1), along.clamp(0, 1)
        candidates.append(weights)
    e1, e2, d = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0], point - corners[:, 0]
    a, b, c = (e1 * e1).sum(-1), (e1 * e2).sum(-1), (e2 * e2).sum(-1)
    det = (a * c - b * b).clamp(min=1e-12)
    p, q = (e1 * d).sum(-1), (e2 * d).sum(-1)
    v, w = (c * p - b * q) / det, (a * q - b * p) / det
    plane = torch.stack([1 - v - w, v, w], -1)
    inside = (plane >= 0).all(-1, keepdim=True)
    return torch.stack([torch.where(inside, plane, candidates[0]), *candidates], 1)


def register(
    source: Float[Tensor, "points 3"], source_triangles: Int[Tensor, "faces 3"],
    vertices: Float[Tensor, "vertices 3"], triangles: Int[Tensor, "triangles 3"],
    pairs: tuple[list[int], Float[Tensor, "pairs 3"]],
) -> Float[Tensor, "points 3"]:  # fmt: skip
    """Bend the source mesh (mm) onto a surface; `pairs` names its vertices with a known place on the surface."""
    chosen, places = pairs
    moved = similarity(source[chosen][None], places[None]).apply(source[None])[0].double().numpy()
    edges = np.concatenate([source_triangles.numpy()[:, pair] for pair in ([0, 1], [1, 2], [2, 0])])
    edges = np.unique(np.sort(edges, axis=1), axis=0)
    rows = np.repeat(np.arange(len(edges)), 2)
    difference = coo_matrix((np.tile([1.0, -1.0], len(edges)), (rows, edges.ravel())), (len(edges), len(source)))
    smooth = difference.T @ difference
    known = np.zeros(len(source))
    known[chosen] = LANDMARK_WEIGHT
    for stiffness in STIFFNESS:
        for _ in range(ROUNDS):
            triangle, weights = closest_on_mesh(torch.from_numpy(moved).float(), vertices, triangles)
            target = (weights[..., None] * vertices[triangles[triangle]]).sum(1).double().numpy()
            pull = target - moved
            wanted = np.zeros_like(pull)
            wanted[chosen] = places.double().numpy() - moved[chosen]
            system = stiffness * smooth + diags(known) + identity(len(source))
            moved = moved + spsolve(system.tocsc(), pull + known[:, None] * wanted)
    return torch.from_numpy(moved).to(vertices.dtype)


def find_embedding(model: MorphableModel, canonical: str | Path | None = None) -> Embedding:
    """MediaPipe's 468 points on the surface of the model's mean face, computed anew (seconds)."""
    path = Path(canonical) if canonical is not None else asset("mediapipe") / "canonical_face_model.obj"
    source, source_triangles = read_canonical(path)
    mean, triangles = model.mean.cpu(), model.triangles.cpu().long()
    if "face" in model.regions:  # not behind the ears, not down the neck
        inside = torch.zeros(len(mean), dtype=torch.bool)
        inside[model.regions["face"].cpu()] = True
        triangles = triangles[inside[triangles].all(1)]
    pairs = (list(IBUG68[INNER]), model.landmarks.of(mean)[INNER])
    moved = register(source, source_triangles, mean, triangles, pairs)
    triangle, weights = closest_on_mesh(moved, mean, triangles)
    return Embedding(triangles[triangle], weights)


def mediapipe_embedding(model: MorphableModel) -> Embedding:
    """MediaPipe's 468 points on the model's surface, found once and kept in the data folder."""
    canonical = asset("mediapipe") / "canonical_face_model.obj"
    content = model.mean.cpu().contiguous().numpy().tobytes() + model.triangles.cpu().contiguous().numpy().tobytes()
    key = hashlib.sha256(content + canonical.read_bytes() + bytes([VERSION])).hexdigest()[:16]
    path = data_folder() / ".embeddings" / f"mediapipe-{key}.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            return Embedding(torch.from_numpy(file["vertices"]), torch.from_numpy(file["weights"])).to(model.device)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        found = find_embedding(model, canonical)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial, partial.open("wb") as file:
        np.savez(file, vertices=found.vertices.numpy(), weights=found.weights.numpy())
    return found.to(model.device)
