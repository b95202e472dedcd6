"""Damage to files, as disks, networks and people do it."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def every_file(folder: Path) -> list[Path]:
    """List all files of a folder."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


@contextmanager
def damaged(folder: Path, random: random.Random) -> Iterator[tuple[Path, str]]:
    """Cut short or flip a bit of some file of a folder, and mend it at the end.

    Of the cuts some are to nothing and some are at the end of a line; files are chosen alike, bits within a file too.

    Yields:
        the file, and what was done to it.
    """
    file = random.choice([path for path in every_file(folder) if path.stat().st_size])
    whole = file.read_bytes()
    what = random.choice(["bit", "bit", "cut", "nothing", "line"])
    line_ends = [at + 1 for at, byte in enumerate(whole[:-1]) if byte == ord("\n")]
    if what == "bit":
        at = random.randrange(8 * len(whole))
        content = bytearray(whole)
        content[at // 8] ^= 1 << at % 8
        what = f"bit {at} flipped"
    else:
        size = {"cut": random.randrange(len(whole)), "nothing": 0, "line": random.choice(line_ends or [0])}[what]
        content = bytearray(whole[:size])
        what = f"cut to {size} of {len(whole)} bytes"
    file.write_bytes(content)
    try:
        yield file, what
    finally:
        file.write_bytes(whole)
