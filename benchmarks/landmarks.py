"""The 68 landmarks of SynthFace's mesh, measured on ICT-FaceKit's mean face by non-rigid registration.

Six points are set by hand. They start a registration that bends our mean head onto ICT-FaceKit's, which has landmarks
of its own; theirs then lie on our surface. Landmarks of lids and inner lips move on to the nearest vertex of the edge
that they mark. Jaw line and brows then move to where 300W has them, whose conventions networks follow. The result is
shipped with the package. Run `python benchmarks/landmarks.py` to measure again (needs the asset ict-facekit).
"""

import igl
import numpy as np
import torch
from scipy.spatial import cKDTree

from facenb.assets import asset
from facenb.files import write_json
from facenb.morphable.alignment import similarity
from facenb.morphable.formats.ict import read_ict
from facenb.morphable.model import MorphableModel
from facenb.synthface.expressions import edges, lid_rims, mean_head
from facenb.synthface.heads import load_heads
from facenb.synthface.regions import LANDMARKS

SEEDS = {  # landmark: place on the mean head, mm
    8: (0.0, -93.0, 70.0),
    30: (0.0, -17.0, 93.0),
    36: (-44.4, 21.2, 57.7),
    45: (44.4, 21.2, 57.7),
    48: (-24.8, -52.0, 69.2),
    54: (24.8, -52.0, 69.2),
}
WIDTHS = (80.0, 50.0, 30.0, 20.0, 14.0)  # mm: how smooth the bending is, from coarse to fine
CONTROLS, STIFFNESS = 400, 1e-3
BACK = -20.0  # mm: what lies behind is not registered
REACH = 12.0  # mm: surfaces further apart do not correspond
_PAIRS = ((0, 16), (17, 26), (31, 35), (48, 54), (55, 59), (60, 64), (65, 67))  # rows of landmarks, end to end
# Rows that lie otherwise in 300W, as 3DDFA-V2 learnt it, than in ICT-FaceKit: from the ear to the chin, and from the
# inner end of a brow to the outer one. How far the first point moves along its row (mm), the power of the spacing, and
# how far the row lies further back (mm).
SPACED = {range(0, 9): (5.0, 0.92, 11.0), range(21, 16, -1): (5.0, 1.0, 0.0)}
CHIN_DOWN = 4.0  # mm: 300W's chin lies lower, too
MIRRORED = list(range(68))  # the landmark on the other side
for first, last in _PAIRS:
    MIRRORED[first : last + 1] = range(last, first - 1, -1)
MIRRORED[36:48] = [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]


def measure(model: MorphableModel, as_300w: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return vertices (68, 3) and weights (68, 3) of the landmarks, and their distances (68,) in mm from the model's.

    `model` is ICT-FaceKit; without `as_300w` jaw line and brows stay where it has them. The distances are taken after
    the registration, on the model's mean face.
    """
    heads, mean = load_heads(), mean_head()
    target, marks = model.mean.double().numpy(), model.landmarks.of(model.mean).double().numpy()
    skin = heads.part("skin")
    seeds = skin[cKDTree(mean[skin]).query(list(SEEDS.values()))[1]]
    goals = marks[list(SEEDS)]
    onto = similarity(torch.from_numpy(mean[seeds])[None], torch.from_numpy(goals)[None])
    start = onto.apply(torch.from_numpy(mean)[None])[0].numpy()
    front = skin[mean[skin, 2] > BACK]
    kept = heads.triangles[np.isin(heads.triangles, front).all(1)]
    faces = np.searchsorted(front, kept)
    bent = np.full_like(mean, np.inf)
    bent[front] = bend(start[front], faces, target, model.triangles.numpy(), (np.searchsorted(front, seeds), goals))
    _, face, nearest = igl.point_mesh_squared_distance(marks, bent[front], faces)[:3]
    corners = [np.ascontiguousarray(bent[front][faces[face, k]]) for k in range(3)]
    vertices, weights = kept[face], igl.barycentric_coordinates(nearest, *corners)
    for landmark, edge in edge_landmarks().items():
        vertices[landmark] = edge[cKDTree(bent[edge]).query(marks[landmark])[1]]
        weights[landmark] = (1, 0, 0)
    middle = np.flatnonzero(heads.mirror == np.arange(len(mean)))
    for landmark, other in enumerate(MIRRORED):
        if landmark == other and landmark not in edge_landmarks():  # on the middle line of the face
            goal = marks[landmark] - (0.0, CHIN_DOWN * (as_300w and landmark == 8), 0.0)
            vertices[landmark], weights[landmark] = _on_line(goal, bent, middle[np.isin(middle, front)])
        elif landmark > other:
            vertices[landmark], weights[landmark] = heads.mirror[vertices[other]], weights[other]
    for row, (shift, power, back) in SPACED.items() if as_300w else ():
        _space(vertices, weights, list(row), shift, power, back)
    placed = (bent[vertices] * weights[..., None]).sum(1)
    return vertices, weights, np.linalg.norm(placed - marks, axis=1)


def _space(vertices: np.ndarray, weights: np.ndarray, row: list[int], shift: float, power: float, back: float):
    """Space a row of landmarks, and its mirror image, along its line on the mean head, in place.

    The first moves by `shift` mm along the line, the last stays; distances from the last grow by a power of the number
    of steps (1: evenly). The half of the row that is farther from the last lies `back` mm further back, the rest less.
    """
    heads, mean = load_heads(), mean_head()
    line = (mean[vertices[row]] * weights[row, :, None]).sum(1)
    arc = np.concatenate([[0.0], np.linalg.norm(np.diff(line, axis=0), axis=1).cumsum()])
    steps = np.linspace(1.0, 0.0, len(row))[:-1]
    stops = arc[-1] - (arc[-1] - shift) * steps**power
    points = np.stack([np.interp(stops, arc, line[:, axis]) for axis in range(3)], -1)
    points[:, 2] -= back * np.minimum(2 * steps, 1.0)
    faces = heads.triangles[np.isin(heads.triangles, heads.part("skin")).all(1)]
    _, face, nearest = igl.point_mesh_squared_distance(points, mean, faces)[:3]
    corners = [np.ascontiguousarray(mean[faces[face, k]]) for k in range(3)]
    vertices[row[:-1]], weights[row[:-1]] = faces[face], igl.barycentric_coordinates(nearest, *corners)
    others = [MIRRORED[k] for k in row[:-1]]
    vertices[others], weights[others] = heads.mirror[vertices[row[:-1]]], weights[row[:-1]]


def _on_line(point: np.ndarray, bent: np.ndarray, line: np.ndarray) -> tuple[list[int], tuple[float, float, float]]:
    """Return the place that is nearest to a point, between the nearest vertex of a line and a neighbour on it."""
    a = line[np.linalg.norm(bent[line] - point, axis=1).argmin()]
    triangles = load_heads().triangles
    line = np.intersect1d(line, np.setdiff1d(triangles[(triangles == a).any(1)], [a]))
    b = line[np.linalg.norm(bent[line] - point, axis=1).argmin()]
    along = bent[b] - bent[a]
    share = float(np.clip((point - bent[a]) @ along / (along @ along), 0.0, 1.0))
    return [int(a), int(b), int(b)], (1 - share, share, 0.0)


def edge_landmarks() -> dict[int, np.ndarray]:
    """Return the vertices among which a landmark of lids or inner lips is searched."""
    (left_upper, left_lower), (right_upper, right_lower) = lid_rims()
    upper_lip, lower_lip = edges(load_heads().part("mouth"), 3)
    table = {k: right_upper for k in (37, 38)} | {k: right_lower for k in (40, 41)}
    table |= {k: left_upper for k in (43, 44)} | {k: left_lower for k in (46, 47)}
    table |= {36: right_upper[:1], 39: right_upper[-1:], 42: left_upper[:1], 45: left_upper[-1:]}
    table |= {60: upper_lip[:1], 64: upper_lip[-1:], 61: upper_lip, 63: upper_lip, 65: lower_lip, 67: lower_lip}
    middle = load_heads().mirror
    return table | {62: upper_lip[middle[upper_lip] == upper_lip], 66: lower_lip[middle[lower_lip] == lower_lip]}


def bend(source: np.ndarray, triangles: np.ndarray, target: np.ndarray, faces: np.ndarray, seeds) -> np.ndarray:
    """Return `source` vertices bent onto a target surface, coarse to fine (a kernel field on control points).

    `seeds` are (source vertex, target point) pairs, held tightly. Points whose nearest target point is further than
    REACH or faces elsewhere do not pull.
    """
    points, (held, goals) = source.copy(), seeds
    controls = points[np.linspace(0, len(points) - 1, CONTROLS).astype(int)]
    normals = igl.per_face_normals(target, faces, np.array([0.0, 0.0, 1.0]))
    for width in WIDTHS:
        for _ in range(6):
            squared, face, nearest = igl.point_mesh_squared_distance(points, target, faces)[:3]
            agree = (igl.per_vertex_normals(points, triangles) * normals[face]).sum(1) > 0.6
            near = np.flatnonzero(agree & (squared < REACH**2))
            at = np.concatenate([points[near], points[held]])
            move = np.concatenate([nearest[near] - points[near], goals - points[held]])
            weight = np.concatenate([np.ones(len(near)), np.full(len(held), 30.0)])[:, None]
            kernel = _kernel(at, controls, width)
            normal = kernel.T @ (weight * kernel) + STIFFNESS * len(at) * _kernel(controls, controls, width)
            field = np.linalg.lstsq(normal, kernel.T @ (weight * move), rcond=1e-10)[0]
            both = _kernel(np.concatenate([points, controls]), controls, width) @ field
            points, controls = points + both[: len(points)], controls + both[len(points) :]
    return points


def _kernel(points: np.ndarray, controls: np.ndarray, width: float) -> np.ndarray:
    squared = ((points[:, None] - controls[None]) ** 2).sum(-1)
    return np.exp(-squared / (2 * width**2))


def main() -> None:
    model = read_ict(asset("ict-facekit") / "ict_face_head_11248.npz")
    vertices, weights, distance = measure(model)
    write_json(LANDMARKS, {"vertices": vertices.tolist(), "weights": np.round(weights, 5).tolist()})
    print(f"inner 51: {distance[17:].mean():.2f} mm from ICT-FaceKit's, jaw line: {distance[:17].mean():.2f} mm")


if __name__ == "__main__":
    main()
