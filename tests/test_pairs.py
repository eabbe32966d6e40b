"""Pairs for a Siamese network: what a batch holds, and what cannot be drawn."""

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from facenb.datasets.sets.pairs import PairData
from facenb.errors import RunError
from facenb.training import Settings, train
from facenb.training.feed import Data

DEGREE = math.pi / 180


@dataclass(frozen=True)
class Pictures:
    """Pictures whose content is their number."""

    labels: Tensor

    def __len__(self):
        return len(self.labels)

    def load(self, rows, generator=None):
        noise = torch.rand(len(rows), generator=generator)
        return {"picture": rows, "noise": noise}


def crowd(people=12, each=6, seed=0):
    """Pictures and their yaws (radians), people mixed."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(people).repeat(each)[torch.randperm(people * each, generator=generator)]
    return Pictures(labels), (torch.rand(len(labels), generator=generator) * 180 - 90) * DEGREE


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


@given(seed=st.integers(0, 10_000), size=st.integers(2, 40))
@settings(max_examples=40, deadline=None)
def test_a_batch_holds_both_kinds_and_nothing_else(seed, size):
    pictures, yaw = crowd(seed=seed)
    data = PairData(pictures, yaw, 30, 15)
    first, second, same = data.draw(torch.randint(len(data), (size,), generator=draw(seed)), draw(seed))
    turn = (yaw[first] - yaw[second]).abs() / DEGREE
    assert torch.equal(pictures.labels[first] == pictures.labels[second], same)
    assert (turn[same] >= 30 - 1e-3).all() and (turn[~same] <= 15 + 1e-3).all()
    assert int(same.sum()) == (size + 1) // 2


def test_anchors_are_all_that_have_both_partners():
    pictures, yaw = crowd(people=4, each=4, seed=3)
    data = PairData(pictures, yaw, 60, 10)
    turn, same = (yaw[:, None] - yaw).abs() / DEGREE, pictures.labels[:, None] == pictures.labels
    both = (same & (turn >= 60)).any(1) & (~same & (turn <= 10)).any(1)
    assert data.anchors.tolist() == both.nonzero()[:, 0].tolist()


def on_a_grid(step, seed):
    """Yaws in whole steps (degrees), so that many turns are exactly at the limits 30 and 10."""
    generator = torch.Generator().manual_seed(seed)
    yaw = (torch.randint(-90, 91, (40,), generator=generator) / step).round().double() * step
    return Pictures(torch.randint(0, 5, (40,), generator=generator)), yaw


@pytest.mark.parametrize("step", [1, 2.5, 5])
@pytest.mark.parametrize("seed", range(20))
def test_a_turn_exactly_at_a_limit_counts(step, seed):
    pictures, degrees = on_a_grid(step, seed)
    turn, same = (degrees[:, None] - degrees).abs(), pictures.labels[:, None] == pictures.labels
    both = (same & (turn >= 30)).any(1) & (~same & (turn <= 10)).any(1)
    data = PairData(pictures, degrees.float() * DEGREE, 30, 10)
    assert data.anchors.tolist() == both.nonzero()[:, 0].tolist()


@pytest.mark.parametrize("step", [1, 2.5, 5, 1 / 3])
@pytest.mark.parametrize("seed", range(10))
def test_every_anchor_on_a_grid_has_its_pairs(step, seed):
    pictures, degrees = on_a_grid(step, seed)
    data = PairData(pictures, degrees.float() * DEGREE, 30, 10)
    rows = torch.arange(len(data)).repeat_interleave(4)
    first, second, same = data.draw(torch.cat([rows, rows]), draw(seed))
    turn = (degrees[first] - degrees[second]).abs()
    assert torch.equal(pictures.labels[first] == pictures.labels[second], same)
    assert (turn[same] >= 30 - 1e-3).all() and (turn[~same] <= 10 + 1e-3).all()


def test_rows_come_as_first_then_second():
    pictures, yaw = crowd()
    data = PairData(pictures, yaw)
    rows = torch.arange(8)
    first, second, same = data.draw(rows, draw())
    batch = data.load(rows, draw())
    assert torch.equal(batch["picture"], torch.cat([first, second])) and torch.equal(batch["same"], same)
    assert torch.equal(batch["subject"], pictures.labels[batch["picture"]]) and len(batch["noise"]) == 16


def test_the_same_generator_draws_the_same_pairs():
    data, rows = PairData(*crowd()), torch.arange(20)
    batches = [data.load(rows, draw(seed)) for seed in (5, 5, 6)]
    assert torch.equal(batches[0]["picture"], batches[1]["picture"])
    assert not torch.equal(batches[0]["picture"], batches[2]["picture"])


def test_partners_are_drawn_alike():
    """Four equally good partners each: every one comes up a quarter of the time."""
    labels = torch.tensor([0, 0, 0, 0, 0, 1, 2, 3, 4])
    yaw = torch.tensor([0.0, 50, 55, 60, 65, 1, 2, 3, -4]) * DEGREE
    data = PairData(Pictures(labels), yaw, 40, 10)
    assert 0 in data.anchors.tolist()
    rows = torch.full((4000,), data.anchors.tolist().index(0))
    _, second, same = data.draw(rows, draw())
    for kind, wanted in ((same, [1, 2, 3, 4]), (~same, [5, 6, 7, 8])):
        counts = torch.bincount(second[kind], minlength=9)[wanted]
        assert int(counts.sum()) == 2000 and (counts - 500).abs().max() < 80


def test_others_are_found_where_nearly_all_are_the_person_itself():
    """One picture of somebody else among hundreds of one person's."""
    labels = torch.cat([torch.zeros(400, dtype=torch.int64), torch.tensor([1, 1])])
    yaw = torch.cat([torch.linspace(0, 4, 399), torch.tensor([80.0, 2.0, 80.0])]) * DEGREE
    data = PairData(Pictures(labels), yaw, 40, 10)
    first, second, same = data.draw(torch.arange(40), draw())
    assert (data.images.labels[second[~same]] == 1).all() and len(first) == 40


def test_images_without_pairs():
    """One person only, one pose only, nobody else near."""
    pictures, yaw = crowd()
    with pytest.raises(RunError, match="of 1 people"):
        PairData(Pictures(torch.zeros(5, dtype=torch.int64)), torch.linspace(-1, 1, 5))
    with pytest.raises(RunError, match="30 degrees or more"):
        PairData(pictures, 0.01 * yaw)
    with pytest.raises(RunError, match="within 5"):
        PairData(Pictures(torch.tensor([0, 0, 1, 1])), torch.tensor([0.0, 40, 80, -40]) * DEGREE, 30, 5)


def test_rows_given_twice_are_triplets():
    pictures, yaw = crowd()
    first, second, same = PairData(pictures, yaw).draw(torch.arange(9).repeat(2), draw())
    assert torch.equal(first[:9], first[9:]) and same.tolist() == 9 * [True] + 9 * [False]
    assert (second[:9] != second[9:]).all()


def test_a_training_takes_them(tmp_path):
    """The loop owns the order: the same pairs, to the bit, however often it is started."""
    data = PairData(*crowd())
    assert isinstance(data, Data)
    seen = []

    def loss(modules, batch):
        seen.append(batch["picture"].tolist())
        return {"loss": modules["one"](batch["noise"][:, None]).square().mean()}

    mine = Settings(steps=5, batch=8, rate=1e-3)
    for folder in ("a", "b"):
        train({"one": nn.Linear(1, 1)}, loss, data, mine, tmp_path / folder, device="cpu", watch=lambda _: None)
    assert len(seen) == 10 and seen[:5] == seen[5:] and len({tuple(one) for one in seen}) == 5
