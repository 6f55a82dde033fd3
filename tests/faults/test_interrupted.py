"""Ctrl-C and SIGTERM: a run that is called off says so, stops everything and leaves nothing half done."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from tests.faults.conftest import Spec, assert_same_outcome
from tests.faults.driver import Driver
from tests.faults.test_killed import boosting, stage
from treadle.jobs.run import Run, list_runs

MESSAGE = "treadle: cancelled; nothing was published\n"
CLOSED = 10.0
"""Seconds that a run may take to end; it takes 1 to 3 on a quiet machine."""


def assert_called_off(driver: Driver, struck: float) -> None:
    outcome = driver.finish()
    took = time.monotonic() - struck
    assert outcome.status == 130, outcome.err
    assert outcome.err.endswith(MESSAGE)
    assert "Traceback" not in outcome.err
    assert "Exception" not in outcome.err
    assert outcome.out == ""
    driver.wait_until_gone(1.0)
    assert took < CLOSED
    assert driver.leftovers() == []
    manifest = driver.run().manifest
    assert manifest["status"] == "cancelled"
    assert manifest["tables"] == []
    assert manifest["error"] == "cancelled by the user or by a signal"
    assert not list(driver.root.glob("tables/*"))
    assert not list(driver.root.rglob("*.tmp"))


@pytest.mark.slow
def test_ctrl_c_in_training_and_the_run_after_it(spec: Spec, undisturbed: Run, scheduler: str, tmp_path: Path) -> None:
    with Driver(spec, tmp_path) as driver:
        boosting(driver)
        driver.strike(signal.SIGINT, group=True)
        assert_called_off(driver, time.monotonic())
    # Where it runs is no part of what is cached; the session's cluster is there already.
    elsewhere = {**spec, "cluster": {"profile": "address", "address": scheduler}}
    with Driver(elsewhere, tmp_path) as again:
        outcome = again.finish()
        assert outcome.status == 0, outcome.err
        cached = {name for name, status in again.statuses().items() if status == "cached"}
        assert cached == {"read", "etl", "split", "features"}
        assert_same_outcome(again.run(), undisturbed)
    assert sorted(row["status"] for row in list_runs(str(driver.root))) == ["cancelled", "succeeded"]


@pytest.mark.slow
def test_sigterm_while_the_cluster_starts(spec: Spec, tmp_path: Path) -> None:
    with Driver(spec, tmp_path) as driver:
        driver.wait_for("cluster", "started")
        driver.wait_until("worker processes", lambda: bool(driver.workers()))
        driver.strike(signal.SIGTERM)
        assert_called_off(driver, time.monotonic())


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["cluster", "etl", "split", "features", "train:xgboost", "evaluate"])
@pytest.mark.parametrize(
    ("number", "group", "times"),
    [
        (signal.SIGINT, False, 1),
        (signal.SIGINT, True, 1),
        (signal.SIGINT, True, 4),
        (signal.SIGTERM, False, 1),
        (signal.SIGTERM, False, 3),
    ],
)
def test_signals_at_any_moment(
    spec: Spec, tmp_path: Path, name: str, number: signal.Signals, group: bool, times: int
) -> None:
    with Driver(spec, tmp_path) as driver:
        stage(name)(driver)
        struck = time.monotonic()
        for i in range(times):
            time.sleep(0.25 if i else 0.05)
            if driver.processes():
                driver.strike(number, group)
        assert_called_off(driver, struck)


@pytest.mark.slow
# Not earlier: before our first module is loaded, Python itself answers the signal, with a traceback.
@pytest.mark.parametrize("delay", [0.5, 1.0, 2.0])
def test_ctrl_c_before_anything_runs(spec: Spec, tmp_path: Path, delay: float) -> None:
    with Driver(spec, tmp_path) as driver:
        time.sleep(delay)
        driver.strike(signal.SIGINT, group=True)
        outcome = driver.finish()
        assert outcome.status in (130, -signal.SIGINT)
        assert "Traceback" not in outcome.err
        driver.wait_until_gone(1.0)


@pytest.mark.slow
def test_it_is_too_late_to_cancel_when_tables_are_published(spec: Spec, scheduler: str, tmp_path: Path) -> None:
    """From the first table on a signal changes nothing any more, and the run is on record."""
    quick = {
        **spec,
        "models": ["decision_tree"],
        "cluster": {"profile": "address", "address": scheduler},
    }
    with Driver(quick, tmp_path) as driver:
        driver.wait_until("a table", lambda: bool(driver.told("features is committed")))
        driver.strike(signal.SIGTERM)
        outcome = driver.finish()
        statuses = json.dumps([(e["stage"], e["event"]) for e in driver.events()[-3:]])
        assert outcome.status == 0, f"{outcome.err} {statuses}"
        run = driver.run()
        assert run.status == "succeeded"
        assert set(run.tables) == {"features", "leaderboard", "predictions"}
        assert run.model.reference == "fraud:1"
