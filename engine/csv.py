"""CSV files as typed Parquet: messy text in, pieces of one schema out, broken rows set aside.

Reading needs two looks at a file: its head, from which column names and types are inferred, and
later all of it, block by block, so that memory does not grow with the file.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from treadle.engine.backend import ARROW_TYPES, kind_of_arrow
from treadle.engine.csv_blocks import Block, blocks, read_head
from treadle.engine.csv_text import CsvOptions
from treadle.engine.csv_values import convert, infer, is_integer, unite
from treadle.engine.store import storage_errors
from treadle.errors import RequestError, column_not_found, did_you_mean

__all__ = ["BadRow", "CsvOptions", "CsvPart", "convert_file", "infer_schema"]

BLOCK_BYTES = 64 * 2**20
ROW_GROUP = 131_072
SHOWN_VALUE = 60
"""Characters of a value in a reason."""


@dataclass(frozen=True)
class BadRow:
    """A row that was set aside: the 1-based physical line it starts on, why, and its first 1,000 characters."""

    file: str
    line: int
    reason: str
    text: str


@dataclass(frozen=True)
class CsvPart:
    """A Parquet file that holds consecutive good rows."""

    path: str
    rows: int
    bytes: int


def infer_schema(fs: fsspec.AbstractFileSystem, paths: Sequence[str], options: CsvOptions) -> pa.Schema:
    """Names and types of the columns, from the head of every file (4 MiB or 20,000 rows).

    Types are int64, float64, bool, timestamp[us] and string; int and float together make float,
    other mixtures and columns without any value make string. The order of columns is the first file's.

    Raises
    ------
    RequestError
        Files whose column names differ, a given type for a column that is not there.
    DataError
        A file that is empty, or whose header cannot be read.
    """
    with ThreadPoolExecutor(4) as pool:
        heads = list(pool.map(lambda path: _inferred_head(fs, path, options), paths))
    names = list(heads[0])
    for path, kinds in zip(paths[1:], heads[1:], strict=True):
        _check_names(path, list(kinds), f"'{paths[0]}'", names)
    for name in options.types:
        if name not in names:
            raise column_not_found(name, "data.types", names)
    united = {name: _given_kind(name, options) or unite(kinds[name] for kinds in heads) for name in names}
    return pa.schema([pa.field(name, ARROW_TYPES[kind]) for name, kind in united.items()])


def convert_file(
    fs: fsspec.AbstractFileSystem,
    path: str,
    schema: pa.Schema,
    options: CsvOptions,
    out_fs: fsspec.AbstractFileSystem,
    out_prefix: str,
    block_bytes: int = BLOCK_BYTES,
) -> tuple[list[CsvPart], list[BadRow]]:
    """Writes the good rows to <out_prefix>-00000.parquet and so on, in order, and returns the bad ones.

    A block of `block_bytes` of text makes one part, which appears under its name when it is whole.
    Columns are matched by name when the file has a header.

    Raises
    ------
    RequestError
        The file's columns are not those of `schema`.
    DataError
        The file is empty, or cannot be decompressed.
    StorageError
        The parts cannot be written.
    """
    head = read_head(fs, path, options)
    _check_names(path, head.names, "the schema", schema.names)
    parts: list[CsvPart] = []
    bad: list[BadRow] = []
    has_header = options.header
    for block in blocks(fs, path, options, len(head.names), head.shortest, block_bytes):
        table, reasons = _typed(block, head.names, schema, options, has_header=has_header)
        has_header = False
        bad += [
            BadRow(path, block.line_of(record), reason, block.text_of(record))
            for record, reason in sorted(reasons.items())
        ]
        if table.num_rows:
            parts.append(_write(out_fs, f"{out_prefix}-{len(parts):05d}.parquet", table))
    return parts, bad


def _typed(
    block: Block, names: Sequence[str], schema: pa.Schema, options: CsvOptions, *, has_header: bool
) -> tuple[pa.Table, dict[int, str]]:
    """The rows whose values all convert, in the columns of `schema`; and why other records do not."""
    reasons = block.faults(len(names), options.encoding)
    keep = block.readable(reasons, has_header=has_header)
    texts = dict(zip(names, block.columns(keep, options.quote, options.null_tokens), strict=True))
    rows = block.records.rows[keep]
    columns = []
    good = np.ones(len(rows), np.bool_)
    for field in schema:
        values = texts.pop(field.name)
        kind = kind_of_arrow(field.type) or "text"
        typed = convert(values, kind, options, given=field.name in options.types)
        columns.append(typed)
        if typed.null_count > values.null_count:
            failed = np.asarray(pc.and_(pc.is_valid(values), pc.is_null(typed))) & good
            words = _misfits(field.name, values.filter(pa.array(failed)), kind, options)
            reasons.update(zip(rows[failed].tolist(), words, strict=True))
            good &= ~failed
    table = pa.Table.from_arrays(columns, schema=schema)
    return table if good.all() else table.filter(pa.array(good)), reasons


def _misfits(name: str, values: pa.StringArray, kind: str, options: CsvOptions) -> list[str]:
    """Why each value is not of its column's type, with the remedy where one is evident."""
    remedies = pa.repeat("", len(values))
    if kind == "timestamp":
        remedies = pa.repeat(" (other forms than ISO 8601 are named in data.date_formats)", len(values))
    elif kind == "int" and name not in options.types:
        why = " (the type was inferred from the first rows; set data.types: {{{}: {}}})"
        is_float = pc.is_valid(convert(values, "float", options))
        float_, text = why.format(name, "float"), why.format(name, "text")
        remedies = pc.if_else(is_float, pc.if_else(is_integer(values), text, float_), "")
    article = "an" if kind == "int" else "a"
    return [
        f"column '{name}': '{value[:SHOWN_VALUE]}{'...' * (len(value) > SHOWN_VALUE)}' is not {article} {kind}{remedy}"
        for value, remedy in zip(values.to_pylist(), remedies.to_pylist(), strict=True)
    ]


def _inferred_head(fs: fsspec.AbstractFileSystem, path: str, options: CsvOptions) -> dict[str, str]:
    head = read_head(fs, path, options)
    return {
        name: "null" if name in options.types else infer(values, options)
        for name, values in zip(head.names, head.sample, strict=True)
    }


def _given_kind(name: str, options: CsvOptions) -> str | None:
    given = options.types.get(name)
    return "timestamp" if given == "date" else given


def _check_names(path: str, names: Sequence[str], other: str, expected: Sequence[str]) -> None:
    lacking = [name for name in expected if name not in names]
    surplus = [name for name in names if name not in expected]
    if not lacking and not surplus:
        return
    if lacking:
        fault = f"'{path}' has no column '{lacking[0]}', which {other} has.{did_you_mean(lacking[0], surplus)}"
    else:
        fault = f"'{path}' has a column '{surplus[0]}', which {other} has not.{did_you_mean(surplus[0], expected)}"
    raise RequestError(f"The input's files differ: {fault}")


def _write(fs: fsspec.AbstractFileSystem, path: str, table: pa.Table) -> CsvPart:
    temporary = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
    with storage_errors(path):
        fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        try:
            with fs.open(temporary, "wb") as file:
                pq.write_table(table, file, compression="zstd", row_group_size=ROW_GROUP)
            size = fs.size(temporary)
            if "file" in fs.protocol:
                os.replace(temporary, path)
            else:
                fs.mv(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                fs.rm_file(temporary)
            raise
    return CsvPart(path, table.num_rows, size)
