"""`gdacli clean`: remove what arms and seeds that `compare` no longer lists have left behind."""

import shutil
from pathlib import Path
from typing import Any

from gdacli.params import Params
from gdacli.paths import DATA, LOGS, METRICS, MIX, TRAIN, run_name


def run(params: Params) -> dict[str, Any]:
    """Remove mixes, trainings and their figures that no compared arm and seed owns; returns their paths."""
    arms = set(params.compare.arms)
    runs = {run_name(arm, seed) for arm in arms for seed in params.compare.seeds}
    owners = (
        (MIX, arms),
        (METRICS / "mix", arms),
        (TRAIN, runs),
        (LOGS, runs),
        (METRICS / "train", runs),
        (METRICS / "runs/mix", arms),
        (METRICS / "runs/train", runs),
    )
    removed = [path for folder, names in owners for path in _entries(folder) if path.stem not in names]
    removed += [path for path in _entries(DATA) if path.name.startswith(".tmp-")]
    for path in removed:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    return {"removed": [str(path) for path in removed]}


def summary(result: dict[str, Any]) -> str:
    """Say the result in a line per path."""
    return "\n".join(f"removed {path}" for path in result["removed"]) or "nothing is left over"


def _entries(folder: Path) -> list[Path]:
    """List what lies in a folder, hidden files apart, but with what a killed run has left."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.name[0] != "." or path.name.startswith(".tmp-"))
