from typing import Any

import numpy as np

from gdacli.arms import PoolPlan
from gdacli.images import encode_png
from gdacli.pool import dataset_card, plan_shards, to_sample
from gdacli.shards import write_shard

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
            to_sample(
                request,
                encode_png(np.full((3, 8, 8), 40 * row, np.uint8)),
                names[request.label],
                {"backend": "x", "alpha_bar": 0.5, "num_steps": 3},
            )
            for row, request in enumerate(shard.requests)
        ]
        metas += [sample.meta for sample in samples]
        write_shard(pool / shard.name, samples)
    (pool / "README.md").write_text(dataset_card(names, metas[0]), encoding="utf-8")
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
