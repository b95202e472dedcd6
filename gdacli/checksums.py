"""Find damage in published artifacts by their SHA-256: a change of any byte of a folder is noticed and named."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gdacli.artifacts import CHECKSUMS, artifact_files, sha256_file

_LINE = re.compile(r"([0-9a-f]{64})  ([^\x00-\x1f\x7f]+)")
_DIGITS_ALIKE_BY_CHANCE = 32  # two unrelated sums agree in 4 of their 64 digits on average; in 32 once in 10^20 times


@dataclass(frozen=True)
class Damage:
    """A file that is not as it was published."""

    file: Path
    problem: str
    """What was found, and what was expected."""


def verify_folder(folder: Path, on_file: Callable[[], object] = lambda: None) -> list[Damage]:
    """Compare every file of a folder with its SHA256SUMS.

    Args:
        folder: of an artifact.
        on_file: called after each file that was read.

    Returns:
        the damage, in the order of paths: files that changed, were cut short, are missing or were added, and lines of
        SHA256SUMS that are not as `artifacts.new_directory` writes them. Empty if the folder is whole.
    """
    listing = folder / CHECKSUMS
    try:
        text = listing.read_bytes().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return [
            Damage(listing, "missing: an older gdacli made the folder, or the file was lost; nothing can be checked")
        ]
    except OSError as error:
        return [Damage(listing, f"cannot be read ({error.strerror}); nothing can be checked")]
    found = set(artifact_files(folder))
    if found and not text:
        return [Damage(listing, "empty; nothing can be checked")]
    expected, damaged_lines = _parse(text)
    damaged = [Damage(listing, problem) for problem in damaged_lines]
    for name, sha256 in sorted(expected.items()):
        if name not in found:
            damaged.append(Damage(folder / name, f"missing, but {CHECKSUMS} lists it"))
            continue
        damaged += compare(folder / name, sha256, listing)
        on_file()
    if not damaged_lines:  # else the lines that cannot be read may well list them
        problem = f"not in {CHECKSUMS}: it was added, or {CHECKSUMS} is damaged"
        damaged += [Damage(folder / name, problem) for name in sorted(found - expected.keys())]
    return sorted(damaged, key=lambda damage: damage.file)


def compare(file: Path, expected: str, listing: Path) -> list[Damage]:
    """Compare a file with the SHA-256 that `listing` says; returns no or one damage, of the file or of the listing."""
    try:
        found = sha256_file(file)
    except OSError as error:
        return [Damage(file, f"cannot be read ({error.strerror})")]
    if found == expected:
        return []
    alike = sum(a == b for a, b in zip(found, expected, strict=False))
    if alike >= _DIGITS_ALIKE_BY_CHANCE:  # a changed file would change every digit
        return [Damage(listing, f"its sum of {file.name} is damaged: found {expected}, expected {found}")]
    problem = "empty" if file.stat().st_size == 0 else "changed or cut short"
    return [Damage(file, f"{problem}: found sha256 {found}, expected {expected}")]


def _parse(text: str) -> tuple[dict[str, str], list[str]]:
    """Read the text of SHA256SUMS; returns name -> sum, and what is wrong with it."""
    *lines, rest = text.split("\n")
    expected: dict[str, str] = {}
    doubles = set[str]()
    problems = [f"cut short: it ends in {rest[-40:]!r}, expected a line end"] if rest else []
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line)
        if match is None or "\ufffd" in line:
            problems.append(f"line {number}: found {line!r}, expected 64 hexadecimal digits, two spaces and a path")
        elif match[2] in expected:
            problems.append(f"line {number}: {match[2]} is listed twice")
            doubles.add(match[2])
        else:
            expected[match[2]] = match[1]
    for double in doubles:  # which of its sums is right is not known
        del expected[double]
    return expected, problems
