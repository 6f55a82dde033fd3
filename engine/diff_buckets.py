"""Rows of two tables side by side: all at once while they fit the memory, else by a hash of their key, on disk."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from pyarrow import ipc

from treadle.engine.backend import Backend, converted, kind_of_arrow
from treadle.engine.relational.keys import hash_rows
from treadle.engine.store import storage_errors

MOST_BUCKETS = 256
"""As many files are open at once."""
_OPTIONS = ipc.IpcWriteOptions(compression="lz4")

Batches = Iterator[pa.RecordBatch]


def buckets(
    sides: tuple[Batches, Batches], schema: pa.Schema, key: Sequence[str], rows: int, memory: int
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """The rows of both sides, so that all rows of a key come together.

    What does not fit `memory` bytes goes through files in a temporary folder of this machine. The rows of a single
    key are never taken apart.

    Parameters
    ----------
    sides
        Batches of `schema`.
    rows
        Of both sides.
    """
    held: tuple[list[pa.RecordBatch], list[pa.RecordBatch]] = ([], [])
    size = 0
    for side, batches in enumerate(sides):
        for batch in batches:
            held[side].append(batch)
            size += batch.nbytes
            if size > memory:
                break
        if size > memory:
            break
    else:
        yield _table(held[0], schema), _table(held[1], schema)
        return
    seen = sum(batch.num_rows for some in held for batch in some)
    count = min(int(np.ceil(2 * rows / seen)), MOST_BUCKETS)
    with storage_errors(tempfile.gettempdir()), tempfile.TemporaryDirectory(prefix="treadle-diff-") as folder:
        for side, batches in enumerate(sides):
            _scatter(_chain(held[side], batches), f"{folder}/{side}", schema, key, count, memory // 8)
        for bucket in range(count):
            yield _read(f"{folder}/0-{bucket}", schema), _read(f"{folder}/1-{bucket}", schema)


def _table(batches: list[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    """One chunk a column; the batches are let go of."""
    table = pa.Table.from_batches(batches, schema)
    batches.clear()
    return table.combine_chunks()


def _chain(held: list[pa.RecordBatch], others: Batches) -> Batches:
    """Those that are held, which are let go of, then the others."""
    held.reverse()
    while held:
        yield held.pop()
    yield from others


def _scatter(batches: Batches, prefix: str, schema: pa.Schema, key: Sequence[str], count: int, size: int) -> None:
    """Writes a file for each bucket; some `size` bytes of rows are sorted into buckets at once."""
    with contextlib.ExitStack() as closing:
        writers = []
        for bucket in range(count):
            file = closing.enter_context(pa.OSFile(f"{prefix}-{bucket}", "wb"))
            writers.append(closing.enter_context(ipc.new_stream(file, schema, options=_OPTIONS)))
        for table in _gathered(batches, schema, size):
            places = _places(table, key, count)
            ordered = table.take(pa.array(np.argsort(places, kind="stable"))).combine_chunks()
            ends = np.cumsum(np.bincount(places, minlength=count))
            for bucket, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
                if end > start:
                    writers[bucket].write_table(ordered.slice(start, end - start))


def _gathered(batches: Batches, schema: pa.Schema, size: int) -> Iterator[pa.Table]:
    some: list[pa.RecordBatch] = []
    for batch in batches:
        some.append(batch)
        if sum(one.nbytes for one in some) >= size:
            yield pa.Table.from_batches(some, schema)
            some = []
    yield pa.Table.from_batches(some, schema)


def _places(table: pa.Table, key: Sequence[str], count: int) -> np.ndarray:
    """The bucket of each row, (rows,) int64."""
    columns = {name: converted(table[name], kind_of_arrow(table[name].type) or "text") for name in key}
    return (hash_rows(Backend().frame(pa.table(columns)), key) % np.uint64(count)).astype(np.int64)


def _read(path: str, schema: pa.Schema) -> pa.Table:
    with pa.OSFile(path, "rb") as file, ipc.open_stream(file) as reader:
        table = reader.read_all().combine_chunks()
    os.unlink(path)
    return table
