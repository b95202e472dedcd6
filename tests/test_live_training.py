"""`gdacli train` with objectives: images of a live generator, of the pool, and what cannot be asked for."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import Project, invoke

VALUES: dict[str, dict[str, Any]] = {
    "data": {"validation_fraction": 0.3},
    "fit": {"check_images": 8, "gan": {"updates": 4, "width": 8, "latent_dim": 8, "batch_size": 8}},
    "generate": {"backend": "gan", "filter": {"constant": False}},  # after 4 updates they are grey
    "train": {
        "budget": {"updates": 4},
        "synthetic": {"batch_size": 8},
        "finder": {"batch_size": 8, "hidden": 4},
    },
    "compare": {"arms": ["original", "flood_pcr"], "seeds": [0]},
    "arms": {
        "original": {"train": {}},
        "flood_pcr": {"add": "sampled", "num_images": 7, "train": {"objective": "pcr"}},
        "mgr": {"train": {"objective": "mgr"}},
        "gda": {"train": {"objective": "gda"}},
        "truncated": {
            "train": {
                "objective": "mgr",
                "synthetic": {"truncation": {"psi": 0.5, "num_centres": 3, "num_samples": 30}, "latent_noise": 0.001},
            }
        },
        "real": {"train": {"objective": "real_consistency"}},
    },
}


def write(project: Project, **sections: dict) -> None:
    from conftest import TINY

    values = {**VALUES, **{name: {**VALUES.get(name, {}), **own} for name, own in sections.items()}}
    values["data"] = {**TINY["data"], **values["data"], "source": str(project.folder.parent / "shapes")}
    values["train"] = {**TINY["train"], **values["train"]}
    values["generate"] = {**TINY["generate"], **values["generate"]}
    project.write(**values)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> Path:
    """Give the folder of a project with a fitted gan and a pool of 7 images; do not change it."""
    root = tmp_path_factory.mktemp("live")
    shutil.copytree(shapes, root / "shapes")
    (root / "project").mkdir()
    project = Project(root / "project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GDACLI_WORK", str(root / "work"))
        write(project)
        project.ok("prepare", "probe", "select", "fit", "generate", "mix")
        for arm in ("mgr", "gda", "truncated", "real"):
            project.ok(f"mix --arm {arm}")
    return root


@pytest.fixture
def ready(fitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Give a copy of it, with a work directory of its own."""
    monkeypatch.setenv("GDACLI_WORK", str(tmp_path / "work"))
    shutil.copytree(fitted / "shapes", tmp_path / "shapes")
    return Project(Path(shutil.copytree(fitted / "project", tmp_path / "project")))


def weights(project: Project, arm: str) -> bytes:
    return (project.folder / f"data/train/{arm}-0/model.safetensors").read_bytes()


def history(project: Project, arm: str) -> list[dict[str, str]]:
    with (project.folder / f"data/train/{arm}-0/history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_arms_with_objectives_train_by_the_command(ready):
    for arm in ("mgr", "gda", "truncated", "flood_pcr", "real", "original"):
        ready.ok(f"train --arm {arm} --seed 0")
    assert len({weights(ready, arm) for arm in ("mgr", "gda", "truncated", "flood_pcr", "real", "original")}) == 6
    assert all("synthetic_loss" in row and "validation_loss" in row for row in history(ready, "mgr"))
    assert "synthetic_loss" not in history(ready, "original")[0]
    pool = json.loads((ready.folder / "data/metrics/train/flood_pcr-0.json").read_text())
    assert (
        pool["images_seen"]
        == json.loads((ready.folder / "data/metrics/train/original-0.json").read_text())["images_seen"]
    ), "stored images are the objective's, not training images"


def test_a_training_is_found_again_until_its_generator_or_its_settings_change(ready):
    train = ("train", "--arm", "mgr", "--seed", "0")
    ready.ok(" ".join(train))
    first = weights(ready, "mgr")
    assert "taken from" in ready(*train).stderr
    assert "taken from" in ready(*train, "-S", "train.objective=cross_entropy").stderr, "the arm says its own"
    assert "taken from" not in ready(*train, "-S", "train.finder.lr=0.01").stderr
    ready.ok("fit -S fit.seed=1", " ".join(train))
    assert weights(ready, "mgr") != first
    ready.ok("train --arm original --seed 0")
    again = ready("train", "--arm", "original", "--seed", "0", "-S", "train.finder.lr=0.5", "-S", "fit.seed=1")
    assert "taken from" in again.stderr, "what an objective does not read changes nothing"


MISTAKES: list[tuple[dict[str, Any], tuple[str, ...], str]] = [
    ({"generate": {"backend": "glide", "model": "x"}}, ("mgr",), r"a generate.backend that makes them while the model"),
    ({}, ("flood_pcr", "train.objective=mgr"), r"searches the latent space of a generator, but the arm adds sampled"),
    ({}, ("flood_pcr", "train.synthetic.latent_noise=0.1"), r"latent_noise is for images that a generator makes"),
    ({}, ("gda", "train.optimizer=sam", "train.sam.m=4"), r"sam.m: found 4, which goes with objective: cross_entropy"),
    ({}, ("mgr", "train.synthetic.strong_augment=null"), r"compares two views of an image"),
    ({}, ("mgr", "train.objective=mgrr"), r"cross_entropy"),
    ({}, ("mgr", "train.finder.lr=1.0e+30", "train.finder.kl_weight=1.0e+30"), r"finder's weights are no longer numb"),
    ({}, ("truncated", "train.synthetic.truncation.num_centres=99"), r"are too few for 99 centres"),
]


@pytest.mark.parametrize(("sections", "given", "message"), MISTAKES, ids=str)
def test_mistakes_are_one_line(ready, sections, given, message):
    arm, *overrides = given
    values = {**VALUES, "compare": {"arms": ["original", arm], "seeds": [0]}}
    if any(each.startswith("train.objective=") for each in overrides):  # of the arm, which wins over the section
        values["arms"] = {**VALUES["arms"], arm: {**VALUES["arms"][arm], "train": {}}}
    if "truncated" in arm:
        values["arms"] = {**VALUES["arms"], arm: {"train": {"objective": "mgr"}}}
        overrides = ["train.synthetic.truncation={psi: 0.5, num_centres: 99, num_samples: 30}"]
    write(ready, **{**{name: values[name] for name in ("compare", "arms")}, **sections})
    options = [part for each in overrides for part in ("-S", each)]
    import re

    assert re.search(message, ready("train", "--arm", arm, "--seed", "0", *options).error)


def test_what_is_missing_is_named(ready, tmp_path):
    shutil.rmtree(ready.folder / "data/generator")
    assert "run `gdacli fit`" in ready("train", "--arm", "mgr", "--seed", "0").error
    ready.ok("train --arm original --seed 0")
    bare = Project(Path(shutil.copytree(ready.folder, tmp_path / "bare")))
    values = {**VALUES, "data": {"validation_fraction": 0.0}}
    write(bare, **values)
    bare.ok("prepare", "probe", "select", "fit", "mix --arm mgr")
    assert "there are no validation images" in bare("train", "--arm", "mgr", "--seed", "0").error


def test_an_unconditional_generator_is_for_consistency_alone(ready):
    write(ready, fit={**VALUES["fit"], "conditional": False}, compare={"arms": ["original", "mgr"], "seeds": [0]})
    ready.ok("fit", "train --arm mgr --seed 0")
    assert "is told no class" in ready("train", "--arm", "gda", "--seed", "0").error
    outcome = invoke("train", "--arm", "mgr", "-S", "train.finder.criterion=cross_entropy", "-C", str(ready.folder))
    assert "is told no class" in outcome.error
