"""Secrets in texts: tokens, keys and passwords, by their form or because the environment holds them, are blanked."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from urllib.parse import quote

BLANK = "***"

_FORMS = {
    "a token of the Hugging Face Hub": r"(?<![A-Za-z0-9])(hf_(?:[a-z]+_)?[A-Za-z0-9]{20,}(?:\.[\w-]+)*)",
    "a token of GitHub": r"(?<![A-Za-z0-9])(gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,})",
    "a token of GitLab": r"(?<![A-Za-z0-9])(glpat-[\w-]{20,})",
    "an access key of AWS": r"(?<![A-Za-z0-9])((?:AKIA|ASIA)[A-Z0-9]{16})(?![A-Za-z0-9])",
    "a private key": r"(-----BEGIN [A-Z ]*PRIVATE KEY-----(?:.*?-----END [A-Z ]*PRIVATE KEY-----)?)",
    # up to the last @, as clients read it; AWS's secrets have slashes; a port with a path is no password
    "a password in an address": r"://[^\s/:@'\"]*:(?!\d{1,5}(?:[/?#]|$))([^\s'\"]+)@",
    "a signature or key in an address": (
        r"(?i)[?&;](?:[\w.-]*(?:signature|token|secret|password|credential)|sig|(?:[\w.-]*[_-])?key)=([^\s&;'\"<>]+)"
    ),
    "a bearer token": r"(?i)\bbearer\s+([\w.~+/=-]{16,})",
    "a secret": r"(?i)(?:secret_?access_?key|client_?secret|api_?key|password)['\"]?\s*[=:]\s*['\"]?([\w.~+/=-]{16,})",
}
_PATTERNS = {kind: re.compile(pattern, re.DOTALL) for kind, pattern in _FORMS.items()}
"""The group is what is blanked."""

_TELLING = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|(?:^|_)KEY$|API_?KEY", re.IGNORECASE)
_SHORTEST = 8
_SURE_LENGTH = 16
"""Shorter values are secrets only if they mix letters and digits, or hold other characters: no word, no number."""


def redact(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return the text with every secret blanked.

    >>> redact("s3://me:pa55word@host/pool?X-Amz-Signature=0a1b", {})
    's3://me:***@host/pool?X-Amz-Signature=***'
    """
    for value in _held(environment):
        text = text.replace(value, BLANK)
    for pattern in _PATTERNS.values():
        text = pattern.sub(lambda found: found[0].replace(found[1], BLANK) if found[1] else found[0], text)
    return text


def find_secret(text: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """Return what kind of secret a text holds, in words; None if it holds none.

    >>> find_secret("hf_" + "a1" * 17, {})
    'a token of the Hugging Face Hub'
    """
    for kind, pattern in _PATTERNS.items():
        if any(found[1] != BLANK for found in pattern.finditer(text)):
            return kind
    if any(value in text for value in _held(environment)):
        return "the value of a secret in the environment"
    return None


def _held(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield the secrets of the environment, as they are and as addresses, JSON and Python write them; long first."""
    # clients strip a line end that a file or a secret store left at the end
    values = {environment[name].strip() for name in environment if _is_telling(name) and _is_secret(environment[name])}
    written = {form(value) for value in values for form in (str, partial(quote, safe=""), _in_json, _in_python)}
    yield from sorted(written, key=lambda value: (-len(value), value))


@cache
def _is_telling(name: str) -> bool:
    return _TELLING.search(name) is not None


def _in_json(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)[1:-1]


def _in_python(value: str) -> str:
    return repr(value)[1:-1]


def _is_secret(value: str) -> bool:
    """Say if the value of a variable with a telling name is one: not a switch, a word, a number or a path."""
    value = value.strip()
    if len(value) < _SHORTEST or _is_path(value) or re.fullmatch(r"[\d.,_-]+", value):
        return False
    return len(value) >= _SURE_LENGTH or re.fullmatch(r"[A-Za-z]+|[a-z]+(?:[_-][a-z]+)*", value) is None


def _is_path(value: str) -> bool:
    if value.startswith(("~/", "./", "../")):
        return True
    parts = Path(value).parts
    return len(parts) > 1 and parts[0] == "/" and Path(*parts[:2]).exists()
