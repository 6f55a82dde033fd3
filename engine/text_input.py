"""Inputs of every format as the engine takes them: Parquet where it is, text files converted to Parquet once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from treadle.engine import csv
from treadle.engine.artifacts import Part
from treadle.engine.backend import ARROW_TYPES, kind_of_arrow
from treadle.engine.csv_blocks import read_head
from treadle.engine.inputs import Inspected, file_of_text, filesystem, find_files, inspect_parquet
from treadle.engine.job import Data
from treadle.engine.store import Store
from treadle.errors import DataError

SHOWN_BAD_ROWS = 5
QUARANTINE = pa.schema([("file", pa.string()), ("line", pa.int64()), ("reason", pa.string()), ("text", pa.string())])


def csv_options(data: Data) -> csv.CsvOptions:
    """The reader's options from the spec's section."""
    return csv.CsvOptions(
        delimiter=data.delimiter,
        quote=data.quote,
        encoding=data.encoding,
        decimal=data.decimal,
        null_tokens=data.null_tokens,
        header=data.header,
        names=data.names,
        date_formats=data.date_formats,
        types=data.types,
    )


def inspect(paths: str | Sequence[str], format_: str | None, options: csv.CsvOptions) -> Inspected:
    """The input as its footers and heads describe it."""
    found, files = find_files(paths, format_)
    if found == "parquet":
        return inspect_parquet(files)
    fs, _ = filesystem(files[0])
    schema = csv.infer_schema(fs, files, options)
    kinds = {field.name: kind_of_arrow(field.type) or "text" for field in schema}
    described = [file_of_text(file) for file in files]
    if set(kinds.values()) == {"text"} and not any(len(read_head(fs, f, options).sample[0]) for f in files):
        described = [replace(file, rows=0) for file in described]
    return Inspected("csv", tuple(described), kinds, options)


def convert_file(
    task: tuple[int, str], store: Store, source: Inspected, prefix: str
) -> tuple[list[Part], list[pa.Table]]:
    """On a worker: one text file as Parquet parts named after `prefix`, and its broken rows as tables."""
    number, path = task
    fs, bare = filesystem(path)
    schema = pa.schema([pa.field(name, ARROW_TYPES[kind]) for name, kind in source.kinds.items()])
    relative = f"{prefix}-{number:05d}"
    parts, bad = csv.convert_file(fs, bare, schema, source.options or csv.CsvOptions(), store.fs, store.path(relative))
    written = [
        Part(path=f"{relative}{part.path.removeprefix(store.path(relative))}", rows=part.rows, bytes=part.bytes)
        for part in parts
    ]
    rows = [{"file": path, "line": row.line, "reason": row.reason, "text": row.text} for row in bad]
    return written, [pa.Table.from_pylist(rows, QUARANTINE)] if rows else []


def rejected(bad: Sequence[pa.Table], limit: int, remedy: str) -> pa.Table | None:
    """The broken rows of all files together, None when there are none.

    Raises
    ------
    DataError
        There are more than `limit`; names the first few.
    """
    if not bad:
        return None
    table = pa.concat_tables(bad)
    if table.num_rows > limit:
        shown = "\n".join(
            f"  {row['file']}, line {row['line']}: {row['reason']}"
            for row in table.slice(0, SHOWN_BAD_ROWS).to_pylist()
        )
        raise DataError(
            f"{table.num_rows} rows cannot be read, more than data.bad_rows.limit = {limit}:\n{shown}\n{remedy}"
        )
    return table
