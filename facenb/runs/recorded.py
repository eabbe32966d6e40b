"""Records read back: whole ones only, of one run of each notebook, and what they must not be compared across."""

import json
import math
import warnings
from numbers import Real
from pathlib import Path
from typing import Any

import pandas as pd

FIELDS = ("experiment", "data", "protocol", "method", "metric", "unit", "profile", "notebook", "run")  # texts
MEASURED = ("value", "interval", "n", "time", "p", "verdict")  # what a repeated cell may measure anew


def is_number(value: Any) -> bool:
    """Whether this is a finite number; what pandas writes for a missing one (NaN) is none."""
    return isinstance(value, Real) and not isinstance(value, bool) and abs(value) < math.inf


def _broken(record: Any) -> str:
    """Why a line is no record; empty where it is one."""
    if not isinstance(record, dict):
        return "it is no object"
    wrong = [name for name in FIELDS if not isinstance(record.get(name), str)]
    number, interval = record.get("value", ""), record.get("interval")
    if isinstance(number, bool) or not isinstance(number, (int, float, type(None))):
        wrong.append("value")
    if not isinstance(record.get("seed"), int):
        wrong.append("seed")
    if not isinstance(record.get("n"), int | None):
        wrong.append("n")
    if interval is not None and not (
        isinstance(interval, list) and len(interval) == 2 and all(map(is_number, interval))
    ):
        wrong.append("interval")
    given = {name: record[name] for name in ("p", "at_least", "level") if record.get(name) is not None}
    wrong += [name for name, found in given.items() if not is_number(found) or (name == "p" and not 0 <= found <= 1)]
    return f"{', '.join(wrong)} missing or of another kind" if wrong else ""


def read_records(folder: str | Path, latest: bool = True) -> pd.DataFrame:
    """All records of a run folder as a table, the latest run of each notebook, seed and profile only.

    Where a cell of that run was run again its last measurement counts; `latest=False` leaves everything in. A line that
    is no record is left out with a warning that names the file, the line and what is wrong.
    """
    lines, keys = [], []
    for path in sorted(Path(folder).glob("records/*.jsonl")):
        for number, text in enumerate(path.read_bytes().split(b"\n"), 1):
            if not text.strip():
                continue
            try:
                record = json.loads(text)
                why = _broken(record)
            except ValueError:
                why = "it is no JSON"
            if why:
                warnings.warn(f"{path}, line {number}, is no record and is left out: {why}", stacklevel=2)
                continue
            lines.append(record)
            keys.append(json.dumps({k: v for k, v in record.items() if k not in MEASURED}, sort_keys=True))
    table = pd.DataFrame(lines)
    if "n" in table:
        table["n"] = table["n"].astype("Int64")  # whole numbers, also beside records that have none
    if latest and len(table):
        newest = table.groupby(["notebook", "seed", "profile"])["run"].transform("max") == table["run"]
        table = table[newest & ~pd.Series(keys).duplicated(keep="last")]
    return table.reset_index(drop=True)


def short_commit(value: Any) -> str:
    """A commit's first digits, with the `+` of files that differ from it."""
    text = str(value) or "none"
    return text[:8] + text[40:] if len(text) >= 40 else text


def mixed(table: pd.DataFrame) -> list[str]:
    """What a reader must know before comparing the numbers of one folder: a sentence for each thing they differ in."""
    notes = []
    for name in ("profile", "seed", "commit", "device"):
        found = table.groupby(name)["notebook"].unique() if name in table else []
        if len(found) > 1:
            parts = "; ".join(f"{short_commit(kind)}: {', '.join(sorted(which))}" for kind, which in found.items())
            notes.append(f"numbers of more than one {name} ({parts})")
    known: dict[str, dict[str, set]] = {}
    for row in table.to_dict("records"):
        for name, digest in (row["checksums"] if isinstance(row.get("checksums"), dict) else {}).items():
            known.setdefault(name, {}).setdefault(digest, set()).add(row["notebook"])
    for name, found in known.items():
        if len(found) > 1:
            parts = " and ".join(f"{digest}: {', '.join(sorted(which))}" for digest, which in sorted(found.items()))
            notes.append(f"{name} was not the same for all ({parts})")
    return notes
