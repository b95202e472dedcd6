"""Many kills of a training at random moments: `make soak`, not `make test`."""

import os

import pytest
from killed_training import kill_training, ready_to_train


@pytest.mark.parametrize(
    "options",
    [
        ("train.ema_decay=0.9", "train.checkpoint=best", "train.budget.updates=60"),
        ("train.optimizer=sam", "train.loading=stream", "train.augment.mixup={}", "train.budget.updates=60"),
    ],
    ids=str,
)
def test_no_kill_changes_a_byte_of_a_training(tmp_path, monkeypatch, shapes, options):
    monkeypatch.setenv("GDACLI_WORK", str(tmp_path / "work"))
    project = ready_to_train(tmp_path / "project", shapes)
    kills = int(os.environ.get("GDACLI_KILLS", "100"))
    settings = tuple(part for option in options for part in ("-S", option))
    print(options, kill_training(project, tmp_path / "work", settings, kills, seed=0))
