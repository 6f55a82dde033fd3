"""Rows as small integers: which cuts of the forest lie at or below each value.

A kernel reads columns of bins, not values. A feature has up to three: LOW counts the cuts at or
below the value and puts a missing value below all, HIGH puts it above all, MISSING is 1 for a
missing value and 0 for others. A node whose missing values go right compares in HIGH, any other in
LOW. A categorical feature has a column for each set of the forest, 1 where the set says right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from treadle.kernels.forest import LEAF, ZERO_BOUND, Forest
from treadle.kernels.rows import Rows
from treadle.kernels.simd import aligned, count, load, splat
from treadle.kernels.strides import strided

LOW, HIGH, MISSING = 0, 1, 2
KINDS = 3
FANOUT = 16
LANES = 64
"""Rows of the longest vectors; columns are padded with zeros to whole ones."""


def padded(rows: int) -> int:
    """The length of a column of so many rows: an odd number of vectors, so that the same row of many
    columns does not fall into one set of the cache."""
    return (-(-rows // LANES) | 1) * LANES


@dataclass(frozen=True, eq=False)
class Bins:
    """How values become columns of bins. Arrays are on the host.

    Columns have two numbers: a wide one, `KINDS * feature + kind`, or `KINDS * features + set`, or
    beyond these a table of one's own; and a narrow one, the place in the columns that are used,
    which `narrow` gives.
    """

    dtype: np.dtype[Any]
    """Of a bin: the smallest unsigned integers that hold every rank + 1."""
    columns: int
    narrow: NDArray[np.int32]
    """(wide columns,): narrow numbers, -1 for columns that are not used."""
    numeric: NDArray[np.int64]
    """(numeric features used, 8): feature, levels, first level's place in `search`, LOW, HIGH, MISSING, cuts, zero."""
    search: NDArray[Any]
    level_start: NDArray[np.int64]
    coded: NDArray[np.int64]
    """(table columns, 4): feature, codes, place in `tables`, column."""
    tables: NDArray[Any]


def make_bins(forest: Forest, used: NDArray[np.integer], tables: Sequence[tuple[int, NDArray[Any]]] = ()) -> Bins:
    """The columns with the wide numbers `used`; `tables` are further columns of categorical features.

    Such a table is a pair of a feature and an array with one small integer by code, for unknown
    codes and for missing values.
    """
    f_count = forest.n_features
    sets = len(forest.set_start) - 1
    wide = KINDS * f_count + sets + len(tables)
    narrow = np.full(wide, -1, dtype=np.int32)
    used = np.unique(np.asarray(used, dtype=np.int64))
    narrow[used] = np.arange(len(used))
    cuts = np.diff(forest.cut_start)
    numeric, search, level_start = [], [], [0]
    kinds = narrow[: KINDS * f_count].reshape(f_count, KINDS)
    for feature in np.flatnonzero((kinds >= 0).any(axis=1)).tolist():
        first = len(level_start) - 1
        for level in _search_levels(forest.cuts[forest.cut_start[feature] : forest.cut_start[feature + 1]]):
            search.append(level)
            level_start.append(level_start[-1] + len(level))
        levels = len(level_start) - 1 - first
        zero = int(forest.zero_missing[feature])
        numeric.append([feature, levels, first, *kinds[feature], cuts[feature], zero])
    set_feature = np.zeros(sets, dtype=np.int64)
    categorical = _categorical(forest)
    set_feature[forest.rank[categorical]] = forest.feature[categorical]
    coded, flat, place = [], [], 0
    largest = int(cuts.max(initial=0))
    for number in range(sets + len(tables)):
        column = narrow[KINDS * f_count + number]
        if column < 0:
            continue
        table: NDArray[Any]
        if number < sets:
            table = forest.set_right[forest.set_start[number] : forest.set_start[number + 1]].astype(np.int64)
            feature = int(set_feature[number])
        else:
            feature, table = tables[number - sets]
        largest = max(largest, int(np.max(table)))
        coded.append([feature, len(table) - 2, place, column])
        flat.append(table)
        place += len(table)
    dtype = np.dtype(np.min_scalar_type(largest))
    return Bins(
        dtype=dtype,
        columns=len(used),
        narrow=narrow,
        numeric=np.array(numeric, dtype=np.int64).reshape(-1, 8),
        search=np.concatenate(search) if search else np.empty(0, forest.dtype),
        level_start=np.array(level_start, dtype=np.int64),
        coded=np.array(coded, dtype=np.int64).reshape(-1, 4),
        tables=np.concatenate(flat).astype(dtype) if flat else np.empty(0, dtype),
    )


def _categorical(forest: Forest) -> NDArray[np.bool_]:
    """(nodes,): whether a node splits on categories."""
    inner = forest.feature != LEAF
    return inner & (forest.categories[np.where(inner, forest.feature, 0)] > 0) if forest.n_features else inner


def wide_columns(forest: Forest) -> NDArray[np.int64]:
    """(nodes,): the wide number of the column in which each node compares; -1 for leaves."""
    feature = np.maximum(forest.feature, 0).astype(np.int64)
    numeric = KINDS * feature + np.where(forest.missing_right, HIGH, LOW)
    found = np.where(_categorical(forest), KINDS * forest.n_features + forest.rank, numeric)
    return np.where(forest.feature != LEAF, found, -1)


def node_ranks(forest: Forest) -> NDArray[np.int64]:
    """(nodes,): a row goes right at a node when the bin in its column is above this."""
    return np.where(_categorical(forest), 0, forest.rank).astype(np.int64)


def _search_levels(cuts: NDArray[Any]) -> list[NDArray[Any]]:
    """A static B+ tree over sorted cuts, top level first: blocks of 16, each number the last of a block below."""
    n = len(cuts)
    span = 1
    levels = []
    while True:
        blocks = n // (span * FANOUT) + 1
        level = np.full(blocks * FANOUT, np.nan, dtype=cuts.dtype)
        pivots = cuts[span - 1 :: span]
        level[: len(pivots)] = pivots
        levels.append(level)
        if blocks == 1:
            return levels[::-1]
        span *= FANOUT


def bin_rows(bins: Bins, rows: Rows) -> NDArray[Any]:
    """The bins of rows: (columns * padded rows,), one column after the other."""
    stride = padded(len(rows))
    out = aligned(bins.columns * stride, bins.dtype)
    b = bins
    if isinstance(rows, np.ndarray):
        _bin_matrix(rows, stride, b.numeric, b.search, b.level_start, b.coded, b.tables, out)
    else:
        c = rows[:]
        _bin_columns(c.place, c.first, c.count, stride, b.numeric, b.search, b.level_start, b.coded, b.tables, out)
    return out


@numba.njit(nogil=True, cache=True, forceinline=True)
def _bin_numeric(values, i, numeric, search, level_start, stride, out):  # type: ignore[no-untyped-def]
    """Bins the values of the feature in line `i` of `Bins.numeric` into its columns of `out`.

    Inlined, as a call for each feature would show where one row is binned.
    """
    to_type = search.dtype.type
    levels, first = numeric[i, 1], numeric[i, 2]
    low, high, missing, cuts, zero = numeric[i, 3], numeric[i, 4], numeric[i, 5], numeric[i, 6], numeric[i, 7]
    for r in range(len(values)):
        x = to_type(values[r])
        if zero and abs(x) <= ZERO_BOUND:
            x = to_type(np.nan)
        wanted = splat(x, FANOUT)
        place = 0
        for level in range(first, first + levels):
            block = load(search, level_start[level] + place * FANOUT, FANOUT)
            place = place * FANOUT + count(block <= wanted)
        if low >= 0:
            out[low * stride + r] = place
        if high >= 0:
            out[high * stride + r] = cuts if np.isnan(x) else place
        if missing >= 0:
            out[missing * stride + r] = np.isnan(x)


@numba.njit(nogil=True, cache=True, forceinline=True)
def _bin_coded(values, i, coded, number, tables, stride, out):  # type: ignore[no-untyped-def]
    """Looks the codes of the feature in line `i` of `Bins.coded` up into its column; `number` is the forest's type."""
    codes, start, column = coded[i, 1], coded[i, 2], coded[i, 3]
    for r in range(len(values)):
        x = number(values[r])
        if np.isnan(x):
            code = codes + 1
        elif x >= 0 and x < codes:
            code = int(x)
        else:
            code = codes
        out[column * stride + r] = tables[start + code]


@numba.njit(nogil=True, cache=True)
def _pad(rows, stride, out):  # type: ignore[no-untyped-def]
    if rows < stride:
        for column in range(len(out) // stride):
            for r in range(rows, stride):
                out[column * stride + r] = 0


@numba.njit(nogil=True, cache=True)
def _bin_matrix(matrix, stride, numeric, search, level_start, coded, tables, out):  # type: ignore[no-untyped-def]
    number = search.dtype.type
    for i in range(len(numeric)):
        _bin_numeric(matrix[:, numeric[i, 0]], i, numeric, search, level_start, stride, out)
    for i in range(len(coded)):
        _bin_coded(matrix[:, coded[i, 0]], i, coded, number, tables, stride, out)
    _pad(matrix.shape[0], stride, out)


@numba.njit(nogil=True, cache=True)
def _bin_columns(place, first, rows, stride, numeric, search, level_start, coded, tables, out):  # type: ignore[no-untyped-def]
    """As `_bin_matrix`, of the rows from `first` on in the columns at `place`."""
    number = search.dtype.type
    for i in range(len(numeric)):
        step = place[numeric[i, 0], 1]
        address = place[numeric[i, 0], 0] + first * step
        if place[numeric[i, 0], 2] == 4:
            _bin_numeric(strided(address, rows, step, np.float32), i, numeric, search, level_start, stride, out)
        else:
            _bin_numeric(strided(address, rows, step, np.float64), i, numeric, search, level_start, stride, out)
    for i in range(len(coded)):
        step = place[coded[i, 0], 1]
        address = place[coded[i, 0], 0] + first * step
        if place[coded[i, 0], 2] == 4:
            _bin_coded(strided(address, rows, step, np.float32), i, coded, number, tables, stride, out)
        else:
            _bin_coded(strided(address, rows, step, np.float64), i, coded, number, tables, stride, out)
    _pad(rows, stride, out)
