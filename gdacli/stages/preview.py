"""`gdacli preview`: a few selected images beside their variants at every strength, without touching the pool."""

from pathlib import Path
from typing import Any

import numpy as np

from gdacli.arms import PoolPlan, milli, selected
from gdacli.artifacts import new_file, write_text
from gdacli.console import progress
from gdacli.errors import GdaError
from gdacli.grid import contact_page, contact_sheet
from gdacli.images import decode_array
from gdacli.params import Params
from gdacli.paths import GENERATOR, PROBE, SELECTION, SOURCE
from gdacli.pool import shards_of
from gdacli.prepared import decode_sample, read_prepared, read_strategies
from gdacli.recipe import read_recipe
from gdacli.shards import read_shard
from gdacli.store import work_location

_CELL = 128


def run(params: Params, num_sources: int, output: Path) -> dict[str, Any]:
    """Write `preview.png` and `preview.html`; returns where, and what they show.

    The seeds are the pool's, so the images are the pool's too, but for last bits: the batch is smaller here.

    Args:
        params: of the project.
        num_sources: how many of the selected images, of each class in turn those of the highest score.
        output: folder to write to.
    """
    from gdacli.engine import Engine

    prepared = read_prepared(SOURCE)
    index = prepared.train_index()
    arms = {name: arm for name, arm in params.compared_arms().items() if arm.add == "synthetic"}
    if not arms:
        raise GdaError("compare.arms: none of them adds synthetic images: there is nothing to preview")
    first = next(iter(arms.values()))
    strategies = read_strategies(SELECTION, index["key"])
    chosen = selected(first, params.all_arms(), strategies, index["label"])
    score, _ = strategies[first.select or ""]
    rows = _first_of_each_class(index["label"], np.where(chosen, score, -np.inf), min(num_sources, int(chosen.sum())))
    if not rows:
        raise GdaError(f"arm {first.name} selects no image: there is nothing to preview")
    settings, share = params.image_settings(), 16 * params.compute.threads
    settings["batch_size"] = min(settings["batch_size"], -(-len(rows) // share) * share)
    recipe = read_recipe(settings, prepared, generators=GENERATOR, probe=PROBE, work=work_location(), **params.making())
    strengths = sorted({milli(strength) for arm in arms.values() for strength in arm.strengths})
    once = np.zeros(len(index["key"]), np.int64)
    once[rows] = 1
    shards = shards_of(
        prepared, PoolPlan(dict.fromkeys(strengths, once), 0), settings=recipe.identity, seed=params.generate.seed
    )
    requests = [request for shard in shards for request in shard.requests]
    engine, made = Engine(recipe), dict[tuple[str, int], np.ndarray]()
    with progress("preview", len(requests), "images") as advance:
        for strength in strengths:
            wanted = {each.identity: each for each in requests if each.strength == strength}
            for batch in engine.make_images(list(wanted.values())):
                for identity, sample in batch.items():
                    made[wanted[identity].source_key, strength] = decode_array(sample.image)
                advance(len(batch))
    keys = [index["key"][row] for row in rows]
    sources = _read(prepared.folder, {index["shard"][row] for row in rows}, set(keys))
    table = [
        (prepared.class_names[index["label"][row]], [sources[key], *(made[key, strength] for strength in strengths)])
        for row, key in zip(rows, keys, strict=True)
    ]
    titles = ["source", *(f"{strength / 1000:g}" for strength in strengths)]
    files = {"png": output / "preview.png", "html": output / "preview.html"}
    generate = params.generate
    notes = [
        f"{generate.backend}, {generate.solver}, {generate.num_inference_steps} steps, guidance "
        f"{generate.guidance_scale:g}. Columns are strengths: how much noise was added before denoising (1 is pure "
        f"noise). Sources are images that arm {first.name} selects, of each class in turn those of the highest score."
    ]
    with new_file(files["png"]) as temporary:
        temporary.write_bytes(contact_sheet(table, titles, cell=_CELL))
    write_text(files["html"], contact_page(table, titles, title="Preview", notes=notes))
    return {
        "keys": keys,
        "strengths": [strength / 1000 for strength in strengths],
        **{kind: str(file) for kind, file in files.items()},
    }


def summary(result: dict[str, Any]) -> str:
    """Say where the grid is."""
    strengths = ", ".join(f"{strength:g}" for strength in result["strengths"])
    return f"{len(result['keys'])} sources at strengths {strengths} -> {result['png']}, {result['html']}"


def _first_of_each_class(labels: np.ndarray, score: np.ndarray, count: int) -> list[int]:
    """Return the rows of the `count` highest scores, the classes taking turns; ordered by class."""
    by_class = [np.flatnonzero((labels == label) & np.isfinite(score)) for label in np.unique(labels)]
    ranked = [rows[np.argsort(-score[rows], kind="stable")].tolist() for rows in by_class]
    turns = [rows[turn] for turn in range(max(map(len, ranked))) for rows in ranked if turn < len(rows)]
    return sorted(turns[:count], key=lambda row: labels[row])


def _read(folder: Path, shards: set[str], keys: set[str]) -> dict[str, np.ndarray]:
    samples = (sample for shard in shards for sample in read_shard(folder / shard) if sample.key in keys)
    return {sample.key: decode_sample(sample, folder) for sample in samples}
