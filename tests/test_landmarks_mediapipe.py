"""MediaPipe's landmarks: against stored ones, against an annotator's, repeatable, and every number of faces."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from facenb.datasets.pictures.aflw2000 import read_aflw2000
from facenb.morphable.alignment import align
from facenb.photos import landmarks
from facenb.photos.crops import crop_faces, template
from facenb.photos.images import read_image
from facenb.photos.landmarks import central, detect, five_points, to_68

pytest.importorskip("mediapipe")


@pytest.fixture
def astronaut(real_asset):
    return read_image(real_asset("astronaut") / "astronaut.png")


def two_faces(astronaut):
    """The head of the portrait and beside it a smaller copy, whose size is 0.7."""
    head = astronaut[:240, 110:350]
    small = torch.nn.functional.interpolate(head.permute(2, 0, 1)[None], scale_factor=0.7, mode="area")[0]
    board = torch.full((260, 440, 3), 0.5)
    board[:240, 200:] = head
    board[50 : 50 + small.shape[1], 10 : 10 + small.shape[2]] = small.permute(1, 2, 0)
    return board


def test_the_stored_landmarks_of_a_portrait(astronaut, real_asset):
    stored = torch.from_numpy(np.load(real_asset("astronaut") / "astronaut_mp478.npy")[:, :2]).float()
    found = detect(astronaut)
    assert len(found) == 1
    torch.testing.assert_close(found[0], stored, atol=0.5, rtol=0)


def test_twice_the_same_to_the_last_bit(astronaut):
    first = detect(astronaut)
    detect(astronaut.flip(1))
    assert torch.equal(detect(astronaut), first)


def test_the_68_lie_where_an_annotator_put_them(real_asset):
    """300-W photo of eos: inner points within 4 % of the outer eye distance on average, none beyond 12 %."""
    folder = real_asset("surrey")
    lines = (folder / "image_0010.pts").read_text().split("{")[1].split("}")[0].split()
    truth = torch.tensor([float(word) for word in lines]).view(68, 2)
    found = to_68(detect(read_image(folder / "image_0010.png"))[0])
    error = (found - truth).norm(dim=1) / (truth[36] - truth[45]).norm()
    assert error[17:].mean() < 0.04 and error[17:].max() < 0.12
    assert error[:17].mean() < 0.15  # the jaw line is another one


def test_no_face_is_an_outcome(astronaut):
    noise = torch.rand(200, 300, 3, generator=torch.Generator().manual_seed(0))
    assert len(detect(noise, closer=True)) == 0
    nothing = detect(torch.full((200, 300, 3), 0.6), closer=True)
    assert nothing.shape == (0, 478, 2)


def test_several_faces_the_largest_first(astronaut):
    found = detect(two_faces(astronaut))
    assert len(found) == 2
    left = found[:, :, 0].mean(1)
    assert left[0] > 200 > left[1]
    extent = found.amax(1) - found.amin(1)
    assert float((extent[1] / extent[0]).mean()) == pytest.approx(0.7, abs=0.05)


def test_every_face_of_a_group_the_nearest_first(astronaut):
    """A selfie: one face near the camera and seven behind, of which the detector alone finds few or none."""
    head, sizes = astronaut[:240, 110:350].permute(2, 0, 1)[None], [150, 165, 180, 195, 210, 225, 240]
    board, corners = torch.full((1200, 1750, 3), 0.5), [(10 + 245 * k, 60 + 120 * (k % 2)) for k in range(7)]
    for size, (left, top) in zip([*sizes, 480], [*corners, (300, 560)], strict=True):
        small = torch.nn.functional.interpolate(head, (size, size), mode="bilinear", antialias=True)[0]
        board[top : top + size, left : left + size] = small.permute(1, 2, 0)
    known = detect(astronaut)[0] - torch.tensor([110.0, 0.0])
    found = detect(board, closer=True)
    assert len(detect(board)) < 8 == len(found)
    for points, size, corner in zip(found, [480, *sizes[::-1]], [(300, 560), *corners[::-1]], strict=True):
        expected = known * size / 240 + torch.tensor(corner, dtype=torch.float32)
        assert (points - expected).norm(dim=1).mean() < 0.03 * size


def test_a_small_face_in_a_large_picture_is_found_once(astronaut):
    board = torch.full((900, 1500, 3), 0.5)
    board[350 : 350 + 512, 700 : 700 + 512] = astronaut
    assert len(detect(board)) == 0
    found = detect(board, closer=True)
    assert len(found) == 1
    known = detect(astronaut)[0] + torch.tensor([700.0, 350.0])
    assert (found[0] - known).norm(dim=1).mean() < 2


def test_the_central_one_of_several():
    points = torch.zeros(2, 478, 2)
    points[0] += torch.tensor([10.0, 10.0])
    points[1] += torch.tensor([48.0, 52.0])
    assert torch.equal(central(points, torch.zeros(100, 100, 3)), points[1])


def turned(image, degrees):
    """The image turned counterclockwise in its plane by Pillow, and what that does to points."""
    pixels = Image.fromarray((255 * image).round().byte().numpy()).rotate(degrees, Image.Resampling.BICUBIC)
    angle, centre = torch.tensor(degrees).deg2rad(), torch.tensor([image.shape[1], image.shape[0]]) / 2
    rotation = torch.tensor([[angle.cos(), angle.sin()], [-angle.sin(), angle.cos()]])
    return torch.from_numpy(np.array(pixels)) / 255, lambda points: (points - centre) @ rotation.T + centre


@pytest.mark.parametrize("degrees", [45.0, 80.0, 120.0, 180.0, 200.0, 300.0])
def test_a_turned_photo_gives_the_turned_face(astronaut, degrees):
    image, move = turned(astronaut, degrees)
    detection = detect(image, closer=True)
    assert len(detection) == 1
    upright = detect(astronaut)[0]
    size = (upright.amax(0) - upright.amin(0)).max()
    assert (detection[0] - move(upright)).norm(dim=1).mean() < 0.03 * size


def test_a_face_that_is_not_found_again_is_not_used(astronaut, monkeypatch):
    """The detector reports a face, which the crop turned upright by its eye line does not show."""
    points = detect(astronaut)[0]
    whole = astronaut.shape[0]
    monkeypatch.setattr(
        landmarks, "_points", lambda pixels, most=5: points[None] if len(pixels) == whole else torch.zeros(0, 478, 2)
    )
    assert len(detect(astronaut)) == 0


def test_profiles_are_found_at_their_place_or_not_at_all(real_asset):
    """Of 15 profiles the detector alone puts 3 faces on an ear or a hat."""
    wrong = ("image00032.jpg", "image00339.jpg", "image02612.jpg")
    profiles = [sample for sample in read_aflw2000(real_asset("aflw2000-3d")) if abs(sample.yaw) > np.pi / 3]
    profiles = [sample for k, sample in enumerate(profiles) if k % 12 == 0 or sample.photo.name in wrong]
    found = 0
    for sample in profiles:
        detection = detect(sample.image())
        if len(detection):
            found += 1
            low, high = sample.landmarks.amin(0), sample.landmarks.amax(0)
            error = (to_68(detection[0]) - sample.landmarks)[17:].norm(dim=1).mean()
            assert error < 0.15 * (high - low).prod().sqrt()
    assert found >= 3


def test_five_points_bring_the_face_onto_the_template(astronaut):
    points = detect(astronaut)[0]
    crop = crop_faces(astronaut[None], five_points(points)[None], (224, 224))[0] / 255
    expected = align(five_points(points)[None], 2 * template((112, 112))[None])[0]
    again = five_points(detect(crop)[0])
    assert (again - expected).norm(dim=1).max() < 3  # pixels of the crop


def test_it_says_nothing_on_the_terminal(real_asset, astronaut):
    """The C++ library writes to the descriptor itself, at the start and at the end of the process."""
    code = "import torch; from facenb.photos.landmarks import detect; print(len(detect(torch.rand(99, 99, 3))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_a_search_for_small_faces_changes_no_large_one(real_asset):
    """The face fills less than 40 % of the photo, so parts of the photo are searched too."""
    image = read_image(real_asset("astronaut") / "astronaut.png")
    assert torch.equal(detect(image, closer=True)[0], detect(image)[0])
