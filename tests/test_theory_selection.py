"""How well the product's selection finds the slow-learnable examples of the two-layer network."""

import csv
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import invoke

from gdacli.dynamics import of_logits, slowdown
from gdacli.errors import GdaError
from gdacli.theory import early_selection
from gdacli.theory.separation import (
    STRATEGIES,
    Course,
    Setting,
    network_logits,
    quality,
    recorded_epochs,
    selection_quality,
    slowdown_epochs,
    train,
    window,
)

SETTING = Setting(
    num_examples=60,
    dimension=40,
    num_filters=6,
    alpha=0.7,
    beta_e=1.0,
    beta_d=0.5,
    noise_sd=1.0,
    initial_sd=0.3,
    learning_rate=1.0,
    epochs=40,
)
RUN: dict[str, Any] = {"setting": SETTING, "num_recorded": 4, "level": 0.8, "repeats": 3, "seed": 0}


@pytest.fixture(scope="module")
def course():
    return train(np.random.default_rng(0), SETTING, 4)


@pytest.fixture(scope="module")
def outcome():
    return early_selection.run(**RUN, vary=["noise_sd=0.5"])


def test_the_networks_cross_entropy_is_its_logistic_loss(course):
    margins, labels = course.margins[10, 0], course.examples.labels[0]
    logits, classes = network_logits(margins, labels)
    dynamics = of_logits(logits[None], classes)
    wanted = torch.nn.functional.softplus(-torch.from_numpy(margins)).numpy()
    assert np.allclose(dynamics.loss[0], wanted, rtol=1e-5, atol=1e-6)
    assert (dynamics.correct[0] == (margins > 0)).all()


def test_quality_counts_hits():
    slow, chosen = np.array([True, True, True, False, False]), np.array([True, True, False, True, False])
    found = quality(np.array([5.0, 4.0, 3.0, 2.0, 1.0]), chosen, slow)
    assert found == pytest.approx(
        {"precision": 2 / 3, "recall": 2 / 3, "share": 0.6, "f1": 2 / 3, "average_precision": 1.0}
    )
    nothing = quality(np.zeros(5), np.zeros(5, bool), slow)
    assert np.isnan(nothing.pop("precision"))
    assert nothing == pytest.approx({"recall": 0, "share": 0, "f1": 0, "average_precision": 0.6})


def hand_made(margins):
    """Write a course of given margins [T + 1, N], the last 4 of 10 examples slow."""
    examples = train(np.random.default_rng(0), replace(SETTING, num_examples=10, alpha=0.6, epochs=8), 1).examples
    labels = np.where(np.arange(10) % 2, 1.0, -1.0)[None]
    margins = np.asarray(margins, float)[:, None]
    return Course(replace(examples, labels=labels), margins, np.zeros((len(margins), 1)))


def test_the_product_finds_what_is_there_to_find():
    apart = [5.0] * 6 + [-0.2, 0.2, 0.1, 0.1]
    perfect = selection_quality(hand_made([apart]), 0, 0, seed=0)
    assert [perfect[name]["f1"] for name in STRATEGIES] == pytest.approx([1, 1, 2 / 5, 0.4])
    assert perfect["misclassified"]["precision"] == 1
    assert perfect["random"]["precision"] == perfect["random"]["average_precision"] == 0.4
    backwards = selection_quality(hand_made([[-each for each in apart]]), 0, 0, seed=0)
    assert backwards["cluster"]["recall"] == backwards["high_loss"]["recall"] == 0


def test_random_takes_as_many_as_cluster(course):
    found = selection_quality(course, 3, 1, seed=0)
    share = found["cluster"]["share"]
    assert share != 0.3
    assert (found["random"]["precision"], found["random"]["recall"], found["random"]["share"]) == (0.3, share, share)
    rng, slow, f1 = np.random.default_rng(0), course.examples.is_slow, []
    for _ in range(2000):
        f1.append(quality(np.zeros(60), rng.permutation(60) < round(60 * share), slow)["f1"])
    assert abs(np.mean(f1) - found["random"]["f1"]) < 4 * np.std(f1) / np.sqrt(2000)


def test_a_margin_is_the_feature_and_the_noise(course):
    quiet = train(np.random.default_rng(0), replace(SETTING, noise_sd=0), 2)
    slow = quiet.margins[:, :, quiet.examples.is_slow]
    assert np.allclose(slow, quiet.slow_feature[:, :, None], rtol=0, atol=1e-12)
    noise = (course.margins - course.slow_feature[:, :, None])[:, :, course.examples.is_slow]
    assert np.abs(noise[0]).mean() > 0.01
    assert (course.error(40) < 5).all()
    assert course.error(0, course.examples.is_slow).mean() > 30


def test_the_probes_own_rule_stops_the_network():
    errors = [50, 40, 30, 20, 10, 10, 10, 10, 10, 10]
    margins = [[-1.0] * (each // 10) + [1.0] * (10 - each // 10) for each in errors]
    (stop,) = slowdown_epochs(hand_made(margins))
    assert stop == next(epoch for epoch in range(1, 10) if slowdown(errors[:epoch], 50))
    assert slowdown_epochs(hand_made(margins[:5])) == [None]


def test_the_window_is_the_longest_sure_run():
    good, unsure, bad = np.array([0.9, 0.9, 0.92]), np.array([0.5, 1.0, 1.0]), np.array([0.1, 0.2, 0.1])
    assert window({1: good, 2: bad, 3: good, 5: good, 9: unsure}, 0.8) == (3, 5)
    assert window({1: bad, 2: unsure}, 0.8) is None


def test_recorded_epochs_end_with_the_last():
    assert recorded_epochs(40, 4) == [1, 3, 12, 40]
    assert recorded_epochs(8, 100) == list(range(1, 9))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": 1.0}, "--alpha: 1 of 60 examples leaves 0 slow-learnable ones"),
        ({"beta_d": 1.0}, "--beta-d: found 1, needs 0 or more and below --beta-e"),
        ({"noise_sd": -1.0}, "--noise-sd: found -1"),
    ],
    ids=["alpha", "beta_d", "noise_sd"],
)
def test_settings_that_make_no_sense(change, message):
    with pytest.raises(GdaError, match=message):
        replace(SETTING, **change)


@pytest.mark.parametrize("change", ["noise=1", "alpha", "alpha=x", "alpha=2", "beta_d=-1", "beta_d=3"])
def test_changes_that_make_no_sense(change):
    with pytest.raises(GdaError, match="^--vary") as error:
        early_selection.run(**RUN, vary=[change])
    assert "\n" not in str(error.value)


def test_a_run_that_does_not_fit_in_memory_is_refused():
    with pytest.raises(GdaError, match="^--epochs: found 100000000, with --num-examples 60, --dimension 40"):
        early_selection.run(**RUN | {"setting": replace(SETTING, epochs=10**8)}, vary=[])


def test_a_training_that_diverges_is_an_error():
    with pytest.raises(GdaError, match="--learning-rate: 1e\\+30 diverged in epoch"):
        train(np.random.default_rng(0), replace(SETTING, learning_rate=1e30), 2)


def test_the_figures_are_those_of_the_training(outcome, course):
    figures = outcome.figures
    row = next(each for each in figures["quality"] if (each["epoch"], each["strategy"]) == (12, "cluster"))
    assert row["f1_low"] <= row["f1"] <= row["f1_high"] <= 1
    assert row["f1"] > next(each["f1"] for each in figures["quality"] if each["strategy"] == "random") + 0.2
    assert [each["epoch"] for each in figures["training"]] == [1, 3, 12, 40]
    assert {each["setting"] for each in figures["windows"]} == {"as set", "noise_sd=0.5"}
    for window_row in (each for each in figures["windows"] if each["setting"] == "as set"):
        f1 = [each["f1"] for each in figures["quality"] if each["strategy"] == window_row["strategy"]]
        assert window_row["best_f1"] == pytest.approx(max(f1))
        if window_row["strategy"] == "random":
            assert window_row["auto_precision"] == pytest.approx(0.3) != window_row["auto_recall"]
    slow, (at_3,) = course.examples.is_slow, early_selection._training_rows(course, [3])
    for name, rows in (("slow_error", slow), ("fast_error", ~slow)):
        assert at_3[name] == pytest.approx(100 * (course.margins[3][:, rows] <= 0).mean())
    assert at_3["slow_error"] != at_3["fast_error"]
    assert {each["verdict"] for each in figures["differences"]} <= {
        *("equal", "no significant difference", "cluster better", "cluster worse"),
    }
    for each in figures["differences"]:
        if str(each["verdict"]).startswith("cluster") and each["p_value"] is not None:
            assert each["p_value_holm"] <= 0.05
            assert each["low"] > 0 or each["high"] < 0


def test_where_the_probe_stops_the_rivals_are_compared(outcome):
    rows = outcome.figures["stop"]
    assert {(each["setting"], each["rival"]) for each in rows} == {
        (name, rival) for name in ("as set", "noise_sd=0.5") for rival in STRATEGIES[1:]
    }
    assert all(each["repeats"] > 1 for each in rows)
    assert all(each["difference"] > 0.2 for each in rows if each["rival"] == "random")


def test_a_change_more_changes_no_other_figure(outcome):
    again = early_selection.run(**RUN, vary=[])
    assert again.figures["quality"] == outcome.figures["quality"]
    assert again.figures["windows"] == outcome.figures["windows"][: len(STRATEGIES)]


def test_the_command_writes_its_files(tmp_path):
    words = "--num-examples 40 --dimension 20 --num-filters 4 --epochs 8 --num-recorded 3 --repeats 2 --vary noise_sd=1"
    outcome = invoke("theory", "selection", *words.split(), "-o", str(tmp_path / "out"), "--json")
    assert outcome.code == 0, outcome.stderr
    result = json.loads(outcome.stdout)
    assert result["settings"]["num_examples"] == 40
    tables = ["", "-training", "-differences", "-windows"]  # the probe stops in no repeat: nothing to compare there
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == sorted(
        ["selection.json", "selection.png", *(f"selection{name}.csv" for name in tables)]
    )
    with (tmp_path / "out/selection.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 3 * len(STRATEGIES)
