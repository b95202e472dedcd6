"""How often the interval of the two-sample test misses the truth, with features drawn at random.

`same`: both kinds from one Gaussian, so that nothing can be told and the truth is 50 %. `variants`: each image of the
second kind is one of the first with a little noise, the truth is 50 % too. `shifted`: the means differ; the truth is
the mean accuracy over all repeats. `plain` is the interval without the inflation for overlapping training images.
"""

import argparse
import json
from collections.abc import Callable

import numpy as np

from gdacli.clustered_share import clustered_share
from gdacli.two_sample import accuracy, told_apart

Pairs = tuple[np.ndarray, np.ndarray]


def same(rng: np.random.Generator, num: int, width: int) -> Pairs:
    return rng.normal(size=(num, width)), rng.normal(size=(num, width))


def variants(rng: np.random.Generator, num: int, width: int) -> Pairs:
    a = rng.normal(size=(num, width))
    return a, a + 0.3 * rng.normal(size=(num, width))


def shifted(rng: np.random.Generator, num: int, width: int) -> Pairs:
    a, b = same(rng, num, width)
    return a, b + 0.8 / np.sqrt(width)


CASES: dict[str, Callable[[np.random.Generator, int, int], Pairs]] = {
    "same": same,
    "variants": variants,
    "shifted": shifted,
}
SIZES = ((20, 64), (50, 64), (200, 64), (200, 512), (1000, 64))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--repeats", type=int, default=400)
    arguments = parser.parse_args()
    found = []
    for name, draw in CASES.items():
        for num, width in SIZES:
            rights = [
                told_apart(*draw(np.random.default_rng(repeat), num, width), seed=repeat)
                for repeat in range(arguments.repeats)
            ]
            mean = 100 * float(np.mean(rights))
            truth = mean if name == "shifted" else 50.0
            shares = [accuracy(right) for right in rights]
            plain = [clustered_share(right.ravel(), np.tile(np.arange(num), 2)) for right in rights]
            misses = [
                100 * float(np.mean([not each.low <= truth <= each.high for each in of])) for of in (shares, plain)
            ]
            row = {"case": name, "pairs": num, "width": width, "mean": round(mean, 2), "misses": round(misses[0], 2)}
            width_of = float(np.mean([each.high - each.low for each in shares]))
            found.append({**row, "plain_misses": round(misses[1], 2), "interval": round(width_of, 1)})
            if not arguments.json:
                print(found[-1], flush=True)
    if arguments.json:
        print(json.dumps({"repeats": arguments.repeats, "cases": found}, indent=2))


if __name__ == "__main__":
    main()
