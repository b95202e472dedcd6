"""How `gdacli sweep` runs: in projects of its own in `sweeps/`, which take from the project what is made."""

import contextlib
import os
import tempfile
from collections.abc import Iterable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from gdacli import overlap, sweeps
from gdacli.arm_results import Predictions
from gdacli.arms import Arm, selected
from gdacli.artifacts import require, sha256_file, write_json, write_text
from gdacli.checksums import verify_folder
from gdacli.console import say, table
from gdacli.errors import GdaError
from gdacli.explain import FILE
from gdacli.invocation import WAIT_BRIEFLY, run_versioned
from gdacli.params import Params, load_params
from gdacli.paths import EVALUATION, GENERATOR, PROBE, REJECTS, SELECTION, SOURCE, SWEEPS, SYNTHETIC, run_name
from gdacli.prepared import read_prepared, read_strategies
from gdacli.processes import num_processes
from gdacli.published import previous_pool
from gdacli.rng import digest
from gdacli.store import ENVIRONMENT_VARIABLE, open_location, work_location
from gdacli.tables import read_table, write_csv
from gdacli.training_sections import Train

STABILITY = "stability"

_STAGES = ("select", "generate", "mix", "train", "evaluate")
_OVERRIDDEN = {STABILITY: ("compute", "probe", "select")}
_CHEAP = {"corruption_images": 0, "gradient_variance": None, "course": None}
"""What a sweep does not measure of all its arms, unless -S says so."""
_OVERRIDDEN_ELSE = ("compute", "select", "generate", "train", "evaluate")
_WITHOUT_ARMS = (f"arms={{{sweeps.REFERENCE}: {{train: {{}}}}}}", f"compare.arms=[{sweeps.REFERENCE}]")
"""The project's own arms are not compared, and so need not fit what is overridden."""
_IGNORED = """\
# Written by gdacli: parameters and results may be committed; all else is made again, most of it from the cache.
/*/*
!/*/params.yaml
!/*/sweep.json
!/*/stability.json
!/*/stability.csv
"""


def run(name: str, values: str | None, split: str, seeds: str | None, overrides: list[str]) -> dict[str, Any]:
    """Run a sweep of the project in this folder; returns what it found, which `sweeps/<name>` holds too.

    Args:
        name: of `sweeps.PAPER`, or STABILITY.
        values: what varies, separated by commas; the paper's when None.
        split: validation or test.
        seeds: of the trainings, or of the probes of STABILITY, separated by commas.
        overrides: KEY=VALUE of `params.yaml`, of the stages that run.

    Raises:
        GdaError: an earlier stage has not run, or a value, a seed or an override is not allowed.
    """
    os.environ.setdefault(*WAIT_BRIEFLY)
    if num_processes() > 1:
        raise GdaError("gdacli sweep runs in one process: start it without torchrun")
    allowed = _OVERRIDDEN.get(name, _OVERRIDDEN_ELSE)
    for override in overrides:
        if override.partition(".")[0] not in allowed or override.startswith("evaluate.split"):
            raise GdaError(
                f"-S {override}: sweep {name} takes values of {', '.join(allowed)}; --values, --seeds and --on say "
                f"what is compared, and all else is the project's: change {FILE} and run `dvc repro`"
            )
    params = load_params(Path(), [*overrides, *_WITHOUT_ARMS])
    if "://" not in work_location():  # a relative one is relative to the project
        os.environ[ENVIRONMENT_VARIABLE] = str(open_location(work_location()))
    listed = [value.strip() for value in values.split(",")] if values is not None else []
    chosen = _seeds(seeds)
    if name == STABILITY:
        return _stability(params, listed, chosen or [params.probe.seed + each for each in range(3)])
    return _sweep(name, params, listed, split, chosen or params.compare.seeds, overrides)


def summary(result: dict[str, Any]) -> str:
    """Show the result as a table, and say what it means."""
    return _summary_of_stability(result) if result["sweep"] == STABILITY else sweeps.summary(result)


def _seeds(text: str | None) -> list[int]:
    parts = [part.strip() for part in text.split(",")] if text is not None else []
    if not all(part.isdecimal() for part in parts) or len(set(map(int, parts))) < len(parts):
        raise GdaError(f"--seeds: found {text}, allowed: whole numbers, each once, such as 0,1,2")
    return [int(part) for part in parts]


def _sweep(
    name: str, params: Params, values: list[str], split: str, seeds: list[int], overrides: list[str]
) -> dict[str, Any]:
    prepared = read_prepared(SOURCE)
    require(PROBE, "gdacli probe")
    require(GENERATOR / params.generate.backend, "gdacli fit")
    if split == "validation" and prepared.splits["validation"].count == 0:
        raise GdaError(
            f"sweep {name} chooses by validation images, of which there are none: set data.validation_fraction (0.2) "
            "and run `dvc repro`, or pass --on test, which chooses nothing"
        )
    arms = sweeps.sweep_arms(
        name,
        values,
        sized=params.select.share is not None,
        objective=params.train.objective,
        num_train=prepared.splits["train"].count,
    )
    own = params.model_dump(mode="json", exclude_unset=True)
    own |= {"arms": arms, "compare": {"arms": list(arms), "seeds": seeds}}
    given = {override.partition("=")[0].removeprefix("evaluate.") for override in overrides}
    cheap = {key: value for key, value in _CHEAP.items() if key not in given}
    own["evaluate"] = {**own.get("evaluate", {}), **cheap, "split": split}
    folder = SWEEPS / (name if split == "validation" else f"{name}-{split}")
    _make_project(folder, own, [SOURCE, PROBE, GENERATOR])
    results: dict[str, Any] = {}
    with contextlib.chdir(folder):
        sub = load_params(Path())
        for number, stage in enumerate(_STAGES, 1):
            say(f"sweep {name}: {stage} ({number} of {len(_STAGES)})")
            if stage == "evaluate":  # what an earlier sweep with other values has left here
                import_module("gdacli.stages.clean").run(sub)
            results[stage] = run_versioned(stage, sub)
            if stage == "generate":
                made = results[stage]["run"]
                say(f"{made['made']} images made, {made['reused']} reused")
        predictions = _predictions(arms, seeds)
    figures = {
        arm: {
            "adds": _adds(sub.arm(arm), sub.train_of(arm)),
            "selected": results["select"]["arms"].get(arm, {"share": 0.0})["share"],
            "images": results["mix"]["arms"][arm]["total"],
            "updates": results["train"]["runs"][run_name(arm, seeds[0])]["updates"],
        }
        for arm in arms
    }
    found = sweeps.compared(predictions, prepared.labels(split), figures, chooses=split == "validation")
    result = {
        "sweep": name,
        "split": split,
        "num_images": prepared.splits[split].count,
        "seeds": seeds,
        "overrides": overrides,
        "folder": str(folder),
        **found,
    }
    if "best" in found:
        best = arms[found["best"]]
        needed = [found["best"], *([best["like"]] if "like" in best else [])]
        result["take_over"] = {arm: arms[arm] for arm in needed}
        if name == "lambda" and found["best"] != sweeps.REFERENCE:
            result["with_search"] = sweeps.with_search(best)
    write_json(folder / "sweep.json", result)
    return {**result, "run": results["generate"]["run"]}


def _predictions(arms: Iterable[str], seeds: list[int]) -> dict[str, Predictions]:
    """Read what `gdacli evaluate` has just written: arm by arm, seed by seed."""
    columns, names = read_table(EVALUATION / "predictions.parquet"), list(arms)
    shape = len(names), len(seeds), -1
    classes, confidence = (columns[name].reshape(shape) for name in ("prediction", "confidence"))
    return {name: Predictions(classes[row], confidence[row]) for row, name in enumerate(names)}


def _adds(arm: Arm, train: Train) -> str:
    if arm.add is None:
        return "nothing" if train.objective == "cross_entropy" else f"{train.objective} x {train.synthetic.weight:g}"
    if arm.add == "copies":
        return f"copies, k={arm.k}"
    if arm.add == "sampled":
        return f"{arm.num_images} sampled"
    if arm.add == "imported":
        return f"pool {arm.pool}"
    return " ".join(f"{strength:g}" for strength in arm.strengths)


def _stability(params: Params, values: list[str], seeds: list[int]) -> dict[str, Any]:
    if len(seeds) < 2:
        raise GdaError(f"--seeds: found {seeds[0]} alone; an overlap needs two or more, such as 0,1,2")
    arms = sweeps.sweep_arms("selection", values or ["cluster"], params.select.share is not None)
    prepared = read_prepared(SOURCE)
    index = prepared.train_index()
    folder = SWEEPS / STABILITY
    chosen: dict[str, list[Any]] = {arm: [] for arm in arms if arm != sweeps.REFERENCE}
    for number, seed in enumerate(seeds, 1):
        own = params.model_dump(mode="json", exclude_unset=True)
        own |= {"arms": arms, "compare": {"arms": list(arms), "seeds": params.compare.seeds}}
        own["probe"] |= {"seed": seed}
        if not params.select.exclude_suspects:  # which alone needs them here
            own["probe"] |= {"folds": None}
        _make_project(folder / f"seed-{seed}", own, [SOURCE])
        with contextlib.chdir(folder / f"seed-{seed}"):
            sub = load_params(Path())
            say(f"sweep {STABILITY}: probe seed {seed} ({number} of {len(seeds)})")
            _probe(sub)
            run_versioned("select", sub)
            strategies = read_strategies(SELECTION, index["key"])
            for arm, each in chosen.items():
                each.append(selected(sub.arm(arm), sub.all_arms(), strategies, index["label"]))
    result = {
        "sweep": STABILITY,
        "num_images": len(index["key"]),
        "seeds": seeds,
        "folder": str(folder),
        "strategies": {
            arm: overlap.agreement(each, index["label"], prepared.class_names) for arm, each in chosen.items()
        },
    }
    write_json(folder / "stability.json", result)
    names = [prepared.class_names[label] for label in index["label"]]
    counts = [sum(map(int, votes)) for each in chosen.values() for votes in zip(*each, strict=True)]
    columns = [counts[first : first + len(names)] for first in range(0, len(counts), len(names))]
    write_csv(folder / "stability.csv", ["key", "class", *chosen], [*map(list, zip(index["key"], names, *columns))])
    return result


def _probe(params: Params) -> None:
    """Train the probe, unless the one that is there is of the same parameters, images and libraries, and whole."""
    start = params.probe.pretrained
    weights = (
        sha256_file(Path(start).expanduser()) if isinstance(start, str) and Path(start).expanduser().exists() else None
    )
    identity = digest(
        import_module("gdacli.stages.probe").VERSION,
        sha256_file(SOURCE / "dataset.json"),
        params.probe.model_dump(mode="json", exclude={"loading", "loader_workers"}),
        weights,
        params.compute.model_dump(mode="json"),
        [version(package) for package in ("torch", "timm", "torchvision", "pillow")],
    )
    stamp = Path("probe.identity")
    if stamp.exists() and stamp.read_text(encoding="utf-8") == identity and not verify_folder(PROBE):
        say(f"probe: was trained before, taken from {Path.cwd().name}")
        return
    stamp.unlink(missing_ok=True)
    run_versioned("probe", params)
    write_text(stamp, identity)


def _summary_of_stability(result: dict[str, Any]) -> str:
    header = ["strategy", "selected %", "jaccard", "overlap", "by all %", "by some %", "by none %", "lowest class"]
    rows = []
    for strategy, found in result["strategies"].items():
        low, high = (f"{100 * size:.1f}" for size in (min(found["sizes"]), max(found["sizes"])))
        row = [strategy, low if low == high else f"{low} to {high}"]
        row += [_beside(found, name, 1, 2) for name in ("jaccard", "overlap")]
        row += [_beside(found, name, 100, 1) for name in ("by_all", "by_some", "by_none")]
        lowest = found["lowest"]
        rows.append([*row, "none" if lowest is None else f"{lowest} {found['per_class'][lowest]:.2f}"])
    seeds = ", ".join(map(str, result["seeds"]))
    return "\n".join(
        [
            f"what is selected of {result['num_images']} training images with the probe's seeds {seeds}; in brackets "
            "what chance would give",
            "",
            table(header, rows),
            "",
            "jaccard: common share of both selections; overlap: of the smaller one; means over the pairs of seeds",
            "lowest class: the one of the lowest jaccard; every class and every image: "
            f"{result['folder']}/stability.json, stability.csv",
        ]
    )


def _beside(found: dict[str, Any], name: str, scale: int, digits: int) -> str:
    """Write a figure with what chance would give in brackets."""
    both = [each[name] for each in (found, found["chance"])]
    own, chance = ("none" if each is None else f"{scale * each:.{digits}f}" for each in both)
    return f"{own} ({chance})"


def _make_project(folder: Path, values: dict[str, Any], artifacts: list[Path]) -> None:
    """Write a project into a folder of this one, with links to artifacts, the rejects, and what parameters name."""
    values = {section: dict(own) if isinstance(own, dict) else own for section, own in values.items()}
    generate = values.setdefault("generate", {})
    generate["reuse"] = [*generate.get("reuse", []), *map(os.path.relpath, previous_pool(SYNTHETIC))]
    generate["reuse"] = [_seen_from(folder, pool) for pool in generate["reuse"]]
    for section, key in (("data", "source"), ("generate", "clip_model"), ("evaluate", "features_weights")):
        named = values.get(section, {}).get(key)
        if named is not None and named != "digits":
            values[section][key] = _seen_from(folder, named)
    # These are part of what identifies trainings and images: they keep their names.
    for section, key in (("train", "pretrained"), ("probe", "pretrained"), ("generate", "model")):
        named = values.get(section, {}).get(key)
        path = Path(named).expanduser() if isinstance(named, str) else None
        if path is None or path.is_absolute() or not path.exists():
            continue
        if ".." in path.parts or path.parts[0] == "data":
            raise GdaError(
                f"{FILE}: {section}.{key}: found {named}; a sweep has a folder and a data/ of its own: give an "
                "absolute path, or one to another place in the project"
            )
        artifacts = [*artifacts, path]
        beside = path.with_name("config.json")
        if path.is_file() and beside.exists():
            artifacts.append(beside)
    text = yaml.safe_dump(values, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)
    text = f"# Written by `gdacli sweep`, which writes it again.\n{text}"
    with tempfile.TemporaryDirectory() as scratch:  # a mistake shows before anything is written
        (Path(scratch) / FILE).write_text(text, encoding="utf-8")
        load_params(Path(scratch))
    for path in [*artifacts, *([REJECTS] if REJECTS.exists() else [])]:
        _link(folder, path)
    write_text(SWEEPS / ".gitignore", _IGNORED)
    write_text(folder / FILE, text)


def _seen_from(folder: Path, path: str) -> str:
    """Return a local relative path as seen from a folder; anything else as it is."""
    local = Path(path).expanduser()
    return path if local.is_absolute() or not local.exists() else os.path.relpath(local, folder)


def _link(folder: Path, path: Path) -> None:
    """Link to a file or folder of the project under its own name."""
    link = folder / path
    link.parent.mkdir(parents=True, exist_ok=True)
    target = os.path.relpath(path.resolve(), link.parent.resolve())
    if link.is_symlink():
        if str(link.readlink()) == target:
            return
        link.unlink()
    elif link.exists():
        raise GdaError(f"{link} is no link to the project's {path}: remove it, and run the sweep again")
    link.symlink_to(target)
