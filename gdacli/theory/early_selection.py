"""`gdacli theory selection`: what selecting by early outputs can be trusted with, in the two-layer network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from gdacli.console import progress
from gdacli.errors import GdaError
from gdacli.rng import derive_seed
from gdacli.theory.comparisons import compared
from gdacli.theory.early_selection_plot import quality_plot
from gdacli.theory.early_selection_words import selection_summary
from gdacli.theory.monte_carlo import monte_carlo
from gdacli.theory.outcome import Outcome, Row
from gdacli.theory.separation import (
    MEASURES,
    RIVALS,
    STRATEGIES,
    Course,
    Setting,
    recorded_epochs,
    selection_quality,
    slowdown_epochs,
    train,
    window,
)

VARIED = ("alpha", "beta_d", "noise_sd")
Qualities = Mapping[int, Mapping[str, Mapping[str, np.ndarray]]]
"""epoch -> strategy -> measure -> value per repeat [R]."""
Stopped = tuple[np.ndarray, Mapping[str, Mapping[str, np.ndarray]]]
"""The epochs of the repeats in which the probe stops, and strategy -> measure -> value of these repeats."""
AS_SET = "as set"
LARGEST_RUN = 2e9
"""Bytes of the noises and of the margins of all epochs that a setting may hold (these twice, as they are stacked)."""


def run(
    *,
    setting: Setting,
    vary: Sequence[str],
    num_recorded: int,
    level: float,
    repeats: int,
    seed: int,
) -> Outcome:
    """Train the network over repeats, select after each recorded epoch, and compare with the truth.

    Args:
        setting: of the data, the network and its training.
        vary: changes "NAME=VALUE" of VARIED, each made alone.
        num_recorded: how many epochs to select after, at most.
        level: F1 in (0, 1) from which a choice counts as good.
        repeats: 2 or more.
        seed: of all that is random; the same draws in every setting.
    """
    import torch  # noqa: F401 (what is loaded is limited)
    from threadpoolctl import threadpool_limits

    _refuse_too_much(setting, repeats)
    settings = {AS_SET: setting} | {change: _changed(setting, change) for change in vary}
    found: dict[str, tuple[Course, Qualities, Stopped]] = {}
    epochs = recorded_epochs(setting.epochs, num_recorded)
    # Small products: more threads only wait for each other.
    with threadpool_limits(1), progress("theory selection", len(settings), "settings") as advance:
        for name, each in settings.items():
            course = train(np.random.default_rng(derive_seed(seed, "theory selection")), each, repeats)
            found[name] = course, measure(course, epochs, seed), at_slowdown(course, seed)
            advance(note=name)
    course, qualities, _ = found[AS_SET]
    figures: dict[str, list[Row]] = {
        "quality": _quality_rows(qualities),
        "training": _training_rows(course, epochs),
        "differences": _difference_rows(qualities),
        "windows": [row for name, each in found.items() for row in _setting_rows(name, *each, level)],
        "stop": _stop_rows({name: stopped for name, (*_, stopped) in found.items()}),
    }
    return Outcome(
        program="selection",
        settings={
            **asdict(setting),
            **{"vary": list(vary), "num_recorded": num_recorded, "level": level, "repeats": repeats, "seed": seed},
        },
        figures=figures,
        rows={("" if name == "quality" else name): rows for name, rows in figures.items()},
        plot=quality_plot(figures["quality"], figures["training"], figures["windows"]),
        summary=selection_summary(figures, level),
    )


def _refuse_too_much(setting: Setting, repeats: int) -> None:
    numbers = repeats * setting.num_examples * (setting.dimension + 2 * setting.epochs)
    if 8.0 * numbers > LARGEST_RUN:
        raise GdaError(
            f"--epochs: found {setting.epochs}, with --num-examples {setting.num_examples}, --dimension "
            f"{setting.dimension} and --repeats {repeats} noises and margins take {8e-9 * numbers:.1f} GB, more than "
            f"{LARGEST_RUN / 1e9:g}: lower one of the four"
        )


def measure(course: Course, epochs: Iterable[int], seed: int) -> Qualities:
    """Let the product select in every repeat after each epoch."""
    repeats = range(course.margins.shape[1])
    return {epoch: _stacked([selection_quality(course, epoch, repeat, seed) for repeat in repeats]) for epoch in epochs}


def _stacked(each: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, np.ndarray]]:
    return {
        strategy: {measure: np.array([one[strategy][measure] for one in each]) for measure in MEASURES}
        for strategy in STRATEGIES
    }


def _changed(setting: Setting, change: str) -> Setting:
    name, equals, value = change.partition("=")
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if name not in VARIED or not equals or not np.isfinite(number):
        raise GdaError(f"--vary: found {change!r}, needs NAME=NUMBER, NAME one of {', '.join(VARIED)}")
    if not 0 <= number <= (1 if name == "alpha" else np.inf):
        raise GdaError(f"--vary: found {change!r}, needs 0 or more, of alpha at most 1")
    changes: dict[str, Any] = {name: number}
    try:
        return replace(setting, **changes)
    except GdaError as error:
        raise GdaError(f"--vary {change}: {error}") from error


def _interval(name: str, values: np.ndarray) -> dict[str, Any]:
    """Return mean and 95 % interval, None where fewer than two repeats have a value."""
    known = values[~np.isnan(values)]
    if len(known) < 2:
        return {name: None, f"{name}_low": None, f"{name}_high": None, f"{name}_repeats": len(known)}
    found = monte_carlo(known)
    return {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high, f"{name}_repeats": found.num}


def _rate(name: str, values: np.ndarray, most: float = 1.0) -> dict[str, Any]:
    """Return mean and 95 % interval of values in [0, most]; the interval is cut there, as `metrics.estimate` does."""
    found = _interval(name, values)
    if found[name] is not None:
        for end in (f"{name}_low", f"{name}_high"):
            found[end] = float(np.clip(found[end], 0, most))
    return found


def _quality_rows(qualities: Qualities) -> list[Row]:
    rows: list[Row] = []
    for epoch, strategies in qualities.items():
        for strategy, values in strategies.items():
            row: dict[str, Any] = {"epoch": epoch, "strategy": strategy}
            for each in MEASURES:
                row |= _rate(each, values[each])
            rows.append(row)
    return rows


def _training_rows(course: Course, epochs: Sequence[int]) -> list[Row]:
    slow = course.examples.is_slow
    return [
        {"epoch": epoch}
        | _rate("fast_error", course.error(epoch, ~slow), 100)
        | _rate("slow_error", course.error(epoch, slow), 100)
        | _interval("fast_margin", course.margins[epoch][:, ~slow].mean(1))
        | _interval("slow_margin", course.margins[epoch][:, slow].mean(1))
        | _interval("slow_margin_of_feature", course.slow_feature[epoch])
        for epoch in epochs
    ]


def _difference_rows(qualities: Qualities) -> list[Row]:
    """Compare cluster with each rival after each epoch, on the same repeats."""
    return [
        row
        for name in ("f1", "average_precision")
        for row in _compared({(("measure", name), ("epoch", epoch)): (each, name) for epoch, each in qualities.items()})
    ]


def _stop_rows(stopped: Mapping[str, Stopped]) -> list[Row]:
    """Compare cluster with each rival where the probe would stop, in the settings in which it does."""
    own = {name: strategies for name, (stops, strategies) in stopped.items() if len(stops) > 1}
    return _compared({(("setting", name),): (each, "f1") for name, each in own.items()})


def _compared(
    places: Mapping[tuple[tuple[str, Any], ...], tuple[Mapping[str, Mapping[str, np.ndarray]], str]],
) -> list[Row]:
    """Compare cluster with each rival on the same repeats.

    Args:
        places: what names a row -> strategy -> measure -> values, and the measure.
    """
    return compared(
        [
            (dict(place) | {"rival": rival}, each["cluster"][name], each[rival][name])
            for place, (each, name) in places.items()
            for rival in RIVALS
        ],
        "cluster better",
        "cluster worse",
    )


def at_slowdown(course: Course, seed: int) -> Stopped:
    """Let the product select in each repeat where its own probe would stop; repeats where it would not are left out."""
    stops = {repeat: epoch for repeat, epoch in enumerate(slowdown_epochs(course)) if epoch is not None}
    own = [selection_quality(course, epoch, repeat, seed) for repeat, epoch in stops.items()]
    return np.array(list(stops.values()), float), _stacked(own)


def _setting_rows(name: str, course: Course, qualities: Qualities, stopped: Stopped, level: float) -> list[Row]:
    """Say of each strategy when its choice is good, when best, and how good where the product's probe would stop."""
    stops, own = stopped
    rows: list[Row] = []
    for strategy in STRATEGIES:
        f1 = {epoch: each[strategy]["f1"] for epoch, each in qualities.items()}
        best = max(f1, key=lambda epoch: float(f1[epoch].mean()))
        good = window(f1, level)
        row: dict[str, Any] = {"setting": name, "strategy": strategy, "best_epoch": best}
        rows.append(
            row
            | _rate("best_f1", f1[best])
            | {"first_good_epoch": good and good[0], "last_good_epoch": good and good[1]}
            | {"good_at_the_end": bool(good and good[1] == max(f1))}
            | _interval("auto_epoch", stops)
            | _rate("auto_precision", own[strategy]["precision"])
            | _rate("auto_recall", own[strategy]["recall"])
            | _rate("auto_f1", own[strategy]["f1"])
        )
    return rows
