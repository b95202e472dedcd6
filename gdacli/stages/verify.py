"""`gdacli verify`: whether every byte of the artifacts is as it was published."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gdacli.artifacts import artifact_files, read_json
from gdacli.checksums import Damage, compare, verify_folder
from gdacli.console import progress
from gdacli.errors import GdaError
from gdacli.paths import EVALUATION, GENERATOR, METRICS, MIX, POOLS, PROBE, SELECTION, SOURCE, SYNTHETIC, TRAIN

_ARTIFACTS = (SOURCE, PROBE, SELECTION, GENERATOR, SYNTHETIC, POOLS, MIX, TRAIN, EVALUATION)
_COLLECTIONS = (GENERATOR, POOLS, TRAIN)
"""Folders of artifacts: each folder in them is one."""


def run(folders: Sequence[Path]) -> dict[str, Any]:
    """Check artifact folders, all of the project's when none is named; needs no `params.yaml`.

    Raises:
        GdaError: a named folder does not exist, or none is named and the project has none.
    """
    for folder in folders:
        if not folder.is_dir():
            raise GdaError(f"{folder}: there is no such folder: name an artifact's folder, data/synthetic for example")
    named = folders or [folder for folder in _ARTIFACTS if folder.is_dir()]
    artifacts = [artifact for folder in named for artifact in _artifacts(folder)]
    if not artifacts:
        raise GdaError("found no artifact to verify: run it in a project that has data/, or name folders")
    files = {artifact: _files(artifact) for artifact in artifacts}
    damaged: list[tuple[Path, Damage]] = []
    with progress("verify", sum(map(len, files.values())), "files") as advance:
        for artifact in artifacts:
            check = _verify_mix if artifact == MIX else verify_folder
            damaged += [(artifact, damage) for damage in check(artifact, advance)]
    return {
        "folders": len(artifacts),
        "files": sum(map(len, files.values())),
        "bytes": sum(file.stat().st_size for listed in files.values() for file in listed if file.exists()),
        "damaged": [
            {"file": str(damage.file), "problem": f"{damage.problem}: {_remedy(artifact, damage.file)}"}
            for artifact, damage in damaged
        ],
    }


def summary(result: dict[str, Any]) -> str:
    """Say the result: a line per damaged file and one with the counts."""
    lines = [f"{damage['file']}: {damage['problem']}" for damage in result["damaged"]]
    state = f"{len(lines)} DAMAGED" if lines else "all whole"
    counts = f"{result['folders']} folders, {result['files']} files, {result['bytes'] / 1e6:.1f} MB: {state}"
    return "\n".join([*lines, counts])


def _artifacts(folder: Path) -> list[Path]:
    if folder not in _COLLECTIONS:
        return [folder]
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _files(artifact: Path) -> list[Path]:
    if artifact == MIX:
        return sorted(MIX.glob("*.parquet"))
    return [artifact / name for name in artifact_files(artifact)]


def _verify_mix(folder: Path, on_file: Callable[[], object]) -> list[Damage]:
    """Compare each mix, a single file, with the sum in its figures."""
    damaged = []
    for file in _files(folder):
        figures = METRICS / "mix" / f"{file.stem}.json"
        try:
            content = read_json(figures) if figures.exists() else {}
        except GdaError:
            damaged.append(Damage(figures, "not valid JSON"))
            continue
        if isinstance(content, dict) and "sha256" in content:
            damaged += compare(file, str(content["sha256"]), figures)
        else:
            damaged.append(Damage(figures, f"holds no sha256 of {file}: an older gdacli wrote it, or it was lost"))
        on_file()
    return damaged


def _remedy(artifact: Path, file: Path) -> str:
    if artifact == MIX:
        return f"run `gdacli mix --arm {file.stem}`"
    return f"run `dvc checkout --force {artifact}`, or make it again"
