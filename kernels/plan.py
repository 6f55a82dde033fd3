"""Which trees of a forest are explained from tables, within a budget of memory.

A tree gets tables when no path in it has more than `TABLE_FEATURES` different features and its tables
fit into what is left of the budget, trees with small tables first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from treadle.errors import RequestError
from treadle.kernels.forest import Forest
from treadle.kernels.groups import Groups, Shape, make_groups
from treadle.kernels.lookup import states_in
from treadle.kernels.tables import Tables, build_tables, table_lines

Method = Literal["auto", "tables", "quadrature"]
TABLE_FEATURES = 8
"""Most different features on a path of a tree that gets tables: a leaf alone then has up to 256 states."""
SHALLOW_STATES, DEEP_STATES = 256, 512
"""Most states of a group, for trees with paths of up to 6 features and of more."""
INSISTED_FEATURES = 12
"""As `TABLE_FEATURES`, when tables are insisted on: 4096 states a leaf."""


@dataclass(frozen=True, eq=False)
class Tabled:
    """The groups and tables of the trees that have them. All arrays are on the host."""

    groups: Groups
    tables: Tables
    tree: NDArray[np.int64]
    """(groups,): the tree of each group, ascending."""


def choose_tables(
    forest: Forest,
    shape: Shape,
    features: NDArray[np.int64],
    background: NDArray[Any] | None,
    method: Method,
    table_bytes: int,
    pairs: bool,
) -> tuple[NDArray[np.bool_], Tabled | None]:
    """The trees (trees,) that have splits but no tables, and the tables of the others.

    Raises
    ------
    RequestError
        The method is "tables", and they need more than `table_bytes`, or a path has too many features.
    """
    longest = np.maximum.reduceat(shape.unique, forest.tree_start[:-1]) if forest.n_trees else np.zeros(0, np.int64)
    split = longest > 0
    if method == "quadrature" or not split.any():
        return split, None
    limit = INSISTED_FEATURES if method == "tables" else TABLE_FEATURES
    kept, tabled = _fitting(
        forest, shape, features, background, split & (longest <= limit), longest, table_bytes, pairs
    )
    rest = split & ~kept
    if method == "tables" and rest.any():
        first = np.flatnonzero(rest)[0]
        raise RequestError(
            f"TreeExplainer: tables of {rest.sum()} of {forest.n_trees} trees (the first is {first}, with up to "
            f"{longest[first]} features on a path) exceed table_bytes={table_bytes} or the {limit} features "
            "that tables allow; use method='auto'."
        )
    return rest, tabled


def _fitting(
    forest: Forest,
    shape: Shape,
    features: NDArray[np.int64],
    background: NDArray[Any] | None,
    wanted: NDArray[np.bool_],
    longest: NDArray[np.int64],
    table_bytes: int,
    pairs: bool,
) -> tuple[NDArray[np.bool_], Tabled | None]:
    """Which of the wanted trees have tables within the budget, and these."""
    if not wanted.any():
        return wanted, None
    deepest = int(longest[wanted].max())
    most = max(SHALLOW_STATES if deepest <= 6 else DEEP_STATES, 1 << deepest)
    groups = make_groups(forest, shape, wanted, most)
    width, _, lines = table_lines(groups, len(features), pairs)
    tree = _tree_of(forest, groups)
    size = np.bincount(tree, weights=lines * width * 4, minlength=forest.n_trees)
    order = np.argsort(size, kind="stable")
    fits = np.zeros(forest.n_trees, dtype=bool)
    fits[order] = np.cumsum(size[order]) <= table_bytes
    kept = wanted & fits
    if not kept.any():
        return kept, None
    if (kept != wanted).any():
        groups = make_groups(forest, shape, kept, most)
        tree = _tree_of(forest, groups)
    states = None if background is None else states_in(groups, background)
    return kept, Tabled(groups, build_tables(forest, shape, groups, features, pairs, states), tree)


def _tree_of(forest: Forest, groups: Groups) -> NDArray[np.int64]:
    return np.searchsorted(forest.tree_start, groups.group[:-1, 0], side="right") - 1
