"""The folder that is shared as a model: weights, configuration and card."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gdacli.artifacts import new_directory, read_json, require, write_text
from gdacli.checksums import verify_folder
from gdacli.errors import GdaError
from gdacli.histories import read_history
from gdacli.paths import TRAIN, mix_file, run_name
from gdacli.sharing.findings import dvc_md5, findings_of_training
from gdacli.sharing.licenses import check_stated
from gdacli.sharing.model_card import ModelFacts, model_card
from gdacli.sharing.origin import hub_id, source_title
from gdacli.sharing.shared_pool import without_places
from gdacli.tables import read_table

FILES = ("config.json", "model.safetensors")


def write_model(
    folder: Path,
    *,
    repo_id: str,
    revision: str,
    arm: str,
    seed: int,
    description: str,
    share: Mapping[str, Any],
    data_source: str,
    datasets: Sequence[str] = (),
) -> dict[str, Any]:
    """Write the folder that is shared as a model; returns what it holds.

    The same project gives the same bytes.

    Args:
        folder: `data/share/model`.
        repo_id: of the repository on the Hub.
        revision: the tag under which it is shared there.
        arm, seed: of the training.
        description: what the arm trains on, in words.
        share: the section `push`, of `Push.of_cards`.
        data_source: `data.source`.
        datasets: ids on the Hub of further datasets that it was trained on, as the synthetic one.

    Raises:
        GdaError: the licence is not stated, the training has not run, or is damaged.
    """
    check_license(share)
    name = run_name(arm, seed)
    trained, again = TRAIN / name, f"gdacli train --arm {arm} --seed {seed}"
    for file in (*FILES, "provenance.json", "history.csv"):
        require(trained / file, again)
    if damaged := verify_folder(trained):
        raise GdaError(f"{damaged[0].file}: {damaged[0].problem}: run `{again}`, or `dvc checkout --force {trained}`")
    config, train = read_json(trained / "config.json"), read_json(trained / "provenance.json")["train"]
    original = hub_id(data_source)
    with new_directory(folder) as temporary:
        for file in FILES:
            shutil.copyfile(trained / file, temporary / file)
        facts = ModelFacts(
            repo_id=repo_id,
            revision=revision,
            md5=dvc_md5(trained),
            arm=arm,
            seed=seed,
            description=description,
            config=config,
            train=without_places(train),
            images=_images(arm),
            num_updates=int(read_history(trained / "history.csv")["updates"][-1]),
            is_ours=_is_ours(config["architecture"]),
            base_model=_base_model(train),
            data_source=source_title(data_source),
            data_id=original or "imagefolder",
            datasets=[*([original] if original else []), *datasets],
            share=share,
            found=findings_of_training(name, trained / "model.safetensors"),
        )
        write_text(temporary / "README.md", model_card(facts))
    results, _ = facts.found
    size = sum(path.stat().st_size for path in folder.iterdir())
    return {
        "folder": str(folder),
        "training": name,
        "evaluated": results is not None,
        "megabytes": round(size / 1e6, 3),
    }


NEEDED_LICENSE = {"model_license": "the model"}
"""The key of the section `push` that a card of a model needs, with what it is the licence of."""


def check_license(share: Mapping[str, Any]) -> None:
    """Check that the licence of the model is stated.

    Raises:
        GdaError: it is not.
    """
    check_stated(share, NEEDED_LICENSE)


def _images(arm: str) -> dict[str, int]:
    mix = read_table(require(mix_file(arm), f"gdacli mix --arm {arm}"))
    real = np.array([origin == "source" for origin in mix["origin"]], bool)
    source = int(real.sum())
    return {"source": source, "copies": int(mix["repeats"][real].sum()) - source, "synthetic": len(real) - source}


def _is_ours(architecture: str) -> bool:
    from gdacli.timm_models import OURS

    return architecture in OURS


def _base_model(train: Mapping[str, Any]) -> str | None:
    """Return the id on the Hub of timm's weights that a training began from; None of others."""
    if train["pretrained"] is not True:
        return None
    import timm

    config = timm.get_pretrained_cfg(train["model"])
    return f"timm/{config.architecture}.{config.tag}" if config is not None and config.tag else None
