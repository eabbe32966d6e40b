"""The losses against closed forms."""

import pytest
import torch

from facenb.losses import coefficient_loss, joint_loss, shape_loss


def test_coefficient_loss_is_the_square_of_an_even_offset():
    target = torch.randn(5, 7)
    assert coefficient_loss(target + 0.5, target).item() == pytest.approx(0.25, rel=1e-5)


def test_coefficient_loss_weighs_long_and_short_codes_alike():
    short, long = torch.zeros(4, 3), torch.zeros(4, 300)
    assert coefficient_loss(short + 2, short) == coefficient_loss(long + 2, long) == 4


def test_shape_loss_is_the_squared_length_of_an_even_offset():
    target = torch.randn(3, 11, 3)
    offset = torch.tensor([1.0, 2.0, -2.0])  # 3 mm long
    assert shape_loss(target + offset, target).item() == pytest.approx(9.0, rel=1e-5)


def test_shape_loss_is_the_mean_over_vertices_and_pictures():
    target = torch.zeros(2, 10, 3)
    predicted = target.clone()
    predicted[0, 0, 1] = 4.0  # one vertex of twenty, 4 mm off
    assert shape_loss(predicted, target).item() == pytest.approx(16 / 20)


def test_shape_loss_does_not_see_a_common_rotation():
    turn, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    predicted, target = torch.randn(2, 6, 9, 3, dtype=torch.float64)
    assert torch.allclose(shape_loss(predicted @ turn, target @ turn), shape_loss(predicted, target))


@pytest.mark.parametrize(("loss", "shape"), [(coefficient_loss, (6, 4)), (shape_loss, (6, 4, 3))])
def test_gradient_is_that_of_a_mean_of_squares(loss, shape):
    predicted, target = torch.randn(2, *shape, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: loss(x, target), predicted.requires_grad_())


@pytest.mark.parametrize(("loss", "shape"), [(coefficient_loss, (6, 4)), (shape_loss, (6, 4, 3))])
def test_pictures_that_do_not_count_are_as_if_they_were_not_there(loss, shape):
    predicted, target = torch.randn(2, *shape)
    counted = torch.tensor([True, False, True, True, False, False])
    predicted.requires_grad_()
    alone = loss(predicted[counted], target[counted])
    target[~counted] = torch.nan
    value = loss(predicted, target, counted)
    assert torch.allclose(value, alone)
    value.backward()
    assert predicted.grad.isfinite().all() and not predicted.grad[~counted].any()


def test_no_picture_that_counts_is_no_loss():
    value = coefficient_loss(torch.ones(3, 2), torch.full((3, 2), torch.nan), torch.zeros(3, dtype=torch.bool))
    assert value.item() == 0


def test_joint_loss_weighs_the_reconstruction():
    assert joint_loss(torch.tensor(3.0), torch.tensor(5.0), 0.5).item() == 6.5


# The run-time checks of the tests would stop these calls before the functions do: they are asked without them.
@pytest.mark.parametrize(("loss", "shape"), [(coefficient_loss, (6, 4)), (shape_loss, (6, 4, 3))])
def test_shapes_that_would_broadcast_are_refused(loss, shape):
    with pytest.raises(ValueError, match="differ in shape"):
        loss.__wrapped__(torch.zeros(shape), torch.zeros(1, *shape[1:]))


def test_a_mask_of_another_length_is_refused():
    with pytest.raises(ValueError, match="counted"):
        coefficient_loss.__wrapped__(torch.zeros(3, 2), torch.zeros(3, 2), torch.ones(1, dtype=torch.bool))
