"""Predictions and Shapley values of a forest from their definitions: slow, in float64, one row at a time.

Shapley values and interactions are additive over trees and do not change when players that no split
uses are left out, so subsets are enumerated tree by tree, over the features which that tree uses.
Results have the outputs first, also when there is only one, and the bias last.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.kernels.forest import LEAF, ZERO_BOUND, Forest, Tree

Players = frozenset[int]
Game = Callable[[Players], float]


def goes_right(forest: Forest, node: int, row: Sequence[Any] | NDArray[Any]) -> bool:
    """Where a row goes at an inner node."""
    feature, rank = int(forest.feature[node]), int(forest.rank[node])
    with np.errstate(over="ignore", under="ignore"):
        value = float(forest.dtype.type(row[feature]))
    if forest.zero_missing[feature] and abs(value) <= ZERO_BOUND:
        value = math.nan
    codes = int(forest.categories[feature])
    if codes > 0:
        entries = forest.set_right[forest.set_start[rank] : forest.set_start[rank + 1]]
        if math.isnan(value):
            return bool(entries[codes + 1])
        return bool(entries[math.floor(value) if 0 <= value < codes else codes])
    if math.isnan(value):
        return bool(forest.missing_right[node])
    cuts = forest.cuts[forest.cut_start[feature] : forest.cut_start[feature + 1]]
    return int(np.count_nonzero(cuts <= value)) > rank


def leaf_of(forest: Forest, tree: int, choose: Callable[[int], bool]) -> int:
    """The leaf that is reached when `choose(node)` says whether to go right."""
    node = int(forest.tree_start[tree])
    while forest.feature[node] != LEAF:
        node = int(forest.right[node]) if choose(node) else node + 1
    return node


def margin(forest: Forest, row: NDArray[Any], output: int) -> float:
    """Base and the leaf values of the output's trees, correctly rounded."""
    values = [
        float(forest.value[leaf_of(forest, tree, lambda node: goes_right(forest, node, row))])
        for tree in range(forest.n_trees)
        if forest.tree_output[tree] == output
    ]
    return math.fsum([float(forest.base[output]), *values])


def margins(forest: Forest, rows: NDArray[Any]) -> NDArray[np.float64]:
    """(rows, outputs), or (rows,) for one output."""
    found = np.array([[margin(forest, row, k) for k in range(forest.n_outputs)] for row in rows])
    found = found.reshape(len(rows), forest.n_outputs)
    return found[:, 0] if forest.n_outputs == 1 else found


def walked(tree: Tree, row: NDArray[Any], dtype: Any) -> float:
    """The leaf value by the rules of an importer's tree, before it was compiled."""
    node = 0
    while tree.feature[node] != LEAF:
        with np.errstate(over="ignore", under="ignore"):
            value = float(np.dtype(dtype).type(row[tree.feature[node]]))
        if node in tree.goes_right:
            entries = tree.goes_right[node]
            known = len(entries) - 2
            code = known + 1 if math.isnan(value) else math.floor(value) if 0 <= value < known else known
            right = bool(entries[code])
        elif math.isnan(value):
            right = bool(tree.missing_right[node])
        else:
            right = value >= float(tree.threshold[node])
        node = int((tree.right if right else tree.left)[node])
    return float(tree.value[node])


def shares(forest: Forest, node: int) -> tuple[float, float]:
    """The parts of a node's cover that its left and its right child hold; halves where there is none."""
    whole = float(forest.cover[node])
    if whole == 0:
        return 0.5, 0.5
    return float(forest.cover[node + 1]) / whole, float(forest.cover[forest.right[node]]) / whole


def inner_nodes(forest: Forest, tree: int) -> list[int]:
    nodes = range(int(forest.tree_start[tree]), int(forest.tree_start[tree + 1]))
    return [node for node in nodes if forest.feature[node] != LEAF]


def used_features(forest: Forest, tree: int) -> list[int]:
    return sorted({int(forest.feature[node]) for node in inner_nodes(forest, tree)})


def conditional_game(forest: Forest, tree: int, row: NDArray[Any]) -> Game:
    """v(S): the tree's value where features of S follow the row and others are weighted by cover."""
    right = {node: goes_right(forest, node, row) for node in inner_nodes(forest, tree)}
    weights = {node: shares(forest, node) for node in right}

    def value(node: int, known: Players) -> float:
        if node not in right:
            return float(forest.value[node])
        children = node + 1, int(forest.right[node])
        if int(forest.feature[node]) in known:
            return value(children[right[node]], known)
        return sum(weight * value(child, known) for weight, child in zip(weights[node], children, strict=True))

    return lambda known: value(int(forest.tree_start[tree]), known)


def interventional_game(forest: Forest, tree: int, row: NDArray[Any], other: NDArray[Any]) -> Game:
    """v(S): the tree's value of the row that has the features of S from `row`, the rest from `other`."""
    right = {
        node: (goes_right(forest, node, other), goes_right(forest, node, row)) for node in inner_nodes(forest, tree)
    }

    def value(known: Players) -> float:
        return float(forest.value[leaf_of(forest, tree, lambda node: right[node][int(forest.feature[node]) in known])])

    return value


def largest(forest: Forest, values: NDArray[Any]) -> float:
    """The largest contribution, or leaf where leaves cancel each other: what errors are measured against."""
    return float(max(np.abs(values).max(initial=0), np.abs(forest.value).max(initial=0), 1e-30))


def for_all(explain: Callable[..., NDArray[np.float64]], forest: Forest, rows: NDArray[Any], *more: Any) -> Any:
    """`explain` of every row; without the axis of outputs when there is one output."""
    found = np.array([explain(forest, row, *more) for row in rows])
    return found[:, 0] if forest.n_outputs == 1 else found


def subsets(players: Iterable[int]) -> list[Players]:
    items = list(players)
    return [frozenset(some) for size in range(len(items) + 1) for some in itertools.combinations(items, size)]


def shapley_values(game: Game, players: Sequence[int]) -> dict[int, float]:
    """phi_i = sum over S without i of |S|! (M - |S| - 1)! / M! (v(S with i) - v(S))."""
    values = {some: game(some) for some in subsets(players)}
    m = len(players)
    weight = [math.factorial(k) * math.factorial(m - k - 1) / math.factorial(m) for k in range(m)]
    return {
        i: math.fsum(weight[len(some)] * (values[some | {i}] - v) for some, v in values.items() if i not in some)
        for i in players
    }


def interaction_values(game: Game, players: Sequence[int]) -> dict[tuple[int, int], float]:
    """phi_ij for i < j, the half that falls to each of (i, j) and (j, i).

    phi_ij = 1/2 sum over S without i and j of |S|! (M - |S| - 2)! / (M - 1)!
    (v(S with i and j) - v(S with i) - v(S with j) + v(S)).
    """
    values = {some: game(some) for some in subsets(players)}
    m = len(players)
    weight = [math.factorial(k) * math.factorial(m - k - 2) / math.factorial(m - 1) / 2 for k in range(m - 1)]
    return {
        (i, j): math.fsum(
            weight[len(some)] * (values[some | {i, j}] - values[some | {i}] - values[some | {j}] + v)
            for some, v in values.items()
            if i not in some and j not in some
        )
        for i, j in itertools.combinations(players, 2)
    }


def shapley(forest: Forest, row: NDArray[Any]) -> NDArray[np.float64]:
    """(outputs, features + 1): path-dependent values."""
    found = np.zeros((forest.n_outputs, forest.n_features + 1))
    found[:, -1] = forest.base
    for tree in range(forest.n_trees):
        output = found[forest.tree_output[tree]]
        game = conditional_game(forest, tree, row)
        output[-1] += game(frozenset())
        for i, phi in shapley_values(game, used_features(forest, tree)).items():
            output[i] += phi
    return found


def interactions(forest: Forest, row: NDArray[Any]) -> NDArray[np.float64]:
    """(outputs, features + 1, features + 1): path-dependent interactions; rows sum to `shapley`."""
    n = forest.n_features
    found = np.zeros((forest.n_outputs, n + 1, n + 1))
    for tree in range(forest.n_trees):
        output = found[forest.tree_output[tree]]
        game = conditional_game(forest, tree, row)
        for (i, j), phi in interaction_values(game, used_features(forest, tree)).items():
            output[i, j] += phi
            output[j, i] += phi
    main = shapley(forest, row) - found.sum(axis=2)
    found[:, np.arange(n + 1), np.arange(n + 1)] += main
    return found


def interventional(forest: Forest, row: NDArray[Any], background: NDArray[Any]) -> NDArray[np.float64]:
    """(outputs, features + 1): the average over the background's rows of each one's Shapley values."""
    found = np.zeros((forest.n_outputs, forest.n_features + 1))
    for other in background:
        for tree in range(forest.n_trees):
            output = found[forest.tree_output[tree]]
            game = interventional_game(forest, tree, row, other)
            output[-1] += game(frozenset())
            for i, phi in shapley_values(game, used_features(forest, tree)).items():
                output[i] += phi
    found /= len(background)
    found[:, -1] += forest.base
    return found


def shapley_by_size(forest: Forest, row: NDArray[Any]) -> NDArray[np.float64]:
    """`shapley` for trees of many features: subsets of equal size are counted together, leaf by leaf.

    A leaf's game is value * product over its path's features of o_i (i in S) or z_i (i not in S), so
    the sums over the subsets of one size are the coefficients of product(z_j + o_j t).
    """
    found = np.zeros((forest.n_outputs, forest.n_features + 1))
    found[:, -1] = forest.base
    for tree in range(forest.n_trees):
        output = found[forest.tree_output[tree]]
        for value, path in leaf_paths(forest, tree, row):
            m = len(path)
            output[-1] += value * math.prod(z for _, z in path.values())
            for i, (o, z) in path.items():
                sizes = [1.0]
                for j, (other_o, other_z) in path.items():
                    if j != i:
                        pairs = zip([*sizes, 0.0], [0.0, *sizes], strict=True)
                        sizes = [other_z * same + other_o * less for same, less in pairs]
                weighted = (
                    count * math.factorial(k) * math.factorial(m - k - 1) / math.factorial(m)
                    for k, count in enumerate(sizes)
                )
                output[i] += value * (o - z) * math.fsum(weighted)
    return found


def leaf_paths(forest: Forest, tree: int, row: NDArray[Any]) -> list[tuple[float, dict[int, tuple[float, float]]]]:
    """For every leaf its value and, by feature on its path, (is the row inside, share of the cover)."""
    found = []
    waiting: list[tuple[int, dict[int, tuple[float, float]]]] = [(int(forest.tree_start[tree]), {})]
    while waiting:
        node, path = waiting.pop()
        feature = int(forest.feature[node])
        if feature == LEAF:
            found.append((float(forest.value[node]), path))
            continue
        o, z = path.get(feature, (1.0, 1.0))
        right = goes_right(forest, node, row)
        for side, child in enumerate((node + 1, int(forest.right[node]))):
            edge = (o if side == right else 0.0, z * shares(forest, node)[side])
            waiting.append((child, {**path, feature: edge}))
    return found
