"""The papers' tables and claims, and which of our records are compared with them: `papers.toml` as dataclasses."""

import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd


@dataclass(frozen=True)
class PaperTable:
    """One table as printed."""

    title: str
    paper: str  # a key of PAPERS
    data: str  # what the paper measured on
    unit: str
    columns: tuple[str, ...]
    rows: dict[str, tuple[str, ...]]  # method -> cells
    note: str = ""

    def frame(self) -> pd.DataFrame:
        """Return methods down, columns across. Every cell is the text that was printed."""
        return pd.DataFrame.from_dict(self.rows, orient="index", columns=list(self.columns))


@dataclass(frozen=True)
class PaperClaim:
    """A sentence of a paper that a notebook decides."""

    name: str
    paper: str
    statement: str
    notebook: str  # number of the notebook whose record decides it
    records: tuple[str, ...] = ()  # names of the records that test all of it, best first; empty: its own name
    data: tuple[str, ...] = ()  # the kinds of data that its notebook serves; empty: all


@dataclass(frozen=True)
class Comparison:
    """Which records are compared with which table of a paper."""

    table: str  # key of TABLES
    notebook: str  # number of the notebook that measures it
    experiment: str
    metrics: dict[str, list[str]]  # column -> the metrics that fill it; the paper may lack the column
    protocols: tuple[str, ...] = ("",)  # a record's protocol begins with one of these
    methods: tuple[str, ...] = ()  # our methods; empty: all
    pairs: dict[str, str] = field(default_factory=dict)  # our method -> the paper's row that it corresponds to
    across: bool = False  # methods across and measures down, for tables with many columns
    also: str = ""  # a second table of the paper
    remark: str = ""  # what a reader must know about our numbers
    closed: str = ""  # why we may have no numbers


def _rows(text: str) -> dict[str, tuple[str, ...]]:
    """Read lines of the form `method | cell | cell`."""
    lines = [[cell.strip() for cell in line.split("|")] for line in text.strip().splitlines()]
    return {name: tuple(cells) for name, *cells in lines}


def _tuples(row: dict) -> dict:
    """Return the row with tuples for lists."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}


def _comparison(row: dict) -> Comparison:
    """Return a comparison. Its `metrics` may be a list: columns that are called like the metrics."""
    metrics = row.pop("metrics")
    metrics = metrics if isinstance(metrics, dict) else {name: [name] for name in metrics}
    return Comparison(metrics=metrics, **_tuples(row))


def _sections(rows: list[dict], make: Callable) -> dict[str, list]:
    """Return what `make` makes of the rows, by section of the report."""
    sections: dict[str, list] = {}
    for row in rows:
        sections.setdefault(row.pop("section"), []).append(make(row))
    return sections


_TOML = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
PAPERS: dict[str, str] = _TOML["papers"]
TABLES = {row.pop("name"): PaperTable(rows=_rows(row.pop("rows")), **_tuples(row)) for row in _TOML["table"]}
CLAIMS = {row["name"]: PaperClaim(**_tuples(row)) for row in _TOML["claim"]}
COMPARISONS = _sections(_TOML["comparison"], _comparison)
# Figures of notebooks: their names, of which the first that a run folder has is shown, and a caption.
FIGURES = _sections(_TOML["figure"], lambda row: (row["names"], row["caption"]))
