"""The importer of CatBoost: the compiled margin is RawFormulaVal, on rows that are hard to route."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.kernels.forest_margin import assert_margin, forest_margin, probes, row_counts
from tests.kernels.test_importers import BINARY, EXACT, FULL, ROWS, THREE, X, Y
from treadle.errors import UnsupportedModel
from treadle.kernels.importers import read_model

cat = pytest.importorskip("catboost")

SMALL = {"iterations": 20, "depth": 4, "verbose": 0, "thread_count": 1, "allow_writing_files": False, "random_seed": 1}


@pytest.mark.parametrize("policy", ["SymmetricTree", "Lossguide", "Depthwise"])
@pytest.mark.parametrize("nan_mode", ["Min", "Max"])
@pytest.mark.parametrize(
    ("loss", "label"),
    [("RMSE", Y), ("Logloss", BINARY), ("MultiClass", THREE), ("MultiClassOneVsAll", THREE), ("Quantile", Y)],
    ids=["RMSE", "Logloss", "MultiClass", "MultiClassOneVsAll", "Quantile"],
)
def test_margin(policy: str, nan_mode: str, loss: str, label: Any) -> None:
    model = cat.CatBoost(SMALL | {"loss_function": loss, "grow_policy": policy, "nan_mode": nan_mode}).fit(X, label)
    forest = read_model(model)
    rows = probes(forest, X)
    assert_margin(forest, rows, model.predict(rows, prediction_type="RawFormulaVal"), EXACT)


@pytest.mark.parametrize("name", ["CatBoostClassifier", "CatBoostRegressor", "CatBoostRanker"])
def test_wrappers(name: str) -> None:
    extra = {"group_id": np.zeros(ROWS, dtype=int)} if name == "CatBoostRanker" else {}
    model = getattr(cat, name)(**SMALL).fit(X, THREE, **extra)
    forest = read_model(model)
    assert forest.n_outputs == (3 if name == "CatBoostClassifier" else 1)
    assert_margin(forest, X, cat.CatBoost.predict(model, X, prediction_type="RawFormulaVal"), EXACT)


def test_several_targets() -> None:
    model = cat.CatBoostRegressor(loss_function="MultiRMSE", **SMALL).fit(X, np.c_[Y, -2 * Y])
    assert_margin(read_model(model), X, model.predict(X), EXACT)


def test_missing_values_that_were_not_in_the_training_data() -> None:
    model = cat.CatBoostRegressor(**SMALL).fit(FULL, Y)
    forest = read_model(model)
    rows = probes(forest, FULL)
    assert_margin(forest, rows, model.predict(rows), EXACT)


def test_scale_and_bias() -> None:
    model = cat.CatBoostRegressor(**SMALL).fit(X, Y)
    model.set_scale_and_bias(2.5, -1.25)
    assert_margin(read_model(model), X, model.predict(X), EXACT)


def test_the_last_split_of_an_oblivious_tree_is_the_root() -> None:
    """As in CatBoost's own Shapley values, which tells the order from others: one tree, two features."""
    model = cat.CatBoostRegressor(**SMALL | {"iterations": 1, "depth": 2}).fit(X[:, :2], Y)
    forest = read_model(model)
    assert forest.n_leaves == 4
    expected = model.get_feature_importance(cat.Pool(X[:30, :2]), type="ShapValues")
    found = [two_player_values(forest, row) for row in X[:30, :2]]
    assert np.array(found) == pytest.approx(expected[:, :2], abs=1e-6)


def two_player_values(forest: Any, row: Any) -> tuple[float, float]:
    """Shapley values of a tree on two features: of the game of values that are known on the way down."""

    def value(node: int, known: tuple[int, ...]) -> float:
        feature = forest.feature[node]
        if feature < 0:
            return float(forest.value[node])
        left, right = node + 1, int(forest.right[node])
        if feature in known:
            cut = forest.cuts[forest.cut_start[feature] + forest.rank[node]]
            missing = np.isnan(row[feature])
            goes_right = forest.missing_right[node] if missing else np.float32(row[feature]) >= cut
            return value(right if goes_right else left, known)
        shares = forest.cover[[left, right]] / forest.cover[node] if forest.cover[node] else (0.0, 0.0)
        return float(shares[0] * value(left, known) + shares[1] * value(right, known))

    nothing, first, second, both = (value(0, known) for known in ((), (0,), (1,), (0, 1)))
    return (first - nothing + both - second) / 2, (second - nothing + both - first) / 2


@pytest.mark.parametrize("policy", ["SymmetricTree", "Lossguide"])
def test_cover_is_the_number_of_training_rows(policy: str) -> None:
    forest = read_model(cat.CatBoostRegressor(**SMALL | {"grow_policy": policy, "iterations": 4}).fit(X, Y))
    assert forest.cover == pytest.approx(row_counts(forest, X))


def test_a_model_from_a_file(tmp_path: Path) -> None:
    cat.CatBoostRegressor(**SMALL).fit(X, Y).save_model(str(tmp_path / "model.cbm"))
    model = cat.CatBoost().load_model(str(tmp_path / "model.cbm"))
    assert forest_margin(read_model(model), X)[:, 0] == pytest.approx(model.predict(X), rel=1e-12)


REFUSED = {
    "categories": (
        lambda: cat.CatBoostRegressor(**SMALL, cat_features=[1]).fit(
            [[a, str(b)] for a, b in zip(FULL[:, 0], THREE, strict=True)], Y
        ),
        r"catboost\.CatBoostRegressor .* feature 1 is a categorical feature",
    ),
    "unfitted": (cat.CatBoostClassifier, r"catboost\.CatBoostClassifier .* not fitted\. Call fit first"),
    "a Pool": (lambda: cat.Pool(X), r"catboost\.Pool .* is no model"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_say_what_and_why(case: str) -> None:
    make, message = REFUSED[case]
    with pytest.raises(UnsupportedModel, match=message):
        read_model(make())
