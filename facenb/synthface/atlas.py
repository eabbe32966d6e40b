"""The UV atlas: where each part of the head lies in the texture, and maps of the template over its texels.

The head is unwrapped anew from MakeHuman's charts, because there the face fills only 5 % of the texture. The new layout
minimises the symmetric Dirichlet energy (Smith and Schaefer 2015): it keeps lengths and forbids flips, with more
texels per mm on the face than on the scalp and the neck.
"""

import igl
import numpy as np
import torch
from scipy import sparse
from scipy.ndimage import distance_transform_edt
from scipy.optimize import minimize

from facenb.imaging.raster import interpolate, rasterize
from facenb.synthface.heads import Heads

SIZE = 832  # texels of a side at full quality
FACE, REST = 2.4, 0.35  # texels per mm aimed at
SKIN, SOCKET, MOUTH, TONGUE, EYE, UPPER_TEETH, LOWER_TEETH, LIPS = range(8)  # components, as `Heads` names them
HAIR = (608, 8, 824, 208)  # tile of strands: left, bottom, right, top in texels, v upwards
CLOTH = (16, 16, 32, 32)  # tile of the shirt
HEAD = (6, 218, 826, 826)
BOXES = {  # of the other charts, by component and side (-1: x < 0, 1: x > 0, 0: both); LIPS are inner sides
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


def unwrap(vertices: np.ndarray, triangles: np.ndarray, component: np.ndarray, uv: np.ndarray, uv_triangles):
    """Return the atlas of the template: uv (N, 2) in [0, 1] with the origin bottom left, and triangles into it.

    `vertices` (V, 3) in mm hold the mouth open, so that the lips leave room for their inner sides. `component` (V,)
    holds their codes; `uv` and `uv_triangles` are MakeHuman's charts of the first triangles. The others, eyeballs and
    teeth, are projected. Computed once, when the heads are baked.
    """
    vertices = from_eyes(vertices, component)
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
    offset = vertices - np.sign(vertices[:, :1]) * [1, 0, 0] * eye_centre(vertices, component)
    radius = np.maximum(np.hypot(offset[:, 0], offset[:, 1]), 1e-9)
    return np.arctan2(radius, offset[:, 2])[:, None] * offset[:, :2] / radius[:, None]


def _sphere_centre(points: np.ndarray) -> np.ndarray:
    """Return the centre of the sphere through the points (least squares)."""
    system = np.concatenate([2 * points, np.ones((len(points), 1))], 1)
    return np.linalg.lstsq(system, (points**2).sum(1), rcond=None)[0][:3]


def _flatten(vertices, triangles, points, corners) -> np.ndarray:
    """Return the head's chart in texels: least symmetric Dirichlet energy from a start without flips, symmetric."""
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
    flat = (points * np.sqrt((twice * scale**2).sum() / covered.sum().item())).ravel()
    still = 0
    while still < 3:  # restarts: a step into a flip ends a search early
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


def lay_maps(heads: Heads, mean: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the mean head over `size` x `size` texels: places (mm from between the eyes), component and occlusion.

    Row 0 is the top. Texels outside every chart hold the nearest texel's values.
    """
    uv, corners = heads.uv, torch.from_numpy(heads.uv_triangles)
    at = torch.from_numpy(np.stack([uv[:, 0] * size, (1 - uv[:, 1]) * size, np.ones(len(uv))], -1))[None]
    fragments = rasterize(at.float(), corners, (size, size))
    values = np.column_stack([from_eyes(mean, heads.component), heads.component, heads.occlusion])
    source = np.zeros((len(uv), 5))
    source[heads.uv_triangles] = values[heads.triangles]
    image = interpolate(fragments, torch.from_numpy(source)[None].float(), corners)[0].numpy()
    covered = fragments.triangle[0].numpy() >= 0
    image = image[tuple(distance_transform_edt(~covered, return_distances=False, return_indices=True))]
    return image[..., :3], np.rint(image[..., 3]).astype(int), image[..., 4]


def occlude(vertices: np.ndarray, triangles: np.ndarray, rays: int = 500) -> np.ndarray:
    """Return the share (V,) of a vertex's outer hemisphere that the head itself does not hide, smoothed."""
    normals = igl.per_vertex_normals(vertices, triangles)
    seen = 1 - igl.ambient_occlusion(vertices, triangles, vertices + 0.05 * normals, normals, rays)
    near = igl.adjacency_matrix(triangles)
    for _ in range(2):  # where the lips touch, single vertices lie inside the other lip
        seen = 0.5 * seen + 0.5 * (near @ seen) / np.asarray(near.sum(1)).ravel()
    return seen


def tile(box: tuple[int, int, int, int], size: int) -> tuple[slice, slice]:
    """Return the rows and columns of a box of the atlas, with 8 texels around it, in a texture of `size` texels."""
    left, bottom, right, top = box
    factor = SIZE // size
    return slice((SIZE - top - 8) // factor, (SIZE - bottom + 8) // factor), slice(
        (left - 8) // factor, (right + 8) // factor
    )
