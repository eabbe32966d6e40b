"""The papers' tables, held against the project's page of facts where that is at hand, and within themselves."""

import re
import tomllib
from pathlib import Path

import pytest

from facenb.runs import DATA
from facenb.runs.papers import CLAIMS, COMPARISONS, FIGURES, PAPERS, TABLES

ROOT = Path(__file__).resolve().parents[1]
FACTS = Path(__file__).resolve().parents[2] / "shared" / "PAPERS.md"


@pytest.fixture(scope="module")
def facts() -> str:
    if not FACTS.is_file():
        pytest.skip("needs shared/PAPERS.md, the page of facts, beside the checkout")
    return FACTS.read_text(encoding="utf-8")


def tables(text: str, heading: str) -> list[list[str]]:
    """Rows of the first markdown table behind a heading, without the line of dashes."""
    lines = text[text.index(heading) :].splitlines()
    start = next(k for k, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip().strip("|").split("|")])
    return [row for row in rows if not set("".join(row)) <= set("-: ")]


def test_tables_printed_across(facts):
    head, row = tables(facts, "**MICC, RMSE**")
    assert dict(zip(head, [[cell] for cell in row], strict=True)) == TABLES["micc"].rows


@pytest.mark.parametrize(
    ("name", "heading"), [("bu3dfe pose", "**BU-3DFE, RMSE by |yaw|**"), ("aflw", "**Metric.** NME")]
)
def test_tables_printed_down(facts, name, heading):
    [(_, *columns), *rows] = tables(facts, heading)
    assert columns == TABLES[name].columns
    assert {method: cells for method, *cells in rows} == TABLES[name].rows


@pytest.mark.parametrize("which", ["LFW", "YTF"])
def test_recognition(facts, which):
    rows = [row for row in tables(facts, "**LFW and YTF**") if row[0] == which]
    assert {method: cells for _, method, *cells in rows} == TABLES[which.lower()].rows and len(rows) == 8


def test_ablation(facts):
    _, *rows = tables(facts, "**Ablation**")
    assert [row[-5:] for row in rows] == list(TABLES["ablation"].rows.values())


def test_now(facts):
    _, *rows = tables(facts, "| NoW, mm |")
    for method, printed, official in rows:
        for name, cells in (("now printed", printed), ("now", official)):
            found = [part.strip() for part in cells.split("/")]
            if len(found) == 3:
                assert TABLES[name].rows[method] == found
            else:
                assert not any(TABLES[name].rows.get(method, []))


def test_what_the_text_tells(facts):
    """Figures that are no table there: every one of ours stands in the text, and the other way round."""
    runtime = re.search(r"\*\*Runtime, ms per image\*\*[^:]*: (.+)", facts)[1]
    assert dict(re.findall(r"([\w-]+) (\d+\.\d\d)", runtime)) == {k: v[0] for k, v in TABLES["runtime"].rows.items()}
    expression = re.search(r"BU-3DFE expression, mean RMSE: full shape (.+); identity shape (.+)\.", facts)
    for column, text in enumerate(expression.groups()):
        ours = {k: v[column] for k, v in TABLES["bu3dfe expression"].rows.items() if v[column]}
        assert dict(re.findall(r"([\w-]+) (\d+\.\d\d)", text)) == ours
    fusion = re.search(r"YTF fusion: SphereFace alone ([\d.]+), with `c_id` ([\d.]+)\.", facts).groups()
    assert [cells[0] for cells in TABLES["fusion"].rows.values()] == list(fusion)


def test_claims(facts):
    named = set(re.findall(r"\b([LSD]\d) [a-zA-Z]", "".join(re.findall(r"claims to test\.\*\*(.+(?:\n.+)*)", facts))))
    assert named == set(CLAIMS)
    assert all(claim.paper in PAPERS and re.fullmatch(r"\d\d", claim.notebook) for claim in CLAIMS.values())


def test_a_claim_is_of_the_data_that_its_notebook_serves():
    course = tomllib.loads((ROOT / "course/course.toml").read_text(encoding="utf-8"))
    served = {row["file"][:2]: row.get("data", list(DATA)) for part in course["part"] for row in part["notebook"]}
    assert {name: list(claim.data or DATA) for name, claim in CLAIMS.items()} == {
        name: served[claim.notebook] for name, claim in CLAIMS.items()
    }


def test_comparisons_name_tables_rows_and_methods_that_exist():
    sources = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "notebooks").glob("*.ipynb")))
    assert list(FIGURES) == list(COMPARISONS)
    for comparison in (one for section in COMPARISONS.values() for one in section):
        rows = [row for name in (comparison.table, comparison.also) if name for row in TABLES[name].rows]
        assert set(comparison.pairs.values()) <= set(rows), comparison.table
        for method in (name for pair in comparison.pairs for name in pair.split(" + ")):
            assert f'\\"{method}\\"' in sources, f"no notebook calls a method {method!r}"
        for figure in FIGURES["Shape"]:
            assert any(name in sources for name in figure["names"]), figure


@pytest.mark.parametrize("name", list(TABLES))
def test_every_row_fills_its_columns(name):
    table = TABLES[name]
    assert table.paper in PAPERS and table.frame().shape == (len(table.rows), len(table.columns))
    for method, cells in table.rows.items():
        assert all(re.fullmatch(r"\d+\.\d+( ± \d*\.\d+)?|", cell) for cell in cells), method


def test_averages_that_are_printed_are_those_of_their_row():
    """A slip of the pen in a long table would show: 0.03 for rounding, and for an average the paper took otherwise."""
    for table, bins in ((TABLES["bu3dfe pose"], slice(0, 10)), (TABLES["aflw"], slice(0, 3))):
        for method, cells in table.rows.items():
            values = [float(cell) for cell in cells[bins] if cell]
            assert sum(values) / len(values) == pytest.approx(float(cells[-1]), abs=0.03), method
