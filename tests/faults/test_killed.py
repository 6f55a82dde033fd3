"""Processes that are killed in the middle of a job: nothing is done twice, and the outcome is the same."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import treadle
from tests.faults.conftest import Spec, assert_same_outcome
from tests.faults.driver import Driver
from treadle.jobs.run import Run, list_runs

CACHED = ("read", "etl", "split", "features")


def boosting(driver: Driver) -> None:
    """Until XGBoost's tasks have found each other."""
    driver.wait_until("boosting", lambda: driver.log("workers.log").count("got rank") >= 2)


def going_on(driver: Driver) -> None:
    """Until they have again, after the first segment of rounds."""
    driver.wait_until("a checkpoint", lambda: bool(driver.told("50/120 rounds")))
    driver.wait_until("the second segment", lambda: driver.log("workers.log").count("got rank") >= 4)


def finding_each_other(driver: Driver) -> None:
    """Until XGBoost's tasks are about to find each other: the rows are dealt out."""
    driver.wait_until(
        "training tasks",
        lambda: sum(e["stage"] == "train:xgboost" and e.get("done") == e.get("total") for e in driver.events()) >= 2,
    )


def stage(name: str) -> Callable[[Driver], None]:
    """Until a stage starts."""

    def wait(driver: Driver) -> None:
        driver.wait_for(name, "started")

    wait.__name__ = name
    return wait


def driver_killed(spec: Spec, folder: Path, moment: Callable[[Driver], None]) -> Driver:
    """The run after one that was killed in training, done and ended."""
    with Driver(spec, folder) as driver:
        moment(driver)
        assert len(driver.workers()) == 2
        driver.strike(signal.SIGKILL)
        driver.wait_until_gone()
        assert driver.finish().status == -signal.SIGKILL
        assert not list(driver.root.glob("tables/*/*/_delta_log/*"))
        assert len(driver.leftovers()) == 1  # nobody was left to remove it; the next run does
    assert [row["status"] for row in list_runs(str(driver.root))] == ["unfinished"]
    with Driver(spec, folder) as again:
        outcome = again.finish()
        assert outcome.status == 0, outcome.err
        again.wait_until_gone()
        statuses = again.statuses()
        assert {name for name, status in statuses.items() if status == "cached"} == set(CACHED)
        assert [f"{name:<28} cached" in outcome.err for name in CACHED] == [True] * 4
        assert again.leftovers() == []
        return again


@pytest.mark.slow
def test_a_driver_killed_in_training_goes_on_from_the_last_checkpoint(
    spec: Spec, undisturbed: Run, tmp_path: Path
) -> None:
    again = driver_killed(spec, tmp_path, going_on)
    (first,) = again.told("goes on from round")
    # The second segment or the third, as busy as the machine is.
    assert first["done"] in (50, 100)
    assert first["note"] == f"xgboost: goes on from round {first['done']}, where an earlier run was broken off"
    rounds = [event["done"] for event in again.told("/120 rounds")]
    assert rounds == [done for done in (50, 100, 120) if done > first["done"]]
    assert again.run().manifest["warnings"] == []
    assert not list(again.root.glob("stages/checkpoints-*"))
    assert_same_outcome(again.run(), undisturbed)


@pytest.mark.slow
def test_a_driver_killed_before_the_first_checkpoint_begins_anew(spec: Spec, undisturbed: Run, tmp_path: Path) -> None:
    again = driver_killed(spec, tmp_path, boosting)
    assert again.told("goes on from round") == []
    assert len(again.told("/120 rounds")) == 3
    assert_same_outcome(again.run(), undisturbed)


@pytest.mark.slow
def test_a_damaged_checkpoint_counts_for_nothing(spec: Spec, undisturbed: Run, tmp_path: Path) -> None:
    with Driver(spec, tmp_path) as driver:
        going_on(driver)
        driver.strike(signal.SIGKILL)
        driver.wait_until_gone()
    (booster,) = driver.root.glob("stages/checkpoints-*/*.ubj")
    raw = bytearray(booster.read_bytes())
    raw[len(raw) // 2] ^= 1
    booster.write_bytes(raw)
    with Driver(spec, tmp_path) as again:
        assert again.finish().status == 0
        again.wait_until_gone()
    assert again.told("goes on from round") == []
    assert len(again.told("/120 rounds")) == 3
    assert not list(again.root.glob("stages/checkpoints-*"))
    assert_same_outcome(again.run(), undisturbed)


def worker_killed(
    spec: Spec, folder: Path, moment: Callable[[Driver], None], delay: float, which: tuple[int, ...]
) -> Driver:
    """A job whose workers `which` are killed some time after a moment; it is done, and ended."""
    with Driver(spec, folder) as driver:
        moment(driver)
        time.sleep(delay)
        workers = driver.workers()
        for i in which:
            workers[i].kill()
        outcome = driver.finish()
        assert outcome.status == 0, outcome.err
        assert "Traceback" not in outcome.err
        driver.wait_until_gone()
        assert driver.leftovers() == []
        return driver


LOST = "xgboost: a worker was lost during training, attempt 1"


@pytest.mark.slow
def test_a_worker_killed_in_training_costs_one_segment(spec: Spec, undisturbed: Run, tmp_path: Path) -> None:
    driver = worker_killed(spec, tmp_path, going_on, 0.1, (1,))
    ((lost, note),) = [(event["done"], event["note"]) for event in driver.told("xgboost: ")]
    # The second segment or the third, as busy as the machine is.
    assert (lost, note) in ((50, LOST), (100, LOST))
    assert driver.run().manifest["warnings"] == [f"{LOST}; trained again from round {lost}"]
    rounds = [(event["done"], event["note"]) for event in driver.told("/120 rounds")]
    assert rounds == [(50, "50/120 rounds"), (100, "100/120 rounds"), (120, "120/120 rounds")]
    assert_same_outcome(driver.run(), undisturbed)


@pytest.mark.slow
def test_a_worker_killed_in_the_first_segment(spec: Spec, undisturbed: Run, tmp_path: Path) -> None:
    run = worker_killed(spec, tmp_path, boosting, 0.1, (1,)).run()
    assert run.manifest["warnings"] == [f"{LOST}; trained again from the start"]
    assert_same_outcome(run, undisturbed)


@pytest.mark.slow
def test_a_worker_killed_while_the_contract_is_checked(spec: Spec, scheduler: str, tmp_path: Path) -> None:
    """The rows that are left, and those set aside, are the same."""
    job = {key: spec[key] for key in ("apiVersion", "name", "data", "tables", "cluster")} | {
        "contract": [
            {"expect": "unique", "columns": ["customer_id", "channel"], "otherwise": "quarantine"},
            {"expect": "range", "column": "amount", "max": 50, "otherwise": "quarantine"},
        ]
    }
    run = worker_killed(job, tmp_path, stage("contract"), 0.1, (0,)).run()
    elsewhere = {**job, "cluster": {"profile": "address", "address": scheduler}}
    expected = treadle.run(elsewhere, root=str(tmp_path / "undisturbed"))
    assert run.table("quarantine").rows + run.table("etl").rows == 15_000
    for name in ("quarantine", "etl"):
        pd.testing.assert_frame_equal(run.table(name).to_pandas(), expected.table(name).to_pandas())


@pytest.mark.slow
def test_a_worker_killed_while_text_is_read(scheduler: str, tmp_path: Path) -> None:
    """Rows, their numbers and the broken ones are the same."""
    (tmp_path / "texts").mkdir()
    for number in range(8):
        lines = [f"{number},{n},{n / 7:.3f},word {n % 9}" for n in range(30_000)]
        lines[number * 100] = f"{number},broken"
        (tmp_path / "texts" / f"{number}.csv").write_text("\n".join(["file,n,x,word", *lines, ""]))
    job = {
        "apiVersion": "treadle/v1",
        "name": "texts",
        "data": {"path": str(tmp_path / "texts"), "bad_rows": {"limit": 8}},
        "features": [{"op": "scale", "columns": ["x"]}, {"op": "frequency", "columns": ["word"]}],
    }
    here = {"profile": "local", "workers": 2, "threads": 1, "memory": "2GB"}
    run = worker_killed({**job, "cluster": here}, tmp_path, stage("read"), 0.1, (0,)).run()
    elsewhere = {**job, "cluster": {"profile": "address", "address": scheduler}}
    expected = treadle.run(elsewhere, root=str(tmp_path / "undisturbed"))
    assert (run.table("features").rows, run.table("quarantine").rows) == (8 * 29_999, 8)
    for name in ("quarantine", "features"):
        pd.testing.assert_frame_equal(run.table(name).to_pandas(), expected.table(name).to_pandas())


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("which", [(0,), (1,), (0, 1)], ids=["first", "second", "both"])
@pytest.mark.parametrize(
    ("moment", "delay"),
    [
        (stage("etl"), 0.0),
        (stage("etl"), 0.5),
        (stage("split"), 0.0),
        (stage("split"), 0.1),
        (stage("features"), 0.0),
        (stage("features"), 0.1),
        (stage("train:xgboost"), 0.0),
        (finding_each_other, 0.0),
        (finding_each_other, 0.3),
        (finding_each_other, 0.8),
        (boosting, 0.0),
        (boosting, 1.0),
        (going_on, 0.0),
        (going_on, 0.3),
        (stage("evaluate"), 0.0),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_workers_killed_at_any_moment(
    spec: Spec, undisturbed: Run, tmp_path: Path, moment: Callable[[Driver], None], delay: float, which: tuple[int, ...]
) -> None:
    assert_same_outcome(worker_killed(spec, tmp_path, moment, delay, which).run(), undisturbed)


@pytest.mark.slow
def test_the_only_worker_killed(spec: Spec, tmp_path: Path) -> None:
    alone = {**spec, "cluster": {**spec["cluster"], "workers": 1}}
    run = worker_killed(alone, tmp_path, stage("features"), 0.1, (0,)).run()
    assert run.status == "succeeded"
    assert run.leaderboard["error"].isna().all()
