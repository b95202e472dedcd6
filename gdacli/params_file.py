"""Changes to a project's `params.yaml` that keep its comments and the rest of its text."""

import io
from pathlib import Path
from typing import Any, cast

from gdacli.artifacts import write_text
from gdacli.errors import GdaError


def add_arm(path: Path, name: str, arm: dict[str, Any]) -> bool:
    """Add an arm to `arms` and to `compare.arms`, whole or not at all.

    Args:
        path: of a valid `params.yaml`.
        name: of the arm.
        arm: its entry.

    Returns:
        whether the file was changed; it was not if it holds both already.

    Raises:
        GdaError: there is another arm of this name; one that adds the same, whatever it chooses of it or how it trains,
            is no other.
    """
    text = with_arm(path, name, arm)
    if text is not None:
        write_text(path, text)
    return text is not None


def with_arm(path: Path, name: str, arm: dict[str, Any]) -> str | None:
    """Return the text that `add_arm` writes; None if the file holds the arm already.

    Args:
        path, name, arm: see `add_arm`.

    Raises:
        GdaError: there is another arm of this name.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 2**20
    yaml.representer.add_representer(type(None), lambda own, _: own.represent_scalar("tag:yaml.org,2002:null", "null"))
    text = path.read_text(encoding="utf-8")
    values = yaml.load(text)
    told = {key: value for key, value in arm.items() if key != "train"}
    present = values["arms"].get(name)
    if present is not None and told != {key: present.get(key) for key in told}:
        raise GdaError(f"{path}: there is another arm {name!r}: choose a name with --arm, or remove that arm")
    if present is not None and name in values["compare"]["arms"]:
        return None
    if present is None:
        entry = CommentedMap(arm)
        entry.fa.set_flow_style()
        line = io.StringIO()
        yaml.dump({name: entry}, line)
        values = yaml.load(_with_last_arm(text, line.getvalue()))
        if name not in values["arms"]:  # they stand in braces
            values["arms"][name] = entry
    if name not in values["compare"]["arms"]:
        values["compare"]["arms"].append(name)
    written = io.StringIO()
    yaml.dump(values, written)
    return written.getvalue()


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
