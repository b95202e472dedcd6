import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gdacli.arm_results import Comparison, Effort, Predictions, arm_result, compare_arms, errors_without, pair_arms
from gdacli.metrics import error_rate, paired_difference

EFFORT = Effort(10, 320, 32)


def guesses(labels: np.ndarray, num_wrong: list[int]) -> Predictions:
    """Make predictions that take the next class in the first images of each seed."""
    classes = np.tile(labels, (len(num_wrong), 1))
    for row, count in enumerate(num_wrong):
        classes[row, :count] = (labels[:count] + 1) % 3
    return Predictions(classes, np.full(classes.shape, 0.9))


LABELS = np.tile([0, 1, 2], 100)


def test_an_arm_is_summed_up_over_its_seeds():
    late = np.arange(300) < 30
    found = arm_result("a", "about", guesses(LABELS, [27, 30, 33]), LABELS, late, 3, EFFORT)
    assert found.errors == pytest.approx([9, 10, 11])
    assert found.error.mean == pytest.approx(10)
    assert found.late_error.mean == pytest.approx(100 * (27 + 30 + 30) / 90)
    assert found.early_error.mean == pytest.approx(100 * 3 / 810)
    assert found.class_errors == pytest.approx([10, 10, 10])
    assert found.calibration_error.mean == pytest.approx(2 / 3)  # 90 % sure: off by 1, 0 and 1 points
    assert found.reliability == [pytest.approx((0.9, 0.9, 900))]
    assert found.confusion.tolist() == [[270, 30, 0], [0, 270, 30], [30, 0, 270]]
    assert found.error_interval is not None
    assert found.error.low is not None
    assert found.error.high is not None
    assert found.error_interval[0] < found.error.low < found.error.high < found.error_interval[1]


def test_each_reference_is_compared_with_what_comes_after_it():
    arms = {
        "targeted": guesses(LABELS, [20, 21, 23]),
        "random": guesses(LABELS, [30, 29, 33]),
        "original": guesses(LABELS, [30, 31, 32]),
    }
    found = compare_arms(arms, LABELS, pair_arms({name: {} for name in arms}, ["original"]))
    assert {reference: list(by_arm) for reference, by_arm in found.items()} == {
        "original": ["targeted", "random"],
        "random": ["targeted"],
    }
    clear, chance = found["original"]["targeted"], found["original"]["random"]
    assert clear.told
    assert clear.seeds_needed is None
    assert clear.difference.p_value is not None
    assert clear.corrected_p == pytest.approx(2 * clear.difference.p_value)  # of two arms
    assert found["random"]["targeted"].corrected_p == found["random"]["targeted"].difference.p_value
    assert clear.effect_size is not None
    assert clear.effect_size < 0
    assert not chance.told
    assert chance.seeds_needed is not None
    assert chance.seeds_needed > 3


def test_an_arm_is_compared_with_references_that_train_as_it_does():
    sam: dict = {"optimizer": "sam"}
    settings: dict[str, dict] = {
        "targeted": {}, "targeted_sam": sam, "original_sam": sam, "original": {}, "upsample": {}, "random": sam,
        "targeted_long": {"budget": 9},
    }  # fmt: skip
    assert pair_arms(settings, ["original", "original_sam"]) == {
        "original": ["targeted", "original_sam", "upsample", "targeted_long"],
        "original_sam": ["targeted_sam", "random", "targeted_long"],
        "upsample": ["targeted", "targeted_long"],
        "random": ["targeted_sam", "targeted_long"],
    }
    assert pair_arms({"plain": {}, "more": {}}, ["plain"]) == {"plain": ["more"]}
    assert pair_arms({"targeted": {}}, []) == {}


def test_errors_without_some_images():
    predictions = {"a": guesses(LABELS, [30, 60])}
    assert errors_without(predictions, LABELS, range(20)) == {"a": pytest.approx(100 * (10 + 40) / 560)}
    assert errors_without(predictions, LABELS, []) == errors_without(predictions, LABELS, range(300)) == {}


def test_nothing_to_compare_with_is_no_comparison():
    assert compare_arms({"other": guesses(LABELS, [3])}, LABELS, {}) == {}


def test_one_seed_tells_nothing():
    found = compare_arms(
        {"original": guesses(LABELS, [30]), "targeted": guesses(LABELS, [3])}, LABELS, {"original": ["targeted"]}
    )
    assert found == {"original": {"targeted": Comparison(paired_difference([1], [10]), None, None, None, None)}}


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 300), min_size=2, max_size=4), st.randoms(use_true_random=False))
def test_the_order_of_images_and_seeds_changes_nothing_but_rounding(num_wrong, random):
    first = guesses(LABELS, num_wrong)
    order = np.array(random.sample(range(300), 300))
    second = Predictions(first.classes[::-1, order], first.confidence[::-1, order])
    reference = guesses(LABELS, [40 + row for row in range(len(num_wrong))])
    moved = Predictions(reference.classes[::-1, order], reference.confidence[::-1, order])
    one = compare_arms({"original": reference, "a": first}, LABELS, {"original": ["a"]})["original"]["a"]
    other = compare_arms({"original": moved, "a": second}, LABELS[order], {"original": ["a"]})["original"]["a"]
    assert one.difference.mean == pytest.approx(other.difference.mean)
    assert one.corrected_p == pytest.approx(other.corrected_p)
    assert (one.interval is None) == (other.interval is None)
    if one.interval is not None:
        assert one.interval == pytest.approx(other.interval, abs=0.6)
    assert one.difference.mean == pytest.approx(
        np.mean([error_rate(a, LABELS) - error_rate(b, LABELS) for a, b in zip(first.classes, reference.classes)])
    )
