"""The folder that an export fills: it appears whole or not at all, and never over something else."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gdacli.artifacts import CHECKSUMS, artifact_files, sha256_file, temporary_directory
from gdacli.errors import GdaError


def check_free(path: Path) -> None:
    """Check that an export may appear at `path`.

    Raises:
        GdaError: something is there that is no empty folder.
    """
    if path.is_symlink() or path.exists():
        if not path.is_dir() or path.is_symlink():
            raise GdaError(f"-o {path}: found a file or a link; allowed is a folder that is new or empty: name another")
        if any(path.iterdir()):
            raise GdaError(f"-o {path}: the folder is not empty: name a new one, or remove it first")


@contextmanager
def new_export(path: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill; on success it appears as `path`, with a SHA256SUMS, on failure it is removed.

    Unlike `artifacts.new_directory` it flushes the disk once, not each file: an image folder can hold a million.

    Raises:
        GdaError: see `check_free`.
    """
    check_free(path)
    with temporary_directory(path) as temporary:
        yield temporary
        sums = "".join(f"{sha256_file(temporary / name)}  {name}\n" for name in artifact_files(temporary))
        (temporary / CHECKSUMS).write_text(sums, encoding="utf-8")
        os.sync()
        check_free(path)
        temporary.rename(path)  # an empty folder gives way
