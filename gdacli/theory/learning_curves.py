"""What gradient descent, SAM, upsampling and generation learn over time, from the same weights and the same data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from gdacli.errors import GdaError
from gdacli.theory.cubic_network import (
    Array,
    Examples,
    ascent,
    draw_weights,
    feature_alignments,
    gradient,
    logit_terms,
    losses,
    noise_alignments,
    upsampled,
    with_generated,
)
from gdacli.theory.identities import equation_2, noise_align
from gdacli.theory.two_layer_setting import INITIAL_SD, Setting, Stream

ARMS = ("gradient descent", "SAM", "upsampling", "generation")
NUM_FRESH = 2000
"""Pairs of fresh noises, one the other's mirror, per repeat and feature, that the test accuracy is measured on."""
MEASURES = (
    *("fast_alignment", "slow_alignment", "fast_noise", "slow_noise", "noise_align", "train_loss"),
    *("fast_accuracy", "slow_accuracy"),
)


@dataclass(frozen=True)
class Curve:
    """What one arm has learned, at T iterations in R repeats."""

    measures: dict[str, Array]
    """Each of `MEASURES`, [T, R]."""
    equation_2: Array
    """[T, R, J]; NaN where equation 2 means nothing, 1 without SAM."""
    amplification: Array
    """[T, R]: what equation 2 speaks of, measured (`measured_amplification`); 1 without SAM."""


def recorded_iterations(iterations: int) -> list[int]:
    """Return the iterations at which the curves have points: at most 51, the first and the last among them."""
    return sorted({round(share * iterations) for share in np.linspace(0, 1, 51)})


def learning_curves(setting: Setting, at: Sequence[int], advance: Callable[[int], None]) -> dict[str, Curve]:
    """Train the four arms by full-batch steps from the same start on the same data.

    Args:
        setting: data, network and steps.
        at: the iterations to measure at, as `recorded_iterations`.
        advance: told after each iteration of an arm.

    Raises:
        GdaError: the learning rate is so large that the weights are no numbers any more.
    """
    original = setting.draw(setting.rng(Stream.EXAMPLES), setting.repeats, setting.dimension)
    weights = draw_weights(
        setting.rng(Stream.WEIGHTS), setting.repeats, setting.num_filters, setting.dimension, INITIAL_SD
    )
    noise = setting.draw_generated(setting.rng(Stream.GENERATED), setting.repeats, setting.dimension)
    fresh = setting.rng(Stream.FRESH).standard_normal((NUM_FRESH, min(setting.num_filters, setting.dimension)))
    sets = (original, original, upsampled(original, setting.k), with_generated(original, setting.k, noise))
    with np.errstate(all="ignore"):  # what is no number is refused
        return {
            arm: _train(setting, examples, original, weights, setting.rho if arm == "SAM" else 0.0, at, fresh, advance)
            for arm, examples in zip(ARMS, sets, strict=True)
        }


def expected_iterations(setting: Setting, start: float) -> dict[str, float]:
    """Return after about how many iterations each arm has learned the slow feature, if its examples keep l = 1/2.

    Without noise, a = <w_j, v_d> grows by 3 eta s beta_d^3 l a^2 a step, s being the share of slow examples in the
    set: it runs away after 1 / (3 eta s beta_d^3 l a_0).

    Args:
        setting: data and steps.
        start: a_0, above 0: the largest initial alignment over filters.

    Source: ours, from Lemmas A.2, A.4 and A.6 in continuous time. SAM counts as gradient descent.
    """
    shares = [setting.num_slow / setting.num_examples, setting.k * setting.num_slow / setting.num_augmented]
    pulls = [1.5 * setting.learning_rate * share * setting.beta_d**3 * start for share in shares]
    return dict(zip(ARMS, (1 / np.repeat(pulls, 2)).tolist(), strict=True))


def measured_amplification(weights: Array, ahead: Array, examples: Examples) -> Array:
    """Return by how much SAM raises the slow feature's part of the gradient over the fast one's, [R].

    The part of a feature is the sum over its examples and over the filters of l <w_j, v>^2; at the perturbed weights
    over that at the weights, the slow feature's over the fast one's. Above 1, SAM learns more evenly.
    """
    slow = examples.is_slow

    def parts(at: Array) -> Array:
        pulls = logit_terms(at, examples) * examples.copies
        squares = (feature_alignments(at, examples) ** 2).sum(1)
        return np.asarray(np.stack([pulls[:, ~slow].sum(1), pulls[:, slow].sum(1)], 1) * squares)

    raised = parts(ahead) / parts(weights)
    return np.asarray(raised[:, 1] / raised[:, 0])


def fresh_accuracies(weights: Array, examples: Examples, noise_sd: float, fresh: Array) -> Array:
    """Return the accuracy on fresh examples with the fast and with the slow feature, [R, 2], 0 to 1.

    Only <w_j, xi> matters of a fresh noise, and these are jointly normal: they are drawn as such, by the triangular
    factor of the weights, and each with its mirror image. This is exact up to the number of draws.

    Args:
        weights: [R, J, d].
        examples: for the features and their strengths.
        noise_sd: sigma_p of the fresh noises.
        fresh: [n, min(J, d)], standard normal.
    """
    factor = np.linalg.qr(weights.transpose(0, 2, 1), mode="r") * (noise_sd / np.sqrt(weights.shape[2]))
    alignments = fresh @ factor  # [R, n, J]
    of_noise = (alignments * alignments * alignments).sum(2)[:, None]
    of_feature = ((feature_alignments(weights, examples) ** 3).sum(1) * np.array(examples.strengths) ** 3)[..., None]
    return np.asarray(((of_feature + of_noise > 0).mean(2) + (of_feature - of_noise > 0).mean(2)) / 2)


def _train(
    setting: Setting,
    examples: Examples,
    original: Examples,
    weights: Array,
    rho: float,
    at: Sequence[int],
    fresh: Array,
    advance: Callable[[int], None],
) -> Curve:
    recorded = set(at)
    measured: list[dict[str, Array]] = []
    ratios, amplifications = [], []
    for iteration in range(setting.iterations + 1):
        ahead = weights + ascent(weights, examples, rho) if rho else weights
        gradients = gradient(ahead, examples)
        _refuse_unless_finite(gradients, setting, iteration)
        if iteration in recorded:
            found = _measure(weights, original, setting.noise_sd, fresh)
            measured.append(found | {"noise_align": noise_align(ahead, examples, gradients).mean(1)})
            ratios.append(equation_2(weights, examples, rho))
            amplifications.append(measured_amplification(weights, ahead, examples))
            _refuse_unless_finite(amplifications[-1], setting, iteration)
        weights = weights - setting.learning_rate * gradients
        advance(1)
    return Curve(
        {name: np.array([each[name] for each in measured]) for name in MEASURES},
        np.array(ratios),
        np.array(amplifications),
    )


def _refuse_unless_finite(values: Array, setting: Setting, iteration: int) -> None:
    if not np.isfinite(values).all():
        raise GdaError(
            f"--learning-rate: found {setting.learning_rate:g} with --rho {setting.rho:g}, and a gradient is 0 or no "
            f"number at iteration {iteration}: lower one of them or --iterations, or take weaker features"
        )


def _measure(weights: Array, original: Examples, noise_sd: float, fresh: Array) -> dict[str, Array]:
    fast, slow = feature_alignments(weights, original).max(1).T
    of_noise = (original.labels[:, None] * noise_alignments(weights, original)).max(1)
    accuracies = fresh_accuracies(weights, original, noise_sd, fresh)
    return {
        "fast_alignment": fast,
        "slow_alignment": slow,
        "fast_noise": of_noise[:, ~original.is_slow].mean(1),
        "slow_noise": of_noise[:, original.is_slow].mean(1),
        "train_loss": losses(weights, original).mean(1),
        "fast_accuracy": accuracies[:, 0],
        "slow_accuracy": accuracies[:, 1],
    }
