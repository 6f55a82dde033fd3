"""CSV files as typed Parquet: messy text in, pieces of one schema out, broken rows set aside.

Reading needs two looks at a file: its head, from which column names and types are inferred, and
later all of it, block by block, so that memory does not grow with the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from treadle.engine.backend import ARROW_TYPES
from treadle.engine.inputs import filesystem
from treadle.engine.readers.csv_blocks import Block, blocks, read_head
from treadle.engine.readers.options import TextOptions
from treadle.engine.readers.parts import BLOCK_BYTES, BadRow, Parts
from treadle.engine.readers.schemas import NULL, Rules, Sampled
from treadle.engine.readers.values import convert, infer, is_integer
from treadle.errors import DataError, did_you_mean

RULES = Rules(mixed_is_text=True)
SHOWN_VALUE = 60
"""Characters of a value in a reason."""


def sample(path: str, options: TextOptions) -> Sampled:
    """Names and kinds of a file's columns, from its head (4 MiB or 20,000 rows).

    A kind is the narrowest of bool, int, float, timestamp and text that all values have.

    Raises
    ------
    RequestError
        Another delimiter is meant, or other names.
    DataError
        A file that is empty, or whose header cannot be read.
    """
    head = read_head(*filesystem(path), options)
    kinds = {
        name: NULL if name in options.types else infer(values, options)
        for name, values in zip(head.names, head.sample, strict=True)
    }
    return Sampled({name: {kind: f"'{path}'"} for name, kind in kinds.items()}, head.has_rows)


def convert_file(
    path: str,
    kinds: Mapping[str, str],
    left_out: Mapping[str, str],
    options: TextOptions,
    out: Parts,
    block_bytes: int = BLOCK_BYTES,
) -> None:
    """Reads a file into `out`; a block of `block_bytes` of text makes one part.

    Columns are matched by name when the file has a header.

    Raises
    ------
    DataError
        The file is empty, cannot be decompressed, or has other columns than `kinds`.
    StorageError
        The parts cannot be written.
    """
    fs, bare = filesystem(path)
    head = read_head(fs, bare, options)
    _check_names(path, head.names, list(kinds))
    has_header = options.header
    for block in blocks(fs, bare, options, len(head.names), head.shortest, block_bytes):
        table, reasons = _typed(block, head.names, kinds, options, has_header=has_header)
        has_header = False
        for record, reason in sorted(reasons.items()):
            out.refuse(BadRow(path, block.line_of(record), reason, block.text_of(record)))
        out.add(table)


def _typed(
    block: Block, names: Sequence[str], kinds: Mapping[str, str], options: TextOptions, *, has_header: bool
) -> tuple[pa.Table, dict[int, str]]:
    """The rows whose values all convert, in the columns `kinds`; and why other records do not."""
    reasons = block.faults(len(names), options.encoding)
    keep = block.readable(reasons, has_header=has_header)
    texts = dict(zip(names, block.columns(keep, options.quote, options.null_tokens), strict=True))
    rows = block.records.rows[keep]
    columns = {}
    good = np.ones(len(rows), np.bool_)
    for name, kind in kinds.items():
        values = texts.pop(name)
        typed = convert(values, kind, options, given=name in options.types)
        columns[name] = typed
        if typed.null_count > values.null_count:
            failed = np.asarray(pc.and_(pc.is_valid(values), pc.is_null(typed))) & good
            words = misfits(name, values.filter(pa.array(failed)), kind, options)
            reasons.update(zip(rows[failed].tolist(), words, strict=True))
            good &= ~failed
    table = pa.table(columns, pa.schema([(name, ARROW_TYPES[kind]) for name, kind in kinds.items()]))
    return table if good.all() else table.filter(pa.array(good)), reasons


def misfits(name: str, values: pa.StringArray, kind: str, options: TextOptions) -> list[str]:
    """Why each value is not of its column's type, with the remedy where one is evident."""
    remedies = pa.repeat("", len(values))
    if kind == "timestamp":
        remedies = pa.repeat(" (other forms than ISO 8601 are named in data.date_formats)", len(values))
    elif kind == "int" and name not in options.types:
        why = " (the type was inferred from the first rows; set data.types: {{{}: {}}})"
        is_float = pc.is_valid(convert(values, "float", options))
        float_, text = why.format(name, "float"), why.format(name, "text")
        remedies = pc.if_else(is_float, pc.if_else(is_integer(values, options), text, float_), "")
    article = "an" if kind == "int" else "a"
    return [
        f"column '{name}': '{value[:SHOWN_VALUE]}{'...' * (len(value) > SHOWN_VALUE)}' is not {article} {kind}{remedy}"
        for value, remedy in zip(values.to_pylist(), remedies.to_pylist(), strict=True)
    ]


def _check_names(path: str, names: Sequence[str], expected: Sequence[str]) -> None:
    """Refuses a file that has changed since its head was looked at."""
    lacking = [name for name in expected if name not in names]
    surplus = [name for name in names if name not in expected]
    if lacking:
        near = did_you_mean(lacking[0], surplus)
        raise DataError(f"'{path}' has no column '{lacking[0]}', which the schema has.{near}")
    if surplus:
        near = did_you_mean(surplus[0], expected)
        raise DataError(f"'{path}' has a column '{surplus[0]}', which the schema has not.{near}")
