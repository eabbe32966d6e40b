"""Mirrored pictures, a mean from other folds, media of a template and fused scores, against sums written out."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from facenb.evaluation.features import JOINED, best_weight, fuse, fuse_best, pool, verify_features
from facenb.evaluation.recognition import cosine, draw_pairs, verify


@pytest.fixture
def people():
    """Features of 40 people, 6 pictures each, far from the origin, and pairs in four folds."""
    generator = torch.Generator().manual_seed(3)
    person = torch.arange(40).repeat_interleave(6)
    features = torch.randn(40, 8, generator=generator)[person] + torch.randn(240, 8, generator=generator) + 4
    return features, draw_pairs(person, 20, folds=4)


def test_nothing_is_done_unless_asked_for(people):
    features, pairs = people
    plain = verify(cosine(features[pairs.first], features[pairs.second]), pairs.same, pairs.fold)
    assert torch.equal(verify_features(features, pairs, mirrored=-features).values, plain.values)


def test_the_mean_is_of_the_other_folds_alone(people):
    features, pairs = people
    result = verify_features(features, pairs, subtract_mean=True)
    for fold in range(4):
        other = pairs.fold != fold
        mean = np.concatenate([features[pairs.first[other]], features[pairs.second[other]]]).mean(0)
        one, two = (features[rows[~other]].numpy() - mean for rows in (pairs.first, pairs.second))
        expected = (one * two).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)
        np.testing.assert_allclose(result.scores[~other], expected, rtol=1e-4, atol=1e-5)


def test_mirrored_features_beside_or_averaged():
    one, two = torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0, 2.0]])
    assert JOINED["average"](one, two).tolist() == [[2.0, 1.0]]
    assert JOINED["concatenate"](one, two).tolist() == [[3.0, 0.0, 1.0, 2.0]]


def test_a_video_weighs_as_much_as_a_photo():
    """Two media, one of 3 pictures: the mean of the two means, by hand."""
    features = torch.tensor([[1.0, 0], [0, 1], [0, 1], [0, 1], [6, 8]])
    found = pool(features, torch.tensor([7, 7, 7, 7, 2]), torch.tensor([1, 4, 4, 4, 1]))
    assert found.numbers.tolist() == [2, 7]
    torch.testing.assert_close(found.features, torch.tensor([[0.6, 0.8], [0.5, 0.5]]))


def test_without_media_every_frame_weighs_alike_and_by_direction():
    features = torch.tensor([[10.0, 0], [0, 1], [0, 1], [0, 1]])
    torch.testing.assert_close(pool(features, torch.zeros(4).long()).features, torch.tensor([[0.25, 0.75]]))


def test_the_order_of_pictures_changes_nothing():
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(50, 4, generator=generator)
    template, media = (torch.randint(0, 5, (50,), generator=generator) for _ in range(2))
    order = torch.randperm(50, generator=generator)
    here, there = pool(features, template, media), pool(features[order], template[order], media[order])
    torch.testing.assert_close(here.features, there.features)


def two_views(count: int = 3000, noise: tuple[float, float] = (1.0, 1.0), seed: int = 0):
    """Two scores of the same pairs whose errors have nothing to do with each other."""
    generator = torch.Generator().manual_seed(seed)
    same = torch.arange(count) % 2 == 0
    first, second = (same + s * torch.randn(count, generator=generator) for s in noise)
    return first, second, same, torch.arange(count) * 3 // count


def test_the_ends_are_either_score_alone():
    first, second, *_ = two_views(10)
    assert torch.equal(fuse(first, second, 0.0), first) and torch.equal(fuse(first, second, 1.0), second)


def test_two_independent_views_are_better_than_either():
    """Noise of deviation s in each: the sum has s / sqrt(2), so the area is that of one view of so much noise."""
    first, second, same, fold = two_views(20_000)
    fused = verify(fuse(first, second), same, fold).mean()["AUC"]
    one_clean_view = two_views(20_000, (0.5**0.5, 1.0), seed=1)[0]
    assert fused == pytest.approx(roc_auc_score(same, one_clean_view), abs=0.01)
    assert fused > verify(first, same, fold).mean()["AUC"] + 0.05


def test_the_best_weight_is_near_that_of_a_fitted_model():
    """For independent normal errors the best weights are as 1 / variance; scikit-learn's regression finds them too."""
    first, second, same, _ = two_views(20_000, (1.0, 2.0))
    model = LogisticRegression(C=1e6).fit(torch.stack([first, second], 1), same)
    one, two = model.coef_[0]
    assert best_weight(first, second, same) == pytest.approx(two / (one + two), abs=0.051)


def test_of_equally_good_weights_the_middle_one():
    perfect = torch.tensor([1.0, 2, 3, 4])
    assert best_weight(perfect, perfect, torch.tensor([False, False, True, True])) == 0.5


def test_a_fold_does_not_choose_its_own_weight():
    """In fold 2 the second score is perfect, in the others it is noise: there fold 2 must not be allowed to use it."""
    first, second, same, fold = two_views(3000, (0.7, 5.0))
    second = torch.where(fold == 2, 100.0 * same, second)
    judged = verify(fuse_best(first, second, same), same, fold)
    weight = best_weight(first[fold != 2], second[fold != 2], same[fold != 2])
    here = fold == 2
    torch.testing.assert_close(judged.scores[here], fuse(first, second, weight)[here])
    assert weight < 0.2 < best_weight(first[here], second[here], same[here])


class TestBadInput:
    def test_a_missing_feature(self, people):
        features, pairs = people
        features[int(pairs.first[5])] = torch.nan
        with pytest.raises(ValueError, match="has no direction"):
            verify_features(features, pairs)

    def test_a_template_without_pictures_is_named_and_counted(self):
        found = pool(torch.eye(3), torch.tensor([4, 2, 9]))
        assert found.rows(torch.tensor([9, 2])).tolist() == [2, 0]
        with pytest.raises(ValueError, match=r"template 5 has no image \(2 such\)"):
            found.rows(torch.tensor([4, 5, 11]))

    def test_pictures_without_a_direction(self):
        with pytest.raises(ValueError, match="feature 1 has no direction"):
            pool(torch.tensor([[1.0, 0], [0, 0]]), torch.tensor([0, 0]))
