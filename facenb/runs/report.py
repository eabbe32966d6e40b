"""Paper against here: the numbers of run folders beside those that the papers printed, and a verdict for each claim.

Only records are read. A table keeps the paper's columns apart from ours, which carry the name of the data they were
measured on. Verdicts are corrected for the number of claims (Holm 1979). Notebook 17 shows it all.
"""

import json
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from facenb.errors import RunError
from facenb.evaluation.claims import decide, holm
from facenb.runs.papers import CLAIMS, FIGURES, TABLES, Comparison
from facenb.runs.recorded import mixed, read_records, short_commit

WAITING, ELSEWHERE, PART, UNCORRECTED = "not run yet", "not on this data", "asked in part only", ", not corrected"
HEADS = ("claim", "paper", "statement", "notebook")  # columns of the headline, beside one for each source
WIDEST = 12  # most columns of a table that can still be read


@dataclass(frozen=True)
class Source:
    """The records of one folder, of one profile and seed."""

    folder: Path
    profile: str
    seed: int
    records: pd.DataFrame
    notes: tuple[str, ...]
    kinds: frozenset[str]  # of data: synthetic, photos, paper
    name: str = ""  # how the report calls it

    def __str__(self) -> str:
        facts = [f"profile {self.profile}, seed {self.seed}"]
        facts.append(f"{len(self.records)} records of {self.records.notebook.nunique()} notebooks")
        for field in ("time", "device", "commit"):
            values = sorted(set(self.records[field].dropna()) - {""}) if field in self.records else []
            values = [values[0], values[-1]] if field == "time" and values else map(short_commit, values)
            facts.append(f"{field}: {', '.join(dict.fromkeys(values)) or 'not known'}")
        return f"{self.name}: {'; '.join(facts)}"


def with_names(sources: Sequence[Source]) -> list[Source]:
    """Return the sources with names: the folder's, with profile or seed if needed. Raise RunError if two are alike."""
    names = list(HEADS)
    for source in sources:
        profiles = {other.profile for other in sources if other.folder == source.folder}
        name = source.folder.name + (f", {source.profile}" if len(profiles) > 1 else "")
        name += f", seed {source.seed}" if source.seed else ""
        if name in names:
            raise RunError(f"The name {name!r} of {source.folder} is taken. Give each run folder once, or rename it.")
        names.append(name)
    return [replace(source, name=name) for source, name in zip(sources, names[len(HEADS) :], strict=True)]


def read_sources(folder: Path) -> list[Source]:
    """Return a folder's records by profile and seed, with notes on everything odd. Raise RunError if it has none."""
    folder = Path(os.path.abspath(folder))  # a link keeps its name; `.` gets one
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        table = read_records(folder)
    dropped = [str(warning.message).replace(f"{folder}/", "") for warning in caught]
    if table.empty:
        raise RunError(
            f"There is no record in {folder}{f' ({dropped[0]})' if dropped else ''}. Run notebooks into it first:\n"
            f"    make notebooks PROFILE=... DATA=... RUN_FOLDER={folder}"
        )
    notes, kinds = _run_notes(folder)
    return [
        Source(folder, profile, int(seed), part.reset_index(drop=True), (*dropped, *notes, *mixed(part)), kinds)
        for (profile, seed), part in table.groupby(["profile", "seed"])
    ]


def _run_notes(folder: Path) -> tuple[list[str], frozenset[str]]:
    """Return notes on runs that did not end well, and the kinds of data of all runs."""
    notes, kinds = [], set()
    for path in sorted(folder.glob("records/*.run.json")):
        try:
            run = json.loads(path.read_text())
            kinds |= {run.get("parameters", {}).get("data")} - {None}
            if run["status"] != "done":
                name = path.name.split(".")[0]
                notes.append(f"the last run of {name} is {run['status']}: its numbers may be incomplete")
        except (ValueError, KeyError, TypeError, AttributeError):
            notes.append(f"{path.name} is not a run record")
    return notes, frozenset(kinds)


def rows_of(table: pd.DataFrame) -> list[dict]:
    """Return a table's rows without missing fields and numbers that are not finite."""

    def is_there(value) -> bool:
        return value is not None and value is not pd.NA and not (isinstance(value, float) and not math.isfinite(value))

    return [{name: value for name, value in row.items() if is_there(value)} for row in table.to_dict("records")]


def cell(row: dict, percent: bool) -> str:
    """Return a record as a table shows it: the value, then its spread or interval."""
    if "value" not in row:
        return "missing"
    factor = 100.0 if percent and row["unit"] == "" else 1.0
    size = factor * abs(row["value"])
    digits = 0 if size >= 1000 else 2 if size >= 0.5 else 3
    numbers = [row["value"], row.get("spread", row.get("std")), *row.get("interval", ())]
    number, spread, *ends = ("" if number is None else f"{factor * number:.{digits}f}" for number in numbers)
    if spread:
        return f"{number} ± {spread}"
    return f"{number} [{', '.join(ends)}]" if ends else number


def decisive(claim: str, names: Sequence[str]) -> str:
    """Return which of these records tests all of a claim. Empty if none does."""
    complete = CLAIMS[claim].records or (claim,) if claim in CLAIMS else ()
    return next((name for name in complete if name in names), "")


class Report:
    """The tables and claims of one or more run folders."""

    def __init__(self, sources: Sequence[Source]):
        self.sources = with_names(sources)
        self.claims = self._claims()

    @classmethod
    def of(cls, *folders: str | Path) -> "Report":
        """Return the report on the first run folder, with the others for comparison.

        Raise RunError for a folder without records, and for two folders of one name.
        """
        return cls([source for folder in folders for source in read_sources(Path(folder))])

    def here(self, comparison: Comparison) -> pd.DataFrame:
        """Return our side of a table: methods down; across, the data and the measure."""
        percent = "%" in TABLES[comparison.table].unit
        column = {metric: name for name, metrics in comparison.metrics.items() for metric in metrics}
        cells: dict[tuple[str, str], dict[str, str]] = {}
        for source, row in self._rows(comparison, column):
            device = row.get("device", "") if row["unit"] == "ms" else ""
            where = " · ".join(filter(None, [_set_name(row), row["protocol"], device, source.name]))
            values = cells.setdefault((where, column[row["metric"]]), {})
            earlier = values.get(row["method"])
            values[row["method"]] = " / ".join([*filter(None, [earlier]), cell(row, percent)])  # none is dropped
        groups = dict.fromkeys(where for where, _ in cells)
        columns = [(where, name) for where in groups for name in comparison.metrics if (where, name) in cells]
        methods = list(dict.fromkeys(method for values in cells.values() for method in values))
        table = pd.DataFrame({key: cells[key] for key in columns}, index=methods, dtype=object).fillna("")
        table.columns = pd.MultiIndex.from_tuples(columns, names=["", ""])
        return table

    def _rows(self, comparison: Comparison, metrics: dict[str, str]) -> Iterator[tuple[Source, dict]]:
        """Yield the records that belong to a comparison. If two notebooks measured one set, the later one counts."""
        for source in self.sources:
            rows = [
                row
                for row in rows_of(source.records.sort_values("notebook", kind="stable"))
                if row["experiment"] == comparison.experiment
                and row["metric"] in metrics
                and row["protocol"].startswith(comparison.protocols)
                and (not comparison.methods or row["method"] in comparison.methods)
                and "features" not in row
            ]
            last = {_set_name(row): row["notebook"] for row in rows}
            yield from ((source, row) for row in rows if row["notebook"] == last[_set_name(row)])

    def table(self, comparison: Comparison) -> pd.DataFrame:
        """Return the paper's table and ours side by side. The first level of the columns says whose numbers follow."""
        ours, frames = self.here(comparison), []
        for paper in (TABLES[name] for name in (comparison.table, comparison.also) if name):
            frames.append(paper.frame())
            frames[-1].columns = pd.MultiIndex.from_product([[f"{paper.paper}: {paper.data}"], paper.columns])
        theirs = pd.concat(frames, axis=1)
        pairs = {}  # the paper's row -> our method; of several of ours, the first
        for method, row in comparison.pairs.items():
            if method in ours.index and row in theirs.index:
                pairs.setdefault(row, method)
        labels = {row: f"{row} · here: {method}" for row, method in pairs.items()}
        ours = ours.rename(index={method: labels[row] for row, method in pairs.items()})
        headed = [(f"here: {where}", name) for where, name in ours.columns]
        ours.columns = pd.MultiIndex.from_tuples(headed, names=["", ""])
        theirs = theirs.rename(index=labels)
        order = [*theirs.index, *(method for method in ours.index if method not in theirs.index)]
        joined = pd.concat([theirs.reindex(order), ours.reindex(order)], axis=1).fillna("")
        return _across(joined) if comparison.across else joined

    def tables(self, comparison: Comparison) -> list[pd.DataFrame]:
        """Return one table, or several with some of our columns each if one would be too wide.

        Beside ours, columns of the paper that are empty are left out.
        """
        table = self.table(comparison)
        groups = list(dict.fromkeys(table.columns.get_level_values(0)))
        ours = [where for where in groups if where.startswith("here")]
        if not ours:
            return [table]
        theirs = [where for where in groups if where not in ours and (table[where] != "").any(axis=None)]
        blocks: list[list[str]] = [[]]
        for where in ours:
            if blocks[-1] and table[[*theirs, *blocks[-1], where]].shape[1] > WIDEST:
                blocks.append([])
            blocks[-1].append(where)
        tables = [table[theirs + block] for block in blocks]
        return [narrow[(narrow != "").any(axis=1)] for narrow in tables]

    def figures(self, section: str) -> list[tuple[Path, str]]:
        """Return the section's figures that the run folders have: their files and captions."""
        figures = []
        for names, caption in FIGURES[section]:
            for source in self.sources:
                paths = [source.folder / f"figures/{name}.png" for name in names]
                figures += [(path, f"{caption} ({source.name})") for path in paths if path.is_file()][:1]
        return figures

    def _claims(self) -> pd.DataFrame:
        """Return every recorded verdict, corrected by Holm in two families a source: claims, and other questions."""
        verdicts = []
        for source in self.sources:
            rows = rows_of(source.records[source.records.metric.str.startswith("claim ")])
            names = [row["metric"].removeprefix("claim ") for row in rows]
            whole = [name == decisive(name.split(",")[0], names) for name in names]
            p = pd.Series([row.get("p", math.nan) for row in rows], dtype=float)
            corrected = p.copy()
            for family in (whole, [not is_whole for is_whole in whole]):
                corrected[family] = holm(p[family].to_numpy())
            for row, name, is_whole, adjusted in zip(rows, names, whole, corrected, strict=True):
                verdicts.append({"name": name, "whole": is_whole, "source": source.name} | _verdict(row, adjusted))
        columns = ["claim", "name", "whole", "statement", "source", "data", "effect", "low", "high", "unit", "at_least"]
        columns += ["level", "n", "drawn", "p", "p (Holm)", "alone", "verdict", "notebook"]
        return pd.DataFrame(verdicts, columns=columns)

    def headline(self) -> pd.DataFrame:
        """Return a row for each claim of the papers: its statement, and each source's verdict or what is missing."""
        rows = []
        for claim in CLAIMS.values():
            row = {"claim": claim.name, "paper": claim.paper, "statement": claim.statement, "notebook": claim.notebook}
            rows.append(row | {source.name: self.verdict(claim.name, source.name) for source in self.sources})
        return pd.DataFrame(rows).set_index("claim")

    def verdict(self, claim: str, source: str) -> str:
        """Return the verdict of the source of this name, from the record that tests all of the claim."""
        rows = self.claims[(self.claims.claim == claim) & (self.claims.source == source)]
        if not rows.empty:
            return rows[rows.whole].verdict.iloc[-1] if rows.whole.any() else PART
        [origin] = [candidate for candidate in self.sources if candidate.name == source]
        ran = origin.records.notebook.str.startswith(CLAIMS[claim].notebook).any()
        served = not CLAIMS[claim].data or not origin.kinds or origin.kinds.intersection(CLAIMS[claim].data)
        return WAITING if served and not ran else ELSEWHERE


def _verdict(row: dict, adjusted: float) -> dict:
    """Return a recorded claim with the verdict for its corrected p-value."""
    missing = {"value": math.nan, "interval": (math.nan, math.nan), "p": math.nan, "at_least": 0.0, "level": 0.95}
    row = missing | {"n": None, "statement": "", "drawn": "", "verdict": ""} | row
    verdict = decide(row["value"], row["at_least"], adjusted, row["level"])
    low, high = row["interval"]
    if math.isnan(row["p"]) and math.isfinite(low):
        verdict = f"{row['verdict'] or 'not decided'}{UNCORRECTED}"
    facts = {
        name: row[name] for name in ("statement", "data", "unit", "n", "at_least", "level", "drawn", "p", "notebook")
    }
    facts |= {"claim": row["metric"].removeprefix("claim ").split(",")[0], "effect": row["value"]}
    return facts | {"low": low, "high": high, "p (Holm)": adjusted, "alone": row["verdict"], "verdict": verdict}


def _set_name(row: dict) -> str:
    """Return the name of a record's data without what was taken of it ("SynthFace, unseen people")."""
    return row["data"].split(",")[0]


def _across(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with measures down and methods across."""
    sides = []
    for where in dict.fromkeys(table.columns.get_level_values(0)):
        side = table[where].T
        side = side.loc[:, (side != "").any()]
        names = [_side(name, where) for name in side.columns]
        side.columns = pd.MultiIndex.from_product([[where], names])
        sides.append(side)
    return pd.concat(sides, axis=1).fillna("")


def _side(label: str, where: str) -> str:
    """Return the name in "Liu18 · here: phase III" that belongs to one side of the table."""
    theirs, _, ours = label.partition(" · here: ")
    return ours if ours and where.startswith("here") else theirs
