"""Single rows of Parquet files, by their number or by the value of a column, from the row groups that may hold them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from treadle.engine.backend import ARROW_TYPES, converted
from treadle.errors import StorageError

BATCH = 4096
"""Rows that are decoded at a time."""


def numbers_where(fs: fsspec.AbstractFileSystem, path: str, column: str, kind: str, value: pa.Scalar) -> Iterator[int]:
    """The numbers, from 0, of a file's rows whose column, read as the engine's `kind`, is `value`.

    Only the row groups are read whose statistics do not rule it out, and of them only the column.
    """
    wanted = value.cast(ARROW_TYPES[kind])
    with _opened(fs, path) as file:
        first = 0
        for group in range(file.num_row_groups):
            if _may_hold(file.metadata.row_group(group), column, wanted.as_py()):
                values = converted(file.read_row_group(group, [column]).column(column), kind)
                found = pc.equal(values, wanted).fill_null(False).to_numpy()
                yield from (first + np.flatnonzero(found)).tolist()
            first += file.metadata.row_group(group).num_rows


def row_at(fs: fsspec.AbstractFileSystem, path: str, number: int) -> dict[str, Any]:
    """The values of a file's row `number`, from 0, as they stand in the file."""
    with _opened(fs, path) as file:
        first = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if number < first + rows:
                for batch in file.iter_batches(BATCH, row_groups=[group]):
                    if number < first + batch.num_rows:
                        row: dict[str, Any] = batch.slice(number - first, 1).to_pylist()[0]
                        return row
                    first += batch.num_rows
            first += rows
    raise StorageError(f"{path} has no row {number + 1}; it is another file than it was.")


class _opened:
    """A Parquet file for a block; what it raises becomes one message."""

    def __init__(self, fs: fsspec.AbstractFileSystem, path: str) -> None:
        self._fs, self._path = fs, path

    def __enter__(self) -> pq.ParquetFile:
        try:
            self._raw = self._fs.open(self._path, "rb")
            return pq.ParquetFile(self._raw)
        except (OSError, pa.ArrowException) as error:
            raise StorageError(f"{self._path} cannot be read: {error}") from error

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._raw.close()
        if isinstance(error, (OSError, pa.ArrowException)):
            raise StorageError(f"{self._path} cannot be read: {error}") from error


def _may_hold(group: pq.RowGroupMetaData, column: str, value: Any) -> bool:
    """Whether the statistics of a row group allow a column to have a value; they are bounds, where there are some."""
    chunks = (group.column(i) for i in range(group.num_columns))
    statistics = next((chunk.statistics for chunk in chunks if chunk.path_in_schema == column), None)
    if statistics is None or not statistics.has_min_max or type(statistics.min) is not type(value):
        return True
    return bool(statistics.min <= value <= statistics.max)
