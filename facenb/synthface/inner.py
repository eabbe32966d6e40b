"""Eyeballs and teeth, our own simple meshes: MakeHuman's right eyeball is cut off and its teeth are a separate asset.

Both are made for the mean head and follow a person by a fixed affine map of vertices nearby, so that they stay linear
in every change of shape. Vertices come in mirrored halves: the left one, then the right one.
"""

import numpy as np

RINGS = (0.0, 5.0, 10.0, 15.0, 20.0, 23.0, 30.0, 40.0, 50.0, 60.0, 72.0)  # degrees from the eye's axis; iris: to 20
SECTORS = 20  # vertices of one ring
TOOTH_COLUMNS = 22  # of one half of an arch, from the middle to the last molar


def quads(rows: int, columns: int, closed: bool = False) -> np.ndarray:
    """Return two triangles for each cell of a grid, row by row; `closed` joins the last column to the first."""
    index = np.arange(rows * columns).reshape(rows, columns)
    index = np.concatenate([index, index[:, :1]], 1) if closed else index
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    return np.stack([np.stack([a, b, c], -1), np.stack([a, c, d], -1)], 2).reshape(-1, 3)


def eyeball() -> tuple[np.ndarray, np.ndarray]:
    """Return vertices (201, 3) and triangles of the front of the unit ball that looks along z.

    Vertex 0 is the pupil's middle; ring k (1 to 10) follows with its sectors, counter-clockwise from x.
    """
    polar = np.radians(RINGS[1:])[:, None]
    around = 2 * np.pi * np.arange(SECTORS) / SECTORS
    ring = np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), np.cos(polar) + 0 * around
    fan = [(0, 1 + k, 1 + (k + 1) % SECTORS) for k in range(SECTORS)]
    vertices = np.concatenate([[[0.0, 0.0, 1.0]], np.stack(ring, -1).reshape(-1, 3)])
    return vertices, np.concatenate([fan, 1 + quads(len(polar), SECTORS, closed=True)])


def half_arch(front: tuple[float, float], heights: tuple[float, ...], width: float, depth: float):
    """Return vertices (rows x columns, 3) in mm and triangles of the left half of a row of teeth.

    `front` (2,) is height y = 0 and depth z of the middle; the rows lie `heights` (mm, downwards) below it. The arch
    is `width` wide and `depth` deep at its end. Teeth bulge between the columns where they touch.
    """
    angle = np.linspace(0.0, np.pi / 2, TOOTH_COLUMNS)
    bulge = np.where(np.arange(TOOTH_COLUMNS) % 3 == 0, -0.5, 0.0)  # a tooth has three columns; the first is its border
    x, z = (width + bulge) * np.sin(angle), front[1] - depth * (1 - np.cos(angle)) + bulge * np.cos(angle)
    lean = np.linspace(-1.0, 0.0, len(heights))[:, None]  # the gums lie behind the edges, mm
    rows = np.broadcast_arrays(x, front[0] - np.array(heights)[:, None], z + lean)
    return np.stack(rows, -1).reshape(-1, 3), quads(len(heights), TOOTH_COLUMNS)


def both_sides(vertices: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a left part and its mirrored copy: vertices (2 n, 3), outward triangles and the mirror map (2 n,)."""
    index = np.arange(len(vertices))
    both = np.concatenate([triangles, triangles[:, ::-1] + len(index)])
    return np.concatenate([vertices, vertices * (-1, 1, 1)]), both, np.concatenate([index + len(index), index])


def affine_follower(points: np.ndarray, guides: np.ndarray) -> np.ndarray:
    """Return the matrix (points, guides) that moves `points` by the affine map that fits the guides' movement best."""
    middle = guides.mean(0)
    reach, fit = (np.concatenate([x - middle, np.ones((len(x), 1))], 1) for x in (points, guides))
    return reach @ np.linalg.pinv(fit)


def fit_sphere(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Return centre and radius of the sphere nearest to points, in the algebraic sense."""
    solution = np.linalg.lstsq(np.concatenate([2 * points, np.ones((len(points), 1))], 1), (points**2).sum(1))[0]
    return solution[:3], float(np.sqrt(solution[3] + (solution[:3] ** 2).sum()))


def turn(points: np.ndarray, hinge: np.ndarray, angle) -> np.ndarray:
    """Return points turned about an axis through `hinge` along x, each by its own angle (radians)."""
    cosine, sine = np.cos(angle), np.sin(angle)
    y, z = points[..., 1] - hinge[1], points[..., 2] - hinge[2]
    return np.stack([points[..., 0], hinge[1] + cosine * y - sine * z, hinge[2] + sine * y + cosine * z], -1)
