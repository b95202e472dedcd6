"""What a theory program found, and its files: figures as JSON, rows as CSV, and a plot."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gdacli.artifacts import new_file, write_json, write_text
from gdacli.errors import GdaError

Row = Mapping[str, str | int | float | bool | None]


@dataclass(frozen=True)
class Outcome:
    """What a program found."""

    program: str
    """Its name, which its files are named after."""
    settings: dict[str, Any]
    """All that determines the figures, the seed included."""
    figures: dict[str, Any]
    """What is found, as JSON holds it; not named `settings` or `files`, which stand beside it there."""
    rows: dict[str, Sequence[Row]]
    """The tables, by the name that is added to the file's; "" for none. Rows of one table have the same columns.

    A table without rows is no file.
    """
    plot: Any
    """A matplotlib figure."""
    summary: str
    """What a person reads on the terminal: a small table, and a sentence on what it says."""

    def __post_init__(self) -> None:
        if taken := {"settings", "files"} & set(self.figures):
            raise ValueError(f"found figures named {', '.join(sorted(taken))}: the JSON holds something else there")


def require_folder(folder: Path) -> None:
    """Find out whether files can be written there, before anything is computed; leave nothing there.

    Raises:
        GdaError: the folder cannot be made, as where a file is in its way, or may not be written to.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GdaError(
            f"--output: found {folder}, which cannot be made ({error.strerror}): name another one"
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise GdaError(f"--output: found {folder}, which may not be written to: name another one")
    with suppress(OSError):  # another command has put something there meanwhile
        for each in missing:
            each.rmdir()


def write_outcome(outcome: Outcome, folder: Path) -> dict[str, Any]:
    """Write `<program>.json`, `<program>[-<table>].csv` and `<program>.png`, each whole or not at all.

    They are made before the first is written, and a table that has no rows now is removed: what lies there after an
    interruption or another run does not mix with this one.

    Returns:
        settings, figures, and the names of the files.
    """
    picture = io.BytesIO()
    outcome.plot.savefig(picture, format="png", dpi=150, metadata={"Software": None})
    tables = {
        folder / f"{'-'.join(filter(None, (outcome.program, name)))}.csv": rows for name, rows in outcome.rows.items()
    }
    texts = {file: _csv(rows) for file, rows in tables.items() if rows}
    result = {"settings": outcome.settings, **outcome.figures}
    files = [folder / f"{outcome.program}.json", *texts, folder / f"{outcome.program}.png"]
    write_json(files[0], result)
    for file in tables:
        if file in texts:
            write_text(file, texts[file])
        else:
            file.unlink(missing_ok=True)
    with new_file(files[-1]) as temporary:
        temporary.write_bytes(picture.getvalue())
    return {**result, "files": [str(file) for file in files]}


def _csv(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
