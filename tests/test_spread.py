"""Spread within and between people, against brute force and closed forms."""

import math

import numpy as np
import pytest
import torch

from facenb.evaluation.spread import ratio_of, within_and_between

PERSON = torch.tensor([7, 3, 7, 5, 3, 7, 9, 3])  # 5 and 9 have one picture


@pytest.fixture
def codes():
    return torch.randn(len(PERSON), 4, generator=torch.Generator().manual_seed(0))


def ratio(codes, person):
    people = within_and_between(codes, person)
    return float(ratio_of(*people)(np.ones((1, len(people[0]))))[0])


def test_variance_and_mean_of_each_person(codes):
    within, mean, count = within_and_between(codes, PERSON)
    for k, name in enumerate((3, 7)):
        own = codes[PERSON == name].double()
        torch.testing.assert_close(within[k], own.var(0, correction=1).sum())
        torch.testing.assert_close(mean[k], own.mean(0))
    assert count.tolist() == [3, 3]


def test_ratio_is_that_of_the_distances_of_very_many_people():
    """People drawn about the origin with a deviation of 2, their pictures about them with 1: sqrt(1 + 4)."""
    random = torch.Generator().manual_seed(0)
    person = torch.arange(20_000).repeat_interleave(2)
    middle = 2 * torch.randn(20_000, 5, generator=random)
    assert ratio(middle[person] + torch.randn(40_000, 5, generator=random), person) == pytest.approx(math.sqrt(5), 0.01)


@pytest.mark.parametrize("pictures", [2, 10])
def test_codes_that_know_nothing_of_people_have_a_ratio_of_one(pictures):
    random = torch.Generator().manual_seed(0)
    person = torch.arange(30_000 // pictures).repeat_interleave(pictures)
    assert ratio(torch.randn(len(person), 8, generator=random), person) == pytest.approx(1, abs=0.01)


def test_a_weight_is_a_person_that_often(codes):
    people = within_and_between(codes, PERSON)
    assert len(people[0]) == 2
    once = PERSON == 3
    person = torch.cat([PERSON, PERSON[once] + 100])  # person 3 once more
    doubled = within_and_between(torch.cat([codes, codes[once]]), person)
    np.testing.assert_allclose(ratio_of(*people)(np.array([[2.0, 1.0]])), ratio_of(*doubled)(np.ones((1, 3))))


def test_scale_and_place_of_the_codes_change_no_ratio(codes):
    assert ratio(3 * codes + 5, PERSON) == pytest.approx(ratio(codes, PERSON))


def test_bad_input(codes):
    with pytest.raises(ValueError, match="not finite"):
        within_and_between(codes / 0, PERSON)
    with pytest.raises(ValueError, match="none of the 8 people has two images"):
        within_and_between(codes, torch.arange(8))
