"""Margins on a device: a thread a row, which walks down one tree after the other."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import cuda

from treadle.kernels.binning import make_bins, node_ranks, wide_columns
from treadle.kernels.cuda.arrays import Work, as_device_rows, blocks_for, device_number, result, threads_for, upload
from treadle.kernels.cuda.binning import DeviceBins, bin_on_device, upload_bins
from treadle.kernels.forest import LEAF, Forest

BLOCK_BYTES = 256 * 2**20
"""Bins of the rows that are worked on together."""


@dataclass(frozen=True, eq=False)
class DeviceTrees:
    """A forest's nodes on a device."""

    bins: DeviceBins
    node: Any
    """(nodes, 4) int32: column or LEAF, rank, right child, nothing."""
    value: Any
    tree_start: Any
    output_start: tuple[int, ...]
    """The first tree of each output, and the number of trees."""
    base: tuple[float, ...]


@functools.lru_cache(maxsize=8)
def upload_trees(forest: Forest, device: int) -> DeviceTrees:
    """The forest on a device (its number is only a key: it must be the current one), kept for the last few."""
    wide = wide_columns(forest)
    bins = make_bins(forest, wide[wide >= 0])
    node = np.zeros((forest.n_nodes, 4), dtype=np.int32)
    node[:, 0] = np.where(wide >= 0, bins.narrow[wide], LEAF)
    node[:, 1], node[:, 2] = node_ranks(forest), forest.right
    starts = np.searchsorted(forest.tree_output, np.arange(forest.n_outputs + 1))
    return DeviceTrees(
        bins=upload_bins(forest, bins),
        node=upload(node),
        value=upload(forest.value),
        tree_start=upload(forest.tree_start),
        output_start=tuple(starts.tolist()),
        base=tuple(np.broadcast_to(forest.base, (forest.n_outputs,)).tolist()),
    )


def predict_margin(forest: Forest, rows: Any) -> Any:
    """Margins of rows on the current device: a float64 device array (rows,), or (rows, outputs).

    Trees are added in the order of the host's kernels, in float64: the result is the same to the bit.

    Raises
    ------
    RequestError
        The number of columns is not the forest's, or the values are not float32 or float64.
    """
    found = as_device_rows(forest, rows)
    trees = upload_trees(forest, device_number())
    work = Work()
    shape = (len(found), forest.n_outputs)
    returned, margin = result(shape[:1] if forest.n_outputs == 1 else shape, np.float64)
    margin = margin.reshape(shape)
    block = max(1, BLOCK_BYTES // max(1, trees.bins.bins.columns * trees.bins.bins.dtype.itemsize))
    threads = threads_for(len(found))
    for first in range(0, len(found), block):
        part = found.block(first, min(first + block, len(found)))
        columns = bin_on_device(trees.bins, part, work)
        grid = blocks_for(len(part), threads)
        stride = trees.bins.stride(len(part))
        for output, base in enumerate(trees.base):
            begin, end = trees.output_start[output], trees.output_start[output + 1]
            add_trees[grid, threads, work.stream](
                trees.node,
                trees.value,
                trees.tree_start,
                begin,
                end,
                columns,
                stride,
                base,
                margin[first : first + len(part)],
                output,
            )
    return returned


@cuda.jit(cache=True)
def add_trees(  # type: ignore[no-untyped-def]
    node, value, tree_start, begin, end, columns, stride, base, margin, output
):
    """margin[r, output] = base + the trees from begin to end."""
    for r in range(cuda.grid(1), len(margin), cuda.gridDim.x * cuda.blockDim.x):
        total = 0.0
        for t in range(begin, end):
            i = tree_start[t]
            column = node[i, 0]
            while column >= 0:
                i = np.int64(node[i, 2]) if columns[column * stride + r] > node[i, 1] else i + 1
                column = node[i, 0]
            total += value[i]
        margin[r, output] = base + total
