"""NME against closed forms, bins at their edges, misses counted and never averaged away."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from facenb.errors import LandmarkError
from facenb.evaluation.landmarks import bootstrap_mean_of_bins, box_size, by_yaw, nme


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


def test_mean_is_of_the_bins_not_of_the_faces():
    yaw = torch.tensor([0.0, 5.0, -10.0, 45.0, -80.0]).deg2rad()
    table = by_yaw(torch.tensor([0.01, 0.02, 0.03, 0.05, 0.12]), yaw)
    assert table.bins == pytest.approx((0.02, 0.05, 0.12))
    assert table.mean == pytest.approx((0.02 + 0.05 + 0.12) / 3)
    assert table.percent()[-1] == pytest.approx(100 * 0.19 / 3)


def test_edges_belong_to_the_lower_bin_and_over_90_to_the_last():
    yaw = torch.tensor([30.0, -30.0, 30.01, 60.0, 60.01, 90.0, 97.0]).deg2rad()
    assert by_yaw(torch.ones(7), yaw).counts == (2, 2, 3)


def test_misses_are_counted_and_not_averaged():
    yaw = torch.tensor([0.0, 10.0, 45.0, 70.0, 80.0]).deg2rad()
    table = by_yaw(torch.tensor([0.02, math.nan, 0.04, 0.06, math.nan]), yaw)
    assert (table.counts, table.missed) == ((1, 1, 1), (1, 0, 1))
    assert table.bins == pytest.approx((0.02, 0.04, 0.06))


def test_a_bin_with_misses_only_is_nan_and_so_is_the_mean():
    table = by_yaw(torch.tensor([0.02, 0.04, math.nan]), torch.tensor([0.0, 45.0, 80.0]).deg2rad())
    assert math.isnan(table.bins[2]) and math.isnan(table.mean)


def test_interval_covers_the_mean_and_shrinks_with_more_faces():
    generator = torch.Generator().manual_seed(0)
    widths = []
    for count in (90, 2250):
        errors = 0.03 + 0.01 * torch.rand(count, generator=generator)
        yaw = torch.tensor([0.0, 45.0, 80.0]).deg2rad().repeat(count // 3)
        low, high = bootstrap_mean_of_bins(errors, yaw)
        assert low < by_yaw(errors, yaw).mean < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 3  # the standard error goes with 1 / sqrt(n): a fifth
