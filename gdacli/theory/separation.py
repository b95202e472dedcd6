"""How well the product's selection finds the slow-learnable examples of the two-layer network, epoch by epoch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gdacli.dynamics import of_logits, slowdown
from gdacli.errors import GdaError
from gdacli.selection import select
from gdacli.theory.cubic_network import (
    Array,
    Examples,
    descend,
    draw_examples,
    draw_weights,
    feature_alignments,
    outputs,
)
from gdacli.theory.monte_carlo import monte_carlo

RIVALS = ("high_loss", "misclassified", "random")
STRATEGIES = ("cluster", *RIVALS)
MEASURES = ("precision", "recall", "share", "f1", "average_precision")


@dataclass(frozen=True)
class Setting:
    """A data set of Definition 3.1, a network and its training; an epoch is one full-batch update."""

    num_examples: int
    dimension: int
    num_filters: int
    alpha: float
    beta_e: float
    beta_d: float
    noise_sd: float
    initial_sd: float
    learning_rate: float
    epochs: int

    def __post_init__(self) -> None:
        num_slow = self.num_examples - round(self.alpha * self.num_examples)
        if not 0 < num_slow < self.num_examples:
            raise GdaError(
                f"--alpha: {self.alpha:g} of {self.num_examples} examples leaves {num_slow} slow-learnable ones, "
                "needs some of both kinds: change --alpha or raise --num-examples"
            )
        if not 0 <= self.beta_d < self.beta_e:
            raise GdaError(
                f"--beta-d: found {self.beta_d:g}, needs 0 or more and below --beta-e ({self.beta_e:g}): "
                "the slow-learnable feature is the weaker one"
            )
        if self.noise_sd < 0:
            raise GdaError(f"--noise-sd: found {self.noise_sd:g}, needs 0 or more")


@dataclass(frozen=True)
class Course:
    """A training over R repeats: what the network says of its training set after 0 to T epochs."""

    examples: Examples
    margins: Array
    """y f(x; W), [T + 1, R, N]."""
    slow_feature: Array
    """The part of it that the slow-learnable feature gives an example that has it, [T + 1, R]."""

    def error(self, epoch: int, rows: NDArray[np.bool_] | slice = slice(None)) -> Array:
        """Return the training error in % after an epoch, of some rows, [R]."""
        return np.asarray(100 * (self.margins[epoch][:, rows] <= 0).mean(1))


def train(rng: np.random.Generator, setting: Setting, repeats: int) -> Course:
    """Draw data and weights and train by gradient descent.

    Raises:
        GdaError: the training diverged.
    """
    examples = draw_examples(
        rng,
        repeats=repeats,
        num_examples=setting.num_examples,
        dimension=setting.dimension,
        alpha=setting.alpha,
        beta_e=setting.beta_e,
        beta_d=setting.beta_d,
        noise_sd=setting.noise_sd,
    )
    weights = draw_weights(rng, repeats, setting.num_filters, setting.dimension, setting.initial_sd)
    margins, slow_feature = [], []
    with np.errstate(over="ignore", invalid="ignore"):
        for epoch in range(setting.epochs + 1):
            if epoch:
                weights = descend(weights, examples, setting.learning_rate)
            margins.append(examples.labels * outputs(weights, examples))
            if not np.isfinite(margins[-1]).all():
                raise GdaError(f"--learning-rate: {setting.learning_rate:g} diverged in epoch {epoch}: lower it")
            slow_feature.append(setting.beta_d**3 * (feature_alignments(weights, examples)[:, :, 1] ** 3).sum(1))
    return Course(examples, np.stack(margins), np.stack(slow_feature))


def network_logits(margins: Array, labels: Array) -> tuple[Array, NDArray[np.int64]]:
    """Write a binary network as a classifier of two classes: f = y times margin becomes the logits [-f / 2, f / 2].

    Its cross-entropy is the logistic loss of f.

    Args:
        margins: [N].
        labels: [N], 1 or -1.

    Returns:
        logits [N, 2], classes [N], 1 for y = 1.
    """
    f = labels * margins
    return np.stack([-f / 2, f / 2], 1), (labels > 0).astype(np.int64)


def selection_quality(course: Course, epoch: int, repeat: int, seed: int) -> dict[str, dict[str, float]]:
    """Let the product select after an epoch, and compare with the truth.

    `random` is what it gives on average when it takes as many as `cluster`, as the arm of `like` does.

    Returns:
        strategy -> measure -> value, of `quality`.

    Source: `gdacli.selection.select`, which `gdacli select` calls, each strategy with its natural choice.
    """
    logits, classes = network_logits(course.margins[epoch, repeat], course.examples.labels[repeat])
    dynamics, everything = of_logits(logits[None], classes), np.ones(len(classes), bool)
    found = {}
    for strategy in STRATEGIES[:-1]:
        chosen = select(
            strategy, dynamics, classes, seed=seed, candidates=everything, share=None, per_class=False, quotas={}
        )
        found[strategy] = quality(chosen.score, chosen.chosen, course.examples.is_slow)
    base, share = float(course.examples.is_slow.mean()), found["cluster"]["share"]
    f1 = 2 * base * share / (base + share)
    found["random"] = dict(zip(MEASURES, (base, share, share, f1, base), strict=True))
    return found


def quality(score: Array, chosen: NDArray[np.bool_], is_slow: NDArray[np.bool_]) -> dict[str, float]:
    """Return precision, recall, share, F1 (each 0 to 1) of a choice, and the average precision of its score.

    Args:
        score: [N], higher = chosen first.
        chosen: [N]; if it is empty the precision is NaN, and F1 is 0.
        is_slow: [N], the truth, of which some are true.
    """
    from sklearn.metrics import average_precision_score

    hits, num_chosen, num_slow = int((chosen & is_slow).sum()), int(chosen.sum()), int(is_slow.sum())
    return {
        "precision": hits / num_chosen if num_chosen else float("nan"),
        "recall": hits / num_slow,
        "share": num_chosen / len(chosen),
        "f1": 2 * hits / (num_chosen + num_slow),
        "average_precision": float(average_precision_score(is_slow, score)),
    }


def recorded_epochs(epochs: int, num: int) -> list[int]:
    """Return up to `num` epochs from 1 to the last, evenly spaced in their logarithms."""
    return sorted(set(np.geomspace(1, epochs, num).round().astype(int).tolist()))


def slowdown_epochs(course: Course) -> list[int | None]:
    """Return per repeat the epoch at which the product's probe would stop, None if it would go on past the last.

    Source: `gdacli.dynamics.slowdown`, the rule of `probe.epochs: auto`. As in the probe it sees the error on an
    epoch's own batches, which is that before a full-batch update, and starts from the error of the commonest class.
    """
    errors = np.stack([course.error(epoch) for epoch in range(len(course.margins) - 1)])
    guesses = 50 - 50 * np.abs(course.examples.labels.mean(1))
    return [_slowdown(errors[:, repeat].tolist(), float(guess)) for repeat, guess in enumerate(guesses)]


def _slowdown(errors: Sequence[float], guess: float) -> int | None:
    return next((epoch for epoch in range(1, len(errors) + 1) if slowdown(errors[:epoch], guess)), None)


def window(f1: Mapping[int, Array], level: float) -> tuple[int, int] | None:
    """Return the first and last epoch of the longest run at which the mean F1 is surely `level` or more.

    Args:
        f1: epoch -> F1 over the repeats [R], ascending.
        level: 0 to 1; "surely" is that the lower end of the 95 % interval reaches it.

    Returns:
        None if there is no such epoch.
    """
    runs: list[list[int]] = [[]]
    for epoch, values in f1.items():
        if monte_carlo(values).low >= level:
            runs[-1].append(epoch)
        elif runs[-1]:
            runs.append([])
    longest = max(runs, key=len)
    return (longest[0], longest[-1]) if longest else None
