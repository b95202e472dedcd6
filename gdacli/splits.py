"""Splits by fraction: which images of a class are set apart, judged by a hash of their keys."""

import numpy as np

from gdacli.rng import uniform


def split_off(keys_uniform: np.ndarray, labels: np.ndarray, fraction: float) -> np.ndarray:
    """Choose about `fraction` of each class by hash, so that a further image moves no other.

    Each image is chosen if its own number is below the fraction: the class shares agree up to chance. A class of two
    or more images keeps at least one on either side.

    Args:
        keys_uniform: float64 [N] in [0, 1), a hash of each key.
        labels: int [N].
        fraction: in (0, 1).

    Returns:
        bool [N], True = chosen.
    """
    chosen = keys_uniform < fraction
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            chosen[members] = False
        elif not chosen[members].any():
            chosen[members[keys_uniform[members].argmin()]] = True
        elif chosen[members].all():
            chosen[members[keys_uniform[members].argmax()]] = False
    return chosen


def subsample(keys_uniform: np.ndarray, labels: np.ndarray, fraction: float) -> np.ndarray:
    """Choose exactly round(`fraction` x size) of each class, at least one; smaller fractions are subsets of larger.

    Args:
        keys_uniform: float64 [N] in [0, 1), a hash of each key.
        labels: int [N].
        fraction: in (0, 1].

    Returns:
        bool [N], True = chosen.
    """
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = max(1, round(fraction * len(members)))
        chosen[members[keys_uniform[members].argsort(kind="stable")[:count]]] = True
    return chosen


def key_uniform(key: str, seed: int, purpose: str) -> float:
    """Return the number in [0, 1) by which `split_off` and `subsample` judge a key."""
    return uniform("split", seed, purpose, key)
