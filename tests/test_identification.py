"""One against many: every figure against brute force over the whole table of scores, in whatever blocks it is made."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_curve, top_k_accuracy_score

from facenb.evaluation.identification import identify
from facenb.evaluation.recognition import cosine


def some_search(seed: int = 0, people: int = 30, known: int = 20, probes: int = 60, each: int = 1):
    """A gallery of the first `known` people, `each` templates a person in mixed order, and probes of all people."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(people, 6, generator=generator)
    owner = torch.arange(known).repeat_interleave(each)[torch.randperm(known * each, generator=generator)] + 100
    asked = torch.randint(0, people, (probes,), generator=generator) + 100
    gallery, probe = (centre[who - 100] + 0.7 * torch.randn(len(who), 6, generator=generator) for who in (owner, asked))
    return gallery * (1 + torch.rand(len(owner), 1, generator=generator)), owner, probe, asked


def table(gallery, owner, probe):
    """Best score of every probe with every person: (probes, people), and the people."""
    scores = torch.stack([cosine(one.expand_as(gallery), gallery) for one in probe])
    names = owner.unique()
    return torch.stack([scores[:, owner == name].amax(1) for name in names], 1), names


@pytest.mark.parametrize("each", [1, 3])
def test_ranks_are_those_of_the_whole_table(each):
    gallery, owner, probe, asked = some_search(each=each)
    found, (scores, names) = identify(gallery, owner, probe, asked), table(gallery, owner, probe)
    assert found.people == len(names) and torch.equal(found.mated, torch.isin(asked, names))
    for row in range(len(probe)):
        own = (names == asked[row]).nonzero()[:, 0]
        if len(own):
            order = scores[row].argsort(descending=True).tolist()
            assert found.rank[row] == order.index(int(own)) + 1
            torch.testing.assert_close(found.genuine[row], scores[row, own[0]])
        else:
            assert found.rank[row] == 0 and found.genuine[row].isnan()
        others = scores[row][names != asked[row]]
        torch.testing.assert_close(found.other[row], others.max())


def test_rank_rates_are_scikit_learns_top_k():
    gallery, owner, probe, asked = some_search()
    found, (scores, names) = identify(gallery, owner, probe, asked), table(gallery, owner, probe)
    for rank in (1, 5, 10):
        expected = top_k_accuracy_score(asked[found.mated], scores[found.mated], k=rank, labels=names)
        assert found.rank_rate(rank) == pytest.approx(expected)
    assert found.rank_rate(found.people) == 1.0


@pytest.mark.parametrize("far", [0.0, 0.05, 0.1, 0.5, 1.0])
def test_the_open_set_rate_is_the_best_of_all_thresholds_that_keep_it(far):
    """As a ROC of scikit-learn: strangers by their best score, known probes by their own where it is the first."""
    found = identify(*some_search(seed=4, probes=300))
    first = torch.where(found.rank == 1, found.genuine, -9.0)[found.mated]
    scores, kind = torch.cat([first, found.other[~found.mated]]), torch.arange(300) < len(first)
    false, true, cuts = roc_curve(kind, scores, drop_intermediate=False)
    # At FAR 1 everything is accepted, but a wrong person in front stays wrong.
    kept = (false <= far) & (cuts > -9.0)
    assert found.dir_at(far) == pytest.approx(true[kept].max())


def test_three_strangers_of_three_hundred_are_one_per_cent():
    probe_person = torch.cat([torch.zeros(10), torch.full((300,), 9)]).long()
    # Of ten known probes five are at 60 degrees; strangers are at 90, but for three at 45.
    angles = torch.deg2rad(torch.cat([torch.full((5,), 60.0), torch.zeros(5), torch.full((3,), 45.0)]))
    probe = torch.cat([torch.stack([angles.cos(), angles.sin()], 1), torch.tensor([[0.0, 1.0]]).expand(297, 2)])
    found = identify(torch.tensor([[2.0, 0.0], [-1.0, 0.0]]), torch.tensor([0, 1]), probe, probe_person)
    assert (found.dir_at(0.01), found.dir_at(2.9 / 300), found.dir_at(0.0)) == (1.0, 0.5, 0.5)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 4000), st.integers(1, 2))
def test_blocks_change_nothing(block, each):
    search = some_search(seed=2, each=each)
    whole, parts = identify(*search), identify(*search, block=block)
    assert torch.equal(whole.rank, parts.rank)
    torch.testing.assert_close(whole.other, parts.other)


def test_features_that_say_nothing_find_nobody():
    """All scores alike: the right person must not come first by the luck of the order."""
    found = identify(torch.ones(5, 3), torch.arange(5), torch.ones(4, 3), torch.tensor([0, 2, 4, 7]))
    assert found.rank.tolist() == [5, 5, 5, 0] and found.rank_rate(1) == 0.0 and found.dir_at(0.5) == 0.0


def test_the_table_names_its_rates():
    found = identify(*some_search())
    assert list(found.table().index) == ["rank-1", "rank-5", "rank-10", "DIR at FAR 1%", "DIR at FAR 10%"]
    gallery, owner, probe, asked = some_search()
    closed = identify(gallery, owner, probe[found.mated], asked[found.mated])
    assert list(closed.table().index) == ["rank-1", "rank-5", "rank-10"]
    assert closed.table()["rank-5"] == pytest.approx(found.table()["rank-5"])


class TestBadInput:
    def test_a_missing_feature_is_named_not_skipped(self):
        gallery, owner, probe, asked = some_search()
        for broken, name in ((gallery.clone(), "gallery"), (probe.clone(), "probe")):
            broken[3] = math.nan
            broken[7] = 0.0
            search = (broken, owner, probe, asked) if name == "gallery" else (gallery, owner, broken, asked)
            with pytest.raises(ValueError, match=rf"{name} feature 3 has no direction.*\(2 such\)"):
                identify(*search)

    def test_nobody_to_search(self):
        gallery, owner, probe, asked = some_search()
        with pytest.raises(ValueError, match="the gallery has 0 features"):
            identify(gallery[:0], owner[:0], probe, asked)

    def test_no_known_probe_and_no_stranger(self):
        gallery, owner, probe, asked = some_search()
        assert math.isnan(identify(gallery, owner, probe, asked + 1000).rank_rate())
        known = identify(gallery, owner, gallery, owner)
        with pytest.raises(ValueError, match="needs probes of other people"):
            known.dir_at(0.1)
