"""Occluders: what they hide, where, and that seeds mean the same in any batch."""

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from facenb.errors import ImageError, LandmarkError
from facenb.imaging.drawing import capsule, cover, lens, pixel_centres, polygon
from facenb.imaging.occlusion import KINDS, hidden_share, occlude

kinds = pytest.mark.parametrize("kind", KINDS)


def landmarks(size=112, yaw=0.0, roll=0.0, shift=(0.0, 0.0)):
    """68 points of a schematic face, 60 % of the picture wide, turned in depth and in the image."""
    jaw = [(-70 * math.cos(a), 70 * math.sin(a) - 5, -60 + 60 * math.sin(a)) for a in np.linspace(0, math.pi, 17)]
    brows = [(s * x, -30, 20) for s, xs in ((-1, (55, 45, 36, 26, 15)), (1, (15, 26, 36, 45, 55))) for x in xs]
    nose = [(0, y, 45 + k * 5) for k, y in enumerate((-18, -6, 5, 16))] + [(x, 22, 45) for x in (-14, -7, 0, 7, 14)]
    eyes = [(c + x, -15 + y, 25) for c in (-30, 30) for x, y in ((-15, 0), (-6, -5), (6, -5), (15, 0), (6, 5), (-6, 5))]
    around = np.linspace(math.pi, -math.pi, 13)[:12]
    lips = [(25 * math.cos(a), 42 - 8 * math.sin(a), 40) for a in around]
    lips += [(18 * math.cos(a), 42 - 3 * math.sin(a), 40) for a in np.linspace(math.pi, -math.pi, 9)[:8]]
    points = torch.tensor([*jaw, *brows, *nose, *eyes, *lips])
    x = points[:, 0] * math.cos(yaw) + points[:, 2] * math.sin(yaw)
    y = points[:, 1]
    turned = torch.stack([x * math.cos(roll) + y * math.sin(roll), y * math.cos(roll) - x * math.sin(roll)], -1)
    return (turned * size * 0.6 / 140 + size / 2 + torch.tensor(shift))[None]


def picture(batch=1, size=112):
    return torch.rand(batch, size, size, 3, generator=torch.Generator().manual_seed(5))


@kinds
@pytest.mark.parametrize(("yaw", "roll"), [(0, 0), (0.8, 0.0), (-1.2, 0.3), (0.0, 2.5)])
def test_pixels_change_where_the_mask_says_and_the_face_stays_recognisable(kind, yaw, roll):
    image, points = picture(), landmarks(yaw=yaw, roll=roll)
    occluded, mask = occlude(image, points, kind, seed=3)
    assert occluded.shape == image.shape and mask.shape == image.shape[:3]
    assert 0 <= occluded.min() and occluded.max() <= 1 and occluded.isfinite().all()
    changed = (occluded - image).abs().amax(-1)
    assert (changed[mask] > 1e-3).float().mean() > 0.98
    far = torch.nn.functional.max_pool2d(mask[:, None].float(), 25, 1, 12)[:, 0] == 0  # beyond shadow and soft edge
    if kind not in ("glasses", "sunglasses"):
        assert changed[far].max() == 0
    assert 0 < hidden_share(mask, points)[0] < 0.9


@pytest.mark.parametrize(
    ("kind", "hides", "leaves"),
    [
        ("mask", [33, 48, 51, 54, 57, 62], [19, 24, 36, 39, 42, 45, 27]),
        ("sunglasses", [37, 38, 40, 41, 43, 44, 46, 47], [33, 48, 54, 57, 8]),
        ("glasses", [], [37, 40, 43, 46, 33, 48, 54, 8]),  # one looks through the lenses
    ],
)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("yaw", "roll"), [(0, 0), (0.6, 0.2), (-0.6, -0.4)])
def test_what_each_hides(kind, hides, leaves, seed, yaw, roll):
    points = landmarks(224, yaw, roll)
    _, mask = occlude(picture(size=224), points, kind, seed)
    column, row = points[0].long().unbind(-1)
    assert mask[0, row[hides], column[hides]].all()
    assert not mask[0, row[leaves], column[leaves]].any()


@pytest.mark.parametrize(("kind", "draw"), [("hand", 4), ("blocks", 3)])
def test_hand_and_first_block_cover_the_landmark_that_their_seed_draws(kind, draw):
    for seed in range(9):
        points = landmarks()
        landmark = int(torch.rand(24, generator=torch.Generator().manual_seed(seed))[draw] * 68)
        _, mask = occlude(picture(), points, kind, seed, most=1.0)
        column, row = points[0, landmark].long()
        assert mask[0, row - 1 : row + 2, column - 1 : column + 2].all()


@kinds
def test_a_seed_means_the_same_in_any_batch_order_and_size(kind):
    images = picture(4)
    points = torch.cat([landmarks(yaw=y, shift=(3.0 * y, 0)) for y in (0, 0.5, -0.5, 1)])
    whole, masks = occlude(images, points, kind, seed=10)
    again, _ = occlude(images, points, kind, seed=10)
    assert torch.equal(whole, again)
    mixed, _ = occlude(images[[2, 0]], points[[2, 0]], kind, seed=[12, 10])
    torch.testing.assert_close(mixed, whole[[2, 0]], atol=1e-5, rtol=0)
    other, _ = occlude(images, points, kind, seed=11)
    assert (other - whole).abs().max() > 0.05
    assert not torch.equal(whole, images)


@kinds
def test_arguments_and_the_global_random_state_are_left_alone(kind):
    image, points = picture(), landmarks()
    before, state = (image.clone(), points.clone()), torch.get_rng_state()
    occlude(image, points, kind)
    assert (
        torch.equal(image, before[0]) and torch.equal(points, before[1]) and torch.equal(state, torch.get_rng_state())
    )


@pytest.mark.parametrize("kind", ["hand", "sunglasses", "mask", "blocks"])  # small glasses have longer temples
def test_larger_hides_more(kind):
    counts = [occlude(picture(), landmarks(), kind, 4, size=s, most=1.0)[1].sum() for s in (0.5, 0.8, 1.2)]
    assert counts[0] < counts[1] < counts[2]


@kinds
def test_twice_the_picture_is_twice_the_occluder(kind):
    small, large = (occlude(picture(size=s), landmarks(s), kind, 7, most=1.0)[1].float() for s in (112, 224))
    reduced = torch.nn.functional.avg_pool2d(large[:, None], 2)[:, 0]
    assert (reduced - small).abs().mean() < 0.02


@pytest.mark.parametrize("turn", [0.4, 1.5, -2.0])
def test_it_turns_with_the_face(turn):
    """A face rotated in the image wears its mask rotated: compared by where the rotated pixels are hidden."""
    upright = occlude(picture(size=160), landmarks(160), "mask", 1)[1][0].float()
    rolled = occlude(picture(size=160), landmarks(160, roll=turn), "mask", 1)[1][0].float()
    matrix = torch.tensor([[math.cos(turn), -math.sin(turn), 0], [math.sin(turn), math.cos(turn), 0]])[None]
    grid = torch.nn.functional.affine_grid(matrix, [1, 1, 160, 160], align_corners=False)
    turned = torch.nn.functional.grid_sample(upright[None, None], grid, align_corners=False)[0, 0]
    assert (turned - rolled).abs().mean() < 0.02


def test_blocks_take_arbitrary_values():
    flat = noisy = 0
    for seed in range(20):
        image, mask = occlude(torch.full((1, 64, 64, 3), 0.5), landmarks(64), "blocks", seed)
        spread = image[mask].std(0).mean()
        flat, noisy = flat + (spread < 1e-6), noisy + (spread > 0.2)
        assert (image[~mask] == 0.5).all()
    assert flat and noisy


def test_a_face_that_would_be_gone_is_an_error_with_its_number():
    images, points = picture(2), torch.cat([landmarks(), landmarks()])
    with pytest.raises(ImageError, match=r"image \d: the hand would hide \d+% of the face, more than 90%.*size=9"):
        occlude(images, points, "hand", size=9.0)
    _, mask = occlude(images, points, "hand", size=9.0, most=1.0)
    assert (hidden_share(mask, points) > 0.9).any()


@pytest.mark.parametrize("flaw", ["nan", "alike"])
def test_landmarks_that_are_none(flaw):
    points = torch.cat([landmarks(), landmarks()])
    points[1] = math.nan if flaw == "nan" else 7.0
    with pytest.raises(LandmarkError, match=r"images \[1\]: the landmarks are not finite or all equal"):
        occlude(picture(2), points, "mask")


@pytest.mark.parametrize(
    ("image", "points", "error", "message"),
    [
        (picture().byte(), landmarks(), ValueError, "expected float images, .* got torch.uint8"),
        (picture(), landmarks()[:, :5], LandmarkError, "the 68 points in iBUG order"),
        (picture(2), landmarks(), LandmarkError, r"\(2, 68, 2\), got \(1, 68, 2\)"),
    ],
)
def test_bytes_and_other_landmarks_are_refused(image, points, error, message):
    with pytest.raises(error, match=message):
        occlude.__wrapped__(image, points, "hand")


@kinds
def test_faces_at_the_edge_and_tiny_pictures(kind):
    for size, shift in ((112, (-60.0, 40.0)), (112, (300.0, 0.0)), (8, (0.0, 0.0))):
        image, mask = occlude(picture(size=size), landmarks(size, shift=shift), kind, seed=1, most=1.0)
        assert image.isfinite().all() and mask.shape == (1, size, size)


def test_polygon_against_pillow():
    corners = torch.tensor([[[5.0, 4], [40, 10], [30, 25], [44, 45], [12, 38], [20, 20]]])
    drawn = Image.new("1", (480, 480))
    ImageDraw.Draw(drawn).polygon([tuple(p) for p in (corners[0] * 10).tolist()], fill=1)
    expected = torch.tensor(np.array(drawn), dtype=torch.float32).view(48, 10, 48, 10).mean((1, 3))
    found = cover(polygon(pixel_centres((48, 48), corners), corners))[0]
    assert (found - expected).abs().max() < 0.3 and (found - expected).abs().mean() < 0.01


def test_capsule_and_lens_by_hand():
    points = torch.tensor([[[3.0, 10.0, 5.0]], [[4.0, 0.0, 0.0]]])  # (3, 4), (10, 0), (5, 0)
    distance, share = capsule(points, torch.zeros(1, 2), torch.tensor([[6.0, 0.0]]))
    torch.testing.assert_close(distance[0, 0], torch.tensor([4.0, 4.0, 0.0]))
    torch.testing.assert_close(share[0, 0], torch.tensor([0.5, 1.0, 5 / 6]))
    axes = torch.tensor([[5.0, 0.0]]), torch.tensor([[0.0, 5.0]])
    circle = lens(points, torch.zeros(1, 2), *axes, torch.tensor([2.0]))
    torch.testing.assert_close(circle[0, 0], torch.tensor([0.0, 5.0, 0.0]), atol=1e-3, rtol=0)
