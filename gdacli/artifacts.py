"""Files and folders that appear under their final name whole or not at all."""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gdacli.errors import GdaError

CHECKSUMS = "SHA256SUMS"
"""The file of a published folder that lists all others with their SHA-256, as `sha256sum` would."""

TEMPORARY_PREFIX = ".tmp-"


def sha256_bytes(content: bytes) -> str:
    """Return the SHA-256 of `content` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require(path: Path, command: str) -> Path:
    """Return `path` if it exists.

    Raises:
        GdaError: it does not; the message names the command that makes it.
    """
    if not path.exists():
        raise GdaError(f"{path} does not exist: run `{command}` first (or `dvc repro`, or `dvc pull {path}`)")
    return path


def temporary_name(path: Path) -> Path:
    """Return a name beside `path` that nothing else uses; `data/.gitignore` ignores names of this form."""
    return path.parent / f"{TEMPORARY_PREFIX}{path.name}-{secrets.token_hex(4)}"


@contextmanager
def temporary_directory(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path` and remove it in the end, and those that killed processes left there.

    Who uses one holds a lock on it, so that those of processes that are alive are told from those that are left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    named = re.compile(rf"{re.escape(TEMPORARY_PREFIX + path.name)}-[0-9a-f]{{8}}")
    for left in [each for each in path.parent.iterdir() if named.fullmatch(each.name) and each.is_dir()]:
        with contextlib.suppress(OSError), _lock(left):
            shutil.rmtree(left, ignore_errors=True)
    temporary = temporary_name(path)
    temporary.mkdir()
    try:
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):  # some network disks have no locks; nothing is swept there
                stack.enter_context(_lock(temporary))
            yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a temporary name to write to; on success the file is flushed to disk and renamed to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        yield temporary
        _fsync(temporary)
        temporary.replace(path)
        _fsync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill; on success it takes the place of `path`, on failure it is removed.

    The published folder has a file SHA256SUMS, which `checksums.verify_folder` and `sha256sum -c SHA256SUMS` check.
    """
    old = temporary_name(path)
    with temporary_directory(path) as temporary:
        try:
            yield temporary
            sums = "".join(f"{sha256_file(temporary / name)}  {name}\n" for name in artifact_files(temporary))
            (temporary / CHECKSUMS).write_text(sums, encoding="utf-8")
            for file in [*sorted(temporary.rglob("*")), temporary]:
                _fsync(file)
            if path.exists():
                path.rename(old)
            temporary.rename(path)
            _fsync(path.parent)
        finally:
            if old.exists() and not path.exists():
                old.rename(path)
            shutil.rmtree(old, ignore_errors=True)


def artifact_files(folder: Path) -> list[str]:
    """List the files that SHA256SUMS covers, as sorted relative POSIX paths: all but itself and temporary ones."""
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted(
        name.as_posix()
        for name in names
        if name != Path(CHECKSUMS) and not any(part.startswith(TEMPORARY_PREFIX) for part in name.parts)
    )


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file of ours.

    Raises:
        GdaError: the file is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise GdaError(f"{path}: not valid JSON ({error}): the file is damaged, make or pull it again") from error


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
