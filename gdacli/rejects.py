"""Which images of the pool the mixes leave out: a person's `rejects.csv`, and what `generate.filter` dropped."""

import csv
from pathlib import Path

from gdacli.errors import GdaError

HEADER = "key\n"
"""A `rejects.csv` that rejects nothing."""


def read_left_out(path: Path) -> dict[str, dict[str, str]]:
    """Read a CSV that lists keys of the pool, one a row under a header that has the column `key`.

    Further columns (a reason) are kept. Blank lines, lines that begin with '#', spaces around cells, Windows line ends,
    a byte-order mark and a key's second row are passed over.

    Returns:
        key -> its row by column, the key included, in the order of the file; nothing if there is no such file.

    Raises:
        GdaError: the file is no such CSV; the message says what was found.
    """
    if not path.exists():
        return {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = (line for line in file if not line.lstrip().startswith("#"))
            filled = ([cell.strip() for cell in row] for row in csv.reader(lines, strict=True))
            header, *rows = [row for row in filled if any(row)] or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise GdaError(f"{path}: not a CSV in UTF-8 ({error}): save it as one, or begin anew with `key`") from error
    if "key" not in header:
        raise GdaError(
            f"{path}: found the header {','.join(header)!r}, allowed is one with the column key: the first line reads "
            "`key`, and each further line begins with a key such as shoe-1_s0500_v0"
        )
    found: dict[str, dict[str, str]] = {}
    for cells in rows:
        row = dict(zip(header, cells, strict=False))
        if not row.get("key"):
            raise GdaError(f"{path}: found the row {','.join(cells)!r} without a key: write one, or remove the row")
        found.setdefault(row["key"], row)
    return found
