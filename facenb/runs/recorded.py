"""Read the complete records of the latest run of each notebook, and list the differences between their runs."""

import json
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
from jsonschema import Draft202012Validator

SCHEMA = Draft202012Validator(json.loads(Path(__file__).with_name("record.schema.json").read_text(encoding="utf-8")))
MEASURED = ("value", "interval", "n", "time", "p", "verdict")  # these may differ if a cell is run again


def problems(record: Any) -> str:
    """Return why this is not a record, as text. Empty for a record. Writer and reader both use this rule."""
    errors = SCHEMA.iter_errors(record)
    return "; ".join(f"{'.'.join(map(str, error.path))} {error.message:.200}".strip() for error in errors)


def read_records(folder: str | Path) -> pd.DataFrame:
    """Return the records of a run folder as a table: the latest run for each notebook, seed and profile.

    If a cell of that run was repeated, its last measurement counts. A line that is not a record is left out with a
    warning that names the file, the line and the reason.
    """
    lines, keys = [], []
    for path in sorted(Path(folder).glob("records/*.jsonl")):
        for number, text in enumerate(path.read_bytes().split(b"\n"), 1):
            if not text.strip():
                continue
            try:
                record = json.loads(text, parse_constant=int)  # refuses NaN and Infinity
                why = problems(record)
            except ValueError:
                why = "it is not JSON"
            if why:
                warnings.warn(f"{path}, line {number}, is not a record and is left out: {why}", stacklevel=2)
                continue
            lines.append(record)
            keys.append(json.dumps({k: v for k, v in record.items() if k not in MEASURED}, sort_keys=True))
    table = pd.DataFrame(lines)
    if "n" in table:
        table["n"] = table["n"].astype("Int64")  # integers, also if some records have no n
    if len(table):
        newest = table.groupby(["notebook", "seed", "profile"])["run"].transform("max") == table["run"]
        table = table[newest & ~pd.Series(keys).duplicated(keep="last")]
    return table.reset_index(drop=True)


def read_run(path: Path) -> dict[str, Any]:
    """Return a notebook's run record. Status is "not run" if there is no file, "damaged" if the file is unreadable."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {"status": "not run"}
    except ValueError:
        record = None
    is_record = isinstance(record, dict) and isinstance(record.get("status"), str)
    return record if is_record else {"status": "damaged", "error": f"record {path}; run the notebook again"}


def short_commit(value: Any) -> str:
    """Return the first eight digits of a commit, with `+` if there were uncommitted changes."""
    text = str(value) or "none"
    return text[:8] + text[40:] if len(text) >= 40 else text


def mixed(table: pd.DataFrame) -> list[str]:
    """Return one sentence for each property in which the records differ: commit, device, and each set or asset."""
    sets = [value if isinstance(value, dict) else {} for value in table.get("checksums", [])]
    facts = table[["commit", "device"]].join(pd.DataFrame(sets).add_prefix("copy of "))
    notes = []
    for name, values in facts.items():
        groups = table.notebook.groupby(values).unique()
        if len(groups) > 1:
            lists = [f"{short_commit(value)}: {', '.join(sorted(notebooks))}" for value, notebooks in groups.items()]
            notes.append(f"numbers of more than one {name} ({'; '.join(lists)})")
    return notes
