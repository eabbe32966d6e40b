"""Runs and records: what was asked for is checked, every number is a whole line, a broken line is named."""

import json
import math
import multiprocessing
import os
import shlex
import sys
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from facenb.errors import RunError
from facenb.evaluation.claims import Claim, Effect, mean_of
from facenb.runs.recorded import mixed
from facenb.runs.results import Run, commit, read_records, run_folder


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    monkeypatch.delenv("FACENB_PROFILE", raising=False)
    monkeypatch.delenv("FACENB_RUNS", raising=False)


def record(run: Run, value: float) -> None:
    run.record("nme", value, "%", experiment="fit", method="mean face", data="SynthFace", n=3, interval=(1, 2))


def test_a_record_comes_back_with_what_tells_how_it_came_about(tmp_path):
    run = Run("03_fitting_one_image", "smoke", seed=7, folder=str(tmp_path))
    record(run, torch.tensor(1.5))
    row = read_records(tmp_path).iloc[0]
    assert row.value == 1.5 and row.unit == "%" and row.n == 3 and list(row.interval) == [1.0, 2.0]
    assert row.seed == 7 and row.profile == "smoke" and row.notebook == "03_fitting_one_image"
    assert row.versions["torch"] == torch.__version__ and row.device and row.commit == commit()


def test_only_the_latest_run_of_each_notebook_is_read(tmp_path):
    for value in (1.0, 2.0):
        run = Run("03", folder=str(tmp_path))
        run.id = f"2026010{value:.0f}T000000-x"
        run.records = run.path(f"records/03.{run.id}.jsonl")
        record(run, value)
    record(Run("04", folder=str(tmp_path)), 5.0)
    assert sorted(read_records(tmp_path).value) == [2.0, 5.0]


def test_another_seed_or_profile_is_no_newer_run(tmp_path):
    for seed, profile in ((0, "quick"), (1, "quick"), (0, "smoke")):
        record(Run("03", profile, seed=seed, folder=str(tmp_path)), 1.0 + seed)
    assert sorted(zip(*(read_records(tmp_path)[name] for name in ("seed", "profile")), strict=True)) == [
        (0, "quick"),
        (0, "smoke"),
        (1, "quick"),
    ]


def test_of_a_cell_that_was_run_again_the_last_measurement_counts(tmp_path):
    run = Run("03", folder=str(tmp_path))
    for value in (1.0, 2.0):
        record(run, value)
        run.record("nme", value, "%", experiment="fit", method="fit", data="SynthFace", yaw=10 * int(value))
    table = read_records(tmp_path)
    assert table[table.method == "mean face"].value.tolist() == [2.0]
    assert sorted(table[table.method == "fit"].yaw) == [10, 20]  # what else is told of them keeps two apart


def test_a_record_knows_the_data_it_was_measured_on(tmp_path, monkeypatch):
    monkeypatch.setenv("FACENB_DATA", str(tmp_path / "data"))
    run, index = Run("03", folder=str(tmp_path)), tmp_path / "sets/synth/card.json"
    record(run, 1.0)
    index.parent.mkdir(parents=True)
    for content in ('{"complete": false}', "{}", '{"rows": 3}'):
        index.write_text(content)
        run.record(content, 1.0, "", experiment="a", method="b", data="c")
    first, unfinished, second, third = read_records(tmp_path).checksums
    assert first == unfinished == {} and third != second
    assert second == {"sets/synth": "44136fa355b3678a"}  # sha256sum of {}


def test_what_the_numbers_of_a_folder_differ_in_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("FACENB_DATA", str(tmp_path / "data"))
    run = Run("03", folder=str(tmp_path))
    record(run, 1.0)
    assert mixed(read_records(tmp_path)) == []
    (tmp_path / "sets/synth").mkdir(parents=True)
    (tmp_path / "sets/synth/card.json").write_text("{}")
    record(Run("04", folder=str(tmp_path)), 1.0)
    (tmp_path / "sets/synth/card.json").write_text("{ }")
    monkeypatch.setattr("facenb.runs.results.commit", lambda: 40 * "f" + "+")
    record(Run("05", folder=str(tmp_path)), 1.0)
    notes = mixed(read_records(tmp_path))
    assert len(notes) == 2 and "more than one commit" in notes[0] and "ffffffff+: 05" in notes[0]
    assert "more than one copy of sets/synth (" in notes[1] and "44136fa355b3678a: 04" in notes[1]


def test_counts_stay_whole_numbers_beside_records_without_one(tmp_path):
    run = Run("03", folder=str(tmp_path))
    record(run, 1.0)
    run.record("nme", 2.0, "%", experiment="fit", method="fit", data="SynthFace")
    assert [str(n) for n in read_records(tmp_path).n] == ["3", "<NA>"]


TEXTS = (
    "experiment",
    "data",
    "protocol",
    "method",
    "metric",
    "unit",
    "profile",
    "notebook",
    "device",
    "commit",
    "time",
)
GOOD = dict.fromkeys(TEXTS, "a") | {"value": 1.0, "seed": 0, "run": "9"}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"metric": "nme", "val', "not JSON"),
        ("\x00\xff", "not JSON"),
        ("[1, 2]", "not of type 'object'"),
        (json.dumps(GOOD | {"metric": "claim L1", "p": 0.1}), "'at_least' is a required property"),
        (json.dumps(GOOD | {"value": "1.0"}), "value '1.0' is not of type"),
        (json.dumps(GOOD | {"value": True}), "value True is not"),
        (json.dumps(GOOD | {"seed": None}), "seed None is not of type 'integer'"),
        (json.dumps(GOOD | {"interval": [1.0]}), "interval .* too short"),
        (json.dumps(GOOD | {"interval": [None, 1.0]}), "interval.0 None is not"),
        (json.dumps(GOOD | {"interval": ["0", 1.0]}), "interval.0 '0' is not"),
        (json.dumps(GOOD | {"interval": [0.0, math.inf]}), "not JSON"),
        (json.dumps(GOOD | {"n": 1.5}), "n 1.5 is not"),
        (json.dumps(GOOD | {"n": "3"}), "n '3' is not"),
        (json.dumps(GOOD | {"p": 1.5}), "p 1.5 is greater"),
        (json.dumps(GOOD | {"p": -0.1}), "p -0.1 is less"),
        (json.dumps(GOOD | {"p": "0.1"}), "p '0.1' is not"),
        (json.dumps(GOOD | {"at_least": "1"}), "at_least '1' is not"),
        (json.dumps(GOOD | {"level": [0.95]}), "level .0.95. is not"),
        (
            json.dumps({k: v for k, v in GOOD.items() if k not in ("data", "run")}),
            "'data' is a required .* 'run' is a required",
        ),
    ],
)
def test_a_broken_line_is_named_and_left_out(tmp_path, line, says):
    run = Run("03", folder=str(tmp_path))
    record(run, 1.0)
    with run.records.open("a", encoding="latin-1") as file:
        file.write(line + "\n" + json.dumps(GOOD | {"run": run.id}) + "\n")
    with pytest.warns(UserWarning, match=f"{run.records.name}, line 2, is not a record and is left out: .*{says}"):
        assert len(read_records(tmp_path)) == 2


@pytest.mark.parametrize(
    "more", [{"p": None}, {"p": 0}, {"p": 1}, {"interval": None}, {"interval": [0, 1]}, {"level": 0.9}]
)
def test_a_whole_line_is_a_record(tmp_path, more):
    run = Run("03", folder=str(tmp_path))
    run.records.write_text(json.dumps(GOOD | more) + "\n")
    with warnings.catch_warnings(action="error"):
        assert len(read_records(tmp_path)) == 1


def test_a_value_that_is_no_number_is_recorded_as_missing(tmp_path):
    run = Run("03", folder=str(tmp_path))
    record(run, float("nan"))
    assert read_records(tmp_path).value.isna().all()


def _append(path: str) -> None:
    run = Run("03", folder=path)
    run.id, run.records = "same", run.path("records/03.same.jsonl")
    for value in range(50):
        run.record("nme", value, "%", experiment="fit", method=str(os.getpid()), data=str(value))


def test_two_processes_writing_one_file_leave_whole_lines(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_append, args=(str(tmp_path),)) for _ in range(2)]
    [worker.start() for worker in workers]
    [worker.join() for worker in workers]
    assert sorted(read_records(tmp_path).value) == sorted(2 * list(range(50)))


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"profile": "fast"}, "profile is 'fast'. Choose one of: smoke, quick, full"),
        ({"data": "photo"}, "data is 'photo'. Choose one of: synthetic, photos, paper"),
        ({"device": "tpu"}, "device is 'tpu'"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 1.5}, "seed is 1.5"),
    ],
)
def test_a_value_out_of_range_is_named_with_the_choices(tmp_path, asked, says):
    with pytest.raises(RunError, match=says):
        Run("03", folder=str(tmp_path), **asked)


def test_a_run_folder_that_is_a_file(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(RunError, match="Cannot write to .*another run folder"):
        Run("03", folder=str(tmp_path / "runs"))


def test_a_full_disk_is_said(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    run = Run("03", folder=str(tmp_path))
    run.records.symlink_to("/dev/full")
    with pytest.raises(RunError, match="No space left .*Free some space"):
        record(run, 1.0)


def test_the_environment_stands_in_for_parameters(tmp_path, monkeypatch):
    monkeypatch.setenv("FACENB_PROFILE", "smoke")
    monkeypatch.setenv("FACENB_RUNS", str(tmp_path))
    run = Run("03", "quick")
    assert run.profile == "smoke" and run.folder == tmp_path / "smoke-synthetic" == run_folder("", "smoke", "synthetic")
    assert run.choose(smoke=1, quick=2, full=3) == 1


def test_a_notebook_says_which_data_it_serves(tmp_path):
    run = Run("03", data="paper", folder=str(tmp_path))
    with pytest.raises(RunError, match="03 does not serve data='paper': no reader. Use one of: synthetic, photos"):
        run.serves("synthetic", "photos", why="no reader")


def test_a_figure_is_saved_and_shown(tmp_path):
    run = Run("03", folder=str(tmp_path))
    picture = run.figure(plt.figure(), "error")
    assert picture.alt == "figure: error" and picture.data[:4] == b"\x89PNG"
    assert [p.name for p in (tmp_path / "figures").iterdir()] == ["error.png"] and not plt.get_fignums()


def test_a_claim_is_recorded_with_its_verdict_and_given_back(tmp_path):
    run, effect = Run("09", folder=str(tmp_path)), mean_of([0.1, 0.3, 0.2, 0.4, 0.1, 0.2], range(6))
    claim = Claim("L2", "the identification loss lowers the error", effect, "mm", 0.05)
    assert run.claim(claim, experiment="ablation", data="SynthFace", protocol="unseen people") is claim
    row = read_records(tmp_path).iloc[0]
    assert row.metric == "claim L2" and row.value == effect.value and row.unit == "mm" and row.n == 6
    assert list(row.interval) == [effect.low, effect.high] and row.level == 0.95 and row.protocol == "unseen people"
    assert row.p == effect.p_value(0.05) and row.verdict == claim.verdict
    assert row.at_least == 0.05 and row.statement == claim.statement


def test_an_undecided_claim_without_an_interval_is_still_a_whole_record(tmp_path):
    run = Run("09", folder=str(tmp_path))
    run.claim(Claim("L1", "it does", Effect(0.3, float("nan"), float("nan"), 60), "mm"), experiment="a", data="b")
    row = read_records(tmp_path).iloc[0]
    assert "NaN" not in run.records.read_text() and row.verdict == "not decided" and row.interval is None
    assert row.p is None


def test_what_an_earlier_notebook_made_is_found(tmp_path):
    run = Run("08", folder=str(tmp_path))
    run.path("models/encoder.safetensors").write_bytes(b"")
    assert run.need("models/encoder.safetensors", "06") == tmp_path / "models/encoder.safetensors"
    assert run.need("models", "06") == tmp_path / "models"


def test_what_is_missing_comes_with_a_command_that_makes_it(tmp_path):
    from facenb.__main__ import arguments_parser

    run = Run("08_joint", "smoke", "photos", seed=3, folder=str(tmp_path / "my runs"))
    with pytest.raises(RunError, match="08_joint needs .*encoder, which notebook 00_start_here makes") as error:
        run.need("models/encoder", "00_start_here")
    command = shlex.split(str(error.value).splitlines()[1])
    assert command[:4] == [sys.executable, "-m", "facenb", "run"] and "with !" in str(error.value)
    asked = arguments_parser().parse_args(command[3:])
    assert Path(asked.notebook).is_file() and asked.run_folder == str(tmp_path / "my runs")
    assert (asked.profile, asked.data, asked.seed) == ("smoke", "photos", 3)


@pytest.mark.parametrize("n", [16, 16.0, np.float64(16), np.int64(16), torch.tensor(16)])
def test_a_count_may_come_as_a_whole_number_of_any_type(tmp_path, n):
    run = Run("13", folder=str(tmp_path))
    run.record("RMSE", 1.0, "mm", experiment="shape", method="fit", data="SynthFace", n=n)
    assert read_records(tmp_path).n.item() == 16


@pytest.mark.parametrize(
    "facts",
    [{"n": 1.5}, {"p": 1.5}, {"p": "0.1"}, {"level": [0.95]}, {"at_least": "1"}, {"interval": [1.0]}],
)
def test_what_cannot_be_read_is_not_written(tmp_path, facts):
    """The writer checks with the reader's own rules."""
    run = Run("13", folder=str(tmp_path))
    with pytest.raises(RunError, match="The record of 'RMSE' cannot be written: .* is "):
        run.record("RMSE", 1.0, "mm", **{"experiment": "shape", "method": "fit", "data": "SynthFace"} | facts)
    assert not run.records.exists()


def test_the_base_of_run_folders_is_expanded_and_absolute(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FACENB_RUNS", "~/runs")
    assert Run("03").folder == tmp_path / "runs/quick-synthetic" and not Path("~").exists()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FACENB_RUNS", "other")
    Run("03")
    monkeypatch.chdir("/")
    assert Run("03").folder == tmp_path / "other/quick-synthetic"
    assert Run("03", folder="~/mine").folder == tmp_path / "mine"
