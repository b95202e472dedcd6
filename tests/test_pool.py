from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gdacli.arms import PoolPlan
from gdacli.images import encode_png
from gdacli.pool import ShardRequest, dataset_card, plan_shards, split_among, tasks_for
from gdacli.shards import Sample, write_shard

SETTINGS: dict[str, Any] = {"class_names": ["x", "y"], "settings": "abc", "seed": 0}


def shards(plan: PoolPlan, **changes: Any) -> list:
    source: dict[str, Any] = {
        "keys": ["a", "b", "c"],
        "labels": np.array([0, 1, 0]),
        "source_shards": ["train-000000.tar", "train-000000.tar", "train-000001.tar"],
        "source_sha256": ["1", "2", "3"],
    }
    return list(plan_shards(plan, **{**source, **SETTINGS, **changes}))


def test_shards_follow_source_shards_and_strengths():
    plan = PoolPlan({300: np.array([1, 0, 1]), 1000: np.array([0, 2, 0])}, 3)
    made = shards(plan)
    assert [(shard.name, shard.source_shard, [r.key for r in shard.requests]) for shard in made] == [
        ("train-s0300-000000.tar", "train-000000.tar", ["a_s0300_v0"]),
        ("train-s1000-000000.tar", "train-000000.tar", ["b_s1000_v0", "b_s1000_v1"]),
        ("train-s0300-000001.tar", "train-000001.tar", ["c_s0300_v0"]),
        ("train-sampled-000000.tar", None, ["sampled_00000000", "sampled_00000001", "sampled_00000002"]),
    ]
    assert [request.label for request in made[-1].requests] == [0, 1, 0]


def test_an_identity_changes_with_all_that_determines_the_image_and_with_nothing_else():
    def identities(plan: PoolPlan, **changes: Any) -> dict[str, str]:
        return {request.key: request.identity for shard in shards(plan, **changes) for request in shard.requests}

    plan = PoolPlan({300: np.array([1, 1, 1])}, 2)
    base = identities(plan)
    assert len(set(base.values())) == len(base)
    more = identities(PoolPlan({300: np.array([2, 1, 1]), 500: np.array([0, 1, 0])}, 5))
    assert all(more[key] == identity for key, identity in base.items())
    for change in ({"settings": "xyz"}, {"seed": 1}):
        assert not set(identities(plan, **change).values()) & set(base.values())
    other_bytes = identities(plan, source_sha256=["1", "9", "3"])
    assert {key for key in base if base[key] != other_bytes[key]} == {"b_s0300_v0"}
    renamed = identities(plan, class_names=["x", "z"])
    assert {key for key in base if base[key] != renamed[key]} == {"b_s0300_v0", "sampled_00000001"}
    relabelled = identities(plan, labels=np.array([0, 1, 1]))
    assert {key for key in base if base[key] != relabelled[key]} == {"c_s0300_v0"}


def test_the_pool_loads_with_class_names_first_time(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    import datasets as hf

    names = ["wood_duck", "étoile: 'odd'"]
    pool = tmp_path / "pool"
    metas = []
    for shard in shards(PoolPlan({500: np.array([1, 1, 0])}, 2)):
        samples = [
            Sample(
                request.key,
                request.label,
                encode_png(np.full((3, 8, 8), 40 * row, np.uint8)),
                "png",
                {"backend": "x", "alpha_bar": 0.5, "num_steps": 3, "constant": True},
            )
            for row, request in enumerate(shard.requests)
        ]
        metas += [sample.meta for sample in samples]
        write_shard(pool / shard.name, samples)
    (pool / "README.md").write_text(dataset_card(names, "png", metas[0]), encoding="utf-8")
    (pool / "manifest.json").write_text("{}")
    (pool / "index.parquet").write_bytes(b"")
    for streaming in (False, True):
        loaded = hf.load_dataset(str(pool), split="train", streaming=streaming)
        assert loaded.features["cls"].names == names
        found = {row["__key__"]: row for row in loaded}
        assert set(found) == {"a_s0500_v0", "b_s0500_v0", "sampled_00000000", "sampled_00000001"}
        row = found["b_s0500_v0"]
        assert (row["cls"], row["png"].size, row["png"].getpixel((0, 0))) == (1, (8, 8), (40, 40, 40))
        assert row["json"] == metas[1]


def some_shards(counts: list[int], num_sampled: int = 1500) -> list[ShardRequest]:
    plan = PoolPlan({300: np.array([1] * sum(counts)), 800: np.array([1] * sum(counts))}, num_sampled)
    return shards(
        plan,
        keys=[f"k{row}" for row in range(sum(counts))],
        labels=np.zeros(sum(counts), int),
        source_shards=[f"train-{number:06d}.tar" for number, count in enumerate(counts) for _ in range(count)],
        source_sha256=["1"] * sum(counts),
    )


@given(st.lists(st.integers(1, 30), max_size=8), st.integers(1, 20), st.randoms())
def test_parts_hold_every_shard_once_whatever_the_order(counts, num_parts, random):
    wanted = some_shards(counts)
    parts = split_among(wanted, num_parts)
    assert len(parts) == num_parts
    assert sorted(shard.name for part in parts for shard in part) == sorted(shard.name for shard in wanted)
    shuffled = list(wanted)
    random.shuffle(shuffled)
    assert split_among(shuffled, num_parts) == parts


def test_parts_have_about_equal_work():
    work = [
        sum(len(shard.requests) * shard.strength for shard in part)
        for part in split_among(some_shards([10] * 40, 0), 4)
    ]
    assert max(work) < 1.1 * min(work)


@given(st.lists(st.integers(1, 30), max_size=8), st.integers(1, 5))
def test_tasks_hold_every_shard_once_and_keep_a_source_shard_together_where_there_are_enough(counts, workers):
    wanted = some_shards(counts)
    tasks = tasks_for(wanted, workers)
    assert sorted(shard.name for task in tasks for shard in task) == sorted(shard.name for shard in wanted)
    sources = {shard.source_shard or shard.name for shard in wanted}
    if len(sources) >= workers:
        assert len(tasks) == len(sources)
    else:
        assert all(len(task) == 1 for task in tasks)
