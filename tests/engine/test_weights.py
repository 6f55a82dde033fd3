"""Weights of rows: as often as a row is repeated, as libraries take them, and what is refused of them."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xgboost
from distributed import Client
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import dummy
from sklearn.linear_model import LogisticRegression, RidgeClassifier

from tests.engine.parts import by_path
from tests.engine.test_catalogue import ORACLES, SEED, matrix, rule, target
from tests.engine.test_exact import DATA, PARTITIONS, ROWS, assert_close, theirs, trained
from tests.engine.test_segments import MATRIX, TARGETS, Halves, params_of, trees
from treadle.engine.blocks import Block, load_block
from treadle.engine.exact.params import EXACT
from treadle.engine.fitting import fit_estimator
from treadle.engine.job import Job
from treadle.engine.job import Model as ModelConfig
from treadle.engine.models.base import Task
from treadle.engine.models.boosted import native_params, threads_limited, train_booster
from treadle.engine.models.catalogue import CATALOGUE
from treadle.engine.passes import OverRows, Rows
from treadle.engine.segments import Recipe
from treadle.engine.shards import Shard, mass_of, parts_of
from treadle.engine.store import Store
from treadle.engine.weights import check_weights, count_weights, merge_weights
from treadle.errors import DataError

TASKS: tuple[Task, ...] = ("binary", "multiclass")
SOLVED: list[tuple[str, Task, dict[str, Any]]] = [
    ("linear_regression", "regression", {}),
    ("linear_regression", "regression", {"fit_intercept": False}),
    ("ridge", "regression", {"alpha": 3.0}),
    ("ridge", "regression", {"fit_intercept": False}),
    *(("ridge", task, {"class_weight": "balanced"}) for task in TASKS),
    *(("ridge", task, {}) for task in TASKS),
    *(("logistic_regression", task, {}) for task in TASKS),
    ("logistic_regression", "binary", {"class_weight": "balanced", "C": 0.1}),
    *(("lda", task, {}) for task in TASKS),
    ("lda", "multiclass", {"solver": "lsqr", "priors": [0.2, 0.3, 0.5]}),
    ("lda", "binary", {"solver": "eigen", "shrinkage": 0.2}),
    *(("qda", task, {"reg_param": 0.1}) for task in TASKS),
    *(("naive_bayes", task, {}) for task in TASKS),
]


def often() -> Any:
    """Whole weights, 0 among them, of which all rows of the first parts have none."""
    weight = np.random.default_rng(4).integers(0, 4, ROWS).astype(np.float64)
    weight[:120] = 0.0
    return weight


@pytest.mark.parametrize("partitions", PARTITIONS)
@pytest.mark.parametrize(("name", "task", "params"), SOLVED)
def test_a_row_counts_as_often_as_its_weight_says(
    name: str, task: Task, params: dict[str, Any], partitions: int
) -> None:
    """Of features of which two are collinear and one is constant."""
    weight = often()
    found, _ = trained(name, task, DATA.passes(task, partitions, weight, sort=True), **params)
    repeated = np.repeat(np.arange(ROWS), weight.astype(int))
    rows = Rows(DATA.matrix[repeated], DATA.targets[task][repeated], np.arange(len(repeated)))
    expected, _ = trained(name, task, OverRows([rows]), **params)
    assert_close(found.margin(DATA.matrix), expected.margin(DATA.matrix))
    assert_close(found.contributions(DATA.matrix[:9]), expected.contributions(DATA.matrix[:9]))


def test_there_is_a_case_of_every_model_that_is_solved_exactly() -> None:
    for name in EXACT:
        assert {task for other, task, _ in SOLVED if other == name} == CATALOGUE[name].tasks


@pytest.mark.parametrize("partitions", PARTITIONS)
@pytest.mark.parametrize("task", TASKS)
def test_penalised_classifiers_have_scikit_learns_coefficients_with_weights(task: Task, partitions: int) -> None:
    """The classes' own weights, `balanced`, go by the rows' weights."""
    passes = DATA.passes(task, partitions, DATA.weight)
    for params in ({}, {"class_weight": "balanced"}):
        model, said = trained("logistic_regression", task, passes, C=0.7, **params)
        estimator = LogisticRegression(C=0.7, tol=1e-12, solver="newton-cholesky", max_iter=1000, **params)
        expected = theirs(estimator, DATA, task, sample_weight=DATA.weight)
        assert_close(model.margin(DATA.matrix), expected.decision_function(DATA.wide))
        assert said == []
    model, _ = trained("ridge", task, passes, alpha=2.0)
    expected = theirs(RidgeClassifier(2.0), DATA, task, sample_weight=DATA.weight)
    assert_close(model.margin(DATA.matrix), expected.decision_function(DATA.wide))


@pytest.mark.parametrize(("name", "task", "params"), SOLVED)
def test_weights_of_one_make_no_difference(name: str, task: Task, params: dict[str, Any]) -> None:
    found, _ = trained(name, task, DATA.passes(task, 4, np.ones(ROWS)), **params)
    expected, _ = trained(name, task, DATA.passes(task, 4), **params)
    np.testing.assert_array_equal(found.margin(DATA.matrix), expected.margin(DATA.matrix))


@pytest.mark.parametrize("scale", [1e-6, 1e6])
@pytest.mark.parametrize("name", ["linear_regression", "lda", "qda", "naive_bayes"])
def test_what_is_not_penalised_does_not_depend_on_the_unit_of_weights(name: str, scale: float) -> None:
    """Nor are rows that count little taken for one row."""
    task: Task = "regression" if name == "linear_regression" else "binary"
    params = {"reg_param": 0.1} if name == "qda" else {}
    found, _ = trained(name, task, DATA.passes(task, 4, DATA.weight * scale), **params)
    expected, _ = trained(name, task, DATA.passes(task, 4, DATA.weight), **params)
    assert_close(found.margin(DATA.matrix), expected.margin(DATA.matrix))


@pytest.mark.parametrize("name", ["lda", "qda"])
def test_rows_that_together_count_as_one_are_not_taken_for_one(name: str) -> None:
    """Of each class the weights add up to exactly 1."""
    labels = np.arange(32) % 2
    rows = np.random.default_rng(1).normal(size=(32, 2)).astype(np.float32) + labels[:, None].astype(np.float32)
    parts = [Rows(rows, labels.astype(np.float64), np.arange(32), np.full(32, share)) for share in (1 / 16, 1.0)]
    found, expected = (trained(name, "binary", OverRows([part]))[0] for part in parts)
    assert_close(found.margin(rows), expected.margin(rows))


def test_rows_without_any_weight_are_refused_by_every_model() -> None:
    nothing = np.zeros(ROWS)
    for name, task, params in SOLVED:
        with pytest.raises(DataError, match="all training rows have the weight 0, so that there is nothing to learn"):
            trained(name, task, DATA.passes(task, 4, nothing), **params)
    rows = matrix(1)
    for name in ("decision_tree", "dummy"):
        with pytest.raises(DataError, match="all training rows have the weight 0"):
            fit_estimator([(rows, target(rows, "binary"), np.zeros(len(rows)))], ModelConfig(name=name),
                          rule("binary"), SEED)  # fmt: skip
    none = np.where(target(rows, "binary") == 1, 0.0, 2.0)
    with pytest.raises(DataError, match="no training row is of class 'yes'; choose another split"):
        fit_estimator([(rows, target(rows, "binary"), none)], ModelConfig(name="decision_tree"), rule("binary"), SEED)
    weight = np.where(DATA.targets["binary"] == 1, 0.0, 2.0)
    with pytest.raises(DataError, match="no training row is of class 'yes'; choose another split"):
        trained("lda", "binary", DATA.passes("binary", 4, weight))


WEIGHED = [(name, task, make, params) for name, task, make, params in ORACLES if CATALOGUE[name].weights]
IDS = [f"{name}-{task}-{number}" for number, (name, task, _, _) in enumerate(WEIGHED)]


@pytest.mark.parametrize(("name", "task", "make", "params"), WEIGHED, ids=IDS)
def test_predictions_are_those_of_the_library_with_weights(
    name: str, task: Task, make: Any, params: dict[str, Any]
) -> None:
    """From three parts, as a worker gets them, one of which has no rows."""
    train, rows = matrix(1), matrix(2)
    values, entry = target(train, task), CATALOGUE[name]
    weight = np.random.default_rng(8).choice([0.5, 1.0, 4.0], len(train))
    parts = [(train[part], values[part], weight[part]) for part in (slice(0), slice(50), slice(50, None))]
    model, used, _ = fit_estimator(parts, ModelConfig(name=name, params=params), rule(task), SEED)
    assert used == len(train)
    wide = entry.family in ("linear", "network")
    estimators = []
    for own in (weight, None):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            codes = values if task == "regression" else values.astype(int)
            estimators.append(make(**params).fit(train.astype(np.float64) if wide else train, codes, sample_weight=own))
    found = [said_by(estimator, entry, task, rows) for estimator in estimators]
    margin = model.margin(rows)
    scores = model.scores(margin) if model.has_probabilities else margin
    np.testing.assert_allclose(scores, found[0], rtol=0, atol=1e-9 * max(1.0, float(np.abs(found[0]).max())))
    if not (name == "dummy" and params.get("strategy")):
        assert not np.allclose(found[0], found[1]), "weights count"


def said_by(estimator: Any, entry: Any, task: Task, rows: Any) -> Any:
    if task == "regression":
        return estimator.predict(rows)
    if not entry.probabilities:
        return estimator.decision_function(rows)
    found = estimator.predict_proba(rows)
    return found[:, 1] if task == "binary" else found


def test_the_baseline_is_the_weighted_median() -> None:
    values = np.array([1.0, 2.0, 3.0, 10.0])
    part = (np.zeros((4, 1), dtype=np.float32), values, np.array([1.0, 1.0, 1.0, 9.0]))
    config = ModelConfig(name="dummy", params={"strategy": "median"})
    model, _, _ = fit_estimator([part], config, rule("regression"), SEED)
    expected = dummy.DummyRegressor(strategy="median").fit(part[0], values, sample_weight=part[2])
    assert model.margin(part[0])[0] == expected.predict(part[0])[0] == 10.0


def test_the_catalogue_knows_which_libraries_take_weights() -> None:
    for name, entry in CATALOGUE.items():
        for task in sorted(entry.tasks):
            taken = "sample_weight" in inspect.signature(entry.estimator(task).fit).parameters
            assert (taken or name in EXACT) == entry.weights, name


@pytest.mark.parametrize("params", [{}, {"booster": "gblinear"}, {"max_bin": 16, "subsample": 0.7}])
@pytest.mark.parametrize("task", sorted(TARGETS))
def test_boosters_are_xgboosts_own_with_weights(task: Any, params: dict[str, Any]) -> None:
    rounds, native = native_params({"n_estimators": 6, **params}, task, 3 if task == "multiclass" else 2, 3)
    weight = np.random.default_rng(2).random(len(MATRIX))
    with threads_limited(1), xgboost.config_context(nthread=1, verbosity=0):
        raw = train_booster(MATRIX, TARGETS[task], native, rounds, weight)
        kind = xgboost.DMatrix if "booster" in params else xgboost.QuantileDMatrix
        bins = {} if "booster" in params else {"max_bin": params.get("max_bin")}
        data = kind(MATRIX, TARGETS[task], weight=weight, **bins)
        expected = bytes(xgboost.train(native, data, rounds).save_raw("ubj"))
        ones, none = (train_booster(MATRIX, TARGETS[task], native, rounds, own) for own in (np.ones(len(MATRIX)), None))
        assert trees(raw) == trees(expected) != trees(none)
        assert trees(ones) == trees(none)


@pytest.fixture(scope="module")
def context(scheduler: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from treadle.engine.backend import Backend
    from treadle.engine.context import Context
    from treadle.engine.events import Events
    from treadle.engine.job import Data

    store = Store(str(tmp_path_factory.mktemp("weights")))
    events = Events(store, "run")
    with Client(scheduler) as client:
        yield Context(Job(name="weights", data=Data(path="none")), store, Backend(), client, events, "run", stage="x")
    events.close()


@pytest.mark.parametrize(
    "lost", [pytest.param((), id="undisturbed", marks=pytest.mark.slow), pytest.param((1,), id="lost")]
)
@pytest.mark.parametrize("weights", ["any", "of-one-worker", "ones"])
def test_two_workers_make_what_xgboost_makes_on_two_with_weights(
    context: Any, weights: str, lost: tuple[int, ...]
) -> None:
    """Also where all rows of a worker count nothing; those that are held back count as the others do."""
    halves = Halves(context, "binary", held=60)
    plain = Halves(context, "binary", held=60)
    rng = np.random.default_rng(6)

    def of(worker: int, rows: int) -> Any:
        if weights == "any":
            return rng.integers(0, 3, rows).astype(np.float64)
        return np.full(rows, 1.0 if weights == "ones" else float(worker))

    halves.parts = [
        Shard(*((*part, of(worker, len(part[1]))) for part in (shard.train, shard.held)))
        for worker, shard in enumerate(halves.parts)
    ]
    halves.lose()
    recipe = Recipe({**params_of("binary"), "eval_metric": "logloss"}, 40, patience=6, segment=5)
    raw, losses = halves.train(recipe, None, lost)
    expected, told = plainly(halves, recipe)
    assert trees(raw) == trees(expected)
    assert losses == told
    assert (trees(raw) == trees(plain.train(recipe, None, ())[0])) == (weights == "ones")


def plainly(halves: Halves, recipe: Recipe) -> tuple[bytes, list[float]]:
    """As `xgboost.train` does it on two workers, with weights."""
    from treadle.engine.boosting import start_tracker

    workers = halves.context.workers
    client = halves.context.client
    tracker = client.submit(start_tracker, 2, pure=False, workers=[workers[0]]).result(timeout=60)
    futures = [
        client.submit(plain_on, shard, rank, tracker, recipe, workers=[worker], pure=False)
        for rank, (shard, worker) in enumerate(zip(halves.parts, workers, strict=True))
    ]
    found: tuple[bytes, list[float]] = futures[0].result(timeout=60)
    return found


def plain_on(shard: Shard, rank: int, tracker: Any, recipe: Recipe) -> tuple[bytes, list[float]]:
    from xgboost.collective import CommunicatorContext

    told: dict[str, dict[str, list[float]]] = {}
    with CommunicatorContext(**tracker, dmlc_task_id=str(rank)), xgboost.config_context(verbosity=0, nthread=1):
        train, held = (
            kind(part[0], part[1], weight=part[2])
            for kind, part in ((xgboost.QuantileDMatrix, shard.train), (xgboost.DMatrix, shard.held))
        )
        booster = xgboost.train(
            dict(recipe.params),
            train,
            recipe.rounds,
            evals=[(held, "held")],
            early_stopping_rounds=recipe.patience,
            evals_result=told,
            verbose_eval=False,
        )
    return bytes(booster.save_raw("ubj")), told["held"]["logloss"]


def test_shards_carry_weights_with_their_rows() -> None:
    rows = 500
    weight = np.arange(rows, dtype=np.float64)
    test = np.arange(rows) % 5 == 0
    block = Block(pa.array(np.arange(rows)), test, weight * 2, weight[:, None].astype(np.float32), {},
                  np.where(test, np.nan, weight))  # fmt: skip
    train, held = parts_of(block, 0.3, 1)
    for part in (train, held):
        assert len(part[2]) > 100
        np.testing.assert_array_equal(part[0][:, 0], part[2])
        np.testing.assert_array_equal(part[1], part[2] * 2)
    assert sum(mass_of((train, held))) == weight[~test].sum()


def test_a_block_with_weights_comes_back_from_its_file(tmp_path: Path) -> None:
    store, given_rule = Store(str(tmp_path)), by_path("regression")
    weight = np.array([1.5, np.nan, 0.0])
    block = Block(pa.array([1, 2, 3]), np.array([False, True, False]), np.array([1.0, 2.0, 3.0]),
                  np.ones((3, 1), dtype=np.float32), {}, weight)  # fmt: skip
    table = block.table(["f"], "y", given_rule, "w")
    assert table.column_names == ["id", "split", "y", "weight.w", "f"]
    assert table.column("weight.w").to_pylist() == [1.5, None, 0.0]
    part = store.write_parquet("b.parquet", table)
    np.testing.assert_array_equal(load_block(part, store, ["f"], "y", given_rule, "w").weight, weight)
    assert load_block(part, store, ["f"], "y", given_rule).weight is None
    np.testing.assert_array_equal(block.take(np.array([False, True, True])).weight, weight[1:])


WRONG = [np.nan, -1.0, np.inf, -np.inf]


@settings(max_examples=60)
@given(st.lists(st.sampled_from([0.0, 1.0, 2.5, *WRONG]), min_size=1, max_size=12), st.integers(0, 12))
def test_wrong_weights_are_counted_over_the_parts_and_the_first_is_named(weights: list[float], cut: int) -> None:
    """Of training rows; one row is for the test."""
    rows = np.arange(len(weights))
    every = Block(pa.array(rows + 100), rows == 4, rows * 1.0, rows[:, None].astype(np.float32), {}, np.array(weights))
    found = merge_weights([count_weights(every.take(part)) for part in (rows < cut, rows >= cut)])
    seen = [(row, value) for row, value in enumerate(weights) if row != 4]
    wrong = [(row, value) for row, value in seen if value in (-1.0, np.inf, -np.inf) or np.isnan(value)]
    if wrong:
        nulls, infinite = sum(np.isnan(v) for _, v in wrong), sum(v == np.inf for _, v in wrong)
        with pytest.raises(DataError) as caught:
            check_weights(found, "w")
        said = str(caught.value)
        assert f"column 'w' has no weight in {len(wrong)} of {len(seen)} training rows" in said
        for count, kind in ((nulls, "null"), (infinite, "infinite"), (len(wrong) - nulls - infinite, "negative")):
            assert (f"{count} {kind}" in said) == (count > 0)
        first = "null" if np.isnan(wrong[0][1]) else str(wrong[0][1])
        assert f"the first is {first}, in the row with the id {wrong[0][0] + 100})" in said
    elif not any(value > 0 for _, value in seen):
        with pytest.raises(DataError, match=f"column 'w' is 0 in all {len(seen)} training rows"):
            check_weights(found, "w")
    else:
        assert check_weights(found, "w") == []
        tenth = replace(found, total=found.total / 100)
        mean = np.mean([value / 100 for _, value in seen if value > 0])
        (said,) = check_weights(tenth, "w")
        assert f"the weights of 'w' that are not 0 are {mean:.3g} on the average" in said
