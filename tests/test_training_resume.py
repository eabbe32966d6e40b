"""What a training that goes on compares (`facenb.training.loop.Step.problem`)."""

import pytest
import torch
from torch import nn
from training_jobs import cut, modules, run, same, weights

from facenb.errors import RunError
from facenb.training import training_name


def other() -> dict[str, nn.Module]:
    """Modules like those of the tests with another start."""
    parts = modules()
    with torch.no_grad():
        parts["head"].weight[0, 3] += 1e-6
    return parts


class TestStart:
    @pytest.mark.parametrize("steps", [13, 20], ids=["cut", "finished"])
    def test_other_starting_weights_are_refused_and_left_alone(self, tmp_path, steps):
        cut(modules(), tmp_path) if steps == 13 else run(modules(), tmp_path)
        parts = other()
        before = weights(parts)
        with pytest.raises(RunError, match="with other weights.*Give another folder, or delete this one"):
            run(parts, tmp_path)
        assert same(weights(parts), before)

    def test_a_cell_run_again_gives_the_trained_ones(self, tmp_path):
        parts = modules()
        run(parts, tmp_path)
        before = weights(parts)
        assert run(parts, tmp_path).resumed_from == 20
        assert same(weights(parts), before)

    def test_the_start_is_kept_over_several_calls(self, tmp_path):
        whole = modules()
        run(whole, tmp_path / "whole")
        cut(modules(), tmp_path / "cut", at=7)
        cut(modules(), tmp_path / "cut", at=13)
        parts = modules()
        assert run(parts, tmp_path / "cut").resumed_from == 10
        assert same(weights(parts), weights(whole))

    def test_an_interrupted_cell_run_again_goes_on_to_the_bit(self, tmp_path):
        whole, parts = modules(), modules()
        run(whole, tmp_path / "whole")
        cut(parts, tmp_path / "cut")
        assert run(parts, tmp_path / "cut").resumed_from == 10
        assert same(weights(parts), weights(whole))

    def test_an_interruption_before_the_first_checkpoint_costs_nothing_else(self, tmp_path):
        whole, parts = modules(), modules()
        run(whole, tmp_path / "whole")
        cut(parts, tmp_path / "cut", at=3)
        assert same(weights(parts), weights(modules()))
        assert run(parts, tmp_path / "cut").resumed_from == 0
        assert same(weights(parts), weights(whole))

    def test_what_was_interrupted_elsewhere_is_refused(self, tmp_path):
        parts = modules()
        cut(modules(), tmp_path / "here")
        cut(parts, tmp_path / "there", rate=0.01)
        with pytest.raises(RunError, match="with other weights"):
            run(parts, tmp_path / "here")

    def test_what_is_frozen_is_not_compared(self, tmp_path):
        """Teachers and targets ride along; running statistics move whenever somebody looks."""
        first, second = modules(), modules()
        for parts in (first, second):
            parts["network"].requires_grad_(False)
        run(first, tmp_path)
        nn.init.zeros_(second["network"][0].weight)
        assert run(second, tmp_path).resumed_from == 20
        assert same(weights(second), weights(first))

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
    def test_weights_of_other_types(self, tmp_path, dtype):
        parts = {"network": nn.Linear(3, 1).to(dtype)}
        gives = lambda parts, batch: {"loss": parts["network"](batch["x"].to(dtype)).square().mean()}  # noqa: E731
        run(parts, tmp_path, loss=gives)
        assert run(parts, tmp_path, loss=gives).resumed_from == 20


def test_a_name_tells_the_trainings_of_two_losses_apart():
    """What `train` cannot: the cure it names."""
    names = {training_name("a", {"weight": weight}, parts) for weight in (1, 2) for parts in (modules(), other())}
    assert len(names) == 4 and training_name("a", {"weight": 1}, modules()) in names
