"""`gdacli compare`: by how much two arms, runs or revisions differ on the same images, and how sure that is."""

import math
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from gdacli.arm_results import compare_errors, differing, error_interval
from gdacli.artifacts import read_json
from gdacli.calibration import expected_calibration_error
from gdacli.console import table
from gdacli.errors import GdaError
from gdacli.metrics import Difference, Estimate, balanced_error, error_rate, estimate, paired_difference
from gdacli.paths import EVALUATION
from gdacli.tables import read_table
from gdacli.wording import about, change, ends, p_value, spread

WORKSPACE = "workspace"
"""DVC's name for what lies in the folder now."""

_ALLOWED = f"allowed: [REVISION:]ARM[-SEED], or a REVISION, or {WORKSPACE}"
_SIMILAR = 0.05
_FILE = EVALUATION / "predictions.parquet"
_COLUMNS = ("key", "label", "arm", "seed", "prediction", "confidence")
_ROWS = {"error": "error %", "balanced_error": "balanced error %", "calibration_error": "calibration error %"}


@dataclass(frozen=True)
class _Run:
    """Predictions of one model, sorted by key."""

    keys: np.ndarray
    labels: np.ndarray
    classes: np.ndarray
    confidence: np.ndarray


@dataclass(frozen=True)
class _Evaluation:
    """What `gdacli evaluate` wrote in one revision, or in the workspace."""

    runs: dict[str, dict[int, _Run]]
    """Arm -> seed -> run."""
    results: dict[str, Any]
    """Arm -> figures."""
    train: dict[str, Any] | None
    """The section `train`, as far as it decides weights; None of older evaluations."""


@dataclass(frozen=True)
class _Operand:
    text: str
    revision: str
    arm: str | None
    seed: int | None


def run(a: str, b: str) -> dict[str, Any]:
    """Compare A with B by arm, paired by seed and image; every difference is A minus B, in percentage points.

    Args:
        a, b: `[REVISION:]ARM[-SEED]`, or a bare revision: every arm that both have, or the other's arm if it names one.
            A revision is a commit, branch or tag of git, an experiment of DVC, or `workspace`. A name without a colon
            is an arm of the workspace if there is one of this name.

    Raises:
        GdaError: an unknown revision, arm or seed, predictions that DVC cannot get, no seed in common, or other images
            or labels.
    """

    @cache
    def read(revision: str) -> _Evaluation:
        return _read_workspace() if revision == WORKSPACE else _read_revision(revision)

    operands = [_parse(text, read(WORKSPACE) if _FILE.exists() else None) for text in (a, b)]
    of_a, of_b = (read(operand.revision) for operand in operands)
    pairs, notes = _pairs(operands[0], of_a, operands[1], of_b)
    compared = []
    wrong: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    num_images = 0
    for arm_a, arm_b in pairs:
        seeds_a, seeds_b = _seeds(operands[0], of_a, arm_a), _seeds(operands[1], of_b, arm_b)
        seeds = sorted(seeds_a & seeds_b)
        if not seeds:
            raise GdaError(
                f"{a}: {arm_a} has the seeds {_listed(seeds_a)}, {b}: {arm_b} has {_listed(seeds_b)}, and none is in "
                "both: runs are paired by seed, so train a seed of one for the other too"
            )
        if (alone := seeds_a ^ seeds_b) and operands[0].seed is None and operands[1].seed is None:
            notes.append(f"{_label(arm_a, arm_b)}: the seeds {_listed(alone)} are not in both and are left out")
        runs_a, runs_b = ([of.runs[arm][seed] for seed in seeds] for of, arm in ((of_a, arm_a), (of_b, arm_b)))
        _check_same_images(runs_a + runs_b, a, b)
        num_images = len(runs_a[0].keys)
        efforts = {"a": _effort(of_a, arm_a), "b": _effort(of_b, arm_b)}
        if efforts["a"] and efforts["b"] and _differ(efforts["a"], efforts["b"]):
            notes.append(
                f"{_label(arm_a, arm_b)}: A and B differ in updates or images seen, so a gain may come from longer "
                "training, not from better data"
            )
        known = of_a is of_b or (of_a.train is not None and of_b.train is not None)
        if known and (others := differing(_settings(of_a, arm_a), _settings(of_b, arm_b))):
            notes.append(
                f"{_label(arm_a, arm_b)}: A and B were trained with other settings too ({', '.join(others)}), which a "
                "difference may come from"
            )
        wrong[arm_a] = _wrong(runs_a), _wrong(runs_b)
        compared.append({"a": arm_a, "b": arm_b, "seeds": seeds, **_measure(runs_a, runs_b), "effort": efforts})
    for each, comparison in zip(compared, compare_errors(wrong).values(), strict=True):
        each["error_over_images"] = {
            **{side: error_interval(of_side) for side, of_side in zip("ab", wrong[each["a"]], strict=True)},
            "difference": comparison.interval,
        }
        each |= {"effect_size": comparison.effect_size, "corrected_p": comparison.corrected_p, "told": comparison.told}
        each["seeds_needed"] = comparison.seeds_needed
    return {"a": a, "b": b, "num_images": num_images, "comparisons": compared, "notes": notes}


def summary(result: dict[str, Any]) -> str:
    """Show a table, what each arm's comparison says in words, and the notes."""
    compared = result["comparisons"]
    lines = [
        f"A: {result['a']}, B: {result['b']}; {result['num_images']} images, mean ± standard deviation over seeds; "
        "A - B below 0: A is better",
        "",
        table(
            ["", "A", "B", "A - B (95 % over seeds)", "p"],
            [
                [f"{_label(each['a'], each['b'])}: {name}", *_cells(each[measure])]
                for each in compared
                for measure, name in _ROWS.items()
            ],
        ),
    ]
    for each in compared:
        lines += ["", *_in_words(each, len(compared))]
    return "\n".join([*lines, *([""] if result["notes"] else []), *(f"note: {note}" for note in result["notes"])])


def _parse(text: str, workspace: _Evaluation | None) -> _Operand:
    revision, colon, name = text.rpartition(":")
    named = re.fullmatch(r"([a-z0-9_]+)(?:-(\d+))?", name)
    if not colon:
        if not (named and workspace and named[1] in workspace.runs):
            return _Operand(text, text, None, None)
        revision = WORKSPACE
    elif not revision or not (named or not name):
        raise GdaError(f"{text}: {_ALLOWED}")
    if not named:
        return _Operand(text, revision, None, None)
    return _Operand(text, revision, named[1], None if named[2] is None else int(named[2]))


def _read_workspace() -> _Evaluation:
    if not _FILE.exists():
        raise GdaError(f"{_FILE} does not exist: run `gdacli evaluate` (or `dvc repro`, or `dvc pull {EVALUATION}`)")
    return _read(EVALUATION, str(_FILE))


def _read_revision(revision: str) -> _Evaluation:
    """Let DVC copy the evaluation of a revision to a temporary folder: from git, its cache or its remote."""
    here = Path.cwd()
    # The root of git, which may lie above that of DVC: what `dvc get` looks up in a revision begins there.
    root, of_dvc = (
        next((folder for folder in (here, *here.parents) if (folder / name).exists()), None)
        for name in (".git", ".dvc")
    )
    if root is None or of_dvc is None or shutil.which("dvc") is None:
        lacking = "dvc is not on the PATH" if root and of_dvc else "this folder is in no repository of git and DVC"
        raise GdaError(f"{revision} cannot be read as a revision, for {lacking}{_workspace_arms()}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / EVALUATION.name
        path = (here / EVALUATION).relative_to(root)
        command = ["dvc", "get", str(root), str(path), f"--rev={revision}", "--out", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise GdaError(_why_not(revision, path, done.stderr))
        return _read(folder, f"{_FILE} of {revision}")


def _why_not(revision: str, path: Path, output: str) -> str:
    said = next((line for line in output.splitlines() if line.startswith("ERROR: ")), output).removeprefix("ERROR: ")
    if "unknown Git revision" in said:
        return f"{revision} is no revision that git or DVC knows{_workspace_arms()}; {_ALLOWED}"
    if "No storage files available" in said or "missing" in said:
        return (
            f"{path} of {revision} is neither in DVC's cache nor in its remote ({said}): `dvc push` it where it was "
            "made, or check that revision out and run `dvc repro`"
        )
    return (
        f"{path} of the revision {revision} cannot be had from DVC ({' '.join(said.split())}): was it evaluated and "
        f"committed?{_workspace_arms()}"
    )


def _workspace_arms() -> str:
    if not _FILE.exists():
        return f"; {WORKSPACE} has no {_FILE}"
    return f"; the arms of {WORKSPACE} are {_listed(_read_workspace().runs)}"


def _read(folder: Path, name: str) -> _Evaluation:
    if not (folder / _FILE.name).exists():
        raise GdaError(f"{name} does not exist: it holds no evaluation of gdacli")
    columns = read_table(folder / _FILE.name)
    if lacking := [each for each in _COLUMNS if each not in columns]:
        raise GdaError(f"{name} has no column {', '.join(lacking)}: evaluate it again with this gdacli")
    keys, arms, seeds = np.array(columns["key"]), np.array(columns["arm"]), columns["seed"]
    order = np.lexsort((keys, seeds, arms))
    starts = 1 + np.flatnonzero((arms[order][1:] != arms[order][:-1]) | (seeds[order][1:] != seeds[order][:-1]))
    runs: dict[str, dict[int, _Run]] = {}
    for rows in np.split(order, starts) if len(order) else []:
        values = (columns[each][rows] for each in ("label", "prediction", "confidence"))
        runs.setdefault(str(arms[rows[0]]), {})[int(seeds[rows[0]])] = _Run(keys[rows], *values)
    if not runs:
        raise GdaError(f"{name} holds no predictions: evaluate at least one arm")
    results = folder / "results.json"
    figures = read_json(results) if results.exists() else {}
    return _Evaluation(runs, figures.get("arms", {}), figures.get("train"))


def _pairs(a: _Operand, of_a: _Evaluation, b: _Operand, of_b: _Evaluation) -> tuple[list[tuple[str, str]], list[str]]:
    """Return which arm of A is compared with which of B, and notes on those that are left out."""
    if a.arm or b.arm:
        pair = a.arm or b.arm or "", b.arm or a.arm or ""
        for operand, of, arm in ((a, of_a, pair[0]), (b, of_b, pair[1])):
            if arm not in of.runs:
                raise GdaError(f"{operand.text}: {operand.revision} has no arm {arm}; allowed: {_listed(of.runs)}")
        return [pair], []
    both = [arm for arm in of_a.runs if arm in of_b.runs]
    if not both:
        raise GdaError(
            f"{a.text} has the arms {_listed(of_a.runs)}, {b.text} has {_listed(of_b.runs)}, and none is in both: name "
            "an arm of each, as in REVISION:ARM"
        )
    alone = set(of_a.runs) ^ set(of_b.runs)
    return [(arm, arm) for arm in both], [f"{_listed(alone)} not in both and left out"] if alone else []


def _seeds(operand: _Operand, of: _Evaluation, arm: str) -> set[int]:
    seeds = set(of.runs[arm])
    if operand.seed is None:
        return seeds
    if operand.seed not in seeds:
        raise GdaError(f"{operand.text}: {arm} has no seed {operand.seed}; allowed: {_listed(seeds)}")
    return {operand.seed}


def _check_same_images(runs: list[_Run], a: str, b: str) -> None:
    first = runs[0]
    for each in runs[1:]:
        if not np.array_equal(each.keys, first.keys):
            alone = np.setxor1d(each.keys, first.keys)
            raise GdaError(
                f"{a} and {b} were tested on {len(first.keys)} and {len(each.keys)} images, of which {len(alone)} are "
                f"not in both (such as {alone[0]}): they must be the same; evaluate both on the same split"
            )
        if (other := np.flatnonzero(each.labels != first.labels)).size:
            raise GdaError(
                f"{a} and {b} have other labels for {other.size} images (such as {first.keys[other[0]]}): they must be "
                "the same; evaluate both on the same version of the source"
            )


def _effort(of: _Evaluation, arm: str) -> dict[str, int] | None:
    figures = of.results.get(arm, {})
    figures = figures.get("effort", figures)  # older evaluations have them beside the errors
    names = ("updates", "images_seen")
    return {name: int(figures[name]) for name in names} if all(name in figures for name in names) else None


def _settings(of: _Evaluation, arm: str) -> dict[str, Any]:
    """Return what an arm was trained with, as far as the evaluation says it."""
    return {**(of.train or {}), **of.results.get(arm, {}).get("effort", {}).get("settings", {})}


def _differ(a: dict[str, int], b: dict[str, int]) -> bool:
    """Say if one trained longer; at equal updates some images more or less are what its last batches held."""
    return a["updates"] != b["updates"] or not math.isclose(a["images_seen"], b["images_seen"], rel_tol=_SIMILAR)


def _wrong(runs: list[_Run]) -> np.ndarray:
    return np.stack([each.classes != each.labels for each in runs])


def _measure(runs_a: list[_Run], runs_b: list[_Run]) -> dict[str, Any]:
    """Return the measures of two arms whose runs have the same seeds and images in the same order."""
    measures: dict[str, Callable[[_Run], float]] = {
        "error": lambda run: error_rate(run.classes, run.labels),
        "balanced_error": lambda run: balanced_error(run.classes, run.labels),
        "calibration_error": lambda run: expected_calibration_error(run.confidence, run.classes == run.labels),
    }
    found: dict[str, Any] = {}
    for name, measure in measures.items():
        of_a, of_b = ([measure(each) for each in runs] for runs in (runs_a, runs_b))
        difference = paired_difference(of_a, of_b)
        found[name] = {"a": asdict(estimate(of_a)), "b": asdict(estimate(of_b)), "difference": asdict(difference)}
    return found


def _cells(measure: dict[str, Any]) -> list[str]:
    difference = Difference(**measure["difference"])
    arms = (spread(Estimate(**measure[side])) for side in ("a", "b"))
    return [*arms, change(difference), p_value(difference.p_value)]


def _in_words(compared: dict[str, Any], num_arms: int) -> list[str]:
    difference = Difference(**compared["error"]["difference"])
    lines = [f"{_label(compared['a'], compared['b'])}: {_verdict(compared, difference, num_arms)}"]
    over_images = compared["error_over_images"]
    for name, side in (("A", "a"), ("B", "b"), ("A - B", "difference")):
        each = compared["error"][side]
        if each["low"] is not None and over_images[side] is not None:
            lines.append(
                f"  {name}: 95 % interval {ends((each['low'], each['high']))} over training seeds on these images, "
                f"{ends(over_images[side])} over seeds and images"
            )
    if compared["told"] and over_images["difference"][0] <= 0 <= over_images["difference"][1]:
        lines.append("  On other images there may be no difference.")
    if compared["effect_size"] is not None:
        lines.append(f"  Effect size (Hedges' g, standard deviations of the seeds): {compared['effect_size']:+.2f}")
    efforts = [(name, compared["effort"][side]) for name, side in (("A", "a"), ("B", "b")) if compared["effort"][side]]
    trained = (f"{name} {each['updates']:,} updates, {each['images_seen']:,} images seen" for name, each in efforts)
    return [*lines, *([f"  Training: {'; '.join(trained)}"] if efforts else [])]


def _verdict(compared: dict[str, Any], difference: Difference, num_arms: int) -> str:
    points = f"{abs(difference.mean):.2f} points {'lower' if difference.mean < 0 else 'higher'} error than B"
    seeds = f"seed{'s' * (difference.num > 1)} {_listed(compared['seeds'])}"
    if difference.p_value is None:
        if difference.mean == 0:
            return f"A and B have the same error in {seeds}."
        why = "one seed has no spread" if difference.num == 1 else "the seeds do not vary"
        return f"A has {points} in {seeds}; whether it is chance cannot be told, for {why}."
    chance = f"p = {p_value(difference.p_value)}"
    if num_arms == 1:
        chance += " of one comparison"
    else:
        chance += f", corrected for {num_arms} comparisons (Holm) {p_value(compared['corrected_p'])}"
    if compared["told"]:
        return f"A has {points} ({chance}; {seeds})."
    needed = compared["seeds_needed"]
    if needed is None:
        return f"no significant difference ({chance}; {seeds})."
    return f"no significant difference ({chance}; {seeds}); {about(needed)} seeds would tell one of this size."


def _label(arm_a: str, arm_b: str) -> str:
    return arm_a if arm_a == arm_b else f"{arm_a} against {arm_b}"


def _listed(names: Iterable[Any]) -> str:
    return ", ".join(map(str, sorted(names)))
