"""Contributions from tables on a device; see `treadle.kernels.lookup`.

A thread has some rows, and a block of threads goes through all tables. The lines and conditions of a few
groups at a time, a chunk, are copied to shared memory by all its threads. Conditions are the same for all
threads; lines are read at random, four numbers at a time, from places a few words further apart than they
are long, so that the lines of different states begin in different banks. Dense lines are added up in
registers, slotted ones in a row of memory for each target.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import cuda
from numpy.typing import NDArray

from treadle.errors import RequestError
from treadle.kernels.cuda.arrays import ALIGNMENT, Work, blocks_for, threads_for, upload
from treadle.kernels.cuda.binning import DeviceBins, upload_bins
from treadle.kernels.forest import Forest
from treadle.kernels.groups import Groups
from treadle.kernels.lookup import make_chunks
from treadle.kernels.tables import NARROW, WIDE, Tables

LINE_FLOATS = 40 * 1024 // 4
CONDITION_INTS = 8 * 1024 // 4
"""Shared memory of a block: 48 KB in all, what every device has without asking."""
GAP = 4
"""Words between lines, which makes their distance an odd number of four words."""
ROWS_A_THREAD = {NARROW: 4, WIDE: 2}
"""32 sums in registers."""
SLOTTED_ROWS = 2
ACCUMULATOR_BYTES = 256 * 2**20
FIELDS = 4
"""Of a condition: column (its place in memory once the length of columns is known), low, high, stride."""


@dataclass(frozen=True, eq=False)
class DeviceLookup:
    """Groups and tables on a device.

    A unit is a group of dense tables; of slotted tables a group and 8 of its slots, so that its lines fit
    into shared memory.
    """

    bins: DeviceBins
    width: int
    dense: bool
    unit: Any
    """(units + 1, 4) int64: first condition, the condition after its last, first line, lines."""
    condition: Any
    """(conditions, 4) int32."""
    entries: Any
    targets: Any
    """int64, dense: the feature of each slot; else (units * 8,) the accumulator's row."""
    chunk: Any
    """(chunks, 4) int64: units from and to, output, whether sums are flushed after it."""
    accumulators: int
    """Rows of the accumulator; 0 for dense tables."""


def upload_lookup(
    forest: Forest, groups: Groups, tables: Tables, group_tree: NDArray[np.int64], accumulators: int
) -> DeviceLookup:
    """`group_tree` (groups,) is the tree of each group; trees are in the order of their outputs.

    Raises
    ------
    RequestError
        A group has more states than shared memory holds, which only tables that were insisted on have.
    """
    states, first = groups.group[:-1, 2], groups.group[:, 4]
    copies = np.ones(len(states), np.int64) if tables.dense else np.diff(tables.target_start) // NARROW
    group = np.repeat(np.arange(len(states)), copies)
    within = np.arange(len(group)) - np.repeat(np.cumsum(copies) - copies, copies)
    unit = np.stack(
        [first[:-1][group], first[1:][group], tables.start[:-1][group] + within * states[group], states[group]], axis=1
    )
    most_lines = LINE_FLOATS // (tables.width + GAP)
    if states.max() > most_lines:
        raise RequestError(
            f"TreeExplainer: a tree's tables have {states.max()} states in one group, and a device takes {most_lines}; "
            "use method='auto'."
        )

    def full(begin: int, end: int) -> bool:
        lines = unit[end - 1, 2] + unit[end - 1, 3] - unit[begin, 2]
        conditions = unit[end - 1, 1] - unit[begin, 0]
        return bool(lines > most_lines or conditions * FIELDS > CONDITION_INTS)

    return DeviceLookup(
        bins=upload_bins(forest, groups.bins),
        width=tables.width,
        dense=tables.dense,
        unit=upload(unit.astype(np.int64)),
        condition=upload(groups.condition.astype(np.int32)),
        entries=upload(tables.entries),
        targets=upload(tables.targets.astype(np.int64)),
        chunk=upload(make_chunks(group_tree[group], forest.tree_output, full)),
        accumulators=0 if tables.dense else accumulators,
    )


def add_lookup(lookup: DeviceLookup, columns: Any, rows: int, features: Any, out: Any, work: Work) -> None:
    """Adds the values of all groups to `out` (rows, outputs, columns), a float64 device array.

    `columns` are the rows' bins; `features` says to which column of `out` a row of the accumulator belongs.
    """
    shared = (lookup.chunk, lookup.unit, lookup.condition, lookup.entries, columns, lookup.bins.stride(rows), rows)
    each = ROWS_A_THREAD[lookup.width] if lookup.dense else SLOTTED_ROWS
    threads = threads_for(rows, each)
    grid = blocks_for(rows, threads * each)
    if lookup.dense:
        dense_kernel(lookup.width, each)[grid, threads, work.stream](*shared, lookup.targets, out)
        return
    grid = max(1, min(grid, ACCUMULATOR_BYTES // (4 * lookup.accumulators * threads * each)))
    lanes = grid * threads * each
    sums = work.empty(lookup.accumulators * lanes, np.float32)
    slotted_kernel(each)[grid, threads, work.stream](
        *shared, lookup.targets, features, lookup.accumulators, lanes, sums, out
    )


@cuda.jit(device=True, inline="always")
def _stage(unit, begin, end, condition, entries, width, stride, conditions, lines):  # type: ignore[no-untyped-def]
    """Copies the conditions and lines of some units to shared memory, all threads of the block together."""
    lane, threads = cuda.threadIdx.x, cuda.blockDim.x
    first, line = unit[begin, 0], unit[begin, 2]
    cuda.syncthreads()
    for i in range(lane, unit[end - 1, 1] - first, threads):
        at = np.uint64(i * 4)
        # 32 bits are enough: the caller keeps blocks of rows small.
        conditions[at] = np.int32(condition[first + i, 0] * stride)
        conditions[at + np.uint64(1)] = condition[first + i, 1]
        conditions[at + np.uint64(2)] = condition[first + i, 2]
        conditions[at + np.uint64(3)] = condition[first + i, 3]
    for i in range(lane, (unit[end - 1, 2] + unit[end - 1, 3] - line) * width, threads):
        lines[np.uint64(i // width * (width + GAP) + i % width)] = entries[line * width + i]
    cuda.syncthreads()


@cuda.jit(device=True, inline="always")
def _find_states(conditions, begin, end, columns, row, last, count, step, state):  # type: ignore[no-untyped-def]
    """Adds to state (count,) the strides of the conditions that hold for rows row, row + step, and so on."""
    for c in range(begin, end):
        at = np.uint64(c * 4)
        offset, low = conditions[at], conditions[at + np.uint64(1)]
        high, stride = conditions[at + np.uint64(2)], conditions[at + np.uint64(3)]
        for j in range(count):
            # Rows past the last one do what the last one does.
            value = np.int32(columns[np.uint64(offset + min(row + j * step, last))])
            if low <= value and value <= high:
                state[j] = np.int32(state[j] + stride)


@functools.cache
def dense_kernel(width: int, count: int) -> Any:
    """A kernel for lines of so many numbers, and threads of so many rows."""
    sums_size, distance = width * count, width + GAP

    @cuda.jit(cache=True)
    def add_dense(chunk, unit, condition, entries, columns, stride, rows, targets, out):  # type: ignore[no-untyped-def]
        lines = cuda.shared.array(LINE_FLOATS, np.float32, alignment=ALIGNMENT)
        conditions = cuda.shared.array(CONDITION_INTS, np.int32, alignment=ALIGNMENT)
        sums = cuda.local.array(sums_size, np.float32)
        state = cuda.local.array(count, np.int32)
        step = np.int32(cuda.blockDim.x)
        last = np.int32(rows - 1)
        tile = step * count
        for begin in range(cuda.blockIdx.x * tile, rows, cuda.gridDim.x * tile):
            row = np.int32(begin + cuda.threadIdx.x)
            for i in range(sums_size):
                sums[i] = np.float32(0.0)
            for k in range(chunk.shape[0]):
                from_unit, to_unit = chunk[k, 0], chunk[k, 1]
                _stage(unit, from_unit, to_unit, condition, entries, width, stride, conditions, lines)
                first, line = unit[from_unit, 0], unit[from_unit, 2]
                for u in range(from_unit, to_unit):
                    for j in range(count):
                        state[j] = np.int32(unit[u, 2] - line)
                    _find_states(
                        conditions, np.int32(unit[u, 0] - first), np.int32(unit[u, 1] - first),
                        columns, row, last, count, step, state,
                    )  # fmt: skip
                    for j in range(count):
                        at = np.uint64(np.uint32(state[j]) * np.uint32(distance))
                        for i in range(width):
                            sums[j * width + i] += lines[at + np.uint64(i)]
                if chunk[k, 3] != 0:
                    for j in range(count):
                        if row + j * step < rows:
                            for i in range(width):
                                if i < targets.shape[0]:
                                    out[row + j * step, chunk[k, 2], targets[i]] += np.float64(sums[j * width + i])
                    for i in range(sums_size):
                        sums[i] = np.float32(0.0)

    return add_dense


@functools.cache
def slotted_kernel(count: int) -> Any:
    """A kernel for threads of so many rows; a thread's sums are at its rows' places in each row of `sums`."""
    distance = NARROW + GAP

    @cuda.jit(cache=True)
    def add_slotted(  # type: ignore[no-untyped-def]
        chunk, unit, condition, entries, columns, stride, rows, targets, features, accumulators, lanes, sums, out
    ):
        lines = cuda.shared.array(LINE_FLOATS, np.float32, alignment=ALIGNMENT)
        conditions = cuda.shared.array(CONDITION_INTS, np.int32, alignment=ALIGNMENT)
        state = cuda.local.array(count, np.int32)
        step = np.int32(cuda.blockDim.x)
        last = np.int32(rows - 1)
        tile = step * count
        mine = cuda.blockIdx.x * tile + cuda.threadIdx.x
        for target in range(accumulators):
            for j in range(count):
                sums[target * lanes + mine + j * step] = np.float32(0.0)
        for begin in range(cuda.blockIdx.x * tile, rows, cuda.gridDim.x * tile):
            row = np.int32(begin + cuda.threadIdx.x)
            for k in range(chunk.shape[0]):
                from_unit, to_unit = chunk[k, 0], chunk[k, 1]
                _stage(unit, from_unit, to_unit, condition, entries, NARROW, stride, conditions, lines)
                first, line = unit[from_unit, 0], unit[from_unit, 2]
                for u in range(from_unit, to_unit):
                    for j in range(count):
                        state[j] = np.int32(unit[u, 2] - line)
                    _find_states(
                        conditions, np.int32(unit[u, 0] - first), np.int32(unit[u, 1] - first),
                        columns, row, last, count, step, state,
                    )  # fmt: skip
                    for j in range(count):
                        at = np.uint64(np.uint32(state[j]) * np.uint32(distance))
                        for i in range(NARROW):
                            sums[targets[u * NARROW + i] * lanes + mine + j * step] += lines[at + np.uint64(i)]
                if chunk[k, 3] != 0:
                    for target in range(accumulators):
                        for j in range(count):
                            place = target * lanes + mine + j * step
                            if row + j * step < rows:
                                out[row + j * step, chunk[k, 2], features[target]] += np.float64(sums[place])
                            sums[place] = np.float32(0.0)

    return add_slotted
