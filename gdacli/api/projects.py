"""A project's folder in Python: each method runs the stage that the command of its name runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gdacli.api.arrays import as_found, channels_first, channels_last, class_numbers, names_of
from gdacli.api.classifiers import TrainedClassifier, load_classifier
from gdacli.api.selections import ProjectSelection
from gdacli.api.synthetic_pools import SyntheticPool, read_pool
from gdacli.errors import GdaError
from gdacli.explain import FILE
from gdacli.paths import EVALUATION, PROBE, SELECTION, SOURCE, SYNTHETIC, TRAIN, run_name

if TYPE_CHECKING:
    from gdacli.dynamics import Dynamics
    from gdacli.params import Params

Overrides = Mapping[str, Any] | None
"""Values in place of those of params.yaml, as `-S` takes them: {"probe.epochs": 4}."""

ARRAYS = "images"
"""The folder in a project that holds arrays as shards."""


@dataclass(frozen=True, repr=False)
class ProjectEvaluation:
    """What `gdacli evaluate` found; a notebook shows it as the report's tables."""

    headline: str
    results: dict[str, Any]
    """`results.json`: errors, comparisons, quality of the pool."""
    markdown: str
    """`report.md`."""
    report: Path
    """`report.html`, with the pictures."""

    def __repr__(self) -> str:
        return self.markdown

    _repr_markdown_ = __repr__


@dataclass(frozen=True, init=False)
class Project:
    """A gdacli project; see docs/python.md.

    Methods named after a command do what the command does, figures in `data/metrics` included, and raise GdaError where
    that prints a line. They run in the project's folder and give the working directory back.
    """

    folder: Path

    def __init__(self, folder: str | Path) -> None:
        object.__setattr__(self, "folder", Path(folder).expanduser().absolute())
        if not (self.folder / FILE).exists():
            raise GdaError(f"{self.folder / FILE} does not exist: name a project's folder, or use create_project")

    def params(self, overrides: Overrides = None) -> Params:
        """Return what params.yaml says, checked."""
        from gdacli.params import load_params

        with chdir(self.folder):  # a project's own generators are looked up there
            return load_params(Path(), _as_options(overrides))

    def prepare(self, overrides: Overrides = None) -> dict[str, Any]:
        """Run `gdacli prepare`; returns its figures."""
        return self._run("prepare", overrides)

    def images(self, split: str = "train") -> tuple[list[str], np.ndarray, np.ndarray]:
        """Read a prepared split of equally sized images: keys [N], images uint8 [N, H, W, 3], labels int64 [N]."""
        from gdacli.prepared import read_prepared
        from gdacli.records import SPLITS

        if split not in SPLITS:
            raise GdaError(f"split: found {split!r}, allowed: {', '.join(SPLITS)}")
        keys, labels, images = read_prepared(self.folder / SOURCE).load(split)
        return keys, channels_last(images), labels

    def class_names(self) -> list[str]:
        """Return the class names of the prepared images, whose places are the labels."""
        from gdacli.prepared import read_prepared

        return read_prepared(self.folder / SOURCE).class_names

    def probe(self, overrides: Overrides = None) -> Dynamics:
        """Run `gdacli probe`; returns the dynamics of the train images, for `select` of arrays too."""
        from gdacli.dynamics import read_probe

        self._run("probe", overrides)
        return read_probe(self.folder / PROBE)[2]

    def select(self, strategy: str = "cluster", overrides: Overrides = None) -> ProjectSelection:
        """Run `gdacli select`; returns the selection of a strategy, see `selection`."""
        self._run("select", overrides)
        return self.selection(strategy)

    def selection(self, strategy: str = "cluster") -> ProjectSelection:
        """Read what `gdacli select` chose.

        Args:
            strategy: cluster, or another one that a compared arm uses.

        Raises:
            GdaError: it has not run, or not by this strategy.
        """
        from gdacli.artifacts import require
        from gdacli.tables import read_table

        table = read_table(require(self.folder / SELECTION / "selection.parquet", "gdacli select"))
        if f"{strategy}_score" not in table:
            known = ", ".join(name.removesuffix("_score") for name in table if name.endswith("_score"))
            raise GdaError(f"strategy: found {strategy!r}, allowed: {known}, which the compared arms use")
        label, score, chosen = (
            np.asarray(table[name]) for name in ("label", f"{strategy}_score", f"{strategy}_chosen")
        )
        return ProjectSelection(table["key"], label, score, chosen)

    def fit(self, overrides: Overrides = None) -> dict[str, Any]:
        """Run `gdacli fit`; returns its figures."""
        return self._run("fit", overrides)

    def generate(self, overrides: Overrides = None) -> SyntheticPool:
        """Run `gdacli generate`; returns the pool, see `pool`."""
        self._run("generate", overrides)
        return self.pool()

    def pool(self) -> SyntheticPool:
        """Read the pool: labels, source keys and strengths at once, the images when asked for."""
        return read_pool(self.folder / SYNTHETIC)

    def mix(self, arm: str | None = None, overrides: Overrides = None) -> dict[str, Any]:
        """Run `gdacli mix` of an arm, or of all that are compared; returns the counts per arm."""
        return self._run("mix", overrides, arm=arm)["arms"]

    def train(
        self, arm: str | None = None, seed: int | None = None, overrides: Overrides = None
    ) -> dict[str, TrainedClassifier]:
        """Run `gdacli train` of an arm and a seed, or of all that are compared; their mixes must be there.

        Returns:
            name of the training, such as `targeted-0` -> classifier.
        """
        runs = self._run("train", overrides, arm=arm, seed=seed)["runs"]
        return {name: load_classifier(self.folder / TRAIN / name) for name in runs}

    def classifier(self, arm: str, seed: int) -> TrainedClassifier:
        """Load a classifier that was trained."""
        from gdacli.artifacts import require

        command = f"gdacli train --arm {arm} --seed {seed}"
        return load_classifier(require(self.folder / TRAIN / run_name(arm, seed), command))

    def evaluate(self, overrides: Overrides = None) -> ProjectEvaluation:
        """Run `gdacli evaluate`; returns the results, see `evaluation`."""
        self._run("evaluate", overrides)
        return self.evaluation()

    def evaluation(self) -> ProjectEvaluation:
        """Read what `gdacli evaluate` found."""
        from gdacli.artifacts import read_json, require

        folder = self.folder / EVALUATION
        results = read_json(require(folder / "results.json", "gdacli evaluate"))
        markdown = (folder / "report.md").read_text(encoding="utf-8")
        return ProjectEvaluation(results["headline"], results, markdown, folder / "report.html")

    def _run(self, stage: str, overrides: Overrides, **arguments: Any) -> dict[str, Any]:
        from gdacli.invocation import run_versioned

        params = self.params(overrides)
        with chdir(self.folder), as_found():
            return run_versioned(stage, params, **arguments)


def create_project(
    folder: str | Path,
    *,
    source: str | Path | None = None,
    images: Any = None,
    labels: Any = None,
    class_names: Sequence[str] | None = None,
    splits: Any = None,
    preset: str = "cpu",
    architecture: str | None = None,
) -> Project:
    """Make a project, as `gdacli init` does.

    Args:
        folder: the new project's.
        source: of the images: a folder of images, tables or shards, a Hub id, or `digits`.
        images: in place of a source: uint8 [N, H, W, 3] or [N, 3, H, W]. They are written as lossless shards to
            `<folder>/images`, which the project has as its source.
        labels: int [N] of the images.
        class_names: C of them; None numbers the classes up to the highest label.
        splits: train, validation or test for each image, [N]; None leaves it to `gdacli prepare`.
        preset, architecture: of `gdacli init`.

    Raises:
        GdaError: there is a project already, neither source nor images are given or both, or something does not fit.
    """
    from gdacli.stages.init import run

    if (source is None) == (images is None):
        raise GdaError("create_project: give either source, or images and labels")
    folder = Path(folder).expanduser().absolute()
    if (folder / FILE).exists():
        raise GdaError(f"{folder / FILE} exists: choose another folder, or open it: Project({str(folder)!r})")
    if images is None:
        run(folder, str(source), preset, architecture)
        return Project(folder)
    _write_arrays(folder / ARRAYS, images, labels, class_names, splits)
    with chdir(folder):
        run(Path(), ARRAYS, preset, architecture)
    return Project(folder)


def _write_arrays(folder: Path, images: Any, labels: Any, class_names: Sequence[str] | None, splits: Any) -> None:
    """Write arrays as shards and `classes.txt`."""
    from gdacli.artifacts import new_directory, write_text
    from gdacli.images import encode_png
    from gdacli.records import SPLITS
    from gdacli.shards import Sample, write_shard

    array = channels_first(images)
    numbers = class_numbers(labels, len(array), None if class_names is None else len(class_names))
    names = names_of(class_names, numbers)
    if odd := [name for name in names if name.strip() != name or not name or len(name.splitlines()) > 1]:
        raise GdaError(f"class_names: found {odd[0]!r}, allowed: one line each, without spaces around")
    where = np.full(len(array), "train") if splits is None else np.asarray(splits)
    if where.shape != (len(array),) or not set(where.tolist()) <= set(SPLITS) or "train" not in where:
        found = sorted({str(each) for each in where.ravel().tolist()})[:5]
        raise GdaError(
            f"splits: found {list(where.shape)} of {', '.join(found)}; allowed: {', '.join(SPLITS)} [{len(array)}], "
            "some of them train"
        )

    def samples(rows: Sequence[int], split: str) -> Iterator[Sample]:
        for row in rows:
            yield Sample(f"{split}-{row:08d}", int(numbers[row]), encode_png(array[row]), "png", {})

    with new_directory(folder) as temporary:
        for split in SPLITS:
            rows = np.flatnonzero(where == split).tolist()
            for number, start in enumerate(range(0, len(rows), 1000)):
                write_shard(temporary / f"{split}-{number:06d}.tar", samples(rows[start : start + 1000], split))
        write_text(temporary / "classes.txt", "".join(f"{name}\n" for name in names))


def _as_options(overrides: Overrides) -> list[str]:
    """Write overrides as `-S` takes them: key=value, the value in YAML on one line."""
    import yaml

    if overrides is not None and not isinstance(overrides, Mapping):
        raise GdaError(f"overrides: found {overrides!r}, allowed: a mapping such as {{'probe.epochs': 4}}")
    written = {
        key: yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**9, allow_unicode=True)
        for key, value in (overrides or {}).items()
    }
    return [f"{key}={value.strip().removesuffix('...').strip()}" for key, value in written.items()]
