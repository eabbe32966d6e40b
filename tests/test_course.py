"""course.toml, README, notebook 00's map and each notebook's time line say the same."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
specification = importlib.util.spec_from_file_location("course_write", ROOT / "course/write.py")
course = importlib.util.module_from_spec(specification)
specification.loader.exec_module(course)


def rows() -> list[dict]:
    return [row for part in course.read_course()[0] for row in part["notebook"]]


def test_everything_is_written_from_the_course():
    """If this fails, run `python course/write.py`."""
    for path, text in course.written().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is not as course/write.py writes it"


def test_notebook_00_links_every_notebook():
    source = json.loads((ROOT / "notebooks/00_start_here.ipynb").read_text(encoding="utf-8"))
    text = "".join("".join(cell["source"]) for cell in source["cells"] if cell["cell_type"] == "markdown")
    assert all(f"]({row['file']}.ipynb)" in text for row in rows()) and "to come" not in text


def test_every_notebook_has_measured_times():
    _, times = course.read_course()
    assert all(row["file"] in times[run] for row in rows() for run in ("smoke-synthetic", "quick-synthetic"))


def test_run_times_come_from_records(tmp_path, monkeypatch):
    monkeypatch.setattr(course, "TIMES", tmp_path / "times.json")
    (tmp_path / "times.json").write_text(json.dumps({"quick-synthetic": {"01_a": 5, "02_b": 6}}))
    (tmp_path / "records").mkdir()
    for name, status, seconds in (("01_a", "done", 7.4), ("02_b", "failed", 1.0)):
        record = {"notebook": name, "status": status, "wall_seconds": seconds}
        record["parameters"] = {"profile": "quick", "data": "synthetic"}
        (tmp_path / f"records/{name}.run.json").write_text(json.dumps(record))
    course.take_times(tmp_path)
    assert json.loads((tmp_path / "times.json").read_text()) == {"quick-synthetic": {"01_a": 7, "02_b": 6}}


def test_a_missing_place_is_named():
    with pytest.raises(ValueError, match="00.ipynb: 0 places match"):
        course.with_lines("nothing", "^x$", "y", "00.ipynb")
