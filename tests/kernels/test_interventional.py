"""Interventional Shapley values: the definition over a background, its bias, and shap's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.kernels import tree_reference as reference
from tests.kernels.forests import (
    Shape,
    chain_forest,
    matching_rows,
    random_forest,
    row_types,
    seeds,
    shapes,
    threads,
)
from treadle.errors import RequestError
from treadle.kernels.forest import Forest
from treadle.kernels.predict import predict_margin
from treadle.kernels.treeshap import TreeExplainer

TOLERANCE = 2e-5


def assert_values(forest: Forest, rows: NDArray[Any], background: NDArray[Any]) -> None:
    found = TreeExplainer(forest, background).shap_values(rows)
    expected = reference.for_all(reference.interventional, forest, rows, background)
    assert (found.shape, found.dtype) == (expected.shape, np.float64)
    bound = TOLERANCE * reference.largest(forest, expected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=bound)
    np.testing.assert_allclose(found.sum(axis=-1), reference.margins(forest, rows), rtol=0, atol=bound)
    bias = np.broadcast_to(reference.margins(forest, background).mean(axis=0), found.shape[:-1])
    np.testing.assert_allclose(found[..., -1], bias, rtol=0, atol=bound)
    unused = np.setdiff1d(np.arange(forest.n_features), forest.feature)
    assert not found[..., unused].any()


@given(shapes, seeds, row_types, row_types, st.integers(1, 4))
@settings(deadline=None, max_examples=60)
def test_values_are_those_of_the_definition(
    shape: Shape, seed: int, dtype: str, background_dtype: str, size: int
) -> None:
    # Rows and background hold NaN, infinities and values right at the cuts.
    rng = np.random.default_rng(seed)
    forest = random_forest(rng, replace(shape, n_trees=min(shape.n_trees, 4)))
    background = matching_rows(rng, forest, size, background_dtype)
    assert_values(forest, matching_rows(rng, forest, 3, dtype), background)


@pytest.mark.parametrize("depth", [1, 6, 8])
def test_every_depth(depth: int) -> None:
    rng = np.random.default_rng(depth)
    forest = random_forest(rng, Shape(n_features=5, n_trees=2, depth=depth, growth=1.0))
    assert_values(forest, matching_rows(rng, forest, 4), matching_rows(rng, forest, 7))


@pytest.mark.parametrize("levels", [64, 70, 200])
def test_chains(levels: int) -> None:
    rng = np.random.default_rng(levels)
    forest = chain_forest(rng, levels)
    assert_values(forest, matching_rows(rng, forest, 4), matching_rows(rng, forest, 5))


@pytest.mark.parametrize("n_features", [9, 17, 33])
def test_any_number_of_features(n_features: int) -> None:
    rng = np.random.default_rng(n_features)
    forest = random_forest(rng, Shape(n_features=n_features, n_trees=35, depth=3, n_outputs=2, categorical=True))
    assert_values(forest, matching_rows(rng, forest, 3), matching_rows(rng, forest, 3))


def test_covers_do_not_matter() -> None:
    rng = np.random.default_rng(1)
    forest = random_forest(rng, Shape(n_features=4, n_trees=6, depth=4))
    rows, background = matching_rows(rng, forest, 10), matching_rows(rng, forest, 5)
    found = TreeExplainer(forest, background).shap_values(rows)
    uncovered = replace(forest, cover=np.zeros_like(forest.cover))
    np.testing.assert_array_equal(TreeExplainer(uncovered, background).shap_values(rows), found)


def test_a_row_explained_by_itself_is_all_bias() -> None:
    rng = np.random.default_rng(2)
    forest = random_forest(rng, Shape(n_features=4, n_trees=20, depth=5, categorical=True))
    row = matching_rows(rng, forest, 1)
    found = TreeExplainer(forest, row).shap_values(row)
    np.testing.assert_allclose(found[0, :-1], 0, atol=1e-12)
    np.testing.assert_allclose(found[0, -1], predict_margin(forest, row)[0], rtol=1e-6)


@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("times", [2, 33])
def test_repeating_the_background_changes_nothing(times: int, n_outputs: int) -> None:
    rng = np.random.default_rng(3)
    forest = random_forest(rng, Shape(n_features=4, n_trees=18, depth=4, n_outputs=n_outputs))
    rows, background = matching_rows(rng, forest, 20), matching_rows(rng, forest, 17)
    once = TreeExplainer(forest, background).shap_values(rows)
    again = TreeExplainer(forest, rng.permutation(np.tile(background, (times, 1)))).shap_values(rows)
    np.testing.assert_allclose(again, once, rtol=0, atol=1e-6 * np.abs(once).max())


@pytest.mark.parametrize("size", [31, 33, 513, 1025])
def test_a_background_of_any_size_is_the_mean_of_its_rows(size: int) -> None:
    rng = np.random.default_rng(size)
    forest = random_forest(rng, Shape(n_features=4, n_trees=5, depth=4))
    rows, pool = matching_rows(rng, forest, 4), matching_rows(rng, forest, 5)
    which = rng.integers(0, 5, size)
    each = np.array([TreeExplainer(forest, pool[i : i + 1]).shap_values(rows) for i in range(5)])
    found = TreeExplainer(forest, pool[which]).shap_values(rows)
    np.testing.assert_allclose(found, each[which].mean(axis=0), rtol=0, atol=TOLERANCE * np.abs(each).max())


@pytest.mark.parametrize("size", [0, 1, 31, 33, 513])
@pytest.mark.parametrize("n_outputs", [1, 3])
def test_a_row_does_not_depend_on_its_batch(size: int, n_outputs: int) -> None:
    rng = np.random.default_rng(4)
    forest = random_forest(rng, Shape(n_features=4, n_trees=12, depth=4, n_outputs=n_outputs, categorical=True))
    rows, background = matching_rows(rng, forest, 7), matching_rows(rng, forest, 3)
    explainer = TreeExplainer(forest, background)
    alone = np.concatenate([explainer.shap_values(rows[i : i + 1]) for i in range(7)])
    which = rng.integers(0, 7, size)
    found = explainer.shap_values(rows[which])
    assert found.shape == ((size, 5) if n_outputs == 1 else (size, n_outputs, 5))
    np.testing.assert_array_equal(found, alone[which])


def test_threads_change_no_bit() -> None:
    rng = np.random.default_rng(5)
    forest = random_forest(rng, Shape(n_features=5, n_trees=20, depth=5))
    rows = matching_rows(rng, forest, 10)[rng.integers(0, 10, 701)]
    background = matching_rows(rng, forest, 5)
    with threads(1):
        one = TreeExplainer(forest, background).shap_values(rows)
    with threads(2):
        two = TreeExplainer(forest, background).shap_values(rows)
    np.testing.assert_array_equal(one, two)


def test_the_background_is_not_modified_nor_read_later() -> None:
    rng = np.random.default_rng(6)
    forest = random_forest(rng, Shape(n_features=4, n_trees=5, depth=4))
    rows, background = matching_rows(rng, forest, 5), matching_rows(rng, forest, 5)
    before = background.copy()
    explainer = TreeExplainer(forest, background)
    expected = explainer.shap_values(rows)
    np.testing.assert_array_equal(background, before)
    background[:] = 0
    np.testing.assert_array_equal(explainer.shap_values(rows), expected)


@pytest.mark.parametrize("shape", [(0, 4), (3, 5), (4,)], ids=["no row", "too many columns", "one row without axis"])
def test_a_background_that_is_none(shape: tuple[int, ...]) -> None:
    forest = random_forest(np.random.default_rng(8), Shape(n_features=4))
    with pytest.raises(RequestError):
        TreeExplainer(forest, np.zeros(shape)).shap_values(np.zeros((1, 4)))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("library", ["xgboost", "sklearn"])
def test_agrees_with_shap(library: str) -> None:
    shap = pytest.importorskip("shap")
    from treadle.kernels.forest import compile_forest

    rng = np.random.default_rng(7)
    rows = rng.normal(size=(400, 5)).astype(np.float32)
    target = rows[:, 0] * rows[:, 1] + np.sin(3 * rows[:, 2])
    model: Any
    if library == "xgboost":
        from xgboost import XGBRegressor

        rows[rng.random(rows.shape) < 0.2] = np.nan
        model = XGBRegressor(n_estimators=10, max_depth=5, n_jobs=1, random_state=0)
    else:
        from sklearn.ensemble import RandomForestRegressor

        model = RandomForestRegressor(n_estimators=5, max_depth=7, n_jobs=1, random_state=0)
    model.fit(rows, target)
    background = rows[:40]
    oracle = shap.TreeExplainer(model, data=background, feature_perturbation="interventional")
    expected = oracle.shap_values(rows[100:200], check_additivity=False)
    found = TreeExplainer(compile_forest(model), background).shap_values(rows[100:200])
    bound = TOLERANCE * np.abs(expected).max()
    np.testing.assert_allclose(found[:, :-1], expected, rtol=0, atol=bound)
    np.testing.assert_allclose(found[:, -1], oracle.expected_value, rtol=0, atol=bound)
