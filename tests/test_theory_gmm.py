"""The Gaussian mixture: against points, against closed forms, and the command."""

import csv
import json
import re
import shlex
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from conftest import invoke
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import ndtr
from scipy.stats import ks_2samp, ncx2, ttest_1samp
from sklearn.datasets import make_blobs

from gdacli.errors import GdaError
from gdacli.theory import gaussian_mixture, gaussian_mixture_exact
from gdacli.theory.gaussian_mixture import Groups, class_counts, fit_and_test, fitted_variance, num_generated, simulate
from gdacli.theory.gaussian_mixture_program import _verdict, run

GAMMAS = [0, 1, 2, 5, 10, 20, 50, 100]
CASES = [(50, 10), (1, 40), (3, 7)]
PAGE = Path(__file__).parents[1] / "docs/theory-gmm.md"


def losses(dimension, num_train, gammas=GAMMAS, repeats=4000, sigma=0.6, seed=0):
    settings = {"dimension": dimension, "num_train": num_train, "gammas": gammas, "sigma": sigma, "repeats": repeats}
    return simulate(seed, **settings, advance=lambda count: None)


def z_scores(values, expected):
    """Return how many standard errors the means of values [G, R] are from what is expected, [G]."""
    return (values.mean(1) - expected) / (values.std(1, ddof=1) / np.sqrt(values.shape[1]))


def draw_points(rng, counts, centres, variance, repeats):
    """Draw points of two classes with means y (mu + centres); returns x [R, n, d] and y [n]."""
    y = np.repeat([-1.0, 1.0], counts)
    mu = np.full(centres.shape[2], centres.shape[2] ** -0.5)
    means = y[:, None] * (mu + np.repeat(centres, counts, 1))
    return means + np.sqrt(variance) * rng.standard_normal((repeats, len(y), len(mu))), y


def groups_of(x, y, counts):
    """Return what `simulate` draws in place of points."""
    z = x * y[:, None]
    parts = np.split(z, [counts[0]], 1)
    mean = np.stack([part.mean(1) for part in parts], 1)
    scatter = np.stack([((part - part.mean(1, keepdims=True)) ** 2).sum(1) for part in parts], 1)
    return Groups(counts, mean - z.shape[2] ** -0.5, scatter)


def with_points(rng, dimension, num_train, gamma, sigma, repeats):
    """Do on points what `simulate` does without; returns the groups, and the losses by their definitions."""
    counts = class_counts(num_train)
    x, y = draw_points(rng, counts, np.zeros((repeats, 2, dimension)), sigma**2, repeats)
    real = groups_of(x, y, counts)
    by_class = [x[:, : counts[0]].var(1, ddof=1), x[:, counts[0] :].var(1, ddof=1)]
    variance = sum(count / num_train * each for count, each in zip(counts, by_class, strict=True))[:, None]
    new_counts = class_counts(round(gamma * num_train))
    new, new_y = draw_points(rng, new_counts, real.offsets, variance, repeats)
    all_x, all_y = np.concatenate([x, new], 1), np.concatenate([y, new_y])
    theta = (all_x * all_y[:, None]).mean(1)
    mu = np.full(dimension, dimension**-0.5)
    train = ((all_x - all_y[:, None] * theta[:, None]) ** 2).sum(2).mean(1) / (2 * sigma**2)
    test = (dimension * sigma**2 + ((mu - theta) ** 2).sum(1)) / (2 * sigma**2)
    error = ndtr(-theta @ mu / (sigma * np.linalg.norm(theta, axis=1)))
    return [real, groups_of(new, new_y, new_counts)], variance, (train, test, error)


@given(st.integers(1, 6), st.integers(4, 15), st.integers(1, 4), st.floats(0.1, 5), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_means_and_scatters_say_all_that_points_say(dimension, num_train, gamma, sigma, seed):
    parts, variance, wanted = with_points(np.random.default_rng(seed), dimension, num_train, gamma, sigma, 5)
    assert np.allclose(fitted_variance(parts[0]), variance, rtol=1e-9)
    found = fit_and_test(parts, sigma)
    for each, of_points in zip((found.train_loss, found.test_loss, found.test_error), wanted, strict=True):
        assert np.allclose(each, of_points, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("dimension", "num_train", "gamma"), [(3, 7, 2), (1, 5, 1), (6, 4, 5)])
def test_drawing_means_and_scatters_is_drawing_points(dimension, num_train, gamma):
    _, _, wanted = with_points(np.random.default_rng(1), dimension, num_train, gamma, 0.8, 6000)
    found = losses(dimension, num_train, [gamma], 6000, 0.8)
    pairs = [(found.train_loss, wanted[0]), (found.test_loss, wanted[1]), (found.gap, wanted[1] - wanted[0])]
    if dimension > 1:
        pairs.append((found.test_error, wanted[2]))
    assert all(ks_2samp(ours[0], of_points).pvalue > 0.01 for ours, of_points in pairs)


@pytest.mark.parametrize(("dimension", "num_train"), CASES)
def test_expectations_are_the_closed_forms(dimension, num_train):
    found = losses(dimension, num_train)
    sizes = [num_generated(gamma, num_train) for gamma in GAMMAS]
    gaps = [gaussian_mixture_exact.expected_gap(dimension, num_train, size) for size in sizes]
    tests = [gaussian_mixture_exact.expected_test_loss(dimension, num_train, size) for size in sizes]
    assert gaps[0] == pytest.approx(dimension / num_train)
    assert min(tests) == tests[0]
    assert np.abs(z_scores(found.gap, gaps)).max() < 3
    assert np.abs(z_scores(found.test_loss, tests)).max() < 3
    if num_train % 2 == 0:
        gamma = np.array(GAMMAS)
        assert np.allclose(gaps, dimension / num_train * (1 + 2 * gamma) / (1 + gamma) ** 2)


@pytest.mark.parametrize(("dimension", "num_train"), [*CASES, (100, 10)])
def test_the_mean_size_of_the_gap_is_exact_at_both_ends(dimension, num_train):
    found = losses(dimension, num_train, [0, 100_000], 2000)
    exact = gaussian_mixture_exact.mean_abs_gap, gaussian_mixture_exact.mean_abs_gap_limit
    assert np.abs(z_scores(np.abs(found.gap), [each(dimension, num_train) for each in exact])).max() < 3


def test_the_known_mean_sizes_of_the_gap():
    limits = [gaussian_mixture_exact.mean_abs_gap_limit(d, m) for d, m in ((50, 10), (1, 40), (100, 10))]
    assert np.allclose(limits, [1.519, 0.093, 2.146], rtol=1e-3, atol=3e-4)
    at_zero = [gaussian_mixture_exact.mean_abs_gap(1, m) for m in (20, 50, 100, 200, 500)]
    of_sampled_tests = np.sqrt(np.square(at_zero) + 2 / np.pi * 0.5 / 10_000)  # 10,000 test points add their own error
    assert np.allclose(of_sampled_tests, [0.135, 0.082, 0.057, 0.041, 0.026], atol=6e-4)


@pytest.mark.parametrize(
    ("dimension", "num_train", "gaps"),
    [
        (50, 10, [5.02, 3.84, 2.96, 2.06, 1.72, 1.62, 1.56, 1.55]),
        (1, 40, [0.091, 0.105, 0.106, 0.098, 0.096, 0.095, 0.093, 0.093]),
    ],
)
def test_the_known_table_of_gaps(dimension, num_train, gaps):
    sizes = np.abs(losses(dimension, num_train, repeats=1000).gap)
    of_both = np.sqrt(2 / 1000) * sizes.std(1, ddof=1)
    assert (np.abs(sizes.mean(1) - gaps) < 3 * of_both).all()


def test_the_known_test_errors():
    errors = 100 * losses(50, 10, repeats=2000).test_error
    of_both = np.sqrt(2 / 2000) * errors.std(1, ddof=1)
    known = [16.3, 18.1, 17.9, 17.3, 16.9, 16.6, 16.4, 16.3]
    assert (np.abs(errors.mean(1) - known) < 3 * of_both).all()
    assert (errors[1:].mean(1) > errors[0].mean()).all()
    assert np.allclose(losses(1, 40).test_error, ndtr(-1 / 0.6), rtol=1e-12)


def test_classes_are_balanced_as_in_the_published_code():
    labels = make_blobs(7, centers=[[-1.0], [1.0]])[1]
    assert class_counts(7).tolist() == np.bincount(labels).tolist()


def test_the_known_bound():
    found = [gaussian_mixture_exact.bound(50, 10, gamma) for gamma in GAMMAS]
    assert [round(each, 2) for each in found] == [149.01, 113.06, 94.00, 74.51, 65.49, 60.11, 56.32, 54.80]
    assert gaussian_mixture_exact.bound(1, 40, 0) < gaussian_mixture_exact.bound(1, 40, 1)


@pytest.mark.parametrize(("dimension", "num_train", "sigma"), [(50, 10, 0.6), (2, 4, 2.0), (1, 4, 3.0), (9, 4000, 1.0)])
def test_the_error_of_real_points_is_exact(dimension, num_train, sigma):
    errors = losses(dimension, num_train, [0], 20_000, sigma).test_error
    exact = gaussian_mixture_exact.expected_test_error(dimension, num_train, sigma)
    assert ttest_1samp(errors[0], exact).pvalue > 0.01
    # theta . x < 0 where ||theta sqrt m + x|| < ||theta sqrt m - x||: two independent noncentral chi-squares.
    near, far = ((np.sqrt(num_train) + sign) ** 2 / (2 * sigma**2) for sign in (-1, 1))
    root = np.sqrt(dimension + near)
    below, _ = quad(
        lambda r: ncx2.pdf(r * r, dimension, near) * 2 * r * ncx2.cdf(r * r, dimension, far),
        max(0, root - 9),
        root + 9,
        points=[root],
    )
    assert exact == pytest.approx(below, rel=1e-8)


def test_the_error_of_very_many_real_points_is_the_least_possible():
    for dimension in (1, 2, 50, 8192):
        assert gaussian_mixture_exact.expected_test_error(dimension, 10**11, 0.6) == pytest.approx(ndtr(-1 / 0.6))


def test_what_a_gamma_gives_hangs_on_nothing_else(monkeypatch):
    all_of_them, some = losses(5, 9, GAMMAS, 50), losses(5, 9, [0, 5], 50)
    assert np.array_equal(all_of_them.gap[[0, 3]], some.gap)
    assert np.allclose(losses(5, 9, [0, 5], 50, sigma=2.0).gap, some.gap)
    assert not np.array_equal(losses(5, 9, [0, 5], 50, seed=1).gap, some.gap)
    monkeypatch.setattr(gaussian_mixture, "_BLOCK", 300)
    done = []
    in_blocks = simulate(
        0, dimension=5, num_train=9, gammas=[0, 5], sigma=0.6, repeats=50, advance=lambda count: done.append(count)
    )
    assert done == [30, 20]
    assert np.array_equal(in_blocks.gap[:, :30], losses(5, 9, [0, 5], 30).gap)
    assert len(np.unique(in_blocks.test_loss[0])) == 50


def test_the_figure_set_has_all_grids_and_sweeps():
    outcome = run(None, None, "1,100", 0.6, 3, 0)
    cases = {(row["d"], row["m"]) for row in outcome.rows[""]}
    sizes, dimensions = (20, 40, 50, 100, 200, 500), (2, 10, 20, 50, 100)
    assert cases == {*((1, m) for m in sizes), *((d, 10) for d in dimensions)}
    assert len(outcome.rows[""]) == 3 * len(cases)
    assert len(outcome.plot.axes) == 9 + 2  # two have a second axis, of the bound
    assert outcome.figures["least_possible_error"] == pytest.approx(4.779, abs=1e-3)
    assert "the same as without generated points in every repeat" in outcome.summary


def test_a_case_of_ones_own(tmp_path):
    words = ["theory", "gmm", "--m", "10", "--d", "50", "--gammas", "1,100", "--repeats", "200"]
    shown = invoke(*words, "-o", str(tmp_path)).stdout
    found = json.loads((tmp_path / "gmm.json").read_text())
    assert found["settings"]["gammas"] == [0, 1, 100]
    assert shown.endswith(f"wrote {', '.join(str(tmp_path / f'gmm.{end}') for end in ('json', 'csv', 'png'))}\n")
    assert (tmp_path / "gmm.png").stat().st_size > 1000
    rows = list(csv.DictReader((tmp_path / "gmm.csv").open()))
    assert [row["num_generated"] for row in rows] == ["0", "10", "1000"]
    assert [float(row["gap"]) for row in rows] == [point["gap"] for point in found["points"]]
    assert [round(point["error_if_real"], 2) for point in found["points"]] == [16.19, 11.41, 4.92]
    for point in found["points"][1:]:
        low, high = point["error_difference_low"], point["error_difference_high"]
        assert 0 < low < point["error_difference"] < high
    text = " ".join(shown.split())
    assert "significantly higher than without generated points at gamma 1" in text
    assert "significantly lower at none" in text
    assert "1000 more real points" in text


def test_the_page_shows_what_the_command_prints():
    page = PAGE.read_text()
    every, own = (shlex.split(line[2:]) for line in page.splitlines() if line.startswith("$ "))
    assert every == own[:3] == ["gdacli", "theory", "gmm"]
    told = dict(zip(own[3::2], own[4::2], strict=True))
    assert set(told) == {"--m", "--d", "--gammas"}
    assert run(int(told["--m"]), int(told["--d"]), told["--gammas"], 0.6, 1000, 0).summary in page
    sweep = run(10, 50, "0,1,2,5,10,20,50,100", 0.6, 1000, 0).summary
    assert sweep[: sweep.index("\n\n- ")] in page
    for file, function in re.findall(r"`gdacli/theory/(\w+)\.py`: `(\w+)`", page):
        assert callable(getattr(import_module(f"gdacli.theory.{file}"), function))


@pytest.mark.parametrize(
    ("m", "d", "gammas", "message"),
    [
        (10, None, "0,1", "--m: found without --d"),
        (None, 10, "0,1", "--d: found without --m"),
        (10, 2, "0,a", "--gammas: found '0,a', needs numbers from 0 to 10000"),
        (10, 2, "0", "--gammas: found '0', needs"),
        (10, 2, "0,nan", "--gammas: found '0,nan', needs"),
        (10, 2, "-1,1", "--gammas: found '-1,1', needs"),
        (10, 2, "0.1,1", "--gammas: 0.1 of 10 points is 1, needs 2 or more"),
    ],
)
def test_settings_that_do_not_fit_are_named(m, d, gammas, message):
    with pytest.raises(GdaError, match=f"^{re.escape(message)}[^\n]*$"):
        run(m, d, gammas, 0.6, 10, 0)


def test_the_verdict_says_lower_higher_and_undecided():
    points = [
        {"gamma": gamma, "error_difference": difference, "error_difference_verdict": verdict}
        for gamma, difference, verdict in (
            (1, 2.0, "higher"),
            (5, 0.1, "no significant difference"),
            (10, -0.5, "lower"),
        )
    ]
    assert _verdict(points) == (
        "significantly higher than without generated points at gamma 1 (up to 2.00 points at gamma 1); "
        "no significant difference at gamma 5; significantly lower at gamma 10."
    )
