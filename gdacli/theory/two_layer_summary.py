"""What the figures of `gdacli theory two-layer` say, in words that depend on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from gdacli.console import table
from gdacli.theory.comparisons import UNDECIDED
from gdacli.theory.identity_errors import Failure
from gdacli.theory.learning_curves import ARMS
from gdacli.theory.outcome import Row
from gdacli.theory.presentation import bullets
from gdacli.theory.two_layer_setting import Setting

_CHANCE = 0.55
"""If the accuracy on slow examples is surely below this in every arm, their feature is called not learned."""


def summary(setting: Setting, figures: dict[str, Any], failures: Sequence[Failure]) -> str:
    """Return a table of the arms at the end, and what is found as sentences."""
    sentences = [
        _accuracies(figures["differences"]),
        *([_hopeless(setting, figures["expected_iterations"])] if _nothing_learned(figures["end"]) else []),
        _noise(figures["differences"]),
        _equation_2(figures["equation_2"]),
        _identities(setting, figures, failures),
        _inequality(setting, figures["noise_align_of_sam"]),
        _tolerance(figures["tolerance"]),
        _variance(figures["variance"]),
    ]
    return f"{_arms(setting, figures)}\n\n{bullets(sentences)}"


def _arms(setting: Setting, figures: dict[str, Any]) -> str:
    header = [f"after {setting.iterations} iterations", "slow feature", "its examples' noise"]
    rows = []
    for arm in ARMS:
        end, start = figures["end"][arm], figures["start"][arm]
        accuracies = (_pm(end[name], 100, 1) for name in ("fast_accuracy", "slow_accuracy"))
        alignments = (_pm(end[name], 1, 2) for name in ("slow_alignment", "slow_noise"))
        rows.append([arm, *alignments, *accuracies, _pm(start, 1000, 3)])
    return table([*header, "fast, % correct", "slow, % correct", "NoiseAlign at the start, 1e-3"], rows)


def _pm(found: dict[str, float], unit: float, digits: int) -> str:
    half = (found["high"] - found["low"]) / 2
    return f"{unit * found['mean']:.{digits}f} ± {unit * half:.{digits}f}"


def _difference(
    rows: Sequence[Row], pair: tuple[str, str], at: str, measure: str, unit: float, digits: int, word: str = ""
) -> str:
    (row,) = (row for row in rows if (row["arm"], row["reference"], row["at"], row["measure"]) == (*pair, at, measure))
    if row["verdict"] == "equal":
        return "equal"
    mean, *ends = (
        None if row[name] is None else round(unit * float(row[name] or 0), digits) + 0.0  # no -0.0
        for name in ("difference", "low", "high")
    )
    interval = "" if None in ends else f" ({ends[0]:.{digits}f} to {ends[1]:.{digits}f})"
    text = f"{mean:+.{digits}f}{word}{interval}"
    return f"{UNDECIDED}, {text}" if row["verdict"] == UNDECIDED else text


def _accuracies(differences: Sequence[Row]) -> str:
    def points(*pair: str) -> str:
        return _difference(differences, (pair[0], pair[1]), "end", "slow_accuracy", 100, 1, " points")

    each = "; ".join(f"{arm} {points(arm, ARMS[0])}" for arm in ARMS[1:])
    return (
        f"Correct on fresh slow examples, against gradient descent: {each}. Generation against upsampling: "
        f"{points('generation', 'upsampling')}. (Paired; an interval is of one comparison, what is called a difference "
        f"is one among all {len(differences)}, Holm.)"
    )


def _nothing_learned(end: dict[str, Any]) -> bool:
    return all(end[arm]["slow_accuracy"]["high"] < _CHANCE for arm in ARMS)


def _hopeless(setting: Setting, expected: dict[str, float | None]) -> str:
    alone, more = expected["gradient descent"], expected["generation"]
    need = "it is never learned"
    if alone is not None and more is not None:
        need = f"it takes about {alone:.0f} iterations, {more:.0f} with k = {setting.k}, if noise does not win first"
    return (
        f"No arm learns the slow feature: with beta_d^3 = {setting.beta_d**3:.2g} {need}. "
        "--beta-d and --iterations decide."
    )


def _noise(differences: Sequence[Row]) -> str:
    made, sam = ("generation", "upsampling"), ("SAM", "gradient descent")
    return (
        "Noise of the slow examples, generation against upsampling at the end: "
        f"{_difference(differences, made, 'end', 'slow_noise', 1, 2)}. NoiseAlign at the start, in 1e-3: "
        f"generation against upsampling {_difference(differences, made, 'start', 'noise_align', 1000, 3)}; "
        f"SAM against gradient descent {_difference(differences, sam, 'start', 'noise_align', 1000, 4)}."
    )


def _equation_2(found: Sequence[dict[str, Any]]) -> str:
    first, last = found[0], found[-1]
    most = max(found, key=lambda each: each["measured"]["mean"])
    ratio = f"median {first['median']:.2f} at the start" if first["median"] is not None else "undefined at the start"
    return (
        f"Equation 2, ((1 - rho_t beta_d^3 <w, v_d>) / (1 - rho_t beta_e^3 <w, v_e>))^(2/3), over SAM's filters: "
        f"{ratio}, undefined (a term is 0 or less) for {100 * last['undefined']:.0f} % of them at the end. Measured, "
        f"SAM raises the slow feature's gradient over the fast one's {_pm(first['measured'], 1, 2)} times at the "
        f"start, at most {_pm(most['measured'], 1, 2)} times (iteration {most['iteration']})."
    )


def _identities(setting: Setting, figures: dict[str, Any], failures: Sequence[Failure]) -> str:
    worst = max(figures["largest_errors"].values())
    of_descent = [each for each in failures if each.identity == "noise gradient, gradient descent"]
    last = {each.noise: each for each in of_descent}  # the last of each is that of most dimensions
    normal, off = last["normal"], last["normal off the features"]
    share = normal.dimension / setting.num_examples
    return (
        "Theorems 4.1 and 4.2: with orthogonal noises and held logit terms the identities hold to "
        f"{worst:.0e}. With normal noises in {normal.dimension} dimensions ({share:g} an example) the median relative "
        f"error of gradient descent's is {_pm(asdict(normal.median), 100, 0)} %; with noises off the features "
        f"{_pm(asdict(off.median), 100, 0)} %, falling like d^{figures['rate']:.2f}."
    )


def _inequality(setting: Setting, found: Sequence[dict[str, Any]]) -> str:
    small = min(each["share"]["mean"] for each in found if each["small"] and each["logits"] == "held")
    shares = {each["logits"]: each["share"] for each in found if each["rho"] == setting.rho}
    return (
        f"NoiseAlign(SAM) < NoiseAlign(gradient descent), orthogonal noises: in {100 * small:.0f} % of filters as the "
        f"proof assumes; at rho = {setting.rho:g} in {_pm(shares['held'], 100, 0)} % with held logit terms, in "
        f"{_pm(shares['own'], 100, 0)} % with the network's own."
    )


def _tolerance(found: dict[str, float]) -> str:
    below = "below" if found["of_setting"] < found["at_this_size"] else "not below"
    return (
        "Generation aligns with noise less than upsampling while E[<w, gamma>^2 ||gamma||^2] is less than k + 1 = "
        f"{found['paper']:.0f} times the data's ({found['at_this_size']:.2f} at this N); here it is "
        f"{found['of_setting']:.2g} times, {below} that."
    )


def _variance(found: dict[str, Any]) -> str:
    own = found["own"]
    exact = {view: f"{value * own['batch']:.3f}" for view, value in own["exact"].items()}
    return (
        f"Theorem 4.3, batch {own['batch']}, in sigma^2 / B: around the population mean {exact['population']} for "
        f"upsampling (printed bound {own['printed'] * own['batch']:.3f}), {exact['generated']} for generation; "
        f"around the set's own full gradient {exact['finite']} and {exact['finite_generated']}: "
        "what copies add is in the set, not in the batches. "
        f"Draws: {found['beyond_3_standard_errors']} of {found['compared']} figures are beyond 3 standard errors."
    )
