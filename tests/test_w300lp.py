"""300W-LP in its official layout, on a tiny tree of it."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from facenb.data.aflw2000 import TO_OURS
from facenb.data.w300lp import SETS, read_w300lp
from facenb.errors import AssetError

SOURCES = {"AFW": ("1051618982_1", "1051618982_2"), "HELEN": ("100032540_1",), "IBUG": ("image_003_1",),
           "LFPW": ("image_train_0737",)}  # fmt: skip


def labels(number, **other):
    """The contents of a label file."""
    pose = np.zeros((1, 7), np.float32)
    pose[0, 1] = number / 10
    points = np.arange(136, dtype=np.float32).reshape(2, 68) + number
    return {"pt2d": points, "Pose_Para": pose, "Shape_Para": np.full((199, 1), 2.0), "Exp_Para": np.ones((29, 1)),
            "roi": np.ones((1, 4)), **other}  # fmt: skip


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "300W_LP"
    for name in SETS:
        for part in (name, f"{name}_Flip"):
            (root / part).mkdir(parents=True)
            for source in SOURCES[name]:
                for turn in (0, 2, 10):
                    path = root / part / f"{name}_{source}_{turn}.jpg"
                    Image.fromarray(np.full((45, 45, 3), turn, np.uint8)).save(path)
                    savemat(path.with_suffix(".mat"), labels(turn))
    (root / "Code").mkdir()
    (root / "landmarks" / "AFW").mkdir(parents=True)
    return root


def test_all_pictures_source_by_source(tree):
    data = read_w300lp(tree)
    assert len(data) == 15
    assert [photo.name for photo in data.photos[:4]] == [
        "AFW_1051618982_1_0.jpg", "AFW_1051618982_1_2.jpg", "AFW_1051618982_1_10.jpg", "AFW_1051618982_2_0.jpg",
    ]  # fmt: skip


def test_identity_is_the_source_photo(tree):
    """Two faces of one photo are two people, the turns of a face are one."""
    data = read_w300lp(tree)
    assert data.identity.tolist() == [k for k in range(5) for _ in range(3)]
    assert list(data.people)[:2] == ["AFW/AFW_1051618982_1", "AFW/AFW_1051618982_2"]
    assert data.sources[-1] == "LFPW/LFPW_image_train_0737"
    assert [len(some) for some in data.people.values()] == [3] * 5


def test_mirrored_pictures_are_people_of_their_own(tree):
    data = read_w300lp(tree, ["AFW"], flipped=True)
    assert len(data) == 12 and len(data.people) == 4
    assert "AFW_Flip/AFW_1051618982_1" in data.people


def test_labels(tree):
    sample = read_w300lp(tree.parent)[2]  # the folder above, as the asset unpacks
    expected = torch.arange(136.0).view(2, 68).T + 10 + TO_OURS
    assert torch.equal(sample.landmarks, expected) and sample.yaw == pytest.approx(1.0)
    assert sample.shape.tolist() == [2.0] * 199 and sample.expression.tolist() == [1.0] * 29
    assert sample.image().shape == (45, 45, 3)


def test_iterates(tree):
    assert [sample.yaw for sample in read_w300lp(tree, ["IBUG"])] == pytest.approx([0, 0.2, 1.0])


def test_a_set_that_is_missing(tmp_path):
    with pytest.raises(AssetError, match="AFW holds no AFW_"):
        read_w300lp(tmp_path)


def test_a_set_that_does_not_belong_to_it(tree):
    for sets in (["AFLW"], []):
        with pytest.raises(ValueError, match="300W-LP"):
            read_w300lp(tree, sets)


@pytest.fixture
def own(tmp_path):
    """One picture to spoil."""
    (tmp_path / "AFW").mkdir()
    path = tmp_path / "AFW" / "AFW_1_1_0.jpg"
    Image.new("RGB", (45, 45)).save(path)
    return path


def test_labels_that_are_missing(own):
    with pytest.raises(AssetError, match=r"no .*AFW_1_1_0.mat beside"):
        read_w300lp(own.parents[1], ["AFW"])[0]


def test_labels_that_are_no_mat_file(own):
    own.with_suffix(".mat").write_bytes(b"not a file of Matlab's" * 20)
    with pytest.raises(AssetError, match="no label file"):
        read_w300lp(own.parents[1], ["AFW"])[0]


@pytest.mark.parametrize(
    "other",
    [{"pt2d": np.zeros((2, 21))}, {"Pose_Para": np.zeros((1, 3))}, {"Exp_Para": np.full((29, 1), np.nan)}],
    ids=["landmarks", "pose", "not finite"],
)
def test_labels_of_other_sizes(own, other):
    savemat(own.with_suffix(".mat"), labels(0, **other))
    with pytest.raises(AssetError, match="holds"):
        read_w300lp(own.parents[1], ["AFW"])[0]


def test_labels_without_a_part(own):
    savemat(own.with_suffix(".mat"), {"pt2d": np.zeros((2, 68))})
    with pytest.raises(AssetError, match="no label file"):
        read_w300lp(own.parents[1], ["AFW"])[0]


def test_a_name_without_a_turn(own):
    own.rename(own.with_name("AFW_1_1_x.jpg"))
    with pytest.raises(AssetError, match="is not named"):
        read_w300lp(own.parents[1], ["AFW"])
