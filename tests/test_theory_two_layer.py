"""The theorems of the two-layer network: identities, variances, curves, and the command."""

import csv
import json
import math
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from conftest import invoke
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom

from gdacli.errors import GdaError
from gdacli.theory import variance_grid
from gdacli.theory.batch_variance import (
    batch_unit,
    finite_generated_variance,
    finite_variance,
    full_variance,
    generated_variance,
    population_variance,
    printed_variance,
    second_moment,
    strata,
)
from gdacli.theory.cubic_network import (
    ascent,
    descend,
    draw_examples,
    draw_noise,
    draw_weights,
    feature_alignments,
    gradient,
    logit_terms,
    noise_alignments,
    orthogonalised,
    outputs,
    upsampled,
    with_generated,
)
from gdacli.theory.identities import (
    equation_2,
    feature_gradients,
    largest_error,
    largest_rho,
    noise_align,
    noise_gradient,
    relative_errors,
    replicated_noise_gradient,
    rho_t,
    sam_noise_gradient,
    slow_amplification,
)
from gdacli.theory.identity_errors import _checked, failures_by_rho, sam_aligns_less, tolerance, tolerated_noise
from gdacli.theory.learning_curves import (
    ARMS,
    MEASURES,
    Curve,
    expected_iterations,
    fresh_accuracies,
    learning_curves,
    measured_amplification,
)
from gdacli.theory.two_layer import differences, rate
from gdacli.theory.two_layer_setting import Setting, Stream, check
from gdacli.theory.two_layer_summary import _equation_2
from gdacli.theory.variance_grid import VIEWS, measure, own_batch

K, N, SLOW = 3, 20, 8
SETTING = Setting(K, 0.6, 1.0, 0.8, N, 60, 5, 1.0, 0.05, 1.5, 1.5, 8, 4, 0)


@cache
def orthogonal():
    """Return the original set, D_U, D_G and weights that have learned something: the logit terms differ."""
    rng = np.random.default_rng(0)
    plain = draw_examples(rng, repeats=4, num_examples=N, dimension=60, alpha=0.6, beta_d=0.8, noise_sd=1.5)
    made = orthogonalised(with_generated(plain, K, draw_noise(rng, 4, (K - 1) * SLOW, 60, 2.0)))
    original = replace(plain, noise=made.noise[:, :N])
    return original, upsampled(original, K), made, draw_weights(rng, 4, 5, 60, 0.4)


IDENTITIES = {
    "gradient descent": lambda o, u, g, w: noise_gradient(w, o),
    "SAM": lambda o, u, g, w: sam_noise_gradient(w, o, 0.05, hold_logits=True),
    "upsampling": lambda o, u, g, w: noise_gradient(w, u),
    "generation": lambda o, u, g, w: noise_gradient(w, g),
    "replicated": lambda o, u, g, w: replicated_noise_gradient(w, u, g, K),
    "features": lambda o, u, g, w: feature_gradients(w, u, g, hold_logits=True),
    "amplification": lambda o, u, g, w: slow_amplification(w, o, 0.05, hold_logits=True),
}


@pytest.mark.parametrize("name", IDENTITIES)
def test_identities_are_exact_under_their_simplifications(name):
    sides = IDENTITIES[name](*orthogonal())
    assert np.abs(sides.stated).min() > 0
    assert np.ptp(logit_terms(orthogonal()[3], orthogonal()[0])) > 0.2
    if name != "amplification":  # [R, J], of ratios: each to 1e-10 of itself
        assert largest_error(sides) < 1e-10
    else:
        assert relative_errors(sides).max() < 1e-10


def test_the_factors_are_the_papers():
    original, more, made, weights = orthogonal()
    assert more.size == made.size == 12 + K * SLOW
    logits, w_xi = logit_terms(weights, original), noise_alignments(weights, original)
    square = (original.noise**2).sum(2)
    found = np.abs(noise_alignments(gradient(weights, original), original))
    assert np.allclose(found, 3 / N * logits[:, None] * w_xi**2 * square[:, None], rtol=1e-8, atol=1e-15)
    sam = sam_noise_gradient(weights, original, 0.05, hold_logits=True).found
    matches = w_xi * original.labels[:, None] > 0
    scale = rho_t(weights, original, 0.05)[:, None, None]
    factor = 1 - np.where(matches, 1, -1) * 3 * scale / N * logits[:, None] * np.abs(w_xi) * square[:, None]
    assert np.allclose(np.abs(sam), found * factor**2, rtol=1e-8, atol=1e-15)
    assert (np.abs(sam) < found)[matches & (factor > -1)].all()
    assert (np.abs(sam) > found)[~matches].all()


@pytest.mark.parametrize("broken", ["replicated", "features", "SAM"])
def test_identities_need_their_simplifications(broken):
    original, more, made, weights = orthogonal()
    if broken == "replicated":  # k, once: Lemma A.1 prints it twice
        sides = replicated_noise_gradient(weights, more, made, K**2)
    elif broken == "features":
        sides = feature_gradients(weights, more, made, hold_logits=False)
    else:
        sides = sam_noise_gradient(weights, original, 0.05, hold_logits=False)
    assert largest_error(sides) > 1e-2


def test_errors_shrink_with_the_dimension_and_grow_with_rho():
    def median(dimension, off_the_features=False):
        rng = np.random.default_rng(1)
        examples = draw_examples(rng, repeats=4, num_examples=N, dimension=dimension, alpha=0.6, beta_d=0.8)
        if off_the_features:
            examples.noise[..., :2] = 0
        weights = draw_weights(rng, 4, 5, dimension, 0.1)
        return np.median(relative_errors(noise_gradient(weights, examples)))

    errors = [median(dimension) for dimension in (10, 160, 2560)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2] > 0.01  # as d^-1/2: by 4 each
    assert median(160, off_the_features=True) < errors[1]
    original, _, _, weights = orthogonal()
    by_rho = [
        np.median(relative_errors(sam_noise_gradient(weights, original, rho, hold_logits=False)))
        for rho in (1e-4, 1e-3, 1e-2)
    ]
    assert by_rho[0] < by_rho[1] / 5 < by_rho[2] / 25


def test_noise_align_counts_copies():
    _, more, _, weights = orthogonal()
    gradients = gradient(weights, more)
    found = noise_align(weights, more, gradients)
    for repeat in range(2):
        for j in range(5):
            values = []
            for i in np.repeat(np.arange(N), more.copies.astype(int)):
                phi = more.noise[repeat, i]
                if np.sign(weights[repeat, j] @ phi) == more.labels[repeat, i]:
                    values.append(abs(gradients[repeat, j] @ phi))
            assert found[repeat, j] == pytest.approx(np.mean(values), rel=1e-12)
    backwards = replace(more, labels=np.sign(noise_alignments(-weights, more)[:, 0]))
    assert (noise_align(weights[:, :1], backwards, gradients[:, :1]) == 0).all()


def test_sam_aligns_less_as_far_as_the_proof_assumes():
    found = sam_aligns_less(replace(SETTING, num_filters=10, repeats=6))
    proven = [each for each in found if each.small and each.logits == "held"]
    assert proven
    assert all(each.share.mean == 1 for each in proven)
    original, _, _, weights = orthogonal()
    lengths = np.linalg.norm(original.noise, axis=2)[:, None]
    bounds = largest_rho(weights, original)
    assert np.allclose(bounds, (np.abs(noise_alignments(weights, original)) / lengths).reshape(4, -1).min(1))
    rho = 0.9 * bounds.min()
    ahead = weights + ascent(weights, original, rho)
    same = np.sign(noise_alignments(ahead, original)) == np.sign(noise_alignments(weights, original))
    assert same.all()  # Lemma B.2


def test_generation_tolerates_k_plus_1_times_the_noise():
    assert tolerance(3000, 300, 5) == pytest.approx(6, rel=1e-3)  # not k - 1, as a line of appendix C prints
    assert tolerance(1000, 500, 2) == pytest.approx(3, rel=2e-3)
    assert 2 < tolerance(N, SLOW, K) < 4
    found = {each.factor: each for each in tolerated_noise(replace(SETTING, noise_sd=1.0))}
    for each in found.values():
        assert abs(each.found.mean - each.expected) < 3 * each.found.standard_error
    assert found[K].found.high < 0  # above k - 1, and generation still aligns less
    assert found[K + 2].found.low > 0


def test_equation_2():
    original, _, _, weights = orthogonal()
    on = feature_alignments(weights, original)
    scale = rho_t(weights, original, 0.05)[:, None]
    wanted = ((1 - scale * 0.8**3 * on[..., 1]) / (1 - scale * on[..., 0])) ** (2 / 3)
    assert np.allclose(equation_2(weights, original, 0.05), wanted, rtol=1e-12)
    undefined = (1 - 100 * scale * on[..., 0] <= 0) | (1 - 100 * scale * 0.8**3 * on[..., 1] <= 0)
    assert 0 < undefined.mean() < 1
    assert (np.isnan(equation_2(weights, original, 5.0)) == undefined).all()
    assert (measured_amplification(weights, weights, original) == 1).all()
    one = weights[:, :1]
    ahead = one + ascent(one, original, 1e-3)
    slow = slow_amplification(one, original, 1e-3, hold_logits=False).found[:, 0]  # orthogonal noises, one filter
    assert np.allclose(measured_amplification(one, ahead, original), slow, rtol=1e-9)


def test_fresh_accuracies_are_those_of_fresh_examples():
    rng = np.random.default_rng(2)
    weights = draw_weights(rng, 2, 3, 12, 0.7)
    fresh = draw_examples(rng, repeats=2, num_examples=40_000, dimension=12, alpha=0.5, beta_d=0.7, noise_sd=1.2)
    correct = outputs(weights, fresh) * fresh.labels > 0
    wanted = np.stack([correct[:, ~fresh.is_slow].mean(1), correct[:, fresh.is_slow].mean(1)], 1)
    found = fresh_accuracies(weights, fresh, 1.2, rng.standard_normal((10_000, 3)))
    assert wanted.min() < 0.9
    assert np.abs(found - wanted).max() < 4 * math.sqrt(0.25 / 20_000 + 0.25 / 10_000)


def test_arms_start_alike_and_take_their_own_steps():
    at = [0, 1, 8]
    curves = learning_curves(SETTING, at, lambda _: None)
    first = {arm: curve.measures["slow_noise"][0] for arm, curve in curves.items()}
    assert all((first[arm] == first[ARMS[0]]).all() for arm in ARMS)
    fewer = learning_curves(replace(SETTING, k=2, iterations=1), [0, 1], lambda _: None)["SAM"].measures["slow_noise"]
    assert (fewer == curves["SAM"].measures["slow_noise"][:2]).all()  # the seed decides, k does not
    later = [curve.measures["slow_noise"][-1] for curve in curves.values()]
    assert all(np.abs(a - b).min() > 1e-9 for i, a in enumerate(later) for b in later[:i])
    original = SETTING.draw(SETTING.rng(Stream.EXAMPLES), 4, 60)
    weights = draw_weights(SETTING.rng(Stream.WEIGHTS), 4, 5, 60, 0.1)
    more = upsampled(original, K)
    made = with_generated(original, K, SETTING.draw_generated(SETTING.rng(Stream.GENERATED), 4, 60))
    for arm, examples in zip(ARMS, (original, original, more, made), strict=True):
        rho, stepped = SETTING.rho if arm == "SAM" else 0.0, weights
        for _ in range(8):
            stepped = descend(stepped, examples, 1.0, rho)
        of_noise = (noise_alignments(stepped, original) * original.labels[:, None]).max(1)
        assert np.allclose(curves[arm].measures["slow_noise"][-1], of_noise[:, original.is_slow].mean(1), rtol=1e-12)
        ahead = stepped + ascent(stepped, examples, rho)  # Theorem 4.1 measures SAM at the perturbed weights
        aligned = noise_align(ahead, examples, gradient(ahead, examples)).mean(1)
        assert np.allclose(curves[arm].measures["noise_align"][-1], aligned, rtol=1e-12)
        on_slow = feature_alignments(stepped, original)[..., 1].max(1)
        assert np.allclose(curves[arm].measures["slow_alignment"][-1], on_slow, rtol=1e-12)


def test_arms_are_compared_in_pairs_at_the_end_and_noise_align_at_the_start():
    rng = np.random.default_rng(0)
    base = rng.normal(0, 1, 6)
    curves = {
        arm: Curve({name: base + np.array([[10.0 * shift], [shift]]) for name in MEASURES}, base, base)
        for shift, arm in enumerate(ARMS)
    }
    rows = {(r["arm"], r["reference"], r["at"], r["measure"]): r["difference"] for r in differences(curves)}
    for arm, other, difference in (("generation", "upsampling", 1), ("upsampling", "gradient descent", 2)):
        assert rows[arm, other, "end", "slow_accuracy"] == pytest.approx(difference)
        assert rows[arm, other, "start", "noise_align"] == pytest.approx(10 * difference)


def test_the_checked_errors_are_those_of_the_network_as_it_is():
    original, _, made, weights = orthogonal()
    sides = dict(_checked(SETTING, weights, original, made))
    assert largest_error(sides["noise gradient, gradient descent"]) < 1e-10
    assert largest_error(sides["noise gradient, SAM"]) > 1e-2  # its own logit terms
    found = failures_by_rho(SETTING, lambda _: None)
    assert all(each.median.mean < each.high.mean for each in found)
    assert [each.median.mean for each in found[:6]] == sorted(each.median.mean for each in found[:6])
    assert replace(SETTING, generated_noise_sd=3.0).generated_factor == 16


def test_the_rate_is_the_slope_from_three_dimensions_an_example_on():
    one = failures_by_rho(SETTING, lambda _: None)[0]
    rows = [
        replace(
            one,
            identity="noise gradient, gradient descent",
            noise="normal off the features",
            dimension=round(share * N),
            median=replace(one.median, mean=3 * share**-0.5 if share >= 3 else 100.0),
        )
        for share in (0.5, 1, 3, 10, 30)
    ]
    assert rate(rows, N) == pytest.approx(-0.5)


def test_the_share_for_which_equation_2_means_nothing_is_told():
    measured = {"mean": 1.2, "low": 1.1, "high": 1.3}
    figures = [{"iteration": t, "median": 1.0, "undefined": 0.3 * t, "measured": measured} for t in (0, 2)]
    assert "for 60 % of them at the end" in _equation_2(figures)
    assert "at most 1.20 ± 0.10 times" in _equation_2(figures)


def test_the_expected_time_is_that_of_the_feature_alone():
    slow = replace(SETTING, learning_rate=0.01)
    expected = expected_iterations(slow, 0.2)
    a, steps = 0.2, 0
    while a < 20:  # l = 1/2 all along
        a += 0.01 * 3 * 0.4 * 0.8**3 * 0.5 * a**2
        steps += 1
    assert steps == pytest.approx(expected["gradient descent"], rel=0.02)
    assert expected["upsampling"] / expected["SAM"] == pytest.approx((8 / 20) / (24 / 36))


def test_a_learning_rate_that_is_too_large_is_named():
    with pytest.raises(GdaError, match=r"^--learning-rate: found 1e\+200 with --rho 0.05, and a gradient is"):
        learning_curves(replace(SETTING, learning_rate=1e200), [0], lambda _: None)


def test_the_variances_of_methods():
    s = strata(50, 50, 5, 60)
    assert (s.batch_fast, s.batch_slow) == (10, 50)
    assert population_variance(s) == pytest.approx(0.0275993, abs=1e-7)
    assert printed_variance(s) == pytest.approx(0.0277778, abs=1e-7)
    assert second_moment(s) == pytest.approx(hypergeom(250, 5, 50).moment(2), rel=1e-12)


@given(st.integers(1, 60), st.integers(1, 40), st.integers(2, 8), st.data())
@settings(max_examples=100)
def test_the_printed_variance_is_an_upper_bound(num_fast, num_slow, k, data):
    unit = batch_unit(num_fast, num_slow, k)
    size = num_fast + k * num_slow
    s = strata(num_fast, num_slow, k, unit * data.draw(st.integers(1, size // unit)))
    assert (s.size, s.batch_fast * k * num_slow) == (size, s.batch_slow * num_fast)
    assert population_variance(s) <= printed_variance(s) * (1 + 1e-12)
    assert population_variance(s) >= generated_variance(s) * (1 - 1e-12)
    assert finite_variance(s) <= finite_generated_variance(s) + 1e-15  # copies add nothing here
    assert finite_variance(s) + full_variance(s) == pytest.approx(population_variance(s), rel=1e-9)


@pytest.mark.parametrize(("k", "alpha", "batch"), [(2, 0.9, 22), (3, 0.5, 40), (5, 0.9, 70), (5, 0.5, 240)])
def test_draws_agree_with_the_exact_moments(k, alpha, batch):
    num_fast = round(100 * alpha)
    cell = measure(SETTING, strata(num_fast, 100 - num_fast, k, batch), trials=4000)
    assert all(abs(cell.deviation(view)) < 3 for view in VIEWS)
    assert cell.found["population"].high < 2 * cell.printed
    if k == 5:  # and can tell them apart
        assert cell.found["population"].low > cell.exact["generated"]


def test_batches_that_do_not_divide_are_refused():
    with pytest.raises(GdaError, match=r"^--batch-size: found 32, needs a multiple of 14 up to 140: "):
        strata(90, 10, 5, 32)
    with pytest.raises(GdaError, match=r"^--batch-size: found 154, needs"):
        strata(90, 10, 5, 154)
    assert own_batch(replace(SETTING, num_examples=100, alpha=0.9, k=5), None).batch == 28


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": 0.63}, "--alpha: found 0.63 with --num-examples 20, which makes 12.6 examples"),
        ({"alpha": 1.0}, "--alpha: found 1 with --num-examples 20"),
        ({"beta_d": 1.0}, r"--beta-d: found 1, needs less than --beta-e \(1\)"),
        ({"repeats": 1_000_000}, "--num-examples: found 20, with k 3, 60 dimensions and 1000000 repeats"),
    ],
    ids=["whole", "all", "slower", "memory"],
)
def test_settings_that_mean_nothing_are_refused(change, message):
    with pytest.raises(GdaError, match=f"^{message}"):
        check(replace(SETTING, **change))


def test_the_command_writes_what_it_finds(tmp_path, monkeypatch):
    monkeypatch.setattr(variance_grid, "TRIALS", 500)
    page = (Path(__file__).parents[1] / "docs/theory-two-layer.md").read_text()
    (command,) = re.findall(r"\$ gdacli (theory two-layer .*)", page)
    options = "--num-examples 20 --alpha 0.8 --k 2 --dimension 10 --iterations 6 --repeats 3 --num-filters 3"
    ran = invoke(*command.split(), *options.split(), "-o", str(tmp_path / "a"))
    assert ran.code == 0, ran.stderr
    assert "NoiseAlign(SAM) < NoiseAlign(gradient descent)" in ran.stdout
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    tables = [
        "two-layer-differences.csv",
        "two-layer-identities.csv",
        "two-layer-tolerance.csv",
        "two-layer-variance.csv",
        "two-layer.csv",
    ]
    assert names == [*tables, "two-layer.json", "two-layer.png"]
    curves = list(csv.DictReader((tmp_path / "a/two-layer.csv").open()))
    assert [(row["arm"], row["iteration"]) for row in curves] == [(arm, str(t)) for arm in ARMS for t in range(7)]
    found = json.loads((tmp_path / "a/two-layer.json").read_text())
    assert found["settings"]["generated_noise_sd"] == found["settings"]["noise_sd"] == 2
    own = measure(replace(SETTING, seed=0), own_batch(replace(SETTING, k=2, alpha=0.8), None), trials=500)
    assert found["variance"]["own"]["found"]["finite"]["mean"] == own.found["finite"].mean  # the seed decides
    assert max(found["largest_errors"].values()) < 1e-10
    assert found["variance"]["own"]["batch"] == 6
    error = invoke("theory", "two-layer", *options.split(), "--batch-size", "5", "-o", str(tmp_path / "c"))
    assert error.error.startswith("--batch-size: found 5, needs a multiple of 3 up to 24")
    assert not (tmp_path / "c").exists()
