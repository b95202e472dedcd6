r"""Run a project's stages without DVC, in pieces of a few minutes; each call goes on where the last one stopped.

    python studies/cifar10/pieces.py --minutes 9 --keep results -S train.budget.epochs=30

It ends with `run me again` (exit code 75) until `all done` (0); 1 is an error, 2 a wrong option. All pieces:

    while python studies/cifar10/pieces.py --keep results; [ $? -eq 75 ]; do :; done

The stages are those of the project's dvc.yaml, in its order, but for the trainings: all arms with the first seed, then
an evaluation of that, then the next seed. One whose command, parameters and inputs are those of the last time, and
whose outputs are there, is skipped. At the end of a piece the stages that run get SIGTERM; `fit`, `generate` and
`train` go on from what they saved last (`-S fit.save_seconds=15 -S train.save_seconds=15` lets a piece lose less), the
others start again. What they save lies in the work directory (GDACLI_WORK, or the user's cache), outside the project.
Killed outright, it goes on as well, but what it started runs to its end, unless that is killed too.

data/logs/timings.json has the wall seconds of each stage over all its pieces, and where nvidia-smi answers the watt
hours of all GPUs together, shared equally by stages that run at the same time (--jobs). --keep copies what is small.
A stage that finds its result in the work directory takes as long as the finding: keep the options of the first piece.

On a machine with torch, torchvision, timm, transformers, scikit-learn, pandas, pyarrow, matplotlib, requests, xxhash,
psutil, typer and rich, but no network, bring the rest (wheels.txt) as wheels. Where there is a network, with that
machine's version of Python:

    pip download --no-deps --only-binary=:all: --python-version 3.12 --platform manylinux2014_x86_64 \
        --platform manylinux_2_28_x86_64 -d wheels -r studies/cifar10/wheels.txt

and there, in the repository's root:

    pip install --no-index --no-deps --target site wheels/*.whl && export PYTHONPATH=$PWD:$PWD/site
    python studies/cifar10/pieces.py --keep results

`--brought prepare` spares that machine the preparation and the source: bring data/source and data/metrics/prepare.json.
"""

import argparse
import hashlib
import itertools
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import yaml

from gdacli.artifacts import CHECKSUMS, TEMPORARY_PREFIX, new_file, read_json, sha256_file, write_json
from gdacli.errors import GdaError
from gdacli.params import load_params

AGAIN = 75
"""Exit code of a piece after which there is more to do; EX_TEMPFAIL of sysexits.h."""

_TIMINGS = Path("data/logs/timings.json")
_KEPT = ("metrics", "plots", "preview", "selection", "evaluation", "logs")
_LARGEST_KEPT = 8_000_000  # bytes
_GO_ON = ("fit", "generate", "train")  # the stages that save their state
_GRACE = 30.0  # seconds that a stage has to end after SIGTERM
_POWER = ("nvidia-smi", "--query-gpu=power.draw", "--format=csv,noheader,nounits")


@dataclass(frozen=True)
class Step:
    """A stage of dvc.yaml, or of a matrix one entry."""

    name: str
    """Such as `train@targeted-0`."""
    stage: str
    seed: int | None
    """Of the trainings."""
    command: str
    overrides: tuple[str, ...]
    params: dict[str, Any]
    """What it depends on, by key."""
    deps: tuple[str, ...]
    outs: tuple[str, ...]

    def arguments(self) -> list[str]:
        """Return what to run: `gdacli` by this Python, for there may be no such program on the PATH."""
        words = shlex.split(self.command)
        start = [sys.executable, "-m", "gdacli"] if words[0] == "gdacli" else words[:1]
        return [*start, *words[1:], *(word for each in self.overrides for word in ("-S", each))]


def plan(project: Path, overrides: Sequence[str]) -> list[Step]:
    """Return the steps in the order in which they run: seed by seed, what comes after the trainings after each seed.

    Raises:
        GdaError: a parameter is wrong, or dvc.yaml has what is not read here.
    """
    steps = _steps(project, overrides)
    seeds = list(dict.fromkeys(step.seed for step in steps if step.seed is not None))
    if not seeds:
        return steps
    rows = [row for row, step in enumerate(steps) if step.seed is not None]
    ordered, num_last = steps[: rows[0]], len(steps) - rows[-1] - 1
    for number, seed in enumerate(seeds, 1):
        ordered += [step for step in steps if step.seed == seed]
        some = ",".join(map(str, seeds[:number]))
        now = steps if number == len(seeds) else _steps(project, [*overrides, f"compare.seeds=[{some}]"])
        ordered += [replace(step, name=f"{step.name}@{some}") for step in now[len(now) - num_last :]]
    return ordered


def _steps(project: Path, overrides: Sequence[str]) -> list[Step]:
    values, file = load_params(project, overrides).model_dump(mode="json"), project / "dvc.yaml"
    if not file.exists():
        raise GdaError(f"{file} does not exist: give a project's folder with -C, or make one: `gdacli init`")
    steps = []
    for stage, about in yaml.safe_load(file.read_text(encoding="utf-8"))["stages"].items():
        if unknown := about.keys() - {"cmd", "matrix", "deps", "params", "outs", "metrics"}:
            raise GdaError(f"dvc.yaml: {stage}: {', '.join(sorted(unknown))} is not read here: give stages or a matrix")
        matrix = {key: _filled(entries, values) for key, entries in about.get("matrix", {}).items()}
        for entry in itertools.product(*matrix.values()):
            item = dict(zip(matrix, entry, strict=True))
            filled = _filled(about, {**values, "item": item})
            keys, paths = filled.get("params", []), filled.get("outs", []) + filled.get("metrics", [])
            steps.append(
                Step(
                    name=stage + "@" * bool(item) + "-".join(map(str, entry)),
                    stage=stage,
                    seed=item.get("seed"),
                    command=filled["cmd"],
                    overrides=tuple(overrides),
                    params={key: _value(values, key) for key in keys},
                    deps=tuple(filled.get("deps", [])),
                    outs=tuple(next(iter(path)) if isinstance(path, dict) else path for path in paths),
                )
            )
    return steps


def _filled(template: Any, values: Mapping[str, Any]) -> Any:
    """Put values in the place of each `${key.of.params}`."""
    if isinstance(template, dict):
        return {_filled(key, values): _filled(inner, values) for key, inner in template.items() if key != "matrix"}
    if isinstance(template, list):
        return [_filled(inner, values) for inner in template]
    if not isinstance(template, str):
        return template
    if whole := re.fullmatch(r"\$\{([\w.]+)\}", template):
        return _value(values, whole[1])
    return re.sub(r"\$\{([\w.]+)\}", lambda found: str(_value(values, found[1])), template)


def _value(values: Mapping[str, Any], key: str) -> Any:
    try:
        return reduce(lambda inner, name: inner[name], key.split("."), values)
    except (KeyError, TypeError):
        raise GdaError(f"dvc.yaml: params.yaml has no {key}") from None


def stamp(project: Path, step: Step, made: Sequence[str]) -> str:
    """Return the hash of all that a step depends on.

    Args:
        project: its folder.
        step: the one.
        made: outputs of the steps before it; of a folder that holds some of them, only these count.
    """
    inputs = {}
    for dep in step.deps:
        for path in [out for out in made if dep in map(str, Path(out).parents)] or [dep]:
            inputs[path] = _content(project / path)
    text = json.dumps([step.command, step.params, inputs], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _content(path: Path) -> Any:
    """Return the hash of a file, or of a folder's files, which a published folder lists; None if there is nothing."""
    if path.is_file() or (path / CHECKSUMS).is_file():
        return sha256_file(path if path.is_file() else path / CHECKSUMS)
    return {file.name: _content(file) for file in sorted(path.iterdir())} if path.is_dir() else None


def is_done(project: Path, step: Step, mark: str, said: Mapping[str, Any], later: Sequence[str]) -> bool:
    """Return if a step was finished with these inputs, and nothing else has written its outputs since.

    Args:
        project: its folder.
        step: the one.
        mark: its `stamp`.
        said: what `timings.json` says of it.
        later: outputs of the steps after it, which may write them again: an evaluation of more seeds.
    """
    if said.get("stamp") != mark or not said["finished"]:
        return False
    made = [(project / out).exists() if out in later else _content(project / out) for out in step.outs]
    own = [said["made"][out] for out in step.outs]
    return all(now is True or (now is not None and now == before) for now, before in zip(made, own, strict=True))


def watt_hours(samples: Sequence[tuple[float, float]]) -> float | None:
    """Return the energy under samples of (seconds, watts), straight lines between them; None below two.

    >>> watt_hours([(0, 100), (18, 100), (36, 300)])
    1.5
    """
    pairs = list(itertools.pairwise(samples))
    return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairs) / 3600 if pairs else None


def read_power() -> float | None:
    """Return the watts that all GPUs draw together; None where nvidia-smi does not say."""
    try:
        answer = subprocess.run(_POWER, capture_output=True, text=True, timeout=10, check=True).stdout
        return sum(map(float, answer.split())) if answer.split() else None
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


@dataclass
class Running:
    """A step that runs."""

    step: Step
    process: subprocess.Popen[bytes]
    before: dict[str, Any]
    """What `timings.json` said of it."""
    start: float
    samples: list[tuple[float, float]]
    """Seconds and watts."""

    def timing(self, project: Path) -> dict[str, Any]:
        """Return what `timings.json` is to say of it now."""
        energy, known, finished = watt_hours(self.samples), self.before["watt_hours"], self.process.poll() == 0
        return {
            **self.before,
            "seconds": round(self.before["seconds"] + time.monotonic() - self.start, 3),
            "watt_hours": known if energy is None else round((known or 0.0) + energy, 6),
            "pieces": self.before["pieces"] + 1,
            "finished": finished,
            "made": {out: _content(project / out) for out in self.step.outs} if finished else {},
        }


def run(
    project: Path,
    steps: Sequence[Step],
    minutes: float,
    jobs: int = 1,
    keep: Path | None = None,
    brought: Sequence[str] = (),
) -> bool:
    """Run the steps until the time is up; returns if all are done.

    Args:
        project: its folder.
        steps: of `plan`.
        minutes: after which what runs is stopped.
        jobs: how many trainings, or other entries of a matrix, run at the same time.
        keep: folder that gets copies of small results after each step.
        brought: stages whose outputs are taken as they are.

    Raises:
        GdaError: an output that was brought is missing, a step failed, or cannot be done in so many minutes.
    """
    stages = list(dict.fromkeys(step.stage for step in steps))
    if unknown := [stage for stage in brought if stage not in stages]:
        raise GdaError(f"--brought {unknown[0]}: there is no such stage; allowed: {', '.join(stages)}")
    deadline, timings = time.monotonic() + 60 * minutes, dict[str, Any]()
    if (project / _TIMINGS).exists():
        timings = read_json(project / _TIMINGS)
    waiting, made, running = list(steps), list[str](), list[Running]()
    num_started, sampled, has_power = 0, 0.0, None

    def look() -> None:
        """Take a sample of the power, and write how long what runs has taken."""
        nonlocal sampled, has_power
        watts, sampled = None if has_power is False else read_power(), time.monotonic()
        has_power = has_power or watts is not None  # what never answers is not asked again
        for each in running:
            if watts is not None:
                each.samples.append((sampled, watts / len(running)))
            timings[each.step.name] = each.timing(project)
        write_json(project / _TIMINGS, timings)

    try:
        while waiting or running:
            while waiting and len(running) < jobs and all(each.step.stage == waiting[0].stage for each in running):
                if time.monotonic() >= deadline or (running and waiting[0].seed != running[0].step.seed):
                    break
                step = waiting.pop(0)
                if step.stage in brought:
                    if missing := [out for out in step.outs if not (project / out).exists()]:
                        raise GdaError(f"--brought {step.stage}: {missing[0]} is not there: bring it, or let it run")
                    made += step.outs
                    continue
                mark, said = stamp(project, step, made), timings.get(step.name, {})
                made += step.outs
                if is_done(project, step, mark, said, [out for each in waiting for out in each.outs]):
                    continue
                begun = said.get("stamp") == mark and not said["finished"]
                how = "goes on" if begun and step.stage in _GO_ON else "starts"
                print(f"pieces: {step.name}: {how}", file=sys.stderr, flush=True)
                before = said if begun else {"stamp": mark, "seconds": 0.0, "watt_hours": None, "pieces": 0}
                process = subprocess.Popen(step.arguments(), cwd=project)
                running.append(Running(step, process, before, time.monotonic(), []))
                num_started += 1
                look()
            ended = [each for each in running if each.process.poll() is not None]
            if ended or (running and time.monotonic() - sampled >= 1):
                look()
            for each in ended:
                running.remove(each)
                if each.process.returncode:
                    raise GdaError(f"{each.step.name} failed with exit code {each.process.returncode}: see above")
                _copy_small(project, keep)
            if time.monotonic() >= deadline and (running or waiting):
                break
            time.sleep(0.05)
    finally:
        _stop(running)
        look()
        for name in _copy_small(project, keep):
            print(f"pieces: {name} is larger than {_LARGEST_KEPT} bytes and not kept", file=sys.stderr)
    left = [each for each in running if each.process.returncode]
    for each in left:
        goes_on = each.step.stage in _GO_ON
        if not goes_on and num_started == 1:
            raise GdaError(
                f"--minutes {minutes:g}: {each.step.name} takes longer and keeps no state to go on from: give more"
            )
        how = "lets it go on from what it saved" if goes_on else "starts it again"
        print(f"pieces: {each.step.name}: stopped; the next piece {how}", file=sys.stderr, flush=True)
    return not (waiting or left)


def _stop(running: Sequence[Running]) -> None:
    """End what runs, gently at first."""
    for each in running:
        each.process.terminate()
    end = time.monotonic() + _GRACE
    for each in running:
        try:
            each.process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            each.process.kill()
            each.process.wait()


def _copy_small(project: Path, keep: Path | None) -> list[Path]:
    """Copy what is small of the results, whole files alone; returns what is too large."""
    too_large = list[Path]()
    if keep is None:
        return too_large
    for file in itertools.chain.from_iterable((project / "data" / name).rglob("*") for name in _KEPT):
        name = file.relative_to(project)
        copy = keep / name
        if not file.is_file() or any(part.startswith(TEMPORARY_PREFIX) for part in name.parts):
            continue
        if copy.exists() and copy.stat().st_mtime >= file.stat().st_mtime:
            continue
        if file.stat().st_size > _LARGEST_KEPT:
            too_large.append(name)
            copy.unlink(missing_ok=True)  # of when it was smaller
            continue
        with new_file(copy) as temporary:
            shutil.copyfile(file, temporary)
    return too_large


def main() -> int:
    """Run one piece."""
    parser = argparse.ArgumentParser(description="Run a project's stages in pieces; exit code 75: run me again.")
    parser.add_argument("-C", "--directory", type=Path, default=Path(__file__).parent, help="the project (this one)")
    parser.add_argument("--minutes", type=float, default=9.0, help="after which what runs is stopped (9)")
    parser.add_argument("--jobs", type=int, default=1, help="trainings that run at the same time (1)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="copy small results there after each stage")
    parser.add_argument("--brought", action="append", default=[], metavar="STAGE", help="take its outputs as they are")
    parser.add_argument("-S", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="of params.yaml")
    options = parser.parse_args()
    if not options.minutes > 0:
        parser.error(f"--minutes: found {options.minutes:g}, allowed: more than 0")
    if options.jobs < 1:
        parser.error(f"--jobs: found {options.jobs}, allowed: 1 or more")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        steps = plan(options.directory, options.overrides)
        done = run(options.directory, steps, options.minutes, options.jobs, options.keep, options.brought)
    except (GdaError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print("all done" if done else "run me again")
    return 0 if done else AGAIN


if __name__ == "__main__":
    sys.exit(main())
