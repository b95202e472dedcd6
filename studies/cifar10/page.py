"""Print what a finished project found as the tables of a result page: selection, report, wall time, energy.

    python studies/cifar10/page.py -C studies/cifar10/cpu

Reads the project's small results alone, so that a folder which pieces.py --keep has filled serves as well.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from gdacli.artifacts import read_json
from gdacli.errors import GdaError
from gdacli.wording import table

_RESULTS = ("data/selection/selection.json", "data/evaluation/results.json", "data/evaluation/report.md")


def page(project: Path) -> str:
    """Return the page as Markdown.

    Raises:
        GdaError: the project is not evaluated.
    """
    for name in _RESULTS:
        if not (project / name).exists():
            raise GdaError(f"{project / name}: is not there: run all stages, or give another project with -C")
    selection, results = (read_json(project / name) for name in _RESULTS[:2])
    report = (project / _RESULTS[2]).read_text(encoding="utf-8").strip()
    parts = {
        "What was selected": _table(selected(selection["arms"], results["class_names"])),
        "What came out": report.replace("\n### ", "\n#### "),
        "Wall time": _table(times(project, list(results["arms"]), results["seeds"])),
    }
    return "\n".join(f"### {title}\n\n{text}\n" for title, text in parts.items())


def selected(arms: dict[str, Any], class_names: list[str]) -> list[list[str]]:
    """Return a row for each arm that selects: images, and the share of all and of each class in %."""
    rows = [["arm", "images", "all", *class_names]]
    for name, found in arms.items():
        shares = [found["share"], *(found["per_class"][label] for label in class_names)]
        rows.append([name, str(found["count"]), *(f"{100 * share:.1f} %" for share in shares)])
    return rows


def times(project: Path, arms: list[str], seeds: list[int]) -> list[list[str]]:
    """Return a row for each stage but mix, and for each arm that of a training: wall seconds and watt hours.

    What pieces.py noted counts all its pieces; without it there are the seconds that each stage says of its last run.
    """
    noted = project / "data/logs/timings.json"
    known: dict[str, Any] = read_json(noted) if noted.exists() else {}
    runs = project / "data/metrics/runs"
    rows = [["stage", "wall seconds", "GPU Wh"]]
    for stage in ("prepare", "probe", "select", "fit", "generate"):
        rows.append([stage, *_cost([known.get(stage) or _last_run(runs / f"{stage}.json")])])
    for arm in arms:
        names = [f"{arm}-{seed}" for seed in seeds]
        costs = [known.get(f"train@{name}") or _last_run(runs / f"train/{name}.json") for name in names]
        rows.append([f"train {arm}, mean of {sum(map(bool, costs))}", *_cost(costs)])
    evaluation = known.get(f"evaluate@{','.join(map(str, seeds))}")  # the one of all seeds
    rows.append(["evaluate", *_cost([evaluation or _last_run(runs / "evaluate.json")])])
    return rows


def _last_run(path: Path) -> dict[str, Any]:
    return {"seconds": read_json(path)["seconds"], "watt_hours": None} if path.exists() else {}


def _cost(costs: list[dict[str, Any]]) -> list[str]:
    """Return the mean seconds and watt hours of those that are known."""
    cells = []
    for key, form in (("seconds", ".0f"), ("watt_hours", ".2f")):
        found = [cost[key] for cost in costs if cost.get(key) is not None]
        cells.append(format(sum(found) / len(found), form) if found else "-")
    return cells


def _table(rows: list[list[str]]) -> str:
    return "\n".join(table(rows))


def main() -> int:
    """Print the page."""
    parser = argparse.ArgumentParser(description="Print a finished project's results as Markdown.")
    parser.add_argument("-C", "--directory", type=Path, default=Path(__file__).parent, help="the project (this one)")
    try:
        print(page(parser.parse_args().directory))
    except GdaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
