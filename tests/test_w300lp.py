"""300W-LP in its official layout, on a tiny tree of it."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from facenb.datasets.pictures.aflw2000 import TO_OURS
from facenb.datasets.pictures.w300lp import SETS, build_w300lp, read_w300lp
from facenb.errors import AssetError, RunError
from facenb.imaging.camera import WeakPerspective, euler_to_matrix
from facenb.morphable.synthetic import build_model
from facenb.photos.crops import five_of_68, to_template

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


# Two photos of two made faces, each turned three times, in the official layout.
@pytest.fixture(scope="module")
def model():
    return build_model(0, people=40, components=12, albedo_components=6)


@pytest.fixture(scope="module")
def faces(model):
    """Identity of each photo, and where the landmarks of each of its turns lie, pixels."""
    identity = torch.tensor([[1.5, -1.0], [-1.5, 1.0]])
    angles = torch.deg2rad(torch.tensor([[0.0, 5, 0], [40, 5, 5], [80, 0, -5]]))
    camera = WeakPerspective(euler_to_matrix(angles), torch.full((3,), 1.2), torch.full((3, 2), 225.0))
    shapes = model.landmarks.of(model.shape(identity))
    return identity, torch.stack([camera.project(shape[None])[..., :2] for shape in shapes])


@pytest.fixture(scope="module")
def made(model, faces, tmp_path_factory):
    root = tmp_path_factory.mktemp("lp")
    (root / "AFW").mkdir()
    for person, turns in enumerate(faces[1]):
        for turn, points in enumerate(turns):
            path = root / "AFW" / f"AFW_7_{person + 1}_{turn}.jpg"
            Image.fromarray(np.full((450, 450, 3), 40 * person + 20 * turn, np.uint8)).save(path)
            savemat(path.with_suffix(".mat"), labels(turn, pt2d=(points.T - TO_OURS).numpy()))
    return build_w300lp(root / "set", model, read_w300lp(root, ["AFW"]), (64, 64), quiet=True)


def test_people_are_source_photos(made):
    assert made.subjects.tolist() == [0, 0, 0, 1, 1, 1]
    assert made.card["names"] == ["AFW/AFW_7_1", "AFW/AFW_7_2"]


def test_one_identity_a_photo_and_it_is_the_right_one(made, faces):
    kept = made.shards.column("identity").unflatten(0, (2, 3))
    assert torch.equal(kept[:, 0], kept[:, 2])
    assert (kept[:, 0, :2] * faces[0] > 0).all()


def test_pose_places_the_landmarks_in_the_crop(made, model, faces):
    kept = made.shards.read(torch.arange(6))
    matrix = kept["pose"].unflatten(1, (3, 4))
    points = model.landmarks.of(model.shape(kept["identity"], kept["expression"]))
    placed = (points @ matrix[:, :, :3].mT + matrix[:, None, :, 3])[..., :2]
    seen = faces[1].flatten(0, 1)
    expected = to_template(five_of_68(seen), (64, 64)).apply(seen)
    assert float((placed - expected).norm(dim=2).mean()) < 1.0


def test_made_once(made, model):
    root = made.folder.parent
    again = build_w300lp(made.folder, model, read_w300lp(root, ["AFW"]), (64, 64), quiet=True)
    assert again.card == made.card
    with pytest.raises(RunError, match="another kind"):
        build_w300lp(made.folder, model, read_w300lp(root, ["AFW"]), (32, 32), quiet=True)
