"""Changes to a project's `params.yaml` that keep its comments and the rest of its text."""

import io
import re
from pathlib import Path
from typing import Any, cast

from gdacli.arms import POOL_NAME
from gdacli.artifacts import write_text
from gdacli.errors import GdaError


def check_arm(path: Path, name: str, arm: dict[str, Any]) -> None:
    """Check that an arm can be added to `params.yaml`.

    Raises:
        GdaError: its name is none, or another arm has it.
    """
    import yaml

    if not re.fullmatch(POOL_NAME, name):
        raise GdaError(f"--arm: found {name!r}, allowed: letters a to z, digits and _")
    present = yaml.safe_load(path.read_text(encoding="utf-8"))["arms"].get(name)
    if present is not None and present != arm:
        raise GdaError(f"{path}: there is another arm {name!r}: choose a name with --arm, or remove that arm")


def add_arm(path: Path, name: str, arm: dict[str, Any]) -> bool:
    """Add an arm to `arms` and to `compare.arms`, whole or not at all.

    Args:
        path: of a valid `params.yaml`.
        name: of the arm.
        arm: its entry.

    Returns:
        whether the file was changed; it was not if it holds both already.

    Raises:
        GdaError: its name is none, or another arm has it.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap

    check_arm(path, name, arm)

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 2**20
    yaml.representer.add_representer(type(None), lambda own, _: own.represent_scalar("tag:yaml.org,2002:null", "null"))
    text = path.read_text(encoding="utf-8")
    values = yaml.load(text)
    if name in values["arms"] and name in values["compare"]["arms"]:
        return False
    if name not in values["arms"]:
        entry = CommentedMap(arm)
        entry.fa.set_flow_style()
        written = io.StringIO()
        yaml.dump({name: entry}, written)
        values = yaml.load(_with_last_arm(text, written.getvalue()))
    if name not in values["arms"]:  # they stand in braces
        values["arms"][name] = entry
    if name not in values["compare"]["arms"]:
        values["compare"]["arms"].append(name)
    written = io.StringIO()
    yaml.dump(values, written)
    write_text(path, written.getvalue())
    return True


def _with_last_arm(text: str, line: str) -> str:
    """Put a line below the last arm; ruamel would put it below the comments that stand above the next section.

    The text is given back as it is where the arms stand in braces.
    """
    import yaml

    sections = {key.value: value for key, value in cast(yaml.MappingNode, yaml.compose(text)).value}
    arms = sections["arms"]
    if arms.flow_style or not arms.value:
        return text
    last = arms.value[-1][1]
    while isinstance(last, yaml.CollectionNode) and not last.flow_style and last.value:
        last = last.value[-1] if isinstance(last, yaml.SequenceNode) else last.value[-1][1]
    lines = text.splitlines(keepends=True)
    end = last.end_mark.line + 1
    above = "".join(lines[:end])
    above += "" if above.endswith("\n") else "\n"
    return above + " " * arms.value[-1][0].start_mark.column + line + "".join(lines[end:])
