"""Margins: those of the walked trees, whatever the layout, the size and the threads of a batch."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from tests.kernels import tree_reference as reference
from tests.kernels.forests import (
    Shape,
    built,
    chain_forest,
    matching_rows,
    random_forest,
    random_tree,
    random_trees,
    row_types,
    search_tree,
    seeds,
    shapes,
    threads,
)
from treadle.errors import RequestError
from treadle.kernels.forest import Forest
from treadle.kernels.predict import predict_margin

SIZES = [0, 1, 2, 7, 31, 32, 33, 255, 257, 511, 512, 513, 1023, 1025, 2049]


def assert_margins(forest: Forest, rows: Any) -> None:
    found, expected = predict_margin(forest, rows), reference.margins(forest, rows)
    assert (found.shape, found.dtype) == (expected.shape, np.float64)
    total = np.abs(forest.base).max() + np.abs(forest.value).max(initial=0) * forest.n_trees
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13 * total)


@given(shapes, seeds, row_types)
@settings(deadline=None, max_examples=80)
def test_margins_are_those_of_the_reference(shape: Shape, seed: int, dtype: str) -> None:
    rng = np.random.default_rng(seed)
    forest = random_forest(rng, shape)
    assert_margins(forest, matching_rows(rng, forest, 12, dtype))


@given(shapes, seeds, row_types)
@settings(deadline=None, max_examples=60)
def test_compiling_keeps_the_rules_of_a_tree(shape: Shape, seed: int, dtype: str) -> None:
    rng = np.random.default_rng(seed)
    trees = random_trees(rng, shape)
    forest = built(trees, Shape(**{**vars(shape), "zero_missing": False}), 0.0)
    rows = matching_rows(rng, forest, 8, dtype)
    expected = np.zeros((8, shape.n_outputs))
    for tree in trees:
        expected[:, tree.output] += [reference.walked(tree, row, shape.dtype) for row in rows]
    found = predict_margin(forest, rows).reshape(expected.shape)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("growth", [0.85, 1.0], ids=["ragged", "full"])
@pytest.mark.parametrize("depth", [1, 2, 5, 6, 7, 8, 11])
def test_every_depth(depth: int, growth: float, dtype: str) -> None:
    rng = np.random.default_rng(depth)
    forest = random_forest(rng, Shape(n_features=5, n_trees=5, depth=depth, dtype=dtype, growth=growth))
    assert_margins(forest, matching_rows(rng, forest, 70))


def test_trees_of_all_depths_together() -> None:
    rng = np.random.default_rng(1)
    trees = [random_tree(rng, Shape(n_features=4, depth=depth, categorical=True)) for depth in range(9)]
    forest = built(trees, Shape(n_features=4, categorical=True, zero_missing=True))
    assert_margins(forest, matching_rows(rng, forest, 70))


@pytest.mark.parametrize("levels", [63, 64, 65, 70, 129, 400])
def test_chains(levels: int) -> None:
    rng = np.random.default_rng(levels)
    forest = chain_forest(rng, levels)
    assert_margins(forest, matching_rows(rng, forest, 70))


@pytest.mark.parametrize("n_trees", [0, 1, 15, 16, 17, 33, 130])
def test_any_number_of_trees(n_trees: int) -> None:
    rng = np.random.default_rng(n_trees)
    forest = random_forest(rng, Shape(n_trees=n_trees, depth=3, n_outputs=2))
    assert_margins(forest, matching_rows(rng, forest, 40))


@pytest.mark.parametrize("n_features", [1, 15, 16, 17, 33, 300])
def test_any_number_of_features(n_features: int) -> None:
    rng = np.random.default_rng(n_features)
    shape = Shape(n_features=n_features, n_trees=20, depth=5, categorical=True, zero_missing=True)
    forest = random_forest(rng, shape)
    assert_margins(forest, matching_rows(rng, forest, 40))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("n_outputs", [1, 3])
def test_a_row_does_not_depend_on_its_batch(size: int, n_outputs: int) -> None:
    rng = np.random.default_rng(2)
    forest = random_forest(rng, Shape(n_features=4, n_trees=9, depth=6, n_outputs=n_outputs, categorical=True))
    rows = matching_rows(rng, forest, 13)
    alone = np.concatenate([predict_margin(forest, rows[i : i + 1]) for i in range(13)])
    which = rng.integers(0, 13, size)
    found = predict_margin(forest, rows[which])
    assert found.shape == ((size,) if n_outputs == 1 else (size, n_outputs))
    np.testing.assert_array_equal(found, alone[which])


LAYOUTS = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "every second row": lambda rows: np.repeat(rows, 2, axis=0)[::2],
    "every second column": lambda rows: np.repeat(rows, 2, axis=1)[:, ::2],
    "backwards": lambda rows: np.ascontiguousarray(rows[::-1, ::-1])[::-1, ::-1],
    "part of a wider Fortran array": lambda rows: np.asfortranarray(np.pad(rows, 3))[3:-3, 3:-3],
    "one value for all rows": lambda rows: np.broadcast_to(rows[0], rows.shape),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("forest_dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_layouts(layout: str, forest_dtype: str, dtype: str) -> None:
    rng = np.random.default_rng(3)
    shape = Shape(n_features=4, n_trees=7, depth=4, dtype=forest_dtype, categorical=True, zero_missing=True)
    forest = random_forest(rng, shape)
    rows = LAYOUTS[layout](matching_rows(rng, forest, 35, dtype))
    assert rows.dtype == dtype
    before = rows.copy()
    rows.flags.writeable = False
    assert_margins(forest, rows)
    np.testing.assert_array_equal(rows, before)


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
@pytest.mark.parametrize("n_cuts", [254, 255, 256, 257, 65534, 65535, 65536, 65537, 140_000])
def test_many_cuts(n_cuts: int, dtype: str) -> None:
    rng = np.random.default_rng(n_cuts)
    cuts = np.unique(rng.normal(size=2 * n_cuts).astype(dtype))
    cuts = np.sort(rng.choice(cuts, n_cuts, replace=False))
    values = rng.normal(size=(2, n_cuts + 1))
    # The feature beside it has few cuts, so bins of two widths meet in one forest.
    trees = [search_tree(1, cuts, values[0]), search_tree(0, cuts[5:8], values[1, :4])]
    forest = built(trees, Shape(n_features=2, dtype=dtype))
    ends = np.concatenate([cuts[:3], cuts[-3:], np.array([-np.inf, np.inf], dtype)])
    column = np.concatenate([ends, np.nextafter(ends, cuts.dtype.type(-np.inf)), rng.choice(cuts, 500)])
    rows = np.stack([column[::-1], column], axis=1)
    expected = 0.25 + values[0][np.searchsorted(cuts, rows[:, 1], side="right")]
    expected += values[1][np.searchsorted(cuts[5:8], rows[:, 0], side="right")]
    np.testing.assert_allclose(predict_margin(forest, rows), expected, rtol=1e-12, atol=1e-13)
    assert_margins(built([trees[1]], Shape(n_features=2, dtype=dtype)), rows[:40])


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_threads_change_no_bit(n_outputs: int) -> None:
    rng = np.random.default_rng(4)
    forest = random_forest(rng, Shape(n_features=5, n_trees=40, depth=6, n_outputs=n_outputs))
    rows = matching_rows(rng, forest, 3001)
    with threads(1):
        one = predict_margin(forest, rows)
    with threads(2):
        two = predict_margin(forest, rows)
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("dtype", ["int64", "bool", "float16"])
def test_other_numbers_are_widened(dtype: str) -> None:
    rng = np.random.default_rng(6)
    forest = random_forest(rng, Shape(n_features=4, n_trees=7, depth=4))
    rows = rng.integers(-2, 3, (40, 4)).astype(dtype)
    np.testing.assert_array_equal(predict_margin(forest, rows), predict_margin(forest, rows.astype(np.float64)))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.zeros((2, 3)), r"4 features.*\(2, 3\)"),
        (np.zeros(4), r"4 features.*\(4,\)"),
        (np.full((2, 4), "1"), "not numbers"),
        (np.full((2, 4), None), "not numbers"),
    ],
    ids=["too few columns", "one row without its axis", "text", "objects"],
)
def test_rows_that_are_none_of_the_forest(rows: Any, message: str) -> None:
    forest = random_forest(np.random.default_rng(7), Shape(n_features=4))
    with pytest.raises(RequestError, match=message):
        predict_margin(forest, rows)


def test_margins_agree_with_xgboost_at_its_own_thresholds() -> None:
    xgboost = pytest.importorskip("xgboost")
    from treadle.kernels.forest import compile_forest

    rng = np.random.default_rng(5)
    rows = rng.normal(size=(600, 4)).round(1).astype(np.float32)
    rows[rng.random(rows.shape) < 0.2] = np.nan
    target = np.nan_to_num(rows[:, 0] * rows[:, 1]) + np.nan_to_num(rows[:, 2])
    booster = xgboost.train(
        {"max_depth": 6, "nthread": 1, "verbosity": 0}, xgboost.DMatrix(rows, target, nthread=1), num_boost_round=20
    )
    thresholds = sorted({float(t) for text in booster.get_dump() for t in re.findall(r"<([-+.e\d]+)\]", text)})
    probe = rng.choice(np.array(thresholds, dtype=np.float32), (500, 4))
    probe = np.concatenate([probe, np.nextafter(probe, np.float32(-np.inf)), np.nextafter(probe, np.float32(np.inf))])
    expected = booster.predict(xgboost.DMatrix(probe, nthread=1), output_margin=True)
    np.testing.assert_allclose(predict_margin(compile_forest(booster), probe), expected, rtol=2e-5, atol=2e-5)
