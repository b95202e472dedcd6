"""The command that advises."""

import os
from pathlib import Path

from gdacli.invocation import WAIT_BRIEFLY, enter, guard, show
from gdacli.options import AsJson, Debug, Directory, Overrides


def advise(
    overrides: Overrides = None, as_json: AsJson = False, debug: Debug = False, directory: Directory = Path()
) -> None:
    """Say what the project's images are worth, before and after generation, and what to try next; writes nothing.

    Example: `gdacli advise`
    """

    def work() -> None:
        os.environ.setdefault(*WAIT_BRIEFLY)
        from gdacli.advice_page import render_text, to_json
        from gdacli.params import load_params
        from gdacli.stages import advise as stage

        enter(directory)
        figures = stage.run(load_params(Path(), overrides or ()))
        show(to_json(figures), lambda found: render_text(figures), as_json)

    guard(work, debug)
