"""Exact Shapley values of every row: tables for shallow trees, quadrature for deep ones.

A tree is explained from tables (`treadle.kernels.tables`) when `treadle.kernels.plan` gives it some;
any other tree by quadrature (`treadle.kernels.quadrature`), or leaf by leaf where it comes to
interactions or a background (`treadle.kernels.direct`). All are exact; sums of float32 numbers are short
and added up in float64. Rows on a GPU are explained there (`treadle.kernels.cuda`).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from treadle.errors import RequestError
from treadle.kernels.cuda import on_device
from treadle.kernels.direct import Direct, add_interactions, add_interventional, binned, make_direct
from treadle.kernels.forest import LEAF, Forest
from treadle.kernels.groups import Shape, tree_shape
from treadle.kernels.lookup import Lookup, add_lookup, make_lookup
from treadle.kernels.parallel import over_rows
from treadle.kernels.plan import Method, Tabled, choose_tables
from treadle.kernels.predict import predict_margin
from treadle.kernels.quadrature import Walks, add_walks, make_walks
from treadle.kernels.rows import Rows, as_matrix, as_rows, blocks
from treadle.kernels.tables import expected_values

if TYPE_CHECKING:
    from treadle.kernels.cuda.treeshap import DeviceExplainer

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
        Rows that stand for features outside a coalition: an array or a table, as for `shap_values`.
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
        self.background = None if background is None else as_matrix(as_rows(forest, background))
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
        """Values of rows: an array (rows, features), NaN for missing, or a table (`treadle.kernels.rows.as_rows`).

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
        if on_device(rows):
            return self._device.shap_values(rows, dtype)
        f = self.forest
        given = as_rows(f, rows)
        values = np.empty((len(given), f.n_outputs, f.n_features + 1), dtype=dtype)
        if len(given):
            over_rows(functools.partial(self._explain, given, values), len(given), self._values.block_rows)
        return values[:, 0] if f.n_outputs == 1 else values

    def interaction_values(self, rows: Any) -> NDArray[np.float64]:
        """Shapley interaction values of rows, an array or a table, as XGBoost's `pred_interactions`.

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
        if on_device(rows):
            return self._device.interaction_values(rows)
        given = as_rows(f, rows)
        singles = self.shap_values(given).reshape(len(given), f.n_outputs, f.n_features + 1)
        values = np.zeros((*singles.shape, f.n_features + 1))
        if len(given):
            over_rows(functools.partial(self._interact, given, singles, values), len(given), self._pairs.block_rows)
        return values[:, 0] if f.n_outputs == 1 else values

    def _explain(self, rows: Rows, values: NDArray[Any], low: int, high: int) -> None:
        plan = self._values
        for first, part in blocks(rows, low, high, plan.block_rows):
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

    def _interact(self, rows: Rows, singles: NDArray[Any], values: NDArray[np.float64], low: int, high: int) -> None:
        plan, used = self._pairs, len(self.features)
        for first, part in blocks(rows, low, high, plan.block_rows):
            last = first + len(part)
            pairs = np.zeros((len(part), self.forest.n_outputs, used * used))
            if plan.lookup is not None:
                add_lookup(plan.lookup, part, pairs)
            if plan.direct is not None:
                add_interactions(plan.direct, part, pairs)
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
    def shape(self) -> Shape:
        return tree_shape(self.forest)

    @functools.cached_property
    def tabled(self) -> tuple[NDArray[np.bool_], Tabled | None]:
        """The trees that do without tables though they have splits, and the tables of the others."""
        return self._choose(pairs=False)

    @functools.cached_property
    def tabled_pairs(self) -> tuple[NDArray[np.bool_], Tabled | None]:
        """As `tabled`, for interaction values."""
        return self._choose(pairs=True)

    @functools.cached_property
    def walks(self) -> Walks:
        """Of the trees without tables."""
        return make_walks(self.forest, self.shape, self.tabled[0], self._slots)

    def _choose(self, pairs: bool) -> tuple[NDArray[np.bool_], Tabled | None]:
        return choose_tables(
            self.forest, self.shape, self.features, self.background, self.method, self.table_bytes, pairs
        )

    @functools.cached_property
    def _device(self) -> DeviceExplainer:
        from treadle.kernels.cuda.treeshap import DeviceExplainer

        return DeviceExplainer(self)

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
        rest, tabled = self.tabled
        lookup = self._lookup(tabled, len(self.features))
        if not rest.any():
            return Plan(lookup)
        if self.background is None:
            return Plan(lookup, self.walks)
        return Plan(lookup, direct=make_direct(self.forest, self.shape, rest, self._slots))

    @functools.cached_property
    def _pairs(self) -> Plan:
        rest, tabled = self.tabled_pairs
        lookup = self._lookup(tabled, len(self.features) ** 2)
        return Plan(lookup, direct=make_direct(self.forest, self.shape, rest, self._slots) if rest.any() else None)

    def _lookup(self, tabled: Tabled | None, targets: int) -> Lookup | None:
        if tabled is None:
            return None
        return make_lookup(tabled.groups, tabled.tables, tabled.tree, self.forest.tree_output, targets)
