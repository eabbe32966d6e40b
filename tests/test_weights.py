"""Files of weights in torch's old format that are damaged; the other kinds of bad files are in `test_sphereface`."""

import warnings

import pytest
import torch

from facenb.errors import ModelFileError
from facenb.networks.weights import read_weights

WEIGHTS = {"first": torch.arange(12.0).view(3, 4), "second": torch.ones(5)}


@pytest.fixture
def old(tmp_path):
    """A file as torch wrote them before version 1.6."""
    torch.save(WEIGHTS, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    return tmp_path / "old.pth"


def test_the_old_format_is_read(old):
    assert all(torch.equal(tensor, WEIGHTS[name]) for name, tensor in read_weights(old).items())


def test_a_file_cut_anywhere_is_refused(old):
    content = old.read_bytes()
    for length in range(len(content)):
        old.write_bytes(content[:length])
        with pytest.raises(ModelFileError, match="old.pth"):
            read_weights(old)


def test_a_file_with_a_wrong_byte_is_refused_or_read(old):
    """A number of a tensor that changed cannot be told; all else is one error."""
    content, refused = old.read_bytes(), 0
    for place in range(len(content)):
        for value in (0, content[place] ^ 255):
            old.write_bytes(content[:place] + bytes([value]) + content[place + 1 :])
            with warnings.catch_warnings(action="ignore"):  # torch's, of a protocol it does not know
                try:
                    read_weights(old)
                except ModelFileError as error:
                    assert "old.pth" in str(error)
                    refused += 1
    assert refused > len(content)


def test_too_little_memory_is_no_damage(old, monkeypatch):
    def load(*_, **__):
        raise MemoryError

    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(MemoryError):
        read_weights(old)
