"""What an arm is, in words, and which arm a report is about."""

from collections.abc import Mapping
from typing import Any

import yaml

from gdacli.arms import Arm


def uses_real_images_alone(arm: Arm, objective: str) -> bool:
    """Say if an arm is what others are held against: nothing is added, and it is trained on its images alone."""
    return arm.add is None and objective == "cross_entropy"


def real_alone(arms: Mapping[str, Arm], objectives: Mapping[str, str]) -> list[str]:
    """Return the names of the arms that `uses_real_images_alone` is true of, given `train.objective` by arm."""
    return [name for name, arm in arms.items() if uses_real_images_alone(arm, objectives[name])]


def main_arm(arms: Mapping[str, Arm], objectives: Mapping[str, str]) -> str | None:
    """Return the arm that a headline is about.

    It is `targeted`, else one of chosen images, one that searches for images (`mgr` first), of any images, of copies.

    Args:
        arms: by name.
        objectives: `train.objective` by arm.

    >>> arms = {name: Arm(name) for name in ("original", "pcr", "search")}
    >>> main_arm(arms, {"original": "cross_entropy", "pcr": "pcr", "search": "mgr"})
    'search'
    """
    made = [name for name, arm in arms.items() if arm.add in ("synthetic", "sampled")]
    chosen = [name for name in made if arms[name].select not in (None, "all", "random")]
    searched = [name for objective in ("mgr", "gda_mps") for name in arms if objectives[name] == objective]
    generating = [name for name in arms if objectives[name] not in ("cross_entropy", "real_consistency")]
    made = [*chosen, *searched, *generating, *made] or [name for name, arm in arms.items() if arm.add]
    return next((name for name in ("targeted", *made) if name in made), None)


def describe(arm: Arm, num_selected: int | None, overrides: Mapping[str, Any]) -> str:
    """Say in words what an arm trains on, and what it trains with in place of the section `train`."""
    trained_with = ""
    if overrides:
        written = yaml.safe_dump(dict(overrides), default_flow_style=True, width=10**9).strip()
        trained_with = f", trained with {written}"
    return _images(arm, num_selected) + trained_with


def _images(arm: Arm, num_selected: int | None) -> str:
    if arm.select is not None and num_selected == 0:
        return "the original images: nothing was selected"
    if arm.add is None:
        return "the original images"
    if arm.add == "sampled":
        return f"+ {arm.num_images} sampled images, no source"
    if arm.add == "imported":
        of = f" of {arm.select} sources" if arm.select else ""
        at = f" at {', '.join(f'{strength:g}' for strength in arm.strengths)}" if arm.strengths else ""
        number = f"{arm.num_images} " if arm.num_images else f"as many as {arm.like} of the " if arm.like else ""
        return f"+ {number}images{of}{at} of the imported pool {arm.pool}"
    which = {"all": "all images", "cluster": "late-learned images"}.get(arm.select or "", f"{arm.select} images")
    if arm.add == "copies":
        return f"{which} shown {arm.k} times"
    strengths = ", ".join(f"{strength:g}" for strength in arm.strengths)
    variants = f", {arm.variants} each" if arm.variants > 1 else ""
    return f"+ variants of {which} at {strengths}{variants}"
