"""What is known of each arm after all its seeds, and how the arms compare."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gdacli.calibration import confusion_matrix, expected_calibration_error, reliability_curve
from gdacli.comparison import bootstrap_difference, bootstrap_error, hedges_g, holm, seeds_needed
from gdacli.metrics import (
    Difference,
    Estimate,
    balanced_error,
    class_errors,
    error_rate,
    estimate,
    macro_f1,
    paired_difference,
)
from gdacli.rng import derive_seed

CONTROLS = ("upsample", "random")
"""The names of the arms that others are compared with besides those without added images."""

Interval = tuple[float, float]
_LEVEL = 0.05
_OF_OBJECTIVE = ("objective", "synthetic", "finder")


@dataclass(frozen=True)
class Predictions:
    """What the models of an arm say of the N images of the split, a row per seed."""

    classes: np.ndarray
    """int64 [S, N]."""
    confidence: np.ndarray
    """float [S, N] in [0, 1]: the probability of that class."""


@dataclass(frozen=True)
class Effort:
    """What an arm was trained with; the same for each of its seeds."""

    updates: int
    images_seen: int
    mix_size: int
    """Images an epoch, repeats counted."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What the arm trains with in place of the section `train`: optimizer, objective, model."""


@dataclass(frozen=True)
class ArmResult:
    """An arm after all its seeds; errors, F1 and calibration error in percent."""

    name: str
    description: str
    errors: list[float]
    """One per seed."""
    error: Estimate
    error_interval: Interval | None
    """95 %, over seeds and images (`comparison.bootstrap_error`); that of `error` is over seeds alone."""
    balanced_error: Estimate
    macro_f1: Estimate
    late_error: Estimate
    """On the late-learned images of the split."""
    early_error: Estimate
    calibration_error: Estimate
    """Expected calibration error."""
    class_errors: list[float]
    """Mean over seeds, per class."""
    reliability: list[tuple[float, float, int]]
    """Confidence, accuracy (both in [0, 1]) and number of predictions of each bin that has some, all seeds together."""
    confusion: np.ndarray
    """int64 [C, C]: predictions of all seeds by label (row) and class (column)."""
    effort: Effort


@dataclass(frozen=True)
class Comparison:
    """An arm against a reference, paired by seed; negative differences of error are better."""

    difference: Difference
    interval: Interval | None
    """95 %, over seeds and images; that of `difference` is over seeds alone."""
    effect_size: float | None
    """Hedges' g of the paired differences."""
    corrected_p: float | None
    """The p-value after Holm's correction for the number of arms that are compared with this reference; for that of
    all pairs of arms, where the reference was chosen by its error."""
    seeds_needed: int | None
    """Seeds with which the t-test would tell such a difference among so many arms (power 0.8); None where it does
    tell, or cannot say."""

    @property
    def told(self) -> bool:
        """True if the difference is significant: the corrected p-value is at most 0.05."""
        return _told(self.corrected_p)

    @property
    def told_beyond(self) -> bool:
        """True if it is, and the interval over seeds and images excludes 0 too: it speaks of other images as well."""
        return self.told and self.interval is not None and (self.interval[0] > 0 or self.interval[1] < 0)


def arm_result(
    name: str,
    description: str,
    predictions: Predictions,
    labels: np.ndarray,
    late: np.ndarray,
    num_classes: int,
    effort: Effort,
) -> ArmResult:
    """Sum an arm up.

    Args:
        name, description: of the arm.
        predictions: on the N images.
        labels: int64 [N] in 0..C-1.
        late: bool [N], the late-learned ones.
        num_classes: C.
        effort: of one training.
    """
    classes, correct = predictions.classes, predictions.classes == labels
    errors = [error_rate(guess, labels) for guess in classes]
    curve = reliability_curve(predictions.confidence.ravel(), correct.ravel())
    filled = np.flatnonzero(curve.count)
    return ArmResult(
        name=name,
        description=description,
        errors=errors,
        error=estimate(errors),
        error_interval=error_interval(~correct),
        balanced_error=estimate([balanced_error(guess, labels) for guess in classes]),
        macro_f1=estimate([macro_f1(guess, labels) for guess in classes]),
        late_error=estimate([error_rate(guess[late], labels[late]) for guess in classes]),
        early_error=estimate([error_rate(guess[~late], labels[~late]) for guess in classes]),
        calibration_error=estimate(
            [expected_calibration_error(*each) for each in zip(predictions.confidence, correct, strict=True)]
        ),
        class_errors=np.mean([class_errors(guess, labels, num_classes) for guess in classes], axis=0).tolist(),
        reliability=[
            (float(curve.confidence[each]), float(curve.accuracy[each]), int(curve.count[each])) for each in filled
        ],
        confusion=confusion_matrix(classes.ravel(), np.tile(labels, len(classes)), num_classes),
        effort=effort,
    )


def differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Return the names of the settings, of `Effort`, that two arms do not share."""
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))


def beside_objective(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out of an arm's settings how it uses synthetic images: that is what arms are compared in."""
    return {name: value for name, value in settings.items() if name not in _OF_OBJECTIVE}


def error_interval(wrong: np.ndarray) -> Interval | None:
    """Return the 95 % interval over seeds and images of an arm's error in %; bool [S, N], True where it is wrong."""
    return bootstrap_error(wrong, _rng())


def errors_without(
    predictions: Mapping[str, Predictions], labels: np.ndarray, rows: Collection[int]
) -> dict[str, float]:
    """Return each arm's mean error in % without some images; nothing if there are none, or no others."""
    kept = np.setdiff1d(np.arange(len(labels)), list(rows))
    if len(kept) in (0, len(labels)):
        return {}
    return {name: float(100 * (each.classes[:, kept] != labels[kept]).mean()) for name, each in predictions.items()}


def pair_arms(settings: Mapping[str, Mapping[str, Any]], originals: Collection[str]) -> dict[str, list[str]]:
    """Say which arms are compared with which reference: reference -> arms.

    References are the arms without added images, the one called original first, and those of CONTROLS. An arm is
    compared with the references that train with its own settings, so that the images are all that differs; if no
    original does, with all of them. The originals are compared with the first one, which shows what settings alone do,
    and a control with the references before it.

    Args:
        settings: of every arm, see `Effort`.
        originals: the arms without added images.

    >>> sam = {"optimizer": "sam"}
    >>> pair_arms({"original": {}, "original_sam": sam, "targeted_sam": sam}, ["original", "original_sam"])
    {'original': ['original_sam'], 'original_sam': ['targeted_sam']}
    """
    ordered = sorted((name for name in settings if name in originals), key=lambda name: name != "original")
    references = [*ordered, *(name for name in CONTROLS if name in settings and name not in originals)]

    def fits(arm: str, reference: str) -> bool:
        if arm in originals:
            return reference == ordered[0]
        of_its_own = any(settings[arm] == settings[original] for original in originals)
        return settings[arm] == settings[reference] or not of_its_own

    pairs = {}
    for number, reference in enumerate(references):
        later = (name for name in settings if name not in references[: number + 1])
        if arms := [name for name in later if fits(name, reference)]:
            pairs[reference] = arms
    return pairs


def compare_arms(
    predictions: Mapping[str, Predictions],
    labels: np.ndarray,
    pairs: Mapping[str, Sequence[str]],
    *,
    chosen: bool = False,
) -> dict[str, dict[str, Comparison]]:
    """Compare arms with references: reference -> arm -> comparison.

    Args:
        predictions: of each arm, all of the same seeds.
        labels: int64 [N].
        pairs: reference -> arms, of `pair_arms`.
        chosen: the one reference was chosen among the arms by these errors: its comparisons are corrected for all pairs
            of arms. For their number alone, one arm of 11 that do not differ was called worse than the best in 9 to
            13 % of simulated cases at 3 to 10 seeds; so it is in 2 to 3 %.
    """
    wrong = {name: each.classes != labels for name, each in predictions.items()}
    compared = {}
    for reference, arms in pairs.items():
        family = len(arms) * (len(arms) + 1) // 2 if chosen else len(arms)
        compared[reference] = compare_errors({name: (wrong[name], wrong[reference]) for name in arms}, family)
    return compared


def compare_errors(
    pairs: Mapping[str, tuple[np.ndarray, np.ndarray]], family: int | None = None
) -> dict[str, Comparison]:
    """Compare each arm with its reference: name -> comparison.

    Args:
        pairs: bool [S, N] of an arm and of its reference, True where the model of a seed is wrong on an image; the same
            seeds and images in the same order.
        family: the number of comparisons to correct for, see `comparison.holm`; that of the pairs when None.
    """
    family = len(pairs) if family is None else family
    differences = {
        name: paired_difference(100 * arm.mean(1), 100 * reference.mean(1)) for name, (arm, reference) in pairs.items()
    }
    corrected = dict(zip(pairs, holm([each.p_value for each in differences.values()], family), strict=True))
    compared = {}
    for name, difference in differences.items():
        p_value = corrected[name]
        compared[name] = Comparison(
            difference=difference,
            interval=bootstrap_difference(*pairs[name], _rng()),
            effect_size=hedges_g(difference),
            corrected_p=p_value,
            seeds_needed=None if _told(p_value) else seeds_needed(difference, level=_LEVEL / family),
        )
    return compared


def _told(p_value: float | None) -> bool:
    return p_value is not None and p_value <= _LEVEL


def _rng() -> np.random.Generator:
    return np.random.default_rng(derive_seed("bootstrap"))
