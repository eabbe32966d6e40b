"""Effects and verdicts on cases whose truth is known: closed forms, and intervals that hold it as often as they say."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from scipy import stats

from facenb.evaluation.claims import (
    Claim,
    Effect,
    bootstrap,
    bootstrap_pairs,
    decide,
    difference_of_scores,
    holm,
    mean_of,
    mean_of_pairs,
    paired_difference,
    with_seeds,
)
from facenb.evaluation.recognition import CURVE_MEASURES, draw_pairs, roc, verify


def verdict(effect: Effect, at_least: float = 0.0) -> str:
    return Claim("L1", "it does", effect, "mm", at_least).verdict


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
    def test_a_ratio_has_the_interval_of_the_delta_method(self):
        over, under = random().normal(3, 1, 500), random(1).normal(2, 0.3, 500)
        effect = bootstrap(lambda weights: weights @ over / (weights @ under), 500)
        ratio = over.mean() / under.mean()
        spread = (over - ratio * under).std(ddof=1) / under.mean() / math.sqrt(500)
        expected = (ratio, ratio - 1.96 * spread, ratio + 1.96 * spread)
        assert (effect.value, effect.low, effect.high) == pytest.approx(expected, abs=0.015)

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

        monkeypatch.setattr("facenb.evaluation.intervals.CHUNK", 10 * 70)
        bootstrap(mean, 10, draws=205)
        assert seen == [10, 1, 70, 70, 65]  # one left out each, everybody, the draws

    def test_a_figure_that_most_draws_cannot_give_decides_nothing(self):
        effect = bootstrap(lambda weights: np.where((weights == 1).all(1), 1.0, math.nan), 20)
        assert effect.value == 1 and verdict(effect) == "not decided"
        assert math.isnan(effect.low) and math.isnan(effect.p_value())


class TestPValue:
    def test_of_many_people_it_is_that_of_student(self):
        own = random(2).normal(0.1, 1.0, size=600)
        effect = mean_of(own, np.arange(600), draws=20000)
        for at_least in (0.0, 0.05, 0.25):
            expected = stats.ttest_1samp(own, at_least).pvalue
            assert effect.p_value(at_least) == pytest.approx(expected, rel=0.15, abs=0.005)

    @pytest.mark.parametrize("skew", [1, 3])
    @pytest.mark.parametrize("people", [6, 60])
    def test_it_is_below_what_the_level_leaves_just_where_the_interval_decides(self, people, skew):
        sample = mean_of(random(people).exponential(size=people) ** skew, np.arange(people), draws=2000).sample
        decided = set()
        for level in (0.5, 0.9, 0.95, 0.99):
            effect = Effect.of(sample, people, level)
            reach = effect.high - effect.low
            for at_least in np.linspace(effect.low - reach, effect.high + reach, 101):
                says = verdict(effect, at_least)
                assert (effect.p_value(at_least) < 1 - level) == (says != "not decided")
                decided.add(says)
        assert len(decided) == 3

    def test_where_nothing_is_to_be_found_it_says_so_as_often_as_it_promises(self):
        """400 studies of nothing: p < 0.05 in 5 % within three standard errors, and p < 0.5 in half."""
        numbers = random(1)
        found = np.array(
            [mean_of(numbers.normal(size=12), np.arange(12), 1000, study).p_value() for study in range(400)]
        )
        assert 0.017 <= (found < 0.05).mean() <= 0.083 and 0.425 <= (found < 0.5).mean() <= 0.575

    def test_it_is_never_smaller_than_the_draws_can_tell(self):
        effect = mean_of(100 + random().normal(size=30), np.arange(30), draws=999)
        assert effect.p_value() == pytest.approx(0.002) and effect.p_value(1e6) == pytest.approx(0.002)

    def test_it_goes_on_falling_beyond_the_last_draw(self):
        """Few people ask for more than draws have: then as a normal distribution goes on, as Student's test does."""
        own = random(3).normal(size=8)
        effect = mean_of(own, np.arange(8), draws=20000)
        reach = float(np.ptp(effect.sample.draws))
        found = [effect.p_value(effect.value - share * reach) for share in (0.4, 0.6, 0.8)]
        expected = [stats.ttest_1samp(own, effect.value - share * reach).pvalue for share in (0.4, 0.6, 0.8)]
        assert found == sorted(found, reverse=True) and len(set(found)) == 3
        assert np.log(found) == pytest.approx(np.log(expected), abs=1.5)

    @given(some.floats(0.1, 100), some.floats(-100, 100), some.floats(-1, 1))
    @settings(max_examples=30, deadline=None)
    def test_another_unit_changes_nothing(self, factor, shift, at_least):
        effect = mean_of(random(6).normal(size=20), np.arange(20), draws=500)
        there, back = effect.scaled(factor, shift), effect.scaled(-factor, shift)
        assert there.p_value(factor * at_least + shift) == pytest.approx(effect.p_value(at_least), rel=1e-4, abs=1e-6)
        assert back.p_value(-factor * at_least + shift) == pytest.approx(effect.p_value(at_least), rel=1e-4, abs=1e-6)
        assert (back.low, back.high) == pytest.approx((shift - factor * effect.high, shift - factor * effect.low))

    def test_without_draws_there_is_none(self):
        assert math.isnan(Effect(0.3, 0.1, 0.5, 60).p_value())


class TestSeeds:
    """Trainings are drawn as people are."""

    @staticmethod
    def study(numbers, seeds, people, of_seeds, of_people=1.0, both=0.3):
        """(seeds, 2 pictures a person): what seeds, people, and a seed with a person add; truth 0.2."""
        own = of_people * numbers.normal(size=people) + both * numbers.normal(size=(seeds, people))
        return 0.2 + of_seeds * numbers.normal(size=(seeds, 1)) + np.repeat(own, 2, axis=1)

    @pytest.mark.parametrize("seeds", [2, 3, 6])
    @pytest.mark.parametrize("of_seeds", [0.0, 0.2, 1.0])
    def test_the_interval_holds_the_truth_at_least_as_often_as_it_says(self, seeds, of_seeds):
        """200 studies; 95 % within what chance allows (three standard errors: 0.904)."""
        numbers, subject, held = random(seeds), np.repeat(np.arange(25), 2), 0
        for study in range(200):
            effect = mean_of(self.study(numbers, seeds, 25, of_seeds), subject, draws=500, seed=study)
            held += effect.low <= 0.2 <= effect.high
        assert held / 200 >= 0.904

    def test_it_is_as_wide_as_the_two_spreads_make_it(self):
        """Many seeds and people, whose effects add: the normal interval of the sum of variances."""
        numbers = random(5)
        values = self.study(numbers, 60, 400, 1.0, 2.0, 0.0)
        effect = mean_of(values, np.repeat(np.arange(400), 2), draws=20000)
        spread = math.sqrt(values.mean(1).var(ddof=1) / 60 + values.mean(0)[::2].var(ddof=1) / 400)
        assert effect.high - effect.low == pytest.approx(2 * 1.96 * spread, rel=0.05) and effect.seeds == 60

    def test_seeds_that_agree_add_nothing(self):
        values = random().normal(size=40)
        one, three = (mean_of(np.tile(values, (n, 1)), np.arange(40), draws=20000) for n in (1, 3))
        assert (three.low, three.high) == pytest.approx((one.low, one.high), abs=0.02) and one.seeds == 1
        assert repr(three).endswith("(95 %, 40 people and 3 seeds)") and "seed" not in repr(one)

    def test_seeds_are_paired_one_by_one(self):
        """Seeds that are good or bad for both methods alike cancel."""
        luck = 10 * random().normal(size=(4, 1))
        first, second = luck + 1 + 0.1 * random(1).normal(size=(4, 30)), luck + 0.1 * random(2).normal(size=(4, 30))
        effect = paired_difference(first, second, np.arange(30))
        assert 0.8 < effect.low < effect.high < 1.2
        without = paired_difference(first, luck.mean() + np.zeros(30), np.arange(30))
        assert without.high - without.low > 10

    def test_accuracy_over_seeds(self):
        right = torch.rand(3, 80, generator=torch.Generator().manual_seed(0)) < torch.tensor([[0.5], [0.7], [0.9]])
        names = np.arange(80) // 4, (np.arange(80) // 4 + np.arange(80) % 2) % 20
        effect = mean_of_pairs(right, *names, draws=300)
        assert effect.value == pytest.approx(float(right.float().mean())) and effect.seeds == 3
        one = mean_of_pairs(right[0], *names, draws=300)
        assert one == mean_of_pairs(right[:1], *names, draws=300) and one.seeds == 1

    def test_bad_input(self):
        effect = mean_of(random().normal(size=30), np.arange(30), draws=200)
        for values in ([effect.value + 1, effect.value], [math.nan, 1.0]):
            with pytest.raises(ValueError, match="is not the mean of the seeds' values"):
                with_seeds(effect, values)
        with pytest.raises(ValueError, match="row 2 is not finite"):
            mean_of([[0, 0, 0], [0, 0, math.inf]], np.arange(3))


class TestHolm:
    @given(some.lists(some.floats(0, 1), max_size=6))
    @settings(deadline=None)
    def test_it_is_what_testing_every_subset_by_bonferroni_gives(self, p):
        """The closed test (Marcus, Peritz, Gabriel 1976): one falls when all subsets with it do."""
        subsets = [chosen for size in range(1, len(p) + 1) for chosen in combinations(range(len(p)), size)]
        closed = [
            max(min(1.0, len(chosen) * min(p[k] for k in chosen)) for chosen in subsets if row in chosen)
            for row in range(len(p))
        ]
        assert holm(p) == pytest.approx(closed)

    def test_a_question_without_an_answer_was_asked_too(self):
        adjusted = holm([0.01, math.nan, 0.02])
        assert adjusted[0] == pytest.approx(0.03) and math.isnan(adjusted[1]) and adjusted[2] == pytest.approx(0.04)

    @pytest.mark.parametrize(
        ("value", "at_least", "p", "says"),
        [
            (0.3, 0.0, 0.04, "holds"),
            (0.3, 0.0, 0.05, "not decided"),
            (-0.3, 0.0, 0.04, "does not hold"),
            (0.3, 0.5, 0.001, "does not hold"),
            (0.3, 0.0, math.nan, "not decided"),
        ],
    )
    def test_the_verdict_that_is_left(self, value, at_least, p, says):
        assert decide(value, at_least, p) == says

    def test_alone_a_claim_keeps_its_verdict(self):
        for shift in (-1.0, 0.0, 1.0):
            claim = Claim("L1", "it does", mean_of(shift + random(3).normal(size=40), np.arange(40)), "mm")
            assert decide(claim.effect.value, 0.0, holm([claim.p_value])[0]) == claim.verdict


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

    def test_accuracy_is_compared_at_the_thresholds_of_other_folds(self):
        pairs = self.pairs
        better, worse = (verify(self.scores(noise, 1), pairs.same, pairs.fold) for noise in (0.3, 2.0))
        effect = mean_of_pairs(better.right.double() - worse.right.double(), *self.people, draws=500)
        assert effect.value == pytest.approx(better.mean()["accuracy"] - worse.mean()["accuracy"])
        assert verdict(effect) == "holds"

    def test_names_of_people_may_be_words(self):
        names = np.array([f"person {n:02d}" for n in range(30)])  # the same order as the numbers have
        gain = random().normal(size=200 * 2)
        words, numbers = (
            mean_of_pairs(gain, *who, draws=200) for who in ([names[n] for n in self.people], self.people)
        )
        assert words == numbers and words.subjects == 30

    def test_an_area_of_few_people_stays_within_its_values(self):
        """Three people: the interval reaches beyond all draws, but no area is above 1; the p-value stays."""
        first, second = np.array([0, 0, 1, 1, 2, 2, 0, 1, 2, 0, 1]), np.array([0, 0, 1, 1, 2, 2, 1, 2, 0, 2, 0])
        same, scores = torch.from_numpy(first == second), torch.tensor([9, 8, 7, 3, 9, 6, 5, 4, 3, 2, 1.0])
        effect = bootstrap_pairs(
            lambda w: roc(scores, same, torch.from_numpy(w)).area().numpy(), first, second, draws=500
        )
        cut = effect.within(0, 1)
        assert effect.low < cut.value < cut.high == 1 < effect.high and cut.low == max(0, effect.low)
        assert cut.p_value(0.5) == effect.p_value(0.5)
        assert cut.percent().high == 100
        assert math.isnan(Effect(math.nan, math.nan, math.nan, 3).within(0, 1).high)  # an unknown end stays unknown

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
            effect = mean_of_pairs(gain, one, other, draws=300, seed=study)
            held += effect.low <= 0.2 <= effect.high
            widths.append(effect.high - effect.low)
            spread.append(effect.value)
        assert held / 150 >= 0.897
        assert np.mean(widths) == pytest.approx(2 * 1.96 * np.std(spread), rel=0.25)  # and is no wider than it must be


class TestBadInput:
    def test_arrays_that_do_not_fit(self):
        for first, second, subject in (((3,), (4,), 3), ((2, 4), (3, 4), 4), ((3,), (3,), 2)):
            with pytest.raises(ValueError, match="could not be broadcast|same length"):
                paired_difference(np.zeros(first), np.zeros(second), np.arange(subject))

    def test_a_missing_value_is_named(self):
        with pytest.raises(ValueError, match="row 1 is not finite"):
            paired_difference(np.zeros(3), [0, math.nan, 0], np.arange(3))

    @pytest.mark.parametrize("people", [0, 1])
    def test_too_few_people(self, people):
        for effect in (lambda: mean_of(*2 * [np.zeros(3 * people)]), lambda: bootstrap(lambda w: w.mean(1), people)):
            with pytest.raises(ValueError, match=f"at least two people, got {people}"):
                effect()


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
        assert verdict(effect, at_least) == says

    def test_a_claim_is_shown_with_what_decides_it(self):
        claim = Claim("L3", "c_id < c_res & all", Effect(0.264, 0.21, 0.31, 60).percent(), "%", 5.0)
        assert repr(claim) == (
            "L3 holds: c_id < c_res & all\n26.4 %, 95 % interval 21 to 31 % over 60 people; asked for: more than 5 %"
        )
        page = claim._repr_html_()
        assert "c_id &lt; c_res &amp; all" in page and ">holds</b>" in page and "21 to 31 %" in page


class TestAllOf:
    WORST = ("does not hold", "not decided", "holds")

    def part(self, name, random, at_least=0.0):
        """A claim about twelve skewed people, near what decides it."""
        values = random.exponential(size=12) - 0.6 + random.normal()
        return Claim(name, f"{name} is so", mean_of(values, np.arange(12), draws=500), "mm", at_least)

    @pytest.mark.parametrize("count", [2, 3])
    def test_it_says_what_the_part_with_the_worst_verdict_says(self, count):
        random, seen = np.random.default_rng(1), set()
        for _ in range(150):
            parts = [self.part(f"{k}", random, at_least=random.choice([-0.2, 0.0, 0.2])) for k in range(count)]
            verdicts = [part.verdict for part in parts]
            assert Claim.of_all("A", "all are so", parts).verdict == min(verdicts, key=self.WORST.index)
            seen.add(min(verdicts, key=self.WORST.index))
        assert seen == set(self.WORST)

    def test_it_names_the_part_and_keeps_its_bound(self):
        weak, strong = (mean_of(values, np.arange(3)) for values in ([0.9, 1.0, 1.1], [8.9, 9.0, 9.1]))
        both = Claim.of_all(
            "A", "both are so", [Claim("A, one", "", strong, "mm"), Claim("A, two", "", weak, "%", 2.0)]
        )
        assert (both.effect, both.unit, both.at_least) == (weak, "%", 2.0)
        assert both.statement == "both are so; least supported part: A, two"


def test_what_was_drawn_is_told_and_kept():
    effect = mean_of([1.0, 2.0, 3.0], np.arange(3)).over("photographs")
    assert "over 3 photographs;" in Claim("A", "", effect.percent(), "%").measured
    assert "3 photographs and 3 seeds" in repr(with_seeds(effect, [1.9, 2.0, 2.1]))
