"""What a theory program found, and its files: figures as JSON, rows as CSV, and a plot."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gdacli.artifacts import new_file, write_json, write_text

Row = Mapping[str, str | int | float | bool | None]


@dataclass(frozen=True)
class Outcome:
    """What a program found."""

    program: str
    """Its name, which its files are named after."""
    settings: dict[str, Any]
    """All that determines the figures, the seed included."""
    figures: dict[str, Any]
    """What is found, as JSON holds it."""
    rows: dict[str, Sequence[Row]]
    """The tables, by the name that is added to the file's; "" for none. Rows of one table have the same columns."""
    plot: Any
    """A matplotlib figure."""
    summary: str
    """What a person reads on the terminal: a small table, and a sentence on what it says."""


def write_outcome(outcome: Outcome, folder: Path) -> dict[str, Any]:
    """Write `<program>.json`, `<program>[-<table>].csv` and `<program>.png`, each whole or not at all.

    Returns:
        settings, figures, and the names of the files.
    """
    files = [folder / f"{outcome.program}.json"]
    write_json(files[0], {"settings": outcome.settings, **outcome.figures})
    for name, rows in outcome.rows.items():
        files.append(folder / f"{'-'.join(filter(None, (outcome.program, name)))}.csv")
        write_text(files[-1], _csv(rows))
    files.append(folder / f"{outcome.program}.png")
    with new_file(files[-1]) as temporary:
        outcome.plot.savefig(temporary, format="png", dpi=150, metadata={"Software": None})
    return {"settings": outcome.settings, **outcome.figures, "files": [str(file) for file in files]}


def _csv(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
