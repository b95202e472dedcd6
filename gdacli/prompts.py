"""Prompts: class names in words, and the templates that hold them."""

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from gdacli.errors import GdaError
from gdacli.rng import derive_seed

_PLACEHOLDER = re.compile(r"\{\w+\}")
_WORDNET_ID = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class Prompts:
    """What images of each class are said to show: (label, seed) -> prompt, pure."""

    choices: Sequence[Sequence[str]]
    """Per class, whole prompts."""

    def __call__(self, label: int, seed: int) -> str:
        """Return a class's prompt, one of its list drawn by the image's seed."""
        choices = self.choices[label]
        return choices[derive_seed(seed, "prompt") % len(choices)]


def checked_templates(templates: str | list[str]) -> str | list[str]:
    """Return one template or several as they are.

    Raises:
        ValueError: one has another placeholder than `{class_name}`, which would reach the model as it stands.
    """
    for text in [templates] if isinstance(templates, str) else templates:
        if other := set(_PLACEHOLDER.findall(text)) - {"{class_name}"}:
            raise ValueError(f"found {min(other)} in {text!r}; allowed: {{class_name}}")
    return templates


def make_prompts(
    class_names: Sequence[str], templates: Sequence[str], class_templates: Mapping[str, Sequence[str]]
) -> Prompts:
    """Put the classes' names into templates.

    Args:
        class_names: of the labels.
        templates: of every class without its own; `{class_name}` stands for the class in words.
        class_templates: class name -> its own.

    Raises:
        GdaError: a class of `class_templates` does not exist.
    """
    for name in class_templates:
        if name not in class_names:
            raise GdaError(
                f"generate.class_prompts: found {name!r}; allowed: the names of classes, {', '.join(class_names)}"
            )
    return Prompts(
        tuple(
            tuple(text.replace("{class_name}", readable(name)) for text in class_templates.get(name, templates))
            for name in class_names
        )
    )


@functools.cache
def readable(class_name: str) -> str:
    """Turn a class name into words for a prompt.

    Underscores, dashes between words and camel case become spaces; a WordNet id becomes the first of its words, or goes
    where the name itself follows it, as does a number and a dot.

    >>> readable("sweetPepper"), readable("t-shirt"), readable("great_white_shark"), readable("USFlag")
    ('sweet pepper', 't-shirt', 'great white shark', 'US flag')
    >>> readable("n02123394"), readable("n02123394_Persian_cat"), readable("n02123394-Persian_cat")
    ('Persian cat', 'persian cat', 'persian cat')
    >>> readable("007.Parakeet_Auklet")
    'parakeet auklet'
    """
    found = _WORDNET_ID.match(class_name)
    if found:
        rest = class_name[found.end() :].strip(" _-")
        if rest:
            class_name = rest
        elif found.group() in _lemmas():
            return _lemmas()[found.group()]
    class_name = re.sub(r"^\d+\.(?=\D)", "", class_name)
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", class_name.replace("_", " "))
    return " ".join(word if word.isupper() and len(word) > 1 else word.lower() for word in spaced.split())


@functools.cache
def _lemmas() -> dict[str, str]:
    """Read the first word of each of ImageNet's 21,844 WordNet ids from timm's tables, without importing it."""
    spec = find_spec("timm")
    if spec is None or spec.origin is None:
        return {}
    text = (Path(spec.origin).parent / "data/_info/imagenet_synset_to_lemma.txt").read_text(encoding="utf-8")
    lines = (line.split("\t") for line in text.splitlines())
    return {synset: lemmas.split(",")[0] for synset, lemmas in lines}
