"""Two versions of a table held against each other, row by row in the order in which they were published.

Both are read in batches, so that neither has to fit the memory. Numbers are equal by their bits first (every NaN
is NaN, null is null), and else by how far apart they are; everything else is equal or not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Outcome = Literal["bit-equal", "equal", "different"]
FLOATS = {pa.float32(): np.uint32, pa.float64(): np.uint64}
"""Types that are compared by bits -> unsigned numbers of the same size."""


@dataclass(frozen=True)
class Difference:
    """The first place at which two tables differ by more than the tolerance."""

    row: int
    """From 0, in published order."""
    column: str
    then: Any
    now: Any


@dataclass(frozen=True)
class Comparison:
    """What two versions of a table have in common."""

    rows: tuple[int, int]
    largest: float = 0.0
    """The largest difference of two numbers, as a part of the first, or of 1 where that is smaller."""
    column: str | None = None
    """Where that is; None where all numbers are equal by their bits."""
    counts: dict[str, int] = field(default_factory=dict)
    """Column -> rows that differ by more than the tolerance."""
    first: Difference | None = None
    schema: tuple[str, ...] = ()
    """How the columns differ, a line each."""
    left_out: tuple[str, ...] = ()
    """Columns that were not compared."""

    @property
    def outcome(self) -> Outcome:
        if self.schema or self.counts or self.rows[0] != self.rows[1]:
            return "different"
        return "bit-equal" if self.column is None else "equal"


def compare(
    then: Iterator[pa.RecordBatch], now: Iterator[pa.RecordBatch], tolerance: float, left_out: Collection[str] = ()
) -> Comparison:
    """Two tables as batches of rows; the first batch of each has all columns.

    Parameters
    ----------
    tolerance
        Largest accepted difference of two floating-point numbers, as a part of the first, or of 1 where that is
        smaller: |a - b| <= tolerance * max(1, |a|).
    left_out
        Columns that are not compared.
    """
    left, right = _Rows(then), _Rows(now)
    schema = tuple(_schema_differences(left.schema, right.schema, left_out))
    names = [
        name
        for name in left.schema.names
        if name not in left_out and name in right.schema.names and _type(left, name) == _type(right, name)
    ]
    found = _Found(tolerance)
    row = 0
    while (count := min(left.ready(), right.ready())) > 0:
        a, b = left.take(count), right.take(count)
        for name in names:
            found.column(name, a.column(name), b.column(name), row)
        row += count
    return Comparison(
        rows=(row + left.rest(), row + right.rest()),
        largest=found.largest,
        column=found.where,
        counts=found.counts,
        first=found.first,
        schema=schema,
        left_out=tuple(name for name in left.schema.names if name in left_out),
    )


def _type(rows: _Rows, name: str) -> pa.DataType:
    return rows.schema.field(name).type


def _schema_differences(then: pa.Schema, now: pa.Schema, left_out: Collection[str]) -> Iterator[str]:
    for name in then.names:
        if name in left_out:
            continue
        if name not in now.names:
            yield f"column '{name}' is missing"
        elif then.field(name).type != now.field(name).type:
            yield f"column '{name}' is {now.field(name).type}, and was {then.field(name).type}"
    yield from (f"column '{name}' is new" for name in now.names if name not in then.names and name not in left_out)


class _Rows:
    """Batches of which any number of rows can be taken."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches = batches
        self._batch = next(batches)
        self._taken = 0
        self.schema: pa.Schema = self._batch.schema

    def ready(self) -> int:
        """Rows that can be taken at once; 0 when there are no more."""
        while self._taken == self._batch.num_rows:
            following = next(self._batches, None)
            if following is None:
                return 0
            self._batch, self._taken = following, 0
        return self._batch.num_rows - self._taken

    def take(self, count: int) -> pa.RecordBatch:
        part = self._batch.slice(self._taken, count)
        self._taken += count
        return part

    def rest(self) -> int:
        """How many rows are left; they are read to be counted."""
        rows = 0
        while count := self.ready():
            rows += count
            self._taken += count
        return rows


class _Found:
    """What differs so far."""

    def __init__(self, tolerance: float) -> None:
        self.tolerance = tolerance
        self.largest = 0.0
        self.where: str | None = None
        self.counts: dict[str, int] = {}
        self.first: Difference | None = None

    def column(self, name: str, then: pa.Array, now: pa.Array, before: int) -> None:
        """Some rows of a column, which come after `before` others."""
        if then.type in FLOATS:
            differs = self._numbers(name, then, now)
        elif then.equals(now):
            return
        else:
            same = pc.equal(then, now).fill_null(False)
            both_null = pc.and_(then.is_null(), now.is_null())
            differs = ~pc.or_(same, both_null).to_numpy(zero_copy_only=False)
        count = int(differs.sum())
        if count:
            self.counts[name] = self.counts.get(name, 0) + count
            row = int(np.flatnonzero(differs)[0])
            if self.first is None or before + row < self.first.row:
                self.first = Difference(before + row, name, then[row].as_py(), now[row].as_py())

    def _numbers(self, name: str, then: pa.Array, now: pa.Array) -> np.ndarray:
        """Which rows differ by more than the tolerance; notes how far apart those are that do not."""
        equal = _bits_equal(then, now)
        a, b = _values(then).astype(np.float64), _values(now).astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            apart = np.abs(a - b) / np.maximum(1.0, np.abs(a))
        apart[equal] = 0.0
        # A null beside a number, NaN beside a number, or an infinite one beside another is no small difference.
        apart[~equal & ~(np.isfinite(a) & np.isfinite(b))] = np.inf
        apart[_nulls(then) != _nulls(now)] = np.inf
        largest = float(apart.max(initial=0.0))
        if not equal.all() and (self.where is None or largest > self.largest):
            self.largest, self.where = largest, name
        return apart > self.tolerance


def _nulls(array: pa.Array) -> np.ndarray:
    nulls: np.ndarray = array.is_null().to_numpy(zero_copy_only=False)
    return nulls


def _values(array: pa.Array) -> np.ndarray:
    """The numbers, with 0 for null."""
    values: np.ndarray = array.fill_null(0.0).to_numpy(zero_copy_only=False)
    return values


def _bits_equal(then: pa.Array, now: pa.Array) -> np.ndarray:
    """bool (rows,): the same bits, or both NaN; and both null or neither."""
    bits = FLOATS[then.type]
    a, b = _values(then), _values(now)
    same = (a.view(bits) == b.view(bits)) | (np.isnan(a) & np.isnan(b))
    return same & (_nulls(then) == _nulls(now))
