"""Contributions of deep trees by quadrature on a device; see `treadle.kernels.quadrature`.

A thread is one row at one point of the integral. What it adds to a feature is linear in the points, so
each thread keeps sums of its own, and those of a row's points are added up once for many trees. The
stacks of a walk are the thread's local memory, which the device keeps in its first cache, and only for
as many levels as the forest is deep, to a power of two.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import cuda

from treadle.kernels.cuda.arrays import Work, blocks_for, threads_for, upload
from treadle.kernels.cuda.binning import DeviceBins, upload_bins
from treadle.kernels.forest import Forest
from treadle.kernels.groups import Shape
from treadle.kernels.quadrature import ENTER, TREES_A_FLUSH, TURN, Walks

SMALLEST_STACK = 8
"""Levels of the smallest stack that a kernel is compiled for."""
ACCUMULATOR_BYTES = 256 * 2**20


@dataclass(frozen=True, eq=False)
class DeviceWalks:
    """Walks on a device."""

    bins: DeviceBins
    tree: Any
    """(walks, 4) int64: output, points, its first step, the step after its last."""
    step: Any
    """(steps, 3) int32: what, node, depth."""
    node: Any
    """(nodes, 6) int32: column, slot, which children are leaves, first coefficient, rank, the depth of the nearest
    ancestor that splits on the same feature or -1."""
    coefficient: Any
    chunk: Any
    """(chunks, 3) int64: trees from and to, output."""
    points: int
    """Most of a tree."""
    levels: int
    slots: int


def upload_walks(forest: Forest, shape: Shape, walks: Walks) -> DeviceWalks:
    depth = np.zeros(forest.n_nodes, dtype=np.int32)
    enters = walks.step[walks.step[:, 0] == ENTER]
    depth[enters[:, 1]] = enters[:, 2]
    above = np.where(shape.same >= 0, depth[shape.same], -1)
    node = np.column_stack([walks.node, walks.rank, above]).astype(np.int32)
    output = forest.tree_output[walks.tree[:, 0]].astype(np.int64)
    ends = np.flatnonzero(np.diff(output)) + 1
    bounds = np.union1d(ends, np.arange(0, len(output) + TREES_A_FLUSH, TREES_A_FLUSH).clip(max=len(output)))
    chunk = np.stack([bounds[:-1], bounds[1:], output[bounds[:-1]]], axis=1)
    levels = max(SMALLEST_STACK, 1 << (int(walks.depth) - 1).bit_length())
    return DeviceWalks(
        bins=upload_bins(forest, walks.bins),
        tree=upload(np.column_stack([output, walks.tree[:, 1:]])),
        step=upload(walks.step),
        node=upload(node),
        coefficient=upload(walks.coefficient),
        chunk=upload(chunk.astype(np.int64)),
        points=int(walks.tree[:, 1].max()),
        levels=levels,
        slots=walks.slots,
    )


def add_walks(walks: DeviceWalks, columns: Any, rows: int, features: Any, out: Any, work: Work) -> None:
    """Adds the values of all walks to `out` (rows, outputs, columns), a float64 device array.

    `columns` are the rows' bins; `features` says to which column of `out` a slot belongs.
    """
    points = walks.points
    tile = max(1, threads_for(rows * points) // points)
    threads = tile * points
    most = max(1, ACCUMULATOR_BYTES // (4 * walks.slots * threads))
    grid = min(blocks_for(rows, tile), most)
    sums = work.empty(grid * threads * walks.slots, np.float32)
    walk_kernel(walks.levels)[grid, threads, work.stream](
        walks.chunk,
        walks.tree,
        walks.step,
        walks.node,
        walks.coefficient,
        columns,
        walks.bins.stride(rows),
        rows,
        points,
        features,
        walks.slots,
        sums,
        out,
    )


@functools.cache
def walk_kernel(levels: int) -> Any:
    """A kernel for trees of so many levels of inner nodes, at most."""

    @cuda.jit(device=True, inline="always")
    def walk(tree, t, point, step, node, coefficient, columns, stride, row, high, left_sums, bits, sums, mine, lanes):  # type: ignore[no-untyped-def]
        # high: the products H by depth. left_sums: the sums S of left children. bits: 1 inside so far (o'), 2 inside
        # on the left, 4 on the right, 8 inside on the side that the walk is on.
        high[0] = np.float32(1.0)
        below = np.float32(0.0)
        for s in range(tree[t, 2], tree[t, 3]):
            what, i, depth = step[s, 0], step[s, 1], step[s, 2]
            leaves = node[i, 2]
            first = np.int64(node[i, 3])
            c, m = first + 2 + point, tree[t, 1]
            if what == ENTER:
                above = node[i, 5]
                before = above < 0 or (bits[above] & 8) != 0
                right = columns[node[i, 0] * stride + row] > node[i, 4]
                if not before:
                    factor = coefficient[first]
                    bits[depth] = 0
                elif right:
                    factor = coefficient[c + m]
                    bits[depth] = 1 + 4
                else:
                    factor = coefficient[c]
                    bits[depth] = 1 + 2 + 8
                product = high[depth] * factor
                if leaves & 1:
                    left_sums[depth] = product
                else:
                    high[depth + 1] = product
            elif what == TURN:
                seen = bits[depth]
                if not leaves & 1:
                    left_sums[depth] = below
                if not seen & 1:
                    factor = coefficient[first + 1]
                elif seen & 4:
                    factor = coefficient[c + 2 * m]
                    bits[depth] = 1 + 4 + 8
                else:
                    factor = coefficient[c + 3 * m]
                    bits[depth] = 1 + 2
                product = high[depth] * factor
                if leaves & 2:
                    below = product
                else:
                    high[depth + 1] = product
            else:
                seen = bits[depth]
                both = left_sums[depth] + below
                if seen & 1:
                    own = coefficient[c + 4 * m] * left_sums[depth] if seen & 2 else coefficient[c + 5 * m] * below
                    sums[node[i, 1] * lanes + mine] += own + coefficient[c + 6 * m] * both
                below = both

    @cuda.jit(cache=True)
    def add_walks(  # type: ignore[no-untyped-def]
        chunk, tree, step, node, coefficient, columns, stride, rows, points, features, slots, sums, out
    ):
        high = cuda.local.array(levels, np.float32)
        left_sums = cuda.local.array(levels, np.float32)
        bits = cuda.local.array(levels, np.uint8)
        threads = cuda.blockDim.x
        tile = threads // points
        lanes = np.int64(cuda.gridDim.x) * threads
        own = cuda.threadIdx.x // points
        point = cuda.threadIdx.x - own * points
        block = np.int64(cuda.blockIdx.x) * threads
        mine = block + cuda.threadIdx.x
        for slot in range(slots):
            sums[slot * lanes + mine] = np.float32(0.0)
        for begin in range(cuda.blockIdx.x * tile, rows, cuda.gridDim.x * tile):
            row = begin + own
            for k in range(chunk.shape[0]):
                if row < rows:
                    for t in range(chunk[k, 0], chunk[k, 1]):
                        # A tree with fewer points leaves threads idle.
                        if point < tree[t, 1]:
                            walk(
                                tree, t, point, step, node, coefficient, columns, stride, row,
                                high, left_sums, bits, sums, mine, lanes,
                            )  # fmt: skip
                cuda.syncthreads()
                for j in range(cuda.threadIdx.x, tile * slots, threads):
                    slot, other = j // tile, j % tile
                    total = 0.0
                    for p in range(points):
                        place = slot * lanes + block + other * points + p
                        total += np.float64(sums[place])
                        sums[place] = np.float32(0.0)
                    if begin + other < rows:
                        out[begin + other, chunk[k, 2], features[slot]] += total
                cuda.syncthreads()

    return add_walks
