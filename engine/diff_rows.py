"""Rows of two tables, paired by their key and compared column by column.

Rows of one key that stand more than once are paired with equal ones first, those that are left in the order of their
values: what comes of it depends on the rows alone. NaN equals NaN and null equals null; NaN is no null.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Rows = NDArray[np.int64]
"""Positions of rows."""
_LARGEST_CODE = 1 << 62


@dataclass(frozen=True)
class Example:
    """A value that changed: the key of its row, and what it is in the one and in the other."""

    key: dict[str, Any]
    left: Any
    right: Any


@dataclass(frozen=True)
class ColumnDiff:
    """What changed in a column among the rows that both tables have."""

    name: str
    changed: int
    largest: float | None
    """Largest absolute difference, where the column holds numbers; of values that are not finite there is none."""
    examples: tuple[Example, ...]
    """Of numbers those that differ most, else those with the least keys."""


@dataclass
class _Column:
    changed: int = 0
    largest: float | None = None
    examples: list[tuple[tuple[Any, ...], Example]] = field(default_factory=list)


class Comparer:
    """Adds up what differs between two tables; each `add` brings all rows of some keys.

    Parameters
    ----------
    schema
        The columns that both have, in the types that they are compared in.
    key
        The columns that tell rows apart.
    tolerance
        Numbers are the same when they differ by no more than this part of the larger one, or of 1 where both are
        smaller.
    examples
        How many are kept of each kind.
    """

    def __init__(self, schema: pa.Schema, key: Sequence[str], tolerance: float, examples: int) -> None:
        self._key, self._tolerance, self._kept = list(key), tolerance, examples
        self._columns = {name: _Column() for name in schema.names if name not in key}
        self._only: tuple[list[Any], list[Any]] = ([], [])
        self.rows = [0, 0]
        """Of either table."""
        self.only = [0, 0]
        """Rows without a partner, of either table."""
        self.changed = 0
        """Pairs of rows that differ in any column."""

    def add(self, left: pa.Table, right: pa.Table) -> None:
        """All rows of both tables whose keys are among some."""
        codes = _codes(left, right, self._key)
        pairs, lone = _paired((left, right), codes, [*self._key, *self._columns])
        for side, (table, rows) in enumerate(zip((left, right), lone, strict=True)):
            self.rows[side] += table.num_rows
            self.only[side] += len(rows)
            self._only[side].extend(self._least(table, rows))
            self._only[side].sort(key=lambda found: found[0])
            del self._only[side][self._kept :]
        self._compare(left, right, *pairs)

    def without_partner(self, side: int) -> tuple[dict[str, Any], ...]:
        """The least keys of rows that only one table has: 0 the left one, 1 the right one."""
        return tuple(key for _, key in self._only[side])

    def columns(self) -> tuple[ColumnDiff, ...]:
        """The columns in which anything changed."""
        return tuple(
            ColumnDiff(name, found.changed, found.largest, tuple(example for _, example in found.examples))
            for name, found in self._columns.items()
            if found.changed
        )

    def _compare(self, left: pa.Table, right: pa.Table, of_left: Rows, of_right: Rows) -> None:
        changed = np.zeros(len(of_left), dtype=bool)
        ranks: Rows | None = None
        for name, found in self._columns.items():
            one, other = left[name].take(pa.array(of_left)), right[name].take(pa.array(of_right))
            differs, apart = _differing(one, other, self._tolerance)
            rows = np.flatnonzero(differs)
            if not len(rows):
                continue
            changed |= differs
            found.changed += len(rows)
            if apart is not None and np.isfinite(apart[rows]).any():
                found.largest = max(
                    found.largest or 0.0, float(np.nanmax(np.where(np.isinf(apart), np.nan, apart)[rows]))
                )
            ranks = _ranks(left.select(self._key).take(pa.array(of_left))) if ranks is None else ranks
            size = np.zeros(len(rows)) if apart is None else np.nan_to_num(apart[rows], nan=np.inf)
            for row in rows[np.lexsort((ranks[rows], -size))[: self._kept]]:
                key = self._key_of(left, int(of_left[row]))
                weight = 0.0 if apart is None or np.isnan(apart[row]) else -float(apart[row])
                example = Example(key, one[int(row)].as_py(), other[int(row)].as_py())
                found.examples.append(((weight, *_sortable(key)), example))
            found.examples.sort(key=lambda kept: kept[0])
            del found.examples[self._kept :]
        self.changed += int(changed.sum())

    def _least(self, table: pa.Table, rows: Rows) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        if not len(rows):
            return []
        keys = table.select(self._key).take(pa.array(rows))
        chosen = pc.sort_indices(keys, [(name, "ascending") for name in self._key])[: self._kept]
        return [(_sortable(key), key) for key in keys.take(chosen).to_pylist()]

    def _key_of(self, table: pa.Table, row: int) -> dict[str, Any]:
        return {name: table[name][row].as_py() for name in self._key}


def _sortable(key: dict[str, Any]) -> tuple[Any, ...]:
    """In the order of Arrow: NaN after numbers, null after all."""
    return tuple(
        (value is None, value != value, 0 if value is None or value != value else value) for value in key.values()
    )


def _ranks(keys: pa.Table) -> Rows:
    order = pc.sort_indices(keys, [(name, "ascending") for name in keys.column_names]).to_numpy()
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order))
    return ranks


def _codes(left: pa.Table, right: pa.Table, names: Sequence[str]) -> tuple[Rows, Rows]:
    """A number for every row of both: the same where all of these columns are the same."""
    rows = left.num_rows + right.num_rows
    codes = np.zeros(rows, dtype=np.int64)
    count = 1
    for name in names:
        both = pa.chunked_array([*left[name].chunks, *right[name].chunks], left.schema.field(name).type)
        if pa.types.is_floating(both.type):
            both = pc.add(both, pa.scalar(0.0, both.type))  # -0.0 is 0.0
        encoded = both.combine_chunks().dictionary_encode(null_encoding="encode")
        size = max(len(encoded.dictionary), 1)
        if count * size >= _LARGEST_CODE:
            codes, count = _dense(codes)
        codes = codes * size + encoded.indices.to_numpy()
        count *= size
    codes, _ = _dense(codes)
    return codes[: left.num_rows], codes[left.num_rows :]


def _dense(codes: Rows) -> tuple[Rows, int]:
    """The codes counted up from 0, and how many there are."""
    values, places = np.unique(codes, return_inverse=True)
    return places.astype(np.int64), max(len(values), 1)


def _paired(
    tables: tuple[pa.Table, pa.Table], codes: tuple[Rows, Rows], names: Sequence[str]
) -> tuple[tuple[Rows, Rows], tuple[Rows, Rows]]:
    """The rows of the left and right table that belong together, and those of either that have no partner."""
    size = max((int(one.max(initial=-1)) for one in codes), default=-1) + 1
    counts = [np.bincount(one, minlength=size) for one in codes]
    once = (counts[0] <= 1) & (counts[1] <= 1)
    both = once & (counts[0] + counts[1] == 2)
    places = np.zeros((2, size), dtype=np.int64)
    for side, one in enumerate(codes):
        places[side, one] = np.arange(len(one))
    of_once = tuple(places[side, both] for side in (0, 1))
    lone = tuple(np.flatnonzero((once & ~both)[one]) for one in codes)
    repeated = tuple(np.flatnonzero(~once[one]) for one in codes)
    if not any(map(len, repeated)):
        return (of_once[0], of_once[1]), (lone[0], lone[1])
    found = _paired_repeated(tables, codes, (repeated[0], repeated[1]), names)
    return (
        (np.append(of_once[0], found[0][0]), np.append(of_once[1], found[0][1])),
        (np.append(lone[0], found[1][0]), np.append(lone[1], found[1][1])),
    )


def _paired_repeated(
    tables: tuple[pa.Table, pa.Table], codes: tuple[Rows, Rows], rows: tuple[Rows, Rows], names: Sequence[str]
) -> tuple[tuple[Rows, Rows], tuple[Rows, Rows]]:
    """As `_paired`, of rows whose keys stand more than once."""
    parts = [table.select(names).take(pa.array(some)) for table, some in zip(tables, rows, strict=True)]
    equal = _matched(*_codes(parts[0], parts[1], names))
    left_over = [np.setdiff1d(np.arange(len(some)), one) for some, one in zip(rows, equal, strict=True)]
    ordered = []
    for part, some in zip(parts, left_over, strict=True):
        order = pc.sort_indices(part.take(pa.array(some)), [(name, "ascending") for name in names])
        ordered.append(some[order.to_numpy()])
    near = _matched(*(codes[side][rows[side][ordered[side]]] for side in (0, 1)))
    pairs = [np.append(rows[side][equal[side]], rows[side][ordered[side][near[side]]]) for side in (0, 1)]
    lone = [np.delete(rows[side][ordered[side]], near[side]) for side in (0, 1)]
    return (pairs[0], pairs[1]), (lone[0], lone[1])


def _matched(left: Rows, right: Rows) -> tuple[Rows, Rows]:
    """Positions of equal codes, the n-th of one with the n-th of the other."""
    pairs = [np.stack([one, _occurrences(one)]) for one in (left, right)]
    joined, _ = _dense_pairs(np.concatenate(pairs, axis=1))
    found = np.intersect1d(joined[: len(left)], joined[len(left) :], assume_unique=True, return_indices=True)
    return found[1].astype(np.int64), found[2].astype(np.int64)


def _dense_pairs(pairs: NDArray[np.int64]) -> tuple[Rows, int]:
    return _dense(pairs[0] * (int(pairs[1].max(initial=0)) + 1) + pairs[1])


def _occurrences(codes: Rows) -> Rows:
    """How often the code of each place stood before it."""
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])) if len(codes) else order
    found = np.empty(len(codes), dtype=np.int64)
    found[order] = np.arange(len(codes)) - np.repeat(starts, np.diff(np.append(starts, len(codes))))
    return found


def _differing(
    left: pa.ChunkedArray, right: pa.ChunkedArray, tolerance: float
) -> tuple[NDArray[np.bool_], NDArray[np.float64] | None]:
    """Which values differ; of numbers also by how much, NaN where that is no number."""
    known = [one.is_valid().to_numpy() for one in (left, right)]
    if not (pa.types.is_integer(left.type) or pa.types.is_floating(left.type)):
        unlike = pc.fill_null(pc.not_equal(left, right), False).to_numpy()
        return unlike | (known[0] != known[1]), None
    both = known[0] & known[1]
    zero = pa.scalar(0, left.type)
    one, other = (pc.fill_null(side, zero).to_numpy() for side in (left, right))
    with np.errstate(invalid="ignore", over="ignore"):
        if pa.types.is_integer(left.type):
            # In unsigned numbers the difference of any two is exact.
            least, most = (choose(one, other).astype(np.int64).view(np.uint64) for choose in (np.minimum, np.maximum))
            apart = (most - least).astype(np.float64)
            unlike = one != other
        else:
            one, other = one.astype(np.float64), other.astype(np.float64)
            apart = np.where(one == other, 0.0, np.abs(one - other))
            unlike = (one != other) & ~(np.isnan(one) & np.isnan(other))
        if tolerance > 0:
            size = np.maximum(np.maximum(np.abs(one.astype(np.float64)), np.abs(other.astype(np.float64))), 1.0)
            unlike &= ~(np.isfinite(apart) & (apart <= tolerance * size))
    differs = (both & unlike) | (known[0] != known[1])
    return differs, np.where(both, apart, np.nan)
