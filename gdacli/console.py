"""Progress on stderr: a bar with the time left on a terminal, plain lines when piped."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from gdacli.processes import is_first_process
from gdacli.redaction import redact

_SECONDS_BETWEEN_LINES = 5.0

Advance = Callable[..., None]
"""`advance(count=1, note="", free=False)`: `count` units are done; `note` says how it goes (a loss, a name).

`free` ones took no time, as those that were made before: the time that is left does not reckon with them.
"""


def say(message: str) -> None:
    """Print one line to stderr, without secrets, in the first process alone where there are several."""
    if is_first_process():
        print(redact(message), file=sys.stderr, flush=True)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return rows as aligned plain text: the first column to the left, numbers to the right."""
    cells = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = []
    for row in cells:
        first, *others = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        lines.append("  ".join([first.strip().ljust(widths[0]), *others]))
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


@contextmanager
def progress(title: str, total: int, unit: str) -> Iterator[Advance]:
    """Show the progress of a step of `total` units; yields the function to call after each piece of work."""
    if sys.stderr.isatty() and is_first_process():
        with _bar(title, total, unit) as advance:
            yield advance
    else:
        yield _lines(title, total, unit)


@contextmanager
def _bar(title: str, total: int, unit: str) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total, note="")

        def advance(count: int = 1, note: str = "", free: bool = False) -> None:
            if free:  # the bar forgets how fast it was
                bar.reset(task, completed=int(bar.tasks[task].completed) + count)
            else:
                bar.advance(task, count)
            if note:
                bar.update(task, note=note)

        yield advance


def _lines(title: str, total: int, unit: str) -> Advance:
    start = last = time.monotonic()
    done = 0
    first: tuple[float, int] | None = None
    """When the first units that took time were done, and how many were done then: what came before is start-up."""

    def advance(count: int = 1, note: str = "", free: bool = False) -> None:
        nonlocal done, last, first
        done += count
        now = time.monotonic()
        if free:
            first = first and (first[0], first[1] + count)
        elif first is None:
            first = now, done
        if done < total and now - last < _SECONDS_BETWEEN_LINES:
            return
        last = now
        if done == total:
            timing = f"{now - start:.1f} s"
        elif first is None or done == first[1]:
            timing = "..."
        else:
            timing = f"{(now - first[0]) / (done - first[1]) * (total - done):.0f} s left"
        say(f"{title}: {done}/{total} {unit}, {timing}" + (f", {note}" if note else ""))

    return advance
