"""What is wrong with `params.yaml`, in one line made from the models themselves."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

FILE = "params.yaml"


def one_of(value: str, allowed: Iterable[str], prefix: str = "") -> str:
    """Return `value` if it is allowed.

    Raises:
        ValueError: it is not; the message lists what is, and the nearest.
    """
    if value not in allowed:
        close = difflib.get_close_matches(value, list(allowed), 1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise ValueError(f"{prefix}found {value!r}, allowed: {', '.join(allowed)}{hint}")
    return value


def explain(error: ValidationError, prefix: tuple[str, ...], model: type[BaseModel]) -> str:
    """Say the first error of a validation in one line: the key, what was found, what is allowed, what to do.

    Args:
        error: of pydantic.
        prefix: where in the file the validated values stand.
        model: what they were validated with.
    """
    reason, settable = explain_reason(error, prefix, model)
    return f"{FILE}: {reason}" + (f"; change it in {FILE} or with -S {settable}=VALUE" if settable else "")


def explain_reason(error: ValidationError, prefix: tuple[str, ...], model: type[BaseModel]) -> tuple[str, str | None]:
    """Say the same without the file, for values that stand in none; and what to set, where the reason says no remedy.

    Args:
        error, prefix, model: of `explain`.
    """
    first = _without_branches(error.errors(), model)
    location = tuple(str(part) for part in first["loc"] if part != "[key]")
    field = ".".join((*prefix, *location))
    if first["type"] == "extra_forbidden":
        known = sorted(_keys_at(model, location[:-1]))
        close = difflib.get_close_matches(location[-1], known, 1)
        elsewhere = [
            f"{name}.{location[-1]}" for name in known if location[-1] in _keys_at(model, (*location[:-1], name))
        ]
        close = elsewhere if elsewhere and len(location) == 1 else close
        hint = f"did you mean {close[0]}? " if close else ""
        return f"{field}: unknown key; {hint}known are: {', '.join(known)}", None
    if first["loc"][-1:] == ("[key]",):
        return f"{field}: a name holds a-z, 0-9 and _ only: rename it", None
    if first["type"] == "missing":
        return f"{field}: missing; add it", None
    if first["type"] == "value_error":
        message = str(first["ctx"]["error"])
        return f"{field}: {message}" if field else message, None
    allowed = first["msg"].removeprefix("Input ").replace("should be", "must be").replace("should", "must")
    settable = field.rstrip("0123456789").rstrip(".") if location[-1].isdigit() else field  # -S sets a list as a whole
    return f"{field}: found {first['input']!r}; {allowed}", settable


def _without_branches(errors: Sequence[Any], model: type[BaseModel]) -> dict[str, Any]:
    """Return the first error; of a value that may be of several kinds, with what each of them allows."""
    first = dict(errors[0])
    if not first["loc"]:
        return first
    place, branch = tuple(first["loc"][:-1]), str(first["loc"][-1])
    alike = [each for each in errors if tuple(each["loc"][:-1]) == place]
    names = tuple(str(part) for part in place)
    is_key = first["type"] in ("extra_forbidden", "missing") or branch in _keys_at(model, names)
    if len(alike) > 1 and not is_key:
        others = [each["msg"].removeprefix("Input should be ") for each in alike[1:]]
        return {**first, "loc": place, "msg": ", or ".join([first["msg"], *others])}
    return first


def _keys_at(model: type[BaseModel], location: Sequence[str]) -> list[str]:
    for part in location:
        field = model.model_fields.get(part)
        if field is None:
            continue  # a name chosen by the user, such as an arm's
        inner = models_in(field.annotation)
        if not inner:
            return []
        model = inner[0]
    return list(model.model_fields)


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the models that a type annotation speaks of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in models_in(part)]
