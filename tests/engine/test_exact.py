"""Models that are trained on all rows where they lie, against scikit-learn's, fitted on all rows at once."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from distributed import Client
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, RidgeClassifier
from sklearn.naive_bayes import GaussianNB

from treadle.engine.exact import logistic
from treadle.engine.exact.fit import fit, kinds_of
from treadle.engine.job import Model as ModelConfig
from treadle.engine.models.base import Model, Task
from treadle.engine.models.linear import LinearModel
from treadle.engine.passes import OverRows, Passes, Rows
from treadle.errors import DataError
from treadle.kernels.scatter import KINDS

Array = NDArray[Any]
ROWS = 700
PARTITIONS = [1, 4, 16]
CLASSES = {"binary": ("no", "yes"), "multiclass": ("a", "b", "c"), "regression": ()}
INF = float("inf")


class Data:
    """Seven features: four that are plain, one that is twice another, a constant, and two of other sizes."""

    def __init__(self, seed: int = 1, large: float = 1e2, small: float = 1e-2) -> None:
        rng = np.random.default_rng(seed)
        plain = rng.normal(size=(ROWS, 5)) * [1, 1, 1, large, small]
        constant = np.full((ROWS, 1), 3.0)
        self.matrix = np.c_[plain, 2 * plain[:, :1].astype(np.float32), constant].astype(np.float32)
        signal = plain @ (np.array([1.0, -0.7, 0.3, 0.5, 0.8]) / [1, 1, 1, large, small])
        noisy = signal + rng.logistic(size=ROWS)
        self.targets = {
            "binary": (noisy > 0.8).astype(np.float64),
            "multiclass": np.digitize(noisy, [-1, 1]).astype(np.float64),
            "regression": signal + rng.normal(size=ROWS) + 10.0,
        }
        self.weight = rng.random(ROWS) + 0.1

    @property
    def wide(self) -> Array:
        return self.matrix.astype(np.float64)

    def passes(self, task: Task, partitions: int, weight: Array | None = None, sort: bool = False) -> OverRows:
        """Parts of unequal size; in some of them classes are missing when rows are sorted by their targets."""
        order = np.argsort(self.targets[task], kind="stable") if sort else np.arange(ROWS)
        cuts = np.sort(np.random.default_rng(partitions).choice(np.arange(1, ROWS), partitions - 1, replace=False))
        return OverRows([Rows(self.matrix, self.targets[task], part, weight) for part in np.split(order, cuts)])


DATA = Data()


def trained(name: str, task: Task, passes: Passes, **params: Any) -> tuple[Any, list[str]]:
    model, said = fit(ModelConfig(name=name, params=params), task, CLASSES[task], passes)
    return model, said


def theirs(estimator: Any, data: Data, task: Task, **fitting: Any) -> Any:
    target = data.targets[task]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return estimator.fit(data.wide, target if task == "regression" else target.astype(int), **fitting)


def assert_close(found: Array, expected: Array, relative: float = 1e-6) -> None:
    """As near as that share of the largest value."""
    np.testing.assert_allclose(found, np.reshape(expected, found.shape), rtol=0, atol=relative * np.abs(expected).max())


def scores_of(estimator: Any, task: Task, wide: Array) -> Array:
    scores = estimator.predict_proba(wide)
    return scores[:, 1] if task == "binary" else scores


@pytest.mark.parametrize("partitions", PARTITIONS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("intercept", [False, True])
def test_regressions_have_scikit_learns_coefficients(partitions: int, weighted: bool, intercept: bool) -> None:
    weight = DATA.weight if weighted else None
    passes = DATA.passes("regression", partitions, weight)
    for name, params, estimator in [
        ("linear_regression", {}, LinearRegression(fit_intercept=intercept)),
        ("ridge", {"alpha": 3.0}, Ridge(3.0, fit_intercept=intercept)),
        ("ridge", {"alpha": 0.0}, LinearRegression(fit_intercept=intercept, tol=1e-9)),
    ]:
        model, said = trained(name, "regression", passes, fit_intercept=intercept, **params)
        expected = theirs(estimator, DATA, "regression", sample_weight=weight)
        size = DATA.wide.std(axis=0) + 1
        assert_close(model.coefficients * size, expected.coef_ * size)
        assert_close(model.margin(DATA.matrix), expected.predict(DATA.wide), 1e-9)
        assert said == []
        np.testing.assert_allclose(model.means, np.average(DATA.wide, axis=0, weights=weight), rtol=1e-9, atol=1e-9)


def test_columns_that_differ_by_less_than_squares_can_tell_are_told_apart() -> None:
    """By 1e-5 of their size, which has an effect of its own: 1e-10 in sums of squares, of which 6 digits are left."""
    data = Data()
    rng = np.random.default_rng(3)
    apart = rng.normal(size=ROWS)
    data.matrix[:, 5] = data.matrix[:, 0] + 1e-5 * apart
    data.targets["regression"] = data.targets["regression"] + 5.0 * apart
    model, _ = trained("linear_regression", "regression", data.passes("regression", 4), tol=1e-9)
    expected = theirs(LinearRegression(tol=1e-9), data, "regression")
    assert_close(model.margin(data.matrix), expected.predict(data.wide), 1e-7)
    assert_close(model.coefficients, expected.coef_)


def test_features_of_very_different_sizes() -> None:
    data = Data(large=1e6, small=1e-6)
    passes = data.passes("regression", 4)
    for params in ({}, {"tol": 1e-14}):
        model, said = trained("linear_regression", "regression", passes, **params)
        assert_close(
            model.margin(data.matrix), theirs(LinearRegression(**params), data, "regression").predict(data.wide)
        )
        assert (said == []) == bool(params)
    # What scikit-learn leaves out by default is said.
    _, said = trained("linear_regression", "regression", passes)
    assert said[0].endswith(
        "so small beside others that tol (1e-06) leaves them out; add {op: scale} to features, or lower tol"
    )
    model, _ = trained("ridge", "regression", passes)
    assert_close(model.margin(data.matrix), theirs(Ridge(), data, "regression").predict(data.wide))
    for task in ("binary", "multiclass"):
        expected = theirs(LinearDiscriminantAnalysis(), data, task)
        model, _ = trained("lda", task, data.passes(task, 4))
        assert_close(model.margin(data.matrix), expected.decision_function(data.wide))
        model, said = trained("logistic_regression", task, data.passes(task, 4))
        # scikit-learn's solvers stop short here, so its optimum is held against the definition of one.
        assert said == []
        slope = slope_of(model, data, task, 1.0)
        assert np.abs(slope / np.sqrt((data.wide**2).mean(axis=0))).max() < 1e-8 * ROWS


def slope_of(model: LinearModel, data: Data, task: Task, strength: float) -> Array:
    """The gradient of what logistic regression minimises, (outputs, features)."""
    codes = data.targets[task].astype(int)
    scores = model.scores(model.margin(data.matrix))
    wrong = (scores - codes)[:, None] if task == "binary" else scores - np.eye(3)[codes]
    return wrong.T @ data.wide + strength * model.coefficients


@pytest.mark.parametrize("partitions", PARTITIONS)
@pytest.mark.parametrize("task", ["binary", "multiclass"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("class_weight", [None, "balanced", "by class"])
def test_penalised_classifiers_have_scikit_learns_coefficients(
    partitions: int, task: Any, weighted: bool, class_weight: str | None
) -> None:
    weight = DATA.weight if weighted else None
    passes = DATA.passes(task, partitions, weight, sort=True)
    last = CLASSES[task][-1]
    ours: Any = {last: 3.0} if class_weight == "by class" else class_weight
    their_weight: Any = {len(CLASSES[task]) - 1: 3.0} if class_weight == "by class" else class_weight
    for intercept, strength in [(True, 1.0), (True, 50.0), (False, 0.1)]:
        estimator = LogisticRegression(
            C=strength, fit_intercept=intercept, class_weight=their_weight, solver="newton-cholesky", tol=1e-12
        )
        expected = theirs(estimator, DATA, task, sample_weight=weight)
        model, said = trained(
            "logistic_regression", task, passes, C=strength, fit_intercept=intercept, class_weight=ours
        )
        assert_close(model.coefficients, expected.coef_)
        assert_close(model.intercept, expected.intercept_ + np.zeros(len(model.intercept)), 1e-6)
        assert_close(model.scores(model.margin(DATA.matrix)), scores_of(expected, task, DATA.wide))
        assert said == []
    if not (weighted and class_weight == "balanced"):  # RidgeClassifier balances without looking at weights
        expected = theirs(RidgeClassifier(2.0, class_weight=their_weight), DATA, task, sample_weight=weight)
        model, _ = trained("ridge", task, passes, alpha=2.0, class_weight=ours)
        assert_close(model.coefficients, expected.coef_)
        assert_close(model.margin(DATA.matrix), expected.decision_function(DATA.wide))


@pytest.mark.parametrize("task", ["binary", "multiclass"])
@pytest.mark.parametrize("free", [{"C": INF}, {"C": None}, {"penalty": None}])
def test_logistic_regression_without_a_penalty(task: Any, free: dict[str, Any]) -> None:
    """Features that are collinear do not change the probabilities; scikit-learn is given those that are not."""
    expected = LogisticRegression(C=INF, solver="newton-cholesky", tol=1e-12)
    plain = DATA.wide[:, :5] / DATA.wide[:, :5].std(axis=0)
    expected.fit(plain, DATA.targets[task])
    for partitions in PARTITIONS:
        model, said = trained("logistic_regression", task, DATA.passes(task, partitions, sort=True), **free)
        assert_close(model.scores(model.margin(DATA.matrix)), scores_of(expected, task, plain))
        assert said == []


@pytest.mark.parametrize("task", ["binary", "multiclass"])
@pytest.mark.parametrize("strength", [1.0, INF])
def test_many_coefficients_are_found_without_a_hessian(
    task: Any, strength: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = DATA.passes(task, 4)
    newton, _ = trained("logistic_regression", task, passes, C=strength, class_weight="balanced")
    monkeypatch.setattr(logistic, "LARGEST_HESSIAN", 0)
    monkeypatch.setattr(logistic, "solve_semidefinite", None)
    model, said = trained("logistic_regression", task, passes, C=strength, class_weight="balanced")
    assert said == []
    assert_close(model.scores(model.margin(DATA.matrix)), newton.scores(newton.margin(DATA.matrix)))
    if strength == 1.0:
        assert_close(model.coefficients, newton.coefficients)
    monkeypatch.setattr(logistic, "LBFGS_STEPS", 2)
    _, said = trained("logistic_regression", task, passes, C=strength, max_iter=1)
    assert said[0].startswith("not converged after 2 steps of L-BFGS (2 * max_iter): the next step would lower")


def test_what_does_not_converge_is_said() -> None:
    passes = DATA.passes("binary", 4)
    _, said = trained("logistic_regression", "binary", passes, max_iter=1)
    assert said[0].startswith(
        "not converged after 1 Newton steps (max_iter): the next step would lower the mean loss by"
    )


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_classes_that_are_told_apart_without_an_error(task: Any) -> None:
    data = Data()
    data.targets[task] = np.digitize(data.matrix[:, 0], [0.0] if task == "binary" else [-0.5, 0.5]).astype(float)
    for free in ({"C": INF}, {"penalty": None}):
        model, said = trained("logistic_regression", task, data.passes(task, 4), **free)
        assert np.isfinite(model.coefficients).all()
        assert (model.classes(model.scores(model.margin(data.matrix))) == data.targets[task]).all()
        assert len(said) == 1
        assert "have no finite optimum and are as far as tol let them grow; set C" in said[0]
    model, said = trained("logistic_regression", task, data.passes(task, 4))
    assert said == []
    expected = theirs(LogisticRegression(solver="newton-cholesky", tol=1e-12), data, task)
    assert_close(model.coefficients, expected.coef_)


@pytest.mark.parametrize("partitions", PARTITIONS)
@pytest.mark.parametrize("task", ["binary", "multiclass"])
@pytest.mark.parametrize("priors", [False, True])
def test_discriminants_and_naive_bayes_decide_as_scikit_learn(partitions: int, task: Any, priors: bool) -> None:
    passes = DATA.passes(task, partitions, sort=True)
    given: Any = [[0.3, 0.7], [0.2, 0.5, 0.3]][task == "multiclass"] if priors else None
    for params in [
        {},
        {"solver": "lsqr"},
        {"solver": "lsqr", "shrinkage": 0.2},
        {"solver": "eigen", "shrinkage": 0.4},
    ]:
        model, _ = trained("lda", task, passes, priors=given, **params)
        expected = theirs(LinearDiscriminantAnalysis(priors=given, **params), DATA, task)
        assert_close(model.margin(DATA.matrix), expected.decision_function(DATA.wide))
        assert_close(model.scores(model.margin(DATA.matrix)), scores_of(expected, task, DATA.wide))
    for params in [{"reg_param": 0.1}, {"solver": "eigen", "shrinkage": 0.1}]:
        model, _ = trained("qda", task, passes, priors=given, **params)
        expected = theirs(QuadraticDiscriminantAnalysis(priors=given, **params), DATA, task)
        assert_close(model.margin(DATA.matrix), expected.decision_function(DATA.wide))
        assert_close(model.scores(model.margin(DATA.matrix)), scores_of(expected, task, DATA.wide))
    for smoothing in (1e-9, 1e-3):
        model, _ = trained("naive_bayes", task, passes, priors=given, var_smoothing=smoothing)
        expected = theirs(GaussianNB(priors=given, var_smoothing=smoothing), DATA, task)
        assert_close(model.scores(model.margin(DATA.matrix)), scores_of(expected, task, DATA.wide))


def test_classes_that_are_numbers_or_truths_are_named_as_yaml_has_them() -> None:
    for classes, weights in [
        ((0, 1), {0: 2, 1: 5}),
        ((False, True), {False: 2, True: 5}),
        ((1.5, 2.0), {1.5: 2, 2.0: 5}),
    ]:
        config = ModelConfig.model_validate({"name": "logistic_regression", "params": {"class_weight": weights}})
        assert ModelConfig.model_validate_json(config.model_dump_json()) == config
        model, _ = fit(config, "binary", classes, DATA.passes("binary", 4))
        expected = LogisticRegression(class_weight={0: 2, 1: 5}, solver="newton-cholesky", tol=1e-12)
        assert_close(model.margin(DATA.matrix), theirs(expected, DATA, "binary").decision_function(DATA.wide))


def test_naive_bayes_with_weights() -> None:
    data = Data()
    data.matrix = np.ascontiguousarray(data.matrix[:, :3])
    model, _ = trained("naive_bayes", "binary", data.passes("binary", 4, data.weight))
    expected = theirs(GaussianNB(), data, "binary", sample_weight=data.weight)
    assert_close(model.scores(model.margin(data.matrix)), scores_of(expected, "binary", data.wide))


def test_quadratic_discriminants_of_full_rank() -> None:
    data = Data(large=1e3, small=1.0)
    data.matrix = np.ascontiguousarray(data.matrix[:, :5])
    for task in ("binary", "multiclass"):
        model, _ = trained("qda", task, data.passes(task, 4))
        expected = theirs(QuadraticDiscriminantAnalysis(), data, task)
        assert_close(model.margin(data.matrix), expected.decision_function(data.wide))


def refused(words: str, name: str, task: Task, data: Data = DATA, **params: Any) -> None:
    with pytest.raises(DataError, match=words):
        trained(name, task, data.passes(task, 4), **params)


def test_rows_that_do_not_allow_a_model_are_refused_in_words() -> None:
    refused("covariance of class 'no' has rank 4 of 7, by tol 0.0001: .*raise reg_param", "qda", "binary")
    refused("in the classes is singular, which the solver eigen cannot do with", "lda", "binary", solver="eigen")
    refused("1 features do not vary in some class", "naive_bayes", "binary", var_smoothing=0.0)
    refused(r"priors has 3 numbers; it has one for each class, in sorted order: \[no, yes\]", "lda", "binary",
            priors=[0.1, 0.2, 0.7])  # fmt: skip
    refused(r"class_weight names 'yse', which is no class .* Did you mean 'yes'\?", "logistic_regression", "binary",
            class_weight={"yse": 2})  # fmt: skip
    lonely = Data()
    lonely.targets["multiclass"] = np.where(np.arange(ROWS) == 5, 2.0, lonely.targets["binary"])
    refused("class 'c' has 1 training row, which says nothing of how it varies", "qda", "multiclass", lonely)
    lacking = Data()
    lacking.targets["multiclass"] = lacking.targets["binary"]
    for name in ("lda", "qda", "naive_bayes", "ridge", "logistic_regression"):
        refused("no training row is of class 'c'; choose another split", name, "multiclass", lacking)
    infinite = Data()
    infinite.matrix[3, 1] = np.inf
    for name, task in [("lda", "binary"), ("logistic_regression", "binary"), ("ridge", "regression"),
                       ("linear_regression", "regression")]:  # fmt: skip
        refused("1 features have infinite values .the first is number 2", name, task, infinite)  # type: ignore[arg-type]
    refused("1 features have infinite values", "linear_regression", "regression", infinite, fit_intercept=False)


def test_a_summary_that_a_worker_has_no_room_for_is_refused() -> None:
    passes = OverRows(DATA.passes("binary", 2).parts, room=8 * 2 * 7 * 7)
    trained("qda", "binary", passes, reg_param=0.1)
    passes = OverRows(DATA.passes("binary", 2).parts, room=8 * 2 * 7 * 7 - 1)
    trained("lda", "binary", passes)
    with pytest.raises(
        DataError, match=r"of 7 features \(2 x 7 x 7 numbers\) takes .* MiB a task.* use fewer features"
    ):
        trained("qda", "binary", passes, reg_param=0.1)


def test_one_pass_serves_all_models_that_need_moments_of_the_classes() -> None:
    names = ["naive_bayes", "lda", "ridge", "qda"]
    configs = [ModelConfig(name=name, params={"reg_param": 0.1} if name == "qda" else {}) for name in names]
    parts = DATA.passes("binary", 4).parts
    assert kinds_of(configs) == ["squares", "within", "within", "each"]
    passes = OverRows(parts, kinds_of(configs))
    counted = 0
    over = passes.over

    def counting(*args: Any, **how: Any) -> Any:
        nonlocal counted
        counted += 1
        return over(*args, **how)

    passes.over = counting  # type: ignore[method-assign]
    for config in configs:
        together, _ = fit(config, "binary", CLASSES["binary"], passes)
        alone, _ = fit(config, "binary", CLASSES["binary"], OverRows(parts))
        assert_close(together.margin(DATA.matrix), alone.margin(DATA.matrix), 1e-12)
    assert counted == 1
    assert list(KINDS) == ["squares", "within", "each"]


def summed(values: list[float]) -> float:
    return sum(values)


def weight_of(rows: Rows) -> float:
    return float(len(rows.index))


def test_passes_over_blocks_of_a_cluster(client: Client) -> None:
    """The same model from the workers' blocks as from rows here, without the test rows."""
    from treadle.engine.passes import on_block

    test = np.random.default_rng(2).random(ROWS) < 0.3
    blocks = client.scatter([block_of(DATA, np.arange(low, low + 175), test) for low in range(0, ROWS, 175)])

    class OnCluster(OverRows):
        def over(
            self, function: Callable[..., Any], merge: Callable[[list[Any]], Any], *args: Any, host: str | None = None
        ) -> Any:
            how = self.backend, host, function, merge, args
            futures = [client.submit(on_block, block, *how, pure=False) for block in blocks]
            return client.submit(merge, futures, pure=False).result()

    here = OverRows([Rows(DATA.matrix, DATA.targets["binary"], np.flatnonzero(~test))])
    there = OnCluster(here.parts)
    assert there.over(weight_of, summed) == (~test).sum()
    for name in ("logistic_regression", "lda"):
        models: list[Model] = [trained(name, "binary", passes)[0] for passes in (here, there)]
        assert_close(models[0].margin(DATA.matrix), models[1].margin(DATA.matrix), 1e-10)


def block_of(data: Data, rows: Array, test: Array) -> Any:
    import pyarrow as pa

    from treadle.engine.blocks import Block

    return Block(pa.array(rows), test[rows], data.targets["binary"][rows], data.matrix[rows], {})
