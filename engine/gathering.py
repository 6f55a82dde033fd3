"""Passes over the rows that end in small tables: groups of an aggregate, the bound of a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from treadle.engine.artifacts import Piece, Source, rows_of
from treadle.engine.backend import kinds_of
from treadle.engine.context import Context
from treadle.engine.exchange import Partitions, bucket_count, exchange, exchanged
from treadle.engine.inputs import InputFile, cut, row_bytes
from treadle.engine.preparing import contribution
from treadle.engine.program import Program
from treadle.engine.relational import Aggregate, Pivot, Sample
from treadle.engine.sides import BROADCAST_BYTES
from treadle.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

Grouping = Aggregate | Pivot


@dataclass(frozen=True)
class GroupTable:
    """What is to be gathered: an operation, and the program that makes the columns that it takes."""

    operation: Grouping
    program: Program
    index: int
    """Its place in the spec."""
    complete: bool = False
    """Whether all rows of a group lie in one partition, so that each can finish its own groups."""


def group_tables(context: Context, wanted: Sequence[GroupTable], partitions: Partitions) -> list[pd.DataFrame]:
    """The group tables, sorted by their keys. One pass over the rows makes all that need no exchange.

    The groups of a split by path are those of the training rows: the test file is not looked at.
    """
    training = tuple(partition for partition in partitions if partition[0].role != "test")
    rows = sum(rows_of(partition) for partition in training)
    tables: dict[int, pd.DataFrame] = {}
    together = []
    for number, table in enumerate(wanted):
        count = bucket_count(rows, row_bytes(kinds_of(table.program.empty())))
        if table.operation.is_holistic and not table.complete and count > 1:
            tables[number] = _by_exchange(context, table, training, count)
        else:
            together.append((number, table))
    if together:
        futures = context.submit(partials_of, training, tuple(table for _, table in together))
        merged = context.reduce(futures, _Merge(tuple(table for _, table in together)))
        for (number, table), found in zip(together, merged, strict=True):
            tables[number] = _finished(table, found)
    return [_small(tables[number], table.operation) for number, table in enumerate(wanted)]


def partials_of(partition: Sequence[Piece], wanted: Sequence[GroupTable]) -> list[Any]:
    """On a worker: what one partition contributes to each table; finished groups where it has all their rows."""
    found: list[Any] = []
    for table in wanted:
        where = f"tables.{table.index} ({table.operation.op})"
        partial = contribution(table.program.backend, table.operation, table.program.rows(partition), where)
        found.append(table.operation.finish(partial) if table.complete else partial)
    return found


@dataclass(frozen=True)
class _Merge:
    """On a worker: contributions of several partitions as one."""

    wanted: tuple[GroupTable, ...]

    def __call__(self, partials: list[list[Any]]) -> list[Any]:
        import pandas as pd

        return [
            pd.concat([p[i] for p in partials], ignore_index=True)
            if table.complete
            else table.operation.merge([p[i] for p in partials])
            for i, table in enumerate(self.wanted)
        ]


def _finished(table: GroupTable, found: Any) -> pd.DataFrame:
    if table.complete:
        return found.sort_values(list(table.operation.by), ignore_index=True)
    return table.operation.finish(found)


def _by_exchange(context: Context, table: GroupTable, partitions: Partitions, count: int) -> pd.DataFrame:
    """Where partials would be as large as the rows, the columns that are needed are exchanged by the keys."""
    operation, program = table.operation, table.program
    keys, remedy = operation.by, operation.mergeable
    buckets, files = exchange(context, program, partitions, keys, count, table.index, "groups", remedy)
    complete = GroupTable(operation, exchanged(program), table.index, complete=True)
    futures = context.submit(partials_of, [bucket for bucket in buckets if bucket], (complete,))
    (found,) = context.reduce(futures, _Merge((complete,)))
    context.store.remove(*files)
    return _finished(complete, found)


def _small(table: pd.DataFrame, operation: Grouping) -> pd.DataFrame:
    size = int(table.memory_usage(index=False).sum())
    if size > BROADCAST_BYTES:
        raise DataError(
            f"{operation.op} by {list(operation.by)}: {len(table)} groups take {size / 2**30:.1f} GiB, more than the "
            f"{BROADCAST_BYTES / 2**30:.0f} GiB that is sent to every worker; group by fewer columns."
        )
    return table


def as_source(context: Context, table: pd.DataFrame, where: str, index: int) -> Source:
    """One row a group as the new input."""
    if not len(table):
        raise DataError(f"{where}: no row is left to group; look at the filters before it.")
    part = context.store.write_parquet(f"{context.folder}/groups-{index}.parquet", context.backend.table(table))
    kinds = kinds_of(table)
    count = context.job.data.partitions or context.room.partitions(part.rows, row_bytes(kinds))
    partitions = cut([InputFile(part.path, part.bytes, "", part.rows)], count, own=True)
    return Source(kinds=kinds, partitions=partitions, files=(part,))


def sample_bound(context: Context, program: Program, partitions: Partitions, operation: Sample) -> pd.DataFrame:
    """The table that tells which rows are in a sample of a given number."""
    futures = context.submit(smallest_of, partitions, program, operation)
    found: np.ndarray = context.reduce(futures, operation.merge)
    return operation.finish(found)


def smallest_of(partition: Sequence[Piece], program: Program, operation: Sample) -> np.ndarray:
    """On a worker."""
    return operation.smallest(program.rows(partition))
