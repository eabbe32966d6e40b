"""Paper against here: what run folders recorded, beside what the papers printed, and what became of each claim.

Only records are read. A table keeps the paper's columns and ours apart, ours with the name of the data they were
measured on; claims are corrected for their number (Holm). `report_page` shows it all as one HTML file.
"""

import json
import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from facenb.runs.comparisons import Comparison
from facenb.errors import RunError
from facenb.evaluation.claims import decide, holm
from facenb.runs.papers import CLAIMS, TABLES
from facenb.runs.recorded import is_number
from facenb.runs.results import mixed, read_records

WAITING, ELSEWHERE, PART, UNCORRECTED = "not run yet", "not on this data", "asked in part only", ", not corrected"
# What notebooks call one method, under one name.
ALIASES = {
    "c_id after phase I": "phase I", "c_id after phase III": "phase III", "random network": "untrained",
    "after phase II": "phase II", "after phase III": "phase III", "fit of all pictures": "fit of a person's pictures",
}  # fmt: skip
HEADS = ("claim", "paper", "statement", "notebook")  # columns of the headline, beside one for each source


@dataclass(frozen=True)
class Source:
    """The records of one folder, of one profile and seed."""

    folder: Path
    profile: str
    seed: int
    records: pd.DataFrame
    notes: tuple[str, ...]
    kinds: frozenset[str]  # of data: synthetic, photos, paper
    name: str = ""  # as a reader tells it from others, once it is in a report

    def called(self, parts: int, profile: bool) -> str:
        """A name from the last parts of the folder's path, the profile if it is needed, and a seed other than 0."""
        tail = Path(*self.folder.parts[-parts:]).as_posix()
        return tail + (f", {self.profile}" if profile else "") + (f", seed {self.seed}" if self.seed else "")


def told_apart(sources: Sequence[Source]) -> list[Source]:
    """The sources under names of their own: the folder's, and where two clash also the profile, then folders above.

    Raises RunError where no name tells two apart.
    """
    names = [source.called(1, profile=False) for source in sources]
    profiles = [{other.profile for other, own in zip(sources, names, strict=True) if own == name} for name in names]
    for parts in range(1, 1 + max((len(source.folder.parts) for source in sources), default=0)):
        names = [
            source.called(parts, len(found) > 1) if names.count(name) > 1 or name in HEADS else name
            for source, found, name in zip(sources, profiles, names, strict=True)
        ]
    for source, name in zip(sources, names, strict=True):
        if names.count(name) > 1:
            raise RunError(f"{source.folder} would be called {name!r}, as would another run folder; rename one of them")
    return [replace(source, name=name) for source, name in zip(sources, names, strict=True)]


def read_sources(folder: Path) -> list[Source]:
    """A folder's records by profile and seed, with a note on all that is odd. RunError where there is none."""
    # A link keeps the name it has; `.` gets one.
    folder = folder.resolve() if folder.name in ("", "..") else folder.parent.resolve() / folder.name
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        table = read_records(folder)
    broken = [str(one.message).replace(f"{folder}/", "") for one in caught]
    if table.empty:
        why = f"; {broken[0]}" if broken else ""
        raise RunError(
            f"there is no record in {folder}{why}. Run notebooks into it first, all of them or some:\n"
            f"    make notebooks PROFILE=... DATA=... RUN_FOLDER={folder}"
        )
    failed, kinds = [], set()
    for path in sorted(folder.glob("records/*.run.json")):
        try:
            run = json.loads(path.read_text())
            kinds.update({run.get("parameters", {}).get("data")} - {None})
            if run["status"] != "done":
                failed.append(
                    f"the last run of {path.name.split('.')[0]} is {run['status']}: its numbers may lack some"
                )
        except (ValueError, KeyError, TypeError, AttributeError):
            failed.append(f"{path.name} is no run record")
    return [
        Source(
            folder, profile, int(seed), part.reset_index(drop=True), (*broken, *failed, *mixed(part)), frozenset(kinds)
        )
        for (profile, seed), part in table.groupby(["profile", "seed"])
    ]


def first_number(row: dict, *names: str, default: float = math.nan) -> float:
    """The first of these fields that holds a finite number; in a table, what a record lacks is NaN."""
    return next((float(row[name]) for name in names if is_number(row.get(name))), default)


def words(row: dict, name: str, default: str = "") -> str:
    """A field's text, or the default where the record lacks it."""
    return row[name] if isinstance(row.get(name), str) else default


def cell(row: dict, percent: bool) -> str:
    """A record as a table shows it: value, then spread or interval."""
    value, unit, interval = row["value"], row["unit"], row.get("interval")
    if value is None or not math.isfinite(value):
        return "missing"
    spread = first_number(row, "spread", "std")
    factor = 100.0 if percent and unit == "" else 1.0
    size = factor * abs(value)
    digits = 0 if size >= 1000 else 2 if size >= 0.5 else 3
    text = f"{factor * value:.{digits}f}"
    if math.isfinite(spread):
        return f"{text} ± {factor * spread:.{digits}f}"
    if isinstance(interval, list):
        return f"{text} [{factor * interval[0]:.{digits}f}, {factor * interval[1]:.{digits}f}]"
    return text


def decisive(claim: str, names: Sequence[str]) -> str:
    """Of the records there are, the name of the one that asks all of a claim; empty where none does."""
    asked = CLAIMS[claim].records or (claim,) if claim in CLAIMS else ()
    return next((name for name in asked if name in names), "")


def method(row: dict) -> str:
    """A record's method under its one name."""
    return ALIASES.get(row["method"], row["method"])


class Report:
    """The tables and claims of one or more run folders. Raises RunError for sources that no name tells apart."""

    def __init__(self, sources: Sequence[Source]):
        self.sources = told_apart(sources)
        self.claims = self._claims()

    @classmethod
    def of(cls, *folders: str | Path) -> "Report":
        """From run folders; the first is the one whose report it is.

        Raises RunError for a folder without records, and for one that is given twice.
        """
        places = [Path(folder).resolve() for folder in folders]
        for place in places:
            if places.count(place) > 1:
                raise RunError(f"{place} is given twice; give each run folder once")
        return cls([source for folder in folders for source in read_sources(Path(folder))])

    def here(self, comparison: Comparison) -> pd.DataFrame:
        """Our part of a table: methods down; across, the data it was measured on, and the measure."""
        percent, cells = "%" in TABLES[comparison.table].unit, {}
        names = {name: column for column, given in comparison.metrics.items() for name in given}
        for source in self.sources:
            rows = source.records.sort_values("notebook", kind="stable").to_dict("records")
            rows = [
                row for row in rows
                if row["experiment"] == comparison.experiment and row["metric"] in names
                and re.match(comparison.protocols, row["protocol"])
                and re.match(comparison.only, method(row)) and not isinstance(row.get("features"), str)
            ]  # fmt: skip
            if not rows:
                continue
            last = {row["data"].split(",")[0]: row["notebook"] for row in rows}  # of two notebooks the later one
            for row in rows:
                data = row["data"].split(",")[0]
                if row["notebook"] == last[data]:
                    device = words(row, "device") if row["unit"] == "ms" else ""
                    where = " · ".join(filter(None, [data, row["protocol"], device, source.name]))
                    key = where, names[row["metric"]]
                    own, name = cells.setdefault(key, {}), method(row)
                    own[name] = " / ".join([*filter(None, [own.get(name)]), cell(row, percent)])  # none is dropped
        groups = dict.fromkeys(where for where, _ in cells)
        columns = [(w, c) for w in groups for c in comparison.metrics if (w, c) in cells]
        methods = list(dict.fromkeys(name for column in cells.values() for name in column))
        table = pd.DataFrame({key: cells[key] for key in columns}, index=methods, dtype=object).fillna("")
        table.columns = pd.MultiIndex.from_tuples(columns, names=["", ""])
        return table

    def table(self, comparison: Comparison) -> pd.DataFrame:
        """The paper's table and ours side by side; the first level of the columns says whose and of what data."""
        ours, frames = self.here(comparison), []
        for paper in (TABLES[name] for name in (comparison.table, comparison.also) if name):
            frames.append(paper.frame())
            frames[-1].columns = pd.MultiIndex.from_product([[f"{paper.paper}: {paper.data}"], paper.columns])
        theirs = pd.concat(frames, axis=1)
        stands = {
            row: own for own, row in reversed(comparison.pairs.items()) if own in ours.index and row in theirs.index
        }
        labels = {row: f"{row} · here: {own}" for row, own in stands.items()}  # of several of ours, the first
        ours = ours.rename(index={own: labels[row] for row, own in stands.items()})
        ours.columns = pd.MultiIndex.from_tuples([(f"here: {w}", c) for w, c in ours.columns], names=["", ""])
        theirs = theirs.rename(index=labels)
        order = [*theirs.index, *(own for own in ours.index if own not in theirs.index)]
        joined = pd.concat([theirs.reindex(order), ours.reindex(order)], axis=1).fillna("")
        if not comparison.across:
            return joined
        parts = []
        for where in dict.fromkeys(joined.columns.get_level_values(0)):
            part = joined[where].T
            part = part.loc[:, (part != "").any()]
            part.columns = pd.MultiIndex.from_product([[where], [_own_name(n, where) for n in part.columns]])
            parts.append(part)
        return pd.concat(parts, axis=1).fillna("")

    def _claims(self) -> pd.DataFrame:
        """Every recorded verdict, corrected by Holm in two families a source: claims, and further questions."""
        found = []
        for source in self.sources:
            rows = source.records[source.records.metric.str.startswith("claim ")].to_dict("records")
            p = [first_number(row, "p") for row in rows]
            names = [row["metric"].removeprefix("claim ") for row in rows]
            whole = [name == decisive(name.split(",")[0], names) for name in names]
            corrected = pd.Series(p, dtype=float)
            for family in (whole, [not one for one in whole]):
                corrected[family] = holm(corrected[family].to_numpy())
            for row, name, main, own, adjusted in zip(rows, names, whole, p, corrected, strict=True):
                value = math.nan if row["value"] is None else row["value"]
                low, high = row["interval"] if isinstance(row.get("interval"), list) else (math.nan, math.nan)
                at_least, level = first_number(row, "at_least", default=0.0), first_number(row, "level", default=0.95)
                says = decide(value, at_least, adjusted, level)
                if math.isnan(own) and math.isfinite(low):  # a record from before there were p
                    says = f"{words(row, 'verdict', 'not decided')}{UNCORRECTED}"
                found.append({
                    "claim": name.split(",")[0], "name": name, "whole": main, "statement": words(row, "statement"),
                    "source": source.name, "data": row["data"], "effect": value, "low": low, "high": high,
                    "unit": row["unit"], "at_least": at_least, "level": level, "n": row.get("n"),
                    "drawn": words(row, "drawn"),
                    "p": own, "p (Holm)": adjusted, "alone": words(row, "verdict"),
                    "verdict": says, "notebook": row["notebook"],
                })  # fmt: skip
        columns = ["claim", "name", "whole", "statement", "source", "data", "effect", "low", "high", "unit", "at_least",
                   "level", "n", "drawn", "p", "p (Holm)", "alone", "verdict", "notebook"]  # fmt: skip
        return pd.DataFrame(found, columns=columns)

    def headline(self) -> pd.DataFrame:
        """One row a claim of the papers: its sentence, and for each source the verdict, or what is still to be run."""
        rows = []
        for claim in CLAIMS.values():
            row = {"claim": claim.name, "paper": claim.paper, "statement": claim.statement, "notebook": claim.notebook}
            for source in self.sources:
                row[source.name] = self.verdict(claim.name, source.name)
            rows.append(row)
        return pd.DataFrame(rows).set_index("claim")

    def verdict(self, claim: str, source: str) -> str:
        """What a source says of a claim: of the record that asks all of it."""
        own = self.claims[(self.claims.claim == claim) & (self.claims.source == source)]
        if own.empty:
            asked, where = CLAIMS[claim], next(one for one in self.sources if one.name == source)
            ran = where.records.notebook.str.startswith(asked.notebook).any()
            unserved = asked.data and where.kinds and not where.kinds.intersection(asked.data)
            return ELSEWHERE if ran or unserved else WAITING
        return own[own.whole].verdict.iloc[-1] if own.whole.any() else PART


def _own_name(label: str, where: str) -> str:
    """A paired row's label, "Liu18 · here: phase III", on the side that it stands on."""
    theirs, _, ours = label.partition(" · here: ")
    return ours if ours and where.startswith("here") else theirs
