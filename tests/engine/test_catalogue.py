"""Every model of the catalogue, trained as a job trains it, against its library; and what is refused of it."""

from __future__ import annotations

import importlib.metadata
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn import dummy, ensemble, linear_model, metrics, neighbors, neural_network, svm, tree

from treadle.engine.artifacts import SplitRule
from treadle.engine.fitting import fit_estimator
from treadle.engine.job import MODEL_NAMES, Job
from treadle.engine.job import Model as ModelConfig
from treadle.engine.models.base import Model, Task, load_model, save_model
from treadle.engine.models.catalogue import CATALOGUE, check_models
from treadle.engine.models.constraints import by_place
from treadle.engine.models.forest import ForestModel
from treadle.engine.store import Store
from treadle.errors import DataError, RequestError
from treadle.kernels.metrics import (
    binary_metrics,
    class_table,
    merge_class_tables,
    merge_score_tables,
    multiclass_metrics,
    score_table,
)

SEED = 5
ROWS, FEATURES = 160, 4
Matrix = NDArray[np.float32]


def matrix(seed: int) -> Matrix:
    return np.random.default_rng(seed).normal(size=(ROWS, FEATURES)).astype(np.float32)


def target(rows: Matrix, task: Task) -> NDArray[np.float64]:
    if task == "regression":
        return 3.0 * rows[:, 0] + rows[:, 1].astype(np.float64) ** 2
    signal = rows[:, 0] + rows[:, 1] * rows[:, 2]
    return np.digitize(signal, [0.0] if task == "binary" else [-0.5, 0.5]).astype(np.float64)


def rule(task: Task) -> Any:
    classes = {"binary": ("no", "yes"), "multiclass": ("a", "b", "c"), "regression": ()}[task]
    return SplitRule.model_construct(task=task, classes=classes)


def trained(name: str, task: Task, **params: Any) -> tuple[Model, list[str]]:
    """From three parts, as a worker gets them."""
    rows = matrix(1)
    parts = [(rows[part], target(rows[part], task)) for part in (slice(0), slice(50), slice(50, None))]
    model, used, said = fit_estimator(parts, ModelConfig(name=name, params=params), rule(task), SEED)
    assert used == ROWS
    return model, said


def of_lightgbm(kind: str) -> Callable[..., Any]:
    import lightgbm

    fixed = {"verbosity": -1, "deterministic": True, "force_col_wise": True, "random_state": SEED}
    return lambda **params: getattr(lightgbm, f"LGBM{kind}")(**fixed, **params)


def of_catboost(kind: str) -> Callable[..., Any]:
    import catboost

    fixed = {"logging_level": "Silent", "allow_writing_files": False, "random_state": SEED}
    return lambda **params: getattr(catboost, f"CatBoost{kind}")(**fixed, **params)


def seeded(kind: Any) -> Callable[..., Any]:
    return lambda **params: kind(random_state=SEED, **params)


FEW: dict[str, Any] = {"n_estimators": 8}
ORACLES: list[tuple[str, Task, Callable[..., Any], dict[str, Any]]] = [
    ("gradient_boosting", "binary", seeded(ensemble.GradientBoostingClassifier), FEW),
    ("gradient_boosting", "binary", seeded(ensemble.GradientBoostingClassifier), {**FEW, "loss": "exponential"}),
    ("gradient_boosting", "multiclass", seeded(ensemble.GradientBoostingClassifier), FEW),
    ("gradient_boosting", "regression", seeded(ensemble.GradientBoostingRegressor), {**FEW, "loss": "huber"}),
    ("ada_boost", "binary", seeded(ensemble.AdaBoostClassifier), FEW),
    ("ada_boost", "multiclass", seeded(ensemble.AdaBoostClassifier), FEW),
    ("lightgbm", "binary", of_lightgbm("Classifier"), {**FEW, "class_weight": "balanced"}),
    ("lightgbm", "multiclass", of_lightgbm("Classifier"), {**FEW, "max_bin": 20}),
    ("lightgbm", "regression", of_lightgbm("Regressor"), {**FEW, "boosting_type": "dart"}),
    ("catboost", "binary", of_catboost("Classifier"), {**FEW, "auto_class_weights": "Balanced"}),
    ("catboost", "multiclass", of_catboost("Classifier"), FEW),
    ("catboost", "regression", of_catboost("Regressor"), {**FEW, "grow_policy": "Lossguide"}),
    ("random_forest", "multiclass", seeded(ensemble.RandomForestClassifier), FEW),
    ("extra_trees", "regression", seeded(ensemble.ExtraTreesRegressor), FEW),
    ("decision_tree", "binary", seeded(tree.DecisionTreeClassifier), {"max_depth": 3}),
    ("logistic_regression", "multiclass", linear_model.LogisticRegression, {"max_iter": 1000}),
    ("linear_svm", "binary", seeded(svm.LinearSVC), {"class_weight": "balanced"}),
    ("linear_svm", "multiclass", seeded(svm.LinearSVC), {"C": 0.1}),
    ("ridge", "binary", linear_model.RidgeClassifier, {"alpha": 3.0}),
    ("ridge", "multiclass", linear_model.RidgeClassifier, {}),
    ("ridge", "regression", linear_model.Ridge, {"alpha": 3.0}),
    ("linear_regression", "regression", linear_model.LinearRegression, {}),
    ("lasso", "regression", linear_model.Lasso, {"alpha": 0.1}),
    ("elastic_net", "regression", linear_model.ElasticNet, {"alpha": 0.1}),
    ("huber", "regression", linear_model.HuberRegressor, {}),
    ("k_neighbours", "binary", neighbors.KNeighborsClassifier, {}),
    ("k_neighbours", "binary", neighbors.KNeighborsClassifier, {"weights": "distance", "metric": "manhattan"}),
    ("k_neighbours", "multiclass", neighbors.KNeighborsClassifier, {"n_neighbors": 7, "p": 1.5}),
    ("k_neighbours", "regression", neighbors.KNeighborsRegressor, {"weights": "distance"}),
    ("mlp", "binary", seeded(neural_network.MLPClassifier), {"hidden_layer_sizes": [7, 3], "activation": "tanh"}),
    ("mlp", "multiclass", seeded(neural_network.MLPClassifier), {"hidden_layer_sizes": [5], "activation": "logistic"}),
    ("mlp", "regression", seeded(neural_network.MLPRegressor), {"hidden_layer_sizes": [9], "solver": "lbfgs"}),
    ("dummy", "binary", dummy.DummyClassifier, {}),
    ("dummy", "multiclass", dummy.DummyClassifier, {"strategy": "most_frequent"}),
    ("dummy", "regression", dummy.DummyRegressor, {"strategy": "median"}),
]
IDS = [f"{name}-{task}-{number}" for number, (name, task, _, _) in enumerate(ORACLES)]


ELSEWHERE = {
    "xgboost",
    "random_forest",
    "extra_trees",
    "decision_tree",
    "logistic_regression",
    "lda",
    "qda",
    "naive_bayes",
}
"""Of some tasks only here; those of test_models.py and test_exact.py."""


def test_every_model_is_held_against_its_library_for_every_task() -> None:
    for name in {*MODEL_NAMES} - ELSEWHERE:
        assert {task for other, task, _, _ in ORACLES if other == name} == CATALOGUE[name].tasks, name


@pytest.mark.parametrize(("name", "task", "make", "params"), ORACLES, ids=IDS)
def test_predictions_are_those_of_the_library(
    name: str, task: Task, make: Callable[..., Any], params: dict[str, Any], tmp_path: Path
) -> None:
    model, _ = trained(name, task, **params)
    entry, train, rows = CATALOGUE[name], matrix(1), np.concatenate([matrix(1)[:40], matrix(2)])
    # Those that are solved for in the data's type get more digits of it.
    wide = entry.family in ("linear", "network")
    estimator = make(**params)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = target(train, task)
        estimator.fit(
            train.astype(np.float64) if wide else train, values if task == "regression" else values.astype(int)
        )
        if task == "regression":
            expected = estimator.predict(rows)
        elif entry.probabilities:
            found = estimator.predict_proba(rows)
            expected = found[:, 1] if task == "binary" else found
        else:
            expected = estimator.decision_function(rows)
        decided = np.reshape(estimator.predict(rows), len(rows))
    margin = model.margin(rows)
    scores = model.scores(margin)
    assert model.has_probabilities == (entry.probabilities or task == "regression")
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(
        scores if model.has_probabilities else margin,
        expected,
        rtol=0,
        atol=1e-9 * scale,
    )
    if task != "regression":
        assert (model.classes(scores) == decided).all()
        assert ((scores >= 0) & (scores <= 1)).all()
    assert model.margin(rows).dtype == np.float64
    parted = np.concatenate([model.margin(rows[:1]), model.margin(rows[1:38]), model.margin(rows[38:])])
    np.testing.assert_array_equal(parted, margin)
    some = rows[:6]
    contributions = model.contributions(some)
    assert contributions.shape == (6, *margin.shape[1:], FEATURES + 1)
    np.testing.assert_allclose(contributions.sum(axis=-1), margin[:6], atol=2e-6 * scale)
    np.testing.assert_array_equal(model.contributions(some[3:4]), contributions[3:4])
    save_model(model, Store(str(tmp_path)), "m")
    again = load_model(Store(str(tmp_path)), "m")
    assert (again.task, again.link, again.features, again.outputs) == (task, model.link, FEATURES, model.outputs)
    assert again.method == model.method
    np.testing.assert_array_equal(again.margin(rows), margin)
    np.testing.assert_array_equal(again.contributions(some), contributions)
    none = again.margin(rows[:0])
    assert none.shape == (0, *margin.shape[1:])
    assert again.classes(again.scores(none)).shape == (0,)


@pytest.mark.parametrize("name", [name for name in MODEL_NAMES if CATALOGUE[name].family != "gaussian"])
def test_models_that_take_nulls_do_and_others_say_what_to_do(name: str) -> None:
    task: Task = "binary" if "binary" in CATALOGUE[name].tasks else "regression"
    model, _ = trained(name, task)
    rows = matrix(2)
    rows[3, 1] = np.nan
    if CATALOGUE[name].nulls:
        assert np.isfinite(model.margin(rows)).all()
        assert np.isfinite(model.contributions(rows[:5])).all()
    elif isinstance(model, ForestModel):
        # A compiled forest knows a way for nulls; that none come is seen to before training.
        assert name in ("gradient_boosting", "ada_boost")
    else:
        with pytest.raises(DataError, match="1 rows have nulls, which a .* model cannot predict from; fill them in"):
            model.margin(rows)


def test_weights_of_classes_are_given_by_their_names() -> None:
    rows = matrix(1)
    for name, make in (("linear_svm", svm.LinearSVC), ("ridge", linear_model.RidgeClassifier)):
        model, _ = trained(name, "binary", class_weight={"yes": 5.0})
        estimator = make(class_weight={1: 5.0}, **({"random_state": SEED} if name == "linear_svm" else {}))
        expected = estimator.fit(rows.astype(np.float64), target(rows, "binary")).decision_function(rows)
        np.testing.assert_allclose(model.margin(rows), expected, atol=1e-9)
    with pytest.raises(
        DataError,
        match=r"class_weight of ridge names 'yess', which is no class of the target. Classes: \[no, yes\]. Did you",
    ):
        trained("ridge", "binary", class_weight={"yess": 5.0})


BOOSTED: list[tuple[str, Task]] = [
    ("gradient_boosting", "binary"),
    ("gradient_boosting", "regression"),
    ("lightgbm", "binary"),
    ("lightgbm", "regression"),
    ("catboost", "binary"),
    ("catboost", "multiclass"),
    ("catboost", "regression"),
]


@pytest.mark.filterwarnings("ignore:LightGBM binary classifier with TreeExplainer:UserWarning")
@pytest.mark.parametrize(("name", "task"), BOOSTED)
def test_contributions_of_boosted_trees_are_those_of_shap(name: str, task: Task) -> None:
    """LightGBM and CatBoost are explained there by their own code."""
    import shap

    model, _ = trained(name, task, **FEW)
    (make,) = {m for n, t, m, p in ORACLES if (n, t) == (name, task) and p.get("loss") != "exponential"}
    train, rows = matrix(1), matrix(2)[:20]
    values = target(train, task)
    explainer = shap.TreeExplainer(make(**FEW).fit(train, values if task == "regression" else values.astype(int)))
    found = explainer.shap_values(rows)
    expected = np.moveaxis(found, -1, 1) if task == "multiclass" else found
    np.testing.assert_allclose(model.contributions(rows)[..., :-1], expected, atol=2e-6 * max(1.0, np.abs(found).max()))
    bias = model.contributions(rows[:1])[0, ..., -1]
    np.testing.assert_allclose(bias, np.squeeze(explainer.expected_value), atol=2e-6)


@pytest.mark.parametrize("params", [{}, {"metric": "manhattan", "weights": "distance"}, {"metric": "chebyshev"}])
def test_neighbours_among_many_features_are_those_of_scikit_learn(params: dict[str, Any]) -> None:
    """Beyond 15 features no tree is searched."""
    random = np.random.default_rng(6)
    rows, new = random.normal(size=(ROWS, 21)).astype(np.float32), random.normal(size=(50, 21)).astype(np.float32)
    values = target(rows, "regression").astype(np.float64)
    oracle = neighbors.KNeighborsRegressor(algorithm="kd_tree", **params).fit(rows.astype(np.float64), values)
    config = ModelConfig(name="k_neighbours", params=params)
    model, _, _ = fit_estimator([(rows, values)], config, rule("regression"), SEED)
    np.testing.assert_allclose(model.margin(new).ravel(), oracle.predict(new.astype(np.float64)), rtol=1e-12)


def test_more_neighbours_than_rows_are_refused_when_training() -> None:
    assert np.unique(trained("k_neighbours", "binary", n_neighbors=ROWS)[0].margin(matrix(2))).size == 1
    with pytest.raises(DataError, match="n_neighbors is 161, and there are 160 training rows; ask for fewer"):
        trained("k_neighbours", "binary", n_neighbors=ROWS + 1)


MONOTONE = [name for name, entry in CATALOGUE.items() if entry.monotone]


@pytest.mark.parametrize("name", MONOTONE)
@pytest.mark.parametrize("task", ["binary", "regression"])
def test_a_monotone_model_never_falls_where_it_is_to_rise(name: str, task: Task) -> None:
    """On targets that go up and down with the feature, where a free model does as well."""
    rows = np.random.default_rng(3).normal(size=(300, 3)).astype(np.float32)
    signal = np.sin(2.5 * rows[:, 1]) + 0.1 * rows[:, 0]
    values = (signal > 0 if task == "binary" else signal).astype(np.float64)
    steps = {}
    for direction in (0, 1, -1):
        params = {"monotone_constraints": {"b": direction}, **({} if name == "decision_tree" else FEW)}
        config = by_place(ModelConfig(name=name, params=params), ["a", "b", "c"])
        model, _, _ = fit_estimator([(rows, values)], config, rule(task), SEED)
        grid = np.repeat(rows[:20, None], 60, axis=1)
        grid[:, :, 1] = np.linspace(-2.5, 2.5, 60)
        steps[direction] = np.diff(model.margin(grid.reshape(-1, 3)).reshape(20, 60), axis=1)
    assert steps[0].min() < -1e-6 < 1e-6 < steps[0].max()
    assert steps[1].min() >= -1e-9
    assert steps[-1].max() <= 1e-9


def test_constraints_are_named_by_feature() -> None:
    assert set(MONOTONE) == {"xgboost", "lightgbm", "catboost", "random_forest", "extra_trees", "decision_tree"}
    for given, words in (
        ([1, 0], r"monotone_constraints of lightgbm is \[1, 0\]; it is a mapping from features to 1"),
        ({"a": 2}, "monotone_constraints of lightgbm is 2 for 'a'; it is 1"),
        ({"a": True}, "monotone_constraints of lightgbm is True for 'a'; it is 1"),
    ):
        with pytest.raises(RequestError, match=words):
            check_models(job({"name": "lightgbm", "params": {"monotone_constraints": given}}), "binary")
    constrained = {"monotone_constraints": {"agee": 1}}
    check_models(job({"name": "xgboost", "params": constrained}), "binary")
    with pytest.raises(DataError, match=r"there is no feature 'agee'. Features: \[id, age\]. Did you mean 'age'\?"):
        by_place(ModelConfig(name="xgboost", params=constrained), ["id", "age"])
    for name, params in (("mlp", {}), ("xgboost", {"booster": "gblinear"})):
        with pytest.raises(RequestError, match=f"parameter 'monotone_constraints' of {name} is not known to it"):
            check_models(job({"name": name, "params": {**params, **constrained}}), "binary")


def test_models_without_probabilities_are_are_judged_by_their_margins() -> None:
    for name in ("ridge", "linear_svm"):
        model, _ = trained(name, "binary")
        rows = matrix(2)
        margin, labels = 1000 * model.margin(rows), target(rows, "binary").astype(int)
        table = merge_score_tables(
            [score_table(margin[:9], labels[:9], False), score_table(margin[9:], labels[9:], False)]
        )
        found = binary_metrics(table, probabilities=False)
        assert "log_loss" not in found
        assert "brier" not in found
        # Scores between 0 and 1 would be tied where margins are large.
        assert found["auc"] == pytest.approx(metrics.roc_auc_score(labels, margin), abs=1e-12)
        assert found["average_precision"] == pytest.approx(metrics.average_precision_score(labels, margin), abs=1e-12)
        assert found["accuracy"] == metrics.accuracy_score(labels, margin > 0)
    model, _ = trained("ridge", "multiclass")
    margin, labels = 1000 * model.margin(rows), target(rows, "multiclass").astype(int)
    parts = [class_table(margin[:9], labels[:9], False), class_table(margin[9:], labels[9:], False)]
    found = multiclass_metrics(merge_class_tables(parts), probabilities=False)
    each = [metrics.roc_auc_score(labels == code, margin[:, code]) for code in range(3)]
    assert found["auc"] == pytest.approx(np.mean(each), abs=1e-12)
    assert found["accuracy"] == metrics.accuracy_score(labels, margin.argmax(axis=1))
    assert "log_loss" not in found
    assert trained("ridge", "regression")[0].has_probabilities
    with pytest.raises(DataError, match="Scores must be finite; 1 of 2 are not, the first is nan"):
        score_table(np.array([0.0, np.nan]), np.array([0, 1]), False)


def job(*models: Any, **changes: Any) -> Job:
    return Job.model_validate({"name": "j", "data": {"path": "x", "target": "y"}, "models": list(models), **changes})


@pytest.mark.parametrize(
    ("name", "params", "words"),
    [
        (
            "lightgbm",
            {"num_leave": 3},
            r"parameter 'num_leave' of lightgbm is not known to it.* Did you mean 'num_leaves'\?",
        ),
        ("lightgbm", {"n_jobs": 3}, "parameter 'n_jobs' of lightgbm is set by the engine"),
        ("lightgbm", {"boosting_type": "rf"}, r"boosting_type of lightgbm is 'rf'. Allowed: \[gbdt, dart\]"),
        ("catboost", {"dept": 3}, r"parameter 'dept' of catboost is not known to it.* Did you mean 'depth'\?"),
        ("catboost", {"task_type": "GPU"}, "parameter 'task_type' of catboost is not known to it"),
        ("gradient_boosting", {"max_dept": 3}, r"'max_dept' of gradient_boosting .* Did you mean 'max_depth'\?"),
        ("ada_boost", {"estimator": "x"}, "parameter 'estimator' of ada_boost is set by the engine"),
        ("linear_svm", {"Cc": 3}, "parameter 'Cc' of linear_svm is not known to it"),
        ("ridge", {"alhpa": 3}, r"'alhpa' of ridge is not known to it.* Did you mean 'alpha'\?"),
        ("lasso", {"l1_ratio": 3}, "parameter 'l1_ratio' of lasso is not known to it"),
        ("elastic_net", {"l1_ratoi": 3}, r"Did you mean 'l1_ratio'\?"),
        ("huber", {"epsilom": 3}, r"Did you mean 'epsilon'\?"),
        ("k_neighbours", {"n_neighbours": 3}, r"'n_neighbours' of k_neighbours .* Did you mean 'n_neighbors'\?"),
        ("k_neighbours", {"algorithm": "brute"}, "parameter 'algorithm' of k_neighbours is set by the engine"),
        (
            "k_neighbours",
            {"metric": "manhatten"},
            r"metric of k_neighbours is 'manhatten'.* Did you mean 'manhattan'\?",
        ),
        ("mlp", {"hidden_layers": [3]}, r"Did you mean 'hidden_layer_sizes'\?"),
        ("dummy", {"strategy": "uniform"}, r"strategy of dummy is 'uniform'. Allowed: \[prior, most_frequent, mean"),
    ],
)
def test_mistakes_in_params_are_told_before_anything_runs(name: str, params: dict[str, Any], words: str) -> None:
    tasks = [None, *sorted(CATALOGUE[name].tasks)]
    for task in tasks:
        with pytest.raises(RequestError, match=words):
            check_models(job({"name": name, "params": params}), task)


def test_params_of_either_task_pass_until_the_task_is_known() -> None:
    check_models(job({"name": "mlp", "params": {"loss": "poisson"}}), None)
    check_models(job({"name": "mlp", "params": {"loss": "poisson"}}), "regression")
    with pytest.raises(RequestError, match="parameter 'loss' of mlp is not known to it"):
        check_models(job({"name": "mlp", "params": {"loss": "poisson"}}), "binary")
    check_models(job({"name": "ridge", "params": {"class_weight": "balanced"}}), "binary")
    with pytest.raises(RequestError, match="parameter 'class_weight' of ridge is not known to it"):
        check_models(job({"name": "ridge", "params": {"class_weight": "balanced"}}), "regression")


def test_a_metric_that_no_model_can_have_is_refused() -> None:
    words = (
        r"metric: 'log_loss' needs probabilities, and none of the models gives them \(\[ridge, linear_svm\]\). Choose"
    )
    for changes, task in (({"metric": "log_loss"}, "binary"), ({}, "multiclass")):
        with pytest.raises(RequestError, match=words):
            check_models(job("ridge", "linear_svm", **changes), task)  # type: ignore[arg-type]
        check_models(job("ridge", "linear_svm", "dummy", **changes), task)  # type: ignore[arg-type]
    check_models(job("ridge"), "regression")
    check_models(job("ridge", metric="accuracy"), "multiclass")


@pytest.mark.parametrize("name", ["lightgbm", "catboost"])
def test_a_library_that_is_not_installed_is_named_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    version = importlib.metadata.version

    def without(library: str) -> str:
        if library == name:
            raise importlib.metadata.PackageNotFoundError(library)
        return version(library)

    monkeypatch.setattr("treadle.engine.models.catalogue.version_of", without)
    with pytest.raises(RequestError, match=rf"{name} is not installed, .*pip install 'treadle\[boosters\]', or leave"):
        check_models(job(name), "binary")
    check_models(job("xgboost", "mlp"), "binary")


def test_the_leaderboard_of_the_reference(shared_data: Path) -> None:
    """Mean metrics over its ten folds, in the columns of its protocol; AUC is 0 there without probabilities."""
    import json

    reference = json.loads((shared_data / "reference.json").read_text())["leaderboard_diabetes"]
    split = json.loads((shared_data / reference["split_file"]).read_text())
    frame = pd.read_csv(shared_data / "diabetes" / "diabetes.csv")
    times = frame.pop("Number of times pregnant").astype(str)
    labels = frame.pop("Class variable").to_numpy(np.float64)
    levels = sorted(times.unique())
    rows = np.c_[frame.to_numpy(), np.stack([times == level for level in levels], axis=1)].astype(np.float32)
    train, fold = np.array(split["train"]), np.array(split["fold"])
    names = {"Ridge Classifier": "ridge", "K Neighbors Classifier": "k_neighbours"}
    ours = ["accuracy", "recall", "precision", "f1", "kappa", "auc"]
    for title, name in names.items():
        found = []
        for number in range(10):
            kept, held = train[fold != number], train[fold == number]
            model, _, _ = fit_estimator([(rows[kept], labels[kept])], ModelConfig(name=name), rule("binary"), 123)
            margin, actual = model.margin(rows[held]), labels[held].astype(int)
            sure = model.has_probabilities
            table = score_table(model.scores(margin) if sure else margin, actual, sure)
            values = binary_metrics(table, probabilities=sure)
            found.append([values[metric] for metric in ours])
        expected = [
            reference["models"][title]["recomputed"][key] for key in ("Accuracy", "Recall", "Prec.", "F1", "Kappa")
        ]
        np.testing.assert_allclose(np.mean(found, axis=0)[:5], expected, atol=1e-6, err_msg=name)
        if sure:
            assert np.mean(found, axis=0)[5] == pytest.approx(reference["models"][title]["recomputed"]["AUC"], abs=1e-6)
