"""`gdacli theory mixup`: when rare features are learned, and what stopping mixup early changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gdacli.console import Advance, progress
from gdacli.errors import GdaError
from gdacli.metrics import estimate
from gdacli.rng import derive_seed
from gdacli.theory.comparisons import compared
from gdacli.theory.cubic_network import Array
from gdacli.theory.mixup_benefit_plot import benefit_plot
from gdacli.theory.mixup_benefit_words import benefit_summary
from gdacli.theory.mixup_training import Mixing, descent, draw_mixing
from gdacli.theory.monte_carlo import monte_carlo
from gdacli.theory.outcome import Outcome, Row
from gdacli.theory.rare_features import Patches, draw_filters, draw_patches, feature_alignments, outputs, responses

STOPS = (1 / 15, 4 / 15, 2 / 3)
"""Shares of the updates after which mixup stops, unless told otherwise."""
LARGEST_NOISE = 2e9
"""Bytes of the noise patches that a run may hold."""
NUM_TEST = 500
"""Test examples of a repeat, half of them rare."""
ERRORS = ("common_error", "rare_error", "error")
MEASURES = (*ERRORS, "rare_train_error", "common_alignment", "rare_alignment")
Curve = Mapping[int, Mapping[str, Array]]
"""update -> measure -> value per repeat [R]."""


@dataclass(frozen=True)
class Setting:
    """Data, network and training; an update takes the whole training set."""

    num_examples: int
    dimension: int
    num_filters: int
    rare_share: float
    distractor: float
    noise_sd: float
    aligned: bool
    initial_sd: float
    learning_rate: float
    updates: int
    alpha: float
    label_alpha: float

    def __post_init__(self) -> None:
        if self.num_filters % 2:
            raise GdaError(f"--num-filters: found {self.num_filters}, needs an even number: half are of each class")
        num_rare = round(self.rare_share * self.num_examples)
        if not 0 < num_rare < self.num_examples:
            raise GdaError(
                f"--rare-share: {self.rare_share:g} of {self.num_examples} examples makes {num_rare} rare ones, "
                "needs some of both kinds: change --rare-share or raise --num-examples"
            )


def run(
    *, setting: Setting, stops: Sequence[int] | None, num_recorded: int, level: float, repeats: int, seed: int
) -> Outcome:
    """Train every arm on the same data from the same start, with as many updates, and compare test errors.

    Args:
        setting: of the data, the network and the training.
        stops: the last updates with mixup of the arms that stop early; None for STOPS of them all.
        num_recorded: how many updates to test after, at most; stops come on top.
        level: test error on rare examples in %, from which they count as learned.
        repeats: 2 or more.
        seed: of all that is random.

    Raises:
        GdaError: a stop outside the training, or a training that diverged.
    """
    from threadpoolctl import threadpool_limits

    if stops is None:
        stops = [max(1, round(share * setting.updates)) for share in STOPS]
    for stop in stops:
        if not 0 < stop < setting.updates:
            raise GdaError(f"--stop: found {stop}, needs 1 to {setting.updates - 1}, before --updates")
    size = 8.0 * repeats * (setting.num_examples + NUM_TEST) * setting.dimension
    if size > LARGEST_NOISE:
        raise GdaError(
            f"--num-examples: found {setting.num_examples}, with --dimension {setting.dimension} and "
            f"--repeats {repeats} the noises take {size / 1e9:.1f} GB, more than {LARGEST_NOISE / 1e9:g}: "
            "lower one of the three"
        )
    recorded = {*np.geomspace(1, setting.updates, num_recorded).round().astype(int).tolist(), *stops}
    work = setting.updates * 3 + sum(setting.updates - stop for stop in set(stops))
    # Small products: more threads only wait for each other.
    with threadpool_limits(1), progress("theory mixup", work, "updates") as advance:
        curves = train_arms(setting, sorted(set(stops)), recorded, repeats, seed, advance)
    figures: dict[str, list[Row]] = {
        "curves": [_curve_row(arm, update, each) for arm, curve in curves.items() for update, each in curve.items()],
        "learned": [_learned_row(arm, curve, level) for arm, curve in curves.items()],
        "differences": difference_rows({arm: curve[setting.updates] for arm, curve in curves.items()}),
    }
    return Outcome(
        program="mixup",
        settings={
            **asdict(setting),
            **{"stops": list(stops), "num_recorded": num_recorded, "level": level, "repeats": repeats, "seed": seed},
        },
        figures=figures,
        rows={("" if name == "curves" else name): rows for name, rows in figures.items()},
        plot=benefit_plot(figures["curves"], level),
        summary=benefit_summary(figures, setting.updates, repeats, level),
    )


def train_arms(
    setting: Setting, stops: Sequence[int], recorded: Iterable[int], repeats: int, seed: int, advance: Advance
) -> dict[str, Curve]:
    """Train `erm`, `mixup`, `two_weights` and `stop_<update>` for each stop, and measure after the recorded updates.

    Partners and weights are drawn per update from (seed, update), the same in every arm that mixes: an arm that stops
    goes on from the weights that `mixup` had there.
    """
    rng = np.random.default_rng(derive_seed(seed, "theory mixup"))
    train, test = draw_sets(rng, setting, repeats)
    start = draw_filters(rng, repeats, setting.num_filters, setting.dimension, setting.initial_sd)
    recorded, label_alphas = set(recorded), {"mixup": None, "two_weights": setting.label_alpha}

    def follow(weights: Array, first: int, arm: str) -> tuple[dict[int, dict[str, Array]], dict[int, Array]]:
        def draw(update: int) -> Mixing | None:
            if arm not in label_alphas:
                return None
            own = np.random.default_rng(derive_seed(seed, "theory mixup", "update", update))
            return draw_mixing(own, repeats, setting.num_examples, setting.alpha, label_alphas[arm])

        curve, kept = {}, {}
        updates = range(first, setting.updates + 1)
        for update, after in descent(weights, train, setting.learning_rate, updates, draw):
            if update in recorded:
                curve[update] = measure(after, train, test, setting.rare_share)
            if update in stops:
                kept[update] = after
            advance(note=arm)
        return curve, kept

    with np.errstate(over="ignore", invalid="ignore"):
        plain, _ = follow(start, 1, "erm")
        mixed, kept = follow(start, 1, "mixup")
        curves: dict[str, Curve] = {"erm": plain, "mixup": mixed, "two_weights": follow(start, 1, "two_weights")[0]}
        for stop in stops:
            before = {update: each for update, each in mixed.items() if update <= stop}
            curves[f"stop_{stop}"] = before | follow(kept[stop], stop + 1, f"stop_{stop}")[0]
    return curves


def draw_sets(rng: np.random.Generator, setting: Setting, repeats: int) -> tuple[Patches, Patches]:
    """Draw training sets, and test sets of as many rare examples as common ones."""
    draw: dict[str, Any] = {
        "repeats": repeats,
        "num_examples": setting.num_examples,
        "dimension": setting.dimension,
        "rare_share": setting.rare_share,
        "distractor": setting.distractor,
        "noise_sd": setting.noise_sd,
        "aligned": setting.aligned,
    }
    return draw_patches(rng, **draw), draw_patches(rng, **draw | {"num_examples": NUM_TEST, "rare_share": 0.5})


def measure(weights: Array, train: Patches, test: Patches, rare_share: float) -> dict[str, Array]:
    """Return errors in % and feature alignments, [R] each; `error` weights the kinds as the training set does.

    Raises:
        GdaError: the training diverged.
    """
    margins, trained = (each.labels * outputs(responses(weights, each)) for each in (test, train))
    if not (np.isfinite(margins).all() and np.isfinite(trained).all()):
        raise GdaError("--learning-rate: the training diverged: lower it")
    common, rare = (100 * (margins[:, rows] <= 0).mean(1) for rows in (~test.is_rare, test.is_rare))
    of_common, of_rare = feature_alignments(weights).T
    values = (
        *(common, rare, (1 - rare_share) * common + rare_share * rare),
        *(100 * (trained[:, train.is_rare] <= 0).mean(1), of_common, of_rare),
    )
    return dict(zip(MEASURES, values, strict=True))


def _curve_row(arm: str, update: int, values: Mapping[str, Array]) -> Row:
    row: dict[str, Any] = {"arm": arm, "update": update}
    for name, each in values.items():
        found = monte_carlo(each)
        low, high = found.low, found.high
        if name.endswith("error"):  # cut to [0, 100], as `metrics.estimate` does
            bounds = estimate(each)
            low, high = (each if each is not None else found.mean for each in (bounds.low, bounds.high))
        row |= {name: found.mean, f"{name}_low": low, f"{name}_high": high}
    return row


def _learned_row(arm: str, curve: Curve, level: float) -> Row:
    """Say after which recorded update the rare error is first at most `level`, and in how many repeats it ends so."""
    updates = sorted(curve)
    below = np.stack([curve[update]["rare_error"] <= level for update in updates])
    first = np.array(updates)[below.argmax(0)][below.any(0)]
    return {
        "arm": arm,
        "repeats": below.shape[1],
        "learned": len(first),
        "median_update": float(np.median(first)) if len(first) else None,
        "first_update": int(first.min()) if len(first) else None,
        "last_update": int(first.max()) if len(first) else None,
        "learned_at_the_end": int(below[-1].sum()),
    }


def difference_rows(at_end: Mapping[str, Mapping[str, Array]]) -> list[Row]:
    """Compare the test errors at the end, on the same repeats; p-values are corrected over all comparisons.

    Args:
        at_end: arm -> measure -> values [R]. Every arm is compared with `erm`, and every other one with `mixup`.
    """
    pairs = [(arm, "erm") for arm in at_end if arm != "erm"]
    pairs += [(arm, "mixup") for arm in at_end if arm not in ("erm", "mixup")]
    return compared(
        [
            ({"arm": arm, "reference": reference, "measure": name}, at_end[arm][name], at_end[reference][name])
            for arm, reference in pairs
            for name in ERRORS
        ],
        "worse",
        "better",
    )
