"""Contributions from tables: the state of a row in each group, and the sum of its lines.

Rows come in blocks, for which the tables stream by once; a few groups at a time, so that their tables
stay in the cache. The states of 64 rows are computed together, condition after condition. Dense lines
are then added row by row, one vector a group; slotted ones sixteen rows at a time, turned so that a
vector holds one slot of sixteen rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from treadle.kernels.binning import LANES, Bins, bin_rows, padded
from treadle.kernels.groups import Groups
from treadle.kernels.rows import Rows
from treadle.kernels.simd import aligned, join, load, prefetch, select, splat, store, turned
from treadle.kernels.tables import NARROW, WIDE, Tables

PART_ROWS = 256
"""Rows whose states are kept at a time."""
TURNED_ROWS = 16
CHUNK_BYTES = 64 * 1024
"""Tables that are worked through together for all rows of a block, as far as they are more than one."""
CHUNK_GROUPS = 64
DENSE_ROWS = 8192
SLOTTED_BYTES = 512 * 1024
"""Accumulators of a block of rows; their size limits its rows."""
FEW_ROWS = 4
"""Rows up to which lines are added one row after the other."""
TREES_A_FLUSH = 32
"""float32 sums of so many trees are added to float64 ones."""


@dataclass(frozen=True, eq=False)
class Lookup:
    """Groups and tables in the order and the types of the kernels. All arrays are on the host."""

    bins: Bins
    tables: Tables
    condition: tuple[NDArray[Any], ...]
    """Column int32, low and width in the type of bins, stride uint16."""
    first: NDArray[np.int64]
    """(groups + 1,): the first condition."""
    states: NDArray[np.int64]
    """(groups,)"""
    chunk: NDArray[np.int64]
    """See `make_chunks`."""
    few_chunk: NDArray[np.int64]
    """The same for few rows, as large as can be."""
    targets: int
    """Rows of the accumulator."""

    @property
    def block_rows(self) -> int:
        if self.tables.dense:
            return DENSE_ROWS
        return max(LANES, SLOTTED_BYTES // (4 * max(1, self.targets)) // LANES * LANES)


def make_lookup(
    groups: Groups, tables: Tables, group_tree: NDArray[np.int64], tree_output: NDArray[Any], targets: int
) -> Lookup:
    """`group_tree` (groups,) is the tree of each group; trees are in the order of their outputs."""
    kind = groups.bins.dtype
    column, low, high, stride = groups.condition.T
    condition = (column.astype(np.int32), low.astype(kind), (high - low).astype(kind), stride.astype(np.uint16))

    def full(begin: int, end: int) -> bool:
        lines = tables.start[end] - tables.start[begin]
        large = lines * tables.width * 4 > CHUNK_BYTES or lines > np.iinfo(np.uint16).max
        return bool(large) or end - begin > CHUNK_GROUPS

    return Lookup(
        bins=groups.bins,
        tables=tables,
        condition=condition,
        first=groups.group[:, 4].copy(),
        states=groups.group[:-1, 2].copy(),
        chunk=make_chunks(group_tree, tree_output, full),
        few_chunk=make_chunks(group_tree, tree_output, lambda begin, end: end - begin > CHUNK_GROUPS),
        targets=targets,
    )


def make_chunks(
    group_tree: NDArray[np.int64], tree_output: NDArray[Any], full: Callable[[int, int], bool]
) -> NDArray[np.int64]:
    """Chunks of groups (chunks, 4): from and to, output, whether sums are flushed after it.

    `full(begin, end)` says whether these groups are more than a chunk takes; one group always is a chunk.
    """
    chunks = []
    begin, flushed = 0, 0
    for g in range(len(group_tree)):
        last = g + 1 == len(group_tree)
        turns = last or tree_output[group_tree[g + 1]] != tree_output[group_tree[g]]
        tree_ends = last or group_tree[g + 1] != group_tree[g]
        flush = turns or (tree_ends and group_tree[g] - flushed >= TREES_A_FLUSH)
        if flush or full(begin, g + 2):
            chunks.append([begin, g + 1, int(tree_output[group_tree[g]]), int(flush)])
            begin = g + 1
            flushed = group_tree[g] if flush else flushed
    return np.array(chunks, dtype=np.int64).reshape(-1, 4)


def add_lookup(lookup: Lookup, rows: Rows, out: NDArray[np.float64]) -> None:
    """Adds the values of all groups to `out` (rows, outputs, columns) for the rows of one block.

    Column j of `out` belongs to row j of the accumulator, or to feature `targets[j]` of dense tables.
    """
    stride = padded(len(rows))
    columns = bin_rows(lookup.bins, rows)
    t = lookup.tables
    sums = aligned(len(rows) * t.width if t.dense else lookup.targets * (stride + TURNED_ROWS), np.float32)
    sums[:] = 0.0
    few = len(rows) <= FEW_ROWS
    chunk = lookup.few_chunk if few else lookup.chunk
    shared = (lookup.first, lookup.condition, t.start, t.entries, chunk, columns, stride, sums, out)
    if not t.dense:
        add = add_slotted_few if few else add_slotted
        add(*shared, lookup.states, t.targets, t.target_start, lookup.targets)
    elif few:
        (add_dense_few_8 if t.width == NARROW else add_dense_few_16)(*shared, t.targets)
    else:
        (add_dense_8 if t.width == NARROW else add_dense_16)(*shared, t.targets)


def states_in(groups: Groups, matrix: NDArray[Any]) -> NDArray[np.int64]:
    """The state of each row (rows, features) in each group: (groups, rows)."""
    rows = len(matrix)
    table = bin_rows(groups.bins, matrix).reshape(groups.bins.columns, -1)[:, :rows].astype(np.int64)
    found = np.zeros((len(groups.group) - 1, rows), dtype=np.int64)
    group_of = np.repeat(np.arange(len(found)), np.diff(groups.group[:, 4]))
    for g, (column, low, high, step) in zip(group_of, groups.condition, strict=True):
        found[g] += step * ((table[column] >= low) & (table[column] <= high))
    return found


@numba.njit(nogil=True, cache=True)
def _states(group, first, offset, condition, columns, stride, begin, count, out, place):  # type: ignore[no-untyped-def]
    """States + offset of `count` rows (whole vectors) from row `begin` in one group, uint16, into out[place:]."""
    column, low, width, step = condition
    zero = splat(np.uint16(0), LANES)
    for r in range(0, count, LANES):
        state = splat(np.uint16(offset), LANES)
        for c in range(first[group], first[group + 1]):
            bins = load(columns, np.int64(column[c]) * stride + begin + r, LANES)
            inside = (bins - splat(low[c], LANES)) <= splat(width[c], LANES)
            state = state + select(inside, splat(step[c], LANES), zero)
        store(out, place + r, state)


def _dense(width: int) -> Callable[..., Any]:
    @numba.njit(nogil=True, cache=True)
    def add_dense(first, condition, start, entries, chunk, columns, stride, sums, out, targets):  # type: ignore[no-untyped-def]
        rows = len(out)
        states = np.empty(CHUNK_GROUPS * PART_ROWS, np.uint16)
        for k in range(len(chunk)):
            begin_group, end_group = chunk[k, 0], chunk[k, 1]
            line = start[begin_group]
            lines = entries[line * width :]
            groups = end_group - begin_group
            for begin in range(0, rows, PART_ROWS):
                part = min(PART_ROWS, rows - begin)
                for g in range(groups):
                    offset = start[begin_group + g] - line
                    _states(
                        begin_group + g, first, offset, condition, columns, stride, begin, part, states, g * PART_ROWS
                    )
                own = sums[begin * width :]
                for r in range(part):
                    total = load(own, r * width, width)
                    for g in range(groups):
                        total = total + load(lines, np.int64(states[g * PART_ROWS + r]) * width, width)
                    store(own, r * width, total)
            if chunk[k, 3]:
                output = chunk[k, 2]
                for r in range(rows):
                    for j in range(len(targets)):
                        out[r, output, targets[j]] += sums[r * width + j]
                        sums[r * width + j] = 0.0

    return add_dense


add_dense_8 = _dense(NARROW)
add_dense_16 = _dense(WIDE)


@numba.njit(nogil=True, cache=True)
def _two(lines, states, at):  # type: ignore[no-untyped-def]
    """The lines of the rows at and at + 8."""
    return join(
        load(lines, np.int64(states[at]) * NARROW, NARROW), load(lines, np.int64(states[at + 8]) * NARROW, NARROW)
    )


@numba.njit(nogil=True, cache=True)
def _add(sums, place, vector):  # type: ignore[no-untyped-def]
    store(sums, place, load(sums, place, TURNED_ROWS) + vector)


@numba.njit(nogil=True, cache=True)
def _add_turned(lines, states, sums, at, part):  # type: ignore[no-untyped-def]
    """Adds 8 slots of `part` rows to the accumulator's rows that begin at at[0] to at[7]."""
    a0, a1, a2, a3, a4, a5, a6, a7 = at
    for r in range(0, part, TURNED_ROWS):
        v = turned(
            (
                _two(lines, states, r),
                _two(lines, states, r + 1),
                _two(lines, states, r + 2),
                _two(lines, states, r + 3),
                _two(lines, states, r + 4),
                _two(lines, states, r + 5),
                _two(lines, states, r + 6),
                _two(lines, states, r + 7),
            )
        )
        _add(sums, a0 + r, v[0])
        _add(sums, a1 + r, v[1])
        _add(sums, a2 + r, v[2])
        _add(sums, a3 + r, v[3])
        _add(sums, a4 + r, v[4])
        _add(sums, a5 + r, v[5])
        _add(sums, a6 + r, v[6])
        _add(sums, a7 + r, v[7])


@numba.njit(nogil=True, cache=True)
def add_slotted(  # type: ignore[no-untyped-def]
    first, condition, start, entries, chunk, columns, stride, sums, out, group_states, targets, target_start, n_targets
):
    rows, row = len(out), stride + TURNED_ROWS
    states = np.empty(PART_ROWS, np.uint16)
    for k in range(len(chunk)):
        for begin in range(0, rows, PART_ROWS):
            part = min(PART_ROWS, rows - begin)
            for g in range(chunk[k, 0], chunk[k, 1]):
                _states(g, first, 0, condition, columns, stride, begin, part, states, 0)
                for q in range(target_start[g], target_start[g + 1], NARROW):
                    line = start[g] + (q - target_start[g]) // NARROW * group_states[g]
                    at = (
                        targets[q] * row + begin,
                        targets[q + 1] * row + begin,
                        targets[q + 2] * row + begin,
                        targets[q + 3] * row + begin,
                        targets[q + 4] * row + begin,
                        targets[q + 5] * row + begin,
                        targets[q + 6] * row + begin,
                        targets[q + 7] * row + begin,
                    )
                    _add_turned(entries[line * NARROW :], states, sums, at, part)
        if chunk[k, 3]:
            add_sums(sums, row, rows, n_targets, out, chunk[k, 2])


@numba.njit(nogil=True, cache=True)
def _row_lines(r, begin, end, first, condition, start, entries, width, columns, stride, lines):  # type: ignore[no-untyped-def]
    """The first line of row r in each group from begin to end, into lines; they are on their way from memory then."""
    column, low, span, step = condition
    for g in range(begin, end):
        line = start[g]
        for c in range(first[g], first[g + 1]):
            above = np.int64(columns[column[c] * stride + r]) - np.int64(low[c])
            line += np.int64(step[c]) * ((above >= 0) & (above <= np.int64(span[c])))
        lines[g - begin] = line
        if start[g] < start[g + 1]:  # a group of one feature has no pairs
            prefetch(entries, line * width)


def _dense_few(width: int) -> Callable[..., Any]:
    @numba.njit(nogil=True, cache=True)
    def add_dense_few(first, condition, start, entries, chunk, columns, stride, sums, out, targets):  # type: ignore[no-untyped-def]
        """As `add_dense`, to the bit, without the work for the other rows of a vector."""
        lines = np.empty(CHUNK_GROUPS, np.int64)
        for r in range(len(out)):
            total = splat(np.float32(0.0), width)
            for k in range(len(chunk)):
                begin, end = chunk[k, 0], chunk[k, 1]
                _row_lines(r, begin, end, first, condition, start, entries, width, columns, stride, lines)
                for g in range(end - begin):
                    total = total + load(entries, lines[g] * width, width)
                if chunk[k, 3]:
                    store(sums, 0, total)
                    for j in range(len(targets)):
                        out[r, chunk[k, 2], targets[j]] += sums[j]
                    total = splat(np.float32(0.0), width)

    return add_dense_few


add_dense_few_8 = _dense_few(NARROW)
add_dense_few_16 = _dense_few(WIDE)


@numba.njit(nogil=True, cache=True)
def add_slotted_few(  # type: ignore[no-untyped-def]
    first, condition, start, entries, chunk, columns, stride, sums, out, group_states, targets, target_start, n_targets
):
    """As `add_slotted`, to the bit, without the work for the other rows of a vector."""
    lines = np.empty(CHUNK_GROUPS, np.int64)
    for r in range(len(out)):
        for k in range(len(chunk)):
            begin, end = chunk[k, 0], chunk[k, 1]
            _row_lines(r, begin, end, first, condition, start, entries, NARROW, columns, stride, lines)
            for g in range(begin, end):
                line = lines[g - begin]
                for q in range(target_start[g], target_start[g + 1], NARROW):
                    for i in range(NARROW):
                        sums[targets[q + i]] += entries[line * NARROW + i]
                    line += group_states[g]
            if chunk[k, 3]:
                for j in range(n_targets):
                    out[r, chunk[k, 2], j] += sums[j]
                    sums[j] = 0.0


@numba.njit(nogil=True, cache=True)
def add_sums(sums, row, rows, targets, out, output):  # type: ignore[no-untyped-def]
    """Adds the accumulator (targets, row) to `out` (rows, outputs, columns), and zeroes it."""
    for j in range(targets):
        for r in range(rows):
            out[r, output, j] += sums[j * row + r]
        sums[j * row : j * row + row] = 0.0
