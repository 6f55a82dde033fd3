"""Two tables of the same rows held against each other, column by column, whatever order the rows are in.

A column at a time is read of both, so that wide tables need not fit the memory.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


class Readable(Protocol):
    """A table of a run."""

    @property
    def rows(self) -> int:
        """How many there are."""

    @property
    def schema(self) -> pa.Schema:
        """Names and types."""

    def to_arrow(self, columns: list[str] | None = None) -> pa.Table:
        """Some columns of all rows."""


@dataclass(frozen=True)
class InMemory:
    """A table of Arrow as one of a run."""

    table: pa.Table

    @property
    def rows(self) -> int:
        return int(self.table.num_rows)

    @property
    def schema(self) -> pa.Schema:
        return self.table.schema

    def to_arrow(self, columns: list[str] | None = None) -> pa.Table:
        return self.table if columns is None else self.table.select(columns)


@dataclass(frozen=True)
class Column:
    """A column of both tables. Of floating-point numbers the differences are told, of anything else who is unequal."""

    name: str
    difference: float = 0.0
    """The largest of two numbers, as a part of the column's largest in the first table; absolute where that is 0."""
    unequal: int = 0
    """Rows with other values; of numbers those that are null or NaN or infinite on one side only."""
    types: tuple[str, str] | None = None
    """Where they differ; then no values are compared."""

    @property
    def fault(self) -> str | None:
        """What is wrong whatever bound holds for numbers."""
        if self.types is not None:
            return f"column '{self.name}' is {self.types[0]} on the CPU and {self.types[1]} on the device"
        return f"column '{self.name}': {self.unequal} rows are unequal" if self.unequal else None


def compare(
    host: Readable, device: Readable, key: str, left_out: Collection[str] = ()
) -> tuple[list[Column], list[str]]:
    """The columns of both tables, rows matched by the column `key` where there is one; and what keeps it from it."""
    faults = [
        f"column '{name}' is only on the {side}"
        for side, own, other in (("CPU", host, device), ("device", device, host))
        for name in own.schema.names
        if name not in other.schema.names and name not in left_out
    ]
    if host.rows != device.rows:
        return [], [*faults, f"{host.rows} rows on the CPU, and {device.rows} on the device"]
    names = [name for name in host.schema.names if name in device.schema.names and name not in left_out]
    orders = [_order(table, key) if key in names else None for table in (host, device)]
    return [_column(name, host, device, orders) for name in names], faults


def _order(table: Readable, key: str) -> pa.Array:
    """Places of the rows by key; rows with the same key stay in their order."""
    return pc.sort_indices(table.to_arrow([key]), sort_keys=[(key, "ascending")])


def _column(name: str, host: Readable, device: Readable, orders: list[pa.Array | None]) -> Column:
    types = tuple(str(table.schema.field(name).type) for table in (host, device))
    if types[0] != types[1]:
        return Column(name, types=(types[0], types[1]))
    first, second = (
        (column if order is None else column.take(order)).combine_chunks()
        for column, order in zip((table.to_arrow([name]).column(name) for table in (host, device)), orders, strict=True)
    )
    if not pa.types.is_floating(first.type):
        same = pc.equal(first, second).fill_null(False)
        both_null = pc.and_(first.is_null(), second.is_null())
        return Column(name, unequal=len(first) - (pc.sum(pc.or_(same, both_null)).as_py() or 0))
    nulls = [column.is_null().to_numpy(zero_copy_only=False) for column in (first, second)]
    a, b = (column.fill_null(0.0).to_numpy(zero_copy_only=False).astype(np.float64) for column in (first, second))
    finite = np.isfinite(a) & np.isfinite(b)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    odd = (nulls[0] != nulls[1]) | (~finite & ~same)
    largest = float(np.abs(a[finite]).max(initial=0.0))
    compared = finite & ~odd
    apart = float(np.abs(a[compared] - b[compared]).max(initial=0.0))
    return Column(name, difference=apart / (largest or 1.0), unequal=int(odd.sum()))
