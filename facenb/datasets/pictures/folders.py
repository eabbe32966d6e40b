"""A folder of images with one directory for each person, as most sets of faces are handed on."""

from pathlib import Path

from facenb.datasets.layout import IMAGES, files_in, folders_in
from facenb.errors import AssetError


def read_folder(folder: str | Path) -> dict[str, tuple[Path, ...]]:
    """Return the images of each person, both in alphabetical order. A folder nested once more is found.

    Raises AssetError if there is no such folder, images lie beside the directories, or a directory holds none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise AssetError(f"There is no folder {folder}. Give one that holds a directory of images for each person.")
    while _is_wrapper(folder):
        folder = folders_in(folder)[0]
    if loose := files_in(folder):
        raise AssetError(f"{loose[0]} lies beside the directories of people. Move each image to its person.")
    people = {person.name: tuple(files_in(person)) for person in folders_in(folder)}
    empty = [name for name, images in people.items() if not images]
    if empty or not people:
        problem = f"{folder / empty[0]} holds no images" if empty else f"{folder} holds no directories"
        raise AssetError(f"{problem}. Expected a directory for each person, with images ({', '.join(sorted(IMAGES))}).")
    return people


def _is_wrapper(folder: Path) -> bool:
    """Whether a folder holds nothing but one folder, which holds folders and no images."""
    inner = folders_in(folder)
    return len(inner) == 1 and not files_in(folder) and not files_in(inner[0]) and bool(folders_in(inner[0]))
