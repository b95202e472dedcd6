"""A null experiment: how often each test calls a difference between arms that do not differ, against its promised 5 %.

Simulated: errors drawn from a chance of each image, a luck of each seed, and each arm's luck with each image ("images":
it cancels over all images that could have been drawn, but on those that were the arms do differ. Tests over seeds alone
promise nothing there, for they speak of these very images; `bootstrap_difference` covers the images and must not call).
Trained: small networks on the real digits, every arm and seed from the same data, new test images for each repeat.

A rate is given with its 95 % binomial interval. Exit code 1: a test of `gdacli compare` calls more often than promised,
beyond what chance does once in 1,000 such rates.
"""

import argparse
import json
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.stats import binom, binomtest, ttest_ind
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from gdacli.comparison import bootstrap_difference, holm
from gdacli.metrics import paired_difference

NUM_ARMS = 4
SCENES = {  # sd, on the logit scale, of: seed, seed shared by all arms, arm with image
    "chance": (0.0, 0.0, 0.0),
    "seeds": (0.3, 0.0, 0.0),
    "shared seeds": (0.05, 0.3, 0.0),
    "images": (0.05, 0.0, 2.0),
}
OVER_SEEDS = ("paired t", "holm, any of 4")
UNUSED = "not used: "
Draw = Callable[[np.random.Generator, int], np.ndarray]


def simulated(scene: str, num_images: int) -> Draw:
    """Return a draw of bool [1 + NUM_ARMS, S, N], True = wrong, whose arms have the same expected error."""
    seed_sd, shared_sd, image_sd = SCENES[scene]

    def draw(rng: np.random.Generator, num_seeds: int) -> np.ndarray:
        arms = 1 + NUM_ARMS
        logits = rng.normal(-3.5, 2, num_images) + rng.normal(0, image_sd, (arms, 1, num_images))
        logits = logits + rng.normal(0, shared_sd, (num_seeds, 1)) + rng.normal(0, seed_sd, (arms, num_seeds, 1))
        return rng.random(logits.shape) < 1 / (1 + np.exp(-logits))

    return draw


def trained(rng: np.random.Generator, num_seeds: int) -> np.ndarray:
    """Train 1 + NUM_ARMS arms on one half of the digits; return bool [1 + NUM_ARMS, S, N] on the other."""
    images, labels = load_digits(return_X_y=True)
    train, test, train_labels, test_labels = train_test_split(
        images / 16, labels, test_size=0.5, random_state=int(rng.integers(2**31))
    )
    wrong = []
    for seed in rng.integers(2**31, size=(1 + NUM_ARMS) * num_seeds):
        model = MLPClassifier((16,), batch_size=64, learning_rate_init=0.01, max_iter=3, random_state=int(seed))
        wrong.append(model.fit(train, train_labels).predict(test) != test_labels)
    return np.array(wrong).reshape(1 + NUM_ARMS, num_seeds, -1)


def pigeonhole(wrong: np.ndarray, reference: np.ndarray, rng: np.random.Generator) -> bool:
    """Say whether the percentile interval that resamples seeds and images alike excludes 0."""
    columns, counts = np.unique(wrong.astype(int) - reference, axis=1, return_counts=True)
    num_seeds, num_images = wrong.shape
    seeds = rng.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), 1000)
    images = rng.multinomial(num_images, counts / num_images, 1000)
    low, high = np.quantile(((seeds @ columns) * images).sum(1), [0.025, 0.975])
    return bool(low > 0 or high < 0)


def calls(wrong: np.ndarray, rng: np.random.Generator) -> dict[str, bool]:
    """Return, for each test, whether it calls a difference among wrong [1 + NUM_ARMS, S, N]; the first arm is all's."""
    errors = 100 * wrong.mean(2)
    differences = [paired_difference(each, errors[0]) for each in errors[1:]]
    p_values = [each.p_value for each in differences]
    interval = bootstrap_difference(wrong[1], wrong[0], rng, num_resamples=2000)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # equal errors in every seed
        unpaired = ttest_ind(errors[1], errors[0]).pvalue
    return {
        "paired t": differences[0].significant,
        "holm, any of 4": any(p is not None and p <= 0.05 for p in holm(p_values)),
        "bootstrap_difference": interval is not None and (interval[0] > 0 or interval[1] < 0),
        UNUSED + "unpaired t": bool(unpaired <= 0.05),
        UNUSED + "uncorrected, any of 4": any(p is not None and p <= 0.05 for p in p_values),
        UNUSED + "pigeonhole percentiles": pigeonhole(wrong[1], wrong[0], rng),
    }


def run_scene(scene: str, draw: Draw, num_seeds: int, repeats: int) -> dict[str, Any]:
    """Return each test's share of repeats that called a difference, and whether it keeps a promise that it makes."""
    rng = np.random.default_rng([0, num_seeds])
    called = [calls(draw(rng, num_seeds), rng) for _ in range(repeats)]
    tests = {}
    for test in called[0]:
        count = sum(each[test] for each in called)
        low, high = binomtest(count, repeats).proportion_ci(method="exact")
        promises = not (test.startswith(UNUSED) or (scene == "images" and test in OVER_SEEDS))
        kept = bool(binom.sf(count - 1, repeats, 0.05) >= 0.001) if promises else None
        tests[test] = {"rate": count / repeats, "low": low, "high": high, "kept": kept}
    return {"scene": scene, "seeds": num_seeds, "repeats": repeats, "tests": tests}


def as_text(run: dict[str, Any]) -> str:
    """Show the rates of a scene, a line per test."""
    lines = [f"{run['scene']}, {run['seeds']} seeds, {run['repeats']} repeats:"]
    verdicts = {True: "", False: "  MORE THAN PROMISED", None: "  no promise"}
    for test, each in run["tests"].items():
        rate, low, high = (100 * each[name] for name in ("rate", "low", "high"))
        lines.append(f"  {test:33} {rate:5.1f} % ({low:.1f} to {high:.1f}){verdicts[each['kept']]}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--repeats", type=int, default=1000, help="of each simulation")
    parser.add_argument("--trainings", type=int, default=200, help="repeats of the trained experiment; 0 = leave it")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 5, 10])
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)  # three epochs are meant
    scenes = [
        (scene, simulated(scene, arguments.images), num_seeds, arguments.repeats)
        for num_seeds in arguments.seeds
        for scene in SCENES
    ]
    if arguments.trainings:
        scenes.append(("trained", trained, arguments.seeds[0], arguments.trainings))
    runs = [run_scene(*scene) for scene in scenes]
    print(json.dumps(runs, indent=2) if arguments.json else "\n".join(map(as_text, runs)))
    if any(each["kept"] is False for run in runs for each in run["tests"].values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
