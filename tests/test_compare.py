import json
import os
import shlex
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Outcome, invoke
from fork_server import commands as commands_of_forks
from scipy import stats
from test_docs import ROOT, commands

from gdacli.artifacts import write_json
from gdacli.comparison import holm
from gdacli.tables import read_table, write_table

NUM_IMAGES = 200
LABELS = np.arange(NUM_IMAGES) % 4
ORIGINAL, TARGETED, RANDOM = [20, 26, 22], [11, 15, 14], [19, 27, 23]
"""How many images each seed's model is wrong on."""


def write_evaluation(
    project: Path,
    arms: dict[str, list[int]],
    updates: dict[str, int] | None = None,
    lr: float | None = None,
    **changes: object,
) -> None:
    """Write the predictions of `gdacli evaluate`: the model of a seed is wrong on its first images."""
    folder = project / "data/evaluation"
    columns: dict[str, Any] = {name: [] for name in ("key", "label", "arm", "seed", "prediction", "confidence")}
    for arm, wrong in arms.items():
        for seed, num_wrong in enumerate(wrong):
            guesses = np.where(np.arange(NUM_IMAGES) < num_wrong, (LABELS + 1) % 4, LABELS)
            keys = [f"image-{number:03d}" for number in range(NUM_IMAGES)]
            cells: list[Any] = [keys, LABELS, [arm] * NUM_IMAGES, [seed] * NUM_IMAGES, guesses]
            cells.append(np.full(NUM_IMAGES, 0.9))
            for column, values in zip(columns.values(), cells, strict=True):
                column += list(values)
    write_table(folder / "predictions.parquet", {**columns, **changes})
    efforts: dict[str, Any] = {arm: {"updates": (updates or {}).get(arm, 600), "images_seen": 9600} for arm in arms}
    if "sam" in efforts:
        efforts["sam"] = {"effort": {**efforts["sam"], "settings": {"optimizer": "sam"}}}
    efforts["original"] = {"effort": efforts["original"]}  # as it is written now; older revisions have it flat
    write_json(folder / "results.json", {"arms": efforts} | ({"train": {"lr": lr}} if lr else {}))


def compare(project: Path, *arguments: str) -> Outcome:
    return invoke("compare", *arguments, "-C", str(project))


def compared(project: Path, *arguments: str) -> dict:
    outcome = compare(project, *arguments, "--json")
    assert outcome.code == 0, outcome.stderr
    return json.loads(outcome.stdout)


def test_two_arms_are_paired_by_seed(tmp_path):
    write_evaluation(tmp_path, {"original": ORIGINAL, "targeted": TARGETED})
    result = compared(tmp_path, "targeted", "original")
    (one,) = result["comparisons"]
    test = stats.ttest_rel(TARGETED, ORIGINAL)
    difference = one["error"]["difference"]
    assert (result["num_images"], one["seeds"], one["told"], result["notes"]) == (200, [0, 1, 2], True, [])
    assert difference["mean"] == pytest.approx(100 * (np.mean(TARGETED) - np.mean(ORIGINAL)) / NUM_IMAGES)
    assert difference["p_value"] == one["corrected_p"] == pytest.approx(test.pvalue)
    assert one["effect_size"] < 0
    assert one["seeds_needed"] is None
    over_images = one["error_over_images"]["difference"]
    assert over_images[1] - over_images[0] > difference["high"] - difference["low"]
    assert one["calibration_error"]["a"]["mean"] == pytest.approx(
        np.mean([100 * abs(0.9 - (1 - wrong / NUM_IMAGES)) for wrong in TARGETED])
    )
    assert one["effort"]["a"] == one["effort"]["b"] == {"updates": 600, "images_seen": 9600}


def test_images_are_paired_by_key_not_by_place(tmp_path):
    write_evaluation(tmp_path, {"original": ORIGINAL, "targeted": TARGETED})
    expected = compared(tmp_path, "targeted", "original")
    path = tmp_path / "data/evaluation/predictions.parquet"
    order = np.random.default_rng(0).permutation(6 * NUM_IMAGES)
    write_table(path, {name: [values[row] for row in order] for name, values in read_table(path).items()})
    assert compared(tmp_path, "targeted", "original") == expected


def test_it_says_in_words_what_was_found(tmp_path):
    arms = {"original": ORIGINAL, "targeted": TARGETED, "random": RANDOM, "shifted": [num + 1 for num in ORIGINAL]}
    write_evaluation(tmp_path, arms, updates={"random": 900})

    def words(*arguments: str) -> str:
        outcome = compare(tmp_path, *arguments)
        assert outcome.code == 0, outcome.stderr
        return outcome.stdout

    told = words("targeted", "original")
    assert "targeted against original: A has 4.67 points lower error than B (p = 0.0" in told
    assert "Training: A 600 updates, 9,600 images seen; B 600 updates" in told
    assert "note:" not in told
    untold = words("random", "original")
    assert "no significant difference (p = 0.67 of one comparison; seeds 0, 1, 2)" in untold
    assert "; about 97 seeds would tell one of this size" in untold
    assert "note: random against original: A and B differ in updates" in untold
    assert "the same error in seeds 0, 1, 2" in words("original", "original")
    assert "A has 0.50 points higher error than B in seeds 0, 1, 2; whether it is chance cannot be told, for the" in (
        words("shifted", "original")
    )
    alone = words("targeted-1", "workspace:original")
    assert "A has 5.50 points lower error than B in seed 1; whether it is chance cannot be told, for one seed" in alone
    assert "left out" not in alone


def test_settings_that_two_arms_do_not_share_are_noted(tmp_path):
    write_evaluation(tmp_path, {"original": ORIGINAL, "sam": TARGETED})
    assert compared(tmp_path, "sam", "original")["notes"] == [
        "sam against original: A and B were trained with other settings too (optimizer), which a difference may come "
        "from"
    ]


def test_seeds_and_arms_that_only_one_has_are_named(tmp_path):
    write_evaluation(tmp_path, {"original": [*ORIGINAL, 24], "targeted": TARGETED})
    result = compared(tmp_path, "targeted", "original")
    assert result["comparisons"][0]["seeds"] == [0, 1, 2]
    assert result["notes"] == ["targeted against original: the seeds 3 are not in both and are left out"]
    outcome = compare(tmp_path, "targeted-0", "original-1")
    assert outcome.error.startswith("targeted-0: targeted has the seeds 0, original-1: original has 1, and none is in")


@pytest.mark.parametrize(
    ("a", "said"),
    [
        (
            "best",
            "best cannot be read as a revision, for this folder is in no repository of git and DVC; the "
            "arms of workspace",
        ),
        ("targeted-9", "targeted-9: targeted has no seed 9; allowed: 0, 1, 2"),
        ("workspace:best", "workspace:best: workspace has no arm best; allowed: original, targeted"),
        (":targeted", ":targeted: allowed: [REVISION:]ARM[-SEED], or a REVISION"),
        ("main:two words", "main:two words: allowed: "),
    ],
)
def test_names_that_mean_nothing_are_one_line(tmp_path, a, said):
    write_evaluation(tmp_path, {"original": ORIGINAL, "targeted": TARGETED})
    outcome = compare(tmp_path, a, "original")
    assert outcome.code == 1
    assert outcome.error.startswith(said)


def test_predictions_that_cannot_be_paired_are_refused(tmp_path):
    assert "evaluation/predictions.parquet does not exist: run `gdacli evaluate`" in (
        compare(tmp_path, "workspace:targeted", "workspace").error
    )
    assert "cannot be read as a revision" in compare(tmp_path, "targeted", "original").error
    arms = {"original": [3], "targeted": [2]}
    keys = [f"image-{number:03d}" for number in range(NUM_IMAGES)]
    write_evaluation(tmp_path, arms, key=[*keys, *keys[:-1], "other"])
    assert "200 and 200 images, of which 2 are not in both (such as image-199)" in (
        compare(tmp_path, "targeted", "original").error
    )
    write_evaluation(tmp_path, arms, label=[*LABELS, *LABELS[:-1], 0])
    assert "other labels for 1 images (such as image-199)" in compare(tmp_path, "targeted", "original").error
    write_table(tmp_path / "data/evaluation/predictions.parquet", {"key": keys, "label": LABELS})
    assert "has no column arm, seed, prediction, confidence" in compare(tmp_path, "targeted", "original").error


def call_in(folder: Path, command: str) -> str:
    done = subprocess.run(shlex.split(command), cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def forked_dvc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `dvc` be forks of one process that has imported it."""
    monkeypatch.setenv("PATH", f"{commands_of_forks()}{os.pathsep}{os.environ['PATH']}")


def set_up_git(folder: Path) -> None:
    call_in(folder, "git init --quiet --initial-branch main")
    for setting in ("user.name me", "user.email me@example.org", "commit.gpgsign false"):
        call_in(folder, f"git config {setting}")


@pytest.mark.usefixtures("forked_dvc")
def test_a_project_that_lies_below_the_root_of_git_has_revisions_too(tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    set_up_git(tmp_path)
    call_in(project, "dvc init --quiet --subdir")
    write_evaluation(project, {"original": ORIGINAL})
    call_in(project, "dvc add --quiet data/evaluation")
    call_in(project, "git add --all")
    call_in(project, "git commit --quiet --message first")
    write_evaluation(project, {"original": TARGETED})
    assert compared(project, "workspace", "main")["comparisons"][0]["seeds"] == [0, 1, 2]


@pytest.mark.usefixtures("forked_dvc")
def test_revisions_are_read_through_dvc_and_the_workspace_stays(tmp_path, monkeypatch):
    call = partial(call_in, tmp_path)
    set_up_git(tmp_path)
    call("dvc init --quiet")
    call("dvc config core.analytics false")
    write_evaluation(tmp_path, {"original": ORIGINAL, "targeted": RANDOM, "upsample": RANDOM}, lr=0.1)
    call("dvc add --quiet data/evaluation")
    call("git add --all")
    call("git commit --quiet --message first")
    call("git tag v1.0")
    write_evaluation(tmp_path, {"original": [21, 26, 23], "targeted": TARGETED, "flood": RANDOM}, lr=0.2)
    state = call("git status --short"), (tmp_path / "data/evaluation/predictions.parquet").read_bytes()

    result = compared(tmp_path, "workspace", "v1.0")
    assert [each["a"] for each in result["comparisons"]] == ["original", "targeted"]
    p_values = [each["error"]["difference"]["p_value"] for each in result["comparisons"]]
    assert [each["corrected_p"] for each in result["comparisons"]] == holm(p_values)
    assert p_values[1] == pytest.approx(stats.ttest_rel(TARGETED, RANDOM).pvalue)
    other = "A and B were trained with other settings too (lr), which a difference may come from"
    assert result["notes"] == ["flood, upsample not in both and left out", f"original: {other}", f"targeted: {other}"]
    page = commands(ROOT / "docs/comparison.md")
    assert len(page) == 4
    for command in page:
        outcome = compare(tmp_path, *shlex.split(command)[2:])
        assert outcome.code == 0, outcome.stderr
    assert "nowhere is no revision that git or DVC knows; the arms of workspace are flood, original, targeted" in (
        compare(tmp_path, "nowhere:targeted", "targeted").error
    )
    shutil.rmtree(tmp_path / ".dvc/cache")
    error = compare(tmp_path, "v1.0:targeted", "targeted").error
    assert error.startswith("data/evaluation of v1.0 is neither in DVC's cache nor in its remote")
    assert (call("git status --short"), (tmp_path / "data/evaluation/predictions.parquet").read_bytes()) == state
    monkeypatch.setenv("PATH", "")
    assert "for dvc is not on the PATH" in compare(tmp_path, "v1.0", "targeted").error
