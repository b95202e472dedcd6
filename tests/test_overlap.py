import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdacli.overlap import agreement, jaccard, overlap_coefficient

NAMES = ["cat", "dog", "eel"]


def chosen(text: str) -> np.ndarray:
    return np.array([letter == "x" for letter in text])


def test_indices_of_sets_that_are_known():
    a, b, nothing = chosen("xxx.."), chosen(".xxx."), chosen(".....")
    assert jaccard(a, b) == 2 / 4
    assert overlap_coefficient(a, b) == 2 / 3
    assert overlap_coefficient(a, chosen(".x...")) == 1
    assert (jaccard(a, nothing), math.isnan(overlap_coefficient(a, nothing))) == (0, True)
    assert math.isnan(jaccard(nothing, nothing))


def test_agreement_counts_images_and_names_the_class_of_least():
    labels = np.array([0, 0, 0, 1, 1, 1, 2, 2])
    found = agreement([chosen("xx.x...."), chosen("xx..x..."), chosen("xx...x..")], labels, NAMES)
    assert (found["by_all"], found["by_some"], found["by_none"]) == (2 / 8, 3 / 8, 3 / 8)
    assert found["per_class"] == {"cat": 1.0, "dog": 0.0, "eel": None}
    assert found["lowest"] == "dog"
    assert (found["jaccard"], found["overlap"]) == (2 / 4, 2 / 3)
    assert found["sizes"] == [3 / 8] * 3
    empty = agreement([chosen("........")] * 2, labels, NAMES)
    assert (empty["jaccard"], empty["overlap"], empty["lowest"], empty["by_none"]) == (None, None, None, 1)


def test_what_chance_gives_is_what_random_choices_of_these_sizes_give():
    rng = np.random.default_rng(0)
    labels, sizes = np.repeat([0, 1, 2], [40, 60, 100]), ([30, 10, 20], [20, 12, 50], [10, 30, 40])

    def draw(size: list[int]) -> np.ndarray:
        result = np.zeros(200, bool)
        for label, count in enumerate(size):
            result[rng.choice(np.flatnonzero(labels == label), count, replace=False)] = True
        return result

    drawn = [agreement([draw(size) for size in sizes], labels, NAMES) for _ in range(400)]
    for name in ("jaccard", "overlap", "by_all", "by_some", "by_none"):
        mean = np.mean([each[name] for each in drawn])
        assert drawn[0]["chance"][name] == pytest.approx(mean, abs=0.005), name


@given(st.lists(st.lists(st.booleans(), min_size=12, max_size=12), min_size=2, max_size=4))
def test_shares_sum_to_one_and_a_set_agrees_with_itself(votes):
    labels = np.arange(12) % 3
    selections = [np.array(each) for each in votes]
    found = agreement(selections, labels, NAMES)
    for shares in (found, found["chance"]):
        assert shares["by_all"] + shares["by_some"] + shares["by_none"] == pytest.approx(1)
    if found["jaccard"] is not None and all(each.any() for each in selections):
        assert found["jaccard"] <= found["overlap"] + 1e-12
    same = agreement([selections[0]] * 3, labels, NAMES)
    assert same["jaccard"] in (1, None)
    assert same["by_some"] == pytest.approx(0)
