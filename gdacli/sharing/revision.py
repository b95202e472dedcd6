"""The name of what is shared: of the git revision that made it, or of its content."""

import subprocess
from collections.abc import Iterable
from pathlib import Path

from gdacli.artifacts import sha256_bytes, sha256_file


def revision_name(made_from: Iterable[Path], options: str, *, usual: bool) -> str:
    """Return a name for the project's state, to tag what is shared of it.

    Args:
        made_from: files that decide what is shared; those that do not exist are passed over.
        options: of the push, as far as they decide it too.
        usual: they are those of a push that names none: a commit of git can be shared in several ways, whose tags must
            differ, for they stand in the cards.

    Returns:
        `git-<12 hex digits of HEAD>`, with `-<8>` digits of a digest of the files and options where these are not the
        usual ones; `git-<...>-dirty-<8>` where tracked files of the project differ from HEAD; `content-<12>` outside
        git.
    """
    sums = [f"{sha256_file(path)}  {path}\n" for path in made_from if path.exists()]
    digest = sha256_bytes("".join([options, "\n", *sorted(sums)]).encode())
    head = _git("rev-parse", "--verify", "--quiet", "HEAD")
    if not head:
        return f"content-{digest[:12]}"
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".")
    return f"git-{head[:12]}" + "-dirty" * bool(changed) + (f"-{digest[:8]}" if changed or not usual else "")


def _git(*arguments: str) -> str:
    """Return what git says; nothing where it is not installed, or this is no repository of its."""
    try:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""
