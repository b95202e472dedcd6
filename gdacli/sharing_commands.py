"""The commands that bring pools from elsewhere into a project, and share its own."""

from pathlib import Path
from typing import Annotated

import typer

from gdacli.invocation import run_stage
from gdacli.options import AsJson, Debug, Directory, Overrides

PoolArm = Annotated[str | None, typer.Option("--arm", help="Of the arm in params.yaml; the pool's when left out.")]


def import_pool(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Images (<class>/<image>), tables or shards.")],
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
