"""The commands. Each reads `params.yaml`, runs a stage, and prints its result."""

import gc
from pathlib import Path
from typing import Annotated, Literal

import typer

from gdacli import __version__
from gdacli.advice_command import advise
from gdacli.errors import GdaError
from gdacli.export_commands import export, predict
from gdacli.invocation import end_on_sigterm, enter, guard, run_stage, show
from gdacli.options import ArmName, AsJson, Debug, Directory, Overrides, SeedOption
from gdacli.paths import PREVIEW
from gdacli.sharing_commands import import_pool, pull, push
from gdacli.theory_commands import theory

app = typer.Typer(
    name="gdacli",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    """Find late-learned images, generate faithful variants of just those, train, and prove whether it helped."""


@app.command()
def prepare(
    overrides: Overrides = None, as_json: AsJson = False, debug: Debug = False, directory: Directory = Path()
) -> None:
    """Turn the source (digits, an image folder, a table, a Hub id, shards) into WebDataset shards with fixed splits.

    Example: `gdacli prepare -S data.image_size=32`
    """
    run_stage("prepare", overrides, as_json, debug, directory)


@app.command()
def probe(
    overrides: Overrides = None, as_json: AsJson = False, debug: Debug = False, directory: Directory = Path()
) -> None:
    """Train for a few epochs on the original images and record the logits of each after every epoch.

    Example: `gdacli probe -S probe.epochs=4`
    """
    run_stage("probe", overrides, as_json, debug, directory)


@app.command()
def select(
    overrides: Overrides = None, as_json: AsJson = False, debug: Debug = False, directory: Directory = Path()
) -> None:
    """Find the late-learned images: score and choose by every strategy that the compared arms use.

    Example: `gdacli select -S select.share=0.3`
    """
    run_stage("select", overrides, as_json, debug, directory)


@app.command()
def fit(
    overrides: Overrides = None, as_json: AsJson = False, debug: Debug = False, directory: Directory = Path()
) -> None:
    """Train the generator on the train split alone; pin a pretrained one, or fine-tune it.

    Example: `gdacli fit -S fit.updates=5000`
    """
    run_stage("fit", overrides, as_json, debug, directory)


@app.command()
def plan(
    price_per_hour: Annotated[
        float, typer.Option(min=0, help="Price of an hour of one device, to estimate the cost.")
    ] = 0.0,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
    directory: Directory = Path(),
) -> None:
    """Say what `generate` would make, and what time, disk and money it takes, from a batch measured on this device.

    Example: `gdacli plan --price-per-hour 2.50`
    """
    run_stage("plan", overrides, as_json, debug, directory, versioned=False, price_per_hour=price_per_hour)


@app.command()
def preview(
    num_sources: Annotated[
        int, typer.Option("-n", "--num-sources", min=1, help="How many source images; of samples, how many classes.")
    ] = 8,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for preview.png and preview.html.")
    ] = PREVIEW,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
    directory: Directory = Path(),
) -> None:
    """Make variants of a few selected images at every strength, or samples of each class, and show them in a grid.

    Example: `gdacli preview -n 8 -S generate.guidance_scale=2`
    """
    run_stage("preview", overrides, as_json, debug, directory, versioned=False, num_sources=num_sources, output=output)


@app.command()
def generate(
    part: Annotated[
        str | None, typer.Option(metavar="I/N", help="Make part I of N alone (a SLURM array); then --merge.")
    ] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Publish what the parts have made; make nothing.")] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
    directory: Directory = Path(),
) -> None:
    """Make the pool: every synthetic image that the compared arms need, each once; images made before are reused.

    Example: `gdacli generate -S generate.guidance_scale=2`
    """
    if part is not None and merge:
        raise typer.BadParameter("--part and --merge exclude each other")
    run_stage("generate", overrides, as_json, debug, directory, part=_part(part), merge=merge)


@app.command()
def regenerate(
    key: Annotated[str, typer.Option(help="Key of an image of the pool, such as cat-1_s0500_v0.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the image to this file.")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
    directory: Directory = Path(),
) -> None:
    """Make one image of the pool again from what its manifest says, and compare it with the one in the shard.

    Example: `gdacli regenerate --key cat-1_s0500_v0 -o cat.png`
    """
    run_stage("regenerate", None, as_json, debug, directory, versioned=False, key=key, output=output)


@app.command()
def mix(
    arm: ArmName = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
    directory: Directory = Path(),
) -> None:
    """Write an arm down: the list of samples to train on.

    Example: `gdacli mix --arm targeted`
    """
    run_stage("mix", overrides, as_json, debug, directory, arm=arm)


@app.command()
def train(
    arm: ArmName = None,
    seed: SeedOption = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
    directory: Directory = Path(),
) -> None:
    """Train a classifier on an arm's mix; one that was killed goes on.

    Example: `gdacli train --arm targeted --seed 0`
    """
    run_stage("train", overrides, as_json, debug, directory, arm=arm, seed=seed)


@app.command()
def evaluate(
    overrides: Overrides = None, as_json: AsJson = False, debug: Debug = False, directory: Directory = Path()
) -> None:
    """Test every compared arm, say with statistics whether it helped, and write the report.

    Example: `gdacli evaluate --json`
    """
    run_stage("evaluate", overrides, as_json, debug, directory)


@app.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="[REVISION:]ARM[-SEED], a REVISION, or workspace.")],
    b: Annotated[str, typer.Argument(metavar="B", help="What it is compared with, named the same way.")],
    as_json: AsJson = False,
    debug: Debug = False,
    directory: Directory = Path(),
) -> None:
    """Compare two arms, runs or revisions, paired by seed and test image: A minus B, how sure, and what it took.

    A revision is a commit, branch or tag, or an experiment of DVC; a bare one stands for every arm that both have.

    Example: `gdacli compare targeted original`, `gdacli compare main workspace`
    """

    def work() -> None:
        from gdacli.stages import compare as stage

        enter(directory)
        show(stage.run(a, b), stage.summary, as_json)

    guard(work, debug)


@app.command()
def sweep(
    name: Annotated[
        Literal["strengths", "k", "selection", "lambda", "sampled", "stability"], typer.Argument(help="What varies.")
    ],
    values: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Strengths, ks, strategies, weights, or times the train images; the papers' when left out.",
        ),
    ] = None,
    on: Annotated[
        Literal["validation", "test"] | None,
        typer.Option(help="Split to compare on: validation (the default) to choose, test to reproduce a table."),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Of the trainings, compare.seeds when left out; of stability's probes."),
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
    directory: Directory = Path(),
) -> None:
    """Vary one thing and name the best: strengths, k, the selection, an objective's weight, how many images.

    Or say how stable the selection is.

    Example: `gdacli sweep strengths --values 0.3,0.5,0.7`
    """
    if on is not None and name == "stability":
        raise typer.BadParameter("--on does not go with stability, which is of the training images")

    def work() -> None:
        from gdacli import sweeping

        enter(directory)
        show(sweeping.run(name, values, on or "validation", seeds, overrides or []), sweeping.summary, as_json)

    guard(work, debug)


@app.command()
def clean(as_json: AsJson = False, debug: Debug = False, directory: Directory = Path()) -> None:
    """Remove the mixes, trainings and figures of arms and seeds that `compare` no longer lists.

    Example: `gdacli clean`
    """
    run_stage("clean", None, as_json, debug, directory, versioned=False)


@app.command()
def init(
    project: Annotated[Path | None, typer.Argument(metavar="DIR", help="The new project's folder.")] = None,
    source: Annotated[str, typer.Option(help="digits, a folder of images, tables or shards, or a Hub id.")] = "digits",
    preset: Annotated[
        str,
        typer.Option(
            help="Recipe: cpu, or the papers': cifar10, cifar100, tiny_imagenet, flowers102, aircraft, cars, birds, "
            "dtd, pets; mgr has the objectives of meta generative regularization as arms."
        ),
    ] = "cpu",
    architecture: Annotated[
        str | None,
        typer.Option(
            help="Another network, with its learning rate and rho: preact_resnet18, preact_resnet18_narrow, convnet, "
            "resnet18, vgg19, densenet121, vit, convnext_tiny, swin_tiny. The preset's own when left out."
        ),
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Take over this gdacli's stage versions; keep the rest.")
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
    directory: Directory = Path(),
) -> None:
    """Make a project for your own data: params.yaml, dvc.yaml, .gitignore, git and DVC.

    Example: `gdacli init shoes --source ~/photos/shoes --preset cifar10 --architecture swin_tiny`
    """

    def work() -> None:
        from gdacli.stages import init as stage

        enter(directory)
        result = stage.update(project or Path()) if update else stage.run(project, source, preset, architecture)
        show(result, stage.summary, as_json)

    guard(work, debug)


@app.command()
def verify(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FOLDER]...", help="Artifact folders; all of the project's when left out."),
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
    directory: Directory = Path(),
) -> None:
    """Compare every byte of artifacts with their checksums, and name each damaged file.

    Example: `gdacli verify data/synthetic`
    """

    def work() -> None:
        from gdacli.stages import verify as stage

        enter(directory)
        result = stage.run(folders or ())
        show(result, stage.summary, as_json)
        if result["damaged"]:
            raise GdaError(f"{len(result['damaged'])} damaged files: see above")

    guard(work, debug)


app.command()(push)
app.command()(pull)
app.command("import-pool")(import_pool)
app.command()(export)
app.command()(predict)
app.command()(advise)
app.add_typer(theory, name="theory")


def _part(text: str | None) -> tuple[int, int] | None:
    """Read `3/16`."""
    if text is None:
        return None
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise typer.BadParameter(f"--part {text}: expected I/N with 1 <= I <= N, such as 3/16")
    return int(number), int(count)


def main() -> None:
    """Run the command line."""
    # Importing torch and its like makes a million objects that live to the end: to look for cycles among them as often
    # as Python does by default takes a quarter of the time of a short command.
    gc.set_threshold(50_000, 20, 100)
    end_on_sigterm()
    app()
