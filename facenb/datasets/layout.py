"""Where the files of a data set lie: folders nested once more, suffixes in capitals, clear errors for empty folders."""

from collections.abc import Callable, Collection
from pathlib import Path

from facenb.assets import asset
from facenb.errors import AssetError

IMAGES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".pgm", ".ppm", ".tif", ".tiff"})
DEPTH = 3  # archives are often unpacked into a folder of their own, once or twice
AGAIN = "Get the data set again."
BROAD = 200  # folders looked into on each level, so that a wrong folder is not searched for minutes


def files_in(folder: Path, suffixes: Collection[str] = IMAGES) -> list[Path]:
    """Return the files of a folder with one of these suffixes (lower case), by name. Hidden files are left out."""
    if not folder.is_dir():
        return []
    return [path for path in _visible(folder) if path.suffix.lower() in suffixes and path.is_file()]


def folders_in(folder: Path) -> list[Path]:
    """Return the folders in a folder, by name. Hidden ones are left out."""
    return [path for path in _visible(folder) if path.is_dir()]


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith((".", "__MACOSX")))


def find_folder(root: str | Path | None, name: str, holds: Callable[[Path], bool], expected: str) -> Path:
    """Return the first folder at or below `root` for which `holds` is true; those nearest to `root` come first.

    `root` None: the folder of the asset `name` (empty: the set is no asset). Raises AssetError with what was expected,
    what lies in `root`, and the command that gets the set or says how.
    """
    root = asset(name) if root is None else Path(root)
    level = [root] if root.is_dir() else []
    for _ in range(DEPTH + 1):
        for folder in level:
            if holds(folder):
                return folder
        level = [child for folder in level for child in folders_in(folder)][:BROAD]
    command = f" (`python -m data_download get {name}`)" if name else ""
    raise AssetError(f"Expected {expected} in {root}{command}; {_contents(root)}.")


def _contents(folder: Path) -> str:
    if not folder.is_dir():
        return "there is no such folder"
    names = [f"{path.name}/" if path.is_dir() else path.name for path in _visible(folder)]
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return f"it holds {', '.join(names[:6])}{more}" if names else "it is empty"


def sibling(path: Path, suffix: str) -> Path:
    """Return the file beside `path` with this suffix, in small letters or capitals. Raises AssetError without one."""
    for name in (path.with_suffix(suffix), path.with_suffix(suffix.upper())):
        if name.is_file():
            return name
    raise AssetError(f"There is no {path.with_suffix(suffix)} beside {path.name}. {AGAIN}")
