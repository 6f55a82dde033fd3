"""Exact Shapley values of every row: tables for shallow trees, quadrature for deep ones.

A tree is explained from tables (`treadle.kernels.tables`) when no path in it has more than
`TABLE_FEATURES` different features and its tables fit into what is left of `table_bytes`, trees with
small tables first; any other tree by quadrature (`treadle.kernels.quadrature`), or leaf by leaf where it
comes to interactions or a background (`treadle.kernels.direct`). All are exact; sums of float32 numbers
are short and added up in float64.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from treadle.errors import RequestError
from treadle.kernels.binning import as_matrix
from treadle.kernels.direct import Direct, add_interactions, add_interventional, binned, make_direct
from treadle.kernels.forest import LEAF, Forest
from treadle.kernels.groups import Shape, make_groups, tree_shape
from treadle.kernels.lookup import Lookup, add_lookup, make_lookup, states_in
from treadle.kernels.parallel import over_rows
from treadle.kernels.predict import predict_margin
from treadle.kernels.quadrature import Walks, add_walks, make_walks
from treadle.kernels.tables import build_tables, expected_values, table_lines

Method = Literal["auto", "tables", "quadrature"]
TABLE_FEATURES = 8
"""Most different features on a path of a tree that gets tables: a leaf alone then has up to 256 states."""
SHALLOW_STATES, DEEP_STATES = 256, 512
"""Most states of a group, for trees with paths of up to 6 features and of more."""
INSISTED_FEATURES = 12
"""As `TABLE_FEATURES`, when tables are insisted on: 4096 states a leaf."""
TABLE_BYTES = 256 * 2**20
BARE_ROWS = 65_536
"""Rows of a block when no tree has a split."""


@dataclass(frozen=True, eq=False)
class Plan:
    """How the trees of a forest are explained; parts without trees are missing."""

    lookup: Lookup | None = None
    walks: Walks | None = None
    direct: Direct | None = None

    @property
    def block_rows(self) -> int:
        rows = [part.block_rows for part in (self.lookup, self.walks, self.direct) if part is not None]
        return min(rows, default=BARE_ROWS)


class TreeExplainer:
    """Shapley values of a compiled forest's margins. Ready plans are kept; safe to share between threads.

    Without a background values are path-dependent: a feature outside a coalition is averaged out by the
    training weight of the branches (shap's `tree_path_dependent`, XGBoost's `pred_contribs`). With one
    they are interventional: it takes its value from each background row in turn. The background costs
    nothing per row for trees with tables, and a walk for each of its rows for others. Threads follow
    `numba.set_num_threads`, and their number does not change a bit of the result.

    Parameters
    ----------
    forest
        See `treadle.kernels.forest.compile_forest`.
    background
        Rows (rows, features), float32 or float64, that stand for features outside a coalition.
    table_bytes
        Most memory for tables.
    method
        "auto" chooses for each tree; "tables" insists on them, "quadrature" does without.

    Raises
    ------
    RequestError
        The background has no rows, or not the forest's columns.
    """

    def __init__(
        self, forest: Forest, background: Any = None, table_bytes: int = TABLE_BYTES, method: Method = "auto"
    ) -> None:
        if method not in ("auto", "tables", "quadrature"):
            raise RequestError(f"TreeExplainer: method is {method!r}; it is 'auto', 'tables' or 'quadrature'.")
        self.forest = forest
        self.background = None if background is None else as_matrix(forest, background).copy()
        if self.background is not None and not len(self.background):
            raise RequestError("TreeExplainer: the background has no rows; give at least one.")
        self.table_bytes = table_bytes
        self.method = method

    def __repr__(self) -> str:
        return f"<TreeExplainer of {self.forest!r}>"

    @functools.cached_property
    def features(self) -> NDArray[np.int64]:
        """The features that the trees split on, ascending."""
        found: NDArray[np.int64] = np.unique(self.forest.feature[self.forest.feature != LEAF]).astype(np.int64)
        return found

    @functools.cached_property
    def expected(self) -> NDArray[np.float64]:
        """(outputs,): the mean margin, over the training weight or the background: the bias of every row."""
        f = self.forest
        if self.background is not None:
            return predict_margin(f, self.background).reshape(-1, f.n_outputs).mean(axis=0)
        by_tree = expected_values(f.tree_start, f.feature, f.right, f.cover, f.value)
        return f.base + np.bincount(f.tree_output, weights=by_tree, minlength=f.n_outputs)

    def shap_values(self, rows: Any, dtype: Any = np.float64) -> NDArray[Any]:
        """Values of rows (rows, features), float32 or float64, NaN for missing.

        Returns
        -------
        `dtype` float64 or float32 host array (rows, features + 1), or (rows, outputs, features + 1) with
        several outputs. The bias is last; a row adds up to its margin.

        Raises
        ------
        RequestError
            The number of columns is not the forest's, or the values are not numbers; or the method is
            "tables" and they need more than `table_bytes`, or a path has too many features.
        """
        f = self.forest
        matrix = as_matrix(f, rows)
        values = np.empty((len(matrix), f.n_outputs, f.n_features + 1), dtype=dtype)
        if len(matrix):
            over_rows(functools.partial(self._explain, matrix, values), len(matrix), self._values.block_rows)
        return values[:, 0] if f.n_outputs == 1 else values

    def interaction_values(self, rows: Any) -> NDArray[np.float64]:
        """Shapley interaction values of rows (rows, features), as XGBoost's `pred_interactions`.

        Returns
        -------
        float64 host array (rows, features + 1, features + 1), or with outputs as second axis. Each matrix
        is symmetric and its rows add up to `shap_values`: off the diagonal stands half of what two
        features do only together, on it what a feature does alone, and the bias in the last corner.

        Raises
        ------
        RequestError
            As `shap_values`; or the explainer has a background.
        """
        f = self.forest
        if self.background is not None:
            raise RequestError("TreeExplainer: interaction values are path-dependent; leave out the background.")
        matrix = as_matrix(f, rows)
        singles = self.shap_values(matrix).reshape(len(matrix), f.n_outputs, f.n_features + 1)
        values = np.zeros((*singles.shape, f.n_features + 1))
        if len(matrix):
            over_rows(functools.partial(self._interact, matrix, singles, values), len(matrix), self._pairs.block_rows)
        return values[:, 0] if f.n_outputs == 1 else values

    def _explain(self, matrix: NDArray[Any], values: NDArray[Any], low: int, high: int) -> None:
        plan, block = self._values, self._values.block_rows
        for first in range(low, high, block):
            part = matrix[first : min(first + block, high)]
            sums = np.zeros((len(part), self.forest.n_outputs, self.forest.n_features + 1))
            if plan.lookup is not None and plan.lookup.tables.dense:
                add_lookup(plan.lookup, part, sums)
            elif plan.lookup is not None:
                self._add_compact(functools.partial(add_lookup, plan.lookup, part), sums)
            if plan.walks is not None:
                self._add_compact(functools.partial(add_walks, plan.walks, self.forest.tree_output, part), sums)
            if plan.direct is not None:
                add = functools.partial(add_interventional, plan.direct, self._background_bins, part)
                self._add_compact(add, sums)
            sums[:, :, -1] = self.expected
            values[first : first + len(part)] = sums

    def _interact(
        self, matrix: NDArray[Any], singles: NDArray[Any], values: NDArray[np.float64], low: int, high: int
    ) -> None:
        plan, block, used = self._pairs, self._pairs.block_rows, len(self.features)
        for first in range(low, high, block):
            last = min(first + block, high)
            pairs = np.zeros((last - first, self.forest.n_outputs, used * used))
            if plan.lookup is not None:
                add_lookup(plan.lookup, matrix[first:last], pairs)
            if plan.direct is not None:
                add_interactions(plan.direct, matrix[first:last], pairs)
            square = pairs.reshape(*pairs.shape[:2], used, used)
            out = values[first:last]
            out[:, :, self.features[:, None], self.features] = square + square.swapaxes(2, 3)
            alone = singles[first:last] - out.sum(axis=-1)
            diagonal = np.arange(self.forest.n_features + 1)
            out[:, :, diagonal, diagonal] = alone

    def _add_compact(self, add: Any, sums: NDArray[np.float64]) -> None:
        """Calls `add` with an array that has a column for each feature in use only."""
        compact = np.zeros((*sums.shape[:2], len(self.features)))
        add(compact)
        sums[:, :, self.features] += compact

    @functools.cached_property
    def _shape(self) -> Shape:
        return tree_shape(self.forest)

    @functools.cached_property
    def _slots(self) -> NDArray[np.int64]:
        slots = np.zeros(self.forest.n_features, dtype=np.int64)
        slots[self.features] = np.arange(len(self.features))
        return slots

    @functools.cached_property
    def _background_bins(self) -> NDArray[Any]:
        assert self._values.direct is not None
        return binned(self._values.direct, self.background)  # type: ignore[arg-type]

    @functools.cached_property
    def _values(self) -> Plan:
        rest, lookup = self._tables(pairs=False)
        if not rest.any():
            return Plan(lookup)
        if self.background is not None:
            return Plan(lookup, direct=make_direct(self.forest, self._shape, rest, self._slots))
        return Plan(lookup, make_walks(self.forest, self._shape, rest, self._slots))

    @functools.cached_property
    def _pairs(self) -> Plan:
        rest, lookup = self._tables(pairs=True)
        return Plan(lookup, direct=make_direct(self.forest, self._shape, rest, self._slots) if rest.any() else None)

    def _tables(self, pairs: bool) -> tuple[NDArray[np.bool_], Lookup | None]:
        """The trees that do without tables though they have splits, and the tables of the others."""
        f, shape = self.forest, self._shape
        longest = np.maximum.reduceat(shape.unique, f.tree_start[:-1]) if f.n_trees else np.zeros(0, dtype=np.int64)
        split = longest > 0
        if self.method == "quadrature" or not split.any():
            return split, None
        limit = INSISTED_FEATURES if self.method == "tables" else TABLE_FEATURES
        tabled, lookup = self._fitting_tables(split & (longest <= limit), longest, pairs)
        rest = split & ~tabled
        if self.method == "tables" and rest.any():
            first = np.flatnonzero(rest)[0]
            raise RequestError(
                f"TreeExplainer: tables of {rest.sum()} of {f.n_trees} trees (the first is {first}, with up to "
                f"{longest[first]} features on a path) exceed table_bytes={self.table_bytes} or the {limit} features "
                "that tables allow; use method='auto'."
            )
        return rest, lookup

    def _fitting_tables(
        self, wanted: NDArray[np.bool_], longest: NDArray[np.int64], pairs: bool
    ) -> tuple[NDArray[np.bool_], Lookup | None]:
        """Which of the wanted trees have tables within the budget, and these."""
        f, shape = self.forest, self._shape
        if not wanted.any():
            return wanted, None
        deepest = int(longest[wanted].max())
        most = max(SHALLOW_STATES if deepest <= 6 else DEEP_STATES, 1 << deepest)
        groups = make_groups(f, shape, wanted, most)
        width, _, lines = table_lines(groups, len(self.features), pairs)
        tree = np.searchsorted(f.tree_start, groups.group[:-1, 0], side="right") - 1
        size = np.bincount(tree, weights=lines * width * 4, minlength=f.n_trees)
        order = np.argsort(size, kind="stable")
        fits = np.zeros(f.n_trees, dtype=bool)
        fits[order] = np.cumsum(size[order]) <= self.table_bytes
        kept = wanted & fits
        if not kept.any():
            return kept, None
        if (kept != wanted).any():
            groups = make_groups(f, shape, kept, most)
            tree = np.searchsorted(f.tree_start, groups.group[:-1, 0], side="right") - 1
        background = None if self.background is None else states_in(groups, self.background)
        tables = build_tables(f, shape, groups, self.features, pairs, background)
        used = len(self.features)
        return kept, make_lookup(groups, tables, tree, f.tree_output, used * used if pairs else used)
