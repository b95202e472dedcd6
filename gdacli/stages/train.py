"""`gdacli train`: one arm's mix, one seed."""

from __future__ import annotations

import csv
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from gdacli.artifacts import new_directory, read_json, require, sha256_file, write_json
from gdacli.console import say
from gdacli.histories import collapsed, read_history
from gdacli.live import LiveGenerator, live_for
from gdacli.objective_sections import CONSISTENCY
from gdacli.params import Params
from gdacli.paths import GENERATOR, LOGS, SOURCE, TRAIN, mix_file, run_name
from gdacli.prepared import read_prepared
from gdacli.processes import is_first_process
from gdacli.tables import read_columns
from gdacli.trackers import open_trackers
from gdacli.training_store import TRAINING_VERSION, TrainingStore, copy_files, training_identity

if TYPE_CHECKING:
    import torch

    from gdacli.distributed import World
    from gdacli.models import Classifier
    from gdacli.training import Epoch

VERSION = TRAINING_VERSION

_TRACKED = ("loss", "error", "lr", "validation_error", "validation_loss", "synthetic_loss")


def run(params: Params, arm: str | None = None, seed: int | None = None) -> dict[str, Any]:
    """Write `data/train/<arm>-<seed>`, for every compared arm and seed when none is named; returns their figures.

    A training that was finished before is taken from the work directory, without torch; one that was killed goes on.
    """
    arms = [arm] if arm is not None else params.compare.arms
    seeds = [seed] if seed is not None else params.compare.seeds
    runs = [(name, each) for name in arms for each in seeds]
    waiting = [each for each in runs if not _taken(params, *each)]
    if waiting:
        from gdacli.compute import set_up
        from gdacli.distributed import joined

        device = set_up(params.compute.device, params.compute.threads)
        with joined(device) as world:
            for each in waiting:
                _train(params, *each, device, world)
    if not is_first_process():  # the others do not wait for the files
        return {}
    for each in runs:
        _warn_of_collapse(params, *each)
    return {"runs": {run_name(*each): _figures(params, *each) for each in runs}}


def summary(result: dict[str, Any]) -> str:
    """Say the result in a line per run."""
    return "\n".join(
        f"{name}: {run['updates']} updates, {run['images_seen']} images seen, last train error "
        f"{run['train_error']:.2f} %{_of_kept(run)} -> {TRAIN / name}"
        for name, run in result["runs"].items()
    )


def _of_kept(run: dict[str, Any]) -> str:
    if "kept_epoch" not in run:
        return ""
    return f", kept the weights of epoch {run['kept_epoch']} with validation error {run['validation_error']:.2f} %"


def _store(params: Params, arm: str, seed: int) -> TrainingStore:
    train = params.train_of(arm)
    dataset = require(SOURCE / "dataset.json", "gdacli prepare")
    mix = require(mix_file(arm), f"gdacli mix --arm {arm}")
    live = _live(params, arm)
    identity = training_identity(
        dataset,
        mix,
        train.of_weights(),
        seed,
        live.identity if live is not None else None,
        device=params.compute.device,
        threads=params.compute.threads,
    )
    return TrainingStore(identity, train.save_seconds)


def _live(params: Params, arm: str) -> LiveGenerator | None:
    """Return the generator with which an arm's training makes images."""
    objective = params.train_of(arm).objective
    return live_for(objective, mix_file(arm), params.image_settings(), GENERATOR, read_prepared(SOURCE))


def _taken(params: Params, arm: str, seed: int) -> bool:
    """Take a finished training, if there is one."""
    params.arm(arm)
    finished = _store(params, arm, seed).finished()
    if finished is None:
        return False
    name = run_name(arm, seed)
    if is_first_process():
        say(f"{name}: was finished before, taken from {finished}")
        with new_directory(TRAIN / name) as folder:
            copy_files(finished, folder)
        with open_trackers(params.train_of(arm).trackers, LOGS / name) as log:
            for row in _history(name):
                log(int(row["epoch"]), {key: float(row[key]) for key in _TRACKED if key in row})
    return True


def _train(params: Params, arm: str, seed: int, device: torch.device, world: World) -> None:
    store, first = _store(params, arm, seed), is_first_process()
    with store.locked() if first else nullcontext():
        # Another process may have finished it while this one waited for the lock.
        if world.share_object(first and _taken(params, arm, seed)):
            return
        state = world.share_object(store.load() if first else None)
        if state is not None:
            say(f"{run_name(arm, seed)}: goes on after update {state['update']}")
        model, history = _fitted(params, arm, seed, device, world, state, store if first else None)
        if not first:
            return
        from gdacli.trainings import history_columns, write_classifier

        train, class_names = params.train_of(arm), read_prepared(SOURCE).class_names
        with new_directory(TRAIN / run_name(arm, seed)) as folder:
            write_classifier(folder, model, train.model, class_names, history_columns(history))
            provenance = {"mix_sha256": sha256_file(mix_file(arm)), "device": device.type}
            write_json(folder / "provenance.json", {**provenance, "train": train.of_weights()})
        store.finish(TRAIN / run_name(arm, seed))


def _fitted(
    params: Params,
    arm: str,
    seed: int,
    device: torch.device,
    world: World,
    state: dict[str, Any] | None,
    store: TrainingStore | None,
) -> tuple[Classifier, list[Epoch]]:
    """Train; returns the model and its history."""
    from gdacli.training import Epoch
    from gdacli.training_progress import training_progress
    from gdacli.trainings import fit, open_training

    train = params.train_of(arm)
    prepared = read_prepared(SOURCE)
    training = open_training(
        prepared,
        arm,
        mix_file(arm),
        seed,
        device,
        train.of_weights(),
        train.of_loading(),
        train.of_loop(),
        live=_live(params, arm),
        world=world,
    )
    name, history = run_name(arm, seed), list[Epoch]()
    trackers = open_trackers(train.trackers if is_first_process() else [], LOGS / name)
    with training_progress(name, training.updates, training.per_epoch) as (show, on_update), trackers as log:

        def on_epoch(epoch: Epoch) -> None:
            history.append(epoch)
            values = {name: getattr(epoch, name) for name in _TRACKED}
            log(epoch.epoch, {name: value for name, value in values.items() if value is not None})
            show(epoch)

        fit(training, on_epoch=on_epoch, on_update=on_update, state=state, keeper=store, world=world)
    return training.model, history


def _figures(params: Params, arm: str, seed: int) -> dict[str, Any]:
    folder = TRAIN / run_name(arm, seed)
    rows = _history(run_name(arm, seed))
    last = rows[-1]
    figures = {
        "updates": int(last["updates"]),
        "epochs": len(rows),
        "images_seen": int(last["images"]),
        "mix_size": int(read_columns(mix_file(arm), ["repeats"])["repeats"].to_numpy().sum()),
        "train_loss": float(last["loss"]),
        "train_error": float(last["error"]),
        "device": read_json(folder / "provenance.json")["device"],
        "run": {"seconds": _store(params, arm, seed).seconds()},
    }
    if "validation_error" in last:
        best = params.train_of(arm).checkpoint == "best"
        kept = min(rows, key=lambda row: float(row["validation_error"])) if best else last
        figures |= {"kept_epoch": int(kept["epoch"]), "validation_error": float(kept["validation_error"])}
    return figures


def _warn_of_collapse(params: Params, arm: str, seed: int) -> None:
    """Say of a training whose features are the same for all images what to change."""
    name, train = run_name(arm, seed), params.train_of(arm)
    history = read_history(TRAIN / name / "history.csv")
    if train.objective not in CONSISTENCY or "synthetic_loss" not in history:
        return
    if collapsed(history["error"], history["synthetic_loss"], len(read_prepared(SOURCE).class_names)):
        say(
            f"warning: {name}: the features collapsed: they are the same for all images (train error "
            f"{history['error'][-1]:.0f} %, synthetic loss {history['synthetic_loss'][0]:.2g}, at the end "
            f"{history['synthetic_loss'][-1]:.2g}): lower train.synthetic.weight (found {train.synthetic.weight:g})"
        )


def _history(name: str) -> list[dict[str, str]]:
    with (TRAIN / name / "history.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
