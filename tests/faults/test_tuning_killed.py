"""Processes killed while models are tuned: no finished trial is lost, and what is found is the same."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import treadle
from tests.faults.conftest import Spec, assert_same_outcome
from tests.faults.driver import Driver
from tests.faults.test_trials_killed import SECONDS, trials
from treadle.jobs.run import Run

KEPT = 8
"""Trials of the two models without a fold that `compare` keeps."""


def tuning(spec: Spec) -> Spec:
    forest: dict[str, Any] = {"name": "random_forest", "params": {"n_estimators": 20}}
    tune = {"models": ["random_forest", "naive_bayes"], "trials": 8}
    return {**spec, "models": [forest, "naive_bayes"], "compare": {"folds": 4}, "tune": tune}


@pytest.fixture(scope="module")
def tuned(spec: Spec, scheduler: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The outcome when nothing goes wrong."""
    elsewhere = {"profile": "address", "address": scheduler}
    root = str(tmp_path_factory.mktemp("tuned"))
    return treadle.run({**tuning(spec), "cluster": elsewhere}, root=root)


def assert_same_trials(found: Run, expected: Run) -> None:
    for name in ("leaderboard", "folds", "trials"):
        drop = [*SECONDS, "seconds"]
        one, other = (run.table(name).to_pandas().drop(columns=drop, errors="ignore") for run in (found, expected))
        pd.testing.assert_frame_equal(one, other)
    assert_same_outcome(found, expected)


@pytest.mark.slow
def test_a_driver_killed_while_models_are_tuned(spec: Spec, tuned: Run, tmp_path: Path) -> None:
    with Driver(tuning(spec), tmp_path) as driver:
        driver.wait_for("tune", "started")
        driver.wait_until("a few trials", lambda: len(trials(driver)) >= KEPT + 7)
        driver.strike(signal.SIGKILL)
        driver.wait_until_gone()
        before = trials(driver)
    with Driver(tuning(spec), tmp_path) as again:
        outcome = again.finish()
        assert outcome.status == 0, outcome.err
        assert again.statuses()["compare"] == "cached"
        after = trials(again)
        assert len(after) > len(before)
        assert {path: after[path] for path in before} == before
        assert_same_trials(again.run(), tuned)


@pytest.mark.slow
@pytest.mark.parametrize("which", [(0,), (0, 1)], ids=["one", "both"])
def test_workers_killed_while_models_are_tuned(spec: Spec, tuned: Run, tmp_path: Path, which: tuple[int, ...]) -> None:
    with Driver(tuning(spec), tmp_path) as driver:
        driver.wait_for("tune", "started")
        driver.wait_until("a few trials", lambda: len(trials(driver)) >= KEPT + 5)
        workers = driver.workers()
        for number in which:
            workers[number].kill()
        outcome = driver.finish()
        assert outcome.status == 0, outcome.err
        assert "Traceback" not in outcome.err
        assert_same_trials(driver.run(), tuned)
