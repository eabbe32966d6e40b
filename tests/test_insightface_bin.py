"""InsightFace's verification sets: written here with pickle as they are, read without it, and hostile ones refused."""

import io
import os
import pickle
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from facenb.datasets.pictures.insightface_bin import read_bin
from facenb.errors import AssetError


def jpeg(grey: int, size: int = 112) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (size, size), (grey, grey, 0)).save(file, "JPEG", quality=95)
    return file.getvalue()


PICTURES = [jpeg(10 * k) for k in range(8)]
SAME = [True, False, True, True]


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote its text: as they are."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_python2_text(self, data):
        self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)

    dispatch[bytes] = save_python2_text


def python2(content) -> bytes:
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump(content)
    return file.getvalue()


FORMS = {
    "python 2": lambda: python2((PICTURES, SAME)),
    "python 3": lambda: pickle.dumps((PICTURES, SAME), protocol=4),
    "protocol 2 of python 3": lambda: pickle.dumps((PICTURES, SAME), protocol=2),
    "arrays": lambda: pickle.dumps(([np.frombuffer(one, np.uint8) for one in PICTURES], SAME)),
    "numpy's truth": lambda: pickle.dumps((PICTURES, [np.bool_(one) for one in SAME])),
    "a list": lambda: pickle.dumps([PICTURES, tuple(SAME)]),
}


@pytest.mark.parametrize("form", FORMS)
def test_pictures_and_pairs_come_back(tmp_path, form):
    path = tmp_path / "lfw.bin"
    path.write_bytes(FORMS[form]())
    found = read_bin(path)
    assert found.same.tolist() == SAME and found.images == tuple(PICTURES)
    assert list(zip(found.first.tolist(), found.second.tolist(), strict=True)) == [(0, 1), (2, 3), (4, 5), (6, 7)]
    images = found.batch(torch.tensor([1, 3]))
    assert images.shape == (2, 112, 112, 3) and images.dtype == torch.uint8
    assert (images[1, 50, 50].int() - torch.tensor([30, 30, 0])).abs().max() <= 3
    assert found.fold(2).tolist() == [0, 0, 1, 1]


class Hostile:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize(
    "content",
    [
        Hostile(os.system, "touch PROOF"),
        ([Hostile(eval, "open('PROOF', 'w')")] * 2, [True]),
        (PICTURES[:2], [Hostile(exec, "open('PROOF', 'w')")]),
    ],
    ids=["whole", "among the pictures", "among the answers"],
)
def test_code_in_it_is_refused_and_never_run(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.bin"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(AssetError, match="nothing of it was run"):
        read_bin(path)
    assert not (tmp_path / "PROOF").exists()
    pickle.loads(path.read_bytes())  # it would have done harm
    assert (tmp_path / "PROOF").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"bins": 1}, "expected two lists"),
        ((PICTURES, SAME[:3]), "8 images for 3 pairs"),
        (([], []), "0 images"),
        ((PICTURES, [True, False, 2, True]), "neither 0"),
        ((PICTURES, [0.5, 1, 1, 0]), "neither 0"),
        ((PICTURES[:7] + [4], SAME), "Image 7 of .* of type int"),
        ((5, 6), "expected two lists"),
    ],
)
def test_no_verification_set(tmp_path, content, says):
    path = tmp_path / "odd.bin"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(AssetError, match=says):
        read_bin(path)


def test_a_damaged_file_and_none(tmp_path):
    (tmp_path / "half.bin").write_bytes(FORMS["python 3"]()[:2000])
    with pytest.raises(AssetError, match="damaged"):
        read_bin(tmp_path / "half.bin")
    with pytest.raises(AssetError, match="There is no"):
        read_bin(tmp_path / "none.bin")


def test_a_picture_that_is_none_is_named(tmp_path):
    (tmp_path / "a.bin").write_bytes(pickle.dumps(([PICTURES[0], b"no jpeg", jpeg(1, 64), PICTURES[1]], [True, True])))
    found = read_bin(tmp_path / "a.bin")
    with pytest.raises(AssetError, match="Image 1 of .* cannot be decoded"):
        found.batch(torch.tensor([1]))
    with pytest.raises(AssetError, match="Image 2 of .* another size"):
        found.batch(torch.tensor([0, 2]))
