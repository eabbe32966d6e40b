"""The entries `assets/NAME.toml` as dataclasses: what an asset is, where it comes from, and its checksums.

Each source lists its own files, since a mirror often holds a subset or another packing than the public original.
"""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from data_download import AssetError

FOLDER = Path(__file__).parent / "assets"


@dataclass(frozen=True)
class File:
    """One file of a source. It has a checksum, or it is an archive, and `inside` of its source has checksums."""

    source: str  # `from` in the entry: relative to the source's base
    target: str  # `to` in the entry: relative to the asset's folder; for an archive, the folder of its members
    size: int | None = None  # bytes
    sha256: str = ""
    md5: str = ""
    unpack: str = ""  # "tar" or "zip"; empty for a file that is kept as it is
    unpacked_limit: int = 10**9  # most bytes that the archive may hold


@dataclass(frozen=True)
class Source:
    """A folder of the mirror (`mirror:NAME/`) or an address on the web that holds an asset."""

    base: str
    holds: str
    checked: str  # which checksums were compared with a real file, and which were copied from a publisher
    files: tuple[File, ...]
    inside: dict[str, str] = field(default_factory=dict)  # SHA-256 of some files in an archive without a checksum

    @property
    def is_mirror(self) -> bool:
        return self.base.startswith("mirror:")


@dataclass(frozen=True)
class Place:
    """Files that a person has to place by hand, and their checks."""

    path: str  # may hold wildcards
    what: str
    least: int = 1  # number of files that match, at least
    size_least: int = 1  # bytes, at least: a login page saved by mistake is smaller


@dataclass(frozen=True)
class Entry:
    """One asset: its terms and its sources, or the files to place by hand and where to request them."""

    name: str
    title: str
    data: str  # the notebooks' setting `data` that uses it: photos or paper
    home: str
    licence: str
    terms: str
    citation: str
    sources: tuple[Source, ...] = ()
    register: str = ""
    places: tuple[Place, ...] = ()  # of an asset that needs registration


def load_entries() -> dict[str, Entry]:
    """Return all entries by name, in alphabetical order."""
    return {path.stem: _read(path) for path in sorted(FOLDER.glob("*.toml"))}


def load_entry(name: str) -> Entry:
    """Return the entry called `name`. Raise AssetError with the known names if there is none."""
    entries = load_entries()
    if name not in entries:
        raise AssetError(f"There is no asset called {name!r}. Choose one of: {', '.join(entries)}")
    return entries[name]


def _read(path: Path) -> Entry:
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    rows = [(tuple(map(_file, row.pop("file"))), row) for row in table.pop("source", [])]
    sources = tuple(Source(files=files, **row) for files, row in rows)
    places = tuple(Place(**row) for row in table.pop("place", []))
    return Entry(path.stem, sources=sources, places=places, **table)


def _file(row: dict) -> File:
    source = row.pop("from")
    target = row.pop("to", "" if "unpack" in row else PurePosixPath(source).name)
    return File(source, target, **row)
