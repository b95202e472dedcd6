import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gdacli.comparison import (
    MAX_SEEDS,
    bootstrap_difference,
    bootstrap_error,
    cohens_d,
    hedges_g,
    holm,
    seeds_needed,
)
from gdacli.metrics import estimate, paired_difference

REPEATS = 400
FEWEST, MOST = (int(end) for end in stats.binom.interval(0.999, REPEATS, 0.05))
"""How often a test that keeps its promise of 5 % calls a difference, in all but one of 1,000 such experiments."""


def draw_wrong(logits: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.random(logits.shape) < 1 / (1 + np.exp(-logits))


def with_effect(d: float, num: int = 10):
    """Make a paired difference whose mean is d standard deviations."""
    values = np.linspace(-1, 1, num)
    return paired_difference(values / values.std(ddof=1) + d, np.zeros(num))


def test_the_paired_test_calls_a_difference_as_often_as_promised():
    """Luck of a seed that both arms share: an unpaired test would lose nearly all of its power, and never call."""
    rng = np.random.default_rng(0)
    runs = [rng.normal(5, 1, 3) + rng.normal(0, 0.2, (2, 3)) for _ in range(REPEATS)]
    assert FEWEST <= sum(paired_difference(*run).significant for run in runs) <= MOST
    assert sum(stats.ttest_ind(*run).pvalue <= 0.05 for run in runs) < FEWEST


def test_a_family_of_arms_calls_a_difference_no_more_often_than_promised():
    rng = np.random.default_rng(0)
    corrected = uncorrected = 0
    for _ in range(REPEATS):
        reference, *arms = rng.normal(5, 0.3, (5, 3))
        p_values = [paired_difference(arm, reference).p_value for arm in arms]
        uncorrected += min(p for p in p_values if p is not None) <= 0.05
        corrected += min(p for p in holm(p_values) if p is not None) <= 0.05
    assert FEWEST <= corrected <= MOST < uncorrected


@pytest.mark.parametrize(("seed_sd", "image_sd"), [(0.3, 0.0), (0.0, 2.5)])
def test_the_bootstrap_calls_a_difference_as_often_as_promised(seed_sd, image_sd):
    """Also when each arm has its own hard images, where the paired test tells of this very test set alone."""
    rng = np.random.default_rng(0)
    called = over_seeds_alone = 0
    for _ in range(REPEATS):
        logits = rng.normal(-3, 2, 400) + rng.normal(0, image_sd, (2, 1, 400)) + rng.normal(0, seed_sd, (2, 3, 1))
        arm, reference = draw_wrong(logits, rng)
        interval = bootstrap_difference(arm, reference, rng, num_resamples=500)
        called += interval is not None and (interval[0] > 0 or interval[1] < 0)
        over_seeds_alone += paired_difference(100 * arm.mean(1), 100 * reference.mean(1)).significant
    assert called <= MOST
    assert called >= FEWEST or image_sd
    assert (over_seeds_alone > MOST) == bool(image_sd)


def test_the_bootstrap_over_images_that_are_all_alike_is_the_t_interval():
    """Whether an image is wrong does not depend on the image: what is left is the chance of seeds."""
    wrong = np.array([np.roll(np.arange(600) < num, 200 * seed) for seed, num in enumerate((30, 37, 51))])
    t_interval = estimate(100 * wrong.mean(1))
    interval = bootstrap_error(wrong, np.random.default_rng(0))
    assert interval == pytest.approx((t_interval.low, t_interval.high), rel=0.01)


@given(st.lists(st.integers(0, 60), min_size=2, max_size=5, unique=True))
def test_the_interval_over_images_too_is_never_the_narrower_one(num_wrong):
    wrong = np.array([np.arange(80) < num for num in num_wrong])
    seeds, both = estimate(100 * wrong.mean(1)), bootstrap_error(wrong, np.random.default_rng(0))
    assert seeds.low is not None
    assert seeds.high is not None
    assert both is not None
    assert both[0] <= seeds.low + 1e-9
    assert both[1] >= seeds.high - 1e-9


def test_the_bootstrap_over_many_seeds_is_the_binomial_of_the_images():
    """Every model is wrong on the same images, but for one more: only the images' chance is left."""
    wrong = np.tile(np.arange(2000) < 100, (40, 1))
    wrong[0, 100] = True
    half = 1.96 * 100 * math.sqrt(0.05 * 0.95 / 2000)
    interval = bootstrap_error(wrong, np.random.default_rng(0))
    assert interval == pytest.approx((5 - half, 5 + half), abs=0.06)


def test_the_bootstrap_is_paired_and_repeatable():
    rng = np.random.default_rng(0)
    hard = rng.normal(-2, 3, 1000)
    reference = draw_wrong(np.tile(hard, (5, 1)), rng)
    arm = reference & (rng.random((5, 1000)) < 0.9)
    interval = bootstrap_difference(arm, reference, np.random.default_rng(7))
    unpaired = bootstrap_error(reference, rng)
    assert interval is not None
    assert unpaired is not None
    assert interval[1] < 0
    assert interval[1] - interval[0] < 0.5 * (unpaired[1] - unpaired[0])
    assert interval == bootstrap_difference(arm, reference, np.random.default_rng(7))
    turned = bootstrap_difference(reference, arm, np.random.default_rng(7))
    assert turned == pytest.approx((-interval[1], -interval[0]), rel=0.05)


def test_the_bootstrap_of_an_error_ends_at_0_and_of_a_difference_does_not():
    wrong = np.zeros((2, 100), bool)
    wrong[0, 0] = True
    interval = bootstrap_error(wrong, np.random.default_rng(0))
    assert interval is not None
    assert interval[0] == 0 < interval[1]
    interval = bootstrap_error(~wrong, np.random.default_rng(0))
    assert interval is not None
    assert interval[0] < 100 == interval[1]
    interval = bootstrap_difference(wrong, np.zeros_like(wrong), np.random.default_rng(0))
    assert interval is not None
    assert interval[0] < 0 < interval[1]


def test_the_bootstrap_knows_no_spread_of_one_seed():
    rng = np.random.default_rng(0)
    assert bootstrap_error(rng.random((1, 50)) < 0.2, rng) is None
    same = np.tile(rng.random(50) < 0.2, (3, 1))
    assert bootstrap_error(same, rng) is None
    assert bootstrap_difference(same, same, rng) is None


def test_what_is_no_table_of_errors_is_refused():
    rng = np.random.default_rng(0)
    good = np.zeros((3, 4), bool)
    for bad in (np.zeros((3, 4)), np.zeros(4, bool)):
        with pytest.raises(ValueError, match="needs bool"):
            bootstrap_error(bad, rng)
        with pytest.raises(ValueError, match="needs two bool"):
            bootstrap_difference(good, bad, rng)
    with pytest.raises(ValueError, match="one shape"):
        bootstrap_difference(good, good[:2], rng)


def test_one_image_says_nothing_of_others():
    assert bootstrap_error(np.array([[True], [False]]), np.random.default_rng(0)) is None


def test_effect_sizes_by_hand():
    difference = paired_difference([4, 5, 6.5], [5, 5.5, 6.5])
    assert cohens_d(difference) == pytest.approx(-0.5 / 0.5)
    assert hedges_g(difference) == pytest.approx(-1 * math.sqrt(1 / math.pi))  # Gamma(1) / (sqrt(1) Gamma(1 / 2))
    assert hedges_g(with_effect(0.7)) == pytest.approx(0.7 * (1 - 3 / (4 * 9 - 1)), rel=1e-3)


def test_effect_sizes_that_are_not_defined():
    for undefined in (paired_difference([1], [2]), paired_difference([1, 2, 3], [2, 3, 4])):
        assert (cohens_d(undefined), hedges_g(undefined), seeds_needed(undefined)) == (None, None, None)
    assert cohens_d(paired_difference([1, 2], [2, 2.5])) is not None
    assert hedges_g(paired_difference([1, 2], [2, 2.5])) is None


def test_hedges_correction_takes_the_bias_away():
    rng = np.random.default_rng(0)
    runs = [paired_difference(rng.normal(0.5, 1, 5), np.zeros(5)) for _ in range(1500)]
    assert np.mean([hedges_g(run) for run in runs]) == pytest.approx(0.5, abs=0.05)
    assert np.mean([cohens_d(run) for run in runs]) > 0.58


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.02, None]) == [0.04, None]
    assert holm([]) == []
    assert holm([0.01, 0.02], num=4) == pytest.approx([0.04, 0.06])
    with pytest.raises(ValueError, match="at most num"):
        holm([0.1, 0.2], num=1)
    with pytest.raises(ValueError, match="0 to 1"):
        holm([math.nan])


def test_what_is_compared_with_the_best_is_corrected_for_all_pairs():
    """Of arms that do not differ one is called worse than the best too often if their number alone is reckoned with."""
    rng = np.random.default_rng(0)
    called = {10: 0, 55: 0}
    for _ in range(REPEATS):
        errors = rng.normal(5, 0.3, (11, 5))
        best = errors.mean(1).argmin()
        p_values = [paired_difference(each, errors[best]).p_value for each in np.delete(errors, best, axis=0)]
        for num in called:
            called[num] += min(p for p in holm(p_values, num) if p is not None) <= 0.05
    assert called[55] <= MOST < called[10]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.randoms())
def test_holm_keeps_the_order_and_lies_between_the_raw_and_bonferroni(p_values, random):
    corrected = [p for p in holm(p_values) if p is not None]
    for raw, each in zip(p_values, corrected, strict=True):
        assert raw <= each <= min(1, len(p_values) * raw)
    for (raw, each), (other, its) in itertools.combinations(zip(p_values, corrected, strict=True), 2):
        assert (raw <= other and each <= its) or (raw >= other and each >= its)
    places = random.sample(range(len(p_values)), len(p_values))
    assert holm([p_values[place] for place in places]) == [corrected[place] for place in places]


@pytest.mark.parametrize(("d", "num"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10), (2.0, 5), (20.0, 2), (1e6, 2)])
def test_seeds_needed_are_the_textbooks(d, num):
    assert seeds_needed(with_effect(d)) == seeds_needed(with_effect(-d)) == num


def test_seeds_needed_end_at_a_cap_and_know_no_difference_of_0():
    assert seeds_needed(with_effect(0.01)) == MAX_SEEDS + 1
    assert seeds_needed(with_effect(0.0887)) in (999, 1000)
    assert seeds_needed(paired_difference([1, 3], [3, 1])) is None


def test_so_many_seeds_do_tell():
    needed = seeds_needed(with_effect(1.2))
    assert needed is not None
    rng = np.random.default_rng(0)
    called = [paired_difference(rng.normal(1.2, 1, needed), np.zeros(needed)).significant for _ in range(1000)]
    assert 0.8 - 0.04 < np.mean(called) < 0.9
