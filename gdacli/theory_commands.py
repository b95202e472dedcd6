"""`gdacli theory NAME`: the papers' analyses as programs that need no project."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gdacli.invocation import enter, guard, show

if TYPE_CHECKING:
    from gdacli.theory.outcome import Outcome

theory = typer.Typer(no_args_is_help=True, help="What augmentation can and cannot do: the papers' analyses, runnable.")

Output = Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for the JSON, CSV and PNG files.")]
Seed = Annotated[int, typer.Option(min=0, help="Of all that is random.")]


def run_program(program: Callable[[], "Outcome"], output: Path, as_json: bool, debug: bool, directory: Path) -> None:
    """Run a program, write its files and print what it found."""

    def work() -> None:
        enter(directory)
        from gdacli.theory.outcome import write_outcome

        outcome = program()
        result = write_outcome(outcome, output)
        show(result, lambda found: f"{outcome.summary}\n\nwrote {', '.join(found['files'])}", as_json)

    guard(work, debug)
