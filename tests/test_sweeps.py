"""Sweeps: their arms, what they choose, and that the command makes nothing twice."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import Project
from hypothesis import given, settings
from hypothesis import strategies as st

from gdacli.arm_results import Predictions
from gdacli.arm_section import ArmParams
from gdacli.comparison import holm
from gdacli.errors import GdaError
from gdacli.metrics import paired_difference
from gdacli.selection import STRATEGIES, UNSIZED
from gdacli.sweeps import PAPER, STRENGTHS_OF_K, compared, summary, sweep_arms, with_search

FIGURES = {"adds": "0.5", "selected": 0.5, "images": 9, "updates": 4}


@pytest.mark.parametrize("name", PAPER)
@pytest.mark.parametrize("sized", [False, True])
def test_arms_are_valid_and_the_papers(name, sized):
    arms = sweep_arms(name, [], sized, num_train=50)
    made = {arm: ArmParams.model_validate(values).to_arm(arm) for arm, values in arms.items()}
    assert next(iter(arms)) == "original"
    if name == "strengths":
        assert [arm.strengths for arm in made.values()] == [(), *((tenth / 10,) for tenth in range(1, 11))]
    elif name == "k":
        assert [(arm.k, 1 + len(arm.strengths)) for arm in list(made.values())[1:]] == [
            pair for k in STRENGTHS_OF_K for pair in ((k, 1), (1, k))
        ]
    elif name == "lambda":
        settings_of = [arms[arm]["train"] for arm in made if arm != "original"]
        assert [each["synthetic"]["weight"] for each in settings_of] == [tenth / 10 for tenth in range(1, 11)]
        assert {each["objective"] for each in settings_of} == {"pcr"}
        assert [arm.add for arm in made.values()] == [None] * 11
    elif name == "sampled":
        assert [arm.num_images for arm in made.values()] == [0, 50, 100, 250, 500, 1000]
    else:
        assert [arm.select for arm in made.values()] == [None, "misclassified", "high_loss", "cluster"]
        assert {arm.strengths for arm in made.values()} == {(), (0.4, 0.5, 0.7, 0.8)}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_strategy_that_only_ranks_takes_the_size_of_cluster_or_its_share(strategy):
    alone, sized = sweep_arms("selection", [strategy], False), sweep_arms("selection", [strategy], True)
    assert ("like" in alone[strategy], "cluster" in alone) == (
        strategy in UNSIZED,
        strategy in UNSIZED or strategy == "cluster",
    )
    assert list(sized) == ["original", strategy]
    assert "like" not in sized[strategy]


@pytest.mark.parametrize(
    ("name", "values", "error"),
    [
        ("strengths", "0", "found 0, allowed: strengths above 0 and up to 1"),
        ("strengths", "0.5555", "at most three decimals"),
        ("strengths", "high", "found 'high', allowed: numbers, such as 0.5"),
        ("strengths", "nan", "found nan, allowed: strengths"),
        ("k", "6", "found 6, allowed: k of 2, 3, 4, 5"),
        ("selection", "clusters", "did you mean cluster?"),
        ("selection", "cluster cluster", "one stands twice"),
        ("lambda", "0", "found 0, allowed: weights above 0"),
        ("lambda", "inf", "found inf, allowed: weights above 0"),
        ("lambda", "0.0004", "at most three decimals"),
        ("sampled", "0.5", "found 0.5, allowed: whole numbers from 1"),
        ("sampled", "0", "found 0, allowed: whole numbers from 1"),
    ],
)
def test_values_that_are_not_allowed(name, values, error):
    with pytest.raises(GdaError, match="--values: ") as raised:
        sweep_arms(name, values.split(), False)
    assert error in str(raised.value)


@pytest.mark.parametrize(
    ("objective", "swept", "search"),
    [
        ("cross_entropy", "pcr", "mgr"), ("gda", "gda", "gda_mps"), ("gda_ssl", "gda_ssl", None),
        ("real_consistency", "real_consistency", None),
    ],
)  # fmt: skip
def test_the_weight_is_that_of_the_projects_objective_and_goes_over_to_its_search(objective, swept, search):
    arms = sweep_arms("lambda", ["0.005", "2"], objective=objective)
    assert list(arms) == ["original", f"{swept}_w0005", f"{swept}_w2000"]
    assert arms["original"]["train"] == {"objective": "cross_entropy"}, "whatever the project's is"
    best = arms[f"{swept}_w0005"]
    assert best["train"] == {"objective": swept, "synthetic": {"weight": 0.005}}
    wanted = {search: {"train": {"objective": search, "synthetic": {"weight": 0.005}}}} if search else {}
    assert with_search(best) == wanted


@pytest.mark.parametrize(("searching", "without"), [("mgr", "pcr"), ("gda_mps", "gda")])
def test_an_objective_that_searches_by_the_validation_split_is_refused(searching, without):
    with pytest.raises(GdaError) as raised:
        sweep_arms("lambda", [], objective=searching)
    assert "searches by the validation split that a sweep chooses by" in str(raised.value)
    assert str(raised.value).endswith(f"allowed: -S train.objective={without}, whose weight {searching} then takes")


LABELS = np.zeros(1000, np.int64)


def predicted(errors: dict[str, list[int]]) -> dict[str, Predictions]:
    """Make predictions with these numbers of errors per seed on the 1,000 images."""
    wrong = {name: np.stack([np.arange(1000) < count for count in counts]) for name, counts in errors.items()}
    return {name: Predictions(each.astype(np.int64), np.ones(each.shape)) for name, each in wrong.items()}


def found(errors: dict[str, list[int]], **more: object) -> dict:
    result = compared(predicted(errors), LABELS, dict.fromkeys(errors, FIGURES), chooses=True)
    shape = {"sweep": "strengths", "split": "validation", "num_images": 1000, "seeds": [0, 1, 2], "overrides": []}
    take_over = {result["best"]: {"select": "cluster", "add": "synthetic", "strengths": [0.5], "train": {}}}
    return {**shape, "folder": "sweeps/strengths", "take_over": take_over, **result, **more}


def test_it_says_whether_the_best_is_better_than_chance():
    result = found({"original": [50, 52, 51], "s0300": [40, 43, 40], "s0500": [41, 40, 41]})
    assert (result["best"], result["runner_up"], result["as_good"]) == ("s0500", "s0300", ["s0300"])
    assert result["arms"]["original"]["minus_best"]["difference"]["mean"] == pytest.approx(31 / 30)
    text = summary(result)
    assert "best: s0500, 4.07 % validation error; s0300 comes next: no significant difference (+0.03 points" in text
    assert "NOT significantly better than s0300: " in text
    assert "\n  s0500: {select: cluster, add: synthetic, strengths: [0.5], train: {}}\n" in text
    apart = found({"original": [50, 52, 51], "s0500": [41, 40, 41]}, overrides=["train.optimizer=sam"])
    assert "significantly better than every other arm" in summary(apart)
    assert "s0500 in compare.arms (found with train.optimizer=sam):" in summary(apart)
    one = found({"original": [50], "s0500": [41]}, seeds=[0])
    assert "NOT significantly better than any other arm" in summary(one)
    assert "0.90 points higher error with one seed: whether it is chance cannot be told" in summary(one)
    weighed = found({"original": [50, 52, 51], "pcr_w0100": [41, 40, 41]}, with_search={"mgr": {"train": {}}})
    assert "takes the same weight, as in its paper:\n  mgr: {train: {}}\n" in summary(weighed)
    none = found({"original": [40, 41, 40], "s0500": [45, 45, 46]})
    assert "nothing to take over" in summary(none)


@settings(max_examples=10)
@given(st.lists(st.lists(st.integers(0, 1000), min_size=3, max_size=3), min_size=2, max_size=4))
def test_the_best_has_the_lowest_mean_and_what_is_as_good_is_not_significantly_worse(rows):
    errors = {"original": rows[0], **{f"s{number}": row for number, row in enumerate(rows[1:])}}
    result = compared(predicted(errors), LABELS, dict.fromkeys(errors, FIGURES), chooses=True)
    means = {name: arm["error"]["mean"] for name, arm in result["arms"].items()}
    assert means[result["best"]] == min(means.values())
    others = list(errors.keys() - {result["best"]})
    pairs = len(errors) * (len(errors) - 1) // 2
    corrected = holm([paired_difference(errors[name], errors[result["best"]]).p_value for name in others], pairs)
    assert set(result["as_good"]) == {
        name for name, p_value in zip(others, corrected, strict=True) if p_value is None or p_value > 0.05
    }


def hashes(folder: Path) -> dict[str, str]:
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def swept(tmp_path_factory, shapes):
    """Give a project that is run up to its trainings, which start from a file that a relative path names."""
    root = tmp_path_factory.mktemp("sweeps")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GDACLI_WORK", str(root / "work"))
        project = Project(root / "project")
        project.folder.mkdir()
        values: dict = {
            "data": {"source": os.path.relpath(shapes, project.folder), "validation_fraction": 0.3},
            "train": {"budget": {"updates": 2}},
        }
        patch.chdir(project.folder)
        project.write(**values)
        project.ok("prepare", "probe")
        (project.folder / "weights").mkdir()
        for name in ("model.safetensors", "config.json"):
            shutil.copyfile(project.folder / "data/probe" / name, project.folder / "weights" / name)
        values["train"]["pretrained"] = "weights/model.safetensors"
        project.write(**values)
        (project.folder / "rejects.csv").write_text("key\n")
        project.ok("select", "fit", "generate", "mix", "train")
        yield project


def test_a_sweep_makes_only_what_is_new_and_leaves_the_project_as_it_is(swept, shapes):
    before = hashes(swept.folder / "data")
    command = ("sweep", "strengths", "--values", "0.5,0.8", "--json")
    first = swept(*command)
    assert first.code == 0, first.stderr
    result = json.loads(first.stdout)
    assert list(result["arms"]) == ["original", "s0500", "s0800"]
    assert (result["split"], result["seeds"], result["num_images"]) == ("validation", [0, 1], 13)
    assert result["best"] in result["arms"]
    index = json.loads((swept.folder / "data/metrics/generate.json").read_text())
    assert result["run"] == {"made": index["num_images"], "reused": index["num_images"]}
    taken = [line.split(":")[0] for line in first.stderr.splitlines() if "was finished before" in line]
    assert taken == ["original-0", "original-1", "s0500-0", "s0500-1"]
    folder = swept.folder / "sweeps/strengths"
    assert {path.name for path in folder.iterdir()} == {"params.yaml", "data", "weights", "rejects.csv", "sweep.json"}
    assert json.loads((folder / "data/metrics/evaluate.json").read_text())["num_seeds"] == 2
    source = yaml.safe_load((folder / "params.yaml").read_text())["data"]["source"]
    assert (folder / source).samefile(shapes)
    saved = (folder / "sweep.json").read_bytes()
    shutil.rmtree(folder)
    again = swept(*command)
    assert again.stderr.count("was finished before") == 6
    assert json.loads(again.stdout)["run"]["made"] == 0
    assert (folder / "sweep.json").read_bytes() == saved
    assert hashes(swept.folder / "data") == before


def test_on_the_test_split_it_chooses_nothing(swept):
    outcome = swept("sweep", "k", "--values", "2", "--on", "test", "--seeds", "1")
    assert outcome.code == 0, outcome.stderr
    assert "on the test split: to reproduce a table, not to choose" in outcome.stdout
    assert "best" not in outcome.stdout
    assert [line.split()[0] for line in outcome.stdout.splitlines()[4:7]] == ["original", "upsample_k2", "targeted_k2"]
    result = json.loads((swept.folder / "sweeps/k-test/sweep.json").read_text())
    assert (result["split"], "best" in result, "take_over" in result) == ("test", False, False)


def test_the_weights_of_an_objective_are_swept_with_the_projects_generator(swept):
    outcome = swept(
        *("sweep", "lambda", "--values", "0.01,0.1", "--seeds", "0", "--json"),
        *("-S", "train.synthetic={batch_size: 4, num_inference_steps: 2}"),
    )
    assert outcome.code == 0, outcome.stderr
    assert "original-0: was finished before" in outcome.stderr, "the reference is the project's own arm"
    result = json.loads(outcome.stdout)
    assert {name: arm["adds"] for name, arm in result["arms"].items()} == {
        "original": "nothing", "pcr_w0010": "pcr x 0.01", "pcr_w0100": "pcr x 0.1",
    }  # fmt: skip
    assert {arm["updates"] for arm in result["arms"].values()} == {2}
    best = result["best"]
    weight = {"pcr_w0010": 0.01, "pcr_w0100": 0.1}.get(best)
    search = {"mgr": {"train": {"objective": "mgr", "synthetic": {"weight": weight}}}}
    assert result.get("with_search") == (search if weight else None)
    histories = [(swept.folder / f"sweeps/lambda/data/train/{arm}-0/history.csv").read_text() for arm in result["arms"]]
    assert len(set(histories)) == 3


def test_sampled_images_are_as_many_times_the_train_images(swept):
    outcome = swept("sweep", "sampled", "--values", "1,2", "--seeds", "0", "--json")
    assert outcome.code == 0, outcome.stderr
    result = json.loads(outcome.stdout)
    num_train = json.loads((swept.folder / "data/source/dataset.json").read_text())["splits"]["train"]["count"]
    assert [arm["adds"] for arm in result["arms"].values()] == [
        "nothing", f"{num_train} sampled", f"{2 * num_train} sampled",
    ]  # fmt: skip
    assert [arm["images"] for arm in result["arms"].values()] == [num_train, 2 * num_train, 3 * num_train]
    assert {arm["updates"] for arm in result["arms"].values()} == {2}, "matched, as the project's budget says"


def test_the_stability_is_that_of_the_probes_and_a_second_run_trains_none(swept):
    command = ("sweep", "stability", "--values", "cluster,random", "--seeds", "0,3")
    first = swept(*command)
    assert first.code == 0, first.stderr
    assert "by all %" in first.stdout
    result = json.loads((swept.folder / "sweeps/stability/stability.json").read_text())
    assert list(result["strategies"]) == ["cluster", "random"]
    assert result["strategies"]["random"]["overlap"] == 1, "its own seed is select's: one size may differ, no choice"
    header, *rows = (swept.folder / "sweeps/stability/stability.csv").read_text().splitlines()
    assert header == "key,class,cluster,random"
    assert len(rows) == result["num_images"]
    share = sum(row.split(",")[2] == "2" for row in rows) / len(rows)
    assert share == pytest.approx(result["strategies"]["cluster"]["by_all"])
    again = swept(*command)
    assert again.stdout == first.stdout
    assert again.stderr.count("was trained before") == 2
    other = swept(*command, "-S", "probe.lr=0.01")
    assert "was trained before" not in other.stderr


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (
            "strengths -S data.seed=1",
            "-S data.seed=1: sweep strengths takes values of compute, select, generate, train",
        ),
        ("strengths -S evaluate.split=test", "--values, --seeds and --on say what is compared"),
        ("lambda -S train.objective=gda_mps", "allowed: -S train.objective=gda, whose weight gda_mps then takes"),
        ("lambda -S train.objective=mgr", "allowed: -S train.objective=pcr, whose weight mgr then takes"),
        ("strengths --seeds 0,0", "--seeds: found 0,0, allowed: whole numbers, each once"),
        ("strengths --values 0.01", "0.01 of generate.num_inference_steps 4 is no denoising step"),
        ("k -S train.pretrained=data/probe/model.safetensors", "a sweep has a folder and a data/ of its own: give an"),
        ("stability --seeds 1", "an overlap needs two or more"),
    ],
)
def test_mistakes_are_one_line_and_come_before_any_work(swept, arguments, error):
    shutil.rmtree(swept.folder / "sweeps", ignore_errors=True)
    assert error in swept("sweep", *arguments.split()).error
    assert not list(swept.folder.glob("sweeps/*/*"))


def test_stability_has_no_split(project):
    assert project("sweep", "stability", "--on", "test").code == 2


def test_a_folder_in_the_place_of_a_link_is_not_touched(swept):
    kept = swept.folder / "sweeps/k/data/source/kept.txt"
    kept.parent.mkdir(parents=True)
    kept.write_text("mine")
    error = swept("sweep", "k", "--values", "2").error
    assert "sweeps/k/data/source is no link to the project's data/source: remove it" in error
    assert kept.read_text() == "mine"


def test_it_needs_validation_images_to_choose(project):
    assert "data/source/dataset.json does not exist: run `gdacli prepare` first" in project("sweep", "k").error
    project.ok("prepare")
    assert "run `gdacli probe` first" in project("sweep", "k").error
    for made in ("probe", "generator/class_conditional"):
        (project.folder / "data" / made).mkdir(parents=True)
    error = project("sweep", "k").error
    assert "validation images, of which there are none: set data.validation_fraction (0.2)" in error
    assert "or pass --on test, which chooses nothing" in error
