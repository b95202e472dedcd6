"""Figures in words and cells, the same in the report, the terminal and a pull request."""

import math
from collections.abc import Mapping, Sequence

from gdacli.arm_results import Comparison, Interval
from gdacli.comparison import MAX_SEEDS
from gdacli.metrics import Difference, Estimate


def in_words(comparison: Comparison) -> str:
    """Say a difference in error as a sentence's end: how large, how sure, and what it would take to tell.

    >>> difference = Difference(-0.5, 0.1, -0.75, -0.25, 3, 0.013)
    >>> in_words(Comparison(difference, (-0.8, -0.2), -2.8, 0.026, None))
    '0.50 points lower error (95 % interval over seeds -0.75 to -0.25, corrected p = 0.026, 3 seeds)'
    """
    difference = comparison.difference
    size = f"{abs(difference.mean):.2f} points {'lower' if difference.mean < 0 else 'higher'} error"
    if difference.low is None and difference.mean == 0:
        return f"the same error {'with one seed' if difference.num == 1 else f'in each of {difference.num} seeds'}"
    if difference.low is None:
        why = "with one seed" if difference.num == 1 else f"in each of {difference.num} seeds, which do not vary"
        return f"{size} {why}: whether it is chance cannot be told"
    p_value = "" if comparison.corrected_p is None else f", corrected p = {comparison.corrected_p:.2g}"
    detail = f"95 % interval over seeds {between(difference)}{p_value}, {difference.num} seeds"
    if not comparison.told:
        return f"no significant difference ({signed(difference.mean)} points, {detail}{_to_tell(comparison)})"
    return f"{size} ({detail}){_beyond(comparison)}"


def helped(arm: str, comparison: Comparison, split: str) -> str:
    """Answer whether an arm helped, as a sentence's beginning.

    Args:
        arm: its name.
        comparison: with the reference.
        split: whose images these are, as an adjective; it may be empty.
    """
    where = "" if comparison.told_beyond else f" on these {split} images".replace("  ", " ")
    if not comparison.told:
        return f"It cannot be told whether {arm} helped"
    if comparison.difference.mean < 0:
        return f"Yes, {arm} helped{where}"
    return f"No, {arm} did harm{where}"


def comparison_rows(comparisons: Mapping[str, Mapping[str, Comparison]]) -> list[list[str]]:
    """Return a header and a row per comparison, of reference -> arm -> how they compare."""
    rows = [["arm", "against", "points", "95 % over seeds", "over seeds and images", "effect size"]]
    rows[0] += ["p", "corrected p", "seeds needed"]
    for reference, by_arm in comparisons.items():
        for name, each in by_arm.items():
            row = [name, reference, signed(each.difference.mean), between(each.difference), ends(each.interval)]
            row += [points(each.effect_size) if each.effect_size is not None else "-", p_value(each.difference.p_value)]
            rows.append([*row, p_value(each.corrected_p), seeds(each.seeds_needed)])
    return rows


def _to_tell(comparison: Comparison) -> str:
    needed = comparison.seeds_needed
    if needed is None:
        return ""
    return f"; {about(needed)} seeds would tell such a difference" if needed > comparison.difference.num else ""


def _beyond(comparison: Comparison) -> str:
    if comparison.interval is None or comparison.told_beyond:
        return ""
    return f"; on other images it may be none ({ends(comparison.interval)})"


def capitalised(text: str) -> str:
    """Begin a sentence.

    >>> capitalised("no Difference")
    'No Difference'
    """
    return text[:1].upper() + text[1:]


def seeds(number: int | None) -> str:
    """Write a number of seeds that is needed.

    >>> seeds(12), seeds(1001), seeds(None)
    ('12', 'more than 1000', '')
    """
    if number is None:
        return ""
    return f"more than {MAX_SEEDS}" if number > MAX_SEEDS else str(number)


def about(number: int) -> str:
    """Write a number of seeds that is needed, in a sentence.

    >>> about(12), about(1001)
    ('about 12', 'more than 1000')
    """
    return seeds(number) if number > MAX_SEEDS else f"about {number}"


def spread(value: Estimate, digits: int = 2) -> str:
    """Write an estimate as mean ± standard deviation.

    >>> spread(Estimate(4.417, 0.12, 4.1, 4.7, 3))
    '4.42 ± 0.12'
    """
    if math.isnan(value.mean):
        return "none"
    return f"{value.mean:.{digits}f}" + (f" ± {value.sd:.{digits}f}" if value.sd is not None else "")


def between(value: Estimate) -> str:
    """Write the 95 % interval of an estimate."""
    return ends(None if value.low is None or value.high is None else (value.low, value.high))


def ends(interval: Interval | None) -> str:
    """Write an interval.

    >>> ends((-0.751, 0.0)), ends(None)
    ('-0.75 to 0.00', '-')
    """
    return "-" if interval is None else f"{interval[0]:.2f} to {interval[1] + 0.0:.2f}"


def signed(value: float) -> str:
    """Write a difference with its sign.

    >>> signed(-0.001), signed(1.0)
    ('+0.00', '+1.00')
    """
    return f"{round(value, 2) + 0.0:+.2f}"  # adding 0 makes -0 a 0


def change(difference: Difference) -> str:
    """Write a difference with its 95 % interval.

    >>> change(Difference(-0.5, 0.1, -0.75, -0.25, 3, 0.013))
    '-0.50 (-0.75 to -0.25)'
    """
    same = "one seed" if difference.num == 1 else "the same in every seed"
    return f"{signed(difference.mean)} ({same if difference.low is None else between(difference)})"


def p_value(value: float | None) -> str:
    """Write a p-value.

    >>> p_value(0.0123), p_value(1e-5), p_value(None)
    ('0.012', '1e-05', '-')
    """
    return "-" if value is None else f"{value:.2g}"


def points(value: float | None, digits: int = 2) -> str:
    """Write a figure that may be missing."""
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return an aligned Markdown table; the first row is its header."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]
