"""Options that many commands have."""

from pathlib import Path
from typing import Annotated

import typer

Overrides = Annotated[
    list[str] | None,
    typer.Option("-S", "--set", metavar="KEY=VALUE", help="Override a value of params.yaml, as in `dvc exp run -S`."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Directory = Annotated[Path, typer.Option("-C", "--directory", metavar="DIR", help="Go to this folder first.")]
ArmName = Annotated[str | None, typer.Option("--arm", help="One arm; all of compare.arms when left out.")]
SeedOption = Annotated[int | None, typer.Option("--seed", help="One seed; all of compare.seeds when left out.")]
