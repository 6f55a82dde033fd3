"""Margins of a compiled forest.

The upper levels of a tree, as far as they are well filled, are completed to a perfect tree and evaluated
from the bottom up for 64 rows at a time: every node is one comparison of bytes, and the number of the
place that a row reaches is selected upwards, without a branch. What lies below is walked down, some rows
in turn so that their loads overlap.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from treadle.kernels.binning import LANES, Bins, bin_rows, make_bins, node_ranks, padded, wide_columns
from treadle.kernels.cuda import on_device
from treadle.kernels.forest import LEAF, Forest
from treadle.kernels.parallel import over_rows
from treadle.kernels.rows import Rows, as_rows, blocks
from treadle.kernels.simd import load, select, splat, store

PERFECT_DEPTH = 8
"""Most levels that are completed: the number of a place fits into a byte."""
PERFECT_FILL = 4
"""Levels are completed as long as that makes them at most so many times larger."""
BLOCK_ROWS = 1024
WALK_ROWS = 16


@dataclass(frozen=True, eq=False)
class PredictionPlan:
    """A forest laid out for prediction. All arrays are on the host.

    The uppermost `depth` levels of a tree are a perfect tree: 2**depth - 1 nodes from the top by
    level in `column` and `rank`. Where that is the whole tree (`walked` is 0), its 2**depth leaves
    are in `leaf`. Else there are 2**depth numbers in `entry` of nodes from which to walk on: a row
    goes from node i to `step[i] >> 32`, or to the node after it when its bin in the column
    `step[i] & 0xFFFFFFFF` is above `walk_rank[i]`; a leaf leads to itself.
    """

    bins: Bins
    depth: NDArray[np.int64]
    """(trees,)"""
    walked: NDArray[np.int64]
    """(trees,): levels below the perfect tree."""
    start: NDArray[np.int64]
    """(trees, 3): first perfect node; first leaf or entry; first walked node."""
    column: NDArray[np.int32]
    rank: NDArray[Any]
    leaf: NDArray[np.float64]
    entry: NDArray[np.uint32]
    step: NDArray[np.uint64]
    walk_rank: NDArray[Any]
    walk_value: NDArray[np.float64]


@functools.lru_cache(maxsize=8)
def prediction_plan(forest: Forest) -> PredictionPlan:
    """The plan of a forest, kept for the last few of them."""
    wide = wide_columns(forest)
    bins = make_bins(forest, wide[wide >= 0])
    column = np.where(wide >= 0, bins.narrow[wide], 0).astype(np.int32)
    layout = _lay_out(forest.tree_start, forest.feature, column, node_ranks(forest), forest.right, forest.value)
    depth, walked, start, columns, rank, leaf, entry, step, walk_rank, walk_value = layout
    # A rank that no bin exceeds stands for nodes that are not there.
    top = np.iinfo(bins.dtype).max
    ranks = [np.minimum(r, top).astype(bins.dtype) for r in (rank, walk_rank)]
    return PredictionPlan(bins, depth, walked, start, columns, ranks[0], leaf, entry, step, ranks[1], walk_value)


def predict_margin(forest: Forest, rows: Any) -> Any:
    """Margins of rows, an array (rows, features) or a table (see `treadle.kernels.rows.as_rows`): float64
    (rows,), or (rows, outputs) with several outputs; on the device where the rows are on one.

    Threads follow `numba.set_num_threads`; their number does not change the result.

    Raises
    ------
    RequestError
        The number of columns is not the forest's, or the values are not numbers.
    """
    if on_device(rows):
        from treadle.kernels.cuda.predict import predict_margin as predict_on_device

        return predict_on_device(forest, rows)
    given = as_rows(forest, rows)
    margin = np.empty((len(given), forest.n_outputs))
    margin[:] = forest.base
    over_rows(
        functools.partial(_add_block, prediction_plan(forest), forest.tree_output, given, margin),
        len(given),
        BLOCK_ROWS,
    )
    return margin[:, 0] if forest.n_outputs == 1 else margin


def _add_block(
    plan: PredictionPlan,
    tree_output: NDArray[np.int32],
    rows: Rows,
    margin: NDArray[np.float64],
    low: int,
    high: int,
) -> None:
    """Adds the trees to the margins of the rows from `low` to `high`."""
    p = plan
    for first, block in blocks(rows, low, high, BLOCK_ROWS):
        _add_trees(
            (p.depth, p.walked, p.start, tree_output),
            (p.column, p.rank, p.leaf, p.entry),
            (p.step, p.walk_rank, p.walk_value),
            bin_rows(p.bins, block),
            padded(len(block)),
            margin[first : first + len(block)],
        )


@numba.njit(nogil=True, cache=True)
def _goes_right(offset, rank, node, columns, first):  # type: ignore[no-untyped-def]
    return load(columns, offset[node] + first, LANES) > splat(rank[node], LANES)


@numba.njit(nogil=True, cache=True)
def _perfect_tree(offset, rank, depth, columns, first, levels):  # type: ignore[no-untyped-def]
    """Leaves of the rows first to first + 63 of one perfect tree, into levels[:64].

    Three levels of nodes at a time stay in registers; what is left over at the top goes one by one.
    """
    zero, one = splat(np.uint8(0), LANES), splat(np.uint8(1), LANES)
    two, three = splat(np.uint8(2), LANES), splat(np.uint8(3), LANES)
    done = 0
    while depth - done >= 3:
        top = depth - done - 3
        width = 1 << top
        for i in range(width):
            n = width - 1 + i
            right = _goes_right(offset, rank, n, columns, first)
            right_l = _goes_right(offset, rank, 2 * n + 1, columns, first)
            right_r = _goes_right(offset, rank, 2 * n + 2, columns, first)
            q = 4 * n + 3
            r0 = _goes_right(offset, rank, q, columns, first)
            r1 = _goes_right(offset, rank, q + 1, columns, first)
            r2 = _goes_right(offset, rank, q + 2, columns, first)
            r3 = _goes_right(offset, rank, q + 3, columns, first)
            if done == 0:
                v0 = select(r0, one, zero)
                v1 = select(r1, three, two)
                v2 = select(r2, one, zero)
                v3 = select(r3, three, two)
                low = select(right_l, v1, v0)
                high = select(right_r, v3, v2) + splat(np.uint8(4), LANES)
            else:
                step = splat(np.uint8(1 << done), LANES)
                step2 = splat(np.uint8(2 << done), LANES)
                at = 8 * i * LANES
                v0 = select(r0, load(levels, at + LANES, LANES) + step, load(levels, at, LANES))
                v1 = select(r1, load(levels, at + 3 * LANES, LANES) + step, load(levels, at + 2 * LANES, LANES))
                v2 = select(r2, load(levels, at + 5 * LANES, LANES) + step, load(levels, at + 4 * LANES, LANES))
                v3 = select(r3, load(levels, at + 7 * LANES, LANES) + step, load(levels, at + 6 * LANES, LANES))
                low = select(right_l, v1 + step2, v0)
                high = select(right_r, v3 + step2, v2) + splat(np.uint8(4 << done), LANES)
            store(levels, i * LANES, select(right, high, low))
        done += 3
    while done < depth:
        width = 1 << (depth - done - 1)
        step = splat(np.uint8(1 << done), LANES)
        for i in range(width):
            right = _goes_right(offset, rank, width - 1 + i, columns, first)
            if done == 0:
                low, high = zero, step
            else:
                low, high = load(levels, 2 * i * LANES, LANES), load(levels, (2 * i + 1) * LANES, LANES) + step
            store(levels, i * LANES, select(right, high, low))
        done += 1


@numba.njit(nogil=True, cache=True)
def _add_leaves(levels, leaf, sums):  # type: ignore[no-untyped-def]
    for r in range(LANES):
        sums[r] += leaf[levels[r]]


@numba.njit(nogil=True, cache=True)
def _walk(nodes, levels, entry, walk, columns, stride, sums):  # type: ignore[no-untyped-def]
    """Adds the leaves that 64 rows reach from the entries `levels`; `columns` and `sums` begin at the first row."""
    step, rank, value = walk
    for first in range(0, LANES, WALK_ROWS):
        for r in range(first, first + WALK_ROWS):
            nodes[r] = entry[levels[r]]
        moved = True
        while moved:
            moved = False
            for r in range(first, first + WALK_ROWS):
                node = nodes[r]
                s = step[node]
                there = np.uint32(s >> np.uint64(32))
                there += np.uint32(columns[(s & np.uint64(0xFFFFFFFF)) * np.uint64(stride) + np.uint64(r)] > rank[node])
                moved |= there != node
                nodes[r] = there
        for r in range(first, first + WALK_ROWS):
            sums[r] += value[nodes[r]]


@numba.njit(nogil=True, cache=True)
def _add_trees(trees, tops, walks, columns, stride, margin):  # type: ignore[no-untyped-def]
    depth, walked, start, tree_output = trees
    column, rank, leaf, entry = tops
    step, walk_rank, walk_value = walks
    sums = np.empty(stride)
    levels = np.zeros(max(1, (1 << PERFECT_DEPTH) >> 2) * LANES, np.uint8)
    nodes = np.empty(LANES, np.uint32)
    offset = np.empty(1 << PERFECT_DEPTH, np.int64)
    for output in range(margin.shape[1]):
        sums[:] = 0.0
        for t in range(len(depth)):
            if tree_output[t] != output:
                continue
            d = depth[t]
            inner = (1 << d) - 1
            first_node, first_leaf, first_walked = start[t, 0], start[t, 1], start[t, 2]
            for i in range(inner):
                offset[i] = np.int64(column[first_node + i]) * stride
            ranks = rank[first_node : first_node + inner]
            leaves = leaf[first_leaf : first_leaf + inner + 1]
            entries = entry[first_leaf : first_leaf + inner + 1]
            walk = (step[first_walked:], walk_rank[first_walked:], walk_value[first_walked:])
            for first in range(0, len(margin), LANES):
                if d > 0:
                    _perfect_tree(offset, ranks, d, columns, first, levels)
                else:
                    levels[:LANES] = 0
                if walked[t] == 0:
                    _add_leaves(levels, leaves, sums[first : first + LANES])
                else:
                    _walk(nodes, levels, entries, walk, columns[first:], stride, sums[first : first + LANES])
        for r in range(len(margin)):
            margin[r, output] += sums[r]


@numba.njit(cache=True)
def _lay_out(tree_start, feature, column, rank, right, value):  # type: ignore[no-untyped-def]
    """The arrays of PredictionPlan; walked nodes are in breadth-first order, so that siblings are neighbours."""
    trees = len(tree_start) - 1
    depth = np.zeros(trees, np.int64)
    walked = np.zeros(trees, np.int64)
    start = np.zeros((trees, 3), np.int64)
    level = np.zeros(len(feature), np.int64)
    tops, leaves, walks = 0, 0, 0
    for t in range(trees):
        deepest = 0
        inner = np.zeros(PERFECT_DEPTH + 1, np.int64)
        for i in range(tree_start[t], tree_start[t + 1]):
            deepest = max(deepest, level[i])
            if feature[i] != LEAF:
                level[i + 1] = level[right[i]] = level[i] + 1
                if level[i] < PERFECT_DEPTH:
                    inner[level[i]] += 1
        d, there = 0, 0
        for candidate in range(1, min(PERFECT_DEPTH, deepest) + 1):
            there += inner[candidate - 1]
            if (1 << candidate) - 1 <= PERFECT_FILL * there:
                d = candidate
        depth[t], walked[t] = d, deepest - d
        start[t, 0], start[t, 1], start[t, 2] = tops, leaves, walks
        tops += (1 << d) - 1
        leaves += 1 << d
        walks += tree_start[t + 1] - tree_start[t] if walked[t] else 0
    columns = np.zeros(tops, np.int32)
    ranks = np.full(tops, np.iinfo(np.int64).max, np.int64)
    leaf = np.zeros(leaves, np.float64)
    entry = np.zeros(leaves, np.uint32)
    step = np.zeros(walks, np.uint64)
    walk_rank = np.full(walks, np.iinfo(np.int64).max, np.int64)
    walk_value = np.zeros(walks, np.float64)
    queue = np.zeros(np.max(np.diff(tree_start)) if trees else 0, np.int64)
    slot = np.zeros(len(feature), np.int64)
    for t in range(trees):
        s, q, w = start[t, 0], start[t, 1], start[t, 2]
        inner_nodes = (1 << depth[t]) - 1
        queue[0] = tree_start[t]
        slot[queue[0]] = 0
        head, tail = 0, 1
        while head < tail:
            i = queue[head]
            p = slot[i]
            in_top = level[i] < depth[t]
            if feature[i] != LEAF:
                if in_top:
                    columns[s + p], ranks[s + p] = column[i], rank[i]
                    slot[i + 1], slot[right[i]] = 2 * p + 1, 2 * p + 2
                if walked[t]:
                    step[w + head] = (np.uint64(tail) << np.uint64(32)) | np.uint64(column[i])
                    walk_rank[w + head] = rank[i]
                queue[tail], queue[tail + 1] = i + 1, right[i]
                tail += 2
            elif walked[t]:
                step[w + head] = np.uint64(head) << np.uint64(32)
                walk_value[w + head] = value[i]
            if level[i] == depth[t] or (in_top and feature[i] == LEAF):
                # A leaf above the last level stands for all places below it.
                low, high = p, p
                while low < inner_nodes:
                    low, high = 2 * low + 1, 2 * high + 2
                for place in range(low - inner_nodes, high - inner_nodes + 1):
                    leaf[q + place] = value[i]
                    entry[q + place] = head
            head += 1
    return depth, walked, start, columns, ranks, leaf, entry, step, walk_rank, walk_value
