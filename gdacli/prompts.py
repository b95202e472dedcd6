"""Class names in the words of a prompt."""

import re

DEFAULT_PROMPT = "a photo of {class_name}"


def readable(class_name: str) -> str:
    """Turn a class name into words for a prompt: underscores, dashes and camel case become spaces.

    >>> readable("sweetPepper"), readable("t-shirt"), readable("great_white_shark"), readable("USFlag")
    ('sweet pepper', 't-shirt', 'great white shark', 'US flag')
    """
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", class_name.replace("_", " "))
    return " ".join(word if word.isupper() and len(word) > 1 else word.lower() for word in spaced.split())
