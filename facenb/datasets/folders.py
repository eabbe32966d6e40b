"""Find the files of a data set in nested folders, with suffixes in any case, and name what is missing."""

from collections.abc import Callable, Collection
from pathlib import Path

from facenb.assets import asset
from facenb.errors import AssetError

IMAGES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".pgm", ".ppm", ".tif", ".tiff"})
DEPTH = 3  # archives are often unpacked into a folder of their own, once or twice
AGAIN = "Get the data set again."
BROAD = 200  # most folders searched on each level, so that a wrong folder is not searched for minutes


def files_in(folder: Path, suffixes: Collection[str] = IMAGES) -> list[Path]:
    """Return the files of a folder with one of these suffixes (lower case), by name. Hidden files are left out."""
    paths = _visible(folder) if folder.is_dir() else []
    return [path for path in paths if path.suffix.lower() in suffixes and path.is_file()]


def folders_in(folder: Path) -> list[Path]:
    """Return the folders in a folder, by name. Hidden ones are left out."""
    return [path for path in _visible(folder) if path.is_dir()]


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith((".", "__MACOSX")))


def find_folder(root: str | Path | None, name: str, holds: Callable[[Path], bool], expected: str) -> Path:
    """Return the first folder at or below `root` for which `holds` is true; those nearest to `root` come first.

    If `root` is None, it is the folder of the asset `name` (empty: the set is no asset). Raises AssetError. Its message
    names what was expected, the content of `root`, and the command that gets the set or shows how.
    """
    root = asset(name) if root is None else Path(root)
    level = [root] if root.is_dir() else []
    for _ in range(DEPTH + 1):
        for folder in level:
            if holds(folder):
                return folder
        level = [child for folder in level for child in folders_in(folder)][:BROAD]
    command = f" (`python -m data_download get {name}`)" if name else ""
    names = [f"{path.name}/" if path.is_dir() else path.name for path in _visible(root)] if root.is_dir() else []
    others = f" and {len(names) - 6} more" if len(names) > 6 else ""
    empty = "it is empty" if root.is_dir() else "there is no such folder"
    content = f"it holds {', '.join(names[:6])}{others}" if names else empty
    raise AssetError(f"Expected {expected} in {root}{command}; {content}.")


def sibling(path: Path, suffix: str) -> Path:
    """Return the file beside `path` with this suffix, in lower or upper case. Raises AssetError if there is none."""
    for name in (path.with_suffix(suffix), path.with_suffix(suffix.upper())):
        if name.is_file():
            return name
    raise AssetError(f"There is no {path.with_suffix(suffix)} beside {path.name}. {AGAIN}")


def read_folder(folder: str | Path) -> dict[str, tuple[Path, ...]]:
    """Return each person's images from a folder with one directory per person, both in alphabetical order.

    Raises AssetError if there is no such folder, images lie beside the directories, or a directory has no images.
    """
    folder = find_folder(folder, "", lambda inner: not _is_wrapper(inner), "a directory of images for each person")
    if loose := files_in(folder):
        raise AssetError(f"{loose[0]} lies beside the directories of people. Move each image to its person.")
    people = {person.name: tuple(files_in(person)) for person in folders_in(folder)}
    empty = [name for name, images in people.items() if not images]
    if empty or not people:
        problem = f"{folder / empty[0]} holds no images" if empty else f"{folder} holds no directories"
        raise AssetError(f"{problem}. Expected a directory for each person, with images ({', '.join(sorted(IMAGES))}).")
    return people


def _is_wrapper(folder: Path) -> bool:
    """Return whether a folder holds nothing but one folder, which holds folders and no images."""
    inner = folders_in(folder)
    return len(inner) == 1 and not files_in(folder) and not files_in(inner[0]) and bool(folders_in(inner[0]))
