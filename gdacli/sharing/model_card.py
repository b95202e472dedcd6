"""The card of a shared model: what it is, how it was trained, how good it is, and how to load it."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from gdacli import __version__
from gdacli.pool import front_matter
from gdacli.sharing import markdown
from gdacli.sharing.findings import Found, about_arms, arm_rows
from gdacli.sharing.licenses import license_metadata
from gdacli.wording import points

_SETTINGS = {
    "model_args": "its arguments",
    "objective": "objective",
    "optimizer": "optimizer",
    "lr": "learning rate",
    "momentum": "momentum",
    "weight_decay": "weight decay",
    "schedule": "schedule",
    "batch_size": "batch size",
    "label_smoothing": "label smoothing",
    "checkpoint": "weights of which epoch",
}
_DIGITS = 6


@dataclass(frozen=True)
class ModelFacts:
    """All that a model's card says."""

    repo_id: str
    revision: str
    """The tag under which it is shared."""
    md5: str | None
    """By which DVC knows the training; None outside DVC."""
    arm: str
    seed: int
    description: str
    """What the arm trains on, in words."""
    config: Mapping[str, Any]
    """Of the checkpoint."""
    train: Mapping[str, Any]
    """The settings of the training, without folders."""
    images: Mapping[str, int]
    """How many images an epoch has: `source`, `copies`, `synthetic`."""
    num_updates: int
    is_ours: bool
    """Whether the architecture is one of gdacli's own."""
    base_model: str | None
    """Id on the Hub of the weights that it was trained from."""
    data_source: str
    """Where the images came from, in a word: no path."""
    data_id: str
    """Of the dataset: an id on the Hub, or a word."""
    datasets: list[str]
    """Ids on the Hub of what it was trained on."""
    share: Mapping[str, Any]
    """The section `push`."""
    found: Found

    @property
    def title(self) -> str:
        """The name for readers."""
        return f"{self.config['architecture']} for {self.data_source}"


def model_card(facts: ModelFacts) -> str:
    """Return the README.md of a shared model."""
    return front_matter(model_metadata(facts)) + _text(facts)


def model_metadata(facts: ModelFacts) -> dict[str, Any]:
    """Return the metadata of the card, which the Hub reads; the figures are its `model-index`."""
    from huggingface_hub import EvalResult, ModelCardData

    results, _ = facts.found
    metrics = [] if results is None else _metrics(results, facts.arm, facts.seed)
    dataset = {} if results is None else {"dataset_json_sha256": results["provenance"]["dataset"]}
    evaluated = [
        EvalResult(
            task_type="image-classification",
            task_name="Image classification",
            dataset_type=facts.data_id,
            dataset_name=facts.data_source,
            dataset_split=str(results["split"]),
            dataset_args=dataset,
            metric_type=kind,
            metric_name=name,
            metric_value=value,
        )
        for kind, name, value in metrics
        if results is not None
    ]
    license: dict[str, Any] = license_metadata(facts.share["model_license"])
    data = ModelCardData(
        **license,
        library_name="timm",
        pipeline_tag="image-classification",
        tags=["image-classification", "timm", "gdacli", *(["synthetic-data"] if facts.images["synthetic"] else [])],
        base_model=facts.base_model,
        datasets=facts.datasets or None,
        metrics=sorted({kind for kind, _, _ in metrics}) or None,
        model_name=facts.repo_id.rpartition("/")[2],
        eval_results=evaluated or None,
    )
    values: dict[str, Any] = data.to_dict()
    values.pop("model_name", None)  # of a model without figures
    return values


def _metrics(results: Mapping[str, Any], arm: str, seed: int) -> list[tuple[str, str, float]]:
    """Return type, name and value, in [0, 1], of the figures: of this very model, and means over all seeds."""
    found, seeds = results["arms"][arm], results["seeds"]
    mean = f"mean of {len(seeds)} seeds" if len(seeds) > 1 else "one seed"
    own = found["errors"][seeds.index(seed)]
    return [
        ("accuracy", f"accuracy of this model (seed {seed})", round(1 - own / 100, _DIGITS)),
        ("accuracy", f"accuracy, {mean}", round(1 - found["error"]["mean"] / 100, _DIGITS)),
        *([("f1", f"macro F1, {mean}", round(f1 / 100, _DIGITS))] if (f1 := found["macro_f1"]["mean"]) else []),
    ]


def _text(facts: ModelFacts) -> str:
    import jinja2

    results, missing = facts.found
    environment = jinja2.Environment(  # noqa: S701 - Markdown, whose filter `escaped` also escapes HTML
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {
        "escaped": markdown.escaped,
        "table": markdown.table,
        "count": lambda n: f"{n:,}",
        "points": points,
    }
    template = files("gdacli").joinpath("templates/model_card.md.j2").read_text(encoding="utf-8")
    own = None if results is None else results["arms"][facts.arm]["errors"][results["seeds"].index(facts.seed)]
    kind, _, rest = facts.revision.partition("-")
    return environment.from_string(template).render(
        facts=facts,
        share=facts.share,
        config=facts.config,
        size=facts.config["pretrained_cfg"]["input_size"][-1],
        names=facts.config["label_names"],
        results=results,
        missing=missing,
        own=own,
        compared=arm_rows(results) if results else None,
        about_arms=about_arms(results) if results else None,
        trained=_trained(facts),
        git=rest.partition("-")[0] if kind == "git" else None,
        version=__version__,
    )


def _trained(facts: ModelFacts) -> list[list[str]]:
    """Return a table of how it was trained."""
    train = facts.train
    rows = [["setting", "value"], ["architecture", str(facts.config["architecture"])]]
    begun = facts.base_model or ("random weights" if not train.get("pretrained") else str(train["pretrained"]))
    rows += [["begun from", begun], ["updates", f"{facts.num_updates:,}"], ["seed", str(facts.seed)]]
    rows += [[title, _said(train[name])] for name, title in _SETTINGS.items() if train.get(name) not in (None, {})]
    augmented = [name for name, value in train.get("augment", {}).items() if value]
    return [*rows, ["augmented by", ", ".join(augmented) or "nothing"]]


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {inner}" for name, inner in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)
