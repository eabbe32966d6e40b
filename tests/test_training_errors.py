"""Errors of a training whose data, losses, gradients or device are wrong."""

import math

import pytest
import torch
from training_jobs import Points, loss, modules, run, same, settings, weights

from facenb.errors import RunError
from facenb.training.feed import Feed, rows_of_step
from facenb.training.logbook import Readout


class Pairs(Points):
    """Two points for each row, and one number for the whole batch."""

    def load(self, rows, generator):
        batch = super().load(torch.cat([rows, (rows + 1) % len(self)]), generator)
        return {**batch, "whole": torch.tensor(1.0)}


class TestData:
    def test_tensors_of_another_length_are_named(self, tmp_path):
        data = Pairs()
        data.y[rows_of_step(0, 8, 50, 0)[2]] = math.nan
        with pytest.raises(
            RunError,
            match=r"The loss of step 1 .* In its data y is not finite\. There is no checkpoint yet",
        ):
            run(modules(), tmp_path, data)

    def test_a_tensor_without_rows_is_named(self, tmp_path):
        data = Pairs()
        load = data.load
        data.load = lambda rows, generator: load(rows, generator) | {"whole": torch.tensor(math.inf)}

        def scaled(parts, batch):
            return {"loss": loss(parts, batch)["loss"] * batch["whole"]}

        with pytest.raises(RunError, match="In its data whole is not finite"):
            run(modules(), tmp_path, data, loss=scaled)


def steep(parts, batch):
    """The loss, and from the eighth step on a root of 0 whose slope is not a number."""
    steep.calls += 1
    given = loss(parts, batch)
    return given if steep.calls < 8 else given | {"loss": given["loss"] + (0 * parts["head"].weight).abs().sum().sqrt()}


class TestGradient:
    @pytest.fixture(autouse=True)
    def count(self):
        steep.calls = 0

    @pytest.mark.parametrize("clip", [0.0, 0.5])
    def test_names_step_parameter_and_rows_and_does_no_harm(self, tmp_path, clip):
        parts = modules()
        with pytest.raises(RunError) as error:
            run(parts, tmp_path, loss=steep, clip=clip)
        message, rows = str(error.value), rows_of_step(7, 8, 50, 0).tolist()
        assert "The gradient of step 8 is not finite: head.weight (1 of " in message
        assert f"Its batch is rows {rows}. Its data is finite. Look in the loss" in message
        assert "set clip" not in message and f"{tmp_path / 'checkpoint-5.pt'}" in message
        assert same(weights(parts), torch.load(tmp_path / "checkpoint-5.pt", weights_only=True)["modules"])


class TestReadout:
    """As on a GPU, where the numbers of a step are read after the next one is queued."""

    @pytest.fixture
    def readout(self, tmp_path):
        return Readout(Feed(Points(), settings(), torch.device("cpu")), tmp_path)

    def test_the_newest_step_may_be_read_late(self, readout):
        readout.add(0, ["loss"], ["weight"], torch.tensor([2.0, 0.0, 1.0]))
        readout.add(1, ["loss"], ["weight"], torch.tensor([4.0, 1.0, 1.0]))
        assert not readout.read(late=True) and readout.means() == {"loss": 2.0}
        assert readout.read() and readout.means() == {"loss": 4.0}

    @pytest.mark.parametrize("values, kind", [((math.nan, 0.0, 1.0), "loss"), ((1.0, 0.0, math.inf), "gradient")])
    def test_names_the_step_of_the_numbers(self, readout, values, kind):
        readout.add(6, ["loss"], ["weight"], torch.tensor(values))
        readout.add(7, ["loss"], ["weight"], torch.zeros(3))
        rows = rows_of_step(6, 8, 50, 0).tolist()
        with pytest.raises(RunError, match=f"The {kind} of step 7 is not finite") as error:
            readout.read(late=True)
        assert f"rows {rows}." in str(error.value)


def test_a_loss_of_some_steps_is_a_mean_over_those(tmp_path):
    calls = iter(range(20))

    def sometimes(parts, batch):
        call = next(calls)
        return loss(parts, batch) | ({"odd": torch.tensor(float(call))} if call % 2 else {})

    log = run(modules(), tmp_path, loss=sometimes, log_every=5).log
    assert log["odd"].tolist() == [2.0, 7.0, 12.0, 17.0]  # of 1 and 3; 5, 7 and 9; ...
    assert log["loss"].tolist() == run(modules(), tmp_path / "plain", log_every=5).log["loss"].tolist()


def test_a_failure_in_the_first_step_leaves_no_checkpoint(tmp_path):
    with pytest.raises(KeyError, match="loss"):
        run(modules(), tmp_path, loss=lambda parts, batch: {"total": loss(parts, batch)["loss"]})
    assert not list(tmp_path.glob("checkpoint-*"))
