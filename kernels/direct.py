"""What has no tables, leaf by leaf: interaction values and interventional values of deep trees.

Exact like the tables, in float64 throughout, and much slower: the interactions of a leaf of d features
take about d * d steps, and interventional values are found for every pair of a row and a background row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from treadle.kernels.binning import Bins, bin_rows, make_bins, node_ranks, wide_columns
from treadle.kernels.forest import LEAF, Forest
from treadle.kernels.groups import Shape
from treadle.kernels.rows import Rows
from treadle.kernels.tables import quadrature, share


@dataclass(frozen=True, eq=False)
class Direct:
    """Trees as they are in the forest. All arrays are on the host."""

    bins: Bins
    trees: NDArray[np.int64]
    longest: int
    """Most different features on a path."""
    nodes: tuple[NDArray[Any], ...]
    """Feature's row in the accumulator (LEAF for leaves), column, rank, right, parent; cover and value."""
    tree_start: NDArray[np.int64]
    tree_output: NDArray[np.int32]
    slots: int

    @property
    def block_rows(self) -> int:
        return 64


def make_direct(forest: Forest, shape: Shape, trees: NDArray[np.bool_], slots: NDArray[np.int64]) -> Direct:
    """The chosen trees; `slots` (features,) is the row of the accumulator of each feature."""
    wide = wide_columns(forest)
    bins = make_bins(forest, wide[wide >= 0])
    column = np.where(wide >= 0, bins.narrow[wide], 0).astype(np.int64)
    slot = np.where(forest.feature == LEAF, LEAF, slots[np.maximum(forest.feature, 0)])
    return Direct(
        bins=bins,
        trees=np.flatnonzero(trees),
        longest=int(shape.unique.max(initial=0)),
        nodes=(slot, column, node_ranks(forest), forest.right, shape.parent, forest.cover, forest.value),
        tree_start=forest.tree_start,
        tree_output=forest.tree_output,
        slots=int(slots.max(initial=0)) + 1,
    )


def binned(direct: Direct, rows: Rows) -> NDArray[Any]:
    """Bins of rows, (columns, rows)."""
    return bin_rows(direct.bins, rows).reshape(direct.bins.columns, -1)[:, : len(rows)]


def add_interactions(direct: Direct, rows: Rows, out: NDArray[np.float64]) -> None:
    """Adds to `out` (rows, outputs, slots * slots), at i * slots + j for features i < j."""
    points, weights = quadrature(max(direct.longest - 2, 0))
    _add_interactions(
        direct.trees,
        direct.tree_start,
        direct.tree_output,
        direct.nodes,
        direct.longest,
        points,
        weights,
        binned(direct, rows),
        direct.slots,
        out,
    )


def add_interventional(direct: Direct, background: NDArray[Any], rows: Rows, out: NDArray[np.float64]) -> None:
    """Adds to `out` (rows, outputs, slots); `background` are its rows' bins."""
    # weight[a, b] = (a - 1)! b! / (a + b)! for a features that only the row satisfies and b that only the other does.
    n = direct.longest + 1
    weight = np.zeros((n + 1, n + 1))
    for a in range(1, n + 1):
        weight[a, 0] = 1.0 / a
        for b in range(1, n + 1):
            weight[a, b] = weight[a, b - 1] * b / (a + b)
    _add_interventional(
        direct.trees,
        direct.tree_start,
        direct.tree_output,
        direct.nodes,
        weight,
        background,
        binned(direct, rows),
        direct.slots,
        out,
    )


@numba.njit(nogil=True, cache=True)
def _add_interactions(trees, tree_start, tree_output, nodes, longest, points, weights, bins, slots, out):  # type: ignore[no-untyped-def]
    slot, column, rank, _, parent, cover, value = nodes
    place = np.empty(longest + 1, np.int64)
    z = np.empty(longest + 1)
    o = np.empty(longest + 1)
    ratio = np.empty(longest + 1)
    for t in trees:
        for leaf in range(tree_start[t], tree_start[t + 1]):
            if slot[leaf] != LEAF or value[leaf] == 0.0:
                continue
            for r in range(bins.shape[1]):
                d = 0
                child, node = np.int64(leaf), parent[leaf]
                while node >= 0:
                    k = 0
                    while k < d and place[k] != slot[node]:
                        k += 1
                    if k == d:
                        place[k], z[k], o[k] = slot[node], 1.0, 1.0
                        d += 1
                    z[k] *= share(node, child, cover)
                    if (bins[column[node], r] > rank[node]) != (child != node + 1):
                        o[k] = 0.0
                    child, node = node, parent[node]
                for q in range(len(points)):
                    p = points[q]
                    whole = 0.5 * value[leaf] * weights[q]
                    for k in range(d):
                        f = p * o[k] + (1.0 - p) * z[k]
                        # A factor of zero makes all values zero, its own too, because then o = z = 0.
                        ratio[k] = (o[k] - z[k]) / f if f > 0.0 else 0.0
                        whole *= f
                    for k in range(d):
                        for j in range(k + 1, d):
                            low, high = min(place[k], place[j]), max(place[k], place[j])
                            out[r, tree_output[t], low * slots + high] += whole * ratio[k] * ratio[j]


@numba.njit(nogil=True, cache=True)
def _add_interventional(trees, tree_start, tree_output, nodes, weight, background, bins, slots, out):  # type: ignore[no-untyped-def]
    slot, column, rank, right, _, _, value = nodes
    others = background.shape[1]
    # Whom the path follows for each feature: 0 undecided, 1 the row, 2 the background row.
    follows = np.zeros(slots, np.int64)
    largest = 0
    for t in trees:
        largest = max(largest, tree_start[t + 1] - tree_start[t])
    # Open branches: the node, the features decided above it, and the feature that was decided for it, as whom.
    waiting = np.empty((largest + 1, 4), np.int64)
    decided = np.empty(largest + 1, np.int64)
    for t in trees:
        for r in range(bins.shape[1]):
            for b in range(others):
                waiting[0] = (tree_start[t], 0, -1, 0)
                height, count = 1, 0
                while height > 0:
                    height -= 1
                    node, above = waiting[height, 0], waiting[height, 1]
                    while count > above:
                        count -= 1
                        follows[decided[count]] = 0
                    if waiting[height, 2] >= 0:
                        decided[count] = waiting[height, 2]
                        follows[decided[count]] = waiting[height, 3]
                        count += 1
                    while slot[node] != LEAF:
                        f = slot[node]
                        mine = bins[column[node], r] > rank[node]
                        theirs = background[column[node], b] > rank[node]
                        if follows[f] == 0 and mine != theirs:
                            far = np.int64(right[node]) if theirs else node + 1
                            waiting[height] = (far, count, f, 2)
                            height += 1
                            decided[count] = f
                            follows[f] = 1
                            count += 1
                        went = theirs if follows[f] == 2 else mine
                        node = np.int64(right[node]) if went else node + 1
                    own = 0
                    for i in range(count):
                        own += follows[decided[i]] == 1
                    for i in range(count):
                        f = decided[i]
                        if follows[f] == 1:
                            out[r, tree_output[t], f] += value[node] * weight[own, count - own] / others
                        else:
                            out[r, tree_output[t], f] -= value[node] * weight[count - own, own] / others
                while count > 0:
                    count -= 1
                    follows[decided[count]] = 0
