"""What `gdacli fit` wrote or pinned for a backend."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gdacli.artifacts import read_json, require
from gdacli.checksums import verify_folder
from gdacli.errors import GdaError
from gdacli.generators import FILES, Facts, backend_facts
from gdacli.rng import digest
from gdacli.weights import PIN, PIPELINE, locate_pinned, weights_digest


@dataclass(frozen=True)
class FittedBackend:
    """What `gdacli fit` wrote or pinned for a backend, whole and as the settings name it."""

    facts: Facts
    folder: Path
    pins: dict[str, dict[str, Any]]
    weights: str
    """Hash of all of it."""


def read_fitted(settings: Mapping[str, Any], generators: Path) -> FittedBackend:
    """Read what `gdacli fit` wrote or pinned, and compare it with the settings and with its checksums.

    Args:
        settings: the keys of `Generate.of_images`.
        generators: the folder in which `gdacli fit` wrote the backend's own.

    Raises:
        GdaError: it has not run, was run for another model, or its files are damaged.
    """
    name = settings["backend"]
    facts = backend_facts(name)
    folder = require(generators / name, "gdacli fit")
    asked = {option: settings[option] for option in FILES if option in facts.options and settings[option]}
    pins = read_json(require(folder / PIN, "gdacli fit")) if asked else {}
    checks_safety = settings["safety_checker"] and "safety_checker" in facts.options
    form = {"revision": settings["revision"], "variant": settings["variant"], "safety_checker": checks_safety}
    made_for = {option: pin["name"] for option, pin in pins.items()}
    form = form if "model" in asked else {}
    of_model = {key: pins.get("model", {}).get(key) for key in form}
    if (made_for, of_model) != (asked, form):
        raise GdaError(
            f"{folder / PIN}: made for {made_for | of_model}, params.yaml names {asked | form}: run `gdacli fit`"
        )
    locate_pinned(pins)
    for damage in verify_folder(folder):
        raise GdaError(f"{damage.file}: {damage.problem}: run `gdacli fit`, or `dvc checkout --force {folder}`")
    return FittedBackend(facts, folder, pins, weights_of(folder, pins))


def weights_of(folder: Path, pins: dict[str, dict[str, Any]]) -> str:
    """Return the hash of what `gdacli fit` wrote and of the files that it pinned."""
    return digest(weights_digest(folder, PIPELINE), {option: pin["sha256"] for option, pin in pins.items()})
