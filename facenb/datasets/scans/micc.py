"""MICC Florence in its official layout: scans of 53 people, and videos of each in three settings.

`subject_01/Model/frontal1/obj/110920150452.obj` is a textured scan in mm (`frontal2` a second one, and sides);
`subject_01/Videos/` holds the videos. Assumed, since the set is given out by agreement only: frames were taken from the
videos beforehand (`ffmpeg -i video.mov frame%04d.jpg`) into folders named after their setting anywhere below the
subject, `subject_01/**/PTZ-Outdoor/**/frame0001.jpg`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from facenb.assets import asset
from facenb.datasets.pictures.folders import SUFFIXES
from facenb.errors import AssetError
from facenb.morphable.scans import Scan, read_mesh

SETTINGS = ("Indoor-Cooperative", "PTZ-Indoor", "PTZ-Outdoor")
VIEWS = ("frontal1", "frontal2")
PEOPLE = 53


@dataclass(frozen=True)
class MiccSubject:
    """One person: scans and frames; files are read when they are asked for."""

    name: str  # subject_01 to subject_53
    scans: tuple[Path, ...]  # frontal ones, the first first
    frames: dict[str, tuple[Path, ...]]  # by setting, in the order of their names

    def scan(self) -> Scan:
        """The first frontal scan, in mm, with its texture where the picture is there. AssetError if it is damaged."""
        path = self.scans[0]
        vertices, triangles, uv = read_mesh(path, self.name)
        pictures = [one for one in sorted(path.parent.iterdir()) if one.suffix.lower() in SUFFIXES]
        texture = next((one for one in pictures if one.stem == path.stem), pictures[0] if pictures else None)
        scan = Scan(self.name, vertices, triangles, "mm")
        return scan if uv is None or texture is None else replace(scan, uv=uv, texture=texture)


@dataclass(frozen=True)
class Micc:
    """The people of the set."""

    folder: Path
    subjects: tuple[MiccSubject, ...]

    def __len__(self) -> int:
        return len(self.subjects)

    def __iter__(self) -> Iterator[MiccSubject]:
        return iter(self.subjects)

    def frames(self, setting: str) -> tuple[list[Path], list[str]]:
        """All frames of a setting, and whose each is. ValueError for an unknown one, AssetError where there is none."""
        if setting not in SETTINGS:
            raise ValueError(f"there is no setting {setting!r}; there are {', '.join(SETTINGS)}")
        paths = [path for subject in self for path in subject.frames[setting]]
        if not paths:
            raise AssetError(f"{self.folder} holds no frames of {setting}; take them from the videos, e.g. into "
                             f"subject_01/Videos/{setting}/frame0001.jpg")  # fmt: skip
        return paths, [subject.name for subject in self for _ in subject.frames[setting]]


def read_micc(folder: str | Path | None = None) -> Micc:
    """The set below a folder (None: the asset). Raises AssetError where there are no subjects, or one has no scan."""
    root = Path(folder) if folder is not None else asset("micc")
    subjects = []
    for place in sorted(path for path in root.glob("subject_*") if path.is_dir()):
        scans = tuple(file for view in VIEWS for file in sorted((place / "Model" / view / "obj").glob("*.obj")))
        if not scans:
            raise AssetError(f"{place} has no scan Model/frontal1/obj/*.obj; unpack MICC Florence again")
        frames = {
            setting: tuple(sorted(path for path in place.glob(f"**/{setting}/**/*") if path.suffix.lower() in SUFFIXES))
            for setting in SETTINGS
        }
        subjects.append(MiccSubject(place.name, scans, frames))
    if not subjects:
        raise AssetError(
            f"{root} holds no subject_01, subject_02, ...; `python -m data_download get micc` says how to get the set"
        )
    return Micc(root, tuple(subjects))
