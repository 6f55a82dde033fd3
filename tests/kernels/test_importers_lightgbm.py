"""The importer of LightGBM: the compiled margin is predict(raw_score=True), on rows that are hard to route."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from tests.kernels.forest_margin import assert_margin, forest_margin, probes, row_counts
from tests.kernels.test_importers import BINARY, COUNTS, EXACT, ROWS, THREE, X, Y
from treadle.errors import UnsupportedModel
from treadle.kernels.importers import read_model

lgb = pytest.importorskip("lightgbm")

# One feature with zeros in place of a fifth of its values, for the kinds of missing values.
ZEROS = np.where(np.arange(ROWS * 4).reshape(ROWS, 4) % 5 == 0, 0.0, X)
SMALL = {"num_leaves": 12, "min_data_in_leaf": 5, "min_data_per_group": 5, "num_threads": 1, "verbose": -1, "seed": 1}


def boosted(label: Any, rows: Any = X, categorical: Any = (3,), rounds: int = 20, **params: Any) -> Any:
    return lgb.train(SMALL | params, lgb.Dataset(rows, label, categorical_feature=list(categorical)), rounds)


@pytest.mark.parametrize(
    ("label", "params"),
    [
        (Y, {"objective": "regression"}),
        (Y, {"objective": "regression_l1"}),
        (Y, {"objective": "quantile", "alpha": 0.8}),
        (BINARY, {"objective": "binary"}),
        (BINARY, {"objective": "cross_entropy"}),
        (THREE, {"objective": "multiclass", "num_class": 3}),
        (THREE, {"objective": "multiclassova", "num_class": 3}),
        (COUNTS, {"objective": "poisson"}),
        (Y, {"zero_as_missing": True}),
        (Y, {"use_missing": False}),
        (Y, {"categorical": ()}),
        (Y, {"categorical": (), "zero_as_missing": True}),
        (Y, {"max_cat_to_onehot": 20}),
        (Y, {"boosting": "dart", "drop_rate": 0.5}),
        (Y, {"boosting": "rf", "bagging_fraction": 0.6, "bagging_freq": 1}),
        (
            THREE,
            {"objective": "multiclass", "num_class": 3, "boosting": "rf", "bagging_fraction": 0.6, "bagging_freq": 1},
        ),
        (Y, {"data_sample_strategy": "goss"}),
        (Y, {"extra_trees": True}),
    ],
    ids=lambda value: " ".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_margin(label: Any, params: dict[str, Any]) -> None:
    booster = boosted(label, ZEROS, **params)
    forest = read_model(booster)
    assert bool(forest.zero_missing.any()) == ("zero_as_missing" in params)
    if params.get("boosting") != "rf":  # where they may go unused
        assert bool(forest.categories.any()) == (params.get("categorical") != ())
    rows = probes(forest, ZEROS)
    expected = booster.predict(rows, raw_score=True)
    assert_margin(forest, rows, expected, EXACT)
    several = forest.n_outputs > 1
    sums = booster.predict(rows[:5], pred_contrib=True).reshape(5, forest.n_outputs, -1).sum(axis=2)
    assert forest_margin(forest, rows[:5]) == pytest.approx(sums if several else sums.reshape(5, 1), abs=1e-9)


def test_codes_between_minus_one_and_zero_are_the_one_deviation() -> None:
    """LightGBM truncates -0.5 to code 0; a compiled forest takes all negative codes for unknown."""
    booster = boosted(Y)
    forest = read_model(booster)
    rows = np.repeat(X[:20], 2, axis=0)
    rows[:, 3] = np.tile([-0.5, -1.0], 20)
    found = forest_margin(forest, rows)
    assert (found[::2] == found[1::2]).all()
    assert found[1::2, 0] == pytest.approx(booster.predict(rows[1::2]))


@pytest.mark.parametrize("threshold", ["1e-36", "0", "-0.0", "-1e-36", "1e-35", "-1e-35", "-1.0000000180025095e-35"])
def test_thresholds_near_zero(threshold: str) -> None:
    """LightGBM makes zero of everything as near as 1e-35 before it compares."""
    text = boosted(Y, X[:, :1], (), rounds=1, num_leaves=3).model_to_string()
    first = re.sub(r"\nthreshold=\S+", f"\nthreshold={threshold}", text)
    booster = lgb.Booster(model_str=first)
    bound = float(np.float32(1e-35))
    sides = [np.nextafter(bound, 0), bound, np.nextafter(bound, 1), 1e-36, 1e-37, 0.0, 1e-30, 5.0, np.inf]
    rows = np.array([sign * side for sign in (1, -1) for side in sides] + [np.nan])[:, None]
    assert_margin(read_model(booster), rows, booster.predict(rows, raw_score=True), EXACT)


@pytest.mark.filterwarnings("ignore:The argument 'eval_set' is deprecated")
@pytest.mark.parametrize("several", [False, True], ids=["two classes", "three classes"])
def test_wrappers_stop_at_the_best_iteration(several: bool) -> None:
    label = THREE if several else BINARY
    model = lgb.LGBMClassifier(n_estimators=300, learning_rate=0.5, n_jobs=1, verbose=-1)
    stop = lgb.early_stopping(3, verbose=False)
    model.fit(X[90:], label[90:], eval_set=[(X[:90], label[:90])], callbacks=[stop])
    forest = read_model(model)
    assert forest.n_trees == model.best_iteration_ * forest.n_outputs < 300
    rows = probes(forest, X)
    expected = model.booster_.predict(rows, raw_score=True)
    assert_margin(forest, rows, expected, EXACT)
    # With the trees after the best iteration cut off, stop still earlier.
    model.booster_.best_iteration = 2
    earlier = read_model(model)
    assert earlier.n_trees == 2 * forest.n_outputs < forest.n_trees
    assert_margin(earlier, rows, model.booster_.predict(rows, raw_score=True), EXACT)


@pytest.mark.parametrize("name", ["LGBMRegressor", "LGBMRanker"])
def test_other_wrappers(name: str) -> None:
    extra = {"group": [ROWS]} if name == "LGBMRanker" else {}
    model = getattr(lgb, name)(n_estimators=10, n_jobs=1, verbose=-1).fit(X, COUNTS, **extra)
    assert_margin(read_model(model), X, model.booster_.predict(X, raw_score=True), EXACT)


def test_trees_without_splits() -> None:
    booster = boosted(np.ones(ROWS), rounds=3, objective="regression")
    forest = read_model(booster)
    assert (forest.feature == -1).all()
    assert forest_margin(forest, X)[:, 0] == pytest.approx(booster.predict(X))


def test_cover_is_the_number_of_training_rows() -> None:
    forest = read_model(boosted(Y, ZEROS, rounds=4))
    assert (forest.cover == row_counts(forest, ZEROS)).all()


REFUSED = {
    "linear trees": (lambda: boosted(Y, linear_tree=True), r"lightgbm\.Booster .* linear_tree"),
    "unfitted": (lgb.LGBMRegressor, r"lightgbm\.LGBMRegressor .* not fitted\. Call fit first"),
    "a Dataset": (lambda: lgb.Dataset(X), r"lightgbm\.Dataset .* is no booster"),
    "two kinds of missing values": (
        lambda: lgb.Booster(
            model_str=boosted(Y, X[:, :1], (), rounds=1, num_leaves=3)
            .model_to_string()
            .replace("decision_type=0 0", "decision_type=4 8")
            .replace("decision_type=2 2", "decision_type=4 8")
        ),
        r"feature 0 is missing when zero in one node and when NaN in another",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_say_what_and_why(case: str) -> None:
    make, message = REFUSED[case]
    with pytest.raises(UnsupportedModel, match=message):
        read_model(make())
