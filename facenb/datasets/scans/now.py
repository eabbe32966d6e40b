"""The NoW set (Sanyal et al. 2019), and the folder of predictions that is sent to the challenge.

`imagepathsvalidation.txt` and `imagepathstest.txt` list images, one on each line, as `subject/condition/picture.jpg`.
The images are below `iphone_pictures/`. The scans, `scans/<subject>/*.obj`, are in mm.
`scans_lmks_onlypp/<subject>/*_picked_points.pp` holds seven points picked in MeshLab. The test set's scans are not
given out. The archives unpack lists and scans beside `NoW_Dataset/final_release_version/iphone_pictures/`. So each part
is searched for separately.

In a submission, the mesh is `<subject>/<condition>/<picture>.obj` (or `.ply`). Its landmarks are beside it in `.npy`
(or `.txt`, seven lines `x y z`). We have not seen the set. This module follows public code that reads it. The detected
boxes, which the set gives as pickled files, are not read.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import torch
import trimesh
from jaxtyping import Float, Int
from torch import Tensor

from facenb.arrays import read_arrays
from facenb.datasets.folders import AGAIN, files_in, find_folder
from facenb.datasets.scans.mesh_files import read_mesh
from facenb.errors import AssetError
from facenb.files import atomic_write

CONDITIONS = ("multiview_neutral", "multiview_expressions", "multiview_occlusions", "selfie")
LISTS = {"validation": "imagepathsvalidation.txt", "test": "imagepathstest.txt"}
SUFFIXES = {"mesh": (".obj", ".ply"), "landmarks": (".npy", ".txt")}  # of a prediction's files
PLAIN = re.compile(r"[\w.-]+")  # the name of one folder or file, without a slash


@dataclass(frozen=True)
class Mesh7:
    """A surface with the protocol's seven landmarks: a scan, or a prediction."""

    vertices: Float[Tensor, "vertices 3"]
    triangles: Int[Tensor, "triangles 3"]
    landmarks: Float[Tensor, "7 3"]


def condition_of(image: str) -> str:
    """Return the condition in an image's name `subject/condition/picture.jpg`. Raises ValueError for another name."""
    names = image.split("/")
    if len(names) != 3 or names[1] not in CONDITIONS or not all(map(PLAIN.fullmatch, names)) or ".." in names:
        raise ValueError(f"{image!r} is not subject/condition/picture.jpg with a condition of {', '.join(CONDITIONS)}")
    return names[1]


@dataclass(frozen=True)
class Now:
    """A split of the set: its images by name. Files are read when they are asked for."""

    root: str | Path | None  # None: the asset
    split: str
    images: tuple[str, ...]  # subject/condition/picture.jpg, in the list's order

    def photo(self, image: str) -> Path:
        """Return the file of an image. Raises AssetError if it is missing."""
        path = _part(self.root, "iphone_pictures") / image
        if not path.is_file():
            raise AssetError(f"There is no {path}. {AGAIN}")
        return path

    def scan(self, subject: str) -> Mesh7:
        """Return a person's scan, mm. Raises AssetError if it is missing or damaged; the test set has none."""
        if self.split == "test":
            raise AssetError("The scans of NoW's test set are not given out; send a submission to the challenge")
        mesh = read_mesh(self._only_file("scans", subject, ".obj"))
        points = read_picked_points(self._only_file("scans_lmks_onlypp", subject, ".pp"))
        return Mesh7(mesh.vertices, mesh.triangles, points)

    def _only_file(self, part: str, subject: str, suffix: str) -> Path:
        folder = _part(self.root, part) / subject
        files = files_in(folder, {suffix})
        if len(files) != 1:
            raise AssetError(f"Expected one file *{suffix} in {folder}, found {len(files)}. {AGAIN}")
        return files[0]


def read_now(folder: str | Path | None = None, split: str = "validation") -> Now:
    """Return a split of NoW (folder None: the asset). Raises AssetError for a bad line of its list of images."""
    path = _part(folder, LISTS[split])
    images = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    for number, image in enumerate(images, 1):
        try:
            condition_of(image)
        except ValueError as error:
            raise AssetError(f"{path}, line {number}: {error}") from error
    if not images or len(set(images)) < len(images):
        raise AssetError(f"{path} lists {len(images)} images, {len(set(images))} of them distinct. Get it again.")
    return Now(folder, split, images)


def _part(root: str | Path | None, name: str) -> Path:
    """Return the list or folder of this name, wherever the archives put it."""
    return find_folder(root, "now", lambda inner: (inner / name).exists(), name) / name


def read_picked_points(path: str | Path) -> Float[Tensor, "7 3"]:
    """Return the seven points of a MeshLab file of picked points, in its order. AssetError if there are not seven."""
    try:
        points = [[float(point.attrib[axis]) for axis in "xyz"] for point in ElementTree.parse(path).iter("point")]
    except (OSError, ElementTree.ParseError, KeyError, ValueError) as error:
        kind = type(error).__name__
        raise AssetError(f"{path} is not a file of picked points ({kind}: {error}). Get it again.") from error
    return _seven(np.array(points), path)


def _seven(points: np.ndarray, path: str | Path) -> Float[Tensor, "7 3"]:
    if points.shape != (7, 3) or points.dtype.kind not in "fi" or not np.isfinite(points).all():
        raise AssetError(
            f"Expected 7 x 3 finite numbers in {path} (corners of the eyes, nose bottom, corners of the mouth), got "
            f"{points.dtype} of shape {points.shape}"
        )
    return torch.from_numpy(points.astype(np.float64)).float()


@dataclass(frozen=True)
class Submission:
    """A folder of predictions in the challenge's layout, from any method and with any topology."""

    folder: Path

    def _files(self, image: str) -> tuple[Path | None, Path | None]:
        """Return the files of mesh and landmarks, None for one that is missing."""
        condition_of(image)
        path = self.folder / image
        choices = [[path.with_suffix(suffix) for suffix in suffixes] for suffixes in SUFFIXES.values()]
        return tuple(next(filter(Path.is_file, files), None) for files in choices)

    def missing(self, images: Iterable[str]) -> dict[str, str]:
        """Return the images without a whole prediction, and what they lack."""
        given = {image: zip(SUFFIXES, self._files(image), strict=True) for image in images}
        lacks = {image: [f"no {part}" for part, file in files if file is None] for image, files in given.items()}
        return {image: " and ".join(lack) for image, lack in lacks.items() if lack}

    def prediction(self, image: str) -> Mesh7:
        """Return an image's prediction, in the unit of its file. Raises AssetError if it is missing or damaged."""
        file, marks = self._files(image)
        if file is None or marks is None:
            raise AssetError(f"{self.folder} lacks {image}: {self.missing([image])[image]}")
        mesh = read_mesh(file)
        try:
            points = read_arrays(marks)["array"] if marks.suffix == ".npy" else np.loadtxt(marks)
        except (OSError, ValueError) as error:
            raise AssetError(f"{marks} holds no landmarks ({error}). Write seven lines of x y z.") from error
        return Mesh7(mesh.vertices, mesh.triangles, _seven(np.asarray(points), marks))

    def write(self, image: str, prediction: Mesh7) -> Path:
        """Write a prediction as .obj and .npy. The mesh is written last, so it always has its landmarks.

        An earlier .obj and .npy are replaced. Raise FileExistsError for files of another kind, which another program
        wrote, and ValueError for numbers that are not finite.
        """
        if not (prediction.vertices.isfinite().all() and prediction.landmarks.isfinite().all()):
            raise ValueError(f"The prediction of {image} is not finite. Leave it out, so that it counts as missing.")
        path = (self.folder / image).with_suffix(".obj")
        foreign = [file for file in self._files(image) if file and file.suffix not in (".obj", ".npy")]
        if foreign:
            raise FileExistsError(f"{foreign[0]} is a prediction of another program. Choose another folder.")
        path.parent.mkdir(parents=True, exist_ok=True)
        vertices, triangles = prediction.vertices.detach().cpu().numpy(), prediction.triangles.cpu().numpy()
        mesh = trimesh.Trimesh(vertices, triangles, process=False)
        text = mesh.export(file_type="obj", header=None, include_normals=False)
        marks = path.with_suffix(".npy")
        with atomic_write(path) as whole_mesh, atomic_write(marks) as whole_marks:
            whole_mesh.write_text(text, encoding="utf-8")
            with whole_marks.open("wb") as file:
                np.save(file, prediction.landmarks.detach().cpu().numpy().astype(np.float64))
        return path
