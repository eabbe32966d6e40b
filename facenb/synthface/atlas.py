"""The UV atlas: where each part of the head lies in the texture, and maps of the template over its texels.

The head is unwrapped anew from MakeHuman's charts, because there the face fills only 5 % of the texture. The new layout
minimises the symmetric Dirichlet energy (Smith and Schaefer 2015): it keeps lengths and forbids flips, with more
texels per mm on the face than on the scalp and the neck.
"""

from dataclasses import dataclass

import igl
import numpy as np
import torch
from scipy import sparse
from scipy.ndimage import distance_transform_edt
from scipy.optimize import minimize

from facenb.imaging.raster import interpolate, rasterize

SIZE = 832  # texels of a side at full quality
FACE, REST = 2.4, 0.35
COMPONENTS = ("skin", "socket", "mouth", "tongue", "eye", "upper_teeth", "lower_teeth")
SKIN, SOCKET, MOUTH, TONGUE, EYE, UPPER_TEETH, LOWER_TEETH = range(7)
HAIR = (608, 8, 824, 208)  # tile of strands: left, bottom, right, top in texels, v upwards
HEAD = (6, 218, 826, 826)
BOXES = {  # of the other charts, by component and side (-1: x < 0, 1: x > 0, 0: both)
    (EYE, -1): (8, 112, 104, 208), (EYE, 1): (112, 112, 208, 208), (MOUTH, 0): (216, 112, 312, 208),
    (TONGUE, 0): (320, 112, 376, 208), (SKIN, 0): (384, 144, 552, 208), (SOCKET, -1): (8, 40, 72, 104),
    (SOCKET, 1): (80, 40, 144, 104), (UPPER_TEETH, 0): (152, 48, 352, 104), (LOWER_TEETH, 0): (360, 48, 552, 104),
}  # fmt: skip


def unwrap(vertices: np.ndarray, triangles: np.ndarray, component: np.ndarray, uv: np.ndarray, uv_triangles):
    """Return the atlas of the template: uv (N, 2) in [0, 1] with the origin bottom left, and triangles into it.

    `vertices` (V, 3) in mm; `component` (V,) indexes COMPONENTS; `uv` and `uv_triangles` are MakeHuman's charts of the
    first triangles. The others, eyeballs and teeth, are projected. Computed once, when the heads are baked.
    """
    vertices = from_eyes(vertices, component)
    charts = [(uv, uv_triangles[f], f) for f in _charts(uv_triangles)]
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
            x = vertices[triangles[faces], 0].mean()
            code = np.bincount(component[triangles[faces, 0]]).argmax()
            box = BOXES[code, int(np.sign(x)) if abs(x) > 5 else 0]
        low, high = points.min(0), points.max(0)
        corner, opposite = np.array(box[:2]), np.array(box[2:])
        scale = np.min((opposite - corner) / (high - low))
        cells.append(((corner + opposite) / 2 + (points - (low + high) / 2) * scale) / SIZE)
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
    away = vertices - np.sign(vertices[:, :1]) * [1, 0, 0] * eye_centre(vertices, component)
    radius = np.maximum(np.hypot(away[:, 0], away[:, 1]), 1e-9)
    return np.arctan2(radius, away[:, 2])[:, None] * away[:, :2] / radius[:, None]


def _sphere_centre(points: np.ndarray) -> np.ndarray:
    """Return the centre of the sphere through the points (least squares)."""
    system = np.concatenate([2 * points, np.ones((len(points), 1))], 1)
    return np.linalg.lstsq(system, (points**2).sum(1), rcond=None)[0][:3]


def _flatten(vertices, triangles, start, corners) -> np.ndarray:
    """Return the head's chart in texels: least symmetric Dirichlet energy from a start without flips, symmetric."""
    points = np.stack([start[:, 1] - start[:, 1].mean(), -start[:, 0]], -1)  # MakeHuman's crown points left
    centre = vertices[triangles].mean(1)
    scale = REST + (FACE - REST) * face_weight(centre)
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
            return 1e12, np.zeros_like(flat)  # a flip: the line search steps back
        squares = (jacobian**2).sum((1, 2))
        total = (weight * (squares + squares / area**2)).sum()
        total.backward()
        return total.item(), at.grad.numpy().ravel()

    covered = areas(torch.from_numpy(points))[1]
    if covered.sum() < 0:
        points, covered = points * (-1, 1), -covered
    flat = (points * np.sqrt((twice * scale**2).sum() / covered.sum().item())).ravel()
    for _ in range(40):  # restarts: the first steps change scale by far
        result = minimize(energy, flat, jac=True, method="L-BFGS-B", options={"maxiter": 200, "maxcor": 30})
        flat = result.x
        if result.nit < 3:
            break
    return flat.reshape(-1, 2)


def smooth_step(value, low, high):
    """Return 0 below `low`, 1 above `high`, and a smooth cubic between."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def face_weight(points: np.ndarray) -> np.ndarray:
    """Return 1 on the template's face and 0 on scalp, back and neck; points (..., 3) in mm from between the eyes."""
    y, z = points[..., 1], points[..., 2]
    return smooth_step(z, -80, -45) * smooth_step(y, -135, -110) * (1 - smooth_step(y, 55, 90))


def from_eyes(vertices: np.ndarray, component: np.ndarray) -> np.ndarray:
    """Return the vertices in mm from the middle between the centres of the eyeballs."""
    return vertices - [0, *eye_centre(vertices, component)[1:]]


def eye_centre(vertices: np.ndarray, component: np.ndarray) -> np.ndarray:
    """Return the centre of the eyeball with x > 0."""
    return _sphere_centre(vertices[(component == EYE) & (vertices[:, 0] > 0)])


@dataclass(frozen=True)
class Maps:
    """The template over the texels of the atlas at one size; texels outside every chart hold the nearest texel's."""

    points: np.ndarray  # (size, size, 3) mm from between the eyes; row 0 is the top
    part: np.ndarray  # (size, size) code of the component
    occlusion: np.ndarray  # (size, size) share of the sky that is seen
    face: np.ndarray  # (size, size) bool: texels of the head's chart


def lay_maps(vertices, triangles, component, occlusion, uv, uv_triangles, size: int) -> Maps:
    """Return the template's positions, parts and occlusion on `size` x `size` texels."""
    at = torch.from_numpy(np.stack([uv[:, 0] * size, (1 - uv[:, 1]) * size, np.ones(len(uv))], -1))[None]
    corners = torch.from_numpy(uv_triangles)
    fragments = rasterize(at.float(), corners, (size, size))
    source = np.zeros((len(uv), 5))
    source[uv_triangles.ravel(), :3] = from_eyes(vertices, component)[triangles.ravel()]
    source[uv_triangles.ravel(), 3] = component[triangles.ravel()]
    source[uv_triangles.ravel(), 4] = occlusion[triangles.ravel()]
    values = interpolate(fragments, torch.from_numpy(source)[None].float(), corners)[0].numpy()
    covered = fragments.triangle[0].numpy() >= 0
    nearest = distance_transform_edt(~covered, return_distances=False, return_indices=True)
    values = values[tuple(nearest)]
    left, bottom, right, top = np.array(HEAD) / SIZE * size
    face = np.zeros((size, size), bool)
    face[int(size - top) : int(np.ceil(size - bottom)), int(left) : int(np.ceil(right))] = True
    return Maps(values[..., :3], np.rint(values[..., 3]).astype(int), values[..., 4], face)


def occlude(vertices: np.ndarray, triangles: np.ndarray, rays: int = 500) -> np.ndarray:
    """Return the share (V,) of a vertex's outer hemisphere that the head itself does not hide, smoothed."""
    normals = igl.per_vertex_normals(vertices, triangles)
    seen = 1 - igl.ambient_occlusion(vertices, triangles, vertices + 0.05 * normals, normals, rays)
    near = igl.adjacency_matrix(triangles)
    for _ in range(2):  # where the lips touch, single vertices lie inside the other lip
        seen = 0.5 * seen + 0.5 * (near @ seen) / np.asarray(near.sum(1)).ravel()
    return seen
