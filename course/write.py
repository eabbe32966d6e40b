"""Write the course's tables from `course.toml` and `times.json`: README, the map in notebook 00, each notebook's times.

python course/write.py                  write them
python course/write.py RUN_FOLDER ...   first take the run times from the records of these runs
"""

import json
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TIMES = ROOT / "course/times.json"
START, END = "<!-- course/write.py -->", "<!-- end -->"


def read_course() -> tuple[list[dict], dict[str, dict[str, float]]]:
    """Return the parts, and the run times in seconds: `PROFILE-DATA` -> notebook -> seconds."""
    course = tomllib.loads((ROOT / "course/course.toml").read_text(encoding="utf-8"))
    return course["part"], json.loads(TIMES.read_text(encoding="utf-8"))


def take_times(folder: Path) -> None:
    """Read the run times from a run folder's records. Notebooks that did not run keep their old times."""
    times = json.loads(TIMES.read_text(encoding="utf-8")) if TIMES.exists() else {}
    for path in sorted(folder.glob("records/*.run.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["status"] == "done":
            run = "{profile}-{data}".format(**record["parameters"])
            times.setdefault(run, {})[record["notebook"]] = round(record["wall_seconds"])
    times = {run: dict(sorted(seconds.items())) for run, seconds in sorted(times.items())}
    TIMES.write_text(json.dumps(times, indent=1) + "\n", encoding="utf-8")


def duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def readme_table(parts: list[dict], times: dict) -> str:
    lines = ["| | notebook | question | run, quick | read | exercises |", "|---|---|---|---|---|---|"]
    for row in (row for part in parts for row in part["notebook"]):
        link = f"[{row['title']}](notebooks/{row['file']}.ipynb)"
        run = duration(times["quick-synthetic"][row["file"]])
        cells = [row["file"][:2], link, row["question"], run, f"{row['read']} min", f"{row['exercises']} min"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def course_map(parts: list[dict]) -> str:
    """Return the map of notebook 00."""
    lines = ["| part | notebooks |", "|---|---|"]
    for part in parts:
        links = [f"[{row['file'][:2]} {row['title']}]({row['file']}.ipynb)" for row in part["notebook"]]
        lines.append(f"| {part['title']} | {' · '.join(links)} |")
    return "\n".join(lines)


def time_line(row: dict, times: dict) -> str:
    """Return the line at the head of a notebook: run times, times for a person, and the notebooks it needs."""
    runs = [f"smoke {duration(times['smoke-synthetic'][row['file']])}"]
    runs.append(f"quick {duration(times['quick-synthetic'][row['file']])}")
    if row["file"] in times.get("quick-photos", {}):
        runs[-1] += f" (photos {duration(times['quick-photos'][row['file']])})"
    if "full" in row:
        runs.append(f"full {row['full']}")
    person = f"For you: {row['read']} min to read, {row['exercises']} min of exercises."
    needs = ", ".join(f"[{need[:2]}]({need}.ipynb)" for need in row["needs"]) or "nothing"
    return f"**Time** on two CPU cores: {' · '.join(runs)}. {person} **Needs** {needs}."


def with_lines(text: str, pattern: str, lines: str, name: str) -> str:
    """Replace the only match of `pattern`. Raise ValueError if there is no match, or more than one."""
    changed, count = re.subn(pattern, lambda _: lines, text, flags=re.MULTILINE)
    if count != 1:
        raise ValueError(f"{name}: {count} places match {pattern!r}, expected 1.")
    return changed


def written() -> dict[Path, str]:
    """Return the files that hold tables of the course, with their new text."""
    parts, times = read_course()
    readme = ROOT / "README.md"
    table = f"{START}\n{readme_table(parts, times)}\n{END}"
    texts = {readme: with_lines(readme.read_text("utf-8"), f"{START}[^<]*{END}", table, "README.md")}
    for row in (row for part in parts for row in part["notebook"]):
        path = ROOT / f"notebooks/{row['file']}.ipynb"
        notebook = json.loads(path.read_text(encoding="utf-8"))
        head = notebook["cells"][0]
        text = with_lines("".join(head["source"]), r"^\*\*Time\*\* .*$", time_line(row, times), path.name)
        head["source"] = text.splitlines(keepends=True)
        if row["file"] == "00_start_here":
            [cell] = [cell for cell in notebook["cells"] if "| part | notebooks |" in "".join(cell["source"])]
            rows = r"^\| part \| notebooks \|(\n\|.*)+"
            cell["source"] = with_lines("".join(cell["source"]), rows, course_map(parts), path.name).splitlines(True)
        texts[path] = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    return texts


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        take_times(Path(argument))
    for file, content in written().items():
        file.write_text(content, encoding="utf-8")
