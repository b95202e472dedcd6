"""`gdacli theory NAME`: the papers' analyses as programs that need no project."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gdacli.invocation import enter, guard, show
from gdacli.options import AsJson, Debug, Directory

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


@theory.command()
def gmm(
    m: Annotated[
        int | None, typer.Option("--m", min=4, max=10_000_000, help="Train images, both classes together; with --d.")
    ] = None,
    d: Annotated[int | None, typer.Option("--d", min=1, max=8192, help="Dimension of the features; with --m.")] = None,
    gammas: Annotated[
        str, typer.Option(help="Generated images for each real one, separated by commas; 0 is always among them.")
    ] = "0,1,2,5,10,20,50,100",
    sigma: Annotated[
        float, typer.Option(min=0.05, max=20, help="Spread within a class; class means are 2 apart.")
    ] = 0.6,
    repeats: Annotated[int, typer.Option(min=2, max=1_000_000, help="Train sets that are drawn.")] = 1000,
    seed: Seed = 0,
    output: Output = Path("theory"),
    as_json: AsJson = False,
    debug: Debug = False,
    directory: Directory = Path(),
) -> None:
    """Show what a generator fitted on the same points does to the generalisation gap and to the test error.

    Two Gaussian classes and a linear model. Without --m and --d all the paper's grids and sweeps are run.

    Example: `gdacli theory gmm --m 200 --d 50 --gammas 0,1,10`
    """

    def program() -> "Outcome":
        from gdacli.theory import gaussian_mixture_program

        return gaussian_mixture_program.run(m, d, gammas, sigma, repeats, seed)

    run_program(program, output, as_json, debug, directory)
