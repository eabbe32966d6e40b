"""The papers' tables and claims, and the records to compare with them: `papers.toml` as dataclasses."""

import tomllib
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
    columns: list[str]
    rows: dict[str, list[str]]  # method -> cells
    note: str = ""

    def frame(self) -> pd.DataFrame:
        """Return methods down, columns across. Every cell is the text that was printed."""
        return pd.DataFrame.from_dict(self.rows, orient="index", columns=self.columns)


@dataclass(frozen=True)
class PaperClaim:
    """A claim of a paper that a notebook tests."""

    name: str
    paper: str
    statement: str
    notebook: str  # number of the notebook that tests it
    records: list[str]  # names of records that test the whole claim, best first; usually only its own name
    data: list[str] = field(default_factory=list)  # the kinds of data that its notebook can use; empty: all


@dataclass(frozen=True)
class Comparison:
    """Which records are compared with which table of a paper."""

    table: str  # key of TABLES
    notebook: str  # number of the notebook that measures it
    experiment: str
    metrics: dict[str, list[str]]  # column -> metrics for it; the paper need not have this column
    protocols: list[str] = field(default_factory=lambda: [""])  # a record's protocol begins with one of these
    methods: list[str] = field(default_factory=list)  # our methods; empty: all
    pairs: dict[str, str] = field(default_factory=dict)  # our method -> the paper's row that it corresponds to
    across: bool = False  # methods across and measures down, for tables with many columns
    also: str = ""  # a second table of the paper
    remark: str = ""  # what a reader must know about our numbers
    closed: str = ""  # why we may have no numbers


def _rows(text: str) -> dict[str, list[str]]:
    """Read lines of the form `method | cell | cell`."""
    lines = [[cell.strip() for cell in line.split("|")] for line in text.strip().splitlines()]
    return {name: cells for name, *cells in lines}


_TOML = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
PAPERS: dict[str, str] = _TOML["papers"]
TABLES = {row.pop("name"): PaperTable(rows=_rows(row.pop("rows")), **row) for row in _TOML["table"]}
CLAIMS = {row["name"]: PaperClaim(**{"records": [row["name"]]} | row) for row in _TOML["claim"]}
# By section of the report.
COMPARISONS = {section: [Comparison(**row) for row in rows] for section, rows in _TOML["comparison"].items()}
FIGURES: dict[str, list[dict]] = _TOML["figure"]  # a caption, and names: the first existing one is shown
