"""Verification against scikit-learn, against counting by hand, and a threshold that never sees its own fold."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from sklearn.metrics import roc_auc_score, roc_curve

from facenb.evaluation.recognition import (
    MEASURES,
    STRICT_MEASURES,
    Verification,
    area_under_roc,
    best_threshold,
    cosine,
    draw_pairs,
    roc,
    verify,
)


def accuracy(scores, same, threshold):
    return float(((scores.double() >= threshold) == same).double().mean())


def equal_error_rate(scores, same):
    return float(roc(scores, same).equal_error_rate())


def tar_at_far(scores, same, far):
    return float(roc(scores, same).tar_at(far))


def some_pairs(seed: int, count: int = 200, ties: bool = False):
    generator = torch.Generator().manual_seed(seed)
    same = torch.rand(count, generator=generator) < 0.4
    scores = torch.randn(count, generator=generator) + 1.2 * same
    return (scores.round() if ties else scores), same


@pytest.fixture(params=[False, True], ids=["distinct", "ties"])
def pairs(request):
    return some_pairs(5, ties=request.param)


def test_cosine_is_the_angle_and_knows_no_length():
    first, second = torch.tensor([[3.0, 0.0], [1.0, 1.0], [0.0, 2.0]]), torch.tensor([[5.0, 0.0], [1.0, 0], [0.0, -1]])
    torch.testing.assert_close(cosine(first, second), torch.tensor([1.0, math.sqrt(0.5), -1.0]))
    torch.testing.assert_close(cosine(1e-20 * first, 1e15 * second), cosine(first, second))


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_a_feature_without_a_direction_is_named(bad):
    features = torch.ones(3, 2)
    features[1] = bad
    with pytest.raises(ValueError, match="feature 1 has no direction"):
        cosine(torch.ones(3, 2), features)


def test_the_curve_and_its_area_are_those_of_scikit_learn(pairs):
    scores, same = pairs
    curve = roc(scores, same)
    expected = roc_curve(same, scores, drop_intermediate=False)
    for ours, theirs in zip((curve.far, curve.tar, curve.thresholds), expected, strict=True):
        np.testing.assert_allclose(ours, theirs)
    assert area_under_roc(scores, same) == pytest.approx(roc_auc_score(same, scores))


def test_the_equal_error_rate_lies_where_the_curve_of_scikit_learn_meets_the_diagonal(pairs):
    scores, same = pairs
    far, tar, _ = roc_curve(same, scores, drop_intermediate=False)
    # Along the curve's own length, because a vertical step has no value at its rate.
    along = np.arange(len(far))
    meet = brentq(lambda s: np.interp(s, along, far) + np.interp(s, along, tar) - 1, 0, along[-1])
    assert equal_error_rate(scores, same) == pytest.approx(np.interp(meet, along, far))


@pytest.mark.parametrize("far", [0.0, 0.01, 0.1, 0.5, 1.0])
def test_tar_at_far_is_the_best_of_all_thresholds_that_keep_the_rate(pairs, far):
    scores, same = pairs
    best = 0.0
    for threshold in [*scores.tolist(), math.inf]:
        accepted = scores >= threshold
        if (accepted & ~same).sum() <= far * (~same).sum():
            best = max(best, float((accepted & same).sum() / same.sum()))
    assert tar_at_far(scores, same, far) == pytest.approx(best)


def test_three_false_accepts_of_three_hundred_are_one_per_cent():
    scores = torch.cat([torch.full((300,), 0.5), torch.linspace(-1, 0.495, 297), torch.full((3,), 0.6)])
    same = torch.arange(600) < 300
    assert tar_at_far(scores, same, 0.01) == 1.0


def test_scores_that_part_all_pairs_are_perfect_and_turned_round_the_worst():
    scores, same = torch.tensor([4.0, 3.0, 2.0, 1.0]), torch.tensor([True, True, False, False])
    assert (area_under_roc(scores, same), equal_error_rate(scores, same), tar_at_far(scores, same, 0.0)) == (1, 0, 1)
    assert (area_under_roc(-scores, same), equal_error_rate(-scores, same), tar_at_far(-scores, same, 0.0)) == (0, 1, 0)
    assert (area_under_roc(0 * scores, same), equal_error_rate(0 * scores, same)) == (0.5, 0.5)


def test_a_weight_is_a_pair_that_comes_so_often(pairs):
    scores, same = pairs
    weights = torch.randint(0, 4, (3, len(scores)), generator=torch.Generator().manual_seed(1)).double()
    curve = roc(scores, same, weights)
    for row in range(3):
        times = weights[row].long()
        again = roc(scores.repeat_interleave(times), same.repeat_interleave(times))
        for rate in (0.0, 0.1):
            torch.testing.assert_close(curve.tar_at(rate)[row], again.tar_at(rate))
        torch.testing.assert_close(curve.area()[row], again.area())
        torch.testing.assert_close(curve.equal_error_rate()[row], again.equal_error_rate())


def test_weights_that_leave_no_pair_of_one_kind_give_no_figure(pairs):
    scores, same = pairs
    curve = roc(scores, same, same[None].double())
    assert curve.area().isnan().all() and curve.equal_error_rate().isnan().all() and curve.tar_at(0.1).isnan().all()


rows = st.lists(st.tuples(st.floats(-1e308, 1e308), st.booleans()), min_size=2, max_size=12)


@settings(deadline=None)
@given(rows)
def test_no_threshold_beats_the_best_one(rows):
    scores = torch.tensor([score for score, _ in rows], dtype=torch.float64)
    same = torch.tensor([kind for _, kind in rows])
    if same.all() or not same.any():
        return
    reached = accuracy(scores, same, best_threshold(scores, same))
    assert reached == max(accuracy(scores, same, cut) for cut in [*scores.tolist(), math.inf])


def test_the_best_threshold_lies_in_the_middle():
    assert best_threshold(torch.tensor([0.1, 0.2, 0.6, 0.9]), torch.tensor([False, False, True, True])) == (
        pytest.approx(0.4)
    )
    # Of equally good ones the middle one is taken.
    same = torch.tensor([False, True, False, True, False, True])  # right at 0.5, 1.5, ... 4.5: 4, 3, 4, 3, 4 of 6
    assert best_threshold(torch.arange(6.0), same) == 2.5


def test_a_fold_is_judged_at_the_threshold_of_the_others():
    scores, same = some_pairs(3, 300)
    fold = torch.arange(300) % 3
    result = verify(scores, same, fold)
    assert result.folds == (0, 1, 2)
    for row, number in enumerate(result.folds):
        here = fold == number
        threshold = best_threshold(scores[~here], same[~here])
        assert result.values[row, 0] == pytest.approx(accuracy(scores[here], same[here], threshold))
        assert result.values[row, 2] == pytest.approx(roc_auc_score(same[here], scores[here]))
        assert result.values[row, 1] == pytest.approx(1 - equal_error_rate(scores[here], same[here]))
        assert result.values[row, 3] == pytest.approx(tar_at_far(scores[here], same[here], 0.1))
        assert result.values[row, 4] == pytest.approx(tar_at_far(scores[here], same[here], 0.01))


def test_mean_and_spread_are_over_the_folds():
    scores, same = some_pairs(4, 400)
    result = verify(scores, same, torch.arange(400) // 100)
    assert result.mean()["AUC"] == pytest.approx(np.mean(result.values[:, 2].tolist()))
    assert result.std()["AUC"] == pytest.approx(np.std(result.values[:, 2].tolist(), ddof=1))
    table = result.table()
    assert list(table.columns) == list(MEASURES) and list(table.index) == [0, 1, 2, 3, "mean", "std"]
    assert table.loc["mean", "accuracy"] == pytest.approx(100 * float(result.right.double().mean()))
    assert f"AUC {table.loc['mean', 'AUC']:.2f} ± {table.loc['std', 'AUC']:.2f}" in repr(result)
    assert "TAR-1%" in result._repr_html_()


def test_a_sixth_measure_only_where_asked_for():
    scores, same = some_pairs(4, 4000)
    fold = torch.arange(4000) // 2000
    five, six = verify(scores, same, fold), verify(scores, same, fold, STRICT_MEASURES)
    assert five.measures == MEASURES and six.measures == (*MEASURES, "TAR-0.1%")
    torch.testing.assert_close(six.values[:, :5], five.values)
    assert six.values[1, 5] == pytest.approx(tar_at_far(scores[2000:], same[2000:], 0.001))


def test_what_is_learned_for_a_fold_is_learned_without_it():
    scores, same = some_pairs(3, 300)
    fold, asked = torch.arange(300) % 3, []

    def scores_for(others):
        asked.append(others.clone())
        return scores + others.sum()  # a fold's own scores, moved as a whole: no measure changes

    result = verify(scores_for, same, fold)
    assert [set(fold[others].tolist()) for others in asked] == [{1, 2}, {0, 2}, {0, 1}]
    torch.testing.assert_close(result.values, verify(scores, same, fold).values)
    torch.testing.assert_close(result.scores, scores + 200)


def test_folds_judged_apart_come_together():
    scores, same = some_pairs(4, 400)
    fold = torch.arange(400) // 100
    low = fold < 2
    parts = [verify(scores[where], same[where], fold[where]) for where in (low, ~low)]
    whole = Verification.join(parts)
    assert whole.folds == (0, 1, 2, 3) and len(whole.right) == 400 and len(whole.thresholds) == 4
    torch.testing.assert_close(whole.values[2:], parts[1].values)
    with pytest.raises(ValueError, match="each fold must occur once"):
        Verification.join([parts[0], parts[0]])


class TestBadInput:
    def test_a_score_that_is_no_number(self):
        scores, same = some_pairs(0)
        scores[7] = math.nan
        for figure in (area_under_roc, best_threshold):
            with pytest.raises(ValueError, match="score of pair 7 in the pairs is nan"):
                figure(scores, same)

    @pytest.mark.parametrize(
        ("same", "says"),
        [([True] * 5, "of one person"), ([False] * 5, "of two people"), ([], "needs pairs of both kinds")],
    )
    def test_pairs_of_one_kind_only(self, same, says):
        with pytest.raises(ValueError, match=says):
            roc(torch.randn(len(same)), torch.tensor(same, dtype=torch.bool))

    def test_one_fold(self):
        scores, same = some_pairs(0)
        with pytest.raises(ValueError, match="the threshold comes from other folds"):
            verify(scores, same, torch.zeros(200, dtype=torch.int64))

    def test_a_fold_of_one_kind_is_named(self):
        scores, same = some_pairs(0)
        fold = (same & (torch.arange(200) > 100)).long()
        with pytest.raises(ValueError, match=r"fold 1 \(.*all of one person"):
            verify(scores, same, fold)


class TestDrawPairs:
    subject = torch.arange(40).repeat_interleave(5)

    @pytest.fixture
    def pairs(self):
        return draw_pairs(self.subject, 25, folds=4)

    def test_pairs_are_what_they_say_and_come_once(self, pairs):
        assert torch.equal(self.subject[pairs.first] == self.subject[pairs.second], pairs.same)
        assert (pairs.first != pairs.second).all()
        assert len({frozenset(pair) for pair in zip(*(x.tolist() for x in pairs[:2]), strict=True)}) == 200
        assert [[int((pairs.same[pairs.fold == f] == k).sum()) for k in (True, False)] for f in range(4)] == [
            [25, 25]
        ] * 4

    def test_no_person_is_in_two_folds(self, pairs):
        people = [set(self.subject[torch.cat(pairs[:2])][pairs.fold.repeat(2) == f].tolist()) for f in range(4)]
        assert sum(map(len, people)) == len(set.union(*people))

    def test_people_give_equally_many_pairs(self, pairs):
        """10 people a fold, 10 pairs each to choose from."""
        count = torch.bincount(self.subject[pairs.first[pairs.same]], minlength=40)
        assert set(count.tolist()) == {2, 3}

    def test_the_seed_decides(self):
        first, again, other = (draw_pairs(self.subject, 25, 4, seed) for seed in (1, 1, 2))
        assert torch.equal(first.second, again.second) and not torch.equal(first.second, other.second)

    @pytest.mark.parametrize(("each", "folds"), [(101, 4), (25, 21), (0, 4)])
    def test_too_few_people_or_pictures(self, each, folds):
        with pytest.raises(ValueError, match="people"):
            draw_pairs(self.subject, each, folds)

    def test_people_with_one_picture_make_no_pair_of_their_own(self):
        with pytest.raises(ValueError, match="0 pairs of one person"):
            draw_pairs(torch.arange(40), 5, folds=2)
