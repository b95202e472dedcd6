"""Recipes: the values that `gdacli init` writes into a new project's `params.yaml`."""

from importlib.resources import files
from typing import Any

import yaml

from gdacli.errors import GdaError
from gdacli.explain import one_of

DEFAULT = "cpu"
DEFAULT_BACKEND = "class_conditional"


def load_presets() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the presets and the architectures of `presets.yaml`, each by name."""
    values = yaml.safe_load(files("gdacli").joinpath("presets.yaml").read_text(encoding="utf-8"))
    return values["presets"], values["architectures"]


def preset_values(name: str, architecture: str | None = None) -> dict[str, Any]:
    """Return the values of a preset, those of its architecture among them.

    Args:
        name: of the preset.
        architecture: another one than the preset's own; with its learning rate, unless the preset has one, as those
            that start from pretrained weights do.

    Raises:
        GdaError: there is no such preset or architecture, or the preset starts from weights that there are none of.
    """
    presets, architectures = load_presets()
    try:
        preset = presets[one_of(name, presets, "--preset: ")]
        network = architectures[one_of(architecture or preset["architecture"], architectures, "--architecture: ")]
    except ValueError as error:
        raise GdaError(str(error)) from error
    pretrained = preset.get("pretrained", False)
    if pretrained and not network.get("weights", False):
        with_weights = [other for other, values in architectures.items() if values.get("weights", False)]
        raise GdaError(
            f"--architecture: found {architecture!r}, but --preset {name} starts from pretrained weights; allowed: "
            f"{', '.join(with_weights)}"
        )
    lr = preset["lr"] if "lr" in preset else network["lr"]
    named = network["model"] if pretrained else network["model"].partition(".")[0]  # what follows names weights
    model = {"model": named, "model_args": network["model_args"], "pretrained": pretrained, "lr": lr}
    defaults = {
        "nesterov": False,
        "milestones": [0.5, 0.75],
        "checkpoint": "last",
        "synthetic": {"weight": 0.1, "batch_size": 64},
        "finder": {"lr": 1e-4, "kl_weight": 0.01},
    }
    train = {**model, "rho": network["rho"], **defaults, **preset["train"]}
    probe = {**model, **{key: train[key] for key in ("batch_size", "augment")}, **preset["probe"]}
    kept = {key: preset[key] for key in ("image_size", "fit", "strengths")}
    arms = preset.get("arms")
    return {
        **kept,
        "validation_fraction": preset.get("validation_fraction", 0.0),
        "generate": {"backend": DEFAULT_BACKEND, **preset["generate"]},
        "gan": preset.get("gan"),
        "probe": probe,
        "train": train,
        "arms": arms,
        "compared": list(arms) if arms else ["original", "upsample", "random", "targeted"],
    }
