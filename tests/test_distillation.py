"""The distillation loss of Rana against closed forms, and what it refuses."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from facenb.errors import ModelFileError
from facenb.losses import coefficient_spread, distillation_loss, effect_loss
from facenb.morphable.layouts import DECA, DENG, LUO19, Layout
from facenb.networks.deca import Deca
from facenb.networks.joint import JointNetwork
from facenb.networks.sphereface import SphereFace
from facenb.networks.tddfa_v2 import load_mobilenet

TWO = Layout("two", {"large": 1, "small": 2})


def test_plain_loss_is_the_mean_square():
    teacher, learner = torch.zeros(2, 3), torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 2.0]])
    assert distillation_loss(teacher, learner, TWO, TWO).item() == pytest.approx(18 / 6)


def test_divided_loss_counts_every_coefficient_in_its_own_spread():
    teacher, learner = torch.zeros(1, 3), torch.tensor([[200.0, 1.0, 0.5]])
    spread = torch.tensor([100.0, 1.0, 0.25])
    assert distillation_loss(teacher, learner, TWO, TWO, spread).item() == pytest.approx((4 + 1 + 4) / 3)


@given(st.floats(1e-3, 1e3), st.integers(0, 2))
def test_divided_loss_does_not_ask_for_the_unit(factor, index):
    """In another unit a coefficient and its spread change alike; the plain loss changes with it."""
    generator = torch.Generator().manual_seed(index)
    teacher, learner = torch.randn(2, 8, 3, generator=generator, dtype=torch.float64)
    unit = torch.ones(3, dtype=torch.float64)
    unit[index] = factor
    spreads = coefficient_spread(teacher), coefficient_spread(teacher * unit)
    first, second = (
        distillation_loss(teacher * u, learner * u, TWO, TWO, s) for u, s in zip((1, unit), spreads, strict=True)
    )
    assert torch.allclose(first, second)


@pytest.mark.parametrize("spread", [None, torch.tensor([2.0, 0.5, 4.0], dtype=torch.float64)])
def test_gradient_reaches_the_learner_and_not_the_teacher(spread):
    teacher, learner = torch.randn(2, 4, 3, dtype=torch.float64).unbind(0)
    teacher.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: distillation_loss(teacher, x, TWO, TWO, spread), learner.clone().requires_grad_()
    )
    distillation_loss(teacher, learner.clone().requires_grad_(), TWO, TWO, spread).backward()
    assert teacher.grad is None


def test_papers_two_layouts_have_no_difference():
    """The slip in the paper: 257 coefficients of the learner against DECA's 236."""
    with pytest.raises(ValueError, match=r"DECA \(236 .*DENG \(257"):
        distillation_loss(torch.zeros(2, 236), torch.zeros(2, 257), DECA, DENG)


@pytest.mark.parametrize("layout", [DECA, DENG, LUO19], ids=lambda layout: layout.name)
def test_either_layout_serves_both(layout):
    teacher = torch.zeros(2, layout.size)
    assert distillation_loss(teacher, teacher + 3, layout, layout).item() == pytest.approx(9)


def test_same_length_is_not_the_same_layout():
    """62 numbers in another order are another face."""
    other = Layout("turned", {"identity": 40, "expression": 10, "pose": 12})
    with pytest.raises(ValueError, match="LUO19 .*turned"):
        distillation_loss(torch.zeros(2, 62), torch.zeros(2, 62), LUO19, other)


def test_vector_of_another_length_names_the_layout_it_fits():
    with pytest.raises(ValueError, match="the learner's vector is 257 long, the length of DENG"):
        distillation_loss(torch.zeros(2, 236), torch.zeros(2, 257), DECA, DECA)


def test_spread_is_the_standard_deviation():
    teacher = torch.tensor([[1.0, 10.0, 5.0], [3.0, -10.0, 5.0]])
    assert coefficient_spread(teacher).tolist() == [1.0, 10.0, torch.inf]


def test_what_never_moves_counts_for_nothing():
    teacher = torch.tensor([[1.0, 0.0, -66.6670], [3.0, 4.0, -66.6672]])  # the last is rounding of some network
    learner = teacher + torch.tensor([0.0, 0.0, 1e6])
    assert distillation_loss(teacher, learner, TWO, TWO, coefficient_spread(teacher)) == 0


def test_teacher_weights_of_another_kind(tmp_path):
    """A network of one kind is not read as a teacher of another."""
    path = tmp_path / "teacher.pth"
    torch.save(torch.nn.Linear(2, 2).state_dict(), path)
    with pytest.raises(ModelFileError, match="does not hold a MobileNet of 3DDFA-V2"):
        load_mobilenet(path)
    with pytest.raises(ModelFileError, match="not a complete safetensors file"):
        Deca.load(path)
    other = JointNetwork(SphereFace(channels=(2,), units=(0,), features=4, size=(8, 8)), 2, 2, 5)
    with pytest.raises(ModelFileError, match="holds 'JointNetwork 3', not 'Deca 3'"):
        Deca.load(other.save(tmp_path / "other.safetensors", {}))


def test_effect_is_the_mean_distance_of_points():
    teacher, learner = torch.zeros(1, 2, 3), torch.tensor([[[3.0, 4.0, 0.0], [0.0, 0.0, 12.0]]])
    assert effect_loss(teacher, learner).item() == pytest.approx((5 + 12) / 2, abs=0.02)
    assert effect_loss(learner, learner).item() == 0


def test_a_point_far_off_pulls_no_harder_than_one_near():
    learner = torch.tensor([[[1.0, 0.0], [1000.0, 0.0]]], requires_grad=True)
    effect_loss(torch.zeros(1, 2, 2), learner).backward()
    assert learner.grad[0, 0, 0].item() == pytest.approx(learner.grad[0, 1, 0].item(), rel=1e-3)


def test_gradient_of_the_effect_where_nothing_differs():
    """The bare distance has none there, and would give NaN."""
    teacher = torch.randn(2, 5, 3, requires_grad=True)
    learner = teacher.detach().clone().requires_grad_()
    effect_loss(teacher, learner).backward()
    assert teacher.grad is None and (learner.grad == 0).all()
