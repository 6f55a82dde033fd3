"""Contributions of deep trees by quadrature: a walk over all nodes for 32 rows at a time.

As in `treadle.kernels.tables`, with the integral exchanged with the sum over leaves: at each of the
m points p, H is the product over the features of the path of f(o, z) = p * o + (1 - p) * z, multiplied
while going down. At a leaf S = value * H, and going up S of a node is the sum of its children's. An
edge changes one feature's factor from (o', z') to (o, z), and so adds, in sum over points,

    weight_p * [(o - z) / f(o, z) - (o' - z') / f(o', z')] * S(child)

to that feature. Because o = 0 follows from o' = 0, and the bracket is then zero, and because
(o - z) / f = -1 / (1 - p) whenever o = 0, a node needs of its children only

    u * (S(left) + S(right)) + d * S(the child on the row's side)      if o' = 1, else nothing.

Points are as few as integrate the tree's longest path exactly: ceil(d / 2) for d features.
Source: Wettenstein, Mitchell and Yu, "Quadrature-TreeSHAP", arXiv 2605.04497 (2026), which takes eight
points for all trees; here vectors run over rows, points are exact, and both children share a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from treadle.kernels.binning import LANES, Bins, bin_rows, make_bins, node_ranks, padded, wide_columns
from treadle.kernels.forest import LEAF, Forest
from treadle.kernels.groups import Shape
from treadle.kernels.lookup import add_sums
from treadle.kernels.rows import Rows
from treadle.kernels.simd import aligned, fma, load, prefetch, select, splat, store
from treadle.kernels.tables import quadrature, share

ROWS = 32
BLOCK_BYTES = 256 * 1024
"""Accumulators of a block of rows; their size limits its rows."""
TREES_A_FLUSH = 16
"""float32 sums of so many trees are added to float64 ones."""
ENTER, TURN, EXIT = 0, 1, 2
PER_POINT = 7
"""Coefficients of a node and point: the factor of H to the left where the row goes left, and where it does not; to the
right where it goes right, and where it does not; then d of the left, d of the right, and u. Each of them for all
points, one after the other; the two factors where o' = 0 come first."""
FEW_ROWS = 4
"""Rows up to which a vector holds the points of one row, not 32 rows."""
POINT_LANES = 8
FETCH_AHEAD = 700
"""Coefficients ahead that are asked for: a few nodes, as the processor does not see far enough by itself."""


@dataclass(frozen=True, eq=False)
class Walks:
    """Trees as streams of steps. All arrays are on the host.

    A step is ENTER (go down to the left), TURN (to the right) or EXIT (go up) of an inner node. Leaves
    have no steps: where a child is a leaf its value is in the coefficients.
    """

    bins: Bins
    tree: NDArray[np.int64]
    """(walks, 4): the tree, its points m, its first step, the step after its last."""
    step: NDArray[np.int32]
    """(steps, 3): what, node, depth."""
    node: NDArray[np.int32]
    """(nodes, 4): column, feature slot, whether children are leaves (1 the left, 2 the right), first coefficient."""
    rank: NDArray[Any]
    record: NDArray[np.int32]
    """(inner nodes, 8), in preorder: node, right child, the child of the nearest ancestor with the same feature on the
    way here or -1, column, rank, feature slot, first coefficient; and the n-th in postorder."""
    coefficient: NDArray[np.float32]
    depth: int
    """Of the deepest tree."""
    slots: int
    """Rows of the accumulator."""

    @property
    def block_rows(self) -> int:
        return max(LANES, BLOCK_BYTES // (4 * max(1, self.slots)) // LANES * LANES)


def make_walks(forest: Forest, shape: Shape, trees: NDArray[np.bool_], slots: NDArray[np.int64]) -> Walks:
    """The chosen trees; `slots` (features,) is the row of the accumulator of each feature."""
    numbers = np.flatnonzero(trees)
    longest = np.maximum.reduceat(shape.unique, forest.tree_start[:-1])
    chosen = np.zeros(forest.n_nodes, dtype=bool)
    for t in numbers:
        chosen[forest.tree_start[t] : forest.tree_start[t + 1]] = True
    wide = wide_columns(forest)
    bins = make_bins(forest, wide[chosen & (wide >= 0)])
    column = np.where(wide >= 0, bins.narrow[wide], 0)
    rules = {m: quadrature(2 * m - 2) for m in {max(1, (int(d) + 1) // 2) for d in longest[numbers]}}
    most = max(rules, default=1)
    points, weights = np.zeros((most + 1, most)), np.zeros((most + 1, most))
    for m, (p, w) in rules.items():
        points[m, :m], weights[m, :m] = p, w
    most_points = np.maximum(1, (longest + 1) // 2)
    inner = np.add.reduceat(forest.feature != LEAF, forest.tree_start[:-1], dtype=np.int64)
    size = int((inner * (2 + most_points * PER_POINT))[numbers].sum())
    coefficient = aligned(size + POINT_LANES, np.float32)  # vectors of points read past the last
    coefficient[size:] = 0.0
    tree, step, node, depth = _make_walks(
        numbers,
        most_points,
        forest.tree_start,
        (forest.feature, forest.right, shape.same, forest.cover, forest.value),
        column,
        slots,
        points,
        weights,
        int(inner[numbers].sum()) * 3,
        coefficient,
    )
    ranks = node_ranks(forest).astype(bins.dtype)
    inner = step[step[:, 0] == ENTER, 1]
    same, right = shape.same[inner], forest.right
    above = np.where(same >= 0, np.where(inner >= right[same], right[same], same + 1), -1)
    last = np.searchsorted(inner, step[step[:, 0] == EXIT, 1])
    columns = [inner, right[inner], above, node[inner, 0], ranks[inner], node[inner, 1], node[inner, 3], last]
    return Walks(
        bins,
        tree,
        step,
        node,
        ranks,
        np.column_stack(columns).astype(np.int32),
        coefficient,
        int(depth),
        int(slots.max(initial=0)) + 1,
    )


def add_walks(walks: Walks, tree_output: NDArray[Any], rows: Rows, out: NDArray[np.float64]) -> None:
    """Adds the values of all walks to `out` (rows, outputs, slots) for the rows of one block."""
    stride = padded(len(rows))
    columns = bin_rows(walks.bins, rows)
    points = int(walks.tree[:, 1].max(initial=1))
    program = (walks.step, walks.node, walks.rank, walks.coefficient)
    if len(rows) <= FEW_ROWS:
        most = int(np.diff(walks.tree[:, 2:]).max()) // 3 * 2 + 1
        lanes = -(-points // POINT_LANES) * POINT_LANES
        products, inside = aligned(most * lanes, np.float32), np.empty(most, dtype=np.uint8)
        few = (walks.record, walks.coefficient, columns, stride, products, inside, out)
        _add_few(walks.tree, tree_output, *few)
        return
    row = stride + ROWS
    sums = aligned(walks.slots * row, np.float32)
    sums[:] = 0.0
    scratch = (
        aligned((walks.depth + 1) * 3 * points * ROWS, np.float32),
        aligned(max(1, walks.depth) * 3 * ROWS, np.uint8),
        np.ones(walks.slots * ROWS, dtype=np.uint8),
    )
    _add_walks(
        walks.tree,
        tree_output,
        program,
        columns,
        stride,
        scratch,
        sums,
        row,
        walks.slots,
        out,
    )


@numba.njit(cache=True)
def _make_walks(  # type: ignore[no-untyped-def]
    numbers, most_points, tree_start, nodes, column, slots, points, weights, total_steps, coefficient
):
    feature, right, same, cover, value = nodes
    tree = np.zeros((len(numbers), 4), np.int64)
    step = np.zeros((total_steps, 3), np.int32)
    node = np.zeros((len(feature), 4), np.int32)
    # The share of the weight on the path that passes the edges of a node's feature down to its left or right child.
    z_left = np.ones(len(feature))
    z_right = np.ones(len(feature))
    waiting = np.zeros((len(feature) + 1, 3), np.int64)
    n_step, n_coefficient, deepest = 0, 0, 0
    for number in range(len(numbers)):
        t = numbers[number]
        m = most_points[t]
        first = n_step
        for i in range(tree_start[t], tree_start[t + 1]):
            if feature[i] == LEAF:
                continue
            a, b = i + 1, right[i]
            before = 1.0
            if same[i] >= 0:
                # Which side of the earlier node this one is on: its right child comes later in preorder.
                before = z_right[same[i]] if i >= right[same[i]] else z_left[same[i]]
            z_left[i] = before * share(i, a, cover)
            z_right[i] = before * share(i, b, cover)
            left_leaf, right_leaf = feature[a] == LEAF, feature[b] == LEAF
            node[i, 0], node[i, 1] = column[i], slots[feature[i]]
            node[i, 2], node[i, 3] = left_leaf + 2 * right_leaf, n_coefficient
            scale_left = value[a] if left_leaf else 1.0
            scale_right = value[b] if right_leaf else 1.0
            c = n_coefficient
            # With o' = 0 the factor is z / z', whatever the point.
            coefficient[c] = scale_left * (z_left[i] / before if before > 0.0 else 0.0)
            coefficient[c + 1] = scale_right * (z_right[i] / before if before > 0.0 else 0.0)
            c += 2
            for q in range(m):
                p, w = points[m, q], weights[m, q]
                f_before = p + (1.0 - p) * before
                f_left = p + (1.0 - p) * z_left[i]
                f_right = p + (1.0 - p) * z_right[i]
                coefficient[c + q] = scale_left * f_left / f_before
                coefficient[c + m + q] = scale_left * (1.0 - p) * z_left[i] / f_before
                coefficient[c + 2 * m + q] = scale_right * f_right / f_before
                coefficient[c + 3 * m + q] = scale_right * (1.0 - p) * z_right[i] / f_before
                coefficient[c + 4 * m + q] = w / ((1.0 - p) * f_left)
                coefficient[c + 5 * m + q] = w / ((1.0 - p) * f_right)
                coefficient[c + 6 * m + q] = w * (-1.0 / (1.0 - p) - (1.0 - before) / f_before)
            n_coefficient = c + PER_POINT * m
        waiting[0] = (tree_start[t], ENTER, 0)
        height = 0 if feature[tree_start[t]] == LEAF else 1
        while height > 0:
            height -= 1
            i, what, depth = waiting[height, 0], waiting[height, 1], waiting[height, 2]
            deepest = max(deepest, depth + 1)
            step[n_step] = (what, i, depth)
            n_step += 1
            if what == EXIT:
                continue
            waiting[height] = (i, what + 1, depth)
            height += 1
            child = i + 1 if what == ENTER else np.int64(right[i])
            if feature[child] != LEAF:
                waiting[height] = (child, ENTER, depth + 1)
                height += 1
        tree[number] = (t, m, first, n_step)
    return tree, step, node, deepest


@numba.njit(nogil=True, cache=True)
def _mask(array, place):  # type: ignore[no-untyped-def]
    return load(array, place, ROWS) > splat(np.uint8(0), ROWS)


@numba.njit(nogil=True, cache=True)
def _walk_tree(walk, program, columns, stride, begin, scratch, sums, row):  # type: ignore[no-untyped-def]
    """Adds one tree to sums (slots * row,) at the rows begin to begin + 31.

    `scratch` holds for each depth the products H and the sums S of both children, (depth, 3, points, ROWS)
    float32, and the masks o', left and right, (depth, 3, ROWS) uint8; and for each slot whether the row is
    inside so far, (slots, ROWS) uint8, all ones.
    """
    step, node, rank, coefficient = program
    down, masks, inside = scratch
    m = walk[1]
    level = 3 * m * ROWS
    zero = splat(np.uint8(0), ROWS)
    nothing = splat(np.float32(0.0), ROWS)
    for q in range(m):
        store(down, q * ROWS, splat(np.float32(1.0), ROWS))
    for s in range(walk[2], walk[3]):
        what, i, depth = step[s, 0], step[s, 1], step[s, 2]
        column, slot, leaves, first = node[i, 0], node[i, 1], node[i, 2], node[i, 3]
        at = np.int64(depth) * level
        mask_at = np.int64(depth) * 3 * ROWS
        here = np.int64(slot) * ROWS
        c = np.int64(first) + 2
        if what == ENTER:
            before = load(inside, here, ROWS)
            goes_right = load(columns, np.int64(column) * stride + begin, ROWS) > splat(rank[i], ROWS)
            left_byte, right_byte = select(goes_right, zero, before), select(goes_right, before, zero)
            store(masks, mask_at, before)
            store(masks, mask_at + ROWS, left_byte)
            store(masks, mask_at + 2 * ROWS, right_byte)
            store(inside, here, left_byte)
            o, left = before > zero, left_byte > zero
            neither = splat(coefficient[first], ROWS)
            # The child's H goes to its own level; a leaf's S into this one's.
            target = at + m * ROWS if leaves & 1 else at + level
            for q in range(m):
                k = c + q
                factor = select(o, select(left, splat(coefficient[k], ROWS), splat(coefficient[k + m], ROWS)), neither)
                store(down, target + q * ROWS, load(down, at + q * ROWS, ROWS) * factor)
        elif what == TURN:
            right_byte = load(masks, mask_at + 2 * ROWS, ROWS)
            store(inside, here, right_byte)
            o, right = _mask(masks, mask_at), right_byte > zero
            neither = splat(coefficient[first + 1], ROWS)
            target = at + 2 * m * ROWS if leaves & 2 else at + level
            for q in range(m):
                k = c + q + 2 * m
                factor = select(o, select(right, splat(coefficient[k], ROWS), splat(coefficient[k + m], ROWS)), neither)
                store(down, target + q * ROWS, load(down, at + q * ROWS, ROWS) * factor)
        else:
            before = load(masks, mask_at, ROWS)
            store(inside, here, before)
            left, right = _mask(masks, mask_at + ROWS), _mask(masks, mask_at + 2 * ROWS)
            # The parent turns next when this is its left child, else it exits: the side says where S goes.
            target = at
            if depth > 0:
                side = 1 if step[s + 1, 0] == TURN else 2
                target = at - level + side * m * ROWS
            both, left_sum, right_sum = nothing, nothing, nothing
            for q in range(m):
                k = c + q + 4 * m
                a, b = load(down, at + (m + q) * ROWS, ROWS), load(down, at + (2 * m + q) * ROWS, ROWS)
                left_sum = fma(splat(coefficient[k], ROWS), a, left_sum)
                right_sum = fma(splat(coefficient[k + m], ROWS), b, right_sum)
                s_node = a + b
                both = fma(splat(coefficient[k + 2 * m], ROWS), s_node, both)
                store(down, target + q * ROWS, s_node)
            own = select(left, left_sum + both, select(right, right_sum + both, nothing))
            place = np.int64(slot) * row + begin
            store(sums, place, load(sums, place, ROWS) + own)


@numba.njit(nogil=True, cache=True)
def _walk_row(walk, record, coefficient, bins, products, inside, sums):  # type: ignore[no-untyped-def]
    """Adds one tree to sums (slots,) of one row with `bins` (columns,), to the bit as `_walk_tree` does.

    Goes over all nodes down and then up again, without a stack and with few branches that the row decides.
    `products` (nodes of a tree * points in whole vectors,) float32 and `inside` (nodes of a tree,) uint8
    are overwritten.
    """
    # Unsigned numbers, because Numba looks whether signed indices are negative.
    m, first, last = walk[1], np.uint64(walk[2] // 3), np.uint64(walk[3] // 3)
    points, lanes = np.uint64(m), np.uint64((m + POINT_LANES - 1) // POINT_LANES * POINT_LANES)
    root, next_node = np.uint64(record[first, 0]), np.uint64(1)
    for q in range(0, m, POINT_LANES):
        store(products, q, splat(np.float32(1.0), POINT_LANES))
    for k in range(first, last):
        i, j, above = np.uint64(record[k, 0]) - root, np.uint64(record[k, 1]) - root, record[k, 2]
        before = np.uint8(1)
        if above >= 0:
            before = inside[np.uint64(above) - root]
        right = np.uint8(bins[np.uint64(record[k, 3])] > record[k, 4])
        inside[i + next_node], inside[j] = before & (right ^ np.uint8(1)), before & right
        alone = np.int64(record[k, 6])
        for ahead in range(FETCH_AHEAD, FETCH_AHEAD + 3 * 16, 16):
            if alone + ahead < len(coefficient):
                prefetch(coefficient, alone + ahead)
        c = alone + 2
        left_at, right_at = c + m * right, c + 3 * m - m * right
        here_at, left_to, right_to = np.int64(i * lanes), np.int64((i + next_node) * lanes), np.int64(j * lanes)
        for q in range(0, m, POINT_LANES):
            here = load(products, here_at + q, POINT_LANES)
            if before:
                left_factor = load(coefficient, left_at + q, POINT_LANES)
                right_factor = load(coefficient, right_at + q, POINT_LANES)
            else:
                left_factor = splat(coefficient[alone], POINT_LANES)
                right_factor = splat(coefficient[alone + 1], POINT_LANES)
            store(products, left_to + q, here * left_factor)
            store(products, right_to + q, here * right_factor)
    for e in range(first, last):
        n = np.uint64(record[e, 7])
        i, j = np.uint64(record[n, 0]) - root, np.uint64(record[n, 1]) - root
        here_at, left_at, right_at = np.int64(i * lanes), np.int64((i + next_node) * lanes), np.int64(j * lanes)
        for q in range(0, m, POINT_LANES):
            both = load(products, left_at + q, POINT_LANES) + load(products, right_at + q, POINT_LANES)
            store(products, here_at + q, both)
        left = np.uint64(inside[i + next_node])
        if left | inside[j]:
            own_start = np.uint64(record[n, 6]) + np.uint64(2)
            side = np.int64((j + (i + next_node - j) * left) * lanes)
            own, of_both = (
                np.int64(own_start + points * (np.uint64(5) - left)),
                np.int64(own_start + points * np.uint64(6)),
            )
            one, both_sum = splat(np.float32(0.0), 1), splat(np.float32(0.0), 1)
            # One after the other, as the points of 32 rows are added.
            for q in range(m):
                one = fma(load(coefficient, own + q, 1), load(products, side + q, 1), one)
                both_sum = fma(load(coefficient, of_both + q, 1), load(products, here_at + q, 1), both_sum)
            slot = np.int64(record[n, 5])
            store(sums, slot, load(sums, slot, 1) + (one + both_sum))


@numba.njit(nogil=True, cache=True)
def _add_few(tree, tree_output, record, coefficient, columns, stride, products, inside, out):  # type: ignore[no-untyped-def]
    bins = np.empty(len(columns) // stride, columns.dtype)
    sums = np.zeros(out.shape[2], np.float32)
    for r in range(len(out)):
        for column in range(len(bins)):
            bins[column] = columns[column * stride + r]
        for t in range(len(tree)):
            _walk_row(tree[t], record, coefficient, bins, products, inside, sums)
            if _flushes(tree, tree_output, t):
                for slot in range(len(sums)):
                    out[r, tree_output[tree[t, 0]], slot] += sums[slot]
                    sums[slot] = 0.0


@numba.njit(nogil=True, cache=True)
def _flushes(tree, tree_output, t):  # type: ignore[no-untyped-def]
    """Whether float32 sums are added to the float64 ones after walk t."""
    last = t + 1 == len(tree)
    return last or (t + 1) % TREES_A_FLUSH == 0 or tree_output[tree[t + 1, 0]] != tree_output[tree[t, 0]]


@numba.njit(nogil=True, cache=True)
def _add_walks(tree, tree_output, program, columns, stride, scratch, sums, row, slots, out):  # type: ignore[no-untyped-def]
    rows = len(out)
    for t in range(len(tree)):
        for begin in range(0, rows, ROWS):
            _walk_tree(tree[t], program, columns, stride, begin, scratch, sums, row)
        if _flushes(tree, tree_output, t):
            add_sums(sums, row, rows, slots, out, tree_output[tree[t, 0]])
