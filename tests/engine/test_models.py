"""Models against the libraries that trained them: margins, contributions, files, and refusals of damaged ones."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shap
import xgboost
from numpy.typing import NDArray
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from treadle.engine.models.base import Model, load_model, save_model
from treadle.engine.models.boosted import OBJECTIVES, native_params, quiet, train_booster
from treadle.engine.models.booster import BoosterModel, model_of_booster
from treadle.engine.models.forest import ForestModel
from treadle.engine.models.gaussian import GaussianModel
from treadle.engine.models.linear import LinearModel
from treadle.engine.store import Store
from treadle.errors import DataError, StorageError

Matrix = NDArray[np.float32]
ROWS, FEATURES = 200, 5


def matrix_of(step: float, seed: int, nulls: float = 0.0) -> Matrix:
    """Values on a grid: a tree trained on one grid has its thresholds on the grid of half the step."""
    rng = np.random.default_rng(seed)
    matrix = (np.round(rng.normal(size=(ROWS, FEATURES)) * 2 / step) * step).astype(np.float32)
    matrix[rng.random(matrix.shape) < nulls] = np.nan
    return matrix


def target_of(matrix: Matrix, task: str) -> NDArray[Any]:
    x = np.nan_to_num(matrix)
    if task == "binary":
        return (x[:, 0] + x[:, 1] > 0).astype(np.int64)
    if task == "multiclass":
        return np.clip(np.round(x[:, 0] + x[:, 2]), -1, 1).astype(np.int64) + 1
    return 3.0 * x[:, 0] + x[:, 1] ** 2 - 20.0


FORESTS: list[tuple[str, Any]] = [
    ("binary", RandomForestClassifier(10, random_state=0, class_weight="balanced")),
    ("multiclass", RandomForestClassifier(10, random_state=0)),
    ("regression", RandomForestRegressor(10, random_state=0)),
    ("binary", ExtraTreesClassifier(10, random_state=0, max_depth=5)),
    ("multiclass", ExtraTreesClassifier(10, random_state=0, bootstrap=True)),
    ("regression", ExtraTreesRegressor(10, random_state=0)),
    ("binary", DecisionTreeClassifier(max_depth=None, random_state=0)),
    ("multiclass", DecisionTreeClassifier(max_depth=1, random_state=0)),
    ("regression", DecisionTreeRegressor(random_state=0, criterion="absolute_error", max_depth=4)),
    ("binary", DecisionTreeClassifier(min_samples_leaf=ROWS)),
]
IDS = [f"{type(estimator).__name__}-{task}-{i}" for i, (task, estimator) in enumerate(FORESTS)]


@pytest.mark.parametrize(("task", "estimator"), FORESTS, ids=IDS)
@pytest.mark.parametrize("nulls", [0.0, 0.15])
def test_forests_agree_with_scikit_learn_on_their_thresholds(task: Any, estimator: Any, nulls: float) -> None:
    train = matrix_of(1.0, 1, nulls)
    estimator = type(estimator)(**estimator.get_params()).fit(train, target_of(train, task))
    model = ForestModel.of(task, estimator)
    rows = np.concatenate([train, matrix_of(0.5, 2, nulls)])
    found = model.margin(rows)
    expected = estimator.predict(rows) if task == "regression" else estimator.predict_proba(rows)
    expected = expected[:, 1] if task == "binary" else expected
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    assert found.dtype == np.float64
    if task != "regression":
        ranked = np.sort(
            np.reshape(expected, (len(rows), -1)) if task == "multiclass" else np.c_[expected, 1 - expected]
        )
        firm = ranked[:, -1] - ranked[:, -2] > 1e-5
        assert (model.classes(model.scores(found)) == estimator.predict(rows))[firm].all()
    contributions = model.contributions(rows)
    np.testing.assert_allclose(contributions.sum(axis=-1), found, atol=5e-7 * max(1.0, np.abs(found).max()))
    if not nulls:
        explainer = shap.TreeExplainer(estimator)
        few = rows[::20]
        theirs = explainer.shap_values(few)
        theirs = theirs[..., 1] if task == "binary" else np.moveaxis(theirs, -1, 1) if task == "multiclass" else theirs
        np.testing.assert_allclose(model.contributions(few)[..., :-1], theirs, rtol=1e-6, atol=2e-6)
        bias = np.atleast_1d(explainer.expected_value)[1:2] if task == "binary" else explainer.expected_value
        np.testing.assert_allclose(contributions[0, ..., -1], np.squeeze(bias), rtol=1e-6, atol=1e-6)


def test_a_threshold_between_two_floats_of_32_bits_parts_them() -> None:
    low = np.float32(1000.1)  # scikit-learn does not part what is nearer than 1e-7
    high = np.nextafter(low, np.float32(2000))
    for pair in ((low, high), (-high, -low), (np.float32(-1), np.float32(1)), (np.float32(-3e38), np.float32(3e38))):
        train = np.array([[value] for value in pair], dtype=np.float32)
        model = ForestModel.of("binary", DecisionTreeClassifier().fit(train, [0, 1]))
        assert model.margin(train).tolist() == [0.0, 1.0], pair
    zero = ForestModel.of("binary", DecisionTreeClassifier().fit(np.array([[-1.0], [1.0]], np.float32), [0, 1]))
    assert zero.margin(np.array([[0.0], [-0.0], [1e-30]], dtype=np.float32)).tolist() == [0.0, 0.0, 1.0]


def booster_on(task: Any, train: Matrix) -> Any:
    params = {"objective": OBJECTIVES[task], "max_depth": 3, "nthread": 1, "tree_method": "hist"}
    params |= {"num_class": 3} if task == "multiclass" else {}
    data = xgboost.DMatrix(train, label=target_of(train, task))
    return xgboost.train(params, data, 6)


def linear_on(task: Any, train: Matrix) -> tuple[LinearModel, Any]:
    estimator = LinearRegression() if task == "regression" else LogisticRegression(max_iter=500)
    estimator.fit(train.astype(np.float64), target_of(train, task))
    link: Any = {"binary": "logistic", "multiclass": "softmax", "regression": "identity"}[task]
    return LinearModel(
        task, link, estimator.coef_, estimator.intercept_, train.mean(axis=0, dtype=np.float64)
    ), estimator


TASKS = ["binary", "multiclass", "regression"]


@pytest.mark.parametrize("task", TASKS)
def test_boosted_models_agree_with_xgboost(task: Any) -> None:
    train, rows = matrix_of(1.0, 1, 0.1), matrix_of(0.5, 2, 0.1)
    booster = booster_on(task, train)
    model = ForestModel.of_booster(task, booster)
    data = xgboost.DMatrix(rows)
    np.testing.assert_allclose(model.margin(rows), booster.predict(data, output_margin=True), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(model.scores(model.margin(rows)), booster.predict(data), rtol=1e-5)
    found, expected = model.contributions(rows), booster.predict(data, pred_contribs=True)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    np.testing.assert_allclose(model.contributions(rows).sum(axis=-1), model.margin(rows), atol=1e-5)


def brute_force(model: Model, row: Matrix, background: Matrix) -> NDArray[np.float64]:
    """Shapley values by their definition, absent features taken from the background and averaged."""
    outputs = np.atleast_2d(model.margin(row[None])).shape[1]

    def value(present: tuple[int, ...]) -> NDArray[np.float64]:
        mixed = background.copy()
        mixed[:, list(present)] = row[list(present)]
        return np.reshape(model.margin(mixed), (len(mixed), outputs)).mean(axis=0)

    phi = np.zeros((outputs, FEATURES))
    orders = list(itertools.permutations(range(FEATURES)))
    for order in orders:
        for i, feature in enumerate(order):
            phi[:, feature] += value(order[: i + 1]) - value(order[:i])
    return phi / len(orders)


@pytest.mark.parametrize("task", TASKS)
def test_linear_models_agree_with_scikit_learn_and_the_definition_of_shapley_values(task: Any) -> None:
    train, rows = matrix_of(1.0, 1), matrix_of(0.5, 2)
    model, estimator = linear_on(task, train)
    margin = model.margin(rows)
    decided = estimator.predict(rows) if task == "regression" else estimator.decision_function(rows)
    np.testing.assert_allclose(margin, decided, rtol=1e-6, atol=1e-6)
    if task != "regression":
        scores = estimator.predict_proba(rows)
        np.testing.assert_allclose(model.scores(margin), scores[:, 1] if task == "binary" else scores, atol=1e-6)
        assert (model.classes(model.scores(margin)) == estimator.predict(rows)).all()
    contributions = model.contributions(rows)
    np.testing.assert_allclose(contributions.sum(axis=-1), margin, atol=1e-12)
    expected = brute_force(model, rows[0], train[:40])
    model.means = train[:40].mean(axis=0, dtype=np.float64)
    found = model.contributions(rows[:1])[0]
    np.testing.assert_allclose(np.atleast_2d(found)[:, :-1], expected, atol=1e-6)


def test_extreme_margins_are_certain_and_raise_nothing() -> None:
    model = LinearModel("binary", "logistic", np.array([1.0]), np.array([0.0]), np.array([0.0]))
    margins = model.margin(np.array([[-1e4], [-40.0], [0.0], [1e4]], dtype=np.float32))
    np.testing.assert_allclose(model.scores(margins), [0.0, np.exp(-40.0), 0.5, 1.0], rtol=1e-12)
    softmax = LinearModel("multiclass", "softmax", np.eye(3), np.zeros(3), np.zeros(3))
    assert softmax.scores(np.array([[1e4, -1e4, 0.0]])).tolist() == [[1.0, 0.0, 0.0]]


def test_a_linear_model_refuses_nulls() -> None:
    model, _ = linear_on("binary", matrix_of(1.0, 1))
    with pytest.raises(DataError, match="2 rows have nulls, which a linear model cannot predict from; fill them"):
        model.margin(np.array([[0, 0, 0, 0, np.nan], [1] * 5, [np.nan] * 5], dtype=np.float32))


GAUSSIAN = {"qda": QuadraticDiscriminantAnalysis(reg_param=0.1), "naive bayes": GaussianNB()}


def gaussian_on(task: Any, train: Matrix, estimator: Any) -> GaussianModel:
    """Of a fitted estimator's own axes and variances."""
    wide = train.astype(np.float64)
    fitted = estimator.fit(wide, target_of(train, task))
    if isinstance(estimator, GaussianNB):
        factor = 1 / np.sqrt(fitted.var_)
        constant = np.log(fitted.class_prior_) - 0.5 * np.log(fitted.var_).sum(axis=1)
        return GaussianModel.of(task, fitted.theta_, factor, constant, wide.mean(axis=0), wide.var(axis=0))
    factor = np.stack([(r / np.sqrt(s)).T for r, s in zip(fitted.rotations_, fitted.scalings_, strict=True)])
    constant = np.log(fitted.priors_) - 0.5 * np.array([np.log(s).sum() for s in fitted.scalings_])
    covariance = np.cov(wide.T, bias=True)
    return GaussianModel.of(task, fitted.means_, factor, constant, wide.mean(axis=0), covariance)


@pytest.mark.parametrize("task", ["binary", "multiclass"])
@pytest.mark.parametrize("kind", GAUSSIAN)
def test_gaussian_classes_agree_with_scikit_learn_and_the_definition_of_shapley_values(task: Any, kind: str) -> None:
    train, rows = matrix_of(1.0, 1), matrix_of(0.5, 2)
    train[:, 3] = np.round(train[:, 0] + train[:, 3])  # correlated, which only pairs of features can tell
    train[:, 4] *= 1000
    rows[:, 4] *= 1000
    estimator = GAUSSIAN[kind]
    model = gaussian_on(task, train, estimator)
    margin, scores = model.margin(rows), estimator.predict_proba(rows.astype(np.float64))
    np.testing.assert_allclose(model.scores(margin), scores[:, 1] if task == "binary" else scores, atol=1e-9)
    assert (model.classes(model.scores(margin)) == estimator.predict(rows.astype(np.float64))).all()
    contributions = model.contributions(rows)
    np.testing.assert_allclose(contributions.sum(axis=-1), margin, rtol=1e-9, atol=1e-9)
    few = train[:40]
    model = gaussian_on(task, train, estimator)
    wide = few.astype(np.float64)
    spread = wide.var(axis=0) if kind == "naive bayes" else np.cov(wide.T, bias=True)
    model = GaussianModel.of(task, model.mean, model.factor, model.constant, wide.mean(axis=0), spread)
    for row in rows[:2]:
        found = np.atleast_2d(model.contributions(row[None])[0])
        expected = brute_force(model, row, few)
        np.testing.assert_allclose(found[:, :-1], expected, rtol=1e-8, atol=1e-8)
        bias = np.reshape(model.margin(few), (len(few), -1)).mean(axis=0)
        np.testing.assert_allclose(found[:, -1], bias, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", GAUSSIAN)
def test_margins_of_gaussian_classes_do_not_depend_on_the_rows_beside(kind: str) -> None:
    model, rows = gaussian_on("binary", matrix_of(1.0, 1), GAUSSIAN[kind]), matrix_of(0.5, 2)
    whole = model.margin(rows)
    for size in (1, 3, 4, 5, 8, 100):
        np.testing.assert_array_equal(model.margin(rows[-size:]), whole[-size:])
    # As a block leaves its rows: every second one of another matrix.
    np.testing.assert_array_equal(model.margin(rows[::2]), whole[::2])
    rows[3, 1] = np.nan
    with pytest.raises(DataError, match="1 rows have nulls, which a Gaussian model cannot predict from; fill them"):
        model.margin(rows)


def linear_booster_on(task: Any, train: Matrix, **params: Any) -> BoosterModel:
    rounds, native = native_params({"booster": "gblinear", "n_estimators": 40, **params}, task, 3, 0)
    with quiet():
        raw = train_booster(train, target_of(train, task), native, rounds)
    model, said = model_of_booster(task, raw)
    assert said == ["its booster is 'gblinear', which has no trees; its own explainer is used"]
    assert isinstance(model, BoosterModel)
    return model


@pytest.mark.parametrize("task", TASKS)
def test_a_linear_booster_contributes_its_coefficients_times_the_values(task: Any) -> None:
    """Held against the coefficients that XGBoost writes down, and its margin of a row without values."""
    train, rows = matrix_of(1.0, 1, 0.1), matrix_of(0.5, 2, 0.1)
    model = linear_booster_on(task, train)
    with quiet():
        dump = json.loads(model.booster.get_dump(dump_format="json")[0])
        bias = model.booster.predict(xgboost.DMatrix(np.full((1, FEATURES), np.nan)), output_margin=True)
    weights = np.reshape(dump["weight"], (FEATURES, model.outputs)).T
    expected = np.nan_to_num(rows).astype(np.float64)[:, None, :] * weights
    found = np.reshape(model.contributions(rows), (ROWS, model.outputs, FEATURES + 1))
    np.testing.assert_allclose(found[..., :-1], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[..., -1], np.broadcast_to(bias, found.shape[:2]), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(model.contributions(rows).sum(axis=-1), model.margin(rows), atol=1e-5)
    assert (model.margin(rows).dtype, model.contributions(rows).dtype) == (np.float64, np.float64)
    assert "gblinear: linear, coefficient times value" in model.method
    parted = np.concatenate([model.margin(rows[:7]), model.margin(rows[7:8]), model.margin(rows[8:])])
    np.testing.assert_array_equal(parted, model.margin(rows))


@pytest.mark.parametrize("task", TASKS)
def test_margins_of_a_linear_model_do_not_depend_on_the_rows_beside(task: Any) -> None:
    rng = np.random.default_rng(4)
    train = rng.normal(size=(300, 37)).astype(np.float32)
    model, _ = linear_on(task, train)
    rows = rng.normal(size=(9001, 37)).astype(np.float32)
    whole = model.margin(rows)
    np.testing.assert_allclose(
        whole, np.squeeze(rows.astype(np.float64) @ model.coefficients.T + model.intercept), rtol=1e-10, atol=1e-10
    )
    for size in (1, 3, 4, 5, 8, 4096, 5000):
        np.testing.assert_array_equal(model.margin(rows[-size:]), whole[-size:])


@pytest.mark.slow
def test_what_loads_a_linear_booster_does_without_the_kernels(tmp_path: Path) -> None:
    save_model(linear_booster_on("binary", matrix_of(1.0, 1)), Store(str(tmp_path)), "m")
    code = (
        "import sys; from treadle.engine.models.base import load_model; from treadle.engine.store import Store\n"
        f"import numpy; rows = numpy.ones((1, {FEATURES}), 'f4')\n"
        f"print(load_model(Store({str(tmp_path)!r}), 'm').margin(rows).shape)\n"
        "print([name for name in sys.modules if name.startswith('treadle.kernels') or name == 'numba'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "(1,)\n[]\n"
    assert done.stderr == ""


def model_of(family: str, task: Any) -> Model:
    train = matrix_of(1.0, 3)
    if family == "linear booster":
        return linear_booster_on(task, train)
    if family == "forest":
        estimator = DecisionTreeRegressor() if task == "regression" else DecisionTreeClassifier()
        return ForestModel.of(task, estimator.fit(train, target_of(train, task)))
    if family == "boosted":
        return ForestModel.of_booster(task, booster_on(task, train))
    if family in GAUSSIAN:
        return gaussian_on(task, train, GAUSSIAN[family])
    return linear_on(task, train)[0]


CASES = [
    *itertools.product(["boosted", "forest", "linear", "linear booster"], TASKS),
    *itertools.product(["qda", "naive bayes"], ["binary", "multiclass"]),
]


@pytest.mark.parametrize(("family", "task"), CASES)
def test_a_saved_model_is_the_same_model(tmp_path: Path, family: str, task: Any) -> None:
    store, rows = Store(str(tmp_path)), matrix_of(0.5, 2)
    model = model_of(family, task)
    save_model(model, store, "m")
    again = load_model(store, "m")
    assert (again.task, again.link, again.features, again.outputs) == (task, model.link, FEATURES, model.outputs)
    assert model.outputs == (3 if task == "multiclass" else 1)
    np.testing.assert_array_equal(again.margin(rows), model.margin(rows))
    np.testing.assert_array_equal(again.contributions(rows), model.contributions(rows))
    assert again.method == model.method


@pytest.mark.parametrize(("family", "task"), CASES)
def test_no_rows_have_the_shapes_of_many(family: str, task: Any) -> None:
    model, rows = model_of(family, task), matrix_of(1.0, 3)
    none = rows[:0]
    assert model.margin(none).shape == (0, *model.margin(rows).shape[1:])
    assert model.contributions(none).shape == (0, *model.contributions(rows).shape[1:])
    scores = model.scores(model.margin(none))
    assert scores.shape == (0, *model.scores(model.margin(rows)).shape[1:])
    assert model.classes(scores).shape == (0,)
    assert model.margin(rows[:1]).shape[0] == 1


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("boosted", "model.arrow"),
        ("forest", "model.arrow"),
        ("linear booster", "model.ubj"),
        ("qda", "model.arrow"),
    ],
)
@pytest.mark.parametrize("damage", ["cut", "bit", "empty"])
def test_a_damaged_model_is_refused_and_never_parsed(tmp_path: Path, family: str, name: str, damage: str) -> None:
    store = Store(str(tmp_path))
    save_model(model_of(family, "binary"), store, "m")
    path = tmp_path / "m" / name
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 4
    path.write_bytes({"cut": bytes(raw[:100]), "bit": bytes(raw), "empty": b""}[damage])
    with pytest.raises(StorageError, match=rf"m/{name} is no readable model: it is damaged. Run the job again"):
        load_model(store, "m")


def test_what_is_no_model_is_refused_in_words(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with pytest.raises(StorageError, match=r"m/model.json cannot be found"):
        load_model(store, "m")
    save_model(model_of("linear", "binary"), store, "m")
    path = tmp_path / "m" / "model.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "format": "onnx"}))
    with pytest.raises(StorageError, match=r"m/model.json is no model that this Treadle reads: KeyError\('onnx'\)"):
        load_model(store, "m")
    path.write_text(path.read_text()[:50])
    with pytest.raises(StorageError, match=r"m/model.json is damaged: .* Run again with --fresh"):
        load_model(store, "m")


def test_a_model_that_is_written_again_is_read_again(tmp_path: Path) -> None:
    store, rows = Store(str(tmp_path)), matrix_of(0.5, 2)
    for task in ("binary", "regression"):
        save_model(model_of("forest", task), store, "m")
        assert load_model(store, "m").task == task
    assert load_model(store, "m") is load_model(store, "m")
    assert load_model(store, "m").margin(rows).min() < -1
