"""Galleries, and what is watched in a training, on a set of two dozen people."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from facenb.datasets.sets.augmentation import NONE
from facenb.datasets.sets.build_synthetic import true_shapes
from facenb.evaluation.recognition import cosine
from facenb.methods import liu18
from facenb.methods.liu18.recognition import (
    Galleries,
    Gallery,
    auc_of_all_pairs,
    materials,
    mean_codes,
    watch_validation,
)
from facenb.methods.liu18.swaps import Swaps
from facenb.runs.results import Run


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    [(suffix, one)] = materials(
        Run("08_test", "smoke", "synthetic", 0, "cpu", str(tmp_path_factory.mktemp("run")))
    ).items()
    assert suffix == ""
    return one


@pytest.fixture(scope="module")
def gallery(material):
    return Gallery.of(material)


@pytest.fixture(scope="module")
def network(material):
    return material.new_network(1)


def test_codes_of_mirrored_crops_stand_beside_the_others(material, network):
    crops = material.test.image[:3]
    plain, mirrored = liu18.encode_crops(network, crops, mirror=True).chunk(2, 1)
    torch.testing.assert_close(plain, liu18.encode_crops(network, crops))
    torch.testing.assert_close(mirrored, liu18.encode_crops(network, crops.flip(2)))


class TestGallery:
    def test_pairs_are_what_they_say(self, gallery):
        one, other = gallery.people
        assert ((one == other) == gallery.pairs.same.numpy()).all()
        assert (gallery.pairs.first != gallery.pairs.second).all()

    def test_no_person_is_in_two_folds(self, gallery):
        one, other = gallery.people
        fold = gallery.pairs.fold.numpy()
        people = [set(one[fold == k]) | set(other[fold == k]) for k in np.unique(fold)]
        assert sum(map(len, people)) == len(set.union(*people))

    def test_pictures_are_those_encoded(self, gallery, network):
        rows = torch.tensor([3, 0, 7])
        image = gallery.pictures(rows).permute(0, 3, 1, 2) * 2 - 1
        with torch.no_grad():
            again = network.eval().encode(image).identity
        torch.testing.assert_close(gallery.codes(network)[rows], again, rtol=1e-4, atol=1e-5)

    def test_fits_of_single_pictures_know_the_person(self, gallery):
        alike = cosine(gallery.fitted[gallery.pairs.first], gallery.fitted[gallery.pairs.second])
        assert roc_auc_score(gallery.pairs.same, alike) > 0.85  # 0.5 by chance

    @pytest.mark.parametrize("more", [-1, 30])
    def test_codes_are_of_all_pictures_and_no_others(self, gallery, more):
        count = len(gallery.person)
        with pytest.raises(ValueError, match=f"expected {count} codes.*got {count + more}"):
            gallery.verify(torch.rand(count + more, 6))


def test_one_gallery_or_several_in_one_are_the_same(gallery, network):
    codes = gallery.codes(network)
    alone, together = gallery.verify(codes), Galleries((gallery,)).verify([codes])
    assert torch.equal(alone.values, together.values) and torch.equal(alone.right, together.right)


def test_galleries_keep_the_order_of_pairs(gallery, network):
    other = replace(gallery, pairs=gallery.pairs._replace(fold=gallery.pairs.fold + 100))
    both, codes = Galleries((gallery, other)), gallery.codes(network)
    count = len(gallery.pairs.same)
    assert torch.equal(both.scores([codes, codes])[count:], gallery.scores(codes))
    assert both.fold[count:].min() >= 100 and (both.people[0][count:] == gallery.people[0]).all()
    assert len(both.verify([codes, codes]).right) == len(both.same) == 2 * count


def test_auc_of_all_pairs_against_another_library():
    generator = torch.Generator().manual_seed(0)
    person = torch.arange(8).repeat_interleave(4)
    codes = torch.randn(8, 6, generator=generator)[person] + 2 * torch.randn(32, 6, generator=generator)
    first, second = np.triu_indices(32, 1)
    expected = roc_auc_score(person[first] == person[second], cosine(codes[first], codes[second]))
    assert auc_of_all_pairs(codes, person) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("mirror", [False, True])
def test_mean_code_is_of_training_pictures_as_they_are(material, network, mirror):
    image = replace(material.train, augmentation=NONE).load(torch.arange(len(material.train)))["image"]
    network.eval()
    with torch.no_grad():
        expected = [network.encode(image).identity.mean(0)]
        expected += [network.encode(image.flip(3)).identity.mean(0)] if mirror else []
    torch.testing.assert_close(mean_codes(material, network, mirror), torch.cat(expected), rtol=1e-4, atol=1e-5)


def test_what_is_watched_is_of_validation_people(material, network):
    targets, whole = material.supervision(), material.validation.load(torch.arange(len(material.validation)))
    network.eval()
    watched = watch_validation(material)({"network": network, "targets": targets})
    with torch.no_grad():
        codes = network.encode(whole["image"])
        expected = liu18.reconstruction_loss(network, codes, targets(whole))
    assert watched["L_R"] == pytest.approx(float(expected), rel=1e-4)
    assert watched["AUC"] == pytest.approx(auc_of_all_pairs(codes.identity, whole["label"]), abs=1e-3)


@pytest.fixture(scope="module")
def swaps(gallery):
    return Swaps.of(gallery)


class TestSwaps:
    def test_shapes_stay_and_skin_changes(self, swaps):
        original = swaps.states["original"]
        for images in (swaps.states["identical"], swaps.states["swapped"]):
            assert torch.equal(true_shapes(images), true_shapes(original))
            assert not torch.equal(images.image, original.image)

    def test_pairs_have_the_people_they_say(self, swaps):
        for condition, (pairs, *_) in swaps.conditions.items():
            first, second = swaps.people(condition)
            assert ((first == second) == pairs.same.numpy()).all()

    def test_code_of_the_skin_alone_is_always_misled(self, swaps):
        original = swaps.states["original"]
        people = original.people.tolist()
        looks = dict(swaps.states["swapped"].card["looks"])
        skins = torch.eye(len(people))
        own = skins[[people.index(k) for k in original.subjects.tolist()]]
        worn = skins[[people.index(looks[k]) for k in original.subjects.tolist()]]
        verified = swaps.verify({"original": own, "identical": torch.ones_like(own), "swapped": worn})
        assert verified["as photographed"].mean()["AUC"] == 1
        assert verified["skin and hair swapped"].mean()["AUC"] == 0

    def test_expressions_mislead(self, swaps):
        expression, (pairs, *_) = swaps.states["original"].truth["expression"], swaps.conditions["expression misleads"]
        distance = (expression[pairs.first] - expression[pairs.second]).norm(dim=1)
        assert distance[pairs.same].mean() > distance[~pairs.same].mean()
