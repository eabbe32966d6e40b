"""What a training says of gradients, data, losses and settings that are not what they have to be."""

import json
import math
import os

import numpy as np
import pandas as pd
import pytest
import torch
from training_jobs import Points, loss, modules, run, settings, weights

from facenb.errors import RunError
from facenb.training import loop
from facenb.training.feed import rows_of_step


class Pairs(Points):
    """Two points a row: the first of all, then the second, and one number of the whole batch."""

    def load(self, rows, generator):
        batch = super().load(torch.cat([rows, (rows + 1) % len(self)]), generator)
        return {**batch, "whole": torch.tensor(1.0)}


class TestData:
    @pytest.mark.parametrize("accumulate, part", [(1, ""), (2, " of part 2")])
    def test_tensors_of_another_length_are_named_by_place(self, tmp_path, accumulate, part):
        data, rows = Pairs(), rows_of_step(0, 8, 50, 0)[-8 // accumulate :].tolist()
        size = len(rows)
        row = next(row for row in rows if row not in [(one + 1) % 50 for one in rows_of_step(0, 8, 50, 0).tolist()])
        data.y[row] = math.nan
        told = rf"not finite in the data: y{part} \(of length {2 * size}\) at \[{rows.index(row)}\]\."
        with pytest.raises(RunError, match=told):
            run(modules(), tmp_path, data, accumulate=accumulate)

    def test_a_tensor_without_rows_is_named(self, tmp_path):
        data = Pairs()
        load = data.load
        data.load = lambda rows, generator: load(rows, generator) | {"whole": torch.tensor(math.inf)}

        def scaled(parts, batch):
            return {"loss": loss(parts, batch)["loss"] * batch["whole"]}

        with pytest.raises(RunError, match=r"not finite in the data: whole \(of length 1\) at \[0\]"):
            run(modules(), tmp_path, data, loss=scaled)

    @pytest.mark.parametrize(
        "gives, told",
        [
            (lambda batch: tuple(batch.values()), "`load` of Points gives a tuple; it must give a dictionary"),
            (lambda batch: list(batch.values()), "`load` of Points gives a list; it must give a dictionary"),
            (lambda batch: batch | {"name": ["a"] * 8}, r"gives what is no tensor: \{'name': 'list'\}"),
        ],
        ids=["tuple", "list", "list inside"],
    )
    def test_what_is_no_batch(self, tmp_path, gives, told):
        data = Points()
        load = data.load
        data.load = lambda rows, generator: gives(load(rows, generator))
        with pytest.raises(RunError, match=told):
            run(modules(), tmp_path, data, tensorboard=True)
        assert os.listdir(tmp_path) == ["lock"]


def steep(parts, batch):
    """The loss, and from the eighth step on a root of 0 whose slope is not a number."""
    steep.calls += 1
    given = loss(parts, batch)
    return given if steep.calls < 8 else given | {"loss": given["loss"] + (0 * parts["head"].weight).abs().sum().sqrt()}


class Late(loop.Later):
    """Numbers as a GPU has them: there only once somebody waits for them."""

    def __init__(self, numbers):
        super().__init__(numbers)
        self.event = Arrived()


class Arrived:
    def synchronize(self) -> None:
        pass


class TestGradient:
    @pytest.fixture(autouse=True)
    def count(self):
        steep.calls = 0

    @pytest.mark.parametrize("clip", [0.0, 0.5])
    def test_names_step_parameter_and_rows_before_it_does_harm(self, tmp_path, clip):
        parts = modules()
        with pytest.raises(RunError) as error:
            run(parts, tmp_path, loss=steep, clip=clip)
        told, rows = str(error.value), rows_of_step(7, 8, 50, 0).tolist()
        assert "the gradient of step 8 is not finite, though its loss is: head.weight (1 of " in told
        assert f"Its batch is rows {rows}; the data of these rows is finite: look in the loss" in told
        assert "set clip" not in told and f"{tmp_path / 'checkpoint-5.json'}" in told
        assert all(one.isfinite().all() for one in weights(parts).values())

    def test_numbers_that_come_late_are_read_with_the_next_loss(self, tmp_path, monkeypatch):
        monkeypatch.setattr(loop, "Later", Late)
        with pytest.raises(RunError, match=r"the gradient of step 8 is not finite.*head.weight \(1 of .*checkpoint-5"):
            run(modules(), tmp_path, loss=steep, clip=0.5)
        assert steep.calls == 9

    @pytest.mark.parametrize("what", ["save", "validate"])
    def test_and_before_anything_is_saved_or_validated(self, tmp_path, monkeypatch, what):
        monkeypatch.setattr(loop, "Later", Late)
        seen, every = [], {f"{what}_every": 4}
        with pytest.raises(RunError, match="the gradient of step 8 is not finite"):
            run(modules(), tmp_path, loss=steep, validate=lambda parts: seen.append(1) or {}, **every)
        assert steep.calls == 8 and len(seen) == (what == "validate")

    def test_a_loss_of_other_parameters_alone(self, tmp_path):
        alone = torch.nn.Linear(3, 1)
        with pytest.raises(RunError, match="does not depend on any parameter of the modules"):
            run(modules(), tmp_path, loss=lambda parts, batch: {"loss": alone(batch["x"]).mean()})


class TestLoss:
    @pytest.mark.parametrize("fresh", [False, True])
    def test_a_bare_tensor(self, tmp_path, fresh):
        with pytest.raises(RunError, match="the loss gives a Tensor; it must give"):
            run(modules(), tmp_path, loss=lambda parts, batch: loss(parts, batch)["loss"], fresh=fresh)
        assert os.listdir(tmp_path) == ["lock"]

    def test_a_part_of_some_steps_is_a_mean_over_those(self, tmp_path):
        calls = iter(range(20))

        def some(parts, batch):
            call = next(calls)
            return loss(parts, batch) | ({"odd": torch.tensor(float(call))} if call % 2 else {})

        log = run(modules(), tmp_path, loss=some, log_every=5).log
        assert log["odd"].tolist() == [2.0, 7.0, 12.0, 17.0]  # of 1 and 3; 5, 7 and 9; ...
        pd.testing.assert_series_equal(log["loss"], run(modules(), tmp_path / "plain", log_every=5).log["loss"])


class TestArguments:
    @pytest.mark.parametrize("device", ["gpu", "CPU", "", "cuda:one"])
    def test_a_device_that_torch_does_not_know(self, tmp_path, device):
        with pytest.raises(RunError, match=f"device is '{device}'; choose 'auto', 'cpu', or 'cuda'"):
            run(modules(), tmp_path / "none", device=device)
        assert not (tmp_path / "none").exists()

    @pytest.mark.parametrize("name", ["steps", "batch", "save_every", "log_every", "validate_every", "seed"])
    @pytest.mark.parametrize("value", [4.0, 2.5, math.nan, "4", None])
    def test_settings_that_are_no_whole_numbers(self, name, value):
        with pytest.raises(RunError, match=f"{name} is {value!r}; give a whole number from [01] up"):
            self.given(name, value)

    @pytest.mark.parametrize("value", [np.int64(4), torch.tensor(4)])
    def test_whole_numbers_of_numpy_and_torch(self, value):
        assert self.given("steps", value).as_dict() == settings(steps=4).as_dict()
        json.dumps(self.given("steps", value).as_dict())

    def given(self, name, value):
        """Settings with a value that the types which the tests check would not let through."""
        made = settings()
        object.__setattr__(made, name, value)
        made.__post_init__()
        return made
