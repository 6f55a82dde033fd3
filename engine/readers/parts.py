"""What becomes of a text file: Parquet parts of its good rows, and a list of the broken ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from treadle.engine.backend import ARROW_TYPES
from treadle.engine.store import ROW_GROUP, whole_file
from treadle.errors import DataError

BLOCK_BYTES = 64 * 2**20
"""Text of one part, and what a worker holds of it at a time."""
MOST_BAD_ROWS = 1_000_000
"""Of one file: past this it is something else than what was asked for, and a worker would fill up."""


@dataclass(frozen=True)
class BadRow:
    """A row that was set aside: the 1-based physical line it starts on, why, and its first 1,000 characters."""

    file: str
    line: int
    reason: str
    text: str


@dataclass(frozen=True)
class TextPart:
    """A Parquet file that holds consecutive good rows."""

    path: str
    rows: int
    bytes: int


class Parts:
    """Collects what is read of one text file; parts are <prefix>-00000.parquet and so on, in order."""

    def __init__(
        self,
        fs: fsspec.AbstractFileSystem,
        prefix: str,
        constants: Mapping[str, tuple[str, str | None]] | None = None,
    ) -> None:
        """`constants` are columns that have one value in the whole file: name -> kind and value as text."""
        self._fs, self._prefix = fs, prefix
        self._constants = constants or {}
        self.written: list[TextPart] = []
        self.bad: list[BadRow] = []

    def add(self, table: pa.Table) -> None:
        """Writes the rows of a table, if any, as one part, which appears under its name when it is whole.

        Raises
        ------
        StorageError
            The part cannot be written.
        """
        if not table.num_rows:
            return
        for name, (kind, text) in self._constants.items():
            table = table.append_column(name, constant(text, kind, table.num_rows))
        path = f"{self._prefix}-{len(self.written):05d}.parquet"
        self.written.append(TextPart(path, table.num_rows, _write(self._fs, path, table)))

    def refuse(self, row: BadRow) -> None:
        """Sets a row aside.

        Raises
        ------
        DataError
            These are too many rows for a file of the kind that was asked for.
        """
        if len(self.bad) == MOST_BAD_ROWS:
            first = self.bad[0]
            raise DataError(
                f"More than {MOST_BAD_ROWS} rows of '{row.file}' cannot be read; the first is line {first.line}: "
                f"{first.reason}. Look at the file and the keys of data."
            )
        self.bad.append(row)


def constant(text: str | None, kind: str, rows: int) -> pa.Array:
    """`rows` times the value that a text stands for, in the engine's Arrow type."""
    return pa.repeat(pa.array([text], pa.string()).cast(ARROW_TYPES[kind])[0], rows)


def _write(fs: fsspec.AbstractFileSystem, path: str, table: pa.Table) -> int:
    with whole_file(fs, path) as file:
        pq.write_table(table, file, compression="zstd", row_group_size=ROW_GROUP)
        return file.tell()
