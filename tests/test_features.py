"""Mirrored pictures, a mean from other folds, and media of a template, against sums written out."""

import numpy as np
import pytest
import torch

from facenb.evaluation.features import pool, verify_features, with_mirrored
from facenb.evaluation.recognition import Pairs, cosine, draw_pairs, verify


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


def test_a_mean_that_all_pictures_share_goes_away(people):
    features, pairs = people
    moved = features + 100 * torch.randn(8, generator=torch.Generator().manual_seed(0))
    here, there = (verify_features(some, pairs, subtract_mean=True) for some in (features, moved))
    torch.testing.assert_close(here.scores, there.scores, rtol=1e-3, atol=1e-3)


def test_what_the_test_fold_holds_does_not_move_its_mean(people):
    features, pairs = people
    of_fold = torch.cat([pairs.first, pairs.second])[(pairs.fold == 2).repeat(2)].unique()
    other = features.clone()
    other[of_fold] += 50
    assert verify_features(other, pairs, subtract_mean=True).thresholds[2] == pytest.approx(
        verify_features(features, pairs, subtract_mean=True).thresholds[2]
    )


def test_mirrored_features_beside_or_averaged():
    one, two = torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0, 2.0]])
    assert with_mirrored(one, two, "average").tolist() == [[2.0, 1.0]]
    assert with_mirrored(one, two, "concatenate").tolist() == [[3.0, 0.0, 1.0, 2.0]]
    assert with_mirrored(one, None, "") is one


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


class TestBadInput:
    def test_a_missing_feature(self, people):
        features, pairs = people
        features[int(pairs.first[5])] = torch.nan
        with pytest.raises(ValueError, match="has no direction"):
            verify_features(features, pairs)

    def test_mirrored_features_that_are_not_there(self, people):
        with pytest.raises(ValueError, match="needs the features of the mirrored images"):
            verify_features(*people, mirror="average")
        with pytest.raises(ValueError, match="choose one of '', 'average'"):
            verify_features(*people, mirror="both")

    def test_a_template_without_pictures_is_named_and_counted(self):
        found = pool(torch.eye(3), torch.tensor([4, 2, 9]))
        assert found.rows(torch.tensor([9, 2])).tolist() == [2, 0]
        with pytest.raises(ValueError, match=r"template 5 has no image \(2 such\)"):
            found.rows(torch.tensor([4, 5, 11]))

    def test_pictures_without_a_direction(self):
        with pytest.raises(ValueError, match="feature 1 has no direction"):
            pool(torch.tensor([[1.0, 0], [0, 0]]), torch.tensor([0, 0]))

    def test_one_fold_has_no_mean_of_others(self, people):
        features, pairs = people
        with pytest.raises(ValueError, match="other folds"):
            verify_features(features, Pairs(*pairs[:3], torch.zeros_like(pairs.fold)), subtract_mean=True)
