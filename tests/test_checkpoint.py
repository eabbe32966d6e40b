import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from facenb.errors import RunError
from facenb.training.checkpoint import (
    LAYOUT,
    OtherLayout,
    clear,
    latest_checkpoint,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)

TENSORS = {"weights/a": torch.arange(6.0).reshape(2, 3), "optimiser/a/step": torch.tensor(3.0)}


def save(folder: Path, step: int) -> Path:
    return save_checkpoint(folder, step, {"a": torch.full((4,), float(step))}, {"note": step})


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(3, 4),
        torch.randn(3, 4, dtype=torch.float64),
        torch.randn(3).to(torch.bfloat16),
        torch.tensor(7),
        torch.tensor([True, False]),
        torch.zeros(0, 3),
        torch.randn(4, 3).T,
        torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    ],
    ids=["float32", "float64", "bfloat16", "count", "bool", "empty", "transposed", "channels last"],
)
def test_tensors_come_back_to_the_bit(tmp_path, tensor):
    back = load_checkpoint(save_checkpoint(tmp_path, 1, {"one": tensor}, {})).tensors["one"]
    assert back.dtype == tensor.dtype and torch.equal(back, tensor)


def test_two_names_of_one_memory(tmp_path):
    one = torch.randn(3)
    found = load_checkpoint(save_checkpoint(tmp_path, 1, {"a": one, "b": one[:2]}, {}))
    assert torch.equal(found.tensors["a"], one) and torch.equal(found.tensors["b"], one[:2])


def test_facts_and_step_come_back(tmp_path):
    save_checkpoint(tmp_path, 12, TENSORS, {"settings": {"rate": 0.1}, "rows": 5})
    found = latest_checkpoint(tmp_path)
    assert found.step == 12 and found.facts == {"settings": {"rate": 0.1}, "rows": 5}


def test_newest_by_number_and_only_two_kept(tmp_path):
    for step in (8, 9, 10, 100):
        save(tmp_path, step)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-100.json", "checkpoint-10.json"]
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == [
        "checkpoint-10.safetensors",
        "checkpoint-100.safetensors",
    ]
    assert latest_checkpoint(tmp_path).step == 100


def test_none_in_an_empty_or_missing_folder(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / "nowhere") is None


def truncate(json_file: Path, weights: Path):
    weights.write_bytes(weights.read_bytes()[:-1])


def flip(json_file: Path, weights: Path):
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)


def lose(json_file: Path, weights: Path):
    weights.unlink()


def cut_json(json_file: Path, weights: Path):
    json_file.write_text(json_file.read_text()[:-8])


def empty_json(json_file: Path, weights: Path):
    json_file.write_text("[]")


def another_json(json_file: Path, weights: Path):
    json_file.write_text("{}")


@pytest.mark.parametrize("harm", [truncate, flip, lose, cut_json, empty_json, another_json])
class TestDamage:
    def test_the_one_before_is_taken_and_the_damaged_named(self, tmp_path, harm):
        save(tmp_path, 1)
        newest = save(tmp_path, 2)
        harm(newest, newest.with_suffix(".safetensors"))
        with pytest.warns(UserWarning, match="checkpoint-2"):
            found = latest_checkpoint(tmp_path)
        assert found.step == 1 and torch.equal(found.tensors["a"], torch.ones(4))

    def test_nothing_begins_anew_over_damaged_ones(self, tmp_path, harm):
        newest = save(tmp_path, 2)
        harm(newest, newest.with_suffix(".safetensors"))
        with pytest.warns(UserWarning, match="checkpoint-2"), pytest.raises(RunError, match="fresh=True"):
            latest_checkpoint(tmp_path)


def test_another_layout_is_no_damage(tmp_path):
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    newest.write_text(json.dumps(json.loads(newest.read_text()) | {"layout": 99}))
    with pytest.raises(OtherLayout, match=f"checkpoint-2.json has layout 99.*reads layout {LAYOUT}"):
        latest_checkpoint(tmp_path)


def test_full_disk_leaves_the_checkpoints_there_are(tmp_path, monkeypatch):
    save(tmp_path, 1)
    save(tmp_path, 2)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RunError, match="No space left.*make room"):
        save(tmp_path, 3)
    monkeypatch.undo()
    assert latest_checkpoint(tmp_path).step == 2
    assert not list(tmp_path.glob(".*.partial"))


def test_clear_takes_leavings_and_nothing_else(tmp_path):
    save(tmp_path, 1)
    leavings = ["checkpoint-2.safetensors", ".checkpoint-2.safetensors.7.partial", ".checkpoint-1.json.7.partial"]
    others = ["log.csv", "checkpoint-best.safetensors", "notes.json"]
    for name in leavings + others:
        (tmp_path / name).write_text("")
    clear(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(["checkpoint-1.json", "checkpoint-1.safetensors", *others])
    clear(tmp_path, everything=True)
    assert sorted(os.listdir(tmp_path)) == sorted(others)


# A child a moment, killed at the n-th of the calls by which a checkpoint gets onto the disk and old ones leave it.
KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from facenb.training.checkpoint import save_checkpoint

folder, calls = Path(sys.argv[1]), 0

def armed(call, moment):
    def wrapped(*arguments, **options):
        global calls
        calls += 1
        if calls == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **options)
    return wrapped

for moment in range(1, 100):
    here = folder / str(moment)
    for step in (1, 2):
        save_checkpoint(here, step, {"a": torch.full((4,), float(step))}, {})
    child = os.fork()
    if child == 0:
        os.fsync, os.replace = armed(os.fsync, moment), armed(os.replace, moment)
        Path.unlink = armed(Path.unlink, moment)
        save_checkpoint(here, 3, {"a": torch.full((4,), 3.0)}, {})
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        sys.exit(os.WEXITSTATUS(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_any_moment_a_whole_checkpoint_is_there(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    moments = sorted(tmp_path.iterdir(), key=lambda path: int(path.name))
    assert len(moments) > 6  # two files synced and renamed, two old ones removed, and one that nothing killed
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        steps = [(found := latest_checkpoint(folder)).step for folder in moments]
        for folder in moments:
            found = latest_checkpoint(folder)
            assert torch.equal(found.tensors["a"], torch.full((4,), float(found.step)))
    assert steps == sorted(steps) and set(steps) == {2, 3}
