"""Path-dependent Shapley values: the definition, the axioms, and the libraries that compute the same.

Tables are float32, so an error is measured against the largest contribution of a batch.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.kernels import tree_reference as reference
from tests.kernels.forests import (
    Shape,
    built,
    chain_forest,
    chain_tree,
    matching_rows,
    random_forest,
    random_tree,
    random_trees,
    row_types,
    search_tree,
    seeds,
    shapes,
    swapped,
    threads,
)
from treadle.errors import RequestError
from treadle.kernels.forest import Forest
from treadle.kernels.predict import predict_margin
from treadle.kernels.treeshap import TreeExplainer

ROOT = Path(__file__).resolve().parent.parent.parent
METHODS = ["tables", "quadrature"]
TOLERANCE = 2e-5
SIZES = [0, 1, 2, 31, 32, 33, 511, 512, 513, 1023, 1025]

both_methods = pytest.mark.parametrize("method", METHODS)


def assert_values(forest: Forest, rows: NDArray[Any], method: Any, explain: Any = reference.shapley) -> None:
    """Equal to the reference, exactly 0 for unused features, and in sum the margin."""
    found = TreeExplainer(forest, method=method).shap_values(rows)
    expected = reference.for_all(explain, forest, rows)
    assert (found.shape, found.dtype) == (expected.shape, np.float64)
    bound = TOLERANCE * reference.largest(forest, expected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=bound)
    np.testing.assert_allclose(found.sum(axis=-1), reference.margins(forest, rows), rtol=0, atol=bound)
    unused = np.setdiff1d(np.arange(forest.n_features), forest.feature)
    assert not found[..., unused].any()


@both_methods
@given(shapes, seeds, row_types)
@settings(deadline=None, max_examples=60)
def test_values_are_those_of_the_definition(method: str, shape: Shape, seed: int, dtype: str) -> None:
    rng = np.random.default_rng(seed)
    forest = random_forest(rng, shape)
    assert_values(forest, matching_rows(rng, forest, 5, dtype), method)


@both_methods
@pytest.mark.parametrize("growth", [0.85, 1.0], ids=["ragged", "full"])
@pytest.mark.parametrize("depth", [1, 2, 4, 6, 8, 9])
def test_every_depth(depth: int, growth: float, method: str) -> None:
    rng = np.random.default_rng(depth)
    forest = random_forest(rng, Shape(n_features=5, n_trees=2, depth=depth, growth=growth))
    assert_values(forest, matching_rows(rng, forest, 5), method)


@both_methods
@pytest.mark.parametrize("n_features", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
def test_paths_of_any_number_of_different_features(n_features: int, method: str) -> None:
    rng = np.random.default_rng(n_features)
    shape = Shape(n_features=n_features, n_trees=3)
    forest = built([chain_tree(rng, shape, rng.permutation(n_features), 0.7) for _ in range(3)], shape)
    assert_values(forest, matching_rows(rng, forest, 4), method)


@both_methods
@pytest.mark.parametrize("n_features", [7, 8, 9, 15, 16, 17, 33, 100])
def test_any_number_of_features_in_the_forest(n_features: int, method: str) -> None:
    rng = np.random.default_rng(n_features)
    forest = random_forest(rng, Shape(n_features=n_features, n_trees=25, depth=3, categorical=True))
    assert_values(forest, matching_rows(rng, forest, 4), method)


@both_methods
@pytest.mark.parametrize("n_trees", [0, 1, 15, 16, 17, 31, 32, 33, 130])
def test_any_number_of_trees(n_trees: int, method: str) -> None:
    rng = np.random.default_rng(n_trees)
    forest = random_forest(rng, Shape(n_trees=n_trees, depth=3))
    assert_values(forest, matching_rows(rng, forest, 5), method)


@both_methods
@pytest.mark.parametrize("share", [0.9, 0.5, 0.001])
@pytest.mark.parametrize("levels", [63, 64, 65, 70, 200])
def test_chains(levels: int, share: float, method: str) -> None:
    # At 200 levels of 0.5 a leaf's share of the cover is below the smallest float32.
    rng = np.random.default_rng(levels)
    forest = chain_forest(rng, levels, share=share)
    assert_values(forest, matching_rows(rng, forest, 5), method)


@pytest.mark.parametrize("method", ["auto", "quadrature"])
@pytest.mark.parametrize("share", [0.9, 0.5])
@pytest.mark.parametrize("n_features", [11, 16, 17, 31, 32, 33, 40])
def test_paths_too_long_to_enumerate(n_features: int, share: float, method: str) -> None:
    rng = np.random.default_rng(n_features)
    shape = Shape(n_features=n_features, categorical=True)
    order = np.concatenate([rng.permutation(n_features), np.arange(5)])
    forest = built([chain_tree(rng, shape, order, share), random_tree(rng, replace(shape, depth=4))], shape)
    assert_values(forest, matching_rows(rng, forest, 4), method, reference.shapley_by_size)


def test_the_two_references_agree() -> None:
    rng = np.random.default_rng(1)
    forest = random_forest(rng, Shape(n_features=7, n_trees=4, depth=6, n_outputs=2, categorical=True, zero_cover=True))
    for row in matching_rows(rng, forest, 5):
        expected = reference.shapley(forest, row)
        np.testing.assert_allclose(reference.shapley_by_size(forest, row), expected, rtol=0, atol=1e-13)


@both_methods
@pytest.mark.parametrize("n_cuts", [254, 255, 256, 300, pytest.param(70_000, marks=pytest.mark.slow)])
def test_one_feature_of_many_cuts_has_all_that_is_not_bias(n_cuts: int, method: str) -> None:
    rng = np.random.default_rng(n_cuts)
    cuts = np.unique(rng.normal(size=n_cuts).astype(np.float32))
    values = rng.normal(size=len(cuts) + 1)
    forest = built([search_tree(1, cuts, values)], Shape(n_features=3))
    rows = matching_rows(rng, forest, 200)
    found = TreeExplainer(forest, method=method).shap_values(rows)
    bias = 0.25 + values.mean()
    np.testing.assert_allclose(found[:, 1], reference.margins(forest, rows) - bias, rtol=0, atol=TOLERANCE * 4)
    np.testing.assert_allclose(found[:, 3], bias, rtol=1e-6)
    assert not found[:, [0, 2]].any()


@both_methods
def test_many_cuts_beside_few(method: str) -> None:
    rng = np.random.default_rng(3)
    shape = Shape(n_features=3, depth=5)
    cuts = np.linspace(-2, 2, 300).astype(np.float32)
    trees = [search_tree(0, cuts, rng.normal(size=301)), *(random_tree(rng, shape) for _ in range(3))]
    forest = built(trees, shape)
    assert_values(forest, matching_rows(rng, forest, 20), method)


@both_methods
@pytest.mark.parametrize("cover", [0.0, 8.0])
def test_trees_of_a_single_leaf(cover: float, method: str) -> None:
    tree = random_tree(np.random.default_rng(4), Shape(depth=0))
    trees = [replace(tree, cover=np.array([cover]), value=np.array([value])) for value in (0.5, -2.0)]
    found = TreeExplainer(built(trees, Shape()), method=method).shap_values(np.full((2, 3), np.nan))
    np.testing.assert_array_equal(found, [[0, 0, 0, -1.25]] * 2)


@both_methods
def test_a_worked_example(method: str) -> None:
    # x0 < 0 with 3/4 of the cover, then x1 < 0 with 1/3 of that: leaves 12, 6; else 20.
    columns: dict[str, Any] = {
        "feature": np.array([0, 1, -1, -1, -1]),
        "threshold": np.zeros(5),
        "left": np.array([1, 2, 0, 0, 0]),
        "right": np.array([4, 3, 0, 0, 0]),
        "missing_right": np.array([True, False, False, False, False]),
        "cover": np.array([12.0, 9.0, 3.0, 6.0, 3.0]),
        "value": np.array([0.0, 0.0, 12.0, 6.0, 20.0]),
    }
    tree = replace(random_tree(np.random.default_rng(0), Shape(depth=0)), **columns)
    forest = built([tree], Shape(n_features=2), 0.0)
    # v() = 11, v(0) = 8, v(1) = 14, v(0, 1) = 12 below both; v(0) = v(0, 1) = 20 above the first.
    expected = [[-2.5, 3.5, 11.0], [7.5, 1.5, 11.0], [7.5, 1.5, 11.0]]
    rows = np.array([[-1.0, -1.0], [0.0, -1.0], [np.nan, np.nan]])
    found = TreeExplainer(forest, method=method).shap_values(rows)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@both_methods
@given(shapes, seeds)
@settings(deadline=None, max_examples=20)
def test_exchanging_two_features_exchanges_their_values(method: str, shape: Shape, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = replace(shape, n_features=6, categorical=False, zero_missing=False)
    trees = random_trees(rng, shape)
    mirrored = [swapped(tree, 0, 3) for tree in trees]
    forest = built(trees, shape)
    rows = matching_rows(rng, forest, 8)
    order = [3, 1, 2, 0, 4, 5]
    found = TreeExplainer(built(mirrored, shape), method=method).shap_values(rows[:, order])
    expected = TreeExplainer(forest, method=method).shap_values(rows)[..., [*order, 6]]
    bound = TOLERANCE * reference.largest(forest, expected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=bound)
    # In the forest of both, the two play the same role.
    rows[:, 3] = rows[:, 0]
    found = TreeExplainer(built(trees + mirrored, shape), method=method).shap_values(rows)
    np.testing.assert_allclose(found[..., 0], found[..., 3], rtol=0, atol=2 * bound)


@both_methods
@given(shapes, seeds, st.integers(0, 6))
@settings(deadline=None, max_examples=20)
def test_values_add_up_over_trees(method: str, shape: Shape, seed: int, cut: int) -> None:
    rng = np.random.default_rng(seed)
    trees = random_trees(rng, shape)
    forest = built(trees, shape, 0.5)
    rows = matching_rows(rng, forest, 8)
    # Sets and cuts are those of the part alone, so codes that only the whole knows are left out.
    rows = rows[(np.nan_to_num(rows, nan=0) < 3).all(axis=1)] if shape.categorical else rows
    parts = [built(some, shape, 0.25) for some in (trees[:cut], trees[cut:])]
    found = sum(TreeExplainer(part, method=method).shap_values(rows) for part in parts)
    expected = TreeExplainer(forest, method=method).shap_values(rows)
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * reference.largest(forest, expected))


@both_methods
@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_values_grow_with_the_leaves(scale: float, method: str) -> None:
    rng = np.random.default_rng(5)
    forest = random_forest(rng, Shape(n_features=4, n_trees=5, depth=5))
    rows = matching_rows(rng, forest, 20)
    found = TreeExplainer(replace(forest, value=forest.value * scale), method=method).shap_values(rows)[:, :-1]
    expected = TreeExplainer(forest, method=method).shap_values(rows)[:, :-1]
    np.testing.assert_allclose(found / scale, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


@both_methods
@pytest.mark.parametrize("n_outputs", [2, 5])
def test_outputs_are_forests_of_their_own(n_outputs: int, method: str) -> None:
    rng = np.random.default_rng(n_outputs)
    shape = Shape(n_features=4, n_trees=40, depth=4, n_outputs=n_outputs)
    trees = random_trees(rng, shape)
    base = np.arange(n_outputs) - 0.5
    forest = built(trees, shape, base)
    rows = matching_rows(rng, forest, 20)
    found = TreeExplainer(forest, method=method).shap_values(rows)
    assert found.shape == (20, n_outputs, 5)
    for k in range(n_outputs):
        own = [replace(tree, output=0) for tree in trees if tree.output == k]
        alone = TreeExplainer(built(own, replace(shape, n_outputs=1), base[k]), method=method).shap_values(rows)
        np.testing.assert_allclose(found[:, k], alone, rtol=0, atol=TOLERANCE * np.abs(alone).max())


@both_methods
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("n_outputs", [1, 3])
def test_a_row_does_not_depend_on_its_batch(size: int, n_outputs: int, method: str) -> None:
    rng = np.random.default_rng(6)
    shape = Shape(n_features=5, n_trees=36, depth=5, n_outputs=n_outputs, categorical=True)
    forest = random_forest(rng, shape)
    rows = matching_rows(rng, forest, 11)
    explainer = TreeExplainer(forest, method=method)
    alone = np.concatenate([explainer.shap_values(rows[i : i + 1]) for i in range(11)])
    which = rng.integers(0, 11, size)
    found = explainer.shap_values(rows[which])
    assert found.shape == ((size, 6) if n_outputs == 1 else (size, n_outputs, 6))
    np.testing.assert_array_equal(found, alone[which])


@both_methods
@pytest.mark.parametrize("n_features", [5, 20])
def test_threads_change_no_bit(n_features: int, method: str) -> None:
    rng = np.random.default_rng(7)
    forest = random_forest(rng, Shape(n_features=n_features, n_trees=40, depth=5))
    rows = matching_rows(rng, forest, 40)[rng.integers(0, 40, 2001)]
    with threads(1):
        one = TreeExplainer(forest, method=method).shap_values(rows)
    with threads(2):
        two = TreeExplainer(forest, method=method).shap_values(rows)
    np.testing.assert_array_equal(one, two)


@both_methods
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_memory_layouts_change_no_bit(dtype: str, method: str) -> None:
    rng = np.random.default_rng(8)
    forest = random_forest(rng, Shape(n_features=4, n_trees=9, depth=4, categorical=True, zero_missing=True))
    rows = matching_rows(rng, forest, 35, dtype)
    before = rows.copy()
    rows.flags.writeable = False
    explainer = TreeExplainer(forest, method=method)
    expected = explainer.shap_values(rows)
    for same in (np.asfortranarray(rows), np.repeat(rows, 2, axis=1)[:, ::2], rows[::-1].copy()[::-1]):
        np.testing.assert_array_equal(explainer.shap_values(same), expected)
    np.testing.assert_array_equal(rows, before)


@both_methods
@pytest.mark.parametrize("n_outputs", [1, 2])
def test_values_in_float32_are_the_rounded_ones(n_outputs: int, method: str) -> None:
    rng = np.random.default_rng(9)
    forest = random_forest(rng, Shape(n_trees=40, depth=4, n_outputs=n_outputs))
    rows = matching_rows(rng, forest, 30)
    explainer = TreeExplainer(forest, method=method)
    found = explainer.shap_values(rows, dtype=np.float32)
    assert found.dtype == np.float32
    expected = explainer.shap_values(rows)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_tables_that_do_not_fit() -> None:
    rng = np.random.default_rng(10)
    forest = random_forest(rng, Shape(n_features=5, n_trees=5, depth=5))
    rows = matching_rows(rng, forest, 9)
    with pytest.raises(RequestError, match="table_bytes"):
        TreeExplainer(forest, table_bytes=64, method="tables").shap_values(rows)
    found = TreeExplainer(forest, table_bytes=64).shap_values(rows)
    np.testing.assert_array_equal(found, TreeExplainer(forest, method="quadrature").shap_values(rows))


# Agreement with other libraries, on models that they trained.


def training_data(rng: np.random.Generator, n_classes: int, missing: float) -> tuple[Any, Any]:
    rows = rng.normal(size=(800, 6)).astype(np.float32)
    score = rows[:, 0] * rows[:, 1] + np.sin(3 * rows[:, 2]) + rows[:, 3]
    rows[rng.random(rows.shape) < missing] = np.nan
    if n_classes == 0:
        return rows, score
    return rows, np.searchsorted(np.quantile(score, np.arange(1, n_classes) / n_classes), score)


def assert_agrees(model: Any, rows: Any, expected: Any, method: Any, tolerance: float) -> None:
    from treadle.kernels.forest import compile_forest

    forest = compile_forest(model)
    found = TreeExplainer(forest, method=method).shap_values(rows)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())
    margins = predict_margin(forest, rows)
    np.testing.assert_allclose(found.sum(axis=-1), margins, rtol=0, atol=TOLERANCE * np.abs(expected).max())


@both_methods
@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("n_classes", [0, 2, 3], ids=["regression", "binary", "three classes"])
def test_agrees_with_xgboost(n_classes: int, missing: float, method: str) -> None:
    xgboost = pytest.importorskip("xgboost")
    rows, target = training_data(np.random.default_rng(11), n_classes, missing)
    objective: dict[str, Any] = {"objective": "reg:squarederror"}
    if n_classes:
        objective = {"objective": "binary:logistic"}
    if n_classes > 2:
        objective = {"objective": "multi:softprob", "num_class": n_classes}
    matrix = xgboost.DMatrix(rows, target, nthread=1)
    params = {"max_depth": 6, "eta": 0.3, "nthread": 1, "verbosity": 0, **objective}
    booster = xgboost.train(params, matrix, num_boost_round=20)
    assert_agrees(booster, rows, booster.predict(matrix, pred_contribs=True), method, 5e-5)


@both_methods
@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("n_classes", [0, 2, 3], ids=["regression", "binary", "three classes"])
def test_agrees_with_lightgbm(n_classes: int, missing: float, method: str) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    rows, target = training_data(np.random.default_rng(12), n_classes, missing)
    rows[:, 4] = np.where(np.abs(rows[:, 4]) < 0.4, 0, rows[:, 4])
    params = {"objective": ["regression", "", "binary", "multiclass"][n_classes], "num_leaves": 31}
    params |= {"verbose": -1, "num_threads": 1, "deterministic": True, **({"num_class": 3} if n_classes > 2 else {})}
    booster = lightgbm.train(params, lightgbm.Dataset(rows, target), num_boost_round=20)
    expected = booster.predict(rows, pred_contrib=True, num_threads=1)
    if n_classes > 2:
        expected = expected.reshape(len(rows), n_classes, -1)
    assert_agrees(booster, rows, expected, method, TOLERANCE)


@both_methods
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("n_classes", [0, 2, 3], ids=["regression", "binary", "three classes"])
def test_agrees_with_shap_on_forests(n_classes: int, method: str) -> None:
    shap = pytest.importorskip("shap")
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    rows, target = training_data(np.random.default_rng(13), n_classes, 0.0)
    kind = RandomForestClassifier if n_classes else RandomForestRegressor
    model = kind(n_estimators=5, max_depth=8, random_state=0, n_jobs=1).fit(rows, target)
    oracle = shap.TreeExplainer(model, feature_perturbation="tree_path_dependent")
    values = oracle.shap_values(rows[:100], check_additivity=False)
    bias = np.broadcast_to(oracle.expected_value, (100, max(1, n_classes)))
    if n_classes:
        expected = np.concatenate([values.transpose(0, 2, 1), bias[:, :, None]], axis=2)
        expected = expected[:, 1] if n_classes == 2 else expected
    else:
        expected = np.concatenate([values, bias], axis=1)
    assert_agrees(model, rows[:100], expected, method, TOLERANCE)


# Run in a process of its own, since Numba compiles with or without the checks.
CHECKED = """
import numpy as np
import pyarrow as pa
from tests.kernels.forests import Shape, chain_forest, matching_rows, random_forest
from treadle.kernels.predict import predict_margin
from treadle.kernels.treeshap import TreeExplainer

CASES = [(1, 1, 1, False), (5, 5, 3, True), (20, 4, 1, False), (3, 70, 1, False)]
for n_features, depth, n_outputs, categorical in CASES:
    rng = np.random.default_rng(depth)
    shape = Shape(n_features=n_features, n_trees=18, depth=depth, n_outputs=n_outputs, categorical=categorical)
    forest = chain_forest(rng, depth) if depth > 64 else random_forest(rng, shape)
    rows = matching_rows(rng, forest, 33)
    background = matching_rows(rng, forest, 3)
    for part in (rows, rows[:1], rows[:0]):
        predict_margin(forest, part)
        predict_margin(forest, pa.table([*part.T], names=[str(j) for j in range(forest.n_features)]))
        for method in ("tables", "quadrature"):
            TreeExplainer(forest, method=method).shap_values(part)
        TreeExplainer(forest).interaction_values(part)
        TreeExplainer(forest, background).shap_values(part)
print("inside all bounds")
"""


@pytest.mark.slow
def test_no_index_leaves_its_array(tmp_path: Path) -> None:
    env = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CHECKED], cwd=ROOT, env=env, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.stdout == "inside all bounds\n", done.stderr
