"""Arms: which source images each training mix augments, with what, and so what the pool must hold."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from gdacli.errors import GdaError

Add = Literal["copies", "synthetic", "sampled", "imported"]

STORED = ("synthetic", "sampled", "imported")
"""What is added as images that lie in a pool."""

POOL_NAME = r"^[a-z0-9_]+$"
"""What the name of an imported pool looks like."""

_VARIANT = re.compile(r"(.+)_s(\d{4})_v\d+", re.DOTALL)


@dataclass(frozen=True)
class Arm:
    """One training mix: the original images and what is added to them."""

    name: str
    add: Add | None = None
    select: str | None = None
    """The selection strategy; None for `original` and `sampled` arms."""
    like: str | None = None
    """Another arm whose number of selected images this one takes; of `imported`, its number of added ones."""
    like_per_class: bool = False
    k: int = 1
    """Images in the mix per selected image, the original counted (`copies`)."""
    strengths: tuple[float, ...] = ()
    """Of the variants (`synthetic`), or of those to take (`imported`; empty takes all)."""
    variants: int = 1
    """Images per source and strength (`synthetic`)."""
    num_images: int = 0
    """Class-balanced images without a source (`sampled`), or how many to draw (`imported`; 0 takes all)."""
    pool: str | None = None
    """The pool that the images are taken from (`imported`)."""


def milli(strength: float) -> int:
    """Return a strength as integer thousandths.

    >>> milli(0.7)
    700
    """
    return round(strength * 1000)


def synthetic_key(source_key: str, strength: int, variant: int) -> str:
    """Return the pool's key of a variant.

    >>> synthetic_key("cat-1", 500, 0)
    'cat-1_s0500_v0'
    """
    return f"{source_key}_s{strength:04d}_v{variant}"


def source_of(key: str) -> tuple[str, int] | None:
    """Return source key and strength in thousandths of a variant by its key in the pool; None of a sampled image.

    >>> source_of("cat-1_s0500_v0"), source_of("sampled_00000007")
    (('cat-1', 500), None)
    """
    found = _VARIANT.fullmatch(key)
    return (found[1], int(found[2])) if found else None


def sampled_key(index: int) -> str:
    """Return the pool's key of the image number `index` that has no source.

    >>> sampled_key(7)
    'sampled_00000007'
    """
    return f"sampled_{index:08d}"


def take_top(score: np.ndarray, count: int) -> np.ndarray:
    """Choose the `count` highest scores (the earlier of equal ones).

    Returns:
        bool [N], True = chosen.
    """
    chosen = np.zeros(len(score), bool)
    chosen[np.argsort(-score, kind="stable")[:count]] = True
    return chosen


def selected(
    arm: Arm, arms: Mapping[str, Arm], strategies: Mapping[str, tuple[np.ndarray, np.ndarray]], labels: np.ndarray
) -> np.ndarray:
    """Return which images an arm augments.

    Args:
        arm: the arm.
        arms: all arms by name, to look up `like`.
        strategies: per strategy the score [N] (higher = augment first) and its own choice, bool [N].
        labels: int [N].

    Returns:
        bool [N]. With `like`, the highest scores in the number (or the numbers per class) that the other arm selects.

    Raises:
        GdaError: a strategy is missing in the selection.
    """
    if arm.select is None:
        return np.zeros(len(labels), bool)
    if arm.select not in strategies:
        raise GdaError(f"data/selection has no strategy {arm.select!r} (arm {arm.name}): run `gdacli select` again")
    score, natural = strategies[arm.select]
    if arm.like is None or arm.add == "imported":
        return natural
    other = selected(arms[arm.like], arms, strategies, labels)
    if not arm.like_per_class:
        return take_top(score, int(other.sum()))
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        chosen[members[take_top(score[members], int(other[members].sum()))]] = True
    return chosen


@dataclass(frozen=True)
class PoolPlan:
    """What the arms need from the pool, each image once."""

    variants: dict[int, np.ndarray]
    """Strength in thousandths -> number of variants of each source image, int [N]."""
    num_sampled: int

    @property
    def num_images(self) -> int:
        """Number of images in the pool."""
        return self.num_sampled + sum(int(counts.sum()) for counts in self.variants.values())


def plan_pool(arms: Mapping[str, Arm], chosen: Mapping[str, np.ndarray], num_source: int) -> PoolPlan:
    """Take the union of the (source image, strength, variant) triples that the arms need.

    Args:
        arms: the arms to serve.
        chosen: per arm which source images it augments, bool [N].
        num_source: N.
    """
    variants: dict[int, np.ndarray] = {}
    for name, arm in arms.items():
        for strength in map(milli, arm.strengths if arm.add == "synthetic" else ()):
            counts = variants.setdefault(strength, np.zeros(num_source, np.int64))
            np.maximum(counts, chosen[name] * arm.variants, out=counts)
    variants = {strength: counts for strength, counts in sorted(variants.items()) if counts.any()}
    return PoolPlan(variants, max((arm.num_images for arm in arms.values() if arm.add == "sampled"), default=0))


def arm_keys(arm: Arm, keys: list[str], chosen: np.ndarray) -> list[str]:
    """List the keys of the generated pool that an arm adds to the original images, in a fixed order."""
    if arm.add == "sampled":
        return [sampled_key(index) for index in range(arm.num_images)]
    if arm.add != "synthetic":
        return []
    return [
        synthetic_key(keys[row], milli(strength), variant)
        for strength in arm.strengths
        for row in np.flatnonzero(chosen)
        for variant in range(arm.variants)
    ]


def num_added(arm: Arm, chosen: np.ndarray) -> int:
    """Return how many images an arm needs of the generated pool; `chosen` as of `selected`."""
    if arm.add == "sampled":
        return arm.num_images
    return int(chosen.sum()) * len(arm.strengths) * arm.variants if arm.add == "synthetic" else 0
