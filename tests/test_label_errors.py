import numpy as np
import pytest
from cleanlab.filter import find_label_issues
from conftest import CLASSES, Project, encoded, shape
from hypothesis import given
from hypothesis import strategies as st

from gdacli.label_errors import assign_folds, find_suspects
from gdacli.tables import read_table


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(2, 6), st.integers(0, 5))
def test_folds_share_each_class(classes, num_folds, seed):
    labels = np.array(classes)
    keys = [f"k{row}" for row in range(len(labels))]
    folds = assign_folds(keys, labels, num_folds, seed)
    order = np.random.default_rng(seed).permutation(len(labels))
    again = assign_folds([keys[row] for row in order], labels[order], num_folds, seed)
    assert (again == folds[order]).all()
    for members in [labels >= 0, *[labels == label for label in range(4)]]:
        counts = np.bincount(folds[members], minlength=num_folds)
        assert counts.max() - counts.min() <= 1


def predictions(num: int, flipped: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, out-of-fold probabilities of a good model, and which labels are wrong."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 5, num)
    wrong = rng.random(num) < flipped
    labels = np.where(wrong, (truth + rng.integers(1, 5, num)) % 5, truth)
    logits = rng.normal(0, 1, (num, 5))
    logits[np.arange(num), truth] += 6
    exponentials = np.exp(logits)
    return labels, (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32), wrong


def test_suspects_are_cleanlabs(monkeypatch):
    labels, probabilities, wrong = predictions(2000, 0.05, 0)
    found = find_suspects(labels, probabilities)
    theirs = find_label_issues(labels, probabilities, filter_by="low_self_confidence", n_jobs=1)
    assert (found.flagged != theirs).sum() <= 1  # cleanlab's two ways may round differently
    assert found.quality == pytest.approx(probabilities[np.arange(2000), labels])
    assert (found.suggested == probabilities.argmax(axis=1)).all()
    assert found.flagged[wrong].mean() > 0.8
    assert found.flagged[~wrong].mean() < 0.01
    monkeypatch.setattr("gdacli.label_errors.blocks", lambda rows, columns: [slice(0, 700), slice(700, rows)])
    assert (find_suspects(labels, probabilities).flagged == found.flagged).all()


def test_an_image_alone_in_its_class_is_not_flagged():
    labels, probabilities, _ = predictions(300, 0.05, 1)
    labels[labels == 4] = 0
    labels[7] = 4
    probabilities[7] = [0.97, 0.01, 0.01, 0.009, 0.001]
    assert not find_suspects(labels, probabilities).flagged[7]


HALF = {"select": "cluster", "add": "copies", "k": 2, "train": {}}


def flipped_shapes(project: Project) -> None:
    """Write 3 x 60 shapes, 5 % of them into the folder of another class, and set the project to probe them."""
    rng = np.random.default_rng(0)
    wrong = set(rng.permutation(180)[:9].tolist())
    for number in range(180):
        truth = number % 3
        folder = project.folder / "shapes" / CLASSES[(truth + 1 + number % 2) % 3 if number in wrong else truth]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{'wrong' if number in wrong else 'right'}{number:03d}.png").write_bytes(encoded(shape(truth, rng)))
    project.write(
        data={"source": str(project.folder / "shapes"), "test_fraction": 0.1},
        compute={"threads": 1},
        probe={"model_args": {"width": 8}, "epochs": 8, "batch_size": 16, "folds": 5},
        select={"exclude_suspects": True},
        compare={"arms": ["original", "upsample"], "seeds": [0]},
        arms={"upsample": {"select": "random", "like": "half", "add": "copies", "k": 2, "train": {}}, "half": HALF},
    )


def test_flipped_labels_are_caught_and_no_arm_selects_them(project):
    flipped_shapes(project)
    project.ok("prepare", "probe", "select")
    selection = read_table(project.folder / "data/selection/selection.parquet")
    wrong = np.array(["wrong" in key for key in selection["key"]])
    suspect = selection["suspect"]
    assert suspect[wrong].mean() >= 0.7
    assert suspect[~wrong].mean() <= 0.03
    for name in ("cluster", "random"):
        assert (selection[f"{name}_score"] == -np.inf).tolist() == suspect.tolist()
        assert not selection[f"{name}_chosen"][suspect].any()
    lines = (project.folder / "data/selection/suspects.csv").read_text().splitlines()
    assert lines[0] == "key,label,suggested_label,quality"
    assert len(lines) == 1 + suspect.sum()
    outcome = project("select", "-S", "select.exclude_suspects=false")
    assert f"{suspect.sum()} images are probably mislabelled" in outcome.stdout
    kept = read_table(project.folder / "data/selection/selection.parquet")
    assert kept["cluster_chosen"][suspect].any()
    assert (kept["cluster_chosen"][~suspect] == selection["cluster_chosen"][~suspect]).all()
    project.ok(*[f"{stage} --arm {arm}" for arm in ("original", "upsample") for stage in ("mix", "train --seed 0")])
    project.ok("evaluate")
    report = (project.folder / "data/evaluation/report.html").read_text()
    assert f"{suspect.sum()} of {len(suspect)} training images are probably mislabelled" in report
    assert all(line.split(",")[0] in report for line in lines[1:])


def test_excluding_suspects_needs_folds(project):
    project.ok("prepare", "probe")
    message = "select.exclude_suspects: found true, but probe.folds null makes no out-of-fold predictions"
    assert message in project("select", "-S", "select.exclude_suspects=true").error
    late = project("select", "-S", "select.exclude_suspects=true", "-S", "probe.folds=5").error
    assert "data/probe/out_of_fold.npy does not exist: run `gdacli probe" in late
