"""Many kills of the real process at random points of its life: `make soak`, not `make test`."""

import os

import pytest
from killed import kill_often, many_shards


@pytest.mark.parametrize("workers", [1, 2])
def test_no_kill_leaves_half_a_pool_changes_a_byte_or_costs_more_than_a_shard_a_worker(tmp_path, monkeypatch, workers):
    monkeypatch.setenv("GDACLI_WORK", str(tmp_path / "work"))
    project = many_shards(tmp_path / "project", per_class=30)
    kills = int(os.environ.get("GDACLI_KILLS", "100"))
    toll = kill_often(project, tmp_path / "work", kills, workers, seed=workers)
    print(f"{workers} workers: {toll}, {toll.lost / toll.kills:.2f} images lost a kill")
    assert toll.kills >= kills
