"""Where MediaPipe's 468 mesh points lie on the surface of a morphable model.

MediaPipe's canonical mesh is aligned with the model's mean face by a similarity on shared landmarks, then bent smoothly
onto its surface. Each vertex is then projected to the closest point of the surface.
"""

from pathlib import Path

import igl
import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import diags, identity
from scipy.sparse.csgraph import laplacian
from scipy.sparse.linalg import spsolve
from torch import Tensor

from facenb.assets import asset
from facenb.errors import AssetError
from facenb.morphable.alignment import similarity
from facenb.morphable.formats.reading import obj_lines, obj_numbers
from facenb.morphable.model import Embedding, MorphableModel
from facenb.photos.cache import kept
from facenb.photos.landmarks import IBUG68, MESH

INNER = slice(17, 68)  # brows, nose, eyes, mouth: the same points in both; the jaw line differs
STIFFNESS = (300.0, 100.0, 30.0, 10.0, 3.0, 1.0)  # from nearly rigid to soft, a few rounds each
ROUNDS, LANDMARK_WEIGHT = 4, 3.0
VERSION = 2  # increase it when the method changes; then cached results are computed again


def read_canonical(path: Path) -> tuple[Float[Tensor, "468 3"], Int[Tensor, "triangles 3"]]:
    """Return vertices (mm, from cm) and triangles of MediaPipe's canonical mesh. Raise AssetError if it is invalid."""
    try:
        text = path.read_text(encoding="utf-8")
        vertices = 10 * torch.from_numpy(obj_numbers(text, "v ", 3)).float()
        triangles = [[int(word.split("/")[0]) - 1 for word in words] for words in obj_lines(text, "f ")]
        if len(vertices) != MESH:
            raise ValueError(f"Expected {MESH} vertices, got {len(vertices)}")
    except (OSError, ValueError) as error:
        raise AssetError(f"{path} is not a canonical face mesh ({error}); get the asset mediapipe again") from error
    return vertices, torch.tensor(triangles)


def mirrored_landmarks(
    points: Float[Tensor, "photos 468 2"], width: Float[Tensor, " photos"]
) -> Float[Tensor, "photos 468 2"]:
    """Return MediaPipe's mesh points (pixels) in photos of `width` pixels that are flipped left to right."""
    mesh, _ = read_canonical(asset("mediapipe") / "canonical_face_model.obj")
    partner = torch.cdist(mesh * torch.tensor([-1.0, 1.0, 1.0]), mesh).argmin(1)
    flipped = points[:, partner]
    return torch.stack([width[:, None] - flipped[..., 0], flipped[..., 1]], -1)


def register(
    source: Float[Tensor, "points 3"],
    source_triangles: Int[Tensor, "faces 3"],
    vertices: Float[Tensor, "vertices 3"],
    triangles: Int[Tensor, "triangles 3"],
    chosen: list[int],
    positions: Float[Tensor, "pairs 3"],
) -> Embedding:
    """Deform the source mesh (mm) onto a surface. `positions` are the targets of the `chosen` source vertices.

    Non-rigid registration with a Laplacian as stiffness (after Amberg et al. 2007, optimal step non-rigid ICP).
    """
    surface = vertices.double().numpy(), triangles.numpy()
    moved = similarity(source[chosen][None], positions[None]).apply(source[None])[0].double().numpy()
    smooth = laplacian(igl.adjacency_matrix(source_triangles.numpy()).astype(float))
    weight = np.zeros(len(source))
    weight[chosen] = LANDMARK_WEIGHT
    for stiffness in STIFFNESS:
        for _ in range(ROUNDS):
            _, _, target = igl.point_mesh_squared_distance(moved, *surface)
            to_pairs = np.zeros_like(target)
            to_pairs[chosen] = positions.double().numpy() - moved[chosen]
            system = stiffness * smooth + diags(weight) + identity(len(source))
            moved = moved + spsolve(system.tocsc(), target - moved + weight[:, None] * to_pairs)
    _, nearest, closest = igl.point_mesh_squared_distance(moved, *surface)
    corners = triangles[torch.from_numpy(nearest)]
    weights = igl.barycentric_coordinates(closest, *vertices.double()[corners.T].numpy())
    return Embedding(corners, torch.from_numpy(weights).to(vertices.dtype))


def mediapipe_embedding(model: MorphableModel) -> Embedding:
    """Return MediaPipe's 468 points on the model's mean face. Computing takes seconds; the result is cached."""
    source, source_triangles = read_canonical(asset("mediapipe") / "canonical_face_model.obj")

    def found() -> dict[str, Tensor]:
        mean, triangles = model.mean.cpu(), model.triangles.cpu().long()
        if "face" in model.regions:  # without the region behind the ears and the neck
            inside = torch.zeros(len(mean), dtype=torch.bool)
            inside[model.regions["face"].cpu()] = True
            triangles = triangles[inside[triangles].all(1)]
        positions = model.landmarks.of(mean)[INNER]
        return vars(register(source, source_triangles, mean, triangles, list(IBUG68[INNER]), positions))

    tensors = kept(f"embeddings/{VERSION}", found, model.mean, model.triangles, source, source_triangles)
    return Embedding(**tensors).to(model.device)
