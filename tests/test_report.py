"""The report: paper and ours never share a column, verdicts are corrected for their number, the page opens offline."""

import base64
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from facenb.__main__ import main
from facenb.errors import RunError
from facenb.evaluation.claims import Claim, Effect, mean_of
from facenb.files import write_json
from facenb.runs.papers import CLAIMS, COMPARISONS, TABLES
from facenb.runs.report import ELSEWHERE, PART, UNCORRECTED, WAITING, Report, cell, rows_of, write_page
from facenb.runs.results import Run

ROOT = Path(__file__).resolve().parents[1]
EVERY = [comparison for given in COMPARISONS.values() for comparison in given]
COMPARED = {comparison.table: comparison for comparison in reversed(EVERY)}  # of two, the section that comes first
SIAMESE, OCCLUSION = ({one.table: one for one in COMPARISONS[name]} for name in ("Siamese", "Occlusion"))


@pytest.fixture(autouse=True)
def _own_folders(monkeypatch, tmp_path):
    monkeypatch.setenv("FACENB_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("FACENB_PROFILE", raising=False)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "runs" / "quick-synthetic"


def verified(run, method, accuracy, data="SynthFace, unseen people", unit="%", protocol="pairs, 10 folds", **more):
    measured(run, "accuracy", accuracy, "recognition", method, data, protocol, unit, **more)


def measured(run, metric, value, experiment, method, data, protocol, unit="%", **more):
    run.record(metric, value, unit, experiment=experiment, method=method, data=data, protocol=protocol, **more)


def claimed(run, name, effect, at_least=0.0, statement="it does"):
    run.claim(Claim(name, statement, effect, "mm", at_least), experiment="ablation", data="SynthFace")


def effect(mean, people=40, seed=0):
    """Of people whose mean is exactly that, and their standard deviation about 1."""
    values = np.random.default_rng(seed).normal(size=people)
    return mean_of(mean + values - values.mean(), np.arange(people), draws=2000)


class TestTables:
    def test_ours_stands_beside_the_papers_under_the_name_of_its_data(self, folder):
        run = Run("08", folder=str(folder))
        verified(run, "phase III", 89.5, spread=3.72)
        table = Report(folder).table(COMPARED["lfw"])
        theirs, ours = dict.fromkeys(table.columns.get_level_values(0))
        assert theirs.startswith("Liu18: LFW View 2") and ours.startswith("here: SynthFace · pairs, 10 folds")
        row = table.loc["Liu18 S · here: phase III"]
        assert row[theirs, "accuracy"] == "94.43 ± 1.47" and row[ours, "accuracy"] == "89.50 ± 3.72"

    @pytest.mark.parametrize("comparison", EVERY, ids=[f"{one.notebook}-{one.table}" for one in EVERY])
    def test_the_papers_cells_are_as_printed_whatever_was_measured_here(self, folder, comparison):
        run, paper = Run("16", folder=str(folder)), TABLES[comparison.table]
        for given in comparison.metrics.values():
            method = (*comparison.methods, "3DDFA")[0]
            measured(run, given[0], 7.77, comparison.experiment, method, "X", comparison.protocols[0], "mm")
        table = Report(folder).table(comparison)
        theirs = table[[c for c in table.columns if not c[0].startswith("here")]]
        printed = sorted(value for cells in paper.rows.values() for value in cells if value)
        also = [v for cells in (TABLES[comparison.also].rows.values() if comparison.also else ()) for v in cells if v]
        assert sorted(value for value in theirs.to_numpy().ravel() if value) == sorted(printed + also)
        ours = table[[c for c in table.columns if c[0].startswith("here")]].to_numpy().ravel()
        assert {value for value in ours if value} <= {"7.77"}

    def test_two_data_sets_and_two_seeds_get_columns_of_their_own(self, folder):
        for seed, sets in ((0, ("LFW", "ORL")), (1, ("LFW",))):
            run = Run("15", seed=seed, folder=str(folder))
            for data in sets:
                verified(run, "phase III", 80 + seed, data)
        here = Report(folder).here(COMPARED["lfw"])
        words = [f"here: {data} · pairs, 10 folds · quick-synthetic" for data in ("LFW", "ORL")]
        assert here.columns.get_level_values(0).tolist() == [*words, f"{words[0]}, seed 1"]
        assert here.to_numpy().tolist() == [["80.00", "80.00", "81.00"]]

    def test_of_two_notebooks_the_later_one_counts(self, folder):
        verified(Run("08_joint", folder=str(folder)), "phase III", 80.0)
        verified(Run("15_recognition", folder=str(folder)), "phase III", 81.0)
        here = Report(folder).here(COMPARED["lfw"])
        assert here.to_numpy().tolist() == [["81.00"]] and here.index.tolist() == ["phase III"]

    def test_two_numbers_for_one_cell_are_both_shown(self, folder):
        run = Run("15", folder=str(folder))
        for value, box in ((80.0, "from the points"), (81.0, "from the detector")):
            verified(run, "phase III", value, box=box)
        verified(run, "phase III", 82.0, features="less the mean")  # an option, off by default: not in the table
        assert Report(folder).here(COMPARED["lfw"]).to_numpy().tolist() == [["80.00 / 81.00"]]

    def test_measures_go_down_where_methods_go_across(self, folder):
        run = Run("13", folder=str(folder))
        for yaw, value in ((90, 2.5), (0, 1.5)):
            measured(run, f"RMSE yaw {yaw}", value, "shape", "phase III", "SynthFace scans", "BU-3DFE pose", "mm")
        table = Report(folder).table(COMPARED["bu3dfe pose"])
        theirs, ours = dict.fromkeys(table.columns.get_level_values(0))
        assert table.loc["90", (theirs, "Liu18")] == "2.09" and table.loc["90", (ours, "phase III")] == "2.50"
        assert table.loc["0", (ours, "phase III")] == "1.50" and table.loc["50", (ours, "phase III")] == ""

    def test_what_was_not_measured_leaves_the_papers_table_alone(self, folder):
        Run("01", folder=str(folder)).record("x", 1.0, "mm", experiment="other", method="a", data="b")
        report = Report(folder)
        for comparison in EVERY:
            assert report.here(comparison).empty
            assert not any(where.startswith("here") for where, _ in report.table(comparison).columns)

    def test_two_notebooks_beside_one_printed_table(self, folder):
        """14 and 10 both measure what 2DASL printed, in two sections; neither takes the other's numbers."""
        for number, experiment, method in (("14", "landmarks", "phase III"), ("10", "siamese", "+ both")):
            run, protocol = Run(number, folder=str(folder)), "NME 68, original labels"
            measured(run, "NME 0-30", float(number), experiment, method, "AFLW2000-3D", protocol)
        report, where = Report(folder), "here: AFLW2000-3D · NME 68, original labels · quick-synthetic"
        for comparison, own, value in ((COMPARED["aflw"], "phase III", "14.00"), (SIAMESE["aflw"], "+ both", "10.00")):
            table = report.table(comparison)
            assert table.loc["2DASL", ("2DASL: AFLW2000-3D", "0-30")] == "2.75"
            assert table[where].to_dict() == {"0-30": dict.fromkeys(TABLES["aflw"].rows, "") | {own: value}}

    def test_of_two_that_stand_for_one_row_the_first_is_beside_it(self, folder):
        run = Run("12", folder=str(folder))
        for method in ("teacher", "by effect", "plain"):
            measured(run, "median", 1.25, "occlusion", method, "SynthFace scans", "NoW, occluded", "mm")
        index = list(Report(folder).table(OCCLUSION["now"]).index)
        assert {"DECA · here: teacher", "Learner · here: plain", "by effect"} < set(index)
        assert len(index) == len(set(index))

    def test_only_the_listed_methods(self, folder):
        run = Run("15", folder=str(folder))
        for method in ("phase I", "phase III", "texture (softmax SphereFace)", "phase III, less the mean"):
            verified(run, method, 80.0)
        assert list(Report(folder).here(COMPARED["fusion"]).index) == ["phase III", "texture (softmax SphereFace)"]

    @pytest.mark.parametrize(
        ("row", "shown"),
        [
            ({"value": 0.9318, "unit": "", "std": 0.0198}, "93.18 ± 1.98"),
            ({"value": 93.18, "unit": "%", "spread": 1.98}, "93.18 ± 1.98"),
            ({"value": 2.253, "unit": "mm", "interval": [2.097, 2.409], "std": math.nan}, "2.25 [2.10, 2.41]"),
            ({"value": 4409.2, "unit": "ms", "interval": None}, "4409"),
            ({"value": 0.1134, "unit": "mm", "interval": [0.0934, 0.1426]}, "0.113 [0.093, 0.143]"),
            ({"value": 80.0, "unit": "%", "spread": math.nan, "std": 1.5}, "80.00 ± 1.50"),
            ({"value": 80.0, "unit": "%", "spread": 2}, "80.00 ± 2.00"),
            ({"value": None, "unit": "mm"}, "missing"),
            ({"value": math.nan, "unit": "mm"}, "missing"),
        ],
    )
    def test_a_cell(self, row, shown):
        [row] = rows_of(pd.DataFrame([row]))
        assert cell(row, percent=True) == shown


class TestNames:
    @pytest.fixture
    def ran(self, folder):
        """Makes a folder with a record for each profile."""

        def make(name, *profiles):
            for profile in profiles or ("quick",):
                verified(Run("15", profile, folder=str(folder / name)), "phase III", 80.0)
            return folder / name

        return make

    @pytest.mark.parametrize(
        ("given", "names"),
        [
            ({"a": "1", "b": "1"}, ["a", "b"]),
            ({"both": "12"}, ["both, full", "both, quick"]),
            ({"a": "12", "b": "1"}, ["a, full", "a, quick", "b"]),
        ],
    )
    def test_no_two_are_alike(self, ran, given, names):
        folders = [ran(name, *(("quick", "full")[int(k) - 1] for k in which)) for name, which in given.items()]
        assert [source.name for source in Report(*folders).sources] == names

    def test_a_claim_of_one_folder_is_not_that_of_another(self, ran):
        folders = [ran(name) for name in "ab"]
        claimed(Run("09", folder=str(folders[0])), "L1", effect(2.0))
        head = Report(*folders).headline()
        assert head.loc["L1", ["a", "b"]].tolist() == ["holds", WAITING]

    @pytest.mark.parametrize("names", [["a/x", "b/x"], ["a", "a"], ["own/paper"]])
    def test_two_columns_of_one_name_are_refused(self, ran, names):
        """`paper` is a column of the headline."""
        with pytest.raises(RunError, match="is taken. Give each run folder once, or rename it"):
            Report(*map(ran, names))

    def test_the_current_folder_has_its_name(self, ran, monkeypatch):
        monkeypatch.chdir(ran("a/quick-synthetic"))
        assert [source.name for source in Report(".").sources] == ["quick-synthetic"]

    def test_a_link_keeps_its_name(self, ran, tmp_path):
        (tmp_path / "latest").symlink_to(ran("a"))
        assert [source.name for source in Report(tmp_path / "latest").sources] == ["latest"]


class TestClaims:
    def test_a_verdict_that_the_number_of_claims_does_not_bear_is_not_decided(self, folder):
        """p of 0.02: decided alone and in pairs, not among four."""
        for count, says in ((1, "holds"), (2, "holds"), (4, "not decided")):
            run = Run("09", folder=str(folder / str(count)))
            sample = effect(0.5, 20)
            at_least = next(x for x in np.linspace(-1, 1, 2001) if sample.p_value(x) > 0.018 and x < sample.value)
            claimed(run, "L1", sample, at_least)
            for k in range(count - 1):
                claimed(run, ("L2", "L4", "L5")[k], effect(0.0, seed=7))
            report = Report(folder / str(count))
            row = report.claims.iloc[0]
            assert row["alone"] == "holds" and row["verdict"] == says
            assert row["p (Holm)"] == pytest.approx(min(1, count * row["p"]))
            assert report.verdict("L1", str(count)) == says

    def test_known_truths_get_their_verdicts(self, folder):
        run = Run("09", folder=str(folder))
        for name, truth in (("L1", 2.0), ("L2", -2.0), ("L4", 0.0)):
            claimed(run, name, effect(truth, seed=7))
        head = Report(folder).headline()["quick-synthetic"]
        assert head[["L1", "L2", "L4"]].tolist() == ["holds", "does not hold", "not decided"]
        assert list(head.index) == list(CLAIMS) and head["S1"] == WAITING

    def test_families_of_two_folders_are_apart(self, folder):
        for name in ("one", "two"):
            for k in range(3):
                claimed(Run(f"0{k}", folder=str(folder / name)), f"D{k + 1}", effect(0.4, seed=k))
        both, one = Report(folder / "one", folder / "two"), Report(folder / "one")
        assert both.claims["p (Holm)"].tolist()[:3] == one.claims["p (Holm)"].tolist() and len(both.claims) == 6

    def test_further_questions_cost_the_claims_nothing(self, folder):
        """The papers' claims are a family, and what else was asked is another."""
        run, sample = Run("09", folder=str(folder)), effect(0.5)
        for name in ("L1", "L2", "L1, at all", "L2, at all", "L3", "L9 of nobody"):
            claimed(run, name, sample)
        claims = Report(folder).claims.set_index("name")
        assert list(claims.index[claims.whole]) == ["L1", "L2"]
        p = sample.p_value()
        assert claims["p (Holm)"].tolist() == pytest.approx([min(1, n * p) for n in (2, 2, 4, 4, 4, 4)])

    def test_the_main_sentence_is_the_verdict_and_its_parts_are_listed(self, folder):
        run = Run("09", folder=str(folder))
        claimed(run, "L1, at all", effect(2.0))
        claimed(run, "L1", effect(2.0), 3.5)
        report = Report(folder)
        assert report.verdict("L1", "quick-synthetic") == "does not hold"
        assert report.claims[report.claims.claim == "L1"].verdict.tolist() == ["holds", "does not hold"]

    def test_a_part_never_stands_for_the_whole_claim(self, folder):
        """L3 says: by a large step. That it is larger at all does not decide it."""
        run = Run("08", folder=str(folder))
        claimed(run, "L3", effect(2.0))
        assert Report(folder).verdict("L3", "quick-synthetic") == PART
        claimed(run, "L3, phase III against I, large", effect(2.0), 1.0)
        assert Report(folder).verdict("L3", "quick-synthetic") == "holds"
        claimed(run, "L3, large", effect(2.0), 4.0)
        assert Report(folder).verdict("L3", "quick-synthetic") == "does not hold"

    def test_a_notebook_that_ran_without_deciding_says_that_the_data_cannot(self, folder):
        verified(Run("09_ablation", folder=str(folder)), "(c) the method", 85.0)
        head = Report(folder).headline()["quick-synthetic"]
        assert head["L1"] == ELSEWHERE and head["L4"] == WAITING

    def test_a_claim_that_the_data_cannot_decide_is_not_waited_for(self, folder):
        for data, says in (("photos", ELSEWHERE), ("synthetic", WAITING)):
            run = Run("13", data=data, folder=str(folder / data))
            verified(run, "phase III", 85.0)
            write_json(run.folder / "records/13.run.json", {"status": "done", "parameters": {"data": data}})
            assert Report(run.folder).verdict("D4", data) == says
            assert Report(run.folder).verdict("D1", data) == WAITING

    def test_a_record_without_p_is_told_from_a_corrected_one(self, folder):
        run = Run("09", folder=str(folder))
        claimed(run, "L1", Effect(1.0, 0.5, 1.5, 30))  # an interval without draws
        claimed(run, "L2", Effect(1.0, math.nan, math.nan, 30))
        report = Report(folder)
        assert report.verdict("L1", "quick-synthetic") == "holds" + UNCORRECTED
        assert report.verdict("L2", "quick-synthetic") == "not decided"


class Reader(HTMLParser):
    """The tags of a page, and what it links to."""

    def __init__(self):
        super().__init__()
        self.tags, self.links = set(), []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.add(tag)
        self.links += [values[name] for name in ("src", "href", "xlink:href", "data", "poster") if values.get(name)]
        assert not [name for name in values if name.startswith("on")]


@pytest.fixture
def executed(folder):
    """A small executed notebook 17: text, code, a table with a dangerous cell, and a figure."""
    table = pd.DataFrame({"claim": ["lower <script>alert(1)</script> & better"]})
    bundle = {"text/html": table.to_html(), "image/png": base64.b64encode(b"\x89PNG").decode()}
    outputs = [new_output("display_data", {kind: bundle[kind]}) for kind in bundle]
    cells = [new_markdown_cell("# Paper against here"), new_code_cell("secret = 1", outputs=outputs)]
    (folder / "executed").mkdir(parents=True)
    nbformat.write(new_notebook(cells=cells), folder / "executed/17_report.ipynb")
    return folder


class TestPage:
    def test_nothing_is_fetched_and_nothing_runs(self, executed):
        """On the small notebook and on the stored one."""
        shutil.copy(ROOT / "notebooks/17_report.ipynb", executed / "17.ipynb")
        for source in (executed / "executed/17_report.ipynb", executed / "17.ipynb"):
            shutil.copy(source, executed / "executed/17_report.ipynb") if source.parent == executed else None
            page, reader = write_page(executed).read_text(), Reader()
            reader.feed(page)
            assert not {"script", "link", "iframe", "object", "embed"} & reader.tags and "@import" not in page
            assert all(link.startswith(("data:image/png;base64,", "#", "executed/")) for link in reader.links)
            assert not re.search(r"url\(|\$[^$]+\$", page), "a style or a formula that asks for something"

    def test_code_is_hidden_and_records_are_text(self, executed):
        page = write_page(executed).read_text()
        assert "secret" not in page and "Paper against here" in page and "<img" in page
        assert "lower &lt;script&gt;alert(1)&lt;/script&gt; &amp; better" in page

    def test_it_replaces_the_one_before_and_leaves_no_pieces(self, executed):
        (executed / "report.html").write_text("before")
        assert main(["report", str(executed)]) == 0
        assert (executed / "report.html").read_text().startswith("<!DOCTYPE html>")
        assert [path.name for path in executed.glob("report*")] == ["report.html"]

    def test_without_notebook_17(self, folder, capsys):
        assert main(["report", str(folder)]) == 1
        assert "Run notebook 17 first" in capsys.readouterr().err

    def test_figures_of_other_notebooks_are_shown_with_their_captions(self, folder):
        run = Run("09_ablation", folder=str(folder))
        claimed(run, "L1", effect(2.0))
        (folder / "figures").mkdir()
        (folder / "figures/09_arms.png").write_bytes(b"")
        [(path, caption)] = Report(folder).figures("Shape")
        assert path == folder / "figures/09_arms.png" and caption.endswith("(quick-synthetic)")


class TestWhatIsOdd:
    def test_photographs_are_not_called_people(self, folder):
        run = Run("09", folder=str(folder))
        claimed(run, "L1", effect(2.0))
        claimed(run, "L2", effect(2.0).over("photographs"))
        assert Report(folder).claims.drawn.tolist() == ["people", "photographs"]

    def test_a_claim_that_is_no_claim_leaves_the_others(self, folder):
        run = Run("09", folder=str(folder))
        for name in ("L1", "L2"):
            claimed(run, name, effect(2.0))
        run.records.write_text(re.sub(r'"p": [^,]+', '"p": 1.5', run.records.read_text(), count=1))
        report = Report(folder)
        assert report.claims.name.tolist() == ["L2"] and report.verdict("L2", "quick-synthetic") == "holds"
        assert f"{run.records.name}, line 1, is not a record" in report.sources[0].notes[0]

    def test_a_run_that_failed_is_named(self, folder):
        claimed(Run("09", folder=str(folder)), "L1", effect(2.0))
        for name, status in (("09", "failed"), ("08", "done")):
            write_json(folder / f"records/{name}.run.json", {"status": status})
        (folder / "records/07.run.json").write_text("{")
        [source] = Report(folder).sources
        incomplete = "the last run of 09 is failed: its numbers may be incomplete"
        assert source.notes == ["07.run.json is not a run record", incomplete]

    def test_a_folder_without_records_says_how_to_make_some(self, folder):
        with pytest.raises(RunError, match=r"(?s)no record in .*quick-synthetic.*make notebooks .*RUN_FOLDER="):
            Report(folder)

    def test_a_folder_of_broken_records_only(self, folder):
        (folder / "records").mkdir(parents=True)
        (folder / "records/09.x.jsonl").write_text("nothing\n")
        with pytest.raises(RunError, match="line 1, is not a record"):
            Report(folder)
