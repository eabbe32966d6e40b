"""InsightFace's binary files, written here as the formats say: read back; damaged and hostile ones are refused."""

import io
import os
import pickle
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import Hostile, python2_pickle, truncated
from PIL import Image

from facenb.datasets.folders import read_folder
from facenb.datasets.pictures.insightface_bin import read_bin, read_records
from facenb.datasets.sets.build_photos import build_folder, build_records
from facenb.errors import AssetError
from facenb.photos.crops import crop_faces
from facenb.photos.images import read_image
from facenb.photos.landmarks import detect, five_points
from facenb.photos.photo import ict_fitter

MAGIC = struct.pack("<I", 0xCED7230A)


def encoded(pixels: np.ndarray, kind="PNG") -> bytes:
    """PNG keeps every value, so that what comes back can be compared exactly."""
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, kind)
    return target.getvalue()


def jpeg(grey: int, size: int = 112) -> bytes:
    return encoded(np.full((size, size, 3), (grey, grey, 0), np.uint8), "JPEG")


PICTURES = [jpeg(10 * k) for k in range(8)]
SAME = [True, False, True, True]


FORMS = {
    "python 2": lambda: python2_pickle((PICTURES, SAME)),
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
    assert found.pairs.same.tolist() == SAME and found.images == tuple(PICTURES)
    assert torch.stack(found.pairs[:2], 1).tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    images = found.batch(torch.tensor([1, 3]))
    assert images.shape == (2, 112, 112, 3) and images.dtype == torch.uint8
    assert (images[1, 50, 50].int() - torch.tensor([30, 30, 0])).abs().max() <= 3
    assert found.pairs.fold.tolist() == [0, 2, 5, 7]


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


def picture(number: int, size=(112, 112)) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)


def head(label, key=0) -> bytes:
    """flag, label, id, id2; several labels follow the head and flag counts them."""
    if isinstance(label, (list, tuple)):
        return struct.pack("<IfQQ", len(label), 0.0, key, 0) + struct.pack(f"<{len(label)}f", *label)
    return struct.pack("<IfQQ", 0, label, key, 0)


def one_part(content: bytes, kind: int) -> bytes:
    return MAGIC + struct.pack("<I", kind << 29 | len(content)) + content + b"\0" * (-len(content) % 4)


def record(content: bytes) -> bytes:
    """Cut where the magic number stands at a multiple of four, as dmlc's writer does; the number itself is left out."""
    cuts = [at for at in range(0, len(content) - 3, 4) if content[at : at + 4] == MAGIC]
    parts, begin = [], 0
    for at in cuts:
        parts.append(content[begin:at])
        begin = at + 4
    parts.append(content[begin:])
    if len(parts) == 1:
        return one_part(content, 0)
    kinds = [1] + [2] * (len(parts) - 2) + [3]
    return b"".join(one_part(part, kind) for part, kind in zip(parts, kinds, strict=True))


def write(folder, contents: dict[int, bytes]):
    folder.mkdir(parents=True, exist_ok=True)
    body, lines = b"", []
    for key, content in contents.items():
        lines.append(f"{key}\t{len(body)}\n")
        body += record(content)
    (folder / "train.rec").write_bytes(body)
    (folder / "train.idx").write_text("".join(lines))
    return folder


def insightface(labels, pictures) -> dict[int, bytes]:
    """Record 0 tells that pictures are 1 to n and people n + 1 to the end; a person's record tells its range."""
    count = len(labels)
    people = sorted(set(labels))
    contents = {0: head([count + 1, count + 1 + len(people)])}
    for k, (label, pixels) in enumerate(zip(labels, pictures, strict=True), 1):
        contents[k] = head(float(label), k) + pixels
    for k, person in enumerate(people, count + 1):
        where = [i for i, label in enumerate(labels, 1) if label == person]
        contents[k] = head([float(where[0]), float(where[-1] + 1)], k)
    return contents


@pytest.fixture
def small(tmp_path):
    pictures = [encoded(picture(k)) for k in range(5)]
    return write(tmp_path / "set", insightface([0, 0, 1, 1, 2], pictures))


def test_labels_and_pictures(small):
    records = read_records(small)
    assert len(records) == 5 and records.labels.tolist() == [0, 0, 1, 1, 2]
    for k in (4, 0, 2):
        assert np.array_equal(records.image(k).numpy(), picture(k))
    assert len(read_records(small / "train.rec")) == len(read_records(small.parent)) == 5


def test_several_labels_in_a_record(tmp_path):
    """A label array: the first value is the person."""
    contents = {0: head([3.0, 3.0]), 1: head([4.0, 9.0, 7.0]) + encoded(picture(1)), 2: head(4.0) + encoded(picture(2))}
    records = read_records(write(tmp_path, contents))
    assert records.labels.tolist() == [4, 4]
    assert np.array_equal(records.image(0).numpy(), picture(1))


def test_a_set_without_the_first_record(tmp_path):
    """Pictures from record 0 on, in the order of their keys, whatever the order of the index."""
    contents = {k: head(float(k)) + encoded(picture(k)) for k in (2, 0, 1)}
    records = read_records(write(tmp_path, contents))
    assert records.labels.tolist() == [0, 1, 2]
    assert np.array_equal(records.image(2).numpy(), picture(2))


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_record_in_parts(tmp_path, times):
    """The magic number inside a picture cuts the record; the picture must come back with it."""
    pixels = picture(0, (64, 64))
    for k in range(times):  # at 24 + 13 + 3 bytes and so on: on the grid of four, behind head and PPM's own head
        pixels.reshape(-1)[400 * k + 3 : 400 * k + 7] = np.frombuffer(MAGIC, np.uint8)
    content = head(3.0) + encoded(pixels, "PPM")
    assert record(content).count(MAGIC) == 1 + times
    records = read_records(write(tmp_path, {0: head([2.0, 2.0]), 1: content}))
    assert records.labels.tolist() == [3]
    assert np.array_equal(records.image(0).numpy(), pixels)


def change(folder, key, at, value):
    """Bytes of a record, counted from its begin."""
    places = dict(map(int, line.split("\t")) for line in (folder / "train.idx").read_text().splitlines())
    content = bytearray((folder / "train.rec").read_bytes())
    content[places[key] + at : places[key] + at + len(value)] = value
    (folder / "train.rec").write_bytes(content)


@pytest.mark.parametrize(
    ("at", "value", "says"),
    [
        (0, b"\0\0\0\0", "no record begins"),
        (4, struct.pack("<I", 5), "it ends too early"),
        (4, struct.pack("<I", (1 << 29) - 1), "the file ends before"),
        (4, struct.pack("<I", 2 << 29 | 40), "its parts do not fit"),
        (4, struct.pack("<I", 1 << 29 | 40), ""),  # a first part without an end
        (4, struct.pack("<I", 7 << 29 | 40), "its parts do not fit"),
        (36, b"no PNG at all", "cannot be decoded"),
    ],
)
def test_a_damaged_record_is_named(small, at, value, says):
    change(small, 3, at, value)
    records = read_records(small)
    with pytest.raises(AssetError, match=rf"ecord 3 of .*train\.rec.*{says}"):
        records.image(2)
    assert np.array_equal(records.image(1).numpy(), picture(1))  # the others are as they were


def test_a_truncated_file(small):
    content = (small / "train.rec").read_bytes()
    (small / "train.rec").write_bytes(content[: len(content) // 2])
    records = read_records(small)
    with pytest.raises(AssetError, match=r"Record \d of .*(ends too early|the file ends|no record begins)"):
        [records.image(k) for k in range(5)]


@pytest.mark.parametrize("label", [float("nan"), -1.0, 0.5])
def test_a_label_that_is_no_person(small, label):
    change(small, 4, 12, struct.pack("<f", label))
    with pytest.raises(AssetError, match="Record 4 .*not the number of a person"):
        read_records(small).labels  # noqa: B018


@pytest.mark.parametrize("name", ["train.rec", "train.idx"])
def test_a_missing_or_empty_file(small, name):
    (small / name).write_bytes(b"")
    with pytest.raises(AssetError, match=f"{name} is missing or empty"):
        read_records(small)
    (small / name).unlink()
    with pytest.raises(AssetError, match=name):
        read_records(small)


def test_an_index_that_is_none(small):
    (small / "train.idx").write_text("0\t0\n1 two\n")
    with pytest.raises(AssetError, match=r"train\.idx .* row 2"):
        read_records(small)


def test_pictures_the_index_does_not_name(small):
    lines = (small / "train.idx").read_text().splitlines(keepends=True)
    (small / "train.idx").write_text("".join(lines[:3] + lines[4:]))
    with pytest.raises(AssetError, match="lacks announced record 3"):
        read_records(small)


def test_a_training_set_of_records_is_that_of_a_folder(real_asset, tmp_path):
    """Three aligned images of a real face; a person with one image is left out."""
    pytest.importorskip("mediapipe")
    image = read_image(real_asset("astronaut") / "astronaut.png")
    points = five_points(detect(image)[0])
    crops = [crop_faces(image[None], (points + shift)[None], (112, 112))[0].numpy() for shift in (-4, 0, 4)]
    (tmp_path / "folder" / "0").mkdir(parents=True)
    for k, crop in enumerate(crops):
        Image.fromarray(crop).save(tmp_path / "folder" / "0" / f"{k}.png")
    records = write(tmp_path / "records", insightface([0, 0, 0, 7], [encoded(crop) for crop in (*crops, crops[0])]))
    fitter = ict_fitter(64)
    fitter = replace(fitter, model=truncated(fitter.model, 10, 6), errors=None)
    one = build_records(tmp_path / "one", records, 2, (112, 96), fitter)
    other = build_folder(tmp_path / "other", read_folder(tmp_path / "folder"), 2, (112, 96), fitter, aligned=True)
    assert len(one) == 3 and one.card["names"] == ["0"] and one.size == (112, 96)
    assert torch.equal(one.image, other.image)
    assert torch.equal(one.read(["identity"])["identity"], other.read(["identity"])["identity"])
    assert np.array_equal(one.image[1].numpy(), crops[1][:, 8:104])
