"""The report: the numbers of run folders beside the numbers in the papers, and a verdict for each claim.

It reads only records. In a table, our columns are separate from the paper's and name the data that they were measured
on. Verdicts are corrected for the number of claims (Holm 1979). Notebook 17 shows the report; `write_page`
makes a web page from it.
"""

import math
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from nbconvert import HTMLExporter

from facenb.errors import RunError
from facenb.evaluation.claims import decide, holm
from facenb.files import atomic_write
from facenb.runs.papers import CLAIMS, FIGURES, TABLES, Comparison
from facenb.runs.recorded import mixed, read_records, read_run, short_commit

WAITING, ELSEWHERE, PART, UNCORRECTED = "not run yet", "not on this data", "asked in part only", ", not corrected"
HEADS = ("claim", "paper", "statement", "notebook")  # columns of the headline, before one column per source
UNKNOWN = {"value": math.nan, "interval": (math.nan, math.nan), "p": math.nan}  # if a claim's record has null
COLUMNS = ["claim", "name", "whole", "statement", "source", "data", "value", "low", "high", "unit", "at_least"]
COLUMNS += ["level", "n", "drawn", "p", "alone", "notebook", "strength"]


@dataclass(frozen=True)
class Source:
    """The records of one folder, of one profile and seed."""

    name: str  # its name in the report
    folder: Path
    records: pd.DataFrame
    notes: list[str]
    kinds: set[str]  # of data: synthetic, photos, paper

    def __str__(self) -> str:
        profile, seed = self.records.loc[0, ["profile", "seed"]]
        facts = [f"profile {profile}, seed {seed}"]
        facts.append(f"{len(self.records)} records of {self.records.notebook.nunique()} notebooks")
        for field in ("time", "device", "commit"):
            values = sorted(set(self.records[field]))
            values = [values[0], values[-1]] if field == "time" else map(short_commit, values)
            facts.append(f"{field}: {', '.join(dict.fromkeys(values))}")
        return f"{self.name}: {'; '.join(facts)}"


def read_sources(folder: Path) -> list[Source]:
    """Return a folder's records by profile and seed, with notes on problems. Raise RunError if it has no records.

    The name of a source is the folder's, with profile or seed if needed.
    """
    folder = Path(os.path.abspath(folder))  # not resolved, so a link keeps its name; gives `.` a name
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
    sources = []
    for (profile, seed), part in table.groupby(["profile", "seed"]):
        name = f"{folder.name}, {profile}" if table.profile.nunique() > 1 else folder.name
        name += f", seed {seed}" if seed else ""
        records = part.reset_index(drop=True)
        sources.append(Source(name, folder, records, [*dropped, *notes, *mixed(records)], kinds))
    return sources


def _run_notes(folder: Path) -> tuple[list[str], set[str]]:
    """Return notes on runs that did not end well, and the kinds of data of all runs."""
    notes, kinds = [], set()
    for path in sorted(folder.glob("records/*.run.json")):
        run = read_run(path)
        kinds |= {run.get("parameters", {}).get("data")} - {None}
        if run["status"] == "damaged":
            notes.append(f"{path.name} is not a run record")
        elif run["status"] != "done":
            notes.append(f"the last run of {path.name.split('.')[0]} is {run['status']}: its numbers may be incomplete")
    return notes, kinds


def rows_of(table: pd.DataFrame) -> list[dict]:
    """Return a table's rows without missing fields."""
    rows = table.to_dict("records")
    return [{k: value for k, value in row.items() if isinstance(value, list) or not pd.isna(value)} for row in rows]


def cell(row: dict, percent: bool) -> str:
    """Return a record as text for a table: the value, then its spread or interval."""
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


class Report:
    """The tables and claims of one or more run folders."""

    def __init__(self, *folders: str | Path):
        """Read the first run folder, and others for comparison.

        Raise RunError for a folder without records, or if two sources have the same name.
        """
        self.sources = [source for folder in folders for source in read_sources(Path(folder))]
        names = [*HEADS, *(source.name for source in self.sources)]
        if twice := [name for number, name in enumerate(names) if name in names[:number]]:
            raise RunError(f"The name {twice[0]!r} is taken. Give each run folder once, or rename it.")
        self.claims = self._claims()

    def here(self, comparison: Comparison) -> pd.DataFrame:
        """Return our part of a table: one row per method, one column per data set and measure."""
        percent = "%" in TABLES[comparison.table].unit
        measure = {metric: name for name, metrics in comparison.metrics.items() for metric in metrics}
        cells = []
        for source, row in self._rows(comparison, measure):
            device = row.get("device", "") if row["unit"] == "ms" else ""
            where = " · ".join(filter(None, [row["set"], row["protocol"], device, source.name]))
            cells.append([row["method"], f"here: {where}", measure[row["metric"]], cell(row, percent)])
        if not cells:
            return pd.DataFrame(columns=pd.MultiIndex.from_tuples([], names=["", ""]))
        table = pd.DataFrame(cells, columns=["method", "where", "measure", "cell"])
        table = table.pivot_table("cell", "method", ["where", "measure"], " / ".join, sort=False)  # joins repeats
        groups = [(where, name) for where in table.columns.unique(0) for name in comparison.metrics]
        table = table[[group for group in groups if group in table]]
        return table.rename_axis(index=None, columns=["", ""]).fillna("")

    def _rows(self, comparison: Comparison, metrics: dict[str, str]) -> Iterator[tuple[Source, dict]]:
        """Yield the records that belong to a comparison. If two notebooks measured one set, the later one counts."""
        for source in self.sources:
            rows = [
                row | {"set": row["data"].split(",")[0]}  # without the subset ("SynthFace, unseen people")
                for row in rows_of(source.records.sort_values("notebook", kind="stable"))
                if row["experiment"] == comparison.experiment
                and row["metric"] in metrics
                and row["protocol"].startswith(tuple(comparison.protocols))
                and (not comparison.methods or row["method"] in comparison.methods)
                and "features" not in row
            ]
            last = {row["set"]: row["notebook"] for row in rows}
            yield from ((source, row) for row in rows if row["notebook"] == last[row["set"]])

    def table(self, comparison: Comparison) -> pd.DataFrame:
        """Return the paper's table and ours side by side. The first level of the columns names the source.

        If we have numbers, rows and columns that are empty in the joined table are left out.
        """
        ours = self.here(comparison)
        papers = [TABLES[name] for name in (comparison.table, comparison.also) if name]
        theirs = pd.concat({f"{paper.paper}: {paper.data}": paper.frame() for paper in papers}, axis=1)
        if comparison.across:
            sides = {where: side[where].T for side in (theirs, ours) for where in side.columns.unique(0)}
            joined = pd.concat(sides, axis=1).fillna("")
        else:
            first = reversed(comparison.pairs.items())  # reversed, so that the first of several methods wins
            pairs = {row: method for method, row in first if method in ours.index}
            labels = {row: f"{row} · here: {method}" for row, method in pairs.items()}
            ours = ours.rename(index={method: labels[row] for row, method in pairs.items()})
            joined = pd.concat([theirs.rename(index=labels), ours], axis=1).fillna("")
        return joined if ours.empty else joined.loc[(joined != "").any(axis=1), (joined != "").any()]

    def figures(self, section: str) -> list[tuple[Path, str]]:
        """Return the section's figures that the run folders have: their files and captions."""
        figures = []
        for row in FIGURES[section]:
            for source in self.sources:
                paths = [source.folder / f"figures/{name}.png" for name in row["names"]]
                figures += [(path, f"{row['caption']} ({source.name})") for path in paths if path.is_file()][:1]
        return figures

    def _claims(self) -> pd.DataFrame:
        """Return all recorded verdicts, corrected by Holm. Each source has two families: whole claims and the rest."""
        rows = []
        for source in self.sources:
            table = source.records[source.records.metric.str.startswith("claim ")]
            names = table.metric.str.removeprefix("claim ").tolist()
            decisive = {claim.name: next(filter(names.__contains__, claim.records), "") for claim in CLAIMS.values()}
            for record, name in zip(rows_of(table), names, strict=True):
                facts = UNKNOWN | record | {"name": name, "claim": name.split(",")[0], "source": source.name}
                facts |= {"whole": name == decisive.get(facts["claim"]), "alone": facts["verdict"]}
                facts["low"], facts["high"] = facts["interval"]
                rows.append(facts)
        claims = pd.DataFrame(rows, columns=COLUMNS).rename(columns={"value": "effect"})
        families = claims.groupby(["source", "whole"]).p
        claims["p (Holm)"] = families.transform(lambda p: pd.Series(holm(p), p.index))
        claims["verdict"] = [_verdict(claim) for claim in claims.to_dict("records")]
        return claims

    def headline(self) -> pd.DataFrame:
        """Return a row for each claim of the papers: its statement, and each source's verdict or why there is none."""
        rows = []
        for claim in CLAIMS.values():
            row = {"claim": claim.name, "paper": claim.paper, "statement": claim.statement, "notebook": claim.notebook}
            rows.append(row | {source.name: self.verdict(claim.name, source.name) for source in self.sources})
        return pd.DataFrame(rows).set_index("claim")

    def verdict(self, claim: str, source: str) -> str:
        """Return a source's verdict, from the record that tests the whole claim, or why there is none."""
        rows = self.claims[(self.claims.claim == claim) & (self.claims.source == source)]
        if not rows.empty:
            return rows[rows.whole].verdict.iloc[-1] if rows.whole.any() else PART
        [origin] = [candidate for candidate in self.sources if candidate.name == source]
        ran = origin.records.notebook.str.startswith(CLAIMS[claim].notebook).any()
        served = not CLAIMS[claim].data or not origin.kinds or origin.kinds.intersection(CLAIMS[claim].data)
        return WAITING if served and not ran else ELSEWHERE


def _verdict(claim: dict) -> str:
    """Return the verdict for the corrected p-value of a claim."""
    if math.isnan(claim["p"]) and math.isfinite(claim["low"]):
        return f"{claim['alone'] or 'not decided'}{UNCORRECTED}"
    return decide(claim["effect"], claim["at_least"], claim["p (Holm)"], claim["level"])


def write_page(folder: Path) -> Path:
    """Write a run folder's executed notebook 17, without code, to `report.html`. Raise RunError if it was not run.

    The page needs no network and runs no script.
    """
    source, target = folder / "executed/17_report.ipynb", folder / "report.html"
    if not source.is_file():
        raise RunError(f"There is no {source}. Run notebook 17 first: python -m facenb run notebooks/17_report.ipynb")
    hidden = {"exclude_input": True, "exclude_output_prompt": True}
    templates = [str(Path(__file__).parent / "templates")]
    exporter = HTMLExporter(template_name="page", extra_template_basedirs=templates, **hidden)
    html, _ = exporter.from_filename(str(source))
    html = re.sub(r'href="(\d\d_\w+\.ipynb)"', r'href="executed/\1"', html)  # notebooks lie beside notebook 17
    with atomic_write(target) as partial:
        partial.write_text(html, encoding="utf-8")
    return target
