"""`gdacli init`: a project for the user's own data."""

import os
import re
import shutil
import subprocess
import tempfile
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import yaml

from gdacli.artifacts import new_file, write_text
from gdacli.console import say
from gdacli.datasets import open_source
from gdacli.errors import GdaError
from gdacli.explain import FILE
from gdacli.images import BadImageError, read_header
from gdacli.params import load_params
from gdacli.paths import IGNORED_POOLS, POOLS, REJECTS
from gdacli.presets import DEFAULT, preset_values
from gdacli.rejects import HEADER

STAGES = ("prepare", "probe", "select", "fit", "generate", "mix", "train", "evaluate")

_LARGEST_SIZE = 64
_HEADERS_TO_READ = 50


def run(project: Path | None, source: str, preset: str = DEFAULT, architecture: str | None = None) -> dict[str, Any]:
    """Make the project; returns what was written and the next steps.

    Args:
        project: its folder.
        source: of the images.
        preset: name of a recipe of `presets.yaml`.
        architecture: name of one there; None is the preset's own.

    Raises:
        GdaError: no folder is named, it has a project already, the source cannot be opened, git is missing, or there is
            no such preset or architecture.
    """
    if project is None:
        raise GdaError("name the new project's folder: gdacli init DIR --source SOURCE")
    if (project / FILE).exists():
        raise GdaError(f"{project / FILE} exists: choose another folder, or `gdacli init {project} --update`")
    for program in ("git", "dvc"):
        if shutil.which(program) is None:
            raise GdaError(f"{program} is not on the PATH: install it, or activate the environment that has it")
    values = preset_values(preset, architecture)
    opened = open_source(source)
    local = Path(source).expanduser().exists() and source != "digits"
    if local:
        path = Path(source).expanduser()
        source = str(path) if path.is_absolute() else os.path.relpath(path, project)
    if values["image_size"] is None:
        values["image_size"] = _image_size(opened.splits["train"][1]())
    text = params_text({**values, "source": source, "versions": stage_versions()})
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / FILE).write_text(text, encoding="utf-8")
        load_params(Path(scratch))
    existed = project.exists()
    project.mkdir(parents=True, exist_ok=True)
    try:
        _set_up_version_control(project)
    except GdaError:
        if not existed:
            shutil.rmtree(project)
        raise
    source_dependency = (
        "['${data.source}']" if local else "[] # none to watch: a local folder goes here as ${data.source}"
    )
    written = {
        "dvc.yaml": _template("dvc.yaml.in").replace("deps: []", f"deps: {source_dependency}"),
        ".gitignore": "__pycache__/\n/dvc_plots/\n",
        "data/.gitignore": _template("gitignore"),
        str(POOLS / ".gitignore"): IGNORED_POOLS,
        str(REJECTS): HEADER,
        FILE: text,
    }
    for name, content in written.items():
        if not (project / name).exists():
            write_text(project / name, content)
    return {
        "project": str(project),
        "source": source,
        "classes": opened.class_names,
        "images": {split: count for split, (count, _) in opened.splits.items()},
        "image_size": values["image_size"],
        "preset": preset,
        "git": _git_root(project),
    }


def update(project: Path) -> dict[str, Any]:
    """Write this gdacli's stage versions into a project's `params.yaml`, and files that older projects lack.

    All else stays as it is; where `dvc.yaml` lacks what this gdacli's has, that is said.

    Raises:
        GdaError: there is no project, or it has no versions.
    """
    path = project / FILE
    if not path.exists():
        raise GdaError(f"{path} does not exist: name a project's folder: gdacli init DIR --update")
    text = path.read_text(encoding="utf-8")
    block = re.search(r"^versions:[ \t]*(?:#.*)?\n((?:[ \t]+\w+: \d+.*\n?)+)", text, re.MULTILINE)
    if block is None:
        raise GdaError(f"{path}: versions: found none, a line per stage; is it a project made by `gdacli init`?")
    before = dict(re.findall(r"(\w+): (\d+)", block[1]))
    after = stage_versions()
    lines = "".join(f"  {name}: {version}\n" for name, version in after.items())
    with new_file(path) as temporary:
        temporary.write_text(text[: block.start(1)] + lines + text[block.end(1) :], encoding="utf-8")
    for name, content in ((REJECTS, HEADER), (POOLS / ".gitignore", IGNORED_POOLS)):
        if not (project / name).exists():
            write_text(project / name, content)
    pipeline = project / "dvc.yaml"
    if pipeline.exists() and (lacking := _lacking(pipeline, text)):
        say(f"note: {pipeline}: add {'; '.join(lacking)}; until then `dvc repro` does not see them change")
    changed = [name for name, version in after.items() if before.get(name) != str(version)]
    return {"project": str(project), "updated": changed}


def summary(result: dict[str, Any]) -> str:
    """Say the result and the next steps."""
    if "updated" in result:
        return "updated: " + (", ".join(result["updated"]) or "nothing, the versions were up to date")
    counts = ", ".join(f"{count} {split}" for split, count in result["images"].items())
    nested = Path(result["git"]) != Path(result["project"]).resolve()
    inside = f"note: it lies inside the git repository {result['git']} and is committed there\n" if nested else ""
    return (
        f"made {result['project']}: {counts} images of {len(result['classes'])} classes\n{inside}\n"
        "next steps:\n"
        f"  cd {result['project']}\n"
        "  edit params.yaml        # image size, models, arms, seeds; each key says what it does\n"
        '  git add --all && git commit -m "Start"\n'
        "  dvc repro               # everything, to data/evaluation/report.html"
    )


def stage_versions() -> dict[str, int]:
    """Return the version of each stage of this gdacli."""
    return {name: import_module(f"gdacli.stages.{name}").VERSION for name in STAGES}


def _lacking(pipeline: Path, params: str) -> list[str]:
    """Return what a new project's `dvc.yaml` has and this one lacks, and which sections of `params.yaml` it needs."""
    ours = yaml.safe_load(_template("dvc.yaml.in"))
    theirs = yaml.safe_load(pipeline.read_text(encoding="utf-8")) or {}
    stages_without: dict[tuple[str, str], list[str]] = {}
    for stage, parts in ours["stages"].items():
        for part in ("deps", "params", "outs", "metrics"):
            present = _names((theirs["stages"].get(stage) or {}).get(part))
            for name in _names(parts.get(part)) - present:
                stages_without.setdefault((name, part), []).append(stage)
    lacking = [
        f"{name} to the {part} of {' and '.join(stages)}" for (name, part), stages in sorted(stages_without.items())
    ]
    lacking += [f"{name} to plots" for name in sorted(_names(ours["plots"]) - _names(theirs.get("plots")))]
    sections = {name for stage in ours["stages"].values() for name in stage["params"] if name.isidentifier()}
    known = yaml.safe_load(params)
    return lacking + [f"`{name}: {{}}` to {FILE}" for name in sorted(sections - known.keys())]


def _names(entries: Any) -> set[str]:
    """Return what a list of `dvc.yaml` names, whose entries are names or have settings of their own."""
    return {name for entry in entries or () for name in ([entry] if isinstance(entry, str) else entry)}


def _set_up_version_control(project: Path) -> None:
    if subprocess.run(["git", "rev-parse", "--git-dir"], cwd=project, capture_output=True).returncode:
        _call(["git", "init", "--quiet"], project)
    if not (project / ".dvc").exists():
        at_root = (project / ".git").exists()
        _call(["dvc", "init", *([] if at_root else ["--subdir"])], project)
        # empty till now; `dvc config` would take a second
        write_text(project / ".dvc/config", "[core]\n    analytics = false\n")


def _git_root(project: Path) -> str:
    done = subprocess.run(["git", "rev-parse", "--show-toplevel"], cwd=project, capture_output=True, text=True)
    return done.stdout.strip()


def _image_size(records: Any) -> int | None:
    """Return the size to resize to, None where the images fit the templates' generator as they are.

    It halves the size twice and works on pixels, so sizes up to 64 that are divisible by 4 do.
    """
    sizes = set()
    for record, _ in zip(records, range(_HEADERS_TO_READ), strict=False):
        try:
            sizes.add(read_header(record.load()).size)
        except BadImageError:
            continue
    width, height = next(iter(sizes)) if len(sizes) == 1 else (0, 0)
    if width == height and 0 < width <= _LARGEST_SIZE and width % 4 == 0:
        return None
    return 32 if width == height and 0 < width < 48 else _LARGEST_SIZE


def params_text(values: dict[str, Any]) -> str:
    """Return a new project's `params.yaml`: the template with a preset's values, the source and stages' versions."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)  # noqa: S701
    environment.filters["flow"] = _flow
    return environment.from_string(_template("params.yaml.in")).render(values)


def _flow(value: Any) -> str:
    """Write a value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**9, allow_unicode=True)
    return text.strip().removesuffix("...").strip()


def _template(name: str) -> str:
    return files("gdacli").joinpath(f"templates/{name}").read_text(encoding="utf-8")


def _call(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise GdaError(f"`{' '.join(command)}` in {folder} failed: {' '.join((done.stderr or done.stdout).split())}")
