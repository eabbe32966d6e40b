"""MICC Florence: scans of 53 people, and videos of each in three settings.

`subject_01/Model/frontal1/obj/110920150452.obj` is a textured scan in mm (there are also `frontal2` and side scans);
`subject_01/Videos/` holds the videos. The set is available by agreement only. We assume that frames were extracted from
the videos beforehand (`ffmpeg -i video.mov frame%04d.jpg`) into folders named after their setting, anywhere below the
subject: `subject_01/**/PTZ-Outdoor/**/frame0001.jpg`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from facenb.datasets.folders import IMAGES, files_in, find_folder, folders_in
from facenb.datasets.scans.mesh_files import read_mesh
from facenb.errors import AssetError
from facenb.morphable.mesh import Scan

SETTINGS = ("Indoor-Cooperative", "PTZ-Indoor", "PTZ-Outdoor")
VIEWS = ("frontal1", "frontal2")


@dataclass(frozen=True)
class MiccSubject:
    """One person: paths of scans and frames. `scan` reads a file."""

    name: str  # subject_01 to subject_53
    scans: tuple[Path, ...]  # the frontal ones, frontal1 first
    frames: dict[str, tuple[Path, ...]]  # by setting, in the order of their names

    def scan(self) -> Scan:
        """Return the first frontal scan (mm), textured if the image is there. Raises AssetError if it is damaged."""
        scan, images = read_mesh(self.scans[0]), files_in(self.scans[0].parent)
        if scan.uv is not None and scan.texture is None and images:
            scan = replace(scan, texture=images[0])
        return replace(scan, name=self.name)


def frames_of(subjects: Sequence[MiccSubject], setting: str) -> tuple[list[Path], list[str]]:
    """Return all frames of a setting, and the subject of each. Raises AssetError if there are none."""
    paths = [path for subject in subjects for path in subject.frames[setting]]
    if not paths:
        example = f"subject_01/Videos/{setting}/frame0001.jpg"
        raise AssetError(f"There are no frames of {setting}. Take them from the videos into folders like {example}.")
    return paths, [subject.name for subject in subjects for _ in subject.frames[setting]]


def read_micc(folder: str | Path | None = None) -> list[MiccSubject]:
    """Return the people below a folder (None: the asset). Raises AssetError if there are none, or one has no scan."""
    inner = find_folder(folder, "micc", lambda inner: bool(_subjects(inner)), "folders subject_01, subject_02, ...")
    return [_subject(folder) for folder in _subjects(inner)]


def _subjects(folder: Path) -> list[Path]:
    return [path for path in folders_in(folder) if path.name.startswith("subject_")]


def _subject(folder: Path) -> MiccSubject:
    scans = tuple(path for view in VIEWS for path in files_in(folder / "Model" / view / "obj", {".obj"}))
    if not scans:
        raise AssetError(f"{folder} has no scan Model/frontal1/obj/*.obj. Unpack MICC Florence again.")
    frames = {
        setting: tuple(sorted(path for path in folder.glob(f"**/{setting}/**/*") if path.suffix.lower() in IMAGES))
        for setting in SETTINGS
    }
    return MiccSubject(folder.name, scans, frames)
