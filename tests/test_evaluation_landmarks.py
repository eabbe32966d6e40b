"""NME against closed forms, bins at their edges, misses counted and never averaged away."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation
from scipy.stats import ecdf

from facenb.errors import LandmarkError
from facenb.evaluation.claims import bootstrap
from facenb.evaluation.landmarks import (
    box_size,
    by_yaw,
    cumulative_curve,
    mean_of_bins,
    nme,
    posed_landmarks,
    yaw_bin,
)
from facenb.imaging.camera import WeakPerspective, euler_to_matrix


def faces(count: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 68, 2, generator=generator) * torch.tensor([100.0, 120.0])


def test_box_is_the_square_root_of_width_times_height():
    truth = torch.tensor([[[10.0, 5.0], [30.0, 50.0], [20.0, 20.0]]])
    assert box_size(truth).item() == pytest.approx(math.sqrt(20 * 45))


def test_shift_of_all_points_gives_its_length_over_the_box():
    truth = faces()
    error = nme(truth + torch.tensor([3.0, 4.0]), truth)
    torch.testing.assert_close(error, 5 / box_size(truth))


@settings(deadline=None)
@given(st.floats(0.1, 50), st.floats(-1000, 1000), st.floats(-3.1, 3.1))
def test_nme_does_not_depend_on_the_size_of_the_picture(scale, shift, noise):
    truth = faces()
    predicted = truth + noise
    torch.testing.assert_close(
        nme(predicted * scale + shift, truth * scale + shift), nme(predicted, truth), atol=1e-4, rtol=2e-2
    )


def test_truth_without_area_names_the_face():
    truth = faces()
    truth[2] = truth[2, :1]
    with pytest.raises(LandmarkError, match="face 2"):
        nme(truth, truth)


def test_mean_is_of_the_bins_and_the_mean_of_images_is_another_one():
    yaw = torch.tensor([0.0, 5.0, -10.0, 45.0, -80.0]).deg2rad()
    table = by_yaw(torch.tensor([0.01, 0.02, 0.03, 0.05, 0.12]), yaw)
    assert table.bins == pytest.approx((0.02, 0.05, 0.12))
    assert table.mean == pytest.approx((0.02 + 0.05 + 0.12) / 3)
    assert table.percent()[-1] == pytest.approx(100 * 0.19 / 3)
    assert table.mean_of_images == pytest.approx((0.01 + 0.02 + 0.03 + 0.05 + 0.12) / 5)


def test_edges_belong_to_the_lower_bin_and_over_90_to_the_last():
    yaw = torch.tensor([30.0, -30.0, 30.01, 60.0, 60.01, 90.0, 97.0]).deg2rad()
    assert by_yaw(torch.ones(7), yaw).counts == (2, 2, 3)


def test_misses_are_counted_and_not_averaged():
    yaw = torch.tensor([0.0, 10.0, 45.0, 70.0, 80.0]).deg2rad()
    table = by_yaw(torch.tensor([0.02, math.nan, 0.04, 0.06, math.nan]), yaw)
    assert (table.counts, table.missed) == ((1, 1, 1), (1, 0, 1))
    assert table.bins == pytest.approx((0.02, 0.04, 0.06)) and table.mean_of_images == pytest.approx(0.04)


def test_a_bin_with_misses_only_is_nan_and_so_is_the_mean_of_the_bins_alone():
    table = by_yaw(torch.tensor([0.02, 0.04, math.nan]), torch.tensor([0.0, 45.0, 80.0]).deg2rad())
    assert math.isnan(table.bins[2]) and math.isnan(table.mean)
    assert table.mean_of_images == pytest.approx(0.03)
    assert by_yaw(torch.tensor([0.02, 0.04]), torch.zeros(2)).mean_of_images == pytest.approx(0.03)  # no faces at all
    assert math.isnan(by_yaw(torch.full((1,), math.nan), torch.zeros(1)).mean_of_images)


def test_a_yaw_that_is_not_finite_names_the_face():
    with pytest.raises(LandmarkError, match="face 1"):
        yaw_bin(torch.tensor([0.0, math.nan]))


def test_degrees_are_refused_and_half_a_turn_is_none():
    with pytest.raises(ValueError, match="yaw of face 1 is -45; pass radians"):
        yaw_bin(torch.tensor([0.1, -45.0]))
    assert yaw_bin(torch.tensor([math.pi, -math.pi])).tolist() == [2, 2]


def test_the_statistic_of_the_bins_is_the_tables_mean():
    generator = torch.Generator().manual_seed(3)
    errors, yaw = torch.rand(60, generator=generator), 3.1 * torch.rand(60, generator=generator) - 1.55
    errors[::7] = math.nan
    statistic, people = mean_of_bins(errors, yaw, torch.arange(60) // 4)
    assert people == 15
    assert statistic(np.ones((1, people)))[0] == pytest.approx(by_yaw(errors, yaw).mean, rel=1e-6)
    weights = np.ones((1, people))
    weights[0, [2, 5]] = 3, 0
    drawn = torch.cat([torch.arange(20), torch.arange(24, 60), torch.arange(8, 12).repeat(2)])
    assert statistic(weights)[0] == pytest.approx(by_yaw(errors[drawn], yaw[drawn]).mean, rel=1e-6)


def test_pictures_of_one_person_are_no_independent_evidence():
    """Four copies of each face under the same name: no narrower an interval."""
    errors = torch.rand(60, generator=torch.Generator().manual_seed(1))
    yaw = torch.tensor([0.0, 45.0, 80.0]).deg2rad().repeat(20)
    one = bootstrap(*mean_of_bins(errors, yaw, torch.arange(60)))
    four = bootstrap(*mean_of_bins(errors.repeat(4), yaw.repeat(4), torch.arange(60).repeat(4)))
    assert (four.low, four.high) == pytest.approx((one.low, one.high))


def test_the_cumulative_curve_is_that_of_scipy():
    errors = torch.rand(200, generator=torch.Generator().manual_seed(2), dtype=torch.float32) * 0.2
    curve = cumulative_curve(errors)
    expected = ecdf(errors.double().numpy()).cdf.evaluate(curve.thresholds.numpy())
    np.testing.assert_allclose(curve.share.numpy(), expected)
    assert curve.failures == pytest.approx(float((errors > 0.1).double().mean()))


def test_a_miss_is_never_good_enough():
    """Of ten faces two are missed: the curve ends at 0.8, although all others are good."""
    errors = torch.tensor([0.01] * 8 + [math.nan] * 2)
    curve = cumulative_curve(errors)
    assert (float(curve.share[-1]), curve.missed, curve.failures) == (0.8, 2, pytest.approx(0.2))


def test_area_of_one_error_everywhere():
    """A step at half the width leaves half the area; no error leaves all of it."""
    assert cumulative_curve(torch.full((5,), 0.05)).area == pytest.approx(0.5, abs=0.01)
    assert cumulative_curve(torch.zeros(5)).area == 1


def shape_and_camera(count=3):
    generator = torch.Generator().manual_seed(5)
    points = 60 * torch.randn(count, 40, 3, generator=generator)
    angles = torch.tensor([[0.2, 0.1, -0.3], [-1.4, 0.3, 0.1], [1.0, -0.2, 0.4]])[:count]
    scale, shift = torch.tensor([1.7, 0.4, 3.0]), torch.tensor([[200.0, 210.0], [31.0, 20.0], [800.0, 640.0]])
    camera = WeakPerspective(euler_to_matrix(angles), scale[:count], shift[:count])
    return points, camera


def test_the_pose_of_known_points_places_the_others():
    points, camera = shape_and_camera()
    image = camera.project(points)[..., :2]
    found = posed_landmarks(points[:, :20], image[:, :20], points[:, 20:])
    torch.testing.assert_close(found, image[:, 20:], atol=2e-2, rtol=1e-4)


def test_the_pose_is_the_one_of_least_squares():
    """With noise, against scipy's minimiser over six numbers."""
    points, camera = shape_and_camera(1)
    image = camera.project(points)[..., :2] + 8 * torch.randn(1, 40, 2, generator=torch.Generator().manual_seed(0))
    seen, shape = image[0].double().numpy(), points[0].double().numpy()

    def place(p):
        turned = shape @ Rotation.from_rotvec(p[:3]).as_matrix().T
        return p[3] * turned[:, :2] * [1, -1] + p[4:]

    start = [*Rotation.from_matrix(camera.rotation[0].double().numpy()).as_rotvec(), 1.7, 200.0, 210.0]
    best = least_squares(lambda p: (place(p) - seen).ravel(), start)
    np.testing.assert_allclose(posed_landmarks(points, image, points)[0].numpy(), place(best.x), atol=0.05)


def test_one_shape_serves_many_images_and_misses_stay_misses():
    points, camera = shape_and_camera()
    image = camera.project(points[:1].expand(3, -1, -1))[..., :2]
    image[1, 4] = math.nan
    found = posed_landmarks(points[:1], image, points[:1])
    assert found[1].isnan().all()
    torch.testing.assert_close(found[[0, 2]], image[[0, 2]], atol=2e-2, rtol=1e-4)
    assert posed_landmarks(points[:1], image * math.nan, points[:1]).isnan().all()
