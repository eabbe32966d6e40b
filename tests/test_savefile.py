"""One file of tensors and a card: complete or absent, refused when it is of another kind."""

import os

import pytest
import torch
from safetensors.torch import save_file

from facenb import savefile
from facenb.errors import ModelFileError

TENSORS = {"a": torch.randn(3, 4), "transposed": torch.randn(3, 4).T, "count": torch.tensor(7)}
CARD = {"seed": 7, "names": ["a", "b"]}


def test_tensors_and_card_come_back_to_the_bit(tmp_path):
    path = savefile.save(tmp_path / "new folder" / "file", "Kind 1", TENSORS, CARD)
    tensors, card = savefile.load(path, "Kind 1")
    assert card == CARD and tensors.keys() == TENSORS.keys()
    assert all(
        torch.equal(tensors[name], value) and tensors[name].dtype == value.dtype for name, value in TENSORS.items()
    )
    assert os.listdir(path.parent) == ["file"]


def test_two_names_of_one_memory(tmp_path):
    whole = torch.randn(3)
    tensors, _ = savefile.load(savefile.save(tmp_path / "file", "Kind 1", {"a": whole, "b": whole[:2]}, {}), "Kind 1")
    assert torch.equal(tensors["a"], whole) and torch.equal(tensors["b"], whole[:2])


def test_another_kind_is_refused(tmp_path):
    path = savefile.save(tmp_path / "file", "Kind 1", TENSORS, CARD)
    with pytest.raises(ModelFileError, match="file holds 'Kind 1', not 'Kind 2'"):
        savefile.load(path, "Kind 2")


def test_weights_of_others_are_refused(tmp_path):
    save_file({"weight": torch.zeros(3)}, tmp_path / "file")
    with pytest.raises(ModelFileError, match="file holds 'no kind known here', not 'Kind 1'"):
        savefile.load(tmp_path / "file", "Kind 1")


def test_damaged_and_renamed_files_are_refused(tmp_path):
    with pytest.raises(ModelFileError, match="gone is not a complete safetensors file .*No such file"):
        savefile.load(tmp_path / "gone", "Kind 1")
    whole = savefile.save(tmp_path / "whole", "Kind 1", TENSORS, CARD).read_bytes()
    torch.save({"weight": torch.zeros(3)}, tmp_path / "zip")
    for name, content in {"cut": whole[:-10], "header": whole[:40], "empty": b"", "text": b"hello"}.items():
        (tmp_path / name).write_bytes(content)
    for name in ("cut", "header", "empty", "text", "zip"):
        with pytest.raises(ModelFileError, match=f"{name} is not a complete safetensors file"):
            savefile.load(tmp_path / name, "Kind 1")


@pytest.mark.parametrize("step", ["replace", "fsync"])
def test_a_full_disk_leaves_the_older_file_and_nothing_else(tmp_path, monkeypatch, step):
    path = savefile.save(tmp_path / "file", "Kind 1", TENSORS, CARD)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(ModelFileError, match="cannot write .*file .*No space left"):
        savefile.save(path, "Kind 1", {}, {})
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["file"]


def test_a_card_that_is_no_json_leaves_the_older_file(tmp_path):
    path = savefile.save(tmp_path / "file", "Kind 1", TENSORS, CARD)
    with pytest.raises(TypeError):
        savefile.save(path, "Kind 1", TENSORS, {"what": torch.zeros(3)})
    assert savefile.load(path, "Kind 1")[1] == CARD


@pytest.mark.parametrize("name", ["file/below", 300 * "n"], ids=["parent is a file", "name too long"])
def test_a_path_that_cannot_be_written(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(ModelFileError, match="cannot write .*choose another folder"):
        savefile.save(tmp_path / name, "Kind 1", TENSORS, CARD)


def test_others_may_read_what_their_owner_may_share(tmp_path):
    (tmp_path / "plain").touch()
    path = savefile.save(tmp_path / "a.safetensors", "kind", {"x": torch.ones(1)}, {})
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
