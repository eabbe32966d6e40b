"""NoW in its official layout, and the folder in which the challenge takes predictions.

`imagepathsvalidation.txt` and `imagepathstest.txt` name pictures, one a line, `subject/condition/picture.jpg`. Below
the same folder lie `iphone_pictures/` with these, `scans/<subject>/*.obj` in mm and
`scans_lmks_onlypp/<subject>/*_picked_points.pp`, seven points picked in MeshLab; the test set's scans are not given
out. A submission has `<subject>/<condition>/<picture>.obj` (or `.ply`) and beside it `.npy` (or `.txt`, seven lines
`x y z`). Assumed from public readers of the set, as we have not seen it; the detected boxes, which the set gives as
pickled files, are not read.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

import numpy as np
import torch
import trimesh
from jaxtyping import Float, Int
from torch import Tensor

from facenb.assets import asset
from facenb.errors import AssetError
from facenb.files import atomic_write
from facenb.morphable.scans import read_mesh

CONDITIONS = ("multiview_neutral", "multiview_expressions", "multiview_occlusions", "selfie")
LISTS = {"validation": "imagepathsvalidation.txt", "test": "imagepathstest.txt"}
INNER = "NoW_Dataset/final_release_version"  # where the photos' archive puts them; the lists lie there or above
GET = "`python -m data_download get now` says how to get it"
PLAIN = re.compile(r"[\w.-]+")  # a part of a name: no way out of the folder


@dataclass(frozen=True)
class Mesh7:
    """A surface with the protocol's seven landmarks: a scan, or a prediction."""

    vertices: Float[Tensor, "vertices 3"]
    triangles: Int[Tensor, "triangles 3"]
    landmarks: Float[Tensor, "7 3"]


def condition_of(image: str) -> str:
    """The condition in a picture's name `subject/condition/picture.jpg`. ValueError where there is none of the four."""
    parts = image.split("/")
    if len(parts) != 3 or parts[1] not in CONDITIONS or not all(map(PLAIN.fullmatch, parts)) or ".." in parts:
        raise ValueError(f"{image!r} is no subject/condition/picture.jpg with a condition of {', '.join(CONDITIONS)}")
    return parts[1]


@dataclass(frozen=True)
class Now:
    """A split of the set: its pictures by name; pictures and scans are read when they are asked for."""

    folder: Path
    split: str
    images: tuple[str, ...]  # subject/condition/picture.jpg, in the list's order

    def picture(self, image: str) -> Path:
        """Where a picture lies. AssetError if it does not."""
        path = self.folder / "iphone_pictures" / image
        if not path.is_file():
            raise AssetError(f"there is no {path}; {GET}")
        return path

    def by_subject(self) -> dict[str, list[str]]:
        """Each person's pictures."""
        people: dict[str, list[str]] = {}
        for image in self.images:
            people.setdefault(image.split("/")[0], []).append(image)
        return people

    def scan(self, subject: str) -> Mesh7:
        """A person's scan in mm. AssetError where it is missing or damaged; the test set has none to give."""
        files = []
        for kind, suffix in (("scans", "obj"), ("scans_lmks_onlypp", "pp")):
            found = sorted((self.folder / kind / subject).glob(f"*.{suffix}"))
            if len(found) != 1:
                why = " (scans of the test set are not given out: send a submission to the challenge)"
                raise AssetError(
                    f"{self.folder / kind / subject} holds {len(found)} files *.{suffix}, not one; {GET}"
                    + (why if self.split == "test" else "")
                )
            files.append(found[0])
        vertices, triangles, _ = read_mesh(files[0], subject)
        return Mesh7(vertices, triangles, read_picked_points(files[1]))


def read_now(folder: str | Path | None = None, split: str = "validation") -> Now:
    """A split of the set below a folder (None: the asset).

    Raises AssetError for a missing list, a line that names no picture, or one twice; ValueError for an unknown split.
    """
    if split not in LISTS:
        raise ValueError(f"there is no split {split!r}; there are {', '.join(LISTS)}")
    root = Path(folder) if folder is not None else asset("now")
    places = [root, root / "NoW_Dataset", root / INNER]
    path = next((place / LISTS[split] for place in places if (place / LISTS[split]).is_file()), None)
    if path is None:
        raise AssetError(f"there is no {root / LISTS[split]}; {GET}")
    images = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    for number, image in enumerate(images, 1):
        try:
            condition_of(image)
        except ValueError as error:
            raise AssetError(f"{path}, line {number}: {error}") from error
    if not images or len(set(images)) < len(images):
        raise AssetError(f"{path} names {len(images)} pictures, {len(set(images))} of them different; get it again")
    inner = next(
        (place for place in places if (place / "scans").is_dir() or (place / "iphone_pictures").is_dir()), root
    )
    return Now(inner, split, images)


def read_picked_points(path: str | Path) -> Float[Tensor, "7 3"]:
    """The seven points of a MeshLab file of picked points, in its order. AssetError where it does not hold seven."""
    try:
        found = [[float(point.attrib[axis]) for axis in "xyz"] for point in ElementTree.parse(path).iter("point")]
    except (OSError, ElementTree.ParseError, KeyError, ValueError) as error:
        raise AssetError(
            f"{path} is no file of picked points ({type(error).__name__}: {error}); get it again"
        ) from error
    return _seven(np.array(found), path)


def _seven(points: np.ndarray, path: str | Path) -> Tensor:
    if points.shape != (7, 3) or points.dtype.kind not in "fi" or not np.isfinite(points).all():
        raise AssetError(f"{path} must hold 7 x 3 numbers, all finite: the corners of the eyes, the nose's bottom, the "
                         f"corners of the mouth; it holds {points.dtype} of shape {points.shape}")  # fmt: skip
    return torch.from_numpy(points.astype(np.float64)).float()


@dataclass(frozen=True)
class Submission:
    """A folder of predictions as the challenge takes it; of any method, with any topology."""

    folder: Path

    def _files(self, image: str) -> tuple[Path | None, Path | None]:
        condition_of(image)
        stem = self.folder / PurePosixPath(image).with_suffix("")
        mesh, marks = (
            [stem.with_name(stem.name + end) for end in ends] for ends in ((".obj", ".ply"), (".npy", ".txt"))
        )
        return next(filter(Path.is_file, mesh), None), next(filter(Path.is_file, marks), None)

    def missing(self, images: Iterable[str]) -> dict[str, str]:
        """The pictures without a whole prediction, and what they lack."""
        lacks = {image: [what for what, file in zip(("mesh", "landmarks"), self._files(image), strict=True) if not file]
                 for image in images}  # fmt: skip
        return {image: f"no {' and no '.join(which)}" for image, which in lacks.items() if which}

    def prediction(self, image: str) -> Mesh7:
        """A picture's prediction, in the unit of its file. AssetError where it is missing or damaged."""
        mesh, marks = self._files(image)
        if mesh is None or marks is None:
            raise AssetError(f"{self.folder} lacks {image}: {self.missing([image])[image]}")
        vertices, triangles, _ = read_mesh(mesh, image)
        try:
            points = np.load(marks, allow_pickle=False) if marks.suffix == ".npy" else np.loadtxt(marks)
        except (OSError, ValueError, EOFError) as error:
            raise AssetError(f"{marks} holds no landmarks ({error}); write seven lines of x y z") from error
        return Mesh7(vertices, triangles, _seven(np.asarray(points), marks))

    def write(self, image: str, prediction: Mesh7, overwrite: bool = False) -> Path:
        """Write a prediction as .obj and .npy; the mesh last, so that none stands without its landmarks.

        Raises FileExistsError where there is one already, unless `overwrite`; ValueError for one that is not finite.
        """
        before = [file for file in self._files(image) if file is not None]
        if before and not overwrite:
            raise FileExistsError(
                f"{before[0]} is there already; another method's? Choose another folder, or overwrite"
            )
        if not (prediction.vertices.isfinite().all() and prediction.landmarks.isfinite().all()):
            raise ValueError(f"the prediction of {image} is not finite; leave it out, so that it counts as missing")
        mesh = self.folder / PurePosixPath(image).with_suffix(".obj")
        mesh.parent.mkdir(parents=True, exist_ok=True)
        marks = mesh.with_suffix(".npy")
        text = trimesh.Trimesh(
            prediction.vertices.detach().cpu().numpy(), prediction.triangles.cpu().numpy(), process=False
        ).export(file_type="obj", header=None, include_normals=False)
        with atomic_write(mesh) as whole_mesh, atomic_write(marks) as whole_marks:
            whole_mesh.write_text(text, encoding="utf-8")
            with whole_marks.open("wb") as file:
                np.save(file, prediction.landmarks.detach().cpu().numpy().astype(np.float64))
            for file in before:
                if file not in (mesh, marks):  # a .ply or .txt of before would be of another prediction
                    file.unlink()
        return mesh
