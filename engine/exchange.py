"""Exchange: rows with equal keys into the same partition, through files under the artifacts root.

Every partition writes one file whose record batches are its buckets; a new partition is one bucket of all
the files. A bucket is a range of hashes of the keys, and how many there are follows from the size of the
data, not from the partitions or workers: so the rows of a bucket do not depend on these. Rows take their
place in the order along (`__order__`), and in a partition they lie in it again. Files outlive the workers
that wrote them, and what a dead one had not finished is written again with the same content. Memory is that
of a partition and of a bucket; the exchanged rows themselves lie on disk.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from treadle.engine.artifacts import Part, Piece, Role
from treadle.engine.backend import kinds_of
from treadle.engine.context import Context
from treadle.engine.inputs import row_bytes
from treadle.engine.operation import ROW_ORDER
from treadle.engine.program import Program
from treadle.engine.relational.keys import hash_rows
from treadle.engine.store import Store
from treadle.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

BUCKET_BYTES = 32 * 2**20
"""Memory of the rows of a bucket, about."""
MOST_BUCKETS = 1024
LARGEST_BUCKET = 16
"""A bucket of this many times the usual size holds a key with too many rows for one worker."""

Partitions = tuple[tuple[Piece, ...], ...]


def bucket_count(rows: int, bytes_a_row: int) -> int:
    """Buckets for so many rows: a power of two, 1 for what one worker has room for at once."""
    wanted = rows * bytes_a_row / BUCKET_BYTES
    return min(1 << max(int(np.ceil(np.log2(wanted))), 0), MOST_BUCKETS) if wanted > 1 else 1


def buckets_of(frame: pd.DataFrame, keys: Sequence[str], count: int) -> np.ndarray:
    """The bucket of each row, (rows,) int64."""
    if count == 1:
        return np.zeros(len(frame), dtype=np.int64)
    return (hash_rows(frame, keys) >> np.uint64(65 - count.bit_length())).astype(np.int64)


def scatter(
    item: tuple[int, Sequence[Piece]], program: Program, keys: Sequence[str], count: int, step: int, prefix: str
) -> tuple[Part, tuple[int, ...]]:
    """On a worker: the rows of one partition as a file with a batch a bucket; how many rows each has."""
    import pandas as pd

    number, partition = item
    frame = program.rows(partition)
    if ROW_ORDER not in frame.columns:
        # Rows that came in later, by a union, also come after in the order.
        first = (step << 50) | (number << 32)
        frame = frame.assign(**{ROW_ORDER: pd.array(np.arange(first, first + len(frame)), dtype="Int64")})
    return write_batches(
        program.store,
        f"{prefix}-{number:05d}.arrow",
        program.backend.table(frame),
        buckets_of(frame, keys, count),
        count,
    )


def write_batches(
    store: Store, relative: str, table: pa.Table, groups: np.ndarray, count: int
) -> tuple[Part, tuple[int, ...]]:
    """A table as a file with a batch for each group that has rows; `groups` (rows,) int64. How many rows each has."""
    from treadle.kernels.windows import order_groups

    index, start = order_groups(groups, count, None)
    table, rows = table.take(pa.array(index)).combine_chunks(), np.diff(start)
    with store.writing(relative) as file, pa.ipc.new_file(file, table.schema) as writer:
        for low, high in zip(start[:-1].tolist(), start[1:].tolist(), strict=True):
            if low < high:
                writer.write_table(table.slice(low, high - low), max_chunksize=high - low)
    size = store.fs.size(store.path(relative))
    return Part(path=relative, rows=len(index), bytes=size), tuple(rows.tolist())


def pieces_of(
    written: Sequence[tuple[Part, tuple[int, ...]]], count: int, role: Role = "any"
) -> list[tuple[Piece, ...]]:
    """The batches of each of `count` groups in several files, in the order of the files."""
    groups: list[list[Piece]] = [[] for _ in range(count)]
    for part, rows in written:
        batches = itertools.count()
        for group, n in enumerate(rows):
            if n:
                piece = Piece(path=part.path, own=True, start=0, stop=n, offset=0, role=role, batch=next(batches))
                groups[group].append(piece)
    return [tuple(pieces) for pieces in groups]


def exchange(
    context: Context,
    program: Program,
    partitions: Partitions,
    keys: Sequence[str],
    count: int,
    step: int,
    name: str,
) -> tuple[Partitions, tuple[Part, ...]]:
    """Rows of the program before `step` by bucket, empty ones included, and the files that hold them.

    The training and the test rows of a split by path stay apart: each have all buckets.

    Raises
    ------
    DataError
        One key has more rows than a worker has room for.
    """
    made: list[tuple[Piece, ...]] = []
    files: list[Part] = []
    for role in roles_of(partitions):
        of_role = [p for p in partitions if p[0].role == role]
        prefix = f"{context.folder}/{name}-{step}-{role}"
        futures = context.submit(scatter, list(enumerate(of_role)), program, keys, count, step, prefix)
        written = context.gather(futures, rows=lambda result: result[0].rows)
        files += [part for part, _ in written]
        made += pieces_of(written, count, role)
    _refuse_skew(made, row_bytes(kinds_of(program.empty())), keys)
    return tuple(made), tuple(files)


def merged(partitions: Partitions) -> Partitions:
    """All rows in one partition, or one for the training and one for the test rows of a split by path."""
    return tuple(
        tuple(piece for partition in partitions if partition[0].role == role for piece in partition)
        for role in roles_of(partitions)
    )


def roles_of(partitions: Partitions) -> list[Role]:
    """The roles that there are, in order."""
    return list(dict.fromkeys(partition[0].role for partition in partitions))


def _refuse_skew(partitions: Sequence[Sequence[Piece]], bytes_a_row: int, keys: Sequence[str]) -> None:
    largest = max((sum(piece.rows for piece in partition) for partition in partitions), default=0)
    if largest * bytes_a_row > LARGEST_BUCKET * max(BUCKET_BYTES, 1) and len(partitions) > 1:
        raise DataError(
            f"Rows with equal {list(keys)} must lie together, and one group of them has up to {largest} rows "
            f"({largest * bytes_a_row / 2**30:.1f} GiB), too many for one worker: a few values of the key are most of "
            "the data. Filter those values out (null among them), or group by more columns."
        )
