"""What the summaries and plots of the theory programs share."""

from collections.abc import Iterable, Sequence
from textwrap import fill
from typing import Any

from gdacli.theory.outcome import Row

_WIDTH = 116


def paragraph(text: str) -> str:
    """Wrap a sentence for the terminal."""
    return fill(text, _WIDTH)


def bullets(sentences: Iterable[str]) -> str:
    """Wrap sentences for the terminal, each as an item of a list."""
    return "\n".join(fill(each, _WIDTH, initial_indent="- ", subsequent_indent="  ") for each in sentences)


def draw_band(axes: Any, rows: Sequence[Row], over: str, name: str, colour: str, label: str, style: str = "-") -> None:
    """Draw the means of a column with their 95 % intervals; rows without a mean are left out."""
    known = [row for row in rows if row[name] is not None]
    places = [row[over] for row in known]
    axes.plot(places, [row[name] for row in known], style, color=colour, lw=1.6, label=label)
    ends = [[row[f"{name}_{end}"] for row in known] for end in ("low", "high")]
    axes.fill_between(places, *ends, color=colour, alpha=0.16, lw=0)


def clean(axes: Any) -> None:
    """Leave out the frame's upper and right side and draw a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
