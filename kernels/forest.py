"""The compiled forest: one frozen layout of arrays for the tree ensembles of every library.

Every node has one rule: a row goes left when its value is below the node's cut, right otherwise,
and where the node says when the value is missing. Importers (`treadle.kernels.importers`) turn the
other libraries' rules into this one by moving a threshold to the next representable number.

Cuts are kept once a feature, sorted; a node holds only the rank of its cut. So a row is binned once
(`bin = number of cuts <= value`) and every tree is a comparison of small integers: right when
`bin > rank`. A categorical node holds the number of a set instead of a rank, and a set says for
every category, for unknown ones and for a missing one whether it goes right.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

LEAF = -1
ZERO_BOUND = float(np.float32(1e-35))
"""Values of at most this size count as missing for features of `zero_missing` (LightGBM's kZeroThreshold)."""


@dataclass(frozen=True)
class Tree:
    """One tree as an importer hands it over: nodes in any order, the root first.

    `feature` (nodes,) int, -1 for a leaf; `threshold` (nodes,) float64: left when value < threshold, a
    NaN threshold sends every value left that is not missing; `left`, `right` (nodes,) int;
    `missing_right` (nodes,) bool; `cover` (nodes,) float64, the weight of the training rows that
    reached a node; `value` (nodes,) float64, read at leaves. `goes_right` holds for each categorical
    node, by category code, a bool array whose last two entries are for unknown codes and for
    missing values.
    """

    feature: NDArray[np.integer]
    threshold: NDArray[np.float64]
    left: NDArray[np.integer]
    right: NDArray[np.integer]
    missing_right: NDArray[np.bool_]
    cover: NDArray[np.float64]
    value: NDArray[np.float64]
    output: int = 0
    goes_right: Mapping[int, NDArray[np.bool_]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Forest:
    """Trees whose leaf values add up, by output, to the margin. All arrays are read-only host arrays.

    The left child of node i is i + 1 (preorder); `right` (nodes,) int32 counts in nodes of the whole
    forest. `rank` (nodes,) int32 is the rank of the cut among its feature's, or the number of a
    category set where `categories[feature] > 0`. `dtype` is the type in which the library compares:
    rows are rounded to it first.
    """

    source: str
    """The library that trained it, with its version."""
    n_features: int
    n_outputs: int
    dtype: np.dtype[Any]
    base: NDArray[np.float64]
    """(outputs,): the margin before any tree."""
    tree_start: NDArray[np.int64]
    """(trees + 1,): the first node of each tree."""
    tree_output: NDArray[np.int32]
    """(trees,): the output to which a tree adds; ascending."""
    feature: NDArray[np.int32]
    rank: NDArray[np.int32]
    right: NDArray[np.int32]
    missing_right: NDArray[np.bool_]
    cover: NDArray[np.float64]
    value: NDArray[np.float64]
    cut_start: NDArray[np.int64]
    """(features + 1,): where a feature's cuts begin in `cuts`."""
    cuts: NDArray[Any]
    """Sorted and unique within a feature, in `dtype`; a NaN, if any, comes last and is above all values."""
    categories: NDArray[np.int32]
    """(features,): category codes 0 to n - 1 of a categorical feature; 0 for a numeric one."""
    set_start: NDArray[np.int64]
    """(sets + 1,): where a set begins in `set_right`; it has categories + 2 entries (codes, unknown, missing)."""
    set_right: NDArray[np.bool_]
    zero_missing: NDArray[np.bool_]
    """(features,): values of at most `ZERO_BOUND` count as missing."""

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if isinstance(value, np.ndarray):
                value.setflags(write=False)

    def __repr__(self) -> str:
        return (
            f"<Forest of {self.n_trees} trees, {self.n_leaves} leaves, {self.n_features} features, "
            f"{self.n_outputs} outputs, from {self.source}>"
        )

    @property
    def n_trees(self) -> int:
        return len(self.tree_output)

    @property
    def n_nodes(self) -> int:
        return len(self.feature)

    @property
    def n_leaves(self) -> int:
        return int(np.count_nonzero(self.feature == LEAF))


def build_forest(
    trees: Sequence[Tree],
    *,
    source: str,
    n_features: int,
    n_outputs: int = 1,
    dtype: Any = np.float32,
    base: Any = 0.0,
    zero_missing: NDArray[np.bool_] | None = None,
) -> Forest:
    """The compiled forest of an importer's trees; `base` is one number, or one an output.

    Raises
    ------
    ValueError
        A child or a feature number lies outside its tree or the features; a feature is numeric in
        one node and categorical in another; a number is not finite that must be.
    """
    dtype = np.dtype(dtype)
    # One output after the other, so that kernels add up one at a time.
    trees = sorted(trees, key=lambda tree: tree.output)
    parts = [_preordered(tree, number) for number, tree in enumerate(trees)]
    sizes = np.array([len(part.feature) for part in parts], dtype=np.int64)
    tree_start = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    def joined(name: str, kind: Any) -> NDArray[Any]:
        return np.concatenate([getattr(part, name) for part in parts]).astype(kind) if parts else np.empty(0, kind)

    feature = joined("feature", np.int32)
    right = joined("right", np.int64) + np.repeat(tree_start[:-1], sizes)
    inner = feature != LEAF
    if feature.max(initial=LEAF) >= n_features:
        raise ValueError(f"a node splits on feature {feature.max()}, and there are {n_features}")
    categorical = np.zeros(len(feature), dtype=bool)
    sets: dict[int, NDArray[np.bool_]] = {}
    for start, part in zip(tree_start, parts, strict=False):
        for node, goes_right in part.goes_right.items():
            sets[int(start) + node] = np.asarray(goes_right, dtype=bool)
            categorical[int(start) + node] = True
    categories = np.zeros(n_features, dtype=np.int32)
    for node, goes_right in sets.items():
        categories[feature[node]] = max(categories[feature[node]], len(goes_right) - 2)
    mixed = np.unique(feature[inner & ~categorical & (categories[feature] > 0)])
    if len(mixed):
        raise ValueError(f"feature {mixed[0]} is split both by threshold and by category")
    rank = np.zeros(len(feature), dtype=np.int32)
    numeric = inner & ~categorical
    threshold = joined("threshold", np.float64)[numeric]
    cuts, cut_start = _cuts(feature[numeric], threshold, n_features, dtype, rank, numeric)
    set_start, set_right = _sets(sets, feature, categories, rank)
    value = joined("value", np.float64)
    cover = joined("cover", np.float64)
    offset = np.broadcast_to(np.asarray(base, dtype=np.float64), (n_outputs,)).copy()
    if not (np.isfinite(value[~inner]).all() and np.isfinite(cover).all() and np.isfinite(offset).all()):
        raise ValueError("a leaf value, a cover or the base score is not finite")
    value[inner] = 0.0
    return Forest(
        source=source,
        n_features=n_features,
        n_outputs=n_outputs,
        dtype=dtype,
        base=offset,
        tree_start=tree_start,
        tree_output=np.array([tree.output for tree in trees], dtype=np.int32),
        feature=feature,
        rank=rank,
        right=right.astype(np.int32),
        missing_right=joined("missing_right", np.bool_) & inner,
        cover=cover,
        value=value,
        cut_start=cut_start,
        cuts=cuts,
        categories=categories,
        set_start=set_start,
        set_right=set_right,
        zero_missing=np.zeros(n_features, dtype=bool) if zero_missing is None else np.asarray(zero_missing, dtype=bool),
    )


def compile_forest(model: Any) -> Forest:
    """The compiled forest of a trained model of XGBoost, LightGBM, scikit-learn, CatBoost, cuML or treelite.

    The margin is what the library calls its raw output: log-odds for boosted classifiers, the
    probability for forests (of the positive class when there are two), the value for regression.

    Raises
    ------
    UnsupportedModel
        The model is of a kind that has no such form; says which and why.
    """
    from treadle.kernels.importers import read_model

    return model if isinstance(model, Forest) else read_model(model)


def next_up(values: NDArray[Any], dtype: Any) -> NDArray[np.float64]:
    """Thresholds t of rules `value <= t`, as thresholds of `value < u`, for values of type `dtype`.

    u is the smallest number of that type above t: t is rounded down to the type, and one step added.
    """
    dtype = np.dtype(dtype)
    wide = np.asarray(values, dtype=np.float64)
    with np.errstate(over="ignore"):
        near = wide.astype(dtype)
        down = np.where(near.astype(np.float64) > wide, np.nextafter(near, dtype.type(-np.inf)), near)
        up = np.nextafter(down, dtype.type(np.inf)).astype(np.float64)
    # Nothing is above infinity: every value goes left.
    return np.where(np.isposinf(wide), np.nan, up)


def _preordered(tree: Tree, number: int) -> Tree:
    """The same tree with its nodes in preorder, left children first; children checked on the way."""
    feature = np.asarray(tree.feature, dtype=np.int32)
    left, right = np.asarray(tree.left, dtype=np.int64), np.asarray(tree.right, dtype=np.int64)
    order, new_right = _preorder(feature, left, right)
    if len(order) == 0:
        raise ValueError(f"tree {number} is not a tree: a child is missing, or has two parents")
    place = np.full(len(feature), -1, dtype=np.int64)
    place[order] = np.arange(len(order))
    return Tree(
        feature=feature[order],
        threshold=np.asarray(tree.threshold, dtype=np.float64)[order],
        left=np.arange(1, len(order) + 1),
        right=new_right,
        missing_right=np.asarray(tree.missing_right, dtype=bool)[order],
        cover=np.asarray(tree.cover, dtype=np.float64)[order],
        value=np.asarray(tree.value, dtype=np.float64)[order],
        output=tree.output,
        goes_right={int(place[node]): bits for node, bits in tree.goes_right.items() if place[node] >= 0},
    )


@numba.njit(cache=True)
def _preorder(feature, left, right):  # type: ignore[no-untyped-def]
    """Old numbers in the new order, and the new numbers of right children; empty when it is no tree."""
    n = len(feature)
    order = np.empty(n, np.int64)
    new_right = np.zeros(n, np.int64)
    waiting = np.empty(n + 1, np.int64)
    parent = np.empty(n + 1, np.int64)
    waiting[0], parent[0] = 0, -1
    depth, done = 1, 0
    while depth > 0:
        depth -= 1
        node = waiting[depth]
        if done >= n or node < 0 or node >= n:
            return order[:0], new_right[:0]
        if parent[depth] >= 0:
            new_right[parent[depth]] = done
        order[done] = node
        if feature[node] >= 0:
            if depth + 2 > n:
                return order[:0], new_right[:0]
            waiting[depth], parent[depth] = right[node], done
            waiting[depth + 1], parent[depth + 1] = left[node], -1
            depth += 2
        done += 1
    return order[:done], new_right[:done]


def _cuts(
    feature: NDArray[np.int32],
    threshold: NDArray[np.float64],
    n_features: int,
    dtype: np.dtype[Any],
    rank: NDArray[np.int32],
    where: NDArray[np.bool_],
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The cuts of all features one after another, and where each begins; fills in the ranks of nodes."""
    narrow = threshold.astype(dtype)
    if not np.array_equal(narrow.astype(np.float64), threshold, equal_nan=True):
        raise ValueError(f"a threshold is no {dtype} number")
    order = np.lexsort((narrow, feature))  # NaN sorts last
    f, t = feature[order], narrow[order]
    new = np.ones(len(f), dtype=bool)
    new[1:] = (f[1:] != f[:-1]) | ~((t[1:] == t[:-1]) | (np.isnan(t[1:]) & np.isnan(t[:-1])))
    cut_start = np.concatenate([[0], np.cumsum(np.bincount(f[new], minlength=n_features))]).astype(np.int64)
    ranks = np.empty(len(f), dtype=np.int32)
    ranks[order] = np.cumsum(new) - 1 - cut_start[f]
    rank[where] = ranks
    return t[new], cut_start


def _sets(
    sets: Mapping[int, NDArray[np.bool_]],
    feature: NDArray[np.int32],
    categories: NDArray[np.int32],
    rank: NDArray[np.int32],
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Distinct sets, widened to all codes of their feature; fills in the set numbers of nodes."""
    known: dict[tuple[int, bytes], int] = {}
    distinct: list[NDArray[np.bool_]] = []
    for node, bits in sets.items():
        codes = int(categories[feature[node]])
        # A code that this node's set does not reach is as good as unknown to it.
        wide = np.concatenate([bits[:-2], np.full(codes + 2 - len(bits), bits[-2]), bits[-2:]])
        key = (int(feature[node]), wide.tobytes())
        if key not in known:
            known[key] = len(distinct)
            distinct.append(wide)
        rank[node] = known[key]
    set_start = np.concatenate([[0], np.cumsum([len(bits) for bits in distinct])]).astype(np.int64)
    return set_start, np.concatenate(distinct) if distinct else np.empty(0, dtype=bool)
