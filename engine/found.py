"""What buckets of exchanged rows find of the rows in them goes back to the partitions, as row numbers in files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from treadle.engine.artifacts import Piece
from treadle.engine.context import Context
from treadle.engine.document import Part
from treadle.engine.exchange import Partitions, pieces_of, write_batches
from treadle.engine.operation import ROW_ID, ROW_ORDER
from treadle.engine.program import Program, read_piece
from treadle.engine.store import Store

DIGEST = ("high", "low")
"""Columns of the two halves of a row's digest."""
EXCHANGED = {ROW_ID: "int", ROW_ORDER: "int", **dict.fromkeys(DIGEST, "int")}
"""What is exchanged of a row to find those that repeat it, with the kinds of the columns."""


def find(
    context: Context,
    partitions: Partitions,
    program: Program,
    buckets: Sequence[tuple[Piece, ...]],
    repeated: Sequence[str],
    name: str,
) -> tuple[list[tuple[Piece, ...]], tuple[Part, ...]]:
    """For each partition the numbers of its rows that are found, as pieces of files; and these files.

    Found are the rows that the program leaves of the buckets, none of which is empty; of rows with equal values in
    `repeated` all but the first, if any columns are given.
    """
    starts = tuple(partition[0].offset for partition in partitions)
    prefix = f"{context.folder}/{name}"
    futures = context.submit(find_in_bucket, list(enumerate(buckets)), program, repeated, starts, prefix)
    written = context.gather(futures)
    return pieces_of(written, len(partitions)), tuple(part for part, _ in written)


def find_in_bucket(
    item: tuple[int, Sequence[Piece]], program: Program, repeated: Sequence[str], starts: Sequence[int], prefix: str
) -> tuple[Part, tuple[int, ...]]:
    """On a worker: one bucket. The file has a batch a partition; `starts` are the numbers of their first rows."""
    number, bucket = item
    frame = program.rows(bucket)
    if repeated:
        frame = frame[frame.duplicated(subset=list(repeated))]
    numbers = np.sort(frame[ROW_ID].to_numpy("int64"))
    groups = np.searchsorted(np.asarray(starts), numbers, side="right") - 1
    table = pa.table({ROW_ID: pa.array(numbers)})
    return write_batches(program.store, f"{prefix}-{number:05d}.arrow", table, groups, len(starts))


def numbers_of(store: Store, pieces: Sequence[Piece]) -> np.ndarray:
    """The row numbers in pieces of exchanged rows, (rows,) int64."""
    tables = [read_piece(store, piece, {ROW_ID: "int"}) for piece in pieces]
    return pa.concat_tables(tables).column(ROW_ID).to_numpy() if tables else np.zeros(0, dtype=np.int64)
