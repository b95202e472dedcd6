"""Paired comparisons over repeats, with p-values that are corrected for their number (Holm)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gdacli.comparison import holm
from gdacli.metrics import paired_difference
from gdacli.theory.outcome import Row

SIGNIFICANT = 0.05
"""Called a difference: a corrected p-value of at most this."""
UNDECIDED = "no significant difference"


def compared(pairs: Sequence[tuple[Mapping[str, Any], np.ndarray, np.ndarray]], higher: str, lower: str) -> list[Row]:
    """Compare values with those of a reference on the same repeats; all pairs are one family.

    Args:
        pairs: what names a row, its values [R], and the reference's [R].
        higher, lower: the verdict where the values are significantly above or below the reference's.

    Returns:
        A row per pair: its name, the mean difference with the 95 % interval of it alone (None where it is the same in
        every repeat), the p-value before and after correction, the number of repeats, and the verdict.
    """
    found = [paired_difference(values, reference) for _, values, reference in pairs]
    corrected = holm([each.p_value for each in found])
    return [
        {
            **name,
            "difference": each.mean,
            "low": each.low,
            "high": each.high,
            "p_value": each.p_value,
            "p_value_holm": p_value,
            "repeats": each.num,
            "verdict": verdict(each.mean, p_value, higher, lower),
        }
        for (name, _, _), each, p_value in zip(pairs, found, corrected, strict=True)
    ]


def verdict(difference: float, p_value: float | None, higher: str, lower: str) -> str:
    """Say which is higher; without a p-value the difference is the same in every repeat."""
    if p_value is None and abs(difference) < 1e-9:
        return "equal"
    if p_value is not None and p_value > SIGNIFICANT:
        return UNDECIDED
    return higher if difference > 0 else lower
