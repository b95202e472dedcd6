import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdacli.arms import Arm, arm_keys, milli, plan_pool, selected, synthetic_key
from gdacli.errors import GdaError

LABELS = np.array([0, 0, 0, 1, 1, 1])
STRATEGIES = {
    "cluster": (np.array([3.0, 2, 1, 6, 5, 4]), np.array([True, True, False, True, False, False])),
    "random": (np.array([0.1, 0.9, 0.8, 0.7, 0.2, 0.3]), np.zeros(6, bool)),
}


def choose(arm: Arm, *others: Arm) -> list[int]:
    return np.flatnonzero(selected(arm, {each.name: each for each in others}, STRATEGIES, LABELS)).tolist()


def test_like_takes_the_number_or_the_numbers_per_class_of_another_arm():
    targeted = Arm("targeted", "synthetic", "cluster", strengths=(0.5,))
    assert choose(targeted) == [0, 1, 3]
    assert choose(Arm("random", "synthetic", "random", "targeted"), targeted) == [1, 2, 3]
    assert choose(Arm("random", "synthetic", "random", "targeted", like_per_class=True), targeted) == [1, 2, 3]
    assert choose(Arm("same", "copies", "cluster", "targeted", like_per_class=True, k=2), targeted) == [0, 1, 3]
    assert choose(Arm("original")) == []


def test_a_strategy_that_was_not_run_is_named():
    with pytest.raises(GdaError, match=r"no strategy 'all' \(arm every\): run `gdacli select` again"):
        choose(Arm("every", "synthetic", "all"))


strengths = st.lists(st.sampled_from([0.3, 0.5, 0.7, 1.0]), min_size=1, max_size=3, unique=True)
synthetic_arms = st.lists(st.tuples(strengths, st.integers(1, 3)), max_size=4)


@given(synthetic_arms, st.data())
def test_the_pool_is_the_union_of_what_the_arms_need_each_image_once(settings, data):
    keys = [f"k{row}" for row in range(8)]
    arms = {
        f"a{n}": Arm(f"a{n}", "synthetic", "x", strengths=tuple(s), variants=v) for n, (s, v) in enumerate(settings)
    }
    masks = st.lists(st.booleans(), min_size=8, max_size=8).map(np.array)
    chosen = {name: data.draw(masks) for name in arms}
    plan = plan_pool(arms, chosen, len(keys))
    pool = {
        synthetic_key(keys[row], strength, variant)
        for strength, counts in plan.variants.items()
        for row in range(len(keys))
        for variant in range(counts[row])
    }
    needed = [key for name, arm in arms.items() for key in arm_keys(arm, keys, chosen[name])]
    assert pool == set(needed)
    assert plan.num_images == len(pool)


def test_sampled_arms_share_the_first_images():
    arms = {name: Arm(name, "sampled", num_images=count) for name, count in (("small", 2), ("large", 3))}
    none = np.zeros(4, bool)
    assert plan_pool(arms, dict.fromkeys(arms, none), 4).num_images == 3
    assert set(arm_keys(arms["small"], [], none)) < set(arm_keys(arms["large"], [], none))


def test_strengths_are_exact_thousandths():
    assert [milli(n / 1000) for n in range(1, 1001)] == list(range(1, 1001))
