"""Common and rare features: the gradient of mixed data against autograd, what stays equal, and what each arm does."""

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import invoke
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy import stats

from gdacli.errors import GdaError
from gdacli.theory import mixup_benefit
from gdacli.theory.mixup_benefit import NUM_TEST, Setting, difference_rows, measure
from gdacli.theory.mixup_training import Mixing, descent, draw_mixing, soft_gradient
from gdacli.theory.rare_features import (
    NUM_FEATURES,
    draw_filters,
    draw_patches,
    feature_alignments,
    outputs,
    responses,
)

DATA: dict[str, Any] = {
    "repeats": 2,
    "num_examples": 12,
    "dimension": 20,
    "rare_share": 0.25,
    "distractor": 0.5,
    "noise_sd": 1.5,
    "aligned": False,
}
SETTING = Setting(
    num_examples=60,
    dimension=150,
    num_filters=6,
    rare_share=0.1,
    distractor=0.2,
    noise_sd=3.0,
    aligned=True,
    initial_sd=0.02,
    learning_rate=2.0,
    updates=200,
    alpha=1.0,
    label_alpha=1.0,
)
RUN: dict[str, Any] = {"stops": [5, 8], "num_recorded": 5, "level": 25.0, "repeats": 3, "seed": 0}


@pytest.fixture(scope="module")
def patches():
    return draw_patches(np.random.default_rng(0), **DATA)


@pytest.fixture(scope="module")
def weights():
    return draw_filters(np.random.default_rng(1), 2, 6, 20, 0.4)


def written_out(patches, repeat):
    """Write the examples out from the definition: [N, 3, d]."""
    x = np.zeros((12, 3, 20))
    for row in range(12):
        y, rare = patches.labels[repeat, row], patches.is_rare[row]
        contents = np.zeros((3, 20))
        contents[0, 2 * int(rare) + int(y < 0)] = 1
        contents[1, patches.distractor[repeat, row]] = 0.5
        contents[2, NUM_FEATURES:] = patches.noise[repeat, row]
        x[row] = contents[patches.order[repeat, row]]
    return torch.from_numpy(x)


@pytest.mark.parametrize("mixed", [False, True], ids=["plain", "mixed"])
def test_the_gradient_is_autograds_of_the_mixed_inputs(patches, weights, mixed):
    mixing = draw_mixing(np.random.default_rng(2), 2, 12, 1.0, 0.7) if mixed else None
    found = soft_gradient(weights, patches, mixing)
    for repeat in range(2):
        x, y = written_out(patches, repeat), torch.from_numpy(patches.labels[repeat])
        if mixing is not None:
            share, of_label = (torch.from_numpy(each[repeat]) for each in (mixing.weight, mixing.label_weight))
            partner = torch.from_numpy(mixing.partner[repeat])
            x = share[:, None, None] * x + (1 - share)[:, None, None] * x[partner]
            y = of_label * y + (1 - of_label) * y[partner]
        w = torch.from_numpy(weights[repeat]).requires_grad_()
        squares = (x @ w.T).square().sum(1)
        f = squares[:, :3].sum(1) - squares[:, 3:].sum(1)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(f, (1 + y) / 2)
        (wanted,) = torch.autograd.grad(loss, w)
        assert np.allclose(found[repeat], wanted.numpy(), rtol=0, atol=1e-13)
        if mixing is None:
            assert np.allclose(outputs(responses(weights, patches))[repeat], f.detach().numpy(), rtol=0, atol=1e-12)


def test_mixing_by_weights_of_one_is_no_mixing(patches, weights):
    ones = np.ones((2, 12))
    partner = draw_mixing(np.random.default_rng(2), 2, 12, 1.0, None).partner
    alone = soft_gradient(weights, patches)
    assert np.allclose(soft_gradient(weights, patches, Mixing(partner, ones, ones)), alone, rtol=0, atol=1e-15)
    itself = np.broadcast_to(np.arange(12), (2, 12))  # mixed with itself by any weight: the same example
    any_weight = np.random.default_rng(3).random((2, 12))
    same = soft_gradient(weights, patches, Mixing(itself, any_weight, any_weight))
    assert np.allclose(same, alone, rtol=0, atol=1e-14)
    assert not np.allclose(soft_gradient(weights, patches, Mixing(partner, ones, 0 * ones)), alone, atol=1e-4)


@hypothesis_settings(max_examples=20)
@given(st.integers(0, 2**32))
def test_swapping_the_two_of_every_pair_changes_nothing(seed):
    patches = draw_patches(np.random.default_rng(seed), **DATA)
    weights = draw_filters(np.random.default_rng(seed), 2, 6, 20, 0.4)
    mixing = draw_mixing(np.random.default_rng(seed), 2, 12, 1.0, 1.0)
    back = np.argsort(mixing.partner, axis=1)
    swapped = Mixing(back, *(1 - np.take_along_axis(each, back, 1) for each in (mixing.weight, mixing.label_weight)))
    found = soft_gradient(weights, patches, swapped)
    assert np.allclose(found, soft_gradient(weights, patches, mixing), rtol=0, atol=1e-13)


def test_weights_are_drawn_as_the_product_draws_them():
    mixing = draw_mixing(np.random.default_rng(0), 40, 50, 0.4, 2.0)
    assert (np.sort(mixing.partner, axis=1) == np.arange(50)).all()
    assert ((mixing.weight < 0.5) == (mixing.label_weight < 0.5)).all()
    for drawn, alpha in ((mixing.weight, 0.4), (mixing.label_weight, 2.0)):
        assert stats.kstest(drawn.ravel(), stats.beta(alpha, alpha).cdf).pvalue > 1e-3
    one = draw_mixing(np.random.default_rng(0), 40, 50, 0.4, None)
    assert one.weight is one.label_weight
    assert (one.weight == mixing.weight).all()
    assert (one.partner == mixing.partner).all()


def test_the_kinds_are_as_many_as_asked_for(patches):
    assert patches.is_rare.sum() == 3
    assert ((patches.feature >= 2) == patches.is_rare).all()
    assert (patches.feature % 2 == (patches.labels < 0)).all()
    assert (draw_patches(np.random.default_rng(0), **DATA | {"aligned": True}).order == np.arange(3)).all()
    many = draw_patches(np.random.default_rng(0), **DATA | {"num_examples": 5000})
    squares = (many.noise**2).sum(2)  # mean 1.5 ** 2, variance 2 * 1.5**4 / 16
    assert abs(squares.mean() - 2.25) < 4 * 2.25 * np.sqrt(2 / 16 / squares.size)


def test_perfect_filters_make_no_error_without_feature_noise():
    data = DATA | {"distractor": 0.0, "noise_sd": 0.0}
    patches = draw_patches(np.random.default_rng(0), **data)
    weights = np.zeros((2, 4, 20))
    weights[:, [0, 1, 2, 3], [0, 2, 1, 3]] = 1  # common and rare of y = 1, then those of y = -1
    assert (feature_alignments(weights) == 1).all()
    assert (patches.labels * outputs(responses(weights, patches)) == 1).all()
    found = measure(weights, patches, patches, 0.25)
    assert all((found[name] == 0).all() for name in ("common_error", "rare_error", "error", "rare_train_error"))
    weights[:, [1, 3]] = 0  # the rare features unlearned: f = 0 is an error
    found = measure(weights, patches, patches, 0.25)
    assert (found["rare_error"] == 100).all()
    assert (found["error"] == 25).all()


def arms(**changes):
    setting = replace(SETTING, updates=10, **changes)
    return mixup_benefit.train_arms(setting, [5, 8], {2, 5, 7, 8, 10}, 3, 0, lambda note: None)


def test_an_arm_that_stops_is_mixup_until_then_and_plain_after():
    curves = arms()
    assert list(curves) == ["erm", "mixup", "two_weights", "stop_5", "stop_8"]
    for name in ("rare_alignment", "common_alignment"):
        at = {arm: {update: each[name] for update, each in curve.items()} for arm, curve in curves.items()}
        assert (at["stop_5"][5] == at["mixup"][5]).all()
        assert (at["stop_8"][7] == at["mixup"][7]).all()
        assert not np.allclose(at["stop_5"][7], at["mixup"][7], rtol=1e-6)
        assert not np.allclose(at["erm"][2], at["mixup"][2], rtol=1e-6)
        assert not np.allclose(at["two_weights"][2], at["mixup"][2], rtol=1e-6)


def test_a_stopped_arm_takes_the_plain_step():
    rng, setting = np.random.default_rng(0), replace(SETTING, updates=3)
    train, test = mixup_benefit.draw_sets(rng, setting, 2)
    assert (train.is_rare.sum(), test.is_rare.sum(), len(test.is_rare)) == (6, NUM_TEST / 2, NUM_TEST)
    start = draw_filters(rng, 2, 6, 150, 0.1)
    (_, one), (_, two) = descent(start, train, 0.5, range(1, 3), lambda update: None)
    assert np.allclose(two, one - 0.5 * soft_gradient(one, train), rtol=0, atol=1e-15)
    assert np.allclose(one, start - 0.5 * soft_gradient(start, train), rtol=0, atol=1e-15)


def test_another_stop_moves_no_other_arm():
    setting = replace(SETTING, updates=10)
    one = mixup_benefit.train_arms(setting, [5], {10}, 3, 0, lambda note: None)
    for arm in ("erm", "mixup", "two_weights", "stop_5"):
        assert (one[arm][10]["rare_alignment"] == arms()[arm][10]["rare_alignment"]).all()


def test_mixup_learns_the_rare_feature_where_plain_training_does_not():
    found = mixup_benefit.run(setting=SETTING, **RUN | {"stops": [100]})
    ends: dict[Any, Any] = {row["arm"]: row for row in found.figures["curves"] if row["update"] == 200}
    assert ends["mixup"]["rare_alignment_low"] > ends["erm"]["rare_alignment_high"]
    assert ends["mixup"]["rare_error"] + 20 < ends["erm"]["rare_error"]
    assert ends["erm"]["common_error"] < 2
    assert ends["erm"]["rare_train_error"] == 0  # memorised
    rows: dict[Any, Any] = {row["arm"]: row for row in found.figures["learned"]}
    assert rows["mixup"]["learned_at_the_end"] > rows["erm"]["learned_at_the_end"]
    assert rows["mixup"]["first_update"] <= rows["mixup"]["median_update"] <= rows["mixup"]["last_update"]


def test_differences_are_paired_and_corrected():
    rng = np.random.default_rng(0)
    base = rng.uniform(20, 40, 8)
    ends = {
        arm: {"common_error": base, "rare_error": base + shift + rng.normal(0, 0.1, 8), "error": base + shift}
        for arm, shift in (("erm", 0.0), ("mixup", -5.0), ("stop_5", 0.0))
    }
    rows: dict[Any, Any] = {(row["arm"], row["reference"], row["measure"]): row for row in difference_rows(ends)}
    assert len(rows) == 9
    assert rows["mixup", "erm", "rare_error"]["verdict"] == "better"
    assert rows["stop_5", "mixup", "rare_error"]["verdict"] == "worse"
    assert rows["stop_5", "erm", "common_error"]["verdict"] == "equal"
    assert rows["stop_5", "erm", "rare_error"]["verdict"] == "no significant difference"
    assert rows["mixup", "erm", "rare_error"]["p_value_holm"] > rows["mixup", "erm", "rare_error"]["p_value"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_filters": 5}, "--num-filters: found 5, needs an even number"),
        ({"rare_share": 0.0}, "--rare-share: 0 of 60 examples makes 0 rare ones"),
        ({"rare_share": 1.0}, "--rare-share: 1 of 60 examples makes 60 rare ones"),
    ],
    ids=["num_filters", "none", "all"],
)
def test_settings_that_make_no_sense(change, message):
    with pytest.raises(GdaError, match=message):
        replace(SETTING, **change)


def test_stops_and_rates_that_make_no_sense():
    with pytest.raises(GdaError, match="--stop: found 200, needs 1 to 199, before --updates"):
        mixup_benefit.run(setting=SETTING, **RUN | {"stops": [200]})
    with pytest.raises(
        GdaError, match="^--num-examples: found 60, with --dimension 150 and --repeats 10000 the noises"
    ):
        mixup_benefit.run(setting=SETTING, **RUN | {"repeats": 10_000})
    with pytest.raises(GdaError, match="--learning-rate: the training diverged: lower it"):
        mixup_benefit.run(setting=replace(SETTING, updates=10, learning_rate=1e30), **RUN)


def test_the_command_writes_its_files(tmp_path):
    words = "--updates 6 --num-examples 20 --dimension 10 --repeats 2 --num-recorded 3"
    outcome = invoke("theory", "mixup", *words.split(), "-o", str(tmp_path / "out"), "--json")
    assert outcome.code == 0, outcome.stderr
    result = json.loads(outcome.stdout)
    assert result["settings"]["stops"] == [1, 2, 4]  # shares of the updates
    assert (result["settings"]["num_recorded"], result["settings"]["seed"]) == (3, 0)
    names = ["mixup-differences.csv", "mixup-learned.csv", "mixup.csv", "mixup.json", "mixup.png"]
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == names
    assert {row["arm"] for row in result["curves"]} == {"erm", "mixup", "two_weights", "stop_1", "stop_2", "stop_4"}
    assert NUM_TEST == 500  # docs/theory-mixup.md


@pytest.mark.parametrize("page", ["theory-mixup", "theory-selection"])
def test_the_pages_commands_are_commands(page, tmp_path):
    text = (Path(__file__).parents[1] / f"docs/{page}.md").read_text()
    ran = re.findall(r"^\$ gdacli (.*)$", text, re.MULTILINE)
    assert len(ran) >= 2
    for command in ran:  # their words are checked; the folder is looked at before anything is computed
        outcome = invoke(*shlex.split(command, comments=True), "-C", str(tmp_path / "missing"))
        assert outcome.code == 1, outcome.stderr
        assert "missing" in outcome.error
