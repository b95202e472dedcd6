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
        from gdacli.theory.outcome import require_folder, write_outcome

        require_folder(output)
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


@theory.command("two-layer")
def two_layer(
    k: Annotated[int, typer.Option("--k", min=2, max=20, help="Examples per slow-learnable one, with copies.")] = 5,
    alpha: Annotated[float, typer.Option(min=0, max=1, help="Share of examples with the fast feature.")] = 0.9,
    beta_e: Annotated[float, typer.Option(min=0.01, max=10, help="Strength of the fast-learnable feature.")] = 1.0,
    beta_d: Annotated[float, typer.Option(min=0.01, max=10, help="Strength of the slow-learnable feature.")] = 0.2,
    num_examples: Annotated[int, typer.Option(min=10, max=1000, help="N, before augmentation.")] = 100,
    dimension: Annotated[int, typer.Option(min=3, max=20_000, help="d, of a patch.")] = 300,
    num_filters: Annotated[int, typer.Option(min=1, max=200, help="J, of the network.")] = 10,
    learning_rate: Annotated[float, typer.Option(min=1e-6, max=1000, help="Of the full-batch steps.")] = 1.0,
    rho: Annotated[float, typer.Option(min=1e-9, max=10, help="SAM's radius.")] = 0.05,
    noise_sd: Annotated[float, typer.Option(min=0.01, max=100, help="sigma_p, of the noise patches.")] = 1.5,
    generated_noise_sd: Annotated[
        float | None,
        typer.Option(min=0.01, max=100, help="The same of generated examples.", show_default="--noise-sd"),
    ] = None,
    iterations: Annotated[int, typer.Option(min=1, max=100_000, help="Steps of each arm.")] = 200,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="B of Theorem 4.3.", show_default="an allowed one near N / 4")
    ] = None,
    repeats: Annotated[int, typer.Option(min=3, max=1000, help="Data sets and initial weights.")] = 32,
    seed: Seed = 0,
    output: Output = Path("theory"),
    as_json: AsJson = False,
    debug: Debug = False,
    directory: Directory = Path(),
) -> None:
    """Show what SAM, upsampling and generation learn of two features and of noise, and check the paper's theorems.

    Example: `gdacli theory two-layer --beta-d 0.8`
    """

    def program() -> "Outcome":
        from gdacli.theory import two_layer
        from gdacli.theory.two_layer_setting import Setting

        setting = Setting(
            k=k,
            alpha=alpha,
            beta_e=beta_e,
            beta_d=beta_d,
            num_examples=num_examples,
            dimension=dimension,
            num_filters=num_filters,
            learning_rate=learning_rate,
            rho=rho,
            noise_sd=noise_sd,
            generated_noise_sd=noise_sd if generated_noise_sd is None else generated_noise_sd,
            iterations=iterations,
            repeats=repeats,
            seed=seed,
        )
        return two_layer.run(setting, batch_size)

    run_program(program, output, as_json, debug, directory)


@theory.command()
def selection(
    alpha: Annotated[float, typer.Option(min=0, max=1, help="Share of the examples that are fast-learnable.")] = 0.7,
    beta_d: Annotated[float, typer.Option(min=0, max=10, help="Strength of the slow-learnable feature.")] = 0.5,
    beta_e: Annotated[float, typer.Option(min=0.01, max=10, help="Strength of the fast-learnable feature.")] = 1.0,
    noise_sd: Annotated[float, typer.Option(min=0, max=100, help="Length of an example's noise, about.")] = 2.0,
    num_examples: Annotated[int, typer.Option(min=8, max=5000, help="Training examples.")] = 200,
    dimension: Annotated[int, typer.Option(min=3, max=5000, help="Of a patch.")] = 100,
    num_filters: Annotated[int, typer.Option(min=1, max=500, help="Of the network.")] = 10,
    initial_sd: Annotated[float, typer.Option(min=1e-9, max=10, help="Spread of the first weights.")] = 0.2,
    learning_rate: Annotated[float, typer.Option(min=1e-6, max=1000, help="Of gradient descent.")] = 0.5,
    epochs: Annotated[int, typer.Option(min=8, max=100_000, help="To train; one full-batch update each.")] = 300,
    num_recorded: Annotated[int, typer.Option(min=2, max=1000, help="After how many of them to select, at most.")] = 11,
    vary: Annotated[
        list[str],
        typer.Option(metavar="NAME=VALUE", help="Run again with another alpha, beta_d or noise_sd; may be repeated."),
    ] = ["noise_sd=1", "noise_sd=3", "beta_d=0.8", "alpha=0.9"],  # noqa: B006
    level: Annotated[float, typer.Option(min=0, max=1, help="F1 from which a choice counts as good.")] = 0.8,
    repeats: Annotated[int, typer.Option(min=2, max=1000, help="Data sets and first weights.")] = 20,
    seed: Seed = 0,
    output: Output = Path("theory"),
    as_json: AsJson = False,
    debug: Debug = False,
    directory: Directory = Path(),
) -> None:
    """Find out how well early outputs tell the examples that are learned late, as the separation epoch moves.

    Example: `gdacli theory selection --noise-sd 3 --repeats 40`
    """

    def program() -> "Outcome":
        from gdacli.theory import early_selection
        from gdacli.theory.separation import Setting

        return early_selection.run(
            setting=Setting(
                num_examples=num_examples,
                dimension=dimension,
                num_filters=num_filters,
                alpha=alpha,
                beta_e=beta_e,
                beta_d=beta_d,
                noise_sd=noise_sd,
                initial_sd=initial_sd,
                learning_rate=learning_rate,
                epochs=epochs,
            ),
            vary=vary,
            num_recorded=num_recorded,
            level=level,
            repeats=repeats,
            seed=seed,
        )

    run_program(program, output, as_json, debug, directory)


@theory.command()
def mixup(
    rare_share: Annotated[float, typer.Option(min=0, max=1, help="Share of the examples with a rare feature.")] = 0.1,
    distractor: Annotated[
        float, typer.Option(min=0, max=10, help="Strength of the feature noise: a common feature of a random class.")
    ] = 0.5,
    noise_sd: Annotated[float, typer.Option(min=0, max=100, help="Length of an example's noise, about.")] = 3.0,
    aligned: Annotated[bool, typer.Option(help="The feature is at the same place in every example.")] = False,
    num_examples: Annotated[int, typer.Option(min=4, max=5000, help="Training examples.")] = 100,
    dimension: Annotated[int, typer.Option(min=5, max=5000, help="Of a patch.")] = 400,
    num_filters: Annotated[int, typer.Option(min=2, max=500, help="Of the network, half of them per class.")] = 10,
    initial_sd: Annotated[float, typer.Option(min=1e-9, max=10, help="Spread of the first weights.")] = 0.01,
    learning_rate: Annotated[float, typer.Option(min=1e-6, max=1000, help="Of gradient descent.")] = 1.0,
    updates: Annotated[int, typer.Option(min=2, max=100_000, help="Full-batch updates of every arm.")] = 1500,
    alpha: Annotated[float, typer.Option(min=1e-3, max=1000, help="Beta(alpha, alpha) draws an input's weight.")] = 1.0,
    label_alpha: Annotated[
        float,
        typer.Option(
            min=1e-3, max=1000, help="Beta(label_alpha, label_alpha) draws a label's, in the arm of two weights."
        ),
    ] = 1.0,
    stop: Annotated[
        list[int] | None,
        typer.Option(
            metavar="UPDATE",
            min=1,
            help="Last update with mixup of an arm; may be repeated.",
            show_default="1/15, 4/15 and 2/3 of --updates",
        ),
    ] = None,
    num_recorded: Annotated[int, typer.Option(min=2, max=1000, help="After how many updates to test, at most.")] = 30,
    level: Annotated[
        float, typer.Option(min=0, max=100, help="Test error on rare examples in %, from which they are learned.")
    ] = 25.0,
    repeats: Annotated[int, typer.Option(min=2, max=1000, help="Data sets and first weights.")] = 10,
    seed: Seed = 0,
    output: Output = Path("theory"),
    as_json: AsJson = False,
    debug: Debug = False,
    directory: Directory = Path(),
) -> None:
    """Find out when mixup learns rare features, and what stopping it early or weighting labels apart changes.

    Example: `gdacli theory mixup --rare-share 0.2 --stop 200 --stop 800`
    """

    def program() -> "Outcome":
        from gdacli.theory import mixup_benefit

        return mixup_benefit.run(
            setting=mixup_benefit.Setting(
                num_examples=num_examples,
                dimension=dimension,
                num_filters=num_filters,
                rare_share=rare_share,
                distractor=distractor,
                noise_sd=noise_sd,
                aligned=aligned,
                initial_sd=initial_sd,
                learning_rate=learning_rate,
                updates=updates,
                alpha=alpha,
                label_alpha=label_alpha,
            ),
            stops=stop,
            num_recorded=num_recorded,
            level=level,
            repeats=repeats,
            seed=seed,
        )

    run_program(program, output, as_json, debug, directory)
