"""The losses against closed forms."""

import pytest
import torch

from facenb.fitting.posed import PosedModel, own_layout, pose_of, whitening
from facenb.imaging.camera import WeakPerspective, euler_to_matrix
from facenb.losses import (
    coefficient_loss,
    contrastive_loss,
    effect_loss,
    feature_identity_loss,
    joint_loss,
    shape_loss,
    vdc,
    wpdc,
)
from facenb.losses.luo19 import wpdc_weights
from facenb.morphable.model import Embedding, MorphableModel


def test_coefficient_loss_is_the_square_of_an_even_offset():
    target = torch.randn(5, 7)
    assert coefficient_loss(target + 0.5, target).item() == pytest.approx(0.25, rel=1e-5)


def test_shape_loss_is_the_squared_length_of_an_even_offset():
    target = torch.randn(3, 11, 3)
    offset = torch.tensor([1.0, 2.0, -2.0])  # 3 mm long
    assert shape_loss(target + offset, target).item() == pytest.approx(9.0, rel=1e-5)


def test_shape_loss_is_the_mean_over_vertices_and_pictures():
    target = torch.zeros(2, 10, 3)
    predicted = target.clone()
    predicted[0, 0, 1] = 4.0  # one vertex of twenty, 4 mm off
    assert shape_loss(predicted, target).item() == pytest.approx(16 / 20)


@pytest.mark.parametrize("loss", [coefficient_loss, effect_loss])
def test_no_picture_is_no_loss(loss):
    shape = (0, 4) if loss is coefficient_loss else (0, 4, 3)
    none = torch.zeros(shape, requires_grad=True)
    value = loss(torch.zeros(shape), none)
    value.backward()
    assert value.item() == 0 and none.grad.shape == none.shape


def test_joint_loss_weighs_the_reconstruction():
    assert joint_loss(torch.tensor(3.0), torch.tensor(5.0), 0.5).item() == 6.5


class TestLuo19:
    """Against brute force, one coefficient moved at a time, and closed forms."""

    @pytest.fixture
    def given(self):
        """A face, whitened predictions and targets."""
        g = torch.Generator().manual_seed(3)
        model = MorphableModel(
            "random",
            40 * torch.randn(30, 3, generator=g),
            torch.tensor([[0, 1, 2]]),
            torch.randn(5, 30, 3, generator=g),
            torch.randn(3, 30, 3, generator=g),
            Embedding.at([0]),
        )
        camera = WeakPerspective(
            euler_to_matrix(torch.rand(50, 3, generator=g) - 0.5),
            0.5 + torch.rand(50, generator=g),
            60 * torch.rand(50, 2, generator=g),
        )
        flat = torch.cat([pose_of(camera), torch.randn(50, 8, generator=g)], 1)
        face = PosedModel(model, own_layout(model), *whitening(flat))
        target = face.whiten(flat[:7])
        return face, target + 0.3 * torch.randn(target.shape, generator=g), target

    def test_weights_against_moving_one_coefficient_at_a_time(self, given):
        face, predicted, target = given
        expected = torch.empty_like(target)
        for k in range(target.shape[1]):
            alone = target.clone()
            alone[:, k] = predicted[:, k]
            expected[:, k] = (face(face.flat(alone)) - face(face.flat(target))).flatten(1).norm(dim=1)
        torch.testing.assert_close(wpdc_weights(predicted, target, face), expected, rtol=1e-3, atol=1e-2)

    def test_wpdc_is_the_weighted_square_with_the_largest_weight_one(self, given):
        face, predicted, target = given
        weights = wpdc_weights(predicted, target, face)
        weights = weights / weights.max(1, keepdim=True).values
        expected = (weights * (predicted - target) ** 2).sum() / len(target)
        torch.testing.assert_close(wpdc(predicted, target, face), expected)

    def test_wpdc_takes_its_weights_for_constant(self, given):
        face, predicted, target = given
        weights = wpdc_weights(predicted, target, face)
        weights = weights / weights.max(1, keepdim=True).values
        predicted = predicted.requires_grad_()
        wpdc(predicted, target, face).backward()
        torch.testing.assert_close(predicted.grad, (2 * weights * (predicted - target) / len(target)).detach())

    def test_wpdc_of_the_target_is_zero_with_a_finite_gradient(self, given):
        face, _, target = given
        predicted = target.clone().requires_grad_()
        value = wpdc(predicted, target, face)
        value.backward()
        assert value.item() == 0 and not predicted.grad.any()

    def test_vdc_of_a_shift_is_its_square(self, given):
        face, _, target = given
        flat = face.flat(target)
        flat[:, 3] += 3.0  # t_u, pixels
        flat[:, 7] -= 4.0
        assert vdc(face.whiten(flat), target, face).item() == pytest.approx(25.0, rel=1e-4)

    def test_vdc_sees_what_the_picture_shows(self, given):
        """Twice the scale, twice the error of a shape in pixels: four times the cost."""
        face, _, target = given
        costs = []
        for scale in (1.0, 2.0):
            flat = face.flat(target)
            flat[:, :12] *= scale
            other = flat.clone()
            other[:, 13] += 1.0
            costs.append(vdc(face.whiten(other), face.whiten(flat), face).item())
        assert costs[1] == pytest.approx(4 * costs[0], rel=1e-3)

    def test_contrastive_loss_by_hand(self):
        first = torch.zeros(4, 2)
        second = torch.tensor([[3.0, 4.0], [3.0, 4.0], [0.6, 0.8], [0.0, 0.0]])
        same = torch.tensor([True, False, False, False])
        # d = 5 pulled: 25; 5 apart with margin 3: 0; 1 apart: 4; alike: 9
        assert contrastive_loss(first, second, same, 3.0).item() == pytest.approx((25 + 0 + 4 + 9) / 4, rel=1e-4)

    def test_contrastive_loss_pulls_and_pushes_and_is_finite_where_codes_are_alike(self):
        first = torch.zeros(3, 2, requires_grad=True)
        second = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
        contrastive_loss(first, second, torch.tensor([True, False, False]), 2.0).backward()
        assert first.grad[0, 0] < 0 < first.grad[1, 0] and first.grad.isfinite().all()

    def test_feature_identity_loss_counts_one_person_only(self):
        first, second = torch.zeros(3, 4), torch.tensor([[2.0] * 4, [100.0] * 4, [4.0] * 4])
        same = torch.tensor([True, False, True])
        assert feature_identity_loss(first, second, same).item() == pytest.approx((4 + 16) / 2)

    @pytest.mark.parametrize("loss", [wpdc_weights, wpdc, vdc])
    def test_sixteen_bit_trainings_compute_it_in_full_precision(self, given, loss):
        face, _, target = given
        predicted = target + 1e-3
        with torch.autocast("cpu", torch.bfloat16):
            found = loss(predicted, target, face)
        assert torch.equal(found, loss(predicted, target, face))

    @pytest.mark.parametrize("loss", [wpdc_weights, wpdc, vdc])
    def test_sixteen_bit_vectors_are_taken_in_full_precision(self, given, loss):
        face, predicted, target = given
        low = predicted.bfloat16(), target.bfloat16()
        assert torch.equal(loss(*low, face), loss(low[0].float(), low[1].float(), face))

    @pytest.mark.parametrize("loss", [wpdc, vdc])
    def test_no_picture_is_no_loss(self, given, loss):
        face, _, target = given
        none = target[:0].clone().requires_grad_()
        value = loss(none, target[:0], face)
        value.backward()
        assert value.item() == 0 and none.grad.shape == none.shape

    @pytest.mark.parametrize("loss", [lambda *pairs: contrastive_loss(*pairs, 1.0), feature_identity_loss])
    def test_no_pair_is_no_loss(self, loss):
        none = torch.zeros(0, 4, requires_grad=True)
        value = loss(none, torch.zeros(0, 4), torch.zeros(0, dtype=torch.bool))
        value.backward()
        assert value.item() == 0 and none.grad.shape == none.shape
