"""Changes to a project's `params.yaml` that keep its comments and the rest of its text."""

import io
from pathlib import Path
from typing import Any

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
    values = yaml.load(path.read_text(encoding="utf-8"))
    arms, compared = values["arms"], values["compare"]["arms"]
    told = {key: value for key, value in arm.items() if key != "train"}
    if name in arms and told != {key: arms[name].get(key) for key in told}:
        raise GdaError(f"{path}: there is another arm {name!r}: choose a name with --arm, or remove that arm")
    if name in arms and name in compared:
        return None
    if name not in arms:
        entry = CommentedMap(arm)
        entry.fa.set_flow_style()
        arms[name] = entry
    if name not in compared:
        compared.append(name)
    text = io.StringIO()
    yaml.dump(values, text)
    return text.getvalue()
