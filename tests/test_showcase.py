from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gdacli import showcase
from gdacli.images import encode_png
from gdacli.pool import Request, ShardRequest
from gdacli.recipe import Recipe
from gdacli.shards import Sample, write_shard
from gdacli.showcase import Showcase
from gdacli.store import ImageStore


def wanted(number: int) -> ShardRequest:
    requests = [Request(f"v{number}{row}", 0, 0, f"i{number}{row}", 500, 0, f"k{row}", "", "s.tar") for row in range(3)]
    return ShardRequest(f"train-s0500-{number:06d}.tar", "train-000000.tar", 500, requests)


@pytest.fixture
def recipe(tmp_path) -> Recipe:
    keys: dict[str, Any] = dict.fromkeys(Recipe.__dataclass_fields__, "")
    picture = encode_png(np.full((3, 8, 8), 90, np.uint8))
    write_shard(tmp_path / "source/train-000000.tar", [Sample(f"k{row}", 0, picture, "png", {}) for row in range(3)])
    return Recipe(**{**keys, "source": tmp_path / "source", "scoring": "x", "work": str(tmp_path / "work")})


def put(store: ImageStore, shard: ShardRequest) -> None:
    picture = encode_png(np.full((3, 8, 8), 200, np.uint8))
    metas = [{"source_key": request.source_key, "class_name": "cat"} for request in shard.requests]
    samples = [Sample(r.key, 0, picture, "png", meta) for r, meta in zip(shard.requests, metas, strict=True)]
    store.put(shard.identities, "x", samples, [])


def test_it_draws_a_finished_shard_beside_its_sources_once_and_then_waits(tmp_path, recipe, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(showcase.time, "monotonic", lambda: now[0])
    store, path = ImageStore(recipe.work, "s"), tmp_path / "preview/latest.png"
    show = Showcase(path, recipe, store, [wanted(0), wanted(1)])
    show()
    assert not path.exists()
    put(store, wanted(0))
    show()
    assert not path.exists(), "it looked a moment ago"
    now[0] += 1
    show()
    with Image.open(path) as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(100_000) or []}
        assert picture.height > 3 * 96
    assert {(90, 90, 90), (200, 200, 200)} <= colours
    path.unlink()
    now[0] += 60
    show()
    assert not path.exists(), "nothing new is there"


def test_a_picture_that_cannot_be_drawn_is_said_and_ends_nothing(tmp_path, recipe, capsys):
    store = ImageStore(recipe.work, "s")
    put(store, wanted(0))
    (recipe.source / "train-000000.tar").unlink()
    Showcase(tmp_path / "latest.png", recipe, store, [wanted(0)])()
    assert "latest.png is not drawn" in capsys.readouterr().err


def test_without_shards_it_does_nothing(tmp_path, recipe):
    Showcase(tmp_path / "latest.png", recipe, ImageStore(recipe.work, "s"), [])()
    assert not Path(tmp_path / "latest.png").exists()
