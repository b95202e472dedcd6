"""`gdacli train` started by torchrun itself; tests/test_train.py starts what it starts."""

import sys

from killed_training import ready_to_train
from two_processes import check_that_two_train_as_one

LAUNCHER = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "gdacli")


def test_torchrun_gives_the_weights_of_one_process(tmp_path, shapes, monkeypatch):
    monkeypatch.setenv("GDACLI_WORK", str(tmp_path / "work"))
    project = ready_to_train(tmp_path / "project", shapes)
    check_that_two_train_as_one(project, tmp_path / "work", lambda training: [training(LAUNCHER)])
