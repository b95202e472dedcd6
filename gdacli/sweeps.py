"""Sweeps: presets of arms that differ in one thing, and what a sweep says of them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import yaml

from gdacli.arm_results import Comparison, Predictions, compare_arms
from gdacli.arms import milli
from gdacli.console import table
from gdacli.errors import GdaError
from gdacli.explain import one_of
from gdacli.metrics import Difference, Estimate, error_rate, estimate
from gdacli.paths import EVALUATION
from gdacli.selection import STRATEGIES, UNSIZED
from gdacli.wording import change, in_words, spread

REFERENCE = "original"
"""The arm without additions, the first of every sweep."""

STRENGTHS_OF_K: dict[int, list[float]] = {2: [0.5], 3: [0.5, 0.7], 4: [0.5, 0.7, 0.8], 5: [0.4, 0.5, 0.7, 0.8]}
"""Images in the mix per selected image, the original counted -> strengths of the synthetic ones.

Source: targeted-augmentation paper: k=2, k=5, and k=4 on Tiny-ImageNet. It states no k=3 and no k=4 on CIFAR: k=4 is
Tiny-ImageNet's, and k=3 lies between its neighbours.
"""

Arms = dict[str, dict[str, Any]]
"""The section `arms` of `params.yaml`."""


PAPER: dict[str, list[str]] = {
    "strengths": [f"{tenth / 10:g}" for tenth in range(1, 11)],
    "k": [str(k) for k in STRENGTHS_OF_K],
    "selection": ["misclassified", "high_loss", "cluster"],
    "lambda": [f"{tenth / 10:g}" for tenth in range(1, 11)],
    "sampled": ["1", "2", "5", "10", "20"],
}
"""Name of a sweep -> the values of its paper's table or grid; of `sampled` see `sampled_arms`."""

SEARCH_OF = {"pcr": "mgr", "gda": "gda_mps"}
"""Objective -> the same one with a search for latent vectors, which takes its weight."""


def sweep_arms(
    name: str, values: Sequence[str], sized: bool = False, objective: str = "cross_entropy", num_train: int = 0
) -> Arms:
    """Return the arms of a sweep, REFERENCE first.

    Args:
        name: of PAPER.
        values: what varies; the paper's when there are none.
        sized: see `selection_arms`.
        objective: see `weight_arms`.
        num_train: see `sampled_arms`.

    Raises:
        GdaError: a value is not allowed, or stands twice.
    """
    if len(set(values)) < len(values):
        raise GdaError(f"--values: found {','.join(values)}, where one stands twice; name each once")
    values = values or PAPER[name]
    if name == "selection":
        return selection_arms(values, sized)
    if name == "lambda":
        return weight_arms(values, objective)
    if name == "sampled":
        return sampled_arms(values, num_train)
    return strength_arms(values) if name == "strengths" else k_arms(values)


def strength_arms(values: Sequence[str]) -> Arms:
    """Return an arm per strength, in (0, 1] and thousandths: the late-learned images with one variant each (k=2).

    Source: targeted-augmentation paper, Table 6.
    """
    arms: Arms = {REFERENCE: {"train": {}}}
    for text in values:
        strength = _number(text, "0.5")
        if not 0 < strength <= 1 or abs(1000 * strength - milli(strength)) > 1e-6:
            raise GdaError(f"--values: found {text}, allowed: strengths above 0 and up to 1, at most three decimals")
        arms[f"s{milli(strength):04d}"] = _synthetic("cluster", [strength])
    return arms


def k_arms(values: Sequence[str]) -> Arms:
    """Return two arms per k of STRENGTHS_OF_K: the late-learned images shown k times, and once with k - 1 variants.

    Source: targeted-augmentation paper, Table 5.
    """
    arms: Arms = {REFERENCE: {"train": {}}}
    for text in values:
        k = int(text) if text.isdecimal() else 0
        if k not in STRENGTHS_OF_K:
            raise GdaError(f"--values: found {text}, allowed: k of {', '.join(map(str, STRENGTHS_OF_K))}")
        arms[f"upsample_k{k}"] = {"select": "cluster", "add": "copies", "k": k, "train": {}}
        arms[f"targeted_k{k}"] = _synthetic("cluster", STRENGTHS_OF_K[k])
    return arms


def selection_arms(values: Sequence[str], sized: bool) -> Arms:
    """Return an arm per selection strategy, each with four variants an image (k=5).

    Each has its own size. One that only ranks takes as many images as `cluster`, which is then an arm too.

    Args:
        values: strategies.
        sized: `select.share` is set, which sizes all that rank.

    Source: targeted-augmentation paper, Table 7. It does not state the sizes of the rivals of `cluster`.
    """
    arms: Arms = {REFERENCE: {"train": {}}}
    for strategy in values:
        try:
            arms[one_of(strategy, STRATEGIES)] = _synthetic(strategy, STRENGTHS_OF_K[5])
        except ValueError as error:
            raise GdaError(f"--values: {error}") from error
        if strategy in UNSIZED and not sized:
            arms[strategy] |= {"like": "cluster"}
    if any("like" in arm for arm in arms.values()):
        arms.setdefault("cluster", _synthetic("cluster", STRENGTHS_OF_K[5]))
    return arms


def weight_arms(values: Sequence[str], objective: str) -> Arms:
    """Return an arm per weight of an objective's synthetic term, above 0 and in thousandths.

    Args:
        values: weights, lambda.
        objective: of `train`; `cross_entropy`, which has no weight, stands for `pcr`.

    Raises:
        GdaError: a value is not allowed, or the objective searches latent vectors.

    Source: meta-generative-regularization paper, section 4.1: a grid by the validation split; that of PCR is MGR's.
    """
    if objective in SEARCH_OF.values():
        without = next(each for each, searching in SEARCH_OF.items() if searching == objective)
        raise GdaError(
            f"sweep lambda: found train.objective {objective}, which searches by the validation split that a sweep "
            f"chooses by; allowed: -S train.objective={without}, whose weight {objective} then takes"
        )
    name = "pcr" if objective == "cross_entropy" else objective
    arms: Arms = {REFERENCE: {"train": {"objective": "cross_entropy"}}}
    for text in values:
        weight = _number(text, "0.1")
        if not 0 < weight < float("inf") or abs(1000 * weight - milli(weight)) > 1e-6:
            raise GdaError(f"--values: found {text}, allowed: weights above 0, at most three decimals")
        arms[f"{name}_w{milli(weight):04d}"] = {"train": {"objective": name, "synthetic": {"weight": weight}}}
    return arms


def with_search(arm: Mapping[str, Any]) -> Arms:
    """Return the arm that searches latent vectors with the weight of an arm of `weight_arms`; {} where none does."""
    own = arm["train"]
    searching = SEARCH_OF.get(own["objective"])
    return {} if searching is None else {searching: {"train": {**own, "objective": searching}}}


def sampled_arms(values: Sequence[str], num_train: int) -> Arms:
    """Return an arm per size: class-balanced synthetic images without a source beside the real ones.

    Args:
        values: how many times as many images as the train split has, whole numbers.
        num_train: images of the train split.

    Source: m_G of the understanding-generative-augmentation paper, whose public code takes 2, 6, 10, 14 and 20 times
        the 50,000 images of CIFAR-10 (METHODS); 1 and 5 are ours.
    """
    arms: Arms = {REFERENCE: {"train": {}}}
    for text in values:
        times = int(text) if text.isdecimal() else 0
        if times < 1:
            raise GdaError(f"--values: found {text}, allowed: whole numbers from 1, times the train images")
        arms[f"sampled_x{times}"] = {"add": "sampled", "num_images": times * num_train, "train": {}}
    return arms


def compared(
    predictions: Mapping[str, Predictions],
    labels: np.ndarray,
    figures: Mapping[str, Mapping[str, Any]],
    *,
    chooses: bool,
) -> dict[str, Any]:
    """Return what a sweep has found, as plain values.

    Args:
        predictions: of each arm on N images, all of the same seeds; REFERENCE first.
        labels: int64 [N].
        figures: arm -> what else is known of it.
        chooses: name the best arm: that of the lowest mean error, the first of equal ones.

    Returns:
        `arms`: per arm its figures, `errors` (% per seed), `error` (an Estimate) and `minus_original` (a Comparison;
        lower is better). If it chooses also `best`, `runner_up`, per arm `minus_best`, and `as_good`: the other arms
        that are not significantly worse, corrected for all pairs of arms, as any could have become the best, so that
        chance may have put them behind.
    """
    others = [name for name in predictions if name != REFERENCE]
    of_reference = compare_arms(predictions, labels, {REFERENCE: others})[REFERENCE]
    arms: dict[str, dict[str, Any]] = {}
    for name, own in predictions.items():
        errors = [error_rate(guess, labels) for guess in own.classes]
        minus = asdict(of_reference[name]) if name in of_reference else None
        arms[name] = {**figures[name], "errors": errors, "error": asdict(estimate(errors)), "minus_original": minus}
    if not chooses:
        return {"arms": arms}
    ranked = sorted(arms, key=lambda name: arms[name]["error"]["mean"])
    best = ranked[0]
    of_best = compare_arms(predictions, labels, {best: [name for name in arms if name != best]}, chosen=True)[best]
    for name, arm in arms.items():
        arm["minus_best"] = asdict(of_best[name]) if name in of_best else None
    as_good = [name for name, comparison in of_best.items() if not comparison.told]
    return {"arms": arms, "best": best, "runner_up": ranked[1], "as_good": as_good}


def summary(result: Mapping[str, Any]) -> str:
    """Show the table of a sweep and what it says.

    Args:
        result: of `compared`, with `sweep`, `split`, `num_images`, `seeds`, `overrides`, `take_over` and `folder`.
    """
    arms, split, num_seeds = result["arms"], result["split"], len(result["seeds"])
    chooses = "best" in result
    references = ["original", "best"] if chooses else ["original"]
    header = [
        "arm",
        "adds",
        "selected %",
        "images/epoch",
        "updates",
        "error %",
        *(f"minus {each}" for each in references),
    ]
    rows = []
    for name, arm in arms.items():
        row = [name, arm["adds"], f"{100 * arm['selected']:.1f}", arm["images"], arm["updates"]]
        row.append(spread(Estimate(**arm["error"])))
        minus = [arm[f"minus_{each}"] for each in references]
        rows.append([*row, *("" if each is None else change(_comparison(each).difference) for each in minus)])
    lines = [
        f"{split} error on {result['num_images']} images, mean ± standard deviation over {num_seeds} "
        f"{'seed' if num_seeds == 1 else 'seeds'}; differences paired by seed, with 95 % intervals over seeds",
        "",
        table(header, rows),
        "",
    ]
    lines += _choice(result) if chooses else [f"on the {split} split: to reproduce a table, not to choose"]
    if len({arm["updates"] for arm in arms.values()}) > 1:
        lines.append("the arms made different numbers of updates: a gain may come from longer training")
    return "\n".join([*lines, f"report: {result['folder']}/{EVALUATION}/report.html"])


def _comparison(values: Mapping[str, Any]) -> Comparison:
    return Comparison(**{**values, "difference": Difference(**values["difference"])})


def _choice(result: Mapping[str, Any]) -> list[str]:
    arms, best, runner_up, as_good = (result[name] for name in ("arms", "best", "runner_up", "as_good"))
    lines = [
        f"best: {best}, {arms[best]['error']['mean']:.2f} % {result['split']} error; {runner_up} comes next: "
        f"{in_words(_comparison(arms[runner_up]['minus_best']))}"
    ]
    if as_good:
        which = "any other arm" if len(as_good) == len(arms) - 1 else ", ".join(as_good)
        lines.append(f"it is NOT significantly better than {which}: more seeds (--seeds) may tell")
    else:
        lines.append("it is significantly better than every other arm")
    lines.append(
        "the best of several is also the luckiest: its error here flatters it, and only the test split tests it"
    )
    if best == REFERENCE:
        return [*lines, "nothing to take over: no arm did better than the original images"]
    if REFERENCE in as_good:
        lines.append(
            f"no arm is shown to beat {REFERENCE}: keep it until more seeds tell, unless you have another reason"
        )
    settings = f" (found with {', '.join(result['overrides'])})" if result["overrides"] else ""
    lines.append(f"to take it over, in params.yaml under arms, and {best} in compare.arms{settings}:")
    lines += [f"  {name}: {_flow(arm)}" for name, arm in result["take_over"].items()]
    for name, arm in result.get("with_search", {}).items():
        lines.append(f"{name}, whose search reads the validation split, takes the same weight, as in its paper:")
        lines.append(f"  {name}: {_flow(arm)}")
    return lines


def _flow(arm: Mapping[str, Any]) -> str:
    """Write an arm as YAML on one line."""
    return yaml.safe_dump(dict(arm), default_flow_style=True, sort_keys=False, width=10**9).strip()


def _synthetic(strategy: str, strengths: list[float]) -> dict[str, Any]:
    return {"select": strategy, "add": "synthetic", "strengths": strengths, "train": {}}


def _number(text: str, example: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise GdaError(f"--values: found {text!r}, allowed: numbers, such as {example}") from None
