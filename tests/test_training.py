import ast
import io
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn
from training_jobs import Points, cut, loss, modules, run, same, settings, weights

from facenb.errors import RunError
from facenb.training import Progress, Stopped, TensorBoard, read_log
from facenb.training.checkpoint import latest_checkpoint
from facenb.training.feed import AHEAD, Feed, rows_of_step
from facenb.training.loop import Step, make_optimiser

HERE = Path(__file__).parent
LIMIT = 300  # seconds after which something hangs; far more than any of it takes on a busy machine


class TestOrder:
    @pytest.mark.parametrize("rows, batch", [(50, 8), (8, 8), (7, 3), (3, 8), (1, 4)])
    def test_each_epoch_takes_each_row_once(self, rows, batch):
        line = torch.cat([rows_of_step(step, batch, rows, seed=3) for step in range(4 * rows)])
        epochs = line[: len(line) // rows * rows].reshape(-1, rows)
        assert (epochs.sort(1).values == torch.arange(rows)).all()

    def test_epochs_and_seeds_differ(self):
        orders = [tuple(rows_of_step(step, 50, 50, seed).tolist()) for step in range(3) for seed in range(3)]
        assert len(set(orders)) == 9

    def test_the_loop_takes_these_rows(self, tmp_path):
        data = Points()
        run(modules(), tmp_path, data, steps=9, seed=5)
        assert data.asked == [rows_of_step(step, 8, 50, 5).tolist() for step in range(9)]


class TestFeed:
    def make(self, data, rank=0, **changes):
        return Feed(data, settings(steps=6, **changes), torch.device("cpu"), rank, processes=2)

    @pytest.mark.parametrize("threads", [1, 3])
    def test_batches_depend_on_step_and_part_only(self, threads):
        feed, other = self.make(Points(), 1, threads=threads), self.make(Points())
        for step, batch in enumerate(feed.batches(2), 2):
            assert torch.equal(batch["x"], other.load(step, 1)[1]["x"])
        assert step == 5

    def test_parts_together_are_the_batch(self):
        first = next(self.make(Points()).batches(0))["row"]
        second = next(self.make(Points(), 1).batches(0))["row"]
        assert torch.equal(torch.cat([first, second]), rows_of_step(0, 8, 50, 0))

    def test_loads_no_more_than_ahead(self):
        data, feed = Points(), self.make(Points())
        feed = Feed(data, settings(steps=10**6), torch.device("cpu"))
        batches = feed.batches(0)
        next(batches)
        batches.close()
        assert len(data.asked) <= 1 + AHEAD

    def test_what_the_data_raises_is_raised(self):
        data = Points()
        data.load = lambda rows, generator: 1 / 0
        with pytest.raises(ZeroDivisionError):
            next(self.make(data).batches(0))

    def test_the_number_of_threads_stays(self):
        before, numbers = torch.get_num_threads(), []
        list(self.make(Points()).batches(0))
        thread = threading.Thread(target=lambda: numbers.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert torch.get_num_threads() == before == numbers[0]


def test_a_linear_network_finds_the_least_squares_solution(tmp_path):
    data = Points(blur=0.0)
    parts = {"network": nn.Sequential(nn.Identity()), "head": nn.Linear(3, 1)}
    run(parts, tmp_path, data, steps=400, batch=50, rate=0.1, weight_decay=0.0, log_every=100)
    solution = torch.linalg.lstsq(torch.cat([data.x, torch.ones(50, 1)], 1), data.y).solution
    torch.testing.assert_close(parts["head"].weight[0], solution[:3, 0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(parts["head"].bias[0], solution[3, 0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_a_plain_torch_loop_gives_the_same_weights(tmp_path, optimiser):
    """Momentum, decay on matrices alone, clipping, warm-up and cosine, written down a second time."""
    parts, data = modules(dropout=0.0, norm=False), Points(blur=0.0)
    run(parts, tmp_path, data, steps=12, optimiser=optimiser, rate=0.02, weight_decay=0.1, clip=0.3, warm_up=4, seed=7)
    other = modules(dropout=0.0, norm=False)
    trained = [one for part in other.values() for one in part.parameters()]
    groups = [
        {"params": [one for one in trained if one.ndim > 1], "weight_decay": 0.1},
        {"params": [one for one in trained if one.ndim <= 1], "weight_decay": 0.0},
    ]
    plain = torch.optim.SGD(groups, 0.02, momentum=0.9) if optimiser == "sgd" else torch.optim.AdamW(groups, 0.02)
    for step in range(12):
        rate = 0.02 * (step + 1) / 4 if step < 4 else 0.01 * (1 + math.cos(math.pi * (step - 4) / 8))
        for group in plain.param_groups:
            group["lr"] = rate
        batch = {"x": data.x[rows_of_step(step, 8, 50, 7)], "y": data.y[rows_of_step(step, 8, 50, 7)]}
        plain.zero_grad()
        loss(other, batch)["loss"].backward()
        nn.utils.clip_grad_norm_(trained, 0.3)
        plain.step()
    for name, one in weights(other).items():
        torch.testing.assert_close(weights(parts)[name], one, rtol=1e-6, atol=1e-7)


def test_accumulation_gives_the_same_weights(tmp_path):
    found = []
    for accumulate in (1, 4):
        parts = modules(dropout=0.0, norm=False)
        run(parts, tmp_path / str(accumulate), Points(blur=0.0), accumulate=accumulate)
        found.append(weights(parts))
    for name, one in found[0].items():
        torch.testing.assert_close(one, found[1][name], rtol=1e-5, atol=1e-6)


class TestState:
    def test_two_trainings_are_the_same_to_the_bit(self, tmp_path):
        found = []
        for name in "ab":
            parts = modules()
            torch.manual_seed(len(found))  # the caller's own random numbers do not matter
            run(parts, tmp_path / name)
            found.append(weights(parts))
        assert same(*found)

    def test_the_callers_random_numbers_are_left_alone(self, tmp_path):
        parts = modules()
        torch.manual_seed(3)
        expected = torch.rand(4)
        torch.manual_seed(3)
        run(parts, tmp_path, steps=2)
        assert torch.equal(torch.rand(4), expected)

    def test_frozen_modules_stay_as_they_are_and_the_rest_moves(self, tmp_path):
        parts = modules()
        parts["network"].requires_grad_(False)
        before = weights(parts)
        run(parts, tmp_path, steps=3)
        moved = {name for name, one in weights(parts).items() if not torch.equal(one, before[name])}
        assert moved == {"head.weight", "head.bias"}  # the running statistics of the frozen network stay, too

    def test_modules_are_left_in_eval_mode(self, tmp_path):
        parts = modules()
        run(parts, tmp_path, steps=1)
        assert not any(module.training for part in parts.values() for module in part.modules())

    def test_one_module_alone_is_given_to_loss_and_validate(self, tmp_path):
        network, seen = nn.Linear(3, 1), []

        def simple(module, batch):
            seen.append(module)
            return {"loss": module(batch["x"]).square().mean()}

        run(network, tmp_path, loss=simple, steps=2, validate=lambda module: seen.append(module) or {})
        assert all(one is network for one in seen) and len(seen) == 3


def test_validation_runs_in_eval_mode_without_gradients_and_training_goes_on(tmp_path):
    parts, modes = modules(), []

    def validate(given):
        modes.append((given["network"].training, torch.is_grad_enabled()))
        return {"error": torch.tensor(len(modes))}

    history = run(parts, tmp_path, validate=validate, validate_every=6)
    assert modes == [(False, False)] * 4  # after 6, 12, 18 and at the end
    told = history.log.set_index("step")["validation error"].dropna()
    assert told.to_dict() == {6: 1, 12: 2, 18: 3, 20: 4}
    other = modules()
    run(other, tmp_path / "without")
    assert same(weights(parts), weights(other))


class TestResume:
    def test_goes_on_to_the_bit(self, tmp_path):
        whole = modules()
        run(whole, tmp_path / "whole")
        cut(modules(), tmp_path / "cut")
        parts = modules()
        history = run(parts, tmp_path / "cut")
        assert history.resumed_from == 10
        assert same(weights(parts), weights(whole))
        columns = ["step", "rate", "loss", "absolute"]  # the rest is time
        pd.testing.assert_frame_equal(history.log[columns], read_log(tmp_path / "whole")[columns], check_exact=True)

    def test_in_bf16_as_well(self, tmp_path):
        whole, parts = modules(), modules()
        run(whole, tmp_path / "whole", precision="bf16-mixed", optimiser="adamw")
        cut(modules(), tmp_path / "cut", precision="bf16-mixed", optimiser="adamw")
        run(parts, tmp_path / "cut", precision="bf16-mixed", optimiser="adamw")
        assert same(weights(parts), weights(whole))
        assert all(one.dtype in (torch.float32, torch.int64) for one in weights(parts).values())
        plain = modules()
        run(plain, tmp_path / "plain", optimiser="adamw")
        assert not same(weights(plain), weights(whole))  # it did compute with fewer bits

    def test_strides_of_weights_and_momentum_stay(self, tmp_path):
        """A network in channels-last order goes on in channels-last order, or it would go on slower."""

        def convolution():
            torch.manual_seed(0)
            return nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)

        def mean(module, batch):
            return {"loss": module(batch["x"][:, :, None, None].expand(-1, -1, 3, 3)).square().mean()}

        whole, part = convolution(), convolution()
        run(whole, tmp_path / "whole", loss=mean)
        cut(convolution(), tmp_path / "cut", loss=mean)
        run(part, tmp_path / "cut", loss=mean)
        assert torch.equal(part.weight, whole.weight) and part.weight.stride() == whole.weight.stride()
        optimiser = make_optimiser(settings(), Step(part, mean))
        optimiser.load_state_dict(latest_checkpoint(tmp_path / "cut")["optimiser"])
        assert optimiser.state[part.weight]["momentum_buffer"].stride() == part.weight.stride()

    def test_a_damaged_newest_checkpoint_costs_one_interval(self, tmp_path):
        whole, parts = modules(), modules()
        run(whole, tmp_path)
        (tmp_path / "checkpoint-20.pt").write_bytes(b"")
        with pytest.warns(UserWarning, match="checkpoint-20"):
            history = run(parts, tmp_path)
        assert history.resumed_from == 15 and same(weights(parts), weights(whole))

    def test_a_finished_training_returns_at_once(self, tmp_path):
        whole, parts, data = modules(), modules(), Points()
        run(whole, tmp_path)
        history = run(parts, tmp_path, data)
        assert history.resumed_from == 20 and len(history.log) == 20 and not data.asked
        assert same(weights(parts), weights(whole))

    def test_how_fast_it_goes_may_change(self, tmp_path):
        whole, parts = modules(), modules()
        run(whole, tmp_path / "whole")
        run(modules(), tmp_path / "cut", steps=20, save_every=7, watch=lambda p: None)
        (tmp_path / "cut" / "checkpoint-20.pt").unlink()
        run(parts, tmp_path / "cut", threads=2, log_every=3)
        assert same(weights(parts), weights(whole))

    def test_it_deletes_its_own_files_only(self, tmp_path):
        run(modules(), tmp_path)
        others = ["checkpoint-best.pt", "notes.json"]
        for name in [".checkpoint-2.pt.7.partial", *others]:
            (tmp_path / name).write_text("")
        run(modules(), tmp_path)
        assert sorted(os.listdir(tmp_path)) == sorted(
            ["checkpoint-15.pt", "checkpoint-20.pt", "lock", "log.jsonl", *others]
        )

    @pytest.mark.parametrize(
        ("rows", "changes", "message"),
        [
            (
                50,
                {"rate": 0.01, "batch": 4},
                r"settings: batch 4 \(saved: 8\), rate 0.01 \(saved: 0.05\).*delete",
            ),
            (49, {}, "50 rows of data, not 49"),
        ],
    )
    def test_another_training_is_named_and_nothing_changes(self, tmp_path, rows, changes, message):
        run(modules(), tmp_path)
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        with pytest.raises(RunError, match=message):
            run(modules(), tmp_path, Points(rows), **changes)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

    def test_other_architecture_is_named(self, tmp_path):
        run(modules(), tmp_path)
        parts = modules()
        parts["head"] = nn.Linear(8, 1, bias=False)
        parts["network"][0] = nn.Linear(4, 8)
        message = r"trained other parameters; the difference is head.bias \(1 in all\)"
        with pytest.raises(RunError, match=message):
            run(parts, tmp_path)


def job(name: str, folder: Path, *launcher: str) -> subprocess.Popen:
    command = [sys.executable, *launcher, str(HERE / "training_jobs.py"), name, str(folder)]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, **options)


def wait_for(path: Path, process: subprocess.Popen) -> None:
    end = time.monotonic() + LIMIT
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, f"no {path}"
        time.sleep(0.02)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_any_moment_it_ends_with_the_same_weights(tmp_path):
    process = job("kill", tmp_path)
    _, told = process.communicate(timeout=LIMIT)
    assert process.returncode == 0 and not told, told
    whole = torch.load(tmp_path / "whole" / "end.pt", weights_only=True)
    killed = list(tmp_path.glob("killed-*"))
    assert len(killed) > 10
    for folder in killed:
        assert same(torch.load(folder / "end.pt", weights_only=True), whole), folder.name
        assert read_log(folder)["step"].tolist() == list(range(1, 21)), folder.name


class TestTerm:
    def test_saves_and_ends(self, tmp_path):
        process = job("endless", tmp_path)
        try:
            wait_for(tmp_path / "under-way.txt", process)
            process.terminate()
            out, told = process.communicate(timeout=LIMIT)
        finally:
            process.kill()
        assert process.returncode == 1 and not out
        step = latest_checkpoint(tmp_path)["step"]
        assert step >= 3 and f"Stopped: SIGTERM stopped the training in {tmp_path} after step {step} of" in told
        assert read_log(tmp_path)["step"].tolist() == list(range(1, step + 1))

    def test_goes_on_to_the_bit_and_the_handler_comes_back(self, tmp_path):
        if threading.current_thread() is not threading.main_thread():
            pytest.skip("signals reach the main thread only")
        whole, parts = modules(), modules()
        run(whole, tmp_path / "whole")
        before = signal.getsignal(signal.SIGTERM)
        with pytest.raises(Stopped, match="after step 7 of 20"):
            run(modules(), tmp_path / "cut", watch=lambda p: p.step == 6 and os.kill(os.getpid(), signal.SIGTERM))
        assert signal.getsignal(signal.SIGTERM) is before
        assert run(parts, tmp_path / "cut").resumed_from == 7
        assert same(weights(parts), weights(whole))

    def test_another_thread_trains_as_well(self, tmp_path):
        whole, parts, failed = modules(), modules(), []
        run(whole, tmp_path / "whole")

        def work():
            try:
                run(parts, tmp_path / "thread")
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join(LIMIT)
        assert not failed and same(weights(parts), weights(whole))


class TestNotFinite:
    def test_names_step_rows_and_the_last_good_checkpoint(self, tmp_path):
        data, parts = Points(), modules()
        row = rows_of_step(12, 8, 50, 0)[3].item()
        first = next(step for step in range(20) if row in rows_of_step(step, 8, 50, 0))
        data.y[row] = float("nan")
        with pytest.raises(RunError) as error:
            run(parts, tmp_path, data, save_every=1)
        rows = rows_of_step(first, 8, 50, 0).tolist()
        assert f"The loss of step {first + 1} is not finite: loss, absolute (2 of 2)" in str(error.value)
        assert f"rows {rows}" in str(error.value) and f"In its data y of rows [{row}] is not finite" in str(error.value)
        last = (
            f"The last good checkpoint is {tmp_path / f'checkpoint-{first}.pt'}"
            if first
            else "There is no checkpoint yet"
        )
        assert last in str(error.value)
        assert all(value.isfinite().all() for value in weights(parts).values())

    @pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
    def test_from_the_loss_itself(self, tmp_path, value):
        def bad(parts, batch):
            return {"loss": parts["head"].weight.sum() * value}

        with pytest.raises(RunError, match="step 1 is not finite.*Its data is finite.*no checkpoint yet"):
            run(modules(), tmp_path, loss=bad)
        assert not list(tmp_path.glob("checkpoint-*"))


def test_a_batch_that_does_not_fit(tmp_path):
    def full(parts, batch):
        if len(batch["x"]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB")
        return loss(parts, batch)

    with pytest.raises(RunError, match="does not fit in memory .CUDA out of memory.*Set a larger accumulate"):
        run(modules(), tmp_path, loss=full)
    assert len(run(modules(), tmp_path, loss=full, accumulate=4).log) == 20


class TestBadInput:
    def test_folder_that_is_a_file(self, tmp_path):
        (tmp_path / "file").write_text("mine")
        with pytest.raises(RunError, match="Cannot write to .*file"):
            run(modules(), tmp_path / "file" / "folder")
        assert (tmp_path / "file").read_text() == "mine"

    def test_two_trainings_in_one_folder(self, tmp_path):
        def another(progress):
            with pytest.raises(RunError, match="Another training runs in"):
                run(modules(), tmp_path)

        history = run(modules(), tmp_path, watch=another, log_every=10)
        assert history.log["step"].tolist() == [5, 10, 15, 20]
        run(modules(), tmp_path, log_every=10)  # free again

    def test_batch_that_cannot_be_cut(self, tmp_path):
        with pytest.raises(RunError, match="batch of 8 rows must be a multiple of 3"):
            run(modules(), tmp_path, accumulate=3)

    @pytest.mark.parametrize(
        "changes, told",
        [
            ({"steps": 0}, "steps is 0"),
            ({"batch": -1}, "batch is -1"),
            ({"rate": 0.0}, "rate is 0.0"),
            ({"rate": math.nan}, "rate is nan"),
            ({"weight_decay": -1.0}, "weight_decay is -1"),
            ({"optimiser": "lion"}, "optimiser is 'lion'. Choose one of sgd, adamw"),
            ({"log_every": 0}, "log_every is 0. Give a number of at least 1"),
            ({"precision": "8"}, "precision is '8'"),
        ],
    )
    def test_settings(self, changes, told):
        with pytest.raises(RunError, match=told):
            settings(**changes)


class TestLog:
    def test_watch_is_called_every_so_often_and_at_the_end(self, tmp_path):
        told: list[Progress] = []
        run(modules(), tmp_path, log_every=7, save_every=100, watch=told.append)
        assert [one.step for one in told] == [7, 14, 20] and [one.done for one in told] == [False, False, True]
        assert told[-1].seconds_left == 0
        assert all(0 <= one.waiting <= 1 and one.images_per_second > 0 for one in told)

    def test_losses_are_means_since_the_last_row(self, tmp_path):
        each = run(modules(), tmp_path / "each").log
        some = run(modules(), tmp_path / "some", log_every=5).log
        assert some["loss"].tolist() == pytest.approx(each["loss"].to_numpy().reshape(-1, 5).mean(1).tolist())
        assert some["step"].tolist() == [5, 10, 15, 20]

    @pytest.mark.parametrize("waiting, told", [(0.34, "waiting for data 34 % of the time"), (0.33, "")])
    def test_a_slow_loader_is_named(self, waiting, told):
        state = Progress(1, 1, {}, {}, 0.1, 1.0, waiting, 1.0, 0.0)
        assert state.note.startswith(told) and bool(state.note) == bool(told)

    def test_tensorboard_shows_the_same_as_the_log(self, tmp_path):
        """Also after an interruption: what it has undone is not shown."""
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        board, folder = TensorBoard(tmp_path / "board"), tmp_path / "training"
        cut(modules(), folder, watch=board)
        board = TensorBoard(tmp_path / "board")
        log = run(modules(), folder, watch=board, validate=lambda parts: {"error": 1.5}).log
        events = EventAccumulator(str(tmp_path / "board"))
        events.Reload()
        shown = events.Scalars("loss")
        assert [event.step for event in shown] == log["step"].tolist() == list(range(1, 21))
        assert [event.value for event in shown] == pytest.approx(log["loss"].tolist())
        assert [event.value for event in events.Scalars("validation/error")] == [1.5]

    def test_a_bar_on_a_terminal_and_nothing_elsewhere(self, tmp_path, monkeypatch, capsys):
        run(modules(), tmp_path / "file", watch=None)
        assert capsys.readouterr().err == ""
        terminal = io.StringIO()
        terminal.isatty = lambda: True
        monkeypatch.setattr(sys, "stderr", terminal)
        run(modules(), tmp_path / "terminal", watch=None)
        assert "20/20" in terminal.getvalue() and "images/s" in terminal.getvalue()

    def test_a_row_that_a_kill_cut_short_is_dropped(self, tmp_path):
        cut(modules(), tmp_path)
        text = (tmp_path / "log.jsonl").read_text()
        (tmp_path / "log.jsonl").write_text(text[:-20])  # a half of row 13
        assert run(modules(), tmp_path).log["step"].tolist() == list(range(1, 21))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_goes_on_on_a_gpu_and_on_a_cpu(tmp_path):
    parts, adam = modules(), {"optimiser": "adamw", "rate": 0.01, "steps": 60, "save_every": 20, "precision": "32-true"}
    for device, step in (("cuda", 25), ("cpu", 45)):
        cut(parts, tmp_path, step, device=device, **adam)
    history = run(parts, tmp_path, device="cuda", **adam)
    assert history.resumed_from == 40 and parts["head"].weight.is_cuda
    assert history.log["step"].tolist() == list(range(1, 61))
    assert history.log["loss"].iloc[-5:].mean() < history.log["loss"].iloc[0]


@pytest.fixture(scope="module")
def spread(tmp_path_factory) -> Path:
    """The job `spread` in two processes, as torchrun starts them."""
    folder = tmp_path_factory.mktemp("spread")
    process = job("spread", folder, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, errors
    return folder


class TestTwoProcesses:
    @pytest.mark.parametrize("name, cuts", [("plain", 2), ("accumulated", 4)])
    def test_give_the_weights_of_one(self, tmp_path, spread, name, cuts):
        parts = modules(dropout=0.0, norm=False)
        adam = {"optimiser": "adamw", "rate": 0.01} if name == "accumulated" else {}
        run(parts, tmp_path, clip=0.5, accumulate=cuts, **adam)
        for rank in (0, 1):
            found = torch.load(spread / f"{name}-{rank}.pt", weights_only=True)
            for key, one in weights(parts).items():
                torch.testing.assert_close(found[key], one, rtol=1e-4, atol=1e-6)
        expected = read_log(tmp_path)["loss"].tolist()
        assert read_log(spread / name)["loss"].tolist() == pytest.approx(expected, rel=1e-4)

    def test_end_together_where_one_meets_a_nan(self, spread):
        told = [(spread / f"nan-{rank}.txt").read_text() for rank in (0, 1)]
        assert all(text.startswith("RunError: The loss of step 7 is not finite") for text in told)
        rows = rows_of_step(6, 8, 50, 0).tolist()
        assert f"rows {rows[:4]}. Its data is finite" in told[0]
        assert f"rows {rows[4:]}. In its data x of rows [{rows[5]}] is not finite" in told[1]

    def test_refuse_together_other_starting_weights_of_the_first(self, spread):
        told = [(spread / f"refused-{rank}.txt").read_text() for rank in (0, 1)]
        assert all(text.startswith("0.1: ") and "began with other weights" in text for text in told)
        assert [len(text.splitlines()) for text in told] == [1, 1]

    def test_stop_together_where_one_is_told_to(self, spread):
        told = [(spread / f"term-{rank}.txt").read_text() for rank in (0, 1)]
        step = latest_checkpoint(spread / "term")["step"]
        assert all(
            text.startswith(f"Stopped: SIGTERM stopped the training in {spread / 'term'} after step {step} of")
            for text in told
        )


def test_training_loads_neither_runs_nor_datasets_nor_evaluation():
    code = "import sys, facenb.training; print([name for name in sys.modules if name.startswith('facenb.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    assert {name.split(".")[1] for name in ast.literal_eval(done.stdout)} <= {"training", "errors", "files"}
