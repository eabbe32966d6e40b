"""DECA's losses against closed forms."""

import pytest
import torch

from facenb.losses import deca

GENERATOR = torch.Generator().manual_seed(0)
POINTS = torch.rand(2, 68, 2, generator=GENERATOR)


def test_landmarks_moved_by_a_step_cost_it():
    moved = POINTS + torch.tensor([0.3, -0.1])
    assert deca.landmark_loss(moved, POINTS) == pytest.approx(0.2)


def test_parts_do_not_care_where_they_are():
    moved = POINTS.clone()
    moved[:, 48:] += torch.tensor([0.5, 0.2])
    moved[:, :17] -= 0.3
    assert deca.parts_loss(moved, POINTS) == pytest.approx(0, abs=1e-6)


def test_a_landmark_that_leaves_its_part_costs():
    moved = POINTS.clone()
    moved[:, 17, 1] += 0.5  # one of five: 0.4 from the mean, the other four 0.1 each; of 136 numbers
    assert deca.parts_loss(moved, POINTS) == pytest.approx(0.8 / 136)


def test_eye_closure_does_not_care_where_the_eye_is():
    moved = POINTS.clone()
    moved[:, 36:42] += torch.tensor([0.5, 0.2])
    assert deca.eye_closure_loss(moved, POINTS) == pytest.approx(0, abs=1e-6)


def test_closing_one_eye_costs_by_how_much():
    moved = POINTS.clone()
    moved[:, [37, 38], 1] += 0.4  # two of four pairs, one of two coordinates
    assert deca.eye_closure_loss(moved, POINTS) == pytest.approx(0.1)


def test_colours_off_the_skin_do_not_count():
    image = torch.rand(1, 4, 4, 3, generator=GENERATOR)
    rendered, mask = image + 5.0, torch.zeros(1, 4, 4, dtype=torch.bool)
    rendered[0, 1, 2] = image[0, 1, 2] + torch.tensor([0.1, 0.2, 0.3])
    mask[0, 1, 2] = True
    assert deca.photometric_loss(rendered, image, mask) == pytest.approx(0.2, abs=1e-6)
    assert deca.photometric_loss(rendered, image, torch.zeros_like(mask)) == 0


def test_an_even_difference_over_the_skin_is_not_local():
    image = torch.rand(1, 12, 12, 3, generator=GENERATOR)
    mask = torch.zeros(1, 12, 12, dtype=torch.bool)
    mask[0, 2:10, 3:11] = True
    brighter = image + torch.tensor([0.2, 0.1, -0.1])
    assert deca.local_photometric_loss(brighter, image, mask, 5, 1) == pytest.approx(0, abs=1e-6)
    assert deca.local_photometric_loss(brighter, image, torch.zeros_like(mask), 5, 1) == 0


def test_one_wrong_pixel_costs_itself_and_its_neighbours_mean():
    image, mask = torch.zeros(1, 9, 9, 3), torch.ones(1, 9, 9, dtype=torch.bool)
    wrong = image.clone()
    wrong[0, 4, 4] = 0.9
    expected = (0.9 - 0.1 + 8 * 0.1) / 81  # its 3 x 3 neighbourhood has mean 0.1
    assert deca.local_photometric_loss(wrong, image, mask, 3, 1) == pytest.approx(expected)


def test_a_checkerboard_is_grain():
    image, mask = torch.zeros(1, 20, 20, 3), torch.ones(1, 20, 20, dtype=torch.bool)
    noisy = image + ((torch.arange(20)[:, None] + torch.arange(20)) % 2 - 0.5)[None, ..., None]
    at_all = deca.local_photometric_loss(noisy, image, mask, 11, 1)
    assert deca.local_photometric_loss(noisy, image, mask, 11, 3) < 0.2 * at_all


def test_identity_is_a_direction():
    one, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 3.0**0.5]])
    assert deca.identity_loss(5 * one, one) == pytest.approx(0, abs=1e-6)
    assert deca.identity_loss(one, other) == pytest.approx(0.5)


def test_a_symmetric_map_costs_nothing():
    left = torch.rand(2, 6, 3, generator=GENERATOR)
    assert deca.symmetry_loss(torch.cat([left, left.flip(-1)], -1)) == 0
    ramp = torch.tensor([[[0.0, 1.0, 2.0, 3.0]]])
    assert deca.symmetry_loss(ramp) == pytest.approx((3 + 1 + 1 + 3) / 4)


def test_displacements_and_coefficients_cost_their_size():
    assert deca.regularisation_loss(torch.tensor([[[-1.0, 3.0]]])) == pytest.approx(2)
    assert deca.prior_loss(torch.tensor([[1.0, -3.0]])) == pytest.approx(5)


def test_no_coefficients_cost_nothing():
    """As the albedo of a model without one."""
    none = torch.zeros(3, 0, requires_grad=True)
    value = deca.prior_loss(none)
    value.backward()
    assert value.item() == 0 and none.grad.shape == (3, 0)


@pytest.mark.parametrize(
    ("loss", "shapes"),
    [
        (deca.landmark_loss, [(68, 2)] * 2),
        (deca.eye_closure_loss, [(68, 2)] * 2),
        (deca.parts_loss, [(68, 2)] * 2),
        (deca.identity_loss, [(5,)] * 2),
        (deca.prior_loss, [(5,)]),
        (deca.symmetry_loss, [(4, 4)]),
        (deca.regularisation_loss, [(4, 4)]),
        (deca.photometric_loss, [(12, 12, 3)] * 2 + [(12, 12)]),
        (deca.local_photometric_loss, [(12, 12, 3)] * 2 + [(12, 12)]),
    ],
    ids=lambda found: getattr(found, "__name__", ""),
)
def test_no_pictures_cost_nothing_and_teach_nothing(loss, shapes):
    """A mean of nothing is NaN, and a step on NaN spoils every weight."""
    weight = torch.ones((), requires_grad=True)
    given = [torch.zeros(0, *shape) for shape in shapes]
    cost = loss(weight * given[0], *given[1:2], *(mask.bool() for mask in given[2:]))
    cost.backward()
    assert cost == 0 and weight.grad == 0
