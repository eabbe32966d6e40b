"""AFLW2000-3D's official layout, small and written here, and the real one where the mirror is."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from scipy.spatial.transform import Rotation

from facenb.datasets.pictures.aflw2000 import TO_OURS, read_aflw2000
from facenb.errors import AssetError

POINTS = np.random.default_rng(0).uniform(100, 300, (3, 68)).astype(np.float32)


def write(folder, name="image00002", **changes):
    (folder / "AFLW2000").mkdir(exist_ok=True)
    Image.new("RGB", (450, 450)).save(folder / "AFLW2000" / f"{name}.jpg")
    labels = {
        "pt3d_68": POINTS,
        "Pose_Para": [[-0.1, 0.5, 0.2, 1, 2, 0, 0.001]],
        "Shape_Para": np.ones((199, 1)),
        "Exp_Para": np.ones((29, 1)),
    } | changes
    savemat(folder / "AFLW2000" / f"{name}.mat", {key: value for key, value in labels.items() if value is not None})


def test_labels_and_yaw(tmp_path):
    write(tmp_path)
    write(tmp_path, "image00004")
    np.savez(tmp_path / "reannotated68.npz", image=["image00004.jpg"], points=np.ones((1, 68, 2)))
    first, second = read_aflw2000(tmp_path)
    assert first.yaw == pytest.approx(0.5)
    torch.testing.assert_close(first.landmarks, torch.from_numpy(POINTS[:2].T) + TO_OURS)
    assert first.reannotated is None and torch.equal(second.reannotated, torch.full((68, 2), 1 + TO_OURS))
    assert first.image().shape == (450, 450, 3)


@pytest.mark.parametrize("turns", [(0, 0, 0), (-714, -351, -972), (894, 188, -951), (10, -103, 5)], ids=str)
def test_angles_of_other_turns_are_the_same_pose(tmp_path, turns):
    """Labels as the set has them (degrees), against another library's angles of that rotation."""
    pitch, yaw, roll = np.deg2rad(turns)
    write(tmp_path, Pose_Para=[[pitch, yaw, roll, 0, 0, 0, 1]])
    read = read_aflw2000(tmp_path)[0].yaw
    assert read == pytest.approx(Rotation.from_euler("XYZ", [pitch, yaw, roll]).as_euler("XYZ")[1])
    assert abs(read) <= np.pi / 2


def test_labels_of_another_shape_are_named(tmp_path):
    write(tmp_path, pt3d_68=None)
    with pytest.raises(AssetError, match=r"image00002\.mat needs pt3d_68 .* but holds Pose_Para \(1, 7\)"):
        read_aflw2000(tmp_path)
    write(tmp_path, pt3d_68=POINTS[:, :21])
    with pytest.raises(AssetError, match=r"image00002\.mat needs .* but holds pt3d_68 \(3, 21\)"):
        read_aflw2000(tmp_path)
    write(tmp_path, pt3d_68=POINTS * np.nan)
    with pytest.raises(AssetError, match=r"image00002\.mat needs .* all finite"):
        read_aflw2000(tmp_path)
    (tmp_path / "AFLW2000/image00002.mat").unlink()
    with pytest.raises(AssetError, match=r"no .*image00002\.mat beside"):
        read_aflw2000(tmp_path)


@pytest.mark.parametrize("suffix", [".JPG", ".png"])
def test_other_suffixes_in_a_folder_nested_once_more(tmp_path, suffix):
    write(tmp_path)
    np.savez(tmp_path / "reannotated68.npz", image=["image00002.jpg"], points=np.ones((1, 68, 2)))
    photo = tmp_path / "AFLW2000" / "image00002.jpg"
    photo.rename(photo.with_suffix(suffix))
    photo.with_suffix(".mat").rename(photo.with_suffix(".MAT"))
    (tmp_path / "archive").mkdir()
    (tmp_path / "AFLW2000").rename(tmp_path / "archive" / "AFLW2000")
    (sample,) = read_aflw2000(tmp_path)
    assert sample.photo.suffix == suffix and sample.reannotated is not None and sample.yaw == pytest.approx(0.5)


def test_wrong_reannotated_landmarks_are_named(tmp_path):
    write(tmp_path)
    for content in ({"image": ["image00002.jpg"], "points": np.ones((2, 68, 2))}, {"other": np.ones(3)}):
        np.savez(tmp_path / "reannotated68.npz", **content)
        with pytest.raises(AssetError, match=r"reannotated68\.npz"):
            read_aflw2000(tmp_path)


def test_the_real_one(real_asset):
    data = read_aflw2000(real_asset("aflw2000-3d"))
    assert len(data) == 1000 and all(sample.reannotated is not None for sample in data)
    sample = data[0]
    assert sample.image().shape == (450, 450, 3)
    far = (sample.landmarks - sample.reannotated).norm(dim=1)
    assert far.median() < 10 and sample.landmarks.min() > 0
