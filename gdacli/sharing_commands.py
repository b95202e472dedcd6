"""The commands that share what a project made, and bring into it what others made."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from gdacli.invocation import run_stage
from gdacli.options import AsJson, Debug, Directory, Overrides

PoolArm = Annotated[str | None, typer.Option("--arm", help="Of the arm in params.yaml; the pool's when left out.")]


def push(
    repo_id: Annotated[str, typer.Option(metavar="USER/NAME", help="Repository of the dataset and of the model.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository that only its owners see.")] = False,
    what: Annotated[Literal["dataset", "model", "both"], typer.Option(help="What to share.")] = "dataset",
    arm: Annotated[
        str | None, typer.Option(help="Share this arm's images and model; the whole pool, the main arm's model.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the model; the first of compare.seeds when left out.")] = None,
    include_source: Annotated[
        bool, typer.Option("--include-source", help="Share the originals too; needs push.source_license.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write the folders; ask nothing of the Hub.")] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
    directory: Directory = Path(),
) -> None:
    """Share the pool, or the trained model, on the Hugging Face Hub; what is there already is not sent again.

    The token is that of HF_TOKEN, or of `hf auth login`. Licences stand in the section `push` of params.yaml.

    Example: `gdacli push --repo-id me/digits-augmented --dry-run`
    """
    shared: dict[str, Any] = {"what": what, "arm": arm, "seed": seed, "include_source": include_source}
    how: dict[str, Any] = {"repo_id": repo_id, "private": private, "dry_run": dry_run}
    run_stage("push", overrides, as_json, debug, directory, False, **shared, **how)


def pull(
    repo_id: Annotated[str, typer.Argument(metavar="REPO_ID", help="user/name of a dataset that `gdacli push` made.")],
    revision: Annotated[str | None, typer.Option(help="Its tag, branch or commit; the newest when left out.")] = None,
    name: Annotated[str | None, typer.Option(help="Of the pool in data/pools; the dataset's when left out.")] = None,
    arm: PoolArm = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
    directory: Directory = Path(),
) -> None:
    """Bring a shared pool into the project as an arm, to train on it without generating.

    Example: `gdacli pull anna/shoes-variants`
    """
    told = {"repo_id": repo_id, "revision": revision, "pool": name, "arm": arm}
    run_stage("pull", overrides, as_json, debug, directory, False, **told)


def import_pool(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Images (`<class>/<image>`), tables or shards.")],
    name: Annotated[str | None, typer.Option(help="Of the pool in data/pools; the folder's when left out.")] = None,
    arm: PoolArm = None,
    source_keys: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="Columns file and source_key: which train image each is a variant of."),
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
    directory: Directory = Path(),
) -> None:
    """Make an arm of synthetic images that any other tool made, to compare it on equal terms.

    Example: `gdacli import-pool ~/rival --name rival`
    """
    # Before the command goes to the project's folder.
    given = {"folder": folder.expanduser().absolute(), "source_keys": source_keys and source_keys.absolute()}
    run_stage("import_pool", overrides, as_json, debug, directory, False, pool=name, arm=arm, **given)
