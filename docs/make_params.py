"""Write docs/params.md from the models in gdacli/params.py: `python docs/make_params.py`."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gdacli.explain import models_in
from gdacli.params import Params

FILE = Path(__file__).with_name("params.md")


def reference() -> str:
    """Return the reference of every key of params.yaml: type and range, default, meaning."""
    lines = [
        "# params.yaml",
        "",
        "Made from the code by `python docs/make_params.py`; a test compares. A wrong key or value is one line that",
        "says what is allowed. `-S section.key=value` overrides any value on any command. `dvc exp run -S` takes keys",
        "that stand in params.yaml; others are added with a plus: `dvc exp run -S '+train.ema_decay=0.99'`.",
    ]
    for name, field in Params.model_fields.items():
        lines += _section(name, field)
    return "\n".join(lines) + "\n"


def _section(name: str, field: FieldInfo) -> list[str]:
    models = models_in(field.annotation)
    title = f"{name}.<arm>" if name == "arms" else name
    if not models:
        return ["", f"## {title}", "", field.description or ""]
    about = " ".join((models[0].__doc__ or "").split())
    return [
        "",
        f"## {title}",
        "",
        about,
        "",
        "| key | allowed | default | meaning |",
        "|---|---|---|---|",
        *_rows(models[0], ""),
    ]


def _rows(model: type[BaseModel], prefix: str) -> list[str]:
    rows = []
    for name, field in model.model_fields.items():
        inner = models_in(field.annotation)
        nullable = "null or " if type(None) in getattr(field.annotation, "__args__", ()) else ""
        allowed = f"{nullable}the keys below" if inner else _allowed(field)
        meaning = field.description
        rows.append(f"| `{prefix}{name}` | {allowed} | {_default(field)} | {meaning} |".replace("\\|", "or"))
        if inner:
            rows += _rows(inner[0], f"{prefix}{name}.")
    return rows


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_none=True)
    return "null" if value is None else f"`{value}`".replace("True", "true").replace("False", "false")


def _allowed(field: FieldInfo) -> str:
    from pydantic import TypeAdapter

    schema = TypeAdapter(field.rebuild_annotation()).json_schema()
    return _words(schema)


def _words(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_words(part) for part in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    words = {"null": "null", "string": "text", "integer": "integer", "number": "number", "boolean": "true or false"}
    kind = schema.get("type", "object")
    limits = [("minimum", ">="), ("exclusiveMinimum", ">"), ("maximum", "<="), ("exclusiveMaximum", "<")]
    shown = [f"{sign} {schema[key]:g}" for key, sign in limits if key in schema and schema[key] < 2**31]
    if "multipleOf" in schema:
        shown.append(f"a multiple of {schema['multipleOf']}")
    if kind == "array":
        return "list of " + _words(schema.get("items", {}))
    return " ".join([words.get(kind, "mapping"), ", ".join(shown)]).strip()


if __name__ == "__main__":
    FILE.write_text(reference(), encoding="utf-8")
