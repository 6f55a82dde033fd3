"""Interaction values: the definition, symmetry, their sums, and XGBoost's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
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
from treadle.kernels.forest import Forest
from treadle.kernels.predict import predict_margin
from treadle.kernels.treeshap import TreeExplainer

TOLERANCE = 2e-5


def assert_interactions(forest: Forest, rows: NDArray[Any]) -> None:
    explainer = TreeExplainer(forest)
    found = explainer.interaction_values(rows)
    expected = reference.for_all(reference.interactions, forest, rows)
    assert (found.shape, found.dtype) == (expected.shape, np.float64)
    bound = TOLERANCE * reference.largest(forest, expected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=bound)
    np.testing.assert_array_equal(found, found.swapaxes(-1, -2))
    np.testing.assert_allclose(found.sum(axis=-1), explainer.shap_values(rows), rtol=0, atol=bound)
    np.testing.assert_allclose(found.sum(axis=(-1, -2)), predict_margin(forest, rows), rtol=0, atol=bound)
    assert not found[..., :-1, -1].any()
    unused = np.setdiff1d(np.arange(forest.n_features), forest.feature)
    assert not found[..., unused, :].any()


@given(shapes, seeds, row_types)
@settings(deadline=None, max_examples=60)
def test_values_are_those_of_the_definition(shape: Shape, seed: int, dtype: str) -> None:
    rng = np.random.default_rng(seed)
    forest = random_forest(rng, shape)
    assert_interactions(forest, matching_rows(rng, forest, 4, dtype))


@pytest.mark.parametrize("depth", [1, 2, 6, 8])
def test_every_depth(depth: int) -> None:
    rng = np.random.default_rng(depth)
    forest = random_forest(rng, Shape(n_features=5, n_trees=2, depth=depth, growth=1.0))
    assert_interactions(forest, matching_rows(rng, forest, 4))


@pytest.mark.parametrize("share", [0.9, 0.5])
@pytest.mark.parametrize("levels", [10, 64, 70, 200])
def test_chains(levels: int, share: float) -> None:
    rng = np.random.default_rng(levels)
    forest = chain_forest(rng, levels, share=share)
    assert_interactions(forest, matching_rows(rng, forest, 4))


@pytest.mark.parametrize("n_features", [7, 8, 9, 16, 17, 33])
def test_any_number_of_features(n_features: int) -> None:
    rng = np.random.default_rng(n_features)
    shape = Shape(n_features=n_features, n_trees=35, depth=3, categorical=True, n_outputs=2)
    forest = random_forest(rng, shape)
    assert_interactions(forest, matching_rows(rng, forest, 3))


def test_features_that_never_share_a_path_do_not_interact() -> None:
    rng = np.random.default_rng(1)
    forest = random_forest(rng, Shape(n_features=4, n_trees=30, depth=1))
    found = TreeExplainer(forest).interaction_values(matching_rows(rng, forest, 10))
    assert np.abs(found[:, range(4), range(4)]).max() > 0.1
    assert not found[:, ~np.eye(5, dtype=bool)].any()


@pytest.mark.parametrize("size", [0, 1, 31, 33, 257, 513])
@pytest.mark.parametrize("n_outputs", [1, 3])
def test_a_row_does_not_depend_on_its_batch(size: int, n_outputs: int) -> None:
    rng = np.random.default_rng(2)
    forest = random_forest(rng, Shape(n_features=4, n_trees=18, depth=4, n_outputs=n_outputs, categorical=True))
    rows = matching_rows(rng, forest, 7)
    explainer = TreeExplainer(forest)
    alone = np.concatenate([explainer.interaction_values(rows[i : i + 1]) for i in range(7)])
    which = rng.integers(0, 7, size)
    found = explainer.interaction_values(rows[which])
    assert found.shape == ((size, 5, 5) if n_outputs == 1 else (size, n_outputs, 5, 5))
    np.testing.assert_array_equal(found, alone[which])


def test_threads_change_no_bit() -> None:
    rng = np.random.default_rng(3)
    forest = random_forest(rng, Shape(n_features=5, n_trees=20, depth=5))
    rows = matching_rows(rng, forest, 10)[rng.integers(0, 10, 701)]
    with threads(1):
        one = TreeExplainer(forest).interaction_values(rows)
    with threads(2):
        two = TreeExplainer(forest).interaction_values(rows)
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("n_classes", [2, 3], ids=["binary", "three classes"])
def test_agrees_with_xgboost(n_classes: int, missing: float) -> None:
    xgboost = pytest.importorskip("xgboost")
    from treadle.kernels.forest import compile_forest

    rng = np.random.default_rng(4)
    rows = rng.normal(size=(400, 6)).astype(np.float32)
    score = rows[:, 0] * rows[:, 1] + rows[:, 2]
    rows[rng.random(rows.shape) < missing] = np.nan
    target = np.searchsorted(np.quantile(score, np.arange(1, n_classes) / n_classes), score)
    objective = {"objective": "multi:softprob", "num_class": 3} if n_classes > 2 else {"objective": "binary:logistic"}
    matrix = xgboost.DMatrix(rows, target, nthread=1)
    booster = xgboost.train({"max_depth": 6, "nthread": 1, "verbosity": 0, **objective}, matrix, num_boost_round=15)
    expected = booster.predict(matrix, pred_interactions=True)
    found = TreeExplainer(compile_forest(booster)).interaction_values(rows)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
