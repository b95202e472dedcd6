"""`gdacli preview`: a few images beside their variants at every strength, or samples, without touching the pool."""

from pathlib import Path
from typing import Any

import numpy as np

from gdacli.arms import PoolPlan, milli, sampled_key, selected, synthetic_key
from gdacli.artifacts import new_file, write_text
from gdacli.console import progress
from gdacli.errors import GdaError
from gdacli.generators import backend_facts
from gdacli.grid import Row, contact_page, contact_sheet
from gdacli.images import decode_array
from gdacli.params import Params
from gdacli.paths import GENERATOR, PROBE, SELECTION, SOURCE
from gdacli.pool import Request, shards_of
from gdacli.prepared import Prepared, decode_sample, read_prepared, read_strategies
from gdacli.recipe import read_recipe
from gdacli.shards import read_shard
from gdacli.store import work_location

_CELL = 128
_SAMPLES = 6

_Shown = tuple[list[Row], list[str], str, dict[str, Any]]
"""Rows of the grid, titles of its columns, what it says below, what the command returns."""


def run(params: Params, num_sources: int, output: Path) -> dict[str, Any]:
    """Write `preview.png` and `preview.html`; returns where, and what they show.

    The seeds are the pool's, so the images are the pool's too, but for last bits: the batch is smaller here. Where no
    arm adds variants, samples are shown, a row a class: those of `sampled` arms, or of a backend that makes no others.

    Args:
        params: of the project.
        num_sources: how many of the selected images, of each class in turn those of the highest score; of samples how
            many classes.
        output: folder to write to.
    """
    prepared = read_prepared(SOURCE)
    arms = params.compared_arms()
    if any(arm.add == "synthetic" for arm in arms.values()):
        shown = _variants(params, prepared, num_sources)
    elif any(arm.add == "sampled" for arm in arms.values()) or backend_facts(params.generate.backend).noise_only:
        shown = _samples(params, prepared, num_sources)
    else:
        raise GdaError(
            "compare.arms: none of them adds synthetic images, nor sampled ones: there is nothing to preview"
        )
    table, titles, note, result = shown
    files = {"png": output / "preview.png", "html": output / "preview.html"}
    with new_file(files["png"]) as temporary:
        temporary.write_bytes(contact_sheet(table, titles, cell=_CELL))
    write_text(files["html"], contact_page(table, titles, title="Preview", notes=[note]))
    return {**result, **{kind: str(file) for kind, file in files.items()}}


def _variants(params: Params, prepared: Prepared, num_sources: int) -> _Shown:
    index = prepared.train_index()
    arms = {name: arm for name, arm in params.compared_arms().items() if arm.add == "synthetic"}
    first = next(iter(arms.values()))
    strategies = read_strategies(SELECTION, index["key"])
    chosen = selected(first, params.all_arms(), strategies, index["label"])
    score, _ = strategies[first.select or ""]
    rows = _first_of_each_class(index["label"], np.where(chosen, score, -np.inf), min(num_sources, int(chosen.sum())))
    if not rows:
        raise GdaError(f"arm {first.name} selects no image: there is nothing to preview")
    strengths = sorted({milli(strength) for arm in arms.values() for strength in arm.strengths})
    once = np.zeros(len(index["key"]), np.int64)
    once[rows] = 1
    made = _make(params, prepared, PoolPlan(dict.fromkeys(strengths, once), 0), len(rows))
    keys = [index["key"][row] for row in rows]
    sources = _read(prepared.folder, {index["shard"][row] for row in rows}, set(keys))
    table: list[Row] = [
        (
            prepared.class_names[index["label"][row]],
            [sources[key], *(made[synthetic_key(key, strength, 0)] for strength in strengths)],
        )
        for row, key in zip(rows, keys, strict=True)
    ]
    generate = params.generate
    note = (
        f"{generate.backend}, {generate.solver}, {generate.num_inference_steps} steps, guidance "
        f"{generate.guidance_scale:g}. Columns are strengths: how much noise was added before denoising (1 is pure "
        f"noise). Sources are images that arm {first.name} selects, of each class in turn those of the highest score."
    )
    titles = ["source", *(f"{strength / 1000:g}" for strength in strengths)]
    return table, titles, note, {"keys": keys, "strengths": [strength / 1000 for strength in strengths]}


def _samples(params: Params, prepared: Prepared, num_classes: int) -> _Shown:
    names = prepared.class_names
    shown = list(names[:num_classes])
    made = _make(params, prepared, PoolPlan({}, len(names) * _SAMPLES), len(shown) * _SAMPLES, num_classes)
    numbers = [[label + len(names) * column for column in range(_SAMPLES)] for label in range(len(shown))]
    table: list[Row] = [
        (name, [made[sampled_key(number)] for number in row]) for name, row in zip(shown, numbers, strict=True)
    ]
    note = f"{params.generate.backend}: samples from noise alone, the first {_SAMPLES} of each class."
    titles = [f"sample {column + 1}" for column in range(_SAMPLES)]
    return table, titles, note, {"keys": [], "strengths": [], "classes": shown}


def _make(
    params: Params, prepared: Prepared, plan: PoolPlan, batch: int, num_classes: int | None = None
) -> dict[str, np.ndarray]:
    """Make the images of a plan, of the first classes; returns them by their key in the pool."""
    from gdacli.engine import Engine

    settings, share = params.image_settings(), 16 * params.compute.threads
    settings["batch_size"] = min(settings["batch_size"], -(-batch // share) * share)
    recipe = read_recipe(settings, prepared, generators=GENERATOR, probe=PROBE, work=work_location(), **params.making())
    by_strength: dict[int, dict[str, Request]] = {}
    for shard in shards_of(prepared, plan, settings=recipe.identity, seed=params.generate.seed):
        for each in shard.requests:
            if num_classes is None or each.label < num_classes:
                by_strength.setdefault(shard.strength, {})[each.identity] = each
    engine, made = Engine(recipe), dict[str, np.ndarray]()
    with progress("preview", sum(map(len, by_strength.values())), "images") as advance:
        for wanted in by_strength.values():
            for finished in engine.make_images(list(wanted.values())):
                for identity, sample in finished.items():
                    made[wanted[identity].key] = decode_array(sample.image)
                advance(len(finished))
    return made


def summary(result: dict[str, Any]) -> str:
    """Say where the grid is."""
    if "classes" in result:
        shown = f"{_SAMPLES} samples of each of {len(result['classes'])} classes"
    else:
        strengths = ", ".join(f"{strength:g}" for strength in result["strengths"])
        shown = f"{len(result['keys'])} sources at strengths {strengths}"
    return f"{shown} -> {result['png']}, {result['html']}"


def _first_of_each_class(labels: np.ndarray, score: np.ndarray, count: int) -> list[int]:
    """Return the rows of the `count` highest scores, the classes taking turns; ordered by class."""
    by_class = [np.flatnonzero((labels == label) & np.isfinite(score)) for label in np.unique(labels)]
    ranked = [rows[np.argsort(-score[rows], kind="stable")].tolist() for rows in by_class]
    turns = [rows[turn] for turn in range(max(map(len, ranked))) for rows in ranked if turn < len(rows)]
    return sorted(turns[:count], key=lambda row: labels[row])


def _read(folder: Path, shards: set[str], keys: set[str]) -> dict[str, np.ndarray]:
    samples = (sample for shard in shards for sample in read_shard(folder / shard) if sample.key in keys)
    return {sample.key: decode_sample(sample, folder) for sample in samples}
