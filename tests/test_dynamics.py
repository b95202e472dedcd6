import math

import numpy as np
import pytest
import torch

from gdacli.dynamics import QUANTITIES, describe, read_probe, slowdown
from gdacli.errors import GdaError


def described(logits: list[list[float]], labels: list[int]) -> dict[str, list[float]]:
    columns = describe(torch.tensor(logits), torch.tensor(labels)).T
    return dict(zip(QUANTITIES, columns.tolist(), strict=True))


def test_quantities_are_exact_and_stable():
    found = described([[0.0, 0.0], [1000.0, 0.0], [0.0, 1000.0]], [0, 1, 1])
    assert found["loss"] == pytest.approx([math.log(2), 1000, 0])
    assert found["correct"] == [1, 0, 1]
    assert found["margin"] == [0, -1000, 1000]
    assert found["el2n"] == pytest.approx([math.sqrt(0.5), math.sqrt(2), 0])
    assert found["entropy"] == pytest.approx([math.log(2), 0, 0])


def test_the_margin_is_to_the_highest_other_logit():
    assert described([[1.0, 4.0, 3.0]], [1])["margin"] == [1]
    assert described([[1.0, 4.0, 3.0]], [0])["margin"] == [-3]


def first_slow(errors: list[float], start: float) -> int:
    """Return the first epoch at which the fall has slowed down, 0 if it never has."""
    return next((epoch for epoch in range(1, len(errors) + 1) if slowdown(errors[:epoch], start)), 0)


def test_the_fall_slows_where_a_curve_bends():
    decay = [90 * 0.6**epoch for epoch in range(1, 40)]
    assert first_slow(decay, 90) == 8
    slower = [90 * 0.9**epoch for epoch in range(1, 40)]
    assert 15 < first_slow(slower, 90) < 40
    line = [90.0 - 2 * epoch for epoch in range(1, 40)]
    assert first_slow(line, 90) == 0
    bend = [90 - 10 * min(epoch, 8) - 0.1 * max(epoch - 8, 0) for epoch in range(1, 20)]
    assert 9 <= first_slow(bend, 90) <= 11


def test_a_training_that_has_not_begun_has_not_slowed_down():
    assert first_slow([90.0] * 20, 90) == 0
    assert first_slow([93.0, 92, 91, 91, 91, 91], 90) == 0
    late_start = [90.0] * 6 + [70.0, 50, 35, 28, 25, *[24.0] * 8]
    assert first_slow(late_start, 90) > 9


def test_noise_does_not_stop_a_steep_fall():
    rng = np.random.default_rng(0)
    for _ in range(50):
        noisy = [90 * 0.8**epoch + rng.normal(0, 1) for epoch in range(1, 40)]
        assert first_slow(noisy, 90) >= 6


def test_a_probe_that_did_not_run_is_named(tmp_path):
    with pytest.raises(GdaError, match=r"images\.parquet does not exist: run `gdacli probe` first"):
        read_probe(tmp_path)
