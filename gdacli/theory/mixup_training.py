"""Gradient descent with mixup, with two weights, and with mixup that stops early: same data, same start."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from gdacli.theory.cubic_network import Array
from gdacli.theory.rare_features import Indices, Patches, outputs, pulled_back, responses, votes


@dataclass(frozen=True)
class Mixing:
    """What each of N examples is mixed with, in R repeats."""

    partner: Indices
    """[R, N], a permutation of the examples."""
    weight: Array
    """[R, N] in [0, 1]: the example's own share of the input."""
    label_weight: Array
    """[R, N] in [0, 1]: its own share of the label."""


Draw = Callable[[int], Mixing | None]
"""update (from 1) => how to mix in it; None for not at all."""


def draw_mixing(
    rng: np.random.Generator, repeats: int, num_examples: int, alpha: float, label_alpha: float | None
) -> Mixing:
    """Draw partners and weights as `gdacli.mixing.mixup` does.

    Args:
        rng: source of all that is random.
        repeats, num_examples: R and N.
        alpha: the weight of the input is from Beta(alpha, alpha).
        label_alpha: the label's is from Beta(label_alpha, label_alpha), on the same side of 1/2; None: the input's.
            The draws of partners and of inputs' weights do not depend on it.

    Source: Zhang et al. 2018; Zou et al. 2023 for two weights, whose abstract does not say how they are drawn.
    """
    partner = np.argsort(rng.random((repeats, num_examples)), axis=1)
    weight = rng.beta(alpha, alpha, (repeats, num_examples))
    if label_alpha is None:
        return Mixing(partner, weight, weight)
    (own,) = rng.spawn(1)  # leaves the other draws as they are
    drawn = own.beta(label_alpha, label_alpha, (repeats, num_examples))
    return Mixing(partner, weight, np.where((weight < 0.5) == (drawn < 0.5), drawn, 1 - drawn))


def soft_gradient(weights: Array, patches: Patches, mixing: Mixing | None = None) -> Array:
    """Return the gradient of the mean logistic loss over N (mixed) examples with soft labels, [R, J, d].

    Responses are linear in the input, so that those of a mixed input are mixed responses. With t = (1 + y) / 2, the
    loss of an example is softplus(f) - t f.

    Args:
        weights: [R, J, d].
        patches: N examples.
        mixing: of their inputs and labels; None is empirical risk minimisation.
    """
    own, labels = responses(weights, patches), patches.labels
    if mixing is None:
        return pulled_back(_of_responses(own, labels), patches)
    share = mixing.weight[:, :, None, None]
    mixed = share * own + (1 - share) * _taken(own, mixing.partner)
    labels = mixing.label_weight * labels + (1 - mixing.label_weight) * _taken(labels, mixing.partner)
    slopes = _of_responses(mixed, labels)
    back = np.argsort(mixing.partner, axis=1)
    return pulled_back(share * slopes + _taken((1 - share) * slopes, back), patches)


def _of_responses(of_patches: Array, labels: Array) -> Array:
    """Return the derivative of the mean loss with respect to the responses, [R, N, 3, J]."""
    slope = (expit(outputs(of_patches)) - (1 + labels) / 2) / labels.shape[1]
    return np.asarray(2 * slope[:, :, None, None] * of_patches * votes(of_patches.shape[3]))


def _taken(values: Array, rows: Indices) -> Array:
    """Return values [R, N, ...] of other rows [R, N] of the same repeat."""
    return np.asarray(values[np.arange(len(values))[:, None], rows])


def descent(
    weights: Array, patches: Patches, learning_rate: float, updates: range, draw: Draw
) -> Iterator[tuple[int, Array]]:
    """Yield each update of gradient descent and the weights after it.

    Args:
        weights: before the first of them.
        patches: the training set; each update takes all of it.
        learning_rate: of the mean loss.
        updates: their numbers, from 1.
        draw: how to mix.
    """
    for update in updates:
        weights = weights - learning_rate * soft_gradient(weights, patches, draw(update))
        yield update, weights
