"""What users typed, written so that a page of Markdown shows just that."""

import re
from collections.abc import Sequence

from gdacli import wording

_SPECIAL = re.compile(r"([\\`*_{}\[\]|~$])")
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_NUMBERED = re.compile(r"\d+(?=[.)])")


def escaped(text: object) -> str:
    r"""Write text as one line that no Markdown, HTML, table or link is read in, at the beginning of a line or within.

    >>> escaped("1. a|b <i>*x*"), escaped("-1")
    ('1\\. a\\|b &lt;i&gt;\\*x\\*', '\\-1')
    """
    line = _inline(text)
    if found := _NUMBERED.match(line):
        return f"{found[0]}\\{line[found.end() :]}"
    return f"\\{line}" if line[:1] in ("#", "+", "-", "=") else line


def table(rows: Sequence[Sequence[object]]) -> str:
    """Return a table of escaped cells; the first row is its header."""
    return "\n".join(wording.table([[_inline(cell) for cell in row] for row in rows]))


def _inline(text: object) -> str:
    line = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", " ".join(str(text).split()))
    return re.sub("[&<>]", lambda found: _HTML[found[0]], _SPECIAL.sub(r"\\\1", line))
