"""Processes killed while models are compared by folds: no finished trial is lost, and the outcome is the same."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import treadle
from tests.faults.conftest import Spec, assert_same_outcome
from tests.faults.driver import Driver
from treadle.engine.trials.threads import Running, _Round
from treadle.jobs.run import Run

SECONDS = ["train_seconds", "predict_seconds", "peak_bytes"]


def comparing(spec: Spec) -> Spec:
    forest: dict[str, Any] = {"name": "random_forest", "params": {"n_estimators": 60}}
    return {**spec, "models": [forest, "naive_bayes", "lda", "extra_trees"], "compare": {"folds": 4}}


@pytest.fixture(scope="module")
def compared(spec: Spec, scheduler: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The outcome when nothing goes wrong."""
    elsewhere = {"profile": "address", "address": scheduler}
    root = str(tmp_path_factory.mktemp("compared"))
    return treadle.run({**comparing(spec), "cluster": elsewhere}, root=root)


def trials(driver: Driver) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in driver.root.glob("stages/trials-*/*/*.parquet")}


def assert_same_leaderboard(found: Run, expected: Run) -> None:
    for name in ("leaderboard", "folds"):
        one, other = (run.table(name).to_pandas().drop(columns=SECONDS, errors="ignore") for run in (found, expected))
        pd.testing.assert_frame_equal(one, other)
    assert_same_outcome(found, expected)


@pytest.mark.slow
def test_a_driver_killed_while_models_are_compared(spec: Spec, compared: Run, tmp_path: Path) -> None:
    with Driver(comparing(spec), tmp_path) as driver:
        driver.wait_until("a few trials", lambda: len(trials(driver)) >= 3)
        driver.strike(signal.SIGKILL)
        driver.wait_until_gone()
        before = trials(driver)
        assert len(before) < 16
    with Driver(comparing(spec), tmp_path) as again:
        outcome = again.finish()
        assert outcome.status == 0, outcome.err
        after = trials(again)
        assert len(after) == 16
        assert {path: after[path] for path in before} == before
        assert_same_leaderboard(again.run(), compared)


@pytest.mark.slow
@pytest.mark.parametrize("which", [(0,), (0, 1)], ids=["one", "both"])
def test_workers_killed_while_models_are_compared(
    spec: Spec, compared: Run, tmp_path: Path, which: tuple[int, ...]
) -> None:
    with Driver(comparing(spec), tmp_path) as driver:
        driver.wait_until("a few trials", lambda: len(trials(driver)) >= 3)
        workers = driver.workers()
        for number in which:
            workers[number].kill()
        outcome = driver.finish()
        assert outcome.status == 0, outcome.err
        assert "Traceback" not in outcome.err
        assert_same_leaderboard(driver.run(), compared)


@pytest.mark.slow
def test_workers_killed_before_what_came_of_a_trial_is_received(
    spec: Spec, compared: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial had ended, so nobody waits for its worker; and it is bound to that one, so no other makes it again."""
    ended, killed = _Round._ended, list[int]()

    def strike(self: _Round) -> list[Running]:
        found = ended(self)
        if found and not killed:
            killed.extend(self.context.client.run(os.getpid).values())
            for process in killed:
                os.kill(process, signal.SIGKILL)
        return found

    monkeypatch.setattr(_Round, "_ended", strike)
    found = treadle.run(comparing(spec), root=str(tmp_path))
    assert len(killed) == 2
    assert_same_leaderboard(found, compared)
