"""Bake MakeHuman's heads into one data file: `python bake/makehuman.py` (needs the extra `bake`: anny).

The file holds head shapes at the grid points of MakeHuman's phenotype table, local changes of the face, and facial
actions with ARKit names. All are in mm on the project's axes. The point midway between the eyes is at EYES for every
phenotype.

MakeHuman's right eyeball is cut off and its teeth are a separate asset, so eyeballs and teeth are our own simple
meshes. They are made for the mean head. On a person they follow an affine map fitted to nearby vertices, so they are
linear in every change of shape. The vertices of the left half come first, then those of its mirror image.
"""

import itertools
import json
from pathlib import Path

import igl
import numpy as np
import torch
from pooch import file_hash
from safetensors.numpy import load_file, save_file
from scipy.optimize import least_squares
from scipy.spatial import cKDTree

from facenb.files import atomic_write, write_json
from facenb.synthface.atlas import EYE, LOWER_TEETH, MOUTH, SKIN, SOCKET, TONGUE, UPPER_TEETH, fit_sphere
from facenb.synthface.expressions import RINGS, SECTORS, eyeball, turn
from facenb.synthface.heads import COMPONENTS, PATH
from facenb.synthface.people import SPREAD

EYES = np.array([0.0, 22.0, 58.0])  # puts the origin near the middle of the head
GENDER, AGE, BUILD = (0.0, 1.0), (2 / 3, 1.0), (0.0, 0.5, 1.0)  # adult corners of the table; build: muscle, weight
ANCESTRY = ("african", "asian", "caucasian")
SHIFTS = ("head-trans", "neck-scale-vert", "neck-trans-in", "neck-trans-out")  # left out: changes of pose
FORMAT = "synthface-heads-1"
SOURCE = "MakeHuman (MPFB2 targets, face units), read with anny 0.6.2; eyeballs, teeth and UV atlas by facenb"
NO_ACTION = ("eyeLook", "tongueOut")  # gaze would need eyeballs that turn
ATLAS = ("uv", "uv_triangles", "occlusion")  # made by `bake/atlas.py`; baking keeps it
MIRROR = np.array([-1.0, 1.0, 1.0])
SEAM = -49.0  # height of the line between the lips on the mean head, mm
TOOTH_COLUMNS = 22  # of one half of an arch, from the middle to the last molar
# In mm: height and depth of the front middle, distances of the rows below it, width and depth of half an arch.
UPPER_ARCH = ((-48.5, 71.0), (-14.0, -9.0, -4.5, 0.0), 27.0, 38.0)
LOWER_ARCH = ((-52.0, 69.0), (0.0, 4.0, 8.0, 13.0), 25.5, 36.0)
TONGUE_FLOOR, TONGUE_HEIGHT = -66.0, 0.45  # mm; MakeHuman's tongue touches the palate, so we lower it


def load_anny():
    """Return anny's head with all phenotypes, local changes and facial actions, in float64 and plain torch."""
    import anny

    everything = dict.fromkeys(("facial_actions", "local_changes", "phenotypes"), "all")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    head = {"rig": "makehuman-head", "topology": "head", "skinning_method": "lbs"}
    model = anny.Anny(**head, **everything, phenotype_blendshapes="original")
    torch.set_default_dtype(before)
    return model


def to_axes(vectors: np.ndarray) -> np.ndarray:
    """Return anny's vectors (metres; z up, the face looks along -y) in mm on the project's axes."""
    return 1000.0 * np.stack([vectors[..., 0], vectors[..., 2], -vectors[..., 1]], -1)


class Source:
    """Shapes of anny's head (skin and tongue) in mm, with our eyeballs and teeth appended."""

    def __init__(self, head):
        from anny.face_segmentation import get_face_segmentation_mask

        self.head = head
        self.base = to_axes(head.template_vertices.numpy())
        self.shapes = dict(zip(head.blendshape_labels, to_axes(head.blendshapes.numpy()), strict=True))
        self.phenotypes = [label for label in self.shapes if not label.startswith(("facial_action", "local_change"))]
        triangles = head.get_triangular_faces().numpy()
        part = igl.vertex_components(triangles)  # connected parts, numbered by their first vertices
        self.kept = int((part <= 1).sum())  # skin, then tongue
        self.faces = np.flatnonzero((triangles < self.kept).all(1))  # of anny's triangles
        self.right = np.flatnonzero(part == 3)  # the front of the right eyeball; anny's head lacks its back
        left = np.flatnonzero(part == 2)
        self.left = left[cKDTree(self.base[left]).query(self.base[self.right] * MIRROR)[1]]
        self.component = np.where(part == 0, SKIN, TONGUE)[: self.kept]
        for labels, name in ((["eye_cavity.L", "eye_cavity.R"], SOCKET), (["mouth_cavity"], MOUTH)):
            inside = get_face_segmentation_mask(head, labels).numpy()
            self.component[np.setdiff1d(triangles[inside], triangles[~inside])] = name
        self._add_parts(triangles)

    def phenotype(self, **values: float) -> np.ndarray:
        """Return anny's vertices of a phenotype without local changes."""
        weights = self.head.get_phenotype_blendshape_coefficients(**values)[0, : len(self.phenotypes)].tolist()
        return self.base + sum(w * self.shapes[label] for w, label in zip(weights, self.phenotypes, strict=True) if w)

    def corner(self, gender: float, age: float, muscle: float, weight: float) -> np.ndarray:
        """Return the head at a grid point of the phenotype table, without its ancestry, with the eyes at EYES."""
        whole = self.phenotype(gender=gender, age=age, muscle=muscle, weight=weight, african=0, asian=0, caucasian=1)
        head = self.eyes_in_place(whole - self.ancestry("caucasian", gender, age)) + EYES
        tongue = self.component[: self.kept] == TONGUE
        head[: self.kept][tongue] += self.tongue_shift
        return head

    def ancestry(self, name: str, gender: float, age: float) -> np.ndarray:
        """Return the displacement of an ancestry at a grid point of the table."""
        return self.shapes[f"race:{name}-{('male', 'female')[int(gender)]}-{'old' if age == 1 else 'young'}"]

    def eyes_in_place(self, shape: np.ndarray) -> np.ndarray:
        """Return a shape, shifted so that the mean of its eye vertices is 0. A change then keeps the eyes in place."""
        return shape - shape[np.concatenate([self.left, self.right])].mean(0)

    def _add_parts(self, anny_triangles: np.ndarray) -> None:
        """Make eyeballs and teeth on the mean head, with the matrices by which they follow anny's vertices."""
        grown_up = [
            self.phenotype(age=0.72, gender=gender, african=african, asian=asian, caucasian=caucasian)
            for gender in GENDER
            for african, asian, caucasian in np.eye(3)
        ]
        mean = self.eyes_in_place(np.mean(grown_up, 0)) + EYES
        tongue = mean[: self.kept][self.component == TONGUE]
        self.tongue_shift = (TONGUE_HEIGHT - 1) * (tongue - TONGUE_FLOOR) * (0, 1, 0) - (0, 1, 3)
        wall = np.flatnonzero(self.component == MOUTH)
        wall = wall[mean[wall, 2] > 15.0]
        upper, lower = wall[mean[wall, 1] > SEAM + 2], wall[mean[wall, 1] < SEAM - 2]
        centre, radius = fit_sphere(mean[self.left])
        fan = [(0, 1 + k, 1 + (k + 1) % SECTORS) for k in range(SECTORS)]
        faces = np.concatenate([fan, 1 + quads(len(RINGS) - 1, SECTORS, closed=True)])
        made = [
            (EYE, *both_sides(centre + radius * eyeball(), faces), (self.left, self.right)),
            (UPPER_TEETH, *both_sides(*half_arch(*UPPER_ARCH)), (upper,)),
            (LOWER_TEETH, *both_sides(*half_arch(*LOWER_ARCH)), (lower,)),
        ]
        mirror = [cKDTree(self.base[: self.kept]).query(self.base[: self.kept] * MIRROR)[1]]
        triangles, component, self.follow, count = [anny_triangles[self.faces]], [self.component], [], self.kept
        for name, points, faces, across, guides in made:
            for half, guide in zip(np.split(points, len(guides)), guides, strict=True):
                self.follow.append((guide, affine_follower(half, mean[guide])))
            triangles.append(faces + count)
            component.append(np.full(len(points), name))
            mirror.append(across + count)
            count += len(points)
        self.mirror, self.triangles, self.component = (np.concatenate(x) for x in (mirror, triangles, component))

    def extend(self, shape: np.ndarray) -> np.ndarray:
        """Return a head, or a change of a head, with our eyeballs and teeth instead of anny's eyeballs."""
        return np.concatenate([shape[: self.kept], *(matrix @ shape[guide] for guide, matrix in self.follow)])

    def changes(self) -> dict[str, np.ndarray]:
        """Return the local changes of head, face and neck in pairs: the increase, then the decrease."""
        chosen = {}
        for label, shape in self.shapes.items():
            name = label.removeprefix("local_change:")
            area = name.removeprefix("l-").removeprefix("r-").split("-")[0]
            if name != label and area in SPREAD and not name.startswith(SHIFTS):
                chosen[name] = self.extend(self.eyes_in_place(shape) if area == "head" else shape)
        return chosen

    def action(self, name: str) -> np.ndarray:
        """Return a facial action. Eyeballs and upper teeth stay; the lower teeth shift with the jaw."""
        shape = self.extend(self.shapes[f"facial_action:{name}"])
        lower_wall = self.follow[-1][0]
        shift = shape[lower_wall].mean(0) if name in ("jawForward", "jawLeft", "jawRight") else 0.0
        shape[np.isin(self.component, (EYE, UPPER_TEETH))] = 0.0
        shape[self.component == LOWER_TEETH] = shift
        return shape


def quads(rows: int, columns: int, closed: bool = False) -> np.ndarray:
    """Return two triangles for each cell of a grid, row by row; `closed` joins the last column to the first."""
    index = np.arange(rows * columns).reshape(rows, columns)
    index = np.concatenate([index, index[:, :1]], 1) if closed else index
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    return np.stack([np.stack([a, b, c], -1), np.stack([a, c, d], -1)], 2).reshape(-1, 3)


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


def fit_jaw(mean: np.ndarray, opened: np.ndarray, rigid: np.ndarray) -> dict[str, np.ndarray]:
    """Split the facial action jawOpen into a turn about a hinge and a rest.

    Hinge and angle are fitted to the vertices that move most. Each vertex turns by a share of the angle: its movement
    projected onto the full turn. The rest of its movement is a linear change. Vertices in `rigid` turn by the full
    angle.
    """
    far = np.linalg.norm(opened, axis=1) > 22.0

    def misfit(values):
        return (turn(mean[far], np.array([0.0, *values[1:]]), values[0]) - mean[far] - opened[far])[:, 1:].ravel()

    angle, *place = least_squares(misfit, [0.3, 0.0, 0.0]).x
    hinge = np.array([0.0, *place])
    whole = turn(mean, hinge, angle) - mean
    share = np.clip((whole * opened).sum(1) / (whole**2).sum(1), 0.0, 1.0)
    share[rigid] = 1.0
    rest = opened - (turn(mean, hinge, angle * share) - mean)
    rest[rigid] = 0.0
    return {"jaw_share": share, "jaw_hinge": hinge, "jaw_angle": np.array([angle]), "rest": rest}


def sparse(shapes: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Return shapes as the vertices that move, their displacements, and the first row of each shape."""
    moved = [np.flatnonzero(np.abs(shape).max(1) > 1e-6) for shape in shapes.values()]
    return {
        f"{prefix}_vertices": np.concatenate(moved).astype(np.int16),
        f"{prefix}_values": np.concatenate([s[m] for s, m in zip(shapes.values(), moved, strict=True)]),
        f"{prefix}_starts": np.cumsum([0, *map(len, moved)]).astype(np.int32),
    }


def bake(folder: Path = PATH.parent) -> Path:
    """Write `heads.safetensors` and its card into a folder; return the file."""
    source = Source(load_anny())
    corners = [source.extend(source.corner(*place)) for place in itertools.product(GENDER, AGE, BUILD, BUILD)]
    places = itertools.product(ANCESTRY, GENDER, AGE)
    ancestry = [source.extend(source.eyes_in_place(source.ancestry(*place))) for place in places]
    shapes = np.stack(corners + ancestry)
    shapes = (shapes + shapes[:, source.mirror] * MIRROR) / 2  # symmetric
    corners, ancestry = shapes[:36].reshape(2, 2, 3, 3, -1, 3), shapes[36:].reshape(3, 2, 2, -1, 3)
    mean = corners[:, 0, 1, 1].mean(0) + ancestry[:, :, 0].mean((0, 1))
    actions = {name: source.action(name) for name in source.head.facial_action_labels if not name.startswith(NO_ACTION)}
    jaw = fit_jaw(mean, actions["jawOpen"], np.isin(source.component, (TONGUE, LOWER_TEETH)))
    actions["jawOpen"] = jaw.pop("rest")
    changes = source.changes()
    arrays = dict(
        corners=corners,
        ancestry=ancestry,
        triangles=source.triangles.astype(np.int32),
        component=source.component.astype(np.int8),
        mirror=source.mirror.astype(np.int16),
        **{key: array for key, array in load_file(PATH).items() if key in ATLAS},
        **jaw,
        **sparse(changes, "change"),
        **sparse(actions, "action"),
    )
    arrays = {k: np.ascontiguousarray(v, np.float32 if v.dtype == float else v.dtype) for k, v in arrays.items()}
    names = {"changes": list(changes)[::2], "actions": list(actions)}
    return write(folder / PATH.name, arrays, names | {"components": COMPONENTS, "ancestry": ANCESTRY})


def write(path: Path, arrays: dict[str, np.ndarray], names: dict) -> Path:
    """Write arrays and names into a file of heads, and its card beside it."""
    with atomic_write(path) as partial:
        save_file(arrays, partial, {"format": FORMAT, "names": json.dumps(names)})
    card = {"file": path.name, "format": FORMAT, "sha256": file_hash(path), "bytes": path.stat().st_size}
    write_json(path.with_suffix(".json"), card | {"source": SOURCE, "licence": "CC0-1.0"})
    return path


if __name__ == "__main__":
    print(bake())
