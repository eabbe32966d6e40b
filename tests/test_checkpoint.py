import os
from pathlib import Path

import pytest
import torch
from helpers import Hostile

from facenb.errors import RunError
from facenb.training.checkpoint import latest_checkpoint, save_checkpoint


def save(folder: Path, step: int) -> Path:
    folder.mkdir(exist_ok=True)
    return save_checkpoint(folder, {"step": step, "a": torch.full((40,), float(step))})


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(3, 4, dtype=torch.float64),
        torch.randn(3).to(torch.bfloat16),
        torch.tensor(7),
        torch.tensor([True, False]),
        torch.zeros(0, 3),
        torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    ],
    ids=["float64", "bfloat16", "count", "bool", "empty", "channels last"],
)
def test_tensors_come_back_to_the_bit(tmp_path, tensor):
    save_checkpoint(tmp_path, {"step": 1, "a": tensor})
    back = latest_checkpoint(tmp_path)["a"]
    assert back.dtype == tensor.dtype and back.stride() == tensor.stride() and torch.equal(back, tensor)


def test_facts_come_back(tmp_path):
    content = {"step": 12, "settings": {"rate": 0.1, "optimiser": "sgd"}, "trained": ["a", "b"]}
    save_checkpoint(tmp_path, content)
    assert latest_checkpoint(tmp_path) == content


def test_newest_by_number_and_only_two_kept(tmp_path):
    for step in (8, 9, 10, 100):
        save(tmp_path, step)
    assert sorted(os.listdir(tmp_path)) == ["checkpoint-10.pt", "checkpoint-100.pt"]
    assert latest_checkpoint(tmp_path)["step"] == 100


def test_none_in_an_empty_or_missing_folder(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / "nowhere") is None


def truncate(path: Path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path):
    content = bytearray(path.read_bytes())
    content[content.index(torch.full((40,), 2.0).numpy().tobytes())] ^= 1
    path.write_bytes(content)


def empty(path: Path):
    path.write_bytes(b"")


@pytest.mark.parametrize("harm", [truncate, flip, empty])
class TestDamage:
    def test_takes_the_checkpoint_before(self, tmp_path, harm):
        save(tmp_path, 1)
        harm(save(tmp_path, 2))
        with pytest.warns(UserWarning, match="checkpoint-2.pt is damaged"):
            assert latest_checkpoint(tmp_path)["step"] == 1

    def test_does_not_begin_anew_over_damaged_ones(self, tmp_path, harm):
        harm(save(tmp_path, 2))
        with pytest.warns(UserWarning, match="checkpoint-2"), pytest.raises(RunError, match="delete this one"):
            latest_checkpoint(tmp_path)


def test_code_in_a_checkpoint_does_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"step": 1, "a": Hostile(os.system, "touch ran")}, tmp_path / "checkpoint-1.pt")
    with pytest.warns(UserWarning, match="checkpoint-1.pt is damaged"), pytest.raises(RunError, match="Every"):
        latest_checkpoint(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_full_disk_leaves_the_checkpoints_there_are(tmp_path, monkeypatch):
    save(tmp_path, 1)
    save(tmp_path, 2)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RunError, match="No space left.*Make room"):
        save(tmp_path, 3)
    monkeypatch.undo()
    assert latest_checkpoint(tmp_path)["step"] == 2
    assert not list(tmp_path.glob(".*.partial"))
