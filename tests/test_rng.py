from hypothesis import given
from hypothesis import strategies as st

from gdacli.rng import combine, derive_seed, digest, uniform


def test_seeds_do_not_change_between_versions():
    assert derive_seed(0, "digits-0001", 500, 0) == 9012262846052612628
    assert digest("a", 1)[:16] == "135f17a475a61afd"


@given(st.lists(st.tuples(st.text(), st.integers(0, 1000)), unique=True, min_size=2))
def test_a_seed_depends_on_its_own_name_alone(names):
    alone = {name: derive_seed(0, *name) for name in names}
    assert {name: derive_seed(0, *name) for name in reversed(names)} == alone
    assert len(set(alone.values())) == len(names)
    assert all(0 <= seed < 2**63 for seed in alone.values())
    assert all(0 <= uniform(*name) < 1 for name in names)


def test_parts_are_not_run_together():
    assert digest("ab", "c") != digest("a", "bc")
    assert combine(["a", "b"]) != combine(["b", "a"])
