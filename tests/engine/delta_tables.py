"""Small Parquet files and Delta tables for the tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from treadle.engine import delta
from treadle.engine.commits import commit_table
from treadle.engine.delta import TableVersion
from treadle.engine.delta_files import DataFile

FS = fsspec.filesystem("file")
INTS = pa.schema([("x", pa.int64())])


def write(path: Path, table: pa.Table, rows_per_group: int = 1000) -> DataFile:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=rows_per_group)
    return DataFile(str(path), table.num_rows, path.stat().st_size)


def ints(*values: int) -> pa.Table:
    return pa.table({"x": pa.array(values, pa.int64())})


def fingerprint(name: str) -> str:
    return name.ljust(16, "0")


def commit(table: str, files: Sequence[DataFile], name: str, schema: pa.Schema = INTS) -> TableVersion:
    return commit_table(
        FS, table, files, schema, fingerprint=fingerprint(name), metadata={"treadle.run": f"run-{name}"}
    )


def values(table: str, version: int | None = None) -> list[Any]:
    return delta.read_arrow(delta.open_table(FS, table, version))["x"].to_pylist()
