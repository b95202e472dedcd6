"""Parquet tables whose bytes depend on their rows alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gdacli.artifacts import new_file
from gdacli.errors import GdaError


class TableWriter:
    """Writes a table piece by piece, one row group each; a context manager.

    Args:
        path: the file; not atomic, for use in a folder that is.
        columns: name -> `str`, `int`, `float` or `bool`.
    """

    def __init__(self, path: Path, columns: dict[str, type]) -> None:
        kinds = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
        self._schema = pa.schema([(name, kinds[kind]) for name, kind in columns.items()])
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")

    def __enter__(self) -> "TableWriter":
        return self

    def append(self, rows: list[tuple[Any, ...]]) -> None:
        """Add rows, their cells in the order of the columns."""
        cells = zip(*rows, strict=True)
        columns = [pa.array(column, kind) for column, kind in zip(cells, self._schema.types, strict=True)]
        self._writer.write_table(pa.table(columns, schema=self._schema))

    def __exit__(self, *exception: object) -> None:
        self._writer.close()


def write_table(path: Path, columns: dict[str, Any]) -> None:
    """Write columns (lists or arrays of one length) as parquet, whole or not at all."""
    with new_file(path) as temporary:
        pq.write_table(pa.table(columns), temporary, compression="zstd")


def read_columns(path: Path, names: Sequence[str] | None = None) -> pa.Table:
    """Read columns of a parquet file of ours as Arrow holds them, which takes little memory; all when none is named.

    Raises:
        GdaError: the file is damaged.
    """
    try:
        return pq.read_table(path, columns=names)
    except (pa.ArrowInvalid, OSError) as error:
        raise GdaError(f"{path}: not a readable parquet file ({error}): make or pull it again") from error


def read_table(path: Path) -> dict[str, Any]:
    """Read a parquet file of ours: text columns as lists, others as NumPy arrays.

    Raises:
        GdaError: the file is damaged.
    """
    table = read_columns(path)
    return {
        name: column.to_pylist() if pa.types.is_string(column.type) else column.to_numpy()
        for name, column in zip(table.column_names, table.columns, strict=True)
    }


def write_csv(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    """Write a small table as CSV; numbers get 6 significant digits."""
    import csv

    with new_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row] for row in rows)
