"""The margin of a compiled forest, row by row and node by node: the oracle of everything that reads forests."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.kernels.forest import LEAF, ZERO_BOUND, Forest
from treadle.kernels.forest_file import check_forest


def forest_margin(forest: Forest, X: Any) -> NDArray[np.float64]:
    """Margins (rows, outputs) of rows X (rows, features), summed in float64."""
    with np.errstate(over="ignore"):
        rows = np.asarray(X).astype(forest.dtype)
    margin = np.tile(forest.base, (len(rows), 1))
    for r, row in enumerate(rows):
        for tree in range(forest.n_trees):
            node = int(forest.tree_start[tree])
            while forest.feature[node] != LEAF:
                value = float(row[forest.feature[node]])
                node = int(forest.right[node]) if goes_right(forest, node, value) else node + 1
            margin[r, forest.tree_output[tree]] += forest.value[node]
    return margin


def goes_right(forest: Forest, node: int, value: float) -> bool:
    """Whether a row with this value, already rounded to the forest's type, goes right at an inner node."""
    feature = int(forest.feature[node])
    codes = int(forest.categories[feature])
    if codes > 0:
        start = int(forest.set_start[forest.rank[node]])
        if math.isnan(value):
            return bool(forest.set_right[start + codes + 1])
        return bool(forest.set_right[start + (math.trunc(value) if 0 <= value < codes else codes)])
    if math.isnan(value) or (forest.zero_missing[feature] and abs(value) <= ZERO_BOUND):
        return bool(forest.missing_right[node])
    cut = float(forest.cuts[forest.cut_start[feature] + forest.rank[node]])
    return not (math.isnan(cut) or value < cut)


def row_counts(forest: Forest, X: NDArray[Any]) -> NDArray[np.float64]:
    """How many of the rows reach each node (nodes,): the cover, when these were the training rows."""
    counts = np.zeros(forest.n_nodes)
    for row in X.astype(forest.dtype):
        for tree in range(forest.n_trees):
            node = int(forest.tree_start[tree])
            counts[node] += 1
            while forest.feature[node] != LEAF:
                right = goes_right(forest, node, float(row[forest.feature[node]]))
                node = int(forest.right[node]) if right else node + 1
                counts[node] += 1
    return counts


def probes(forest: Forest, X: NDArray[Any], *, nan: bool = True, inf: bool = True) -> NDArray[Any]:
    """Rows of X with values that are hard to route: cuts and their neighbours, zeros, infinities, odd categories.

    Categories include codes that are fractions above 0, negative, unknown and too large for any integer.
    """
    rng = np.random.default_rng(11)
    rows = X[rng.integers(0, len(X), 150)].astype(forest.dtype)
    for feature in range(forest.n_features):
        codes = int(forest.categories[feature])
        if codes > 0:
            pool = np.concatenate([np.arange(codes + 2), [-1.0, -7.0, 0.5, codes - 0.5, codes + 0.5, 300.0, 1e6, 1e30]])
        else:
            cuts = forest.cuts[forest.cut_start[feature] : forest.cut_start[feature + 1]]
            cuts = cuts[np.isfinite(cuts)]
            sides = [np.nextafter(cuts, forest.dtype.type(end)) for end in (-np.inf, np.inf)]
            edges = [0.0, -0.0, ZERO_BOUND, -ZERO_BOUND, 2 * ZERO_BOUND, 1e-36, -1e-36]
            pool = np.concatenate([cuts, *sides, edges, [np.inf, -np.inf] if inf else []])
        if nan:
            pool = np.concatenate([pool, [np.nan] * (1 + len(pool) // 8)])
        at = rng.random(len(rows)) < 0.5
        rows[at, feature] = rng.choice(pool, int(at.sum()))
    return rows


def assert_margin(forest: Forest, X: NDArray[Any], expected: Any, tolerance: float) -> None:
    """The forest is valid and its margin on rows X is the library's, to `tolerance` of what is above 1.

    Category sets send missing values where their nodes say.
    """
    check_forest(forest)
    by_set = np.flatnonzero((forest.feature >= 0) & (forest.categories[forest.feature] > 0))
    assert (forest.missing_right[by_set] == forest.set_right[forest.set_start[forest.rank[by_set] + 1] - 1]).all()
    found = forest_margin(forest, X)
    expected = np.asarray(expected, dtype=np.float64).reshape(len(X), -1)
    assert found.shape == expected.shape
    assert len(np.unique(expected.round(9))) > 2  # else any constant would pass
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
