"""Stage `duplicates`: rows that equal an earlier one in every column, counted, and left out where the spec says so.

One pass makes a digest of each row; of the rows of a partition that are equal the first stands for all. These are
exchanged by their digests, so that memory is that of a partition and of a bucket, and what a bucket finds goes back
to the partitions as row numbers. Rows that are left out stay in their files, as those that a contract sets aside do,
so that no other row gets another number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from treadle.engine.artifacts import Deduplicated, Piece, Source, rows_of
from treadle.engine.context import Context
from treadle.engine.document import Part
from treadle.engine.exchange import Partitions, bucket_count, exchange, exchanged
from treadle.engine.found import DIGEST, find, numbers_of
from treadle.engine.inputs import row_bytes
from treadle.engine.left_out import row_numbers, write_left_out
from treadle.engine.operation import ROW_ID, Operation
from treadle.engine.program import Program, Step
from treadle.engine.relational import Dedupe
from treadle.engine.relational.keys import ordered_keys
from treadle.engine.store import Store

if TYPE_CHECKING:
    import pandas as pd

REVISION = 1
STARTS = (0x0000000000000000, 0xD1B54A32D192ED03)
"""What the digests of the two halves begin with: any two numbers that differ."""


class RowDigests(Operation):
    """Whole rows become digests of 128 bits beside their ids.

    Null equals null and NaN, and -0.0 equals 0.0, as in every operation on keys. Among n rows two that differ have
    the same digest with a chance of n**2 / 2**129, 1e-19 for ten billion, if nobody made them to collide.
    """

    op: Literal["row_digests"] = "row_digests"

    def apply(self, frame: pd.DataFrame, side: pd.DataFrame | None = None) -> pd.DataFrame:
        import pandas as pd

        from treadle.kernels.digests import fold

        halves = [np.full(len(frame), start, dtype=np.uint64) for start in STARTS]
        for name in frame.columns:
            if name == ROW_ID:
                continue
            *keys, known = _keys(frame[name])
            for half, own in zip(halves, keys, strict=True):
                fold(own, known, 0, half)
        digests = {
            name: pd.array(half.view(np.int64), dtype="Int64") for name, half in zip(DIGEST, halves, strict=True)
        }
        return frame[[ROW_ID]].assign(**digests)


def _keys(series: pd.Series) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two keys of every value, (rows,) uint64 each, and which values are not null.

    Those of texts are two hashes that have nothing in common, those of other kinds the value itself.
    """
    if series.dtype.kind not in "OU":
        keys = ordered_keys(series)
        return keys, keys, series.notna().to_numpy(bool)
    import pandas as pd

    from treadle.engine.profile.texts import encoded

    levels, codes, hashes = encoded(series)
    others = pd.util.hash_array(levels.to_numpy(zero_copy_only=False), categorize=False)
    # The last place, where the code of a null points to, is no level's.
    first, second = (np.append(own, np.uint64(0))[codes] for own in (hashes, others))
    return first, second, codes >= 0


def run(context: Context, source: Source) -> Deduplicated:
    """Finds the rows that repeat another; the two inputs of a split by path are looked at each by itself."""
    steps = (Step(0, RowDigests()), Step(1, Dedupe(op="dedupe", columns=DIGEST)))
    program = Program(context.store, context.backend, tuple(source.kinds.items()), None, steps)
    digests = exchanged(program)
    count = bucket_count(source.rows, row_bytes(dict(digests.kinds)))
    buckets, files = exchange(context, program, source.partitions, DIGEST, count, 0, "digests")
    there = [bucket for bucket in buckets if bucket]
    found, written = find(context, source.partitions, digests, there, DIGEST, "repeated")
    repeated = source.rows - sum(part.rows for part in files) + sum(part.rows for part in written)
    in_both = _in_both(context, digests, buckets, count)
    drops = context.job.data.duplicates == "drop"
    kept = _without(context, source, there, files, found, repeated) if drops and repeated else source
    context.store.remove(*files, *written)
    return Deduplicated(
        source=kept,
        rows=source.rows,
        repeated=repeated,
        dropped=kept.left_out,
        in_both=in_both,
        warnings=tuple(_warnings(source.rows, repeated, drops, in_both)),
    )


def _warnings(rows: int, repeated: int, drops: bool, in_both: int | None) -> Iterator[str]:
    if repeated:
        done = " and are left out" if drops else "; data.duplicates: drop would leave them out"
        yield f"{repeated} of {rows} rows equal an earlier one in every column{done}"
    if in_both:
        yield (
            f"{in_both} distinct rows of the test input equal a training row in every column: what is measured on "
            "them is no test"
        )


def _in_both(context: Context, digests: Program, buckets: Partitions, count: int) -> int | None:
    """How many distinct rows of the second input are in the first; None where there is one input only."""
    if len(buckets) == count:
        return None
    pairs = [(one, other) for one, other in zip(buckets[:count], buckets[count:], strict=True) if one and other]
    return sum(context.gather(context.submit(common, pairs, digests)))


def common(pair: tuple[Sequence[Piece], Sequence[Piece]], digests: Program) -> int:
    """On a worker: how many digests two buckets have in common."""
    one, other = (digests.rows(bucket)[list(DIGEST)].drop_duplicates() for bucket in pair)
    return len(one.merge(other, on=list(DIGEST)))


def _without(
    context: Context,
    source: Source,
    buckets: Sequence[tuple[Piece, ...]],
    files: Sequence[Part],
    found: Sequence[tuple[Piece, ...]],
    repeated: int,
) -> Source:
    """The source without repeated rows: those of a partition that were not exchanged, and those that are `found`."""
    exchanged_of: dict[str, list[Piece]] = {part.path: [] for part in files}
    for bucket in buckets:
        for piece in bucket:
            exchanged_of[piece.path].append(piece)
    shares = [
        (number, pieces, exchanged_of[part.path], repeats)
        for number, (pieces, part, repeats) in enumerate(zip(source.partitions, files, found, strict=True))
        if repeats or part.rows < rows_of(pieces)
    ]
    left_out = context.gather(context.submit(leave_out, shares, context.store, context.folder))
    partitions = list(source.partitions)
    for (number, pieces, *_), part in zip(shares, left_out, strict=True):
        partitions[number] = tuple(piece.model_copy(update={"left_out": part.path}) for piece in pieces)
    return source.model_copy(
        update={"partitions": tuple(partitions), "files": (*source.files, *left_out), "left_out": repeated}
    )


def leave_out(share: tuple[int, Sequence[Piece], Sequence[Piece], Sequence[Piece]], store: Store, folder: str) -> Part:
    """On a worker: the numbers of a partition's rows without those that were exchanged and are not found, as a file."""
    number, pieces, distinct, repeats = share
    every = np.concatenate([row_numbers(store, piece) for piece in pieces])
    kept = np.setdiff1d(numbers_of(store, distinct), numbers_of(store, repeats), assume_unique=True)
    return write_left_out(
        store, f"{folder}/left-out-{number:05d}.parquet", np.setdiff1d(every, kept, assume_unique=True)
    )
