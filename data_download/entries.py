"""What an asset's entry (`assets/NAME.toml`) says, as dataclasses.

An entry has one or more sources, tried in order. A source is a place that holds the files in one packing, each file
with its own size and checksum: the mirror folder often holds a subset or another packing than the public original, so
the two never share a checksum unless the files are the same. `checked` says, for every source, which of its checksums
were held against a real file and which were only copied from someone who published them.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from facenb.errors import AssetError

FOLDER = Path(__file__).parent / "assets"


@dataclass(frozen=True)
class File:
    """One file of a source; `unpack` is an archive's kind ("tar", "zip") or empty for a file kept as it is."""

    source: str  # relative to the source's base
    target: str  # relative to the asset's folder; an archive: the folder its members go to ("" is the asset's own)
    size: int | None
    sha256: str
    md5: str
    unpack: str
    unpacked_limit: int  # bytes that the archive may hold unpacked


@dataclass(frozen=True)
class Source:
    """A place that holds an asset: a folder of the mirror (`mirror:NAME/`) or an address on the web."""

    base: str
    holds: str
    checked: str
    files: tuple[File, ...]

    @property
    def is_mirror(self) -> bool:
        return self.base.startswith("mirror:")


@dataclass(frozen=True)
class Place:
    """A file a person has to place by hand, with what can be checked of it without opening it."""

    path: str  # may hold wildcards
    what: str
    least: int  # files that match, or more
    size_least: int  # bytes
    starts: bytes  # the format's first bytes


@dataclass(frozen=True)
class Entry:
    """One asset: what it is, its terms and its sources, or for registered ones what to place and where to ask."""

    name: str
    title: str
    data: str  # the value of the notebooks' `data` it serves: photos or paper
    home: str
    licence: str
    terms: str
    citation: str
    sources: tuple[Source, ...]
    ready: tuple[str, ...]  # paths a whole copy must hold, whatever its source
    register: str
    places: tuple[Place, ...]

    @property
    def needs_registration(self) -> bool:
        return bool(self.places)


def _file(table: dict) -> File:
    source = table.pop("from")
    unpack = table.pop("unpack", "")
    default = "" if unpack else PurePosixPath(source).name
    size = table.pop("size", None)
    limit = table.pop("unpacked_limit", 20 * (size or 10**8))
    target = table.pop("to", default)
    file = File(source, target, size, table.pop("sha256", ""), table.pop("md5", ""), unpack, limit)
    _nothing_left(table)
    return file


def _nothing_left(table: dict) -> None:
    if table:
        raise KeyError(f"unknown key {sorted(table)}")


def _place(table: dict) -> Place:
    place = Place(table.pop("path"), table.pop("what"), table.pop("least", 1), table.pop("size_least", 1),
                  table.pop("starts", "").encode("latin-1"))  # fmt: skip
    _nothing_left(table)
    return place


def _source(table: dict) -> Source:
    files = tuple(_file(file) for file in table.pop("file"))
    source = Source(table.pop("base"), table.pop("holds"), table.pop("checked"), files)
    _nothing_left(table)
    return source


def read_entry(path: Path) -> Entry:
    """The entry in one TOML file. Raises AssetError naming the file where a key is missing or unknown."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        sources = tuple(_source(source) for source in table.pop("source", []))
        places = tuple(_place(place) for place in table.pop("place", []))
        entry = Entry(path.stem, table.pop("title"), table.pop("data"), table.pop("home"), table.pop("licence"),
                      table.pop("terms"), table.pop("citation"), sources, tuple(table.pop("ready", [])),
                      table.pop("register", ""), places)  # fmt: skip
        _nothing_left(table)
    except (KeyError, tomllib.TOMLDecodeError) as error:
        raise AssetError(f"the entry {path} is not as it should be: {error}") from error
    return entry


def load_entries(folder: Path | None = None) -> dict[str, Entry]:
    """All entries by name, in alphabetical order."""
    return {path.stem: read_entry(path) for path in sorted((folder or FOLDER).glob("*.toml"))}


def load_entry(name: str, folder: Path | None = None) -> Entry:
    """The entry called `name`. Raises AssetError that lists the names there are."""
    path = (folder or FOLDER) / f"{name}.toml"
    if not path.is_file() or path.stem != name:
        known = ", ".join(sorted(path.stem for path in (folder or FOLDER).glob("*.toml")))
        raise AssetError(f"there is no asset called {name!r}; there are {known}")
    return read_entry(path)
