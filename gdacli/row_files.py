"""Arrays of many rows in `.npy` files, written and read piece by piece: memory holds the piece, not the file."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np

from gdacli.errors import GdaError


class Rows(Protocol):
    """What strategies need of a matrix [N, C]: an array has it, and so has a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """[N, C]."""
        ...

    def __getitem__(self, rows: slice | np.ndarray, /) -> np.ndarray: ...


class RowFile:
    """A matrix [N, C] in a `.npy` file; a slice or an ascending array of row numbers reads those rows.

    It reads instead of mapping the file, for mapped pages count as memory of the process.

    Args:
        path: the file.

    Raises:
        GdaError: it is not such a file, or is cut short.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            try:
                version = np.lib.format.read_magic(file)
                read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                self.shape, fortran, self.dtype = read[version](file)
            except (ValueError, KeyError) as error:
                raise GdaError(f"{path}: not an array of numbers ({error}): make or pull it again") from error
            self._start = file.tell()
            size = os.fstat(file.fileno()).st_size
        if fortran or len(self.shape) != 2 or self.dtype.hasobject:
            raise GdaError(f"{path}: found an array {self.shape} of {self.dtype}, expected rows of numbers")
        self._row_bytes = self.shape[1] * self.dtype.itemsize
        expected = self._start + self.shape[0] * self._row_bytes
        if size != expected:
            raise GdaError(f"{path}: found {size} bytes, expected {expected}: make or pull it again")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        if isinstance(rows, slice):
            first, end, _ = rows.indices(len(self))
            firsts, ends = np.array([first]), np.array([max(first, end)])
        else:
            breaks = np.flatnonzero(np.diff(rows) != 1) + 1
            firsts = rows[np.concatenate([[0], breaks])] if len(rows) else np.empty(0, np.int64)
            ends = rows[np.concatenate([breaks - 1, [-1]])] + 1 if len(rows) else firsts
        result = np.empty((int((ends - firsts).sum()), self.shape[1]), self.dtype)
        view = result.reshape(-1).view(np.uint8)
        at = 0
        with self._path.open("rb", buffering=0) as file:
            for first, end in zip(firsts.tolist(), ends.tolist(), strict=True):
                file.seek(self._start + first * self._row_bytes)
                stop = at + (end - first) * self._row_bytes
                while at < stop:
                    count = file.readinto(view[at:stop].data)
                    if not count:
                        raise GdaError(f"{self._path}: cut short while it was read: make or pull it again")
                    at += count
        return result


class Subset:
    """Some rows of a matrix, read when they are asked for.

    Args:
        rows: the matrix.
        members: int64 [n], ascending row numbers.
    """

    def __init__(self, rows: Rows, members: np.ndarray) -> None:
        self._rows, self._members = rows, members
        self.shape = (len(members), rows.shape[1])

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        return self._rows[self._members[rows]]


class RowWriter:
    """Writes rows of a matrix in any order; of `new_rows`."""

    def __init__(self, path: Path, shape: tuple[int, int], dtype: type) -> None:
        self._dtype, self._row_bytes = np.dtype(dtype), shape[1] * np.dtype(dtype).itemsize
        self._file = path.open("wb")
        header = {"shape": shape, "fortran_order": False, "descr": np.lib.format.dtype_to_descr(self._dtype)}
        np.lib.format.write_array_header_1_0(self._file, header)
        self._start = self._file.tell()
        self._file.truncate(self._start + shape[0] * self._row_bytes)

    def write(self, rows: np.ndarray, values: np.ndarray) -> None:
        """Write `values` [n, C] as the rows of these ascending numbers, int [n]."""
        values = np.ascontiguousarray(values, self._dtype)
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        for part_rows, part in zip(np.split(rows, breaks), np.split(values, breaks), strict=True):
            if len(part):
                self._file.seek(self._start + int(part_rows[0]) * self._row_bytes)
                self._file.write(part.data)

    def close(self) -> None:
        """Flush and close the file."""
        self._file.close()


@contextmanager
def new_rows(path: Path, shape: tuple[int, int], dtype: type) -> Iterator[RowWriter]:
    """Yield a writer of a `.npy` file; rows that nobody writes are 0.

    Args:
        path: the file; not atomic, for use in a folder that is.
        shape: [N, C].
        dtype: of the numbers in the file.
    """
    writer = RowWriter(path, shape, dtype)
    try:
        yield writer
    finally:
        writer.close()


def blocks(num_rows: int, num_columns: int) -> Iterator[slice]:
    """Cut rows into blocks of at most 2**22 numbers, the same for the same shape."""
    step = max(1, 2**22 // max(num_columns, 1))
    yield from (slice(first, min(first + step, num_rows)) for first in range(0, num_rows, step))
