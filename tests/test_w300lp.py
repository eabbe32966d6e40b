"""300W-LP in its official layout, on a tiny tree of it."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from facenb.datasets.pictures.aflw2000 import TO_OURS
from facenb.datasets.pictures.w300lp import SETS, read_turn, read_w300lp
from facenb.datasets.sets.build_photos import build_w300lp
from facenb.errors import AssetError, RunError
from facenb.imaging.camera import WeakPerspective, euler_to_matrix
from facenb.photos.crops import five_of_68, to_template
from facenb.synthface import build_model

SOURCES = {
    "AFW": ("1051618982_1", "1051618982_2"),
    "HELEN": ("100032540_1",),
    "IBUG": ("image_003_1",),
    "LFPW": ("image_train_0737",),
}


def labels(number, **other):
    """The contents of a label file."""
    pose = np.zeros((1, 7), np.float32)
    pose[0, 1] = number / 10
    points = np.arange(136, dtype=np.float32).reshape(2, 68) + number
    return {"pt2d": points, "Pose_Para": pose, "Shape_Para": np.full((199, 1), 2.0), **other}


def write(image, content, size=45, grey=0):
    """An image and its label file."""
    image.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size), (grey, grey, grey)).save(image, "JPEG")
    savemat(image.with_suffix(".mat"), content)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "300W_LP"
    for name in SETS:
        for part in (name, f"{name}_Flip"):
            for source in SOURCES[name]:
                for turn in (0, 2, 10):
                    write(root / part / f"{name}_{source}_{turn}.jpg", labels(turn), grey=turn)
    (root / "Code").mkdir()
    return root


def test_the_turns_of_a_photo_are_one_source(tree):
    """Two faces of one photo are two people."""
    sources = read_w300lp(tree)
    assert list(sources)[:2] == ["AFW/AFW_1051618982_1", "AFW/AFW_1051618982_2"]
    assert list(map(len, sources.values())) == [3] * 5
    expected = [f"AFW_1051618982_1_{turn}.jpg" for turn in (0, 2, 10)]
    assert [image.name for image in sources["AFW/AFW_1051618982_1"]] == expected


def test_labels(tree):
    sources = read_w300lp(tree.parent)  # the folder above, as the asset unpacks
    sample = read_turn(sources["AFW/AFW_1051618982_1"][2])
    expected = torch.arange(136.0).view(2, 68).T + 10 + TO_OURS
    assert torch.equal(sample.landmarks, expected) and sample.yaw == pytest.approx(1.0)
    assert sample.image().shape == (45, 45, 3)


def test_sets_that_are_missing(tree, tmp_path):
    shutil.copytree(tree / "AFW", tmp_path / "AFW")
    with pytest.raises(AssetError, match="HELEN holds no images HELEN_"):
        read_w300lp(tmp_path)


@pytest.fixture
def own(tmp_path):
    """One image to spoil."""
    path = tmp_path / "AFW" / "AFW_1_1_0.jpg"
    write(path, {})
    return path


@pytest.mark.parametrize("content", [b"not a MATLAB file" * 20, None], ids=["foreign", "missing"])
def test_labels_that_cannot_be_read_are_named(own, content):
    own.with_suffix(".mat").unlink()
    if content:
        own.with_suffix(".mat").write_bytes(content)
    with pytest.raises(AssetError, match=r"AFW_1_1_0\.mat"):
        read_turn(own)


def test_a_name_without_a_turn(own):
    own.rename(own.with_name("AFW_1_1_x.jpg"))
    with pytest.raises(AssetError, match="Expected a name like"):
        read_w300lp(own.parents[1])


@pytest.fixture
def release(tmp_path):
    """As released: `pt2d` of turn 10 repeats that of turn 0; landmarks/ holds the turned image's own."""
    points = np.random.default_rng(0).uniform(10, 35, (68, 2))
    for turn in (0, 10):
        write(tmp_path / "AFW" / f"AFW_1_1_{turn}.JPG", labels(0, pt2d=points.T))
        path = tmp_path / "landmarks" / "AFW" / f"AFW_1_1_{turn}_pts.mat"
        path.parent.mkdir(parents=True, exist_ok=True)
        savemat(path, {"pts_2d": 0 * points, "pts_3d": points + [turn / 2, 0]})
    return tmp_path, torch.from_numpy(points).float() + TO_OURS


def test_a_turned_image_has_its_own_landmarks(release):
    root, points = release
    first, turned = (read_turn(root / "AFW" / f"AFW_1_1_{turn}.JPG") for turn in (0, 10))
    torch.testing.assert_close(first.landmarks, points)
    torch.testing.assert_close(turned.landmarks, points + torch.tensor([5.0, 0]))


def test_a_missing_or_wrong_landmark_file_is_named(release):
    root, _ = release
    path = root / "landmarks/AFW/AFW_1_1_10_pts.mat"
    for spoil in (lambda: savemat(path, {"pts_2d": np.zeros((68, 2))}), path.unlink):
        spoil()
        with pytest.raises(AssetError, match=r"AFW_1_1_10_pts\.mat"):
            read_turn(root / "AFW/AFW_1_1_10.JPG")


def test_turns_with_the_landmarks_of_the_photo_are_refused(release):
    root, _ = release
    shutil.rmtree(root / "landmarks")
    read_turn(root / "AFW/AFW_1_1_0.JPG")
    with pytest.raises(AssetError, match="AFW_1_1_10.JPG and AFW_1_1_0.JPG have identical landmarks.*landmarks/"):
        read_turn(root / "AFW/AFW_1_1_10.JPG")


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
def sources(faces, tmp_path_factory):
    root = tmp_path_factory.mktemp("lp")
    images = {"AFW/AFW_7_1": [], "AFW/AFW_7_2": []}
    for person, (turns, several) in enumerate(zip(faces[1], images.values(), strict=True)):
        for turn, points in enumerate(turns):
            path = root / "AFW" / f"AFW_7_{person + 1}_{turn}.jpg"
            write(path, labels(turn, pt2d=(points.T - TO_OURS).numpy()), 450, 40 * person + 20 * turn)
            several.append(path)
    return images


@pytest.fixture(scope="module")
def made(model, sources, tmp_path_factory):
    return build_w300lp(tmp_path_factory.mktemp("set"), model, sources, (64, 64))


def test_people_are_source_photos(made, sources):
    assert made.subjects.tolist() == [0, 0, 0, 1, 1, 1] and made.card["names"] == list(sources)


def test_one_identity_a_photo_and_it_is_the_right_one(made, faces):
    kept = made.read(["identity"])["identity"].unflatten(0, (2, 3))
    assert torch.equal(kept[:, 0], kept[:, 2])
    assert (kept[:, 0, :2] * faces[0] > 0).all()


def test_pose_places_the_landmarks_in_the_crop(made, model, faces):
    kept = made.load(torch.arange(6))
    matrix = kept["pose"].unflatten(1, (3, 4))
    points = model.landmarks.of(model.shape(kept["identity"], kept["expression"]))
    placed = (points @ matrix[:, :, :3].mT + matrix[:, None, :, 3])[..., :2]
    seen = faces[1].flatten(0, 1)
    expected = to_template(five_of_68(seen), (64, 64)).apply(seen)
    assert float((placed - expected).norm(dim=2).mean()) < 1.0


def test_made_once(made, model, sources):
    assert build_w300lp(made.table.folder, model, sources, (64, 64)).card == made.card
    with pytest.raises(RunError, match="size is"):
        build_w300lp(made.table.folder, model, sources, (32, 32))
