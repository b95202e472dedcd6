"""Images by name, and where each lies in its shard: what lets a data set be read in any order."""

import hashlib
import os
from contextlib import nullcontext
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gdacli.console import progress
from gdacli.errors import GdaError
from gdacli.shards import image_spans
from gdacli.tables import read_columns

_OPEN_FILES = 64  # per process: a large data set has more shards than a process may open files
_SHARDS_WORTH_A_BAR = 200
_ROWS_AT_A_TIME = 65_536
_SHA256_BYTES = 32


@dataclass(frozen=True)
class References:
    """N images by name, in parallel columns that take about 100 bytes an image."""

    shards: list[Path]
    shard: np.ndarray
    """int32 [N], which of `shards` holds the image."""
    keys: pa.Array
    """Strings [N]."""
    sha256: np.ndarray
    """uint8 [N, 32], of the encoded image."""
    origin: str
    """Who names the images, for messages: `the mix`."""
    command: str
    """What makes the names anew, for messages: `gdacli mix`."""

    def __len__(self) -> int:
        return len(self.shard)


def read_references(
    table: Path, *, origin: str, command: str, folder: Path = Path(), rows: tuple[int, int] | None = None
) -> References:
    """Read the columns `shard`, `key` and `sha256` of a parquet file, such as a mix.

    Args:
        table: the file; its shards are paths relative to `folder`.
        origin, command: see `References`.
        rows: the first one and the one after the last; None takes all.

    Raises:
        GdaError: the file is damaged, or a SHA-256 is none.
    """
    columns = read_columns(table, ["shard", "key", "sha256"])
    if rows is not None:
        columns = columns.slice(rows[0], rows[1] - rows[0])
    return references(columns, str(table), origin=origin, command=command, folder=folder)


def references(columns: pa.Table, where: str, *, origin: str, command: str, folder: Path = Path()) -> References:
    """Make references of the columns `shard`, `key` and `sha256`; see `read_references`.

    Args:
        columns: of N images.
        where: they were found, for messages.
        origin, command, folder: see `read_references`.
    """
    shards = _one_array(columns["shard"]).dictionary_encode()
    sums = columns["sha256"]
    try:
        parts = [
            bytes.fromhex("".join(sums.slice(first, _ROWS_AT_A_TIME).to_pylist()))
            for first in range(0, len(sums), _ROWS_AT_A_TIME)
        ]
        digests = np.frombuffer(b"".join(parts), np.uint8).reshape(len(sums), _SHA256_BYTES)
    except ValueError as error:
        raise GdaError(f"{where}: a sha256 is not 64 hexadecimal digits: run `{command}`") from error
    return References(
        shards=[folder / name for name in shards.dictionary.to_pylist()],
        shard=shards.indices.to_numpy().astype(np.int32),
        keys=_one_array(columns["key"]),
        sha256=digests,
        origin=origin,
        command=command,
    )


def take(references: References, rows: np.ndarray) -> References:
    """Return some of the references, without the shards that none of them names."""
    used, shard = np.unique(references.shard[rows], return_inverse=True)
    return replace(
        references,
        shards=[references.shards[number] for number in used],
        shard=shard.astype(np.int32),
        keys=references.keys.take(pa.array(rows)),
        sha256=references.sha256[rows],
    )


class ImageIndex:
    """Where the bytes of N images lie, 48 bytes an image; reads them by row, from any process.

    Args:
        references: of the images. Their shards' headers are read, their images are not.

    Raises:
        GdaError: a shard is missing, or lacks one of its images.
    """

    def __init__(self, references: References) -> None:
        self._shards, self._shard, self._sha256 = references.shards, references.shard, references.sha256
        self._origin, self._command = references.origin, references.command
        self._offset = np.empty(len(references), np.int64)
        self._length = np.empty(len(references), np.uint32)
        self._files: dict[int, FileIO] = {}
        by_shard = np.argsort(self._shard, kind="stable")
        bounds = np.searchsorted(self._shard[by_shard], np.arange(len(self._shards) + 1))
        large = len(self._shards) >= _SHARDS_WORTH_A_BAR
        with progress("index", len(self._shards), "shards") if large else nullcontext(lambda: None) as advance:
            for number in range(len(self._shards)):
                self._find(number, by_shard[bounds[number] : bounds[number + 1]], references.keys)
                advance()

    def _find(self, number: int, rows: np.ndarray, keys: pa.Array) -> None:
        """Find the images of these rows in shard `number`."""
        path = self._shards[number]
        spans = image_spans(path)
        names = keys.take(pa.array(rows)).to_pylist()
        missing = [name for name in names if name not in spans]
        if missing:
            raise GdaError(
                f"{path} lacks {len(missing)} of the {len(names)} images that {self._origin} names in it (first: "
                f"{missing[0]}): run `{self._command}` again, or `dvc checkout --force {path.parent}`"
            )
        self._offset[rows], self._length[rows] = zip(*(spans[name] for name in names), strict=True)

    def __len__(self) -> int:
        return len(self._shard)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open files behind: a process that gets a copy opens its own."""
        return {**self.__dict__, "_files": {}}

    def encoded(self, row: int) -> bytes:
        """Read an encoded image.

        Raises:
            GdaError: it cannot be read, or is not the image that the references name (by SHA-256).
        """
        path = self._shards[self._shard[row]]
        try:
            descriptor = self._file(int(self._shard[row])).fileno()
            content = os.pread(descriptor, int(self._length[row]), int(self._offset[row]))
        except OSError as error:
            raise GdaError(
                f"{path} can no longer be read ({error.strerror}): run `dvc checkout --force {path.parent}`"
            ) from error
        if hashlib.sha256(content).digest() != self._sha256[row].tobytes():
            raise GdaError(
                f"{self.name(row)} is not the image that {self._origin} was made of: run "
                f"`{self._command}`, or `dvc checkout --force {path.parent}`"
            )
        return content

    def name(self, row: int) -> str:
        """Return shard and key of an image, for messages; the keys are not kept, so the shard is read again."""
        path, offset = self._shards[self._shard[row]], int(self._offset[row])
        key = next((key for key, span in image_spans(path).items() if span[0] == offset), f"at byte {offset}")
        return f"{path}: sample {key!r}"

    def _file(self, number: int) -> FileIO:
        file = self._files.pop(number, None)
        if file is None:
            if len(self._files) >= _OPEN_FILES:
                self._files.pop(next(iter(self._files))).close()
            file = FileIO(self._shards[number])
        self._files[number] = file  # the one used last stands last
        return file


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    """Return a text column as one array, of offsets wide enough for any number of rows."""
    return column.cast(pa.large_string()).combine_chunks()
