"""Outcomes of trials and how they are kept, leaderboards, and warnings by thread."""

from __future__ import annotations

import math
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from treadle.engine.artifacts import Folds
from treadle.engine.comparison import compared
from treadle.engine.job import Model
from treadle.engine.leaderboard import p_value, ranked, spread
from treadle.engine.models.boosted import task_threads, threads_limited
from treadle.engine.models.heard import heard
from treadle.engine.store import Store
from treadle.engine.trials.outcome import Outcome, key_of, load, save
from treadle.errors import TreadleError

NUMBERS = st.floats(-1e6, 1e6)


@pytest.mark.parametrize("shape", [(5,), (5, 3), (5, 1)])
def test_an_outcome_comes_back_as_it_was(tmp_path: Path, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    margin, score = rng.normal(size=shape), rng.random(shape)
    metrics = {"auc": math.nan, "accuracy": 0.1 + 0.2}
    kept = Outcome(metrics, 7, 0.5, 0.25, 10**9, ("slow", "ö"), None, True, margin, score)
    store = Store(str(tmp_path))
    save(store, "a/0.parquet", kept)
    found = load(store, "a/0.parquet")
    assert found is not None
    np.testing.assert_array_equal(found.margin, margin)
    np.testing.assert_array_equal(found.score, score)
    assert math.isnan(found.metrics["auc"])
    assert (found.metrics["accuracy"], found.rows, found.said) == (0.1 + 0.2, 7, ("slow", "ö"))
    save(store, "a/1.parquet", Outcome(error="it is singular"))
    assert load(store, "a/1.parquet") == Outcome(error="it is singular")


def test_what_may_have_passed_is_not_kept(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    save(store, "0.parquet", Outcome(error="no memory", lasting=False))
    assert load(store, "0.parquet") is None


def test_trials_are_kept_by_what_decides_their_outcome() -> None:
    def key(seed: int = 1, **model: Any) -> str:
        return key_of(Model.model_validate({"name": "ridge", **model}), seed)

    assert key() == key(label="mine") != key(params={"alpha": 2.0})
    assert key() != key(seed=2)
    assert key(params={"alpha": 2.0, "tol": 0.1}) == key(params={"tol": 0.1, "alpha": 2.0})
    assert key_of(Model(name="ridge"), 1, 0.3) != key()


EIGHTHS = st.integers(-800, 800).map(lambda number: number / 8)


@given(st.lists(st.tuples(EIGHTHS, EIGHTHS), min_size=2, max_size=20), st.floats(0.01, 1))
def test_the_corrected_t_test_is_that_of_its_paper(pairs: list[tuple[float, float]], share: float) -> None:
    a, b = (np.array(side) for side in zip(*pairs, strict=True))
    found = p_value(a.tolist(), b.tolist(), share)
    apart = a - b
    if np.var(apart, ddof=1) == 0:
        assert math.isnan(found)
        return
    # The ordinary paired t statistic, of which the variance of the mean is multiplied by 1 + k * share.
    plain = stats.ttest_rel(a, b).statistic
    expected = 2 * stats.t.sf(abs(plain) / math.sqrt(1 + len(a) * share), len(a) - 1)
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-12)
    assert found == pytest.approx(p_value(b.tolist(), a.tolist(), share))


def test_models_without_the_metric_come_after_those_with_it_and_failures_last() -> None:
    rows: list[dict[str, Any]] = [
        {"model": "failed", "error": "x"},
        {"model": "b", "rmse": 1.0, "error": None},
        {"model": "none", "error": None},
        {"model": "nan", "rmse": math.nan, "error": None},
        {"model": "a", "rmse": 1.0, "error": None},
        {"model": "good", "rmse": 0.5, "r2": 0.1, "error": None},
    ]
    assert [row["model"] for row in ranked(rows, "rmse")] == ["good", "a", "b", "nan", "none", "failed"]
    assert next(row["model"] for row in ranked(rows, "r2")) == "good"


@given(st.lists(st.dictionaries(st.just("auc"), NUMBERS, min_size=1), min_size=1, max_size=9))
def test_means_and_deviations_are_over_the_folds(values: list[dict[str, float]]) -> None:
    of_folds = [one["auc"] for one in values]
    assert spread(values) == {"auc": float(np.mean(of_folds)), "auc_std": float(np.std(of_folds))}


FOLDS = Folds(kind="random", seed=1, column=None, rows=(5, 5, 5))


def outcomes(*values: float, error: str | None = None) -> list[Outcome]:
    return [Outcome({"auc": value}, rows=10, train_seconds=1.0) for value in values] if error is None else [
        Outcome({"auc": 1.0}, rows=10), Outcome(error=error), Outcome(error=error)
    ]  # fmt: skip


def test_a_model_that_fails_in_a_fold_is_a_row_without_metrics() -> None:
    models = [Model(name="lda"), Model(name="qda"), Model(name="ridge")]
    found = compared("auc", FOLDS, models, [outcomes(0.7, 0.8, 0.9), outcomes(error="singular"), outcomes(1, 0.9, 0.8)])
    assert [row["model"] for row in found.rows] == ["ridge", "lda", "qda"]
    assert found.best == "ridge"
    best, second, failed = found.rows
    assert best["p_value"] is None
    assert second["p_value"] == pytest.approx(p_value([0.7, 0.8, 0.9], [1, 0.9, 0.8], 0.5))
    assert (failed["error"], failed.get("auc"), failed["p_value"]) == ("singular", None, None)
    assert len(found.folds) == 9


def test_when_all_fail_each_says_why() -> None:
    models = [Model(name="lda"), Model(name="qda")]
    words = "No model could be trained: lda: singular; qda: no memory"
    with pytest.raises(TreadleError, match=words):
        compared("auc", FOLDS, models, [outcomes(error="singular"), outcomes(error="no memory")])


def test_each_thread_hears_its_own_warnings_only() -> None:
    barrier = threading.Barrier(3)
    found: dict[str, list[str]] = {}

    def work(name: str) -> None:
        with heard() as said:
            barrier.wait(10)
            for number in range(50):
                warnings.warn(f"{name} {number}\nmore", stacklevel=1)
                with heard() as inner:
                    warnings.warn("inner", RuntimeWarning, stacklevel=1)
                assert inner == ["inner"]
            barrier.wait(10)
        found[name] = said

    with warnings.catch_warnings(record=True) as others:
        warnings.simplefilter("always")
        threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        warnings.warn("outside", stacklevel=1)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert found == {name: [f"{name} {number}" for number in range(50)] for name in "abc"}
    assert [str(one.message) for one in others] == ["outside"]


def test_a_trial_leaves_threads_to_its_neighbours() -> None:
    assert task_threads() == 0
    with threads_limited(3):
        assert task_threads() == 3
        other = threading.Thread(target=lambda: seen.append(task_threads()))
        seen: list[int] = []
        other.start()
        other.join()
        assert seen == [0]
    assert task_threads() == 0
