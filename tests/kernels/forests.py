"""Random forests with every peculiarity that the layout allows, and rows that meet their cuts exactly."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import strategies as st
from numpy.typing import NDArray

from treadle.kernels.forest import LEAF, Forest, Tree, build_forest

Floats = NDArray[np.floating[Any]]

# Few thresholds, so that a feature's cuts recur on a path and in other trees; neighbours among them.
THRESHOLDS = [-1.5, -0.5, -0.0, 0.0, 0.1, 0.5, float(np.nextafter(np.float32(0.5), np.float32(1))), 1.5]
EXTREMES = [math.nan, math.inf, -math.inf, 2.0**-126]


@dataclass(frozen=True)
class Shape:
    """What a random forest looks like; `depth` counts the levels of splits at most."""

    n_features: int = 3
    n_trees: int = 3
    depth: int = 3
    n_outputs: int = 1
    dtype: str = "float32"
    categorical: bool = False
    """The features 1, 4, 7 ... are categorical."""
    zero_cover: bool = False
    """Some nodes, now and then the root, were reached by no training row."""
    zero_missing: bool = False
    """The features 0, 2, 4 ... take 0 for missing, unless they are categorical."""
    growth: float = 0.8
    """The chance that a node is split; 1 gives full trees."""


shapes = st.builds(
    Shape,
    n_features=st.integers(1, 6),
    n_trees=st.integers(0, 6),
    depth=st.integers(0, 5),
    n_outputs=st.integers(1, 3),
    dtype=st.sampled_from(["float32", "float64"]),
    categorical=st.booleans(),
    zero_cover=st.booleans(),
    zero_missing=st.booleans(),
    growth=st.sampled_from([0.8, 1.0]),
)
seeds = st.integers(0, 2**32 - 1)
row_types = st.sampled_from(["float32", "float64"])


def is_categorical(shape: Shape, feature: int) -> bool:
    return shape.categorical and feature % 3 == 1


@dataclass
class Growing:
    """Nodes of one tree while it grows."""

    shape: Shape
    rng: np.random.Generator
    nodes: list[dict[str, Any]]

    def add(self, cover: float) -> int:
        self.nodes.append(
            {
                "feature": LEAF,
                "threshold": 0.0,
                "left": 0,
                "right": 0,
                "missing_right": bool(self.rng.integers(2)),
                "cover": cover,
                "value": float(self.rng.normal()),
                "goes_right": None,
            }
        )
        return len(self.nodes) - 1

    def split(self, number: int, feature: int, share: float) -> tuple[int, int]:
        """Makes a leaf an inner node; returns its children."""
        node = self.nodes[number]
        cover = node["cover"]
        left, right = self.add(cover * share), self.add(cover - cover * share)
        node.update(feature=feature, left=left, right=right)
        if is_categorical(self.shape, feature):
            # Fewer codes in some nodes than in others: the rest is unknown to them.
            node["goes_right"] = self.rng.random(int(self.rng.integers(3, 8))) < 0.5
        else:
            pool = EXTREMES if self.rng.random() < 0.1 else THRESHOLDS
            node["threshold"] = float(np.dtype(self.shape.dtype).type(self.rng.choice(pool)))
        return left, right

    def share(self) -> float:
        if self.shape.zero_cover and self.rng.random() < 0.25:
            return float(self.rng.integers(2))
        return float(self.rng.uniform(0.05, 0.95))

    def tree(self, output: int = 0) -> Tree:
        """The finished tree; its nodes are shuffled, the root stays first."""
        order = np.concatenate([[0], 1 + self.rng.permutation(len(self.nodes) - 1)]).astype(np.int64)
        place = np.argsort(order)

        def column(name: str) -> NDArray[Any]:
            return np.array([self.nodes[old][name] for old in order])

        return Tree(
            feature=column("feature"),
            threshold=column("threshold"),
            left=place[column("left")],
            right=place[column("right")],
            missing_right=column("missing_right"),
            cover=column("cover"),
            value=column("value"),
            output=output,
            goes_right={
                int(place[old]): node["goes_right"]
                for old, node in enumerate(self.nodes)
                if node["goes_right"] is not None
            },
        )


def random_tree(rng: np.random.Generator, shape: Shape, output: int = 0) -> Tree:
    """A ragged tree of at most `shape.depth` levels; features recur on its paths."""
    growing = Growing(shape, rng, [])
    root = growing.add(0.0 if shape.zero_cover and rng.random() < 0.1 else float(rng.integers(1, 1000)))
    level = [root]
    for depth in range(shape.depth):
        below: list[int] = []
        for number in level:
            if depth == 0 or rng.random() < shape.growth:
                below += growing.split(number, int(rng.integers(shape.n_features)), growing.share())
        level = below
    return growing.tree(output)


def chain_tree(rng: np.random.Generator, shape: Shape, features: Sequence[int], share: float = 0.9) -> Tree:
    """One split a level, on the given features in turn; `share` of the cover goes on down the chain."""
    growing = Growing(shape, rng, [])
    node = growing.add(1000.0)
    for feature in features:
        if rng.random() < 0.5:
            node, _ = growing.split(node, feature, share)
        else:
            _, node = growing.split(node, feature, 1 - share)
    return growing.tree()


def search_tree(feature: int, cuts: NDArray[Any], values: NDArray[Any]) -> Tree:
    """A balanced tree on one feature with the value `values[number of cuts <= x]`."""
    n = len(cuts)
    left, right = np.zeros(2 * n + 1, np.int64), np.zeros(2 * n + 1, np.int64)
    threshold, value, cover = np.zeros((3, 2 * n + 1))
    inner = np.zeros(2 * n + 1, dtype=bool)
    waiting, count = [(0, 0, n)], 1
    while waiting:
        node, low, high = waiting.pop()
        cover[node] = high - low + 1
        if low == high:
            value[node] = values[low]
            continue
        middle = (low + high) // 2
        inner[node], threshold[node] = True, cuts[middle]
        left[node], right[node] = count, count + 1
        waiting += [(count, low, middle), (count + 1, middle + 1, high)]
        count += 2
    return Tree(np.where(inner, feature, LEAF), threshold, left, right, inner & (left % 3 == 0), cover, value)


def built(trees: Sequence[Tree], shape: Shape, base: Any = 0.25) -> Forest:
    flags = [shape.zero_missing and j % 2 == 0 and not is_categorical(shape, j) for j in range(shape.n_features)]
    return build_forest(
        trees,
        source="test",
        n_features=shape.n_features,
        n_outputs=shape.n_outputs,
        dtype=shape.dtype,
        base=base,
        zero_missing=np.array(flags, dtype=bool),
    )


def random_trees(rng: np.random.Generator, shape: Shape) -> list[Tree]:
    """Trees with outputs in no order; an output may have none."""
    return [random_tree(rng, shape, int(rng.integers(shape.n_outputs))) for _ in range(shape.n_trees)]


def random_forest(rng: np.random.Generator, shape: Shape) -> Forest:
    return built(random_trees(rng, shape), shape, rng.normal(size=shape.n_outputs))


def chain_forest(rng: np.random.Generator, levels: int, n_features: int = 3, share: float = 0.9) -> Forest:
    """Three chains of `levels` levels, each of them over all the features again and again."""
    shape = Shape(n_features=n_features, n_trees=3)
    return built([chain_tree(rng, shape, np.arange(levels) % n_features, share) for _ in range(3)], shape)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Runs the block with that many Numba threads; skips the test where the machine has fewer."""
    if count > numba.config.NUMBA_NUM_THREADS:
        pytest.skip(f"needs {count} threads")
    before = numba.get_num_threads()
    numba.set_num_threads(count)
    try:
        yield
    finally:
        numba.set_num_threads(before)


def swapped(tree: Tree, a: int, b: int) -> Tree:
    """The same tree with the features a and b in each other's place."""
    names = tree.feature.copy()
    names[tree.feature == a], names[tree.feature == b] = b, a
    return replace(tree, feature=names)


def matching_rows(rng: np.random.Generator, forest: Forest, n: int, dtype: Any = np.float64) -> Floats:
    """(n, features): values at, right below and right above cuts, zeros, infinities, NaN; codes of all kinds.

    In float64 some values of a float32 forest lie between two float32 numbers, so that they meet a
    cut only once they are rounded, and some are too large for float32.
    """
    rows = np.empty((n, forest.n_features), dtype=np.float64)
    for j in range(forest.n_features):
        codes = int(forest.categories[j])
        if codes:
            pool = np.array([*range(codes), *range(codes), codes, codes + 0.5, 1.5, codes - 0.25, 1e6, 1e20])
            pool = np.concatenate([pool, [-1.0, -7.5, -1e20, math.inf, -math.inf, math.nan, -0.0]])
        else:
            cuts = forest.cuts[forest.cut_start[j] : forest.cut_start[j + 1]]
            cuts = cuts[np.isfinite(cuts)]
            near = [np.nextafter(cuts, cuts.dtype.type(side)) for side in (-np.inf, np.inf)]
            wide = cuts.astype(np.float64)
            pool = np.concatenate([wide, wide, *near, wide * (1 + 1e-12), wide * (1 - 1e-12), rng.normal(size=6)])
            pool = np.concatenate([pool, [0.0, -0.0, 9e-36, -9e-36, 2e-35, math.inf, -math.inf, 1e300]])
            pool = np.concatenate([pool, np.full(1 + len(pool) // 8, np.nan)])
        rows[:, j] = rng.choice(pool, n)
    with np.errstate(over="ignore", under="ignore"):
        return rows.astype(dtype)
