"""How a command runs: its folder and parameters, the stage, its figures, its result, and errors in one line."""

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import typer

from gdacli.artifacts import write_json
from gdacli.errors import GdaError, one_line
from gdacli.paths import METRICS
from gdacli.processes import is_first_process, num_processes
from gdacli.redaction import redact

EXIT_ERROR, EXIT_INTERRUPTED, EXIT_TERMINATED = 1, 130, 143

# Threads that wait for each other spin for microseconds before they sleep, not for milliseconds (it must be set before
# torch is imported). On two cores two small trainings at once then took 2.8 times as long as one, against 4 to over
# 20 times with the default; one alone is as fast. Not spinning at all makes one alone half as fast.
WAIT_BRIEFLY = ("GOMP_SPINCOUNT", "1000")


def run_stage(
    name: str,
    overrides: list[str] | None,
    as_json: bool,
    debug: bool,
    directory: Path,
    versioned: bool = True,
    **arguments: Any,
) -> None:
    """Run the stage of this name in a folder, write its figures and print its result.

    Args:
        name: of a module in `gdacli.stages`.
        overrides: KEY=VALUE of `params.yaml`.
        as_json: print the result, not its summary.
        debug: print the traceback of an error.
        directory: the project.
        versioned: it makes an artifact: the stage's version must be the project's, and its figures are kept.
        arguments: of the stage's `run`, besides the parameters.
    """

    def work() -> None:
        os.environ.setdefault(*WAIT_BRIEFLY)
        from gdacli.params import load_params

        if num_processes() > 1 and name != "train":
            raise GdaError(f"gdacli {name} runs in one process: start it without torchrun, which is for `gdacli train`")
        enter(directory)
        params = load_params(Path(), overrides or ())
        stage = import_module(f"gdacli.stages.{name}")
        result = run_versioned(name, params, **arguments) if versioned else stage.run(params, **arguments)
        if not is_first_process():
            return
        show(result, stage.summary, as_json)

    guard(work, debug)


def run_versioned(name: str, params: Any, **arguments: Any) -> dict[str, Any]:
    """Run a stage that makes an artifact in this folder and keep its figures; returns its result.

    Args:
        name: of a module in `gdacli.stages`.
        params: of the project.
        arguments: of the stage's `run`, besides the parameters.

    Raises:
        GdaError: the project was made for another version of the stage.
    """
    stage = import_module(f"gdacli.stages.{name}")
    _check_version(name, stage.VERSION, params.versions)
    start = time.monotonic()
    result = stage.run(params, **arguments)
    if is_first_process() and "part" not in result:
        _write_metrics(name, result, time.monotonic() - start)
    return result


def enter(directory: Path) -> None:
    """Go to a folder."""
    if not directory.is_dir():
        raise GdaError(f"-C {directory}: there is no such folder")
    os.chdir(directory)


def _check_version(name: str, version: int, versions: dict[str, int] | None) -> None:
    if versions is not None and versions.get(name) != version:
        raise GdaError(
            f"params.yaml: versions.{name}: found {versions.get(name)}, this gdacli's {name} is version {version} and "
            "gives other results: run `gdacli init --update` to take it over, or install the gdacli of the project"
        )


def _write_metrics(name: str, result: dict[str, Any], seconds: float) -> None:
    """Write what was made to `data/metrics`, and how it went (`run`: seconds, reuse) to `data/metrics/runs`.

    DVC tracks the first alone: a stage run by hand with the same settings then changes nothing for it.
    """
    parts = {"train": "runs", "mix": "arms"}
    named = (
        {f"{name}/{key}": figures for key, figures in result[parts[name]].items()} if name in parts else {name: result}
    )
    for file, figures in named.items():
        run = {"seconds": round(seconds, 3), **figures.get("run", {})}
        write_json(METRICS / f"{file}.json", {key: value for key, value in figures.items() if key != "run"})
        write_json(METRICS / "runs" / f"{file}.json", run)


def show(result: dict[str, Any], summary: Callable[[dict[str, Any]], str], as_json: bool) -> None:
    """Print a result, without secrets; a reader that has seen enough, such as `head`, is no error."""
    try:
        print(redact(json.dumps(result, indent=2, ensure_ascii=False) if as_json else summary(result)), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it ends


def guard(work: Callable[[], None], debug: bool) -> None:
    """Do the work of a command; an error is a line and an exit code, and holds no secret."""
    try:
        work()
    except (KeyboardInterrupt, _Terminated) as stop:
        code = EXIT_TERMINATED if isinstance(stop, _Terminated) else EXIT_INTERRUPTED
        _fail(
            "interrupted: nothing half-written is left, finished shards and saved states are kept; run it again", code
        )
    except Exception as error:
        if debug:
            print(redact(traceback.format_exc()), end="", file=sys.stderr)
        _fail(one_line(error), EXIT_ERROR)


def _fail(message: str, code: int) -> None:
    print(f"error: {redact(message)}", file=sys.stderr, flush=True)
    raise typer.Exit(code)


class _Terminated(BaseException):
    """SIGTERM, which a scheduler or `kill` sends: ends like Ctrl-C."""


def _on_sigterm(number: int, frame: object) -> None:
    raise _Terminated


def end_on_sigterm() -> None:
    """Let SIGTERM end a command as Ctrl-C does."""
    signal.signal(signal.SIGTERM, _on_sigterm)
