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

from treadle.engine.artifacts import Piece, Role, rows_of
from treadle.engine.backend import kinds_of
from treadle.engine.context import Context
from treadle.engine.document import Part
from treadle.engine.inputs import row_bytes
from treadle.engine.operation import ROW_ORDER
from treadle.engine.program import Program
from treadle.engine.relational.keys import hash_rows, repeats
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
    named = f"exchange of rows by {', '.join(keys)}" if keys else "exchange of rows"
    program.backend.fell_back(named, "on the host, since the hash of keys has no version for GPUs")
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
    remedy: str = "",
) -> tuple[Partitions, tuple[Part, ...]]:
    """Rows of the program before `step` by bucket, empty ones included, and the files that hold them.

    `remedy` is what a message names besides the usual.

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
    largest = max((rows_of(partition) for partition in made), default=0)
    refuse_too_many(largest, row_bytes(kinds_of(program.empty())), keys, remedy)
    return tuple(made), tuple(files)


def exchanged(program: Program) -> Program:
    """What reads the rows of a program after an exchange, and does nothing with them yet.

    They bring `__id__` along, even where an operation dropped the column that it is from.
    """
    kinds = {**kinds_of(program.empty()), ROW_ORDER: "int"}
    id_column = program.id_column if program.id_column in kinds else None
    return Program(program.store, program.backend, tuple(kinds.items()), id_column, ())


def exchange_both(
    context: Context,
    here: tuple[Program, Partitions],
    there: tuple[Program, Partitions],
    keys: Sequence[str],
    step: int,
    names: tuple[str, str],
) -> tuple[Partitions, tuple[Part, ...]]:
    """Rows of two tables by the same keys: partitions with rows of `here`, and those of `there` marked for `step`."""
    count = max(bucket_count(sum(map(rows_of, partitions)), width_of(program)) for program, partitions in (here, there))
    rows, files = exchange(context, *here, keys, count, step, names[0])
    others, of_others = exchange(context, *there, keys, count, step, names[1])
    marked = [tuple(piece.model_copy(update={"step": step}) for piece in bucket) for bucket in others]
    # The training and the test rows of a split by path have all buckets each, and another table has no such sides.
    every = marked * len(roles_of(here[1])) or [()] * len(rows)
    return tuple((*own, *other) for own, other in zip(rows, every, strict=True) if own), (*files, *of_others)


def keys_repeated(context: Context, there: Program, matched: Partitions, step: int, on: Sequence[str]) -> int:
    """How many keys occur more than once among the rows of another table that was exchanged, marked for `step`.

    Those that lie in buckets without a row here are not counted; they match nothing.
    """
    others = [tuple(piece for piece in bucket if piece.step == step) for bucket in matched]
    # The training and the test rows of a split by path meet the same bucket. Unmarked, its rows are like any.
    buckets = {
        (bucket[0].path, bucket[0].batch): [piece.model_copy(update={"step": None}) for piece in bucket]
        for bucket in others
        if bucket
    }
    program = exchanged(there).pruned(on)
    return sum(context.gather(context.submit(repeats_in, list(buckets.values()), program, on)))


def repeats_in(bucket: Sequence[Piece], program: Program, on: Sequence[str]) -> int:
    """On a worker: as `keys_repeated`, of a bucket, which has all rows of its keys."""
    return repeats(program.rows(bucket), on)


def width_of(program: Program) -> int:
    """Bytes of a row in memory, as it is read or as it becomes, whichever is more."""
    return max(row_bytes(dict(program.kinds)), row_bytes(kinds_of(program.empty())))


def merged(partitions: Partitions) -> Partitions:
    """All rows in one partition, or one for the training and one for the test rows of a split by path."""
    return tuple(
        tuple(piece for partition in partitions if partition[0].role == role for piece in partition)
        for role in roles_of(partitions)
    )


def roles_of(partitions: Partitions) -> list[Role]:
    """The roles that there are, in order."""
    return list(dict.fromkeys(partition[0].role for partition in partitions))


def refuse_too_many(rows: int, bytes_a_row: int, keys: Sequence[str], remedy: str = "") -> None:
    """DataError where rows that must lie together are more than a worker has room for."""
    size = rows * bytes_a_row
    if size <= LARGEST_BUCKET * BUCKET_BYTES:
        return
    if not keys:
        raise DataError(
            f"Without `by`, all {rows} rows ({size / 2**30:.1f} GiB) must lie together, too many for one worker; name "
            "columns in `by`, or aggregate the rows before."
        )
    raise DataError(
        f"Rows with equal {list(keys)} must lie together, and one group of them has up to {rows} rows "
        f"({size / 2**30:.1f} GiB), too many for one worker: a few values of the key are most of the data. Filter "
        f"those values out (null among them), or group by more columns{remedy}."
    )
