"""Importers of XGBoost and scikit-learn: the compiled margin is the library's own, on rows that are hard to route."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost as xgb
from numpy.typing import NDArray
from sklearn import ensemble, tree
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LinearRegression
from sklearn.naive_bayes import GaussianNB

from tests.kernels.forest_margin import assert_margin, probes, row_counts
from treadle.errors import UnsupportedModel
from treadle.kernels.forest import Forest, compile_forest
from treadle.kernels.importers import read_model

ROWS = 300
EXACT, SINGLE = 1e-12, 1e-5


def training(seed: int = 5) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Four columns, the last of categories 0 to 11, with missing values in the second and last; a number for each."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(ROWS, 4)).round(2)
    X[:, 3] = rng.integers(0, 12, ROWS)
    y = X[:, 0] + np.sin(3 * X[:, 1]) + (X[:, 3] % 3) - X[:, 2] * (X[:, 3] > 6) + 0.1 * rng.normal(size=ROWS)
    X[rng.random(ROWS) < 0.15, 1] = np.nan
    X[rng.random(ROWS) < 0.1, 3] = np.nan
    return X, y


X, Y = training()
BINARY, THREE, COUNTS = (Y > 0.5).astype(int), np.digitize(Y, [-0.5, 1.5]), np.digitize(Y, [-1, 0, 1, 2])
FULL = np.nan_to_num(X, nan=3.0)
TYPES = ["q", "q", "q", "c"]
SMALL = {"max_depth": 4, "nthread": 1, "max_cat_to_onehot": 3}


def boosted(label: Any, categorical: bool = True, rounds: int = 20, **params: Any) -> xgb.Booster:
    data = xgb.DMatrix(X.astype(np.float32), label, feature_types=TYPES if categorical else None)
    if params.get("objective") == "survival:aft":
        data.set_float_info("label_lower_bound", label)
        data.set_float_info("label_upper_bound", label + 1)
    if params.get("objective") == "rank:ndcg":
        data.set_group([100, 120, 80])
    return xgb.train(SMALL | params, data, rounds)


def xgb_margin(booster: xgb.Booster, rows: NDArray[Any]) -> NDArray[Any]:
    return booster.predict(xgb.DMatrix(rows, feature_types=booster.feature_types), output_margin=True)


@pytest.mark.parametrize(
    ("label", "params"),
    [
        (Y, {"objective": "reg:squarederror"}),
        (Y, {"objective": "reg:absoluteerror"}),
        (Y, {"objective": "reg:pseudohubererror"}),
        (Y, {"objective": "reg:quantileerror", "quantile_alpha": [0.1, 0.5, 0.9]}),
        (BINARY, {"objective": "binary:logistic"}),
        (BINARY, {"objective": "binary:logistic", "base_score": 0.2}),
        (BINARY, {"objective": "binary:logitraw"}),
        (BINARY, {"objective": "binary:hinge"}),
        (COUNTS / 8, {"objective": "reg:logistic"}),
        (COUNTS, {"objective": "count:poisson"}),
        (COUNTS + 0.5, {"objective": "reg:gamma"}),
        (COUNTS, {"objective": "reg:tweedie"}),
        (COUNTS + 1, {"objective": "survival:cox"}),
        (COUNTS + 1, {"objective": "survival:aft"}),
        (COUNTS, {"objective": "rank:ndcg"}),
        (THREE, {"objective": "multi:softmax", "num_class": 3}),
        (THREE, {"objective": "multi:softprob", "num_class": 3, "base_score": 0.3}),
        (Y, {"num_parallel_tree": 3, "subsample": 0.7}),
        (THREE, {"objective": "multi:softprob", "num_class": 3, "num_parallel_tree": 2}),
        (Y, {"rate_drop": 0.4}),
        (Y, {"grow_policy": "lossguide", "max_leaves": 9}),
        (Y, {"gamma": 1.0, "min_child_weight": 5}),
        (Y, {"max_depth": 1, "max_cat_to_onehot": 20}),
        (np.c_[Y, -Y, BINARY], {"multi_strategy": "multi_output_tree", "categorical": False}),
        (np.c_[Y, -Y, BINARY], {"multi_strategy": "one_output_per_tree"}),
        (Y, {"tree_method": "exact", "gamma": 0.5, "categorical": False}),
    ],
    ids=lambda value: " ".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_xgboost_margin(label: Any, params: dict[str, Any]) -> None:
    booster = boosted(label, **params)
    forest = read_model(booster)
    rows = probes(forest, X, inf=False)  # XGBoost takes no infinities
    assert_margin(forest, rows, xgb_margin(booster, rows), SINGLE)
    assert forest.source.startswith("xgboost 3.")
    assert bool(forest.categories.any()) == params.get("categorical", True)


def test_xgboost_of_an_objective_of_ones_own() -> None:
    data = xgb.DMatrix(X, Y)
    booster = xgb.train(SMALL, data, 10, obj=lambda margin, _: (np.sinh(margin - Y), np.cosh(margin - Y)))
    forest = read_model(booster)
    rows = probes(forest, X, inf=False)
    assert_margin(forest, rows, xgb_margin(booster, rows), SINGLE)


def test_xgboost_of_a_table_with_categories() -> None:
    names = np.array(list("abcdefghijkl"))
    frame = pd.DataFrame(X[:, :3], columns=["p", "q", "r"])
    frame["s"] = pd.Categorical([names[int(c)] if c == c else None for c in X[:, 3]], categories=list(names))
    model = xgb.XGBRegressor(n_estimators=15, max_depth=4, n_jobs=1, enable_categorical=True).fit(frame, Y)
    forest = read_model(model)
    codes = frame["s"].cat.codes.to_numpy().astype(float)
    codes[codes < 0] = np.nan
    assert_margin(forest, np.c_[X[:, :3], codes], model.predict(frame), SINGLE)


@pytest.mark.parametrize(
    "model",
    [
        xgb.XGBClassifier(n_estimators=15, n_jobs=1),
        xgb.XGBRegressor(n_estimators=15, n_jobs=1),
        xgb.XGBRanker(n_estimators=15, n_jobs=1),
        xgb.XGBRegressor(n_estimators=1, n_jobs=1, num_parallel_tree=15, subsample=0.8, learning_rate=1),
        xgb.XGBClassifier(n_estimators=200, n_jobs=1, early_stopping_rounds=3, num_parallel_tree=2),
    ],
    ids=lambda model: type(model).__name__ + (" early" if model.early_stopping_rounds else ""),
)
def test_xgboost_wrappers(model: Any) -> None:
    extra = {"eval_set": [(X[:90], THREE[:90])]} if model.early_stopping_rounds else {}
    if isinstance(model, xgb.XGBRanker):
        model.fit(X, BINARY, group=[ROWS])
    else:
        model.fit(X[90:], THREE[90:], verbose=False, **extra)
    forest = read_model(model)
    rows = probes(forest, X, inf=False)
    assert_margin(forest, rows, model.predict(rows, output_margin=True), SINGLE)
    if extra:
        assert forest.n_trees == 2 * 3 * (model.best_iteration + 1) < len(model.get_booster().get_dump())


@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")
@pytest.mark.parametrize("name", ["XGBRFClassifier", "XGBRFRegressor"])
def test_xgboost_random_forest_wrappers(name: str) -> None:
    model = getattr(xgb, name)(n_estimators=15, n_jobs=1).fit(X, THREE)
    forest = read_model(model)
    rows = probes(forest, X, inf=False)
    assert_margin(forest, rows, model.predict(rows, output_margin=True), SINGLE)


class Weird(xgb.XGBRegressor):
    """A user's own class."""


def test_a_class_derived_from_a_wrapper() -> None:
    model = Weird(n_estimators=5, n_jobs=1).fit(X, Y)
    assert_margin(read_model(model), X, model.predict(X), SINGLE)


FORESTS = [
    tree.DecisionTreeClassifier(max_depth=6),
    tree.ExtraTreeClassifier(max_depth=6),
    ensemble.RandomForestClassifier(n_estimators=20, max_depth=6),
    ensemble.ExtraTreesClassifier(n_estimators=20, max_depth=6),
]


@pytest.mark.parametrize("model", FORESTS, ids=lambda model: type(model).__name__)
@pytest.mark.parametrize(("label", "classes"), [(BINARY, 2), (THREE, 3)], ids=["two classes", "three classes"])
def test_probabilities_of_trees_and_forests(model: Any, label: Any, classes: int) -> None:
    model.set_params(random_state=0).fit(X, label, sample_weight=np.arange(ROWS) % 3 + 0.5)
    forest = read_model(model)
    assert forest.n_outputs == (1 if classes == 2 else classes)
    rows = probes(forest, X, inf=False)  # scikit-learn's trees take no infinities
    expected = model.predict_proba(rows)
    assert_margin(forest, rows, expected[:, 1:] if classes == 2 else expected, EXACT)


@pytest.mark.parametrize(
    "model",
    [
        tree.DecisionTreeRegressor(max_depth=6),
        tree.DecisionTreeRegressor(max_depth=6, criterion="absolute_error", max_leaf_nodes=20),
        tree.ExtraTreeRegressor(max_depth=6),
        ensemble.RandomForestRegressor(n_estimators=20, max_depth=6),
        ensemble.ExtraTreesRegressor(n_estimators=20, max_depth=6, criterion="poisson"),
    ],
    ids=lambda model: f"{type(model).__name__} {model.criterion}",
)
def test_values_of_trees_and_forests(model: Any) -> None:
    model.set_params(random_state=0).fit(FULL if model.criterion == "absolute_error" else X, np.abs(Y))
    forest = read_model(model)
    rows = probes(forest, FULL, inf=False, nan=model.criterion != "absolute_error")
    # The library rounds to float32; numbers between two of those must fall on its side.
    rows = np.concatenate([rows.astype(np.float64), rows * (1 + 1e-9)])
    assert_margin(forest, rows, model.predict(rows), EXACT)


@pytest.mark.parametrize(
    ("model", "label"),
    [
        (ensemble.GradientBoostingRegressor(), Y),
        (ensemble.GradientBoostingRegressor(loss="quantile", alpha=0.8, learning_rate=0.3), Y),
        (ensemble.GradientBoostingRegressor(loss="huber", init="zero"), Y),
        (ensemble.GradientBoostingClassifier(), BINARY),
        (ensemble.GradientBoostingClassifier(loss="exponential"), BINARY),
        (ensemble.GradientBoostingClassifier(n_iter_no_change=2), THREE),
        (ensemble.GradientBoostingClassifier(init=DummyClassifier(strategy="prior")), THREE),
    ],
    ids=lambda value: f"{type(value).__name__} {value.loss} {value.init}" if hasattr(value, "loss") else "",
)
def test_gradient_boosting(model: Any, label: Any) -> None:
    model.set_params(n_estimators=20, random_state=0, subsample=0.8).fit(FULL, label)
    forest = read_model(model)
    rows = probes(forest, FULL, nan=False, inf=False)
    assert_margin(forest, rows, getattr(model, "decision_function", model.predict)(rows), EXACT)


@pytest.mark.parametrize(
    ("depth", "label"),
    [(1, BINARY), (3, BINARY), (1, THREE), (2, COUNTS), (2, np.array(["b", "a"])[BINARY])],
    ids=["stumps", "trees", "stumps of three", "trees of five", "names"],
)
def test_ada_boost_adds_up_votes(depth: int, label: Any) -> None:
    model = ensemble.AdaBoostClassifier(
        tree.DecisionTreeClassifier(max_depth=depth), n_estimators=15, learning_rate=0.7, random_state=0
    ).fit(FULL, label)
    forest = read_model(model)
    assert forest.n_trees == len(model.estimators_) * forest.n_outputs
    rows = probes(forest, FULL, nan=False, inf=False)
    assert_margin(forest, rows, model.decision_function(rows), EXACT)


HISTOGRAM = {"max_iter": 20, "random_state": 0, "min_samples_leaf": 5}


@pytest.mark.parametrize("categorical", [None, [3]], ids=["numeric", "categorical"])
@pytest.mark.parametrize(
    ("model", "label"),
    [
        (ensemble.HistGradientBoostingRegressor(**HISTOGRAM), Y),
        (ensemble.HistGradientBoostingRegressor(loss="poisson", **HISTOGRAM), COUNTS),
        (ensemble.HistGradientBoostingClassifier(**HISTOGRAM), BINARY),
        (ensemble.HistGradientBoostingClassifier(early_stopping=True, **HISTOGRAM), THREE),
    ],
    ids=lambda value: f"{type(value).__name__} {value.loss}" if hasattr(value, "loss") else "",
)
def test_histogram_boosting(model: Any, label: Any, categorical: Any) -> None:
    model.set_params(categorical_features=categorical).fit(X, label)
    forest = read_model(model)
    assert bool(forest.categories.any()) == bool(categorical)
    rows = probes(forest, X)
    if categorical:
        # Its encoder knows whole codes only, where all others truncate.
        rows[:, 3] = np.where(np.abs(rows[:, 3]) < 1e6, np.trunc(rows[:, 3]), rows[:, 3])
    expected = model._raw_predict(rows)
    assert_margin(forest, rows, expected, EXACT)


def test_histogram_boosting_of_codes_with_gaps_in_front() -> None:
    """The encoder numbers the known codes, and puts categorical columns first."""
    codes = np.array([2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37])
    moved = np.c_[X[:, 0], np.where(np.isnan(X[:, 3]), np.nan, codes[np.nan_to_num(X[:, 3]).astype(int)]), X[:, 1:3]]
    model = ensemble.HistGradientBoostingRegressor(categorical_features=[1], **HISTOGRAM).fit(moved, Y)
    forest = read_model(model)
    assert forest.categories.tolist() == [0, 38, 0, 0]
    rows = np.repeat(moved[:40], 3, axis=0)
    rows[:, 1] = np.arange(len(rows)) % 60 - 4
    assert_margin(forest, rows, model.predict(rows), EXACT)


def test_splits_of_missing_values_from_all_others() -> None:
    """The library writes them with an infinite threshold."""
    gaps = np.where(np.arange(ROWS)[:, None] % 3 == 0, np.nan, 1.0)
    label = np.isnan(gaps[:, 0]) * 2.0 + (np.arange(ROWS) % 2) * 1e-3
    rows = np.array([[np.nan], [1.0], [-3.0], [1e30], [np.finfo(np.float32).max]])
    for model in (tree.DecisionTreeRegressor(max_depth=1), ensemble.HistGradientBoostingRegressor(max_iter=1)):
        model.fit(gaps, label)
        forest = read_model(model)
        assert np.isnan(forest.cuts).any()
        found = forest.value[np.where(forest.missing_right[0], forest.right[0], 1)] + forest.base[0]
        assert found == pytest.approx(model.predict(rows)[0])
        other = forest.value[np.where(forest.missing_right[0], 1, forest.right[0])] + forest.base[0]
        assert model.predict(rows)[1:] == pytest.approx(np.full(4, other))


@pytest.mark.parametrize(
    "model",
    [
        xgb.XGBRegressor(n_estimators=4, n_jobs=1, max_depth=5, feature_types=TYPES, enable_categorical=True),
        tree.DecisionTreeRegressor(max_depth=6),
        ensemble.GradientBoostingRegressor(n_estimators=4),
        ensemble.HistGradientBoostingRegressor(max_iter=4, categorical_features=[3]),
    ],
    ids=lambda model: type(model).__name__,
)
def test_cover_is_the_number_of_training_rows(model: Any) -> None:
    forest = read_model(model.fit(FULL, Y))
    assert forest.cover == pytest.approx(row_counts(forest, FULL))


REFUSED = {
    "linear booster": (
        lambda: xgb.train({"booster": "gblinear", "nthread": 1}, xgb.DMatrix(X, Y), 2),
        r"xgboost\.Booster .* its booster is 'gblinear', which has no trees",
    ),
    "unfitted XGBoost": (xgb.XGBRegressor, r"xgboost\.XGBRegressor .* not fitted\. Call fit first"),
    "missing 0": (lambda: xgb.XGBRegressor(n_estimators=2, missing=0.0).fit(X, Y), r"takes 0\.0 for missing"),
    "a DMatrix": (lambda: xgb.DMatrix(X), r"xgboost\.DMatrix .* is no booster"),
    "unfitted forest": (
        ensemble.RandomForestRegressor,
        r"sklearn\.RandomForestRegressor .* not fitted\. Call fit first",
    ),
    "isolation forest": (lambda: ensemble.IsolationForest().fit(FULL), r"sklearn\.IsolationForest .* lengths of paths"),
    "linear regression": (lambda: LinearRegression().fit(FULL, Y), r"sklearn\.LinearRegression .* no tree"),
    "AdaBoost": (
        lambda: ensemble.AdaBoostRegressor(n_estimators=2).fit(FULL, Y),
        r"AdaBoostRegressor .* it predicts a median of trees, which no sum over trees is",
    ),
    "AdaBoost of others": (
        lambda: ensemble.AdaBoostClassifier(GaussianNB(), n_estimators=2).fit(FULL, BINARY),
        r"AdaBoostClassifier .* it boosts a GaussianNB\. Train it on decision trees",
    ),
    "unfitted AdaBoost": (ensemble.AdaBoostClassifier, r"AdaBoostClassifier .* not fitted\. Call fit first"),
    "two targets": (
        lambda: tree.DecisionTreeRegressor().fit(X, np.c_[Y, Y]),
        r"DecisionTreeRegressor .* 2 targets at once\. Train one model a target",
    ),
    "init of its own": (
        lambda: ensemble.GradientBoostingRegressor(init=LinearRegression(), n_estimators=2).fit(FULL, Y),
        r"GradientBoostingRegressor .* its init is a LinearRegression",
    ),
    "categories of text": (
        lambda: ensemble.HistGradientBoostingRegressor(max_iter=2, categorical_features=[0]).fit(
            pd.DataFrame({"a": pd.Categorical(["x", "y"] * 50)}), Y[:100]
        ),
        r"HistGradientBoostingRegressor .* feature 0 are no whole numbers .* Encode them",
    ),
    "negative categories": (
        lambda: ensemble.HistGradientBoostingRegressor(max_iter=2, categorical_features=[0]).fit(X[:, 3:] - 1, Y),
        r"feature 0 are no whole numbers",
    ),
    "no model": (dict, r"builtins\.dict .* no tree model of xgboost"),
}


@pytest.mark.filterwarnings("ignore:.*`booster=gblinear` is deprecated:UserWarning")
@pytest.mark.parametrize("case", REFUSED)
def test_refusals_say_what_and_why(case: str) -> None:
    make, message = REFUSED[case]
    with pytest.raises(UnsupportedModel, match=message):
        compile_forest(make())


def test_a_forest_is_compiled_already() -> None:
    forest = compile_forest(tree.DecisionTreeRegressor(max_depth=2).fit(X, Y))
    assert isinstance(forest, Forest)
    assert compile_forest(forest) is forest


def test_no_library_is_imported_for_the_models_of_another() -> None:
    code = (
        "import sys\n"
        "from treadle.kernels.importers import read_model\n"
        "try:\n    read_model([])\n"
        "except Exception as error:\n    assert type(error).__name__ == 'UnsupportedModel'\n"
        "else:\n    raise SystemExit('nothing was raised')\n"
        "raise SystemExit(str({'xgboost', 'lightgbm', 'sklearn', 'catboost', 'treelite'} & set(sys.modules) or ''))\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert found.stderr.strip() == ""
