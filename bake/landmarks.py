"""Landmarks, regions and edges of lids on SynthFace's mesh; the 68 landmarks by non-rigid registration to ICT-FaceKit.

Six points are set by hand. They start a registration that bends our mean head onto ICT-FaceKit's mean head. We project
the landmarks of ICT-FaceKit to our bent surface. Landmarks of lids and inner lips then move to the nearest vertex of
their edge. Jaw line and brows move to the positions of 300W, since networks follow its conventions. The result is
shipped with the package. Run `python bake/landmarks.py` to measure again (needs the asset ict-facekit).
"""

import json

import igl
import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from facenb.assets import asset
from facenb.files import write_json
from facenb.morphable.alignment import similarity
from facenb.morphable.formats.ict import read_ict
from facenb.morphable.model import MorphableModel
from facenb.synthface.heads import LANDMARKS, REGIONS, landmarks, load_heads, mean_head

SEEDS = {  # landmark: place on the mean head, mm
    8: (0.0, -93.0, 70.0),
    30: (0.0, -17.0, 93.0),
    36: (-44.4, 21.2, 57.7),
    45: (44.4, 21.2, 57.7),
    48: (-24.8, -52.0, 69.2),
    54: (24.8, -52.0, 69.2),
}
WIDTHS = (80.0, 50.0, 30.0, 20.0, 14.0)  # mm: widths of the kernel, from smooth to detailed bending
CONTROLS, STIFFNESS = 400, 1e-3
BACK = -20.0  # mm: vertices behind this depth are not registered
REACH = 12.0  # mm: surfaces further apart do not correspond
_PAIRS = ((0, 16), (17, 26), (31, 35), (48, 54), (55, 59), (60, 64), (65, 67))  # rows of landmarks, end to end
# Rows of landmarks that differ between 300W (as 3DDFA-V2 learnt it) and ICT-FaceKit: from ear to chin, and from the
# inner to the outer end of a brow. Values: shift of the first point along the row (mm), power of the spacing, shift of
# the row backwards (mm).
SPACED = {range(0, 9): (5.0, 0.92, 11.0), range(21, 16, -1): (5.0, 1.0, 0.0)}
CHIN_DOWN = 4.0  # mm: 300W's chin is lower than ICT-FaceKit's
LIP_RINGS = 8  # rings of vertices from the mouth's lining to the border of the red
# Skin below this line of (depth, height) in mm belongs to the neck: nape, ear, angle of the jaw, chin.
NECK_LINE = ((-140.0, -40.0, 0.0, 66.0), (-62.0, -48.0, -66.0, -100.0))
MIRRORED = list(range(68))  # the landmark on the other side
for first, last in _PAIRS:
    MIRRORED[first : last + 1] = range(last, first - 1, -1)
MIRRORED[36:48] = [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]


def measure(model: MorphableModel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return vertices (68, 3) and weights (68, 3) of the landmarks, and their distances (68,) in mm from the model's.

    `model` is ICT-FaceKit. The distances are measured after the registration, on the model's mean face.
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
            goal = marks[landmark] - (0.0, CHIN_DOWN * (landmark == 8), 0.0)
            vertices[landmark], weights[landmark] = _on_line(goal, bent, middle[np.isin(middle, front)])
        elif landmark > other:
            vertices[landmark], weights[landmark] = heads.mirror[vertices[other]], weights[other]
    for row, (shift, power, back) in SPACED.items():
        _space(vertices, weights, list(row), shift, power, back)
    placed = (bent[vertices] * weights[..., None]).sum(1)
    return vertices, weights, np.linalg.norm(placed - marks, axis=1)


def _space(vertices: np.ndarray, weights: np.ndarray, row: list[int], shift: float, power: float, back: float):
    """Space a row of landmarks, and its mirror image, along its line on the mean head, in place.

    The first landmark moves by `shift` mm along the line; the last one stays. Distances from the last one grow with a
    power of the number of steps (1: even spacing). The half of the row farther from the last one moves back by `back`
    mm, the rest by less.
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
    """Return the nearest position to a point on the edge from the line's nearest vertex to a neighbour on the line."""
    a = line[np.linalg.norm(bent[line] - point, axis=1).argmin()]
    triangles = load_heads().triangles
    line = np.intersect1d(line, np.setdiff1d(triangles[(triangles == a).any(1)], [a]))
    b = line[np.linalg.norm(bent[line] - point, axis=1).argmin()]
    along = bent[b] - bent[a]
    share = float(np.clip((point - bent[a]) @ along / (along @ along), 0.0, 1.0))
    return [int(a), int(b), int(b)], (1 - share, share, 0.0)


def edge_landmarks() -> dict[int, np.ndarray]:
    """Return the candidate vertices of each landmark on the lids and the inner lips."""
    (left_upper, left_lower), (right_upper, right_lower) = find_lid_rims()
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
    REACH, or has a different normal, are ignored.
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


def find_regions() -> dict[str, np.ndarray]:
    """Return vertex indices by the name of the region; `left` is the person's left."""
    heads, mean = load_heads(), mean_head()
    x, y, z = np.abs(mean[:, 0]), mean[:, 1], mean[:, 2]
    skin, eye = _mask(heads.part("skin")), _mask(heads.part("eye"))
    ear = skin & (_moved("l-ear-scale-incr") + _moved("r-ear-scale-incr") > 2.0)
    ear &= (np.abs(y - 1) < 36) & (np.abs(z + 24) < 26) & (x > 55)
    neck = skin & ~ear & (y < np.interp(z, *NECK_LINE))
    scalp = skin & ~ear & ~neck & ((y > 74) | ((z < -30) & (y > 0)) | ((z < 5) & (y > 40)) | (z < -50))
    face = _largest(skin & ~ear & ~neck & ~scalp & (z > 5) | _mask(landmarks().vertices.numpy()))
    ear, scalp = ear & ~face, scalp & ~face
    inside = [_mask(heads.part(name)) for name in ("mouth", "tongue", "upper_teeth", "lower_teeth")]
    masks = dict(
        face=face,
        nose=face & (_moved("nose-trans-forward") > 2.5),
        brows=face & (_from_brow_line(mean) < 4.5),
        lips=skin & _rings_around(heads.part("mouth"), LIP_RINGS),
        ears=ear,
        scalp=scalp,
        skin=skin,
        eyelids=face & (((x - 31.0) / 18) ** 2 + ((y - 21.5) / 11) ** 2 < 1) & (z > 40),
        left_eye=eye & (mean[:, 0] > 0),
        right_eye=eye & (mean[:, 0] < 0),
        mouth_inside=np.logical_or.reduce(inside),
    )
    return {name: np.flatnonzero(mask) for name, mask in masks.items()}


def _mask(vertices: np.ndarray) -> np.ndarray:
    return np.isin(np.arange(len(mean_head())), vertices)


def _largest(mask: np.ndarray) -> np.ndarray:
    """Return the largest connected part (V,) of a mask, connected by triangles that are wholly inside it."""
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


def _rings_around(vertices: np.ndarray, rings: int) -> np.ndarray:
    """Return the mask (V,) of the vertices at most `rings` edges away, without the vertices themselves."""
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


def find_lid_rims() -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Return the front edge of the upper and of the lower lid, of the left then the right eye; x ascends.

    Both run from corner to corner.
    """
    sockets, mean = load_heads().part("socket"), mean_head()
    return tuple(edges(sockets[side * mean[sockets, 0] > 0], 3) for side in (1, -1))


def edges(lining: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return upper and lower half of the ring of vertices `count` edges outside a lining's vertices; x increases."""
    heads, mean = load_heads(), mean_head()
    for _ in range(count):
        touching = np.unique(heads.triangles[np.isin(heads.triangles, lining).any(1)])
        ring, lining = np.setdiff1d(touching, lining), np.union1d(lining, touching)
    pairs = heads.triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    pairs = pairs[np.isin(pairs, ring).all(1)]
    left, right = ring[mean[ring, 0].argmin()], ring[mean[ring, 0].argmax()]
    ways = []
    for first in pairs[pairs[:, 0] == left, 1]:
        way = [left, first]
        while way[-1] != right:
            way += [k for k in pairs[pairs[:, 0] == way[-1], 1] if k != way[-2]]
        ways.append(np.array(way))
    return tuple(sorted(ways, key=lambda way: -mean[way, 1].mean()))


def main() -> None:
    """Write the landmarks, and then the regions, which depend on them."""
    model = read_ict(asset("ict-facekit") / "ict_face_head_11248.npz")
    vertices, weights, distance = measure(model)
    write_json(LANDMARKS, {"vertices": vertices.tolist(), "weights": np.round(weights, 5).tolist()})
    print(f"inner 51: {distance[17:].mean():.2f} mm from ICT-FaceKit's, jaw line: {distance[:17].mean():.2f} mm")
    write_regions()


def write_regions() -> None:
    """Write the regions and the edges of the lids."""
    by_name = {name: vertices.tolist() for name, vertices in find_regions().items()}
    rims = [[rim.tolist() for rim in eye] for eye in find_lid_rims()]
    REGIONS.write_text(json.dumps({"regions": by_name, "lid_rims": rims}, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
