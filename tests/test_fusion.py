"""Scores fused: what a sum must and must not do, and a weight that never sees its own fold."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from facenb.evaluation.fusion import best_weight, fuse, verify_fused
from facenb.evaluation.recognition import verify


def two_views(count: int = 3000, noise: tuple[float, float] = (1.0, 1.0), seed: int = 0):
    """Two scores of the same pairs whose errors have nothing to do with each other."""
    generator = torch.Generator().manual_seed(seed)
    same = torch.arange(count) % 2 == 0
    first, second = (same + s * torch.randn(count, generator=generator) for s in noise)
    return first, second, same, torch.arange(count) * 3 // count


def test_equal_weights_order_pairs_as_the_sum_does():
    first, second, same, fold = two_views()
    summed = verify(first + second, same, fold)
    torch.testing.assert_close(verify_fused(first, second, same, fold).values, summed.values)


def test_the_ends_are_either_score_alone():
    first, second, *_ = two_views(10)
    assert torch.equal(fuse(first, second, 0.0), first) and torch.equal(fuse(first, second, 1.0), second)


def test_two_independent_views_are_better_than_either():
    """Noise of deviation s in each: the sum has s / sqrt(2), so the area is that of one view of so much noise."""
    first, second, same, fold = two_views(20_000)
    fused = verify_fused(first, second, same, fold).mean()["AUC"]
    one_clean_view = two_views(20_000, (0.5**0.5, 1.0), seed=1)[0]
    assert fused == pytest.approx(roc_auc_score(same, one_clean_view), abs=0.01)
    assert fused > verify(first, same, fold).mean()["AUC"] + 0.05


def test_a_copy_of_a_score_adds_nothing():
    first, _, same, fold = two_views()
    torch.testing.assert_close(verify_fused(first, first, same, fold).values, verify(first, same, fold).values)


def test_the_best_weight_is_near_that_of_a_fitted_model():
    """For independent normal errors the best weights are as 1 / variance; scikit-learn's regression finds them too."""
    first, second, same, _ = two_views(20_000, (1.0, 2.0))
    model = LogisticRegression(C=1e6).fit(torch.stack([first, second], 1), same)
    one, two = model.coef_[0]
    assert best_weight(first, second, same) == pytest.approx(two / (one + two), abs=0.051)
    assert best_weight(first, second, same) == pytest.approx(0.2, abs=0.101)


def test_of_equally_good_weights_the_middle_one():
    perfect = torch.tensor([1.0, 2, 3, 4])
    assert best_weight(perfect, perfect, torch.tensor([False, False, True, True])) == 0.5


def test_a_fold_does_not_choose_its_own_weight():
    """In fold 2 the second score is perfect, in the others it is noise: there fold 2 must not be allowed to use it."""
    first, second, same, fold = two_views(3000, (0.7, 5.0))
    second = torch.where(fold == 2, 100.0 * same, second)
    judged = verify_fused(first, second, same, fold, weigh=True)
    weight = best_weight(first[fold != 2], second[fold != 2], same[fold != 2])
    here = fold == 2
    torch.testing.assert_close(judged.scores[here], fuse(first, second, weight)[here])
    assert weight < 0.2 < best_weight(first[here], second[here], same[here])


class TestBadInput:
    def test_a_missing_score_is_not_hidden_by_the_other(self):
        first, second, same, fold = two_views(30)
        second[4] = torch.nan
        with pytest.raises(ValueError, match="leave out missing pairs"):
            verify_fused(first, second, same, fold)

    def test_scores_of_other_pairs(self):
        with pytest.raises((ValueError, TypeError)):
            fuse(torch.zeros(3), torch.zeros(4))
