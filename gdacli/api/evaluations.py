"""What predictions of several arms and seeds are worth: the statistics of `gdacli evaluate` on arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gdacli.api.arrays import class_numbers
from gdacli.errors import GdaError

if TYPE_CHECKING:
    from gdacli.arm_results import Comparison, Interval, Predictions
    from gdacli.metrics import Estimate


@dataclass(frozen=True)
class ArmErrors:
    """An arm after all its seeds, in percent."""

    errors: list[float]
    """One per seed."""
    error: Estimate
    """Mean, sd and the ends of the 95 % interval over seeds."""
    error_interval: Interval | None
    """95 %, over seeds and images."""
    balanced_error: Estimate
    macro_f1: Estimate
    calibration_error: Estimate | None
    """Expected calibration error; None where classes were given, not probabilities."""


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Arms against a reference; a notebook shows it as its headline and tables."""

    arms: dict[str, ArmErrors]
    comparisons: dict[str, dict[str, Comparison]]
    """Reference -> arm -> how they compare: difference, intervals, effect size, corrected p, seeds needed."""
    headline: str
    """Whether the main arm helped against the reference, in plain words."""
    num_images: int

    def tables(self) -> list[str]:
        """Return the Markdown tables: errors of the arms, and comparisons with the reference."""
        from gdacli.wording import between, comparison_rows, ends, spread, table

        rows = [["arm", "error %", "95 % over seeds", "over seeds and images", "calibration error %"]]
        for name, arm in self.arms.items():
            calibration = "-" if arm.calibration_error is None else spread(arm.calibration_error)
            rows.append([name, spread(arm.error), between(arm.error), ends(arm.error_interval), calibration])
        compared = comparison_rows(self.comparisons)
        return ["\n".join(table(rows)), *(["\n".join(table(compared))] if len(compared) > 1 else [])]

    def __repr__(self) -> str:
        seeds = len(next(iter(self.arms.values())).errors)
        about = f"Error on {self.num_images} images, mean ± standard deviation over {seeds} seeds."
        return "\n\n".join([f"**{self.headline}**", about, *self.tables()])

    _repr_markdown_ = __repr__


def evaluate(
    predictions: Mapping[str, Any], labels: Any, *, reference: str | None = None, main: str | None = None
) -> Evaluation:
    """Compare arms by what their models say of the same images, as `gdacli evaluate` does.

    Args:
        predictions: arm -> what the models of S seeds say of N images, in the same order of seeds and images for every
            arm: probabilities, float [S, N, C] (or [N, C] of one seed), or classes, int [S, N] (or [N]).
        labels: int [N].
        reference: the arm that the others are compared with; None is the first.
        main: the arm that the headline is about; None is the last.

    Raises:
        GdaError: there is no arm, an arm is not among them, or shapes do not fit.
    """
    from gdacli.arm_results import compare_arms, error_interval
    from gdacli.calibration import expected_calibration_error
    from gdacli.metrics import balanced_error, error_rate, estimate, macro_f1
    from gdacli.wording import capitalised, helped, in_words, points

    if not predictions:
        raise GdaError("predictions: found no arm: give a mapping such as {'original': ..., 'targeted': ...}")
    reference = next(iter(predictions)) if reference is None else reference
    main = list(predictions)[-1] if main is None else main
    for name, arm in (("reference", reference), ("main", main)):
        if arm not in predictions:
            raise GdaError(f"{name}: found {arm!r}, allowed: {', '.join(predictions)}")
    truth = class_numbers(labels, None, None)
    said = {name: _predictions(name, each, len(truth)) for name, each in predictions.items()}
    seeds = {name: len(each.classes) for name, each in said.items()}
    if len(set(seeds.values())) > 1:
        raise GdaError(f"predictions: found {seeds} seeds: every arm needs the same ones, in the same order")
    arms = {}
    for name, each in said.items():
        correct = each.classes == truth
        calibration = None
        if not np.isnan(each.confidence).any():
            pairs = zip(each.confidence, correct, strict=True)
            calibration = estimate([expected_calibration_error(*pair) for pair in pairs])
        errors = [error_rate(guess, truth) for guess in each.classes]
        arms[name] = ArmErrors(
            errors=errors,
            error=estimate(errors),
            error_interval=error_interval(~correct),
            balanced_error=estimate([balanced_error(guess, truth) for guess in each.classes]),
            macro_f1=estimate([macro_f1(guess, truth) for guess in each.classes]),
            calibration_error=calibration,
        )
    others = [name for name in said if name != reference]
    comparisons = compare_arms(said, truth, {reference: others} if others else {})
    headline = "Nothing is compared: give a second arm, and name as main another one than the reference."
    if main != reference:
        comparison = comparisons[reference][main]
        headline = (
            f"{helped(main, comparison, '')}: {points(arms[main].error.mean)} % error against "
            f"{points(arms[reference].error.mean)} % of {reference}. {capitalised(in_words(comparison))}."
        )
    return Evaluation(arms, comparisons, headline, len(truth))


def _predictions(name: str, given: Any, num: int) -> Predictions:
    """Read what an arm's models say; of classes alone the confidence is not known, NaN."""
    from gdacli.arm_results import Predictions

    try:
        array = np.asarray(given)
    except ValueError as error:
        raise GdaError(f"predictions: {name}: its seeds have different shapes: each needs all {num} images") from error
    is_float = np.issubdtype(array.dtype, np.floating)
    if array.ndim == (2 if is_float else 1):
        array = array[None]
    right = array.ndim == (3 if is_float else 2) and array.shape[1] == num and 0 not in array.shape
    if not right or not (is_float or np.issubdtype(array.dtype, np.integer)):
        raise GdaError(
            f"predictions: {name}: found {array.dtype} {list(array.shape)}, allowed: probabilities, float "
            f"[seeds, {num}, classes], or classes, integers [seeds, {num}]"
        )
    if not is_float:
        return Predictions(array.astype(np.int64), np.full(array.shape, np.nan))
    if not ((array >= 0) & (array <= 1 + 1e-6)).all():
        raise GdaError(f"predictions: {name}: found numbers outside 0 to 1, allowed: probabilities, no logits")
    return Predictions(array.argmax(2), np.minimum(array.max(2), 1))  # above it by rounding alone
