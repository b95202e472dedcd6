"""How exactly the identities of Theorems 4.1 and 4.2 hold, and how fast they fail without their simplifications."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from gdacli.theory.cubic_network import (
    Array,
    Examples,
    ascent,
    descend,
    draw_weights,
    gradient,
    logit_terms,
    orthogonalised,
    upsampled,
    with_generated,
)
from gdacli.theory.identities import (
    Sides,
    feature_gradients,
    largest_error,
    largest_rho,
    noise_align,
    noise_gradient,
    relative_errors,
    replicated_noise_gradient,
    sam_noise_gradient,
    slow_amplification,
)
from gdacli.theory.monte_carlo import MonteCarlo, monte_carlo
from gdacli.theory.two_layer_setting import DIMENSIONS, FEWEST_PAIRS, INITIAL_SD, Setting, Stream

RADII = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
LATER = 5
"""Iterations of gradient descent after which rho is varied again: the fast feature is being learned then."""
MOST_REPEATS = 10
"""Draws of the failures: each has J N relative errors, so that few are enough."""
EXACT_REPEATS = 3
"""Draws that the exact identities are checked on: no statistics, one would do."""
MOST_PAIRS = 200
"""Draws of the comparison of upsampling and generation: one step, no training. Fewer of a large set."""
_PAIRED_NUMBERS = 20_000_000


@dataclass(frozen=True)
class Failure:
    """The relative errors of one identity without one of its simplifications."""

    identity: str
    noise: str
    """"orthogonal", "normal" (of Definition 3.1), or "normal off the features": orthogonal to both."""
    dimension: int
    """With orthogonal noises the setting's, or the lowest in which there are as many."""
    rho: float | None
    logits: str
    """"held" at those before SAM's perturbation, "own", or "-" where there is no perturbation."""
    iteration: int
    median: MonteCarlo
    """Over repeats, of the median over filters and examples."""
    high: MonteCarlo
    """The same of the 95th percentile."""


@dataclass(frozen=True)
class Tolerated:
    """Upsampling against generation at one noise of the generated examples, from the same weights."""

    factor: float
    """E[<w, gamma>^2 ||gamma||^2] over E[<w, xi>^2 ||xi||^2]."""
    expected: float
    """NoiseAlign of generation over that of upsampling, less 1: exact at this N."""
    found: MonteCarlo
    """The same over repeats: the mean difference over the mean NoiseAlign of upsampling."""


@dataclass(frozen=True)
class AlignsLess:
    """How often Theorem 4.1's inequality of NoiseAlign holds at one rho."""

    rho: float
    logits: str
    """"held" or "own", as in `Failure`."""
    small: bool
    """Whether rho is below equation 5's bound in every repeat, as the proof asks."""
    share: MonteCarlo
    """Of the filters with NoiseAlign(SAM) < NoiseAlign(gradient descent)."""


def exact_errors(setting: Setting) -> dict[str, float]:
    """Return the largest relative error of each identity under the paper's simplifications."""
    dimension = setting.orthogonal_dimension
    made = orthogonalised(_with_generated(setting, setting.rng(Stream.IDENTITIES), EXACT_REPEATS, dimension))
    original = _first(made, setting.num_examples)
    more = upsampled(original, setting.k)
    weights = _weights(setting, setting.rng(Stream.IDENTITIES, 1), EXACT_REPEATS, dimension)
    sides = {
        "noise gradient, gradient descent": noise_gradient(weights, original),
        "noise gradient, SAM": sam_noise_gradient(weights, original, setting.rho, hold_logits=True),
        "noise gradient, upsampling": noise_gradient(weights, more),
        "noise gradient, generation": noise_gradient(weights, made),
        "upsampled = k x generated": replicated_noise_gradient(weights, more, made, setting.k),
        "feature gradients, upsampled = generated": feature_gradients(weights, more, made, hold_logits=True),
        "SAM's amplification, closed form": _row(slow_amplification(weights, original, setting.rho, hold_logits=True)),
    }
    return {name: largest_error(each) for name, each in sides.items()}


def failures_by_dimension(setting: Setting, advance: Callable[[int], None]) -> list[Failure]:
    """Return the errors with normal noises, over the dimension: the noise's own term against the sum of the others'."""
    found = []
    for share in DIMENSIONS:
        dimension = max(3, round(share * setting.num_examples))
        for noise in ("normal", "normal off the features"):
            errors: dict[str, list[Array]] = {}
            for repeat in range(_num_repeats(setting)):
                rng = setting.rng(Stream.IDENTITIES, 2, repeat)
                made = _with_generated(setting, rng, 1, dimension)
                made = made if noise == "normal" else _off_the_features(made)
                original = _first(made, setting.num_examples)
                weights = _weights(setting, rng, 1, dimension)
                for name, sides in _checked(setting, weights, original, made):
                    errors.setdefault(name, []).append(relative_errors(sides))
            for name, each in errors.items():
                rho, logits = (setting.rho, "own") if "SAM" in name else (None, "-")
                found.append(Failure(name, noise, dimension, rho, logits, 0, *_quantiles(each)))
            advance(1)
    return found


def failures_by_rho(setting: Setting, advance: Callable[[int], None]) -> list[Failure]:
    """Return the errors of SAM's identity with orthogonal noises and the network's own logit terms, over rho."""
    rng = setting.rng(Stream.IDENTITIES, 3)
    original = orthogonalised(setting.draw(rng, _num_repeats(setting), setting.orthogonal_dimension))
    weights = _weights(setting, setting.rng(Stream.IDENTITIES, 4), _num_repeats(setting), setting.orthogonal_dimension)
    found = []
    for iteration in (0, LATER):
        for rho in RADII:
            errors = relative_errors(sam_noise_gradient(weights, original, rho, hold_logits=False))
            quantiles = _quantiles(list(errors))
            found.append(
                Failure(
                    "noise gradient, SAM", "orthogonal", setting.orthogonal_dimension, rho, "own", iteration, *quantiles
                )
            )
            advance(1)
        for _ in range(LATER):
            weights = descend(weights, original, setting.learning_rate)
    return found


def sam_aligns_less(setting: Setting) -> list[AlignsLess]:
    """Return, by rho, the share of filters with NoiseAlign(SAM) < NoiseAlign(gradient descent).

    From the same initial weights, with orthogonal noises.

    Source: the end of Theorem 4.1.
    """
    rng = setting.rng(Stream.IDENTITIES, 3)
    original = orthogonalised(setting.draw(rng, setting.repeats, setting.orthogonal_dimension))
    weights = _weights(setting, setting.rng(Stream.IDENTITIES, 4), setting.repeats, setting.orthogonal_dimension)
    held = logit_terms(weights, original)
    of_descent = noise_align(weights, original, gradient(weights, original))
    bound = float(largest_rho(weights, original).min())
    found = []
    for rho in sorted({0.9 * bound, *RADII, setting.rho}):
        ahead = weights + ascent(weights, original, rho)
        for name, logits in (("held", held), ("own", None)):
            of_sam = noise_align(ahead, original, gradient(ahead, original, logits))
            found.append(AlignsLess(rho, name, rho < bound, monte_carlo((of_sam < of_descent).mean(1))))
    return found


def tolerated_noise(setting: Setting) -> list[Tolerated]:
    """Compare NoiseAlign of generation and of upsampling from the same weights, over the noise of the generated.

    With orthogonal noises and all logit terms 1/2, as at the start; each row uses the same draws, with the generated
    noises scaled to the row's factor.
    """
    alone = replace(setting, generated_noise_sd=setting.noise_sd)
    dimension = setting.num_augmented + 2
    repeats = min(MOST_PAIRS, max(FEWEST_PAIRS, _PAIRED_NUMBERS // (setting.num_augmented * dimension)))
    made = _along_axes(_with_generated(alone, setting.rng(Stream.TOLERANCE), repeats, dimension))
    more = upsampled(_first(made, setting.num_examples), setting.k)
    weights = _weights(setting, setting.rng(Stream.TOLERANCE, 1), repeats, dimension)
    half = np.full(made.labels.shape, 0.5)
    of_more = noise_align(weights, more, gradient(weights, more, half[:, : setting.num_examples])).mean(1)
    found = []
    for factor in sorted({0.25, 1.0, setting.k - 1.0, float(setting.k), setting.k + 1.0, setting.k + 2.0}):
        noise = made.noise.copy()
        noise[:, setting.num_examples :] *= factor**0.25  # <w, gamma>^2 ||gamma||^2 is of the fourth order
        scaled = replace(made, noise=noise)
        of_made = noise_align(weights, scaled, gradient(weights, scaled, half)).mean(1)
        expected = expected_ratio(setting.num_examples, setting.num_slow, setting.k, factor) - 1
        found.append(Tolerated(factor, expected, monte_carlo((of_made - of_more) / of_more.mean())))
    return found


def expected_ratio(num_examples: int, num_slow: int, k: int, factor: float) -> float:
    """Return E NoiseAlign of generation over that of upsampling, for equal logit terms and signs that are fair coins.

    Generation: p + (1 - p) factor, p = N / N_new. Upsampling: E[(F + k^2 S) / (F + k S)] with F and S the binomial
    numbers of fast and of slow examples in I_{j,+}; as N grows, (alpha + k^2 (1 - alpha)) / (alpha + k (1 - alpha)).

    Source: appendix C, whose last steps take the expectation of that quotient as the quotient of expectations.
    """
    of_original = num_examples / (num_examples + (k - 1) * num_slow)
    return (of_original + (1 - of_original) * factor) / _upsampled_share(num_examples - num_slow, num_slow, k)


def tolerance(num_examples: int, num_slow: int, k: int) -> float:
    """Return the factor at which generation aligns with noise as much as upsampling: near k + 1, and that as N grows.

    Source: Theorem 4.2's special case states k + 1. Appendix C prints (k - 1) in one line of its chain where (k + 1)
    is meant: the next line's (k^2 - 1)(1 - alpha) is (1 - p)(alpha + k (1 - alpha)) times k + 1.
    """
    of_original = num_examples / (num_examples + (k - 1) * num_slow)
    return (_upsampled_share(num_examples - num_slow, num_slow, k) - of_original) / (1 - of_original)


def _upsampled_share(num_fast: int, num_slow: int, k: int) -> float:
    from scipy.stats import binom

    fast, slow = np.arange(num_fast + 1), np.arange(num_slow + 1)
    weight = binom.pmf(fast, num_fast, 0.5)[:, None] * binom.pmf(slow, num_slow, 0.5)
    f, s = fast[:, None], slow[None]
    ratio = np.divide(f + k**2 * s, f + k * s, out=np.zeros(weight.shape), where=f + s > 0)
    return float((weight * ratio).sum() / (1 - weight[0, 0]))


def _checked(setting: Setting, weights: Array, original: Examples, made: Examples) -> Iterator[tuple[str, Sides]]:
    yield "noise gradient, gradient descent", noise_gradient(weights, original)
    yield "noise gradient, SAM", sam_noise_gradient(weights, original, setting.rho, hold_logits=False)
    sides = replicated_noise_gradient(weights, upsampled(original, setting.k), made, setting.k)
    yield "upsampled = k x generated", sides


def _with_generated(setting: Setting, rng: np.random.Generator, repeats: int, dimension: int) -> Examples:
    original = setting.draw(rng, repeats, dimension)
    return with_generated(original, setting.k, setting.draw_generated(rng, repeats, dimension))


def _along_axes(examples: Examples) -> Examples:
    """Turn each noise onto an axis of its own: orthogonal, and weights favour no direction."""
    num = examples.noise.shape[1]
    noise = np.zeros(examples.noise.shape)
    noise[:, np.arange(num), np.arange(2, num + 2)] = np.linalg.norm(examples.noise, axis=2)
    return replace(examples, noise=noise)


def _first(examples: Examples, num: int) -> Examples:
    return replace(
        examples,
        labels=examples.labels[:, :num],
        is_slow=examples.is_slow[:num],
        noise=examples.noise[:, :num],
        copies=examples.copies[:num],
    )


def _off_the_features(examples: Examples) -> Examples:
    along = examples.noise @ examples.features.T @ examples.features
    return replace(examples, noise=examples.noise - along)


def _weights(setting: Setting, rng: np.random.Generator, repeats: int, dimension: int) -> Array:
    return draw_weights(rng, repeats, setting.num_filters, dimension, INITIAL_SD)


def _row(sides: Sides) -> Sides:
    return Sides(sides.found[..., None], sides.stated[..., None])


def _num_repeats(setting: Setting) -> int:
    return min(setting.repeats, MOST_REPEATS)


def _quantiles(errors: list[Array]) -> tuple[MonteCarlo, MonteCarlo]:
    middle, high = np.array([np.quantile(each, (0.5, 0.95)) for each in errors]).T
    return monte_carlo(middle), monte_carlo(high)
