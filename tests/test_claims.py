"""Effects and verdicts on cases whose truth is known: closed forms, and intervals that hold it as often as they say."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from facenb.evaluation.claims import (
    Claim,
    Effect,
    bootstrap,
    bootstrap_pairs,
    difference_of_accuracy,
    difference_of_scores,
    draw_weights,
    mean_of,
    paired_difference,
    verdict,
)
from facenb.evaluation.recognition import CURVE_MEASURES, draw_pairs, verify


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


class TestPairedDifference:
    def test_every_person_counts_alike_however_many_pictures(self):
        effect = paired_difference([1.0, 3.0, 10.0], [0.0, 0.0, 0.0], ["a", "a", "b"])
        assert effect.value == pytest.approx((2 + 10) / 2) and effect.subjects == 2

    def test_the_order_of_the_pictures_and_the_kind_of_array_change_nothing(self):
        first, second, subject = random().normal(size=30), random(1).normal(size=30), np.arange(30) % 7
        order = random(2).permutation(30)
        plain = paired_difference(first, second, subject)
        tensors = paired_difference(*(torch.from_numpy(x[order]) for x in (first, second, subject)))
        assert (tensors.value, tensors.low, tensors.high) == pytest.approx((plain.value, plain.low, plain.high))

    def test_turned_round_the_interval_turns_round(self):
        first, second, subject = random().normal(size=90), random(1).normal(size=90), np.arange(90) // 3
        there, back = paired_difference(first, second, subject), paired_difference(second, first, subject)
        assert (-back.value, -back.high, -back.low) == pytest.approx((there.value, there.low, there.high), abs=1e-9)

    def test_for_many_people_it_is_the_interval_of_student(self):
        own = random().normal(1.0, 2.0, size=800)
        effect = mean_of(np.repeat(own, 3), np.repeat(np.arange(800), 3), draws=20000)
        low, high = stats.t.interval(0.95, 799, own.mean(), own.std(ddof=1) / math.sqrt(800))
        assert (effect.value, effect.low, effect.high) == pytest.approx((own.mean(), low, high), abs=0.01)

    def test_pictures_of_one_person_are_no_new_people(self):
        own = random().normal(size=20)
        few, many = (mean_of(np.repeat(own, n), np.repeat(np.arange(20), n)) for n in (1, 50))
        assert (few.low, few.high) == pytest.approx((many.low, many.high))

    def test_what_is_paired_is_the_picture(self):
        """Faces differ far more than methods: the interval is that of the difference."""
        hard = 100 * random().normal(size=60)
        effect = paired_difference(hard + 1 + 0.1 * random(1).normal(size=60), hard, np.arange(60))
        assert 0.9 < effect.low < 1 + 0.1 and effect.high - effect.low < 0.1

    def test_alike_methods_differ_by_nothing(self):
        errors = random().normal(size=40)
        effect = paired_difference(errors, errors, np.arange(40) // 2)
        assert (effect.value, effect.low, effect.high) == (0, 0, 0) and verdict(effect) == "does not hold"

    def test_a_higher_level_gives_a_wider_interval(self):
        values = random().normal(size=50)
        narrow, wide = (mean_of(values, np.arange(50), level=level) for level in (0.8, 0.99))
        assert wide.low < narrow.low < narrow.high < wide.high and wide.level == 0.99

    def test_the_seed_decides(self):
        values = random().normal(size=50)
        assert mean_of(values, np.arange(50), seed=3) == mean_of(values, np.arange(50), seed=3)
        assert mean_of(values, np.arange(50), seed=3) != mean_of(values, np.arange(50), seed=4)

    @pytest.mark.parametrize("people", [8, 25])
    def test_it_holds_the_truth_as_often_as_it_says(self, people):
        """300 studies; 95 % within what chance allows (three standard errors: 0.912 to 0.988)."""
        numbers, subject, held = random(people), np.repeat(np.arange(people), 3), 0
        for study in range(300):
            values = np.repeat(numbers.normal(size=people), 3) + numbers.normal(size=3 * people) + 0.3
            effect = mean_of(values, subject, draws=1000, seed=study)
            held += effect.low <= 0.3 <= effect.high
        assert 0.912 <= held / 300 <= 0.988


class TestBootstrap:
    def test_weights_count_as_many_people_as_there_are(self):
        weights = draw_weights(40, 3000, random())
        assert weights.shape == (3000, 40) and (weights.sum(1) == 40).all()
        np.testing.assert_allclose(weights.mean(0), 1, atol=0.1)
        np.testing.assert_allclose(weights.var(0), 1 - 1 / 40, atol=0.15)

    def test_a_ratio_has_the_interval_of_the_delta_method(self):
        over, under = random().normal(3, 1, 500), random(1).normal(2, 0.3, 500)
        effect = bootstrap(lambda weights: weights @ over / (weights @ under), 500)
        ratio = over.mean() / under.mean()
        spread = (over - ratio * under).std(ddof=1) / under.mean() / math.sqrt(500)
        expected = (ratio, ratio - 1.96 * spread, ratio + 1.96 * spread)
        assert (effect.value, effect.low, effect.high) == pytest.approx(expected, abs=0.015)

    def test_a_skewed_mean_has_the_longer_arm_on_the_long_side(self):
        effect = mean_of(random().exponential(size=40), np.arange(40))
        assert effect.high - effect.value > 1.1 * (effect.value - effect.low)

    def test_it_is_that_of_scipy_but_for_the_widened_levels(self):
        own = random(4).exponential(size=400) ** 3  # skewed enough for every correction to show
        scipy = stats.bootstrap((own,), np.mean, n_resamples=20000, method="BCa", rng=random(1)).confidence_interval
        effect, error = mean_of(own, np.arange(400), draws=20000), own.std() / math.sqrt(400)
        assert (effect.low, effect.high) == pytest.approx((scipy.low, scipy.high), abs=0.08 * error)

    def test_draws_that_fit_no_chunk_are_all_made(self, monkeypatch):
        seen = []

        def mean(weights):
            seen.append(len(weights))
            return weights.mean(1)

        monkeypatch.setattr("facenb.evaluation.claims.CHUNK", 10 * 70)
        bootstrap(mean, 10, draws=205)
        assert seen == [70, 70, 65, 10, 1]  # the draws, one left out each, everybody

    def test_a_figure_that_most_draws_cannot_give_decides_nothing(self):
        effect = bootstrap(lambda weights: np.where((weights == 1).all(1), 1.0, math.nan), 20)
        assert effect.value == 1 and math.isnan(effect.low) and verdict(effect) == "not decided"


class TestPairs:
    subject = torch.arange(30).repeat_interleave(8)

    def scores(self, noise: float, seed: int):
        generator = torch.Generator().manual_seed(seed)
        face = torch.randn(30, generator=generator)[self.subject]
        shot = face + noise * torch.randn(len(self.subject), generator=generator)
        return -(shot[self.pairs.first] - shot[self.pairs.second]).abs()

    @property
    def pairs(self):
        return draw_pairs(self.subject, 100, folds=2)

    @property
    def people(self):
        return self.subject[self.pairs.first], self.subject[self.pairs.second]

    @pytest.mark.parametrize("measure", list(CURVE_MEASURES))
    def test_the_value_is_the_difference_in_the_table(self, measure):
        pairs, better, worse = self.pairs, self.scores(0.3, 1), self.scores(2.0, 1)
        effect = difference_of_scores(measure, better, worse, pairs.same, *self.people, pairs.fold, draws=200)
        tables = [verify(scores, pairs.same, pairs.fold).mean() for scores in (better, worse)]
        assert effect.value == pytest.approx(tables[0][measure] - tables[1][measure])
        assert effect.low < effect.value < effect.high and effect.subjects == 30

    def test_without_folds_all_pairs_make_one_curve(self):
        pairs, better, worse = self.pairs, self.scores(0.3, 1), self.scores(2.0, 1)
        effect = difference_of_scores("AUC", better, worse, pairs.same, *self.people, draws=200)
        from sklearn.metrics import roc_auc_score

        assert effect.value == pytest.approx(roc_auc_score(pairs.same, better) - roc_auc_score(pairs.same, worse))

    def test_accuracy_is_compared_at_the_thresholds_of_other_folds(self):
        pairs = self.pairs
        better, worse = (verify(self.scores(noise, 1), pairs.same, pairs.fold) for noise in (0.3, 2.0))
        effect = difference_of_accuracy(better, worse, *self.people, draws=500)
        assert effect.value == pytest.approx(better.mean()["accuracy"] - worse.mean()["accuracy"])
        assert verdict(effect) == "holds"

    def test_names_of_people_may_be_words(self):
        words = [np.array([f"person {n}" for n in side.tolist()]) for side in self.people]
        numbers = [f"{n:03d}" for n in range(30)]  # the same order as the numbers have
        ordered = [np.array([numbers[n] for n in side.tolist()]) for side in self.people]
        gain = random().normal(size=200 * 2)
        figure = [bootstrap_pairs(lambda w: w @ gain / w.sum(1), *names, draws=200) for names in (ordered, self.people)]
        assert figure[0] == figure[1]
        assert bootstrap_pairs(lambda w: w @ gain / w.sum(1), *words, draws=200).subjects == 30

    @pytest.mark.parametrize(
        ("people", "pairs", "share"),
        [(30, 200, 0.5), (30, 200, 0.0), (400, 200, 0.0)],
        ids=["people matter", "many pairs a person, by chance alone", "a person in one pair"],
    )
    def test_the_interval_holds_the_truth_as_often_as_it_says(self, people, pairs, share):
        """150 studies; 95 % within what chance allows (three standard errors: 0.897 to 1)."""
        numbers, held, same = random(people), 0, np.arange(pairs) < pairs // 2
        widths, spread = [], []
        for study in range(150):
            one = numbers.integers(people, size=pairs)
            other = np.where(same, one, (one + numbers.integers(1, people, size=pairs)) % people)
            own = share * numbers.normal(size=people)
            gain = 0.2 + own[one] + own[other] + numbers.normal(size=pairs)
            effect = bootstrap_pairs(lambda w, gain=gain: w @ gain / w.sum(1), one, other, draws=300, seed=study)
            held += effect.low <= 0.2 <= effect.high
            widths.append(effect.high - effect.low)
            spread.append(effect.value)
        assert held / 150 >= 0.897
        assert np.mean(widths) == pytest.approx(2 * 1.96 * np.std(spread), rel=0.25)  # and is no wider than it must be


class TestBadInput:
    def test_arrays_that_do_not_fit(self):
        with pytest.raises(ValueError, match="the same pictures in both, got 3 and 4"):
            paired_difference(np.zeros(3), np.zeros(4), np.arange(3))
        with pytest.raises(ValueError, match=r"3 values, but the subjects have shape \(2,\)"):
            paired_difference(np.zeros(3), np.zeros(3), np.arange(2))
        with pytest.raises(ValueError, match=r"first must be one value a picture .* shape \(3, 2\)"):
            paired_difference(np.zeros((3, 2)), np.zeros(3), np.arange(3))

    def test_a_missing_value_is_named(self):
        with pytest.raises(ValueError, match="second, row 1, is nan"):
            paired_difference(np.zeros(3), [0, math.nan, 0], np.arange(3))

    @pytest.mark.parametrize("people", [0, 1])
    def test_too_few_people(self, people):
        with pytest.raises(ValueError, match=f"two or more, there is {people}"):
            mean_of(np.zeros(3 * people), np.zeros(3 * people))
        with pytest.raises(ValueError, match=f"two or more, there is {people}"):
            bootstrap(lambda weights: weights.mean(1), people)

    def test_too_few_draws(self):
        with pytest.raises(ValueError, match="10 draws"):
            mean_of(np.zeros(3), np.arange(3), draws=10)

    @pytest.mark.parametrize("level", [0.0, 1.0, 95])
    def test_a_level_that_is_none(self, level):
        with pytest.raises(ValueError, match="a level lies between 0 and 1"):
            mean_of(np.zeros(3), np.arange(3), level=level)

    def test_pairs_that_do_not_fit(self):
        with pytest.raises(ValueError, match="two people"):
            bootstrap_pairs(lambda weights: weights.mean(1), np.zeros(3), np.zeros(4))
        same, kinds = torch.zeros(4), torch.arange(4) < 2
        with pytest.raises(ValueError, match="'accuracy' is no measure of the curve; there are 100-EER, AUC"):
            difference_of_scores("accuracy", same, same, kinds, np.arange(4), np.arange(4))
        with pytest.raises(ValueError, match="4 scores, 3 scores, 4 kinds"):
            difference_of_scores("AUC", same, same[:3], kinds, np.arange(4), np.arange(4))
        with pytest.raises(ValueError, match="4 pairs, but the names of 3"):
            difference_of_scores("AUC", same, same, kinds, np.arange(3), np.arange(3))

    def test_verifications_of_other_pairs(self):
        same, fold = torch.arange(8) % 2 == 0, torch.arange(8) // 2 % 2
        eight, four = (verify(torch.randn(n), same[:n], fold[:n]) for n in (8, 4))
        for second, names in ((four, np.arange(8)), (eight, np.arange(4))):
            with pytest.raises(ValueError, match="must be of the same pairs"):
                difference_of_accuracy(eight, second, names, names)


class TestVerdict:
    @pytest.mark.parametrize(
        ("low", "high", "at_least", "says"),
        [
            (0.1, 0.3, 0.0, "holds"),
            (0.1, 0.3, 0.1, "not decided"),  # "more than": the end itself is not enough
            (-0.1, 0.3, 0.0, "not decided"),
            (-0.3, -0.1, 0.0, "does not hold"),
            (-0.3, 0.0, 0.0, "does not hold"),
            (0.1, 0.3, 0.5, "does not hold"),
            (math.nan, math.nan, 0.0, "not decided"),
        ],
    )
    def test_it_is_what_the_whole_interval_says(self, low, high, at_least, says):
        effect = Effect((low + high) / 2, low, high, 60)
        assert verdict(effect, at_least) == says == Claim("L1", "it does", effect, "mm", at_least).verdict

    def test_a_claim_is_shown_with_what_decides_it(self):
        claim = Claim("L3", "c_id < c_res & all", Effect(0.264, 0.21, 0.31, 60).percent(), "%", 5.0)
        assert repr(claim) == (
            "L3 holds: c_id < c_res & all\n26.4 %, 95 % interval 21 to 31 % over 60 people; asked for: more than 5 %"
        )
        page = claim._repr_html_()
        assert "c_id &lt; c_res &amp; all" in page and ">holds</b>" in page and "21 to 31 %" in page
