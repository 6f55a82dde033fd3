"""`treadle gc` without any grace, in a process of its own, beside runs in others."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

import treadle
from tests.conftest import people_spec, write_people
from tests.faults.driver import Driver, until
from treadle.engine.store import Store
from treadle.jobs.gc import holding
from treadle.jobs.gc.collect import collect
from treadle.jobs.gc.rules import Rules
from treadle.jobs.run import load_run

EVERYTHING = Rules(older_than=0.0, grace=0.0, keep_runs=1, max_size=0)
LOOP = """
import sys, time
from tests.faults.test_gc_races import EVERYTHING
from treadle.jobs.gc.collect import collect
root, removed = sys.argv[1], 0
while True:
    removed += len(collect(root, EVERYTHING).removals)
    print(removed, flush=True)
    time.sleep(0.02)
"""


@contextlib.contextmanager
def gc_loop(root: Path) -> Iterator[list[int]]:
    """A process that does nothing but gc; afterwards how much each of its turns had removed in all."""
    root.mkdir(parents=True, exist_ok=True)
    turns: list[int] = []
    with subprocess.Popen(
        [sys.executable, "-c", LOOP, str(root)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            turns.append(int(process.stdout.readline()))  # it is at work
            yield turns
            assert process.poll() is None, process.communicate()[1]
        finally:
            process.send_signal(signal.SIGKILL)
            turns += [int(line) for line in process.communicate()[0].splitlines() if line.isdigit()]


def repeat(specs: list[dict[str, Any]], times: int) -> None:
    """Runs specs in turn, and reads what each run has made by deltalake alone, before anything else runs."""
    for number in range(times):
        run = treadle.run(specs[number % len(specs)])
        assert run.status == "succeeded"
        for table in run.tables.values():
            rows = DeltaTable(table.path, version=table.version).to_pyarrow_table().num_rows
            assert rows == table.rows > 0
        if run.manifest["model"]:
            run.model.verify()


def rows_spec(people: Path, root: Path, scheduler: str) -> dict[str, Any]:
    spec = people_spec(people, root, scheduler, tables=[{"op": "filter", "sql": "age > 30"}], name="rows")
    return {key: value for key, value in spec.items() if key not in ("features", "split", "models", "metric")}


def test_gc_beside_runs_that_repeat_a_job(tmp_path: Path, scheduler: str) -> None:
    root = tmp_path / "artifacts"
    spec = rows_spec(write_people(tmp_path / "people.parquet", rows=100), root, scheduler)
    other = {**spec, "tables": [{"op": "filter", "sql": "age > 40"}]}
    repeat([spec], 1)
    with gc_loop(root) as turns:
        repeat([spec, spec, other], 6)
        until("gc to remove the rest", lambda: True if is_bare(root) else None)
    assert turns[-1] > turns[0]


def is_bare(root: Path) -> bool:
    """Whether gc has left one run, and nothing of the cache."""
    return len(Store(str(root)).list("runs")) == 1 and not list(root.glob("stages/etl-*"))


@pytest.mark.slow
def test_gc_beside_many_runs_of_models(tmp_path: Path, scheduler: str) -> None:
    root = tmp_path / "artifacts"
    people = write_people(tmp_path / "people.parquet", rows=200)
    model = people_spec(people, root, scheduler)
    pinned = {**rows_spec(people, root, scheduler), "name": "pinned"}
    with gc_loop(root) as turns:
        repeat([model, model, {**model, "seed": 9}, rows_spec(people, root, scheduler)], 24)
        table = str(root / "tables/people/features")
        version = DeltaTable(table).version()
        repeat([{**pinned, "data": {"path": table, "version": version}, "tables": []}], 4)
    assert turns[-1] > 0


@pytest.mark.slow
def test_a_driver_that_lives_is_spared_and_one_that_was_killed_is_not(spec: dict[str, Any], tmp_path: Path) -> None:
    with Driver(spec, tmp_path) as driver:
        driver.wait_for("train:xgboost", "started")
        root = str(driver.root)
        store = Store(root)
        assert [run.run for run in holding.live_runs(store, time.time())] == [driver.folder.name]  # type: ignore[union-attr]
        told = collect(root, EVERYTHING)
        assert told.live
        assert told.removals == ()
        driver.strike(signal.SIGKILL)
        driver.finish()
        driver.wait_until_gone(60)
        assert holding.live_runs(store, time.time()) == []
        said = json.loads((driver.folder / holding.RUNNING).read_text())  # type: ignore[operator]
        assert said["stages"].keys() >= {"read", "features", "train:xgboost"}
        told = collect(root, Rules(grace=0.0))
        assert "unfinished run" in {one.what for one in told.removals}
        assert "outcome" not in {one.what for one in told.removals}
    with Driver(spec, tmp_path) as again:
        outcome = again.finish()
        assert outcome.status == 0, outcome.err
        assert again.statuses()["features"] == "cached"
        assert collect(root, EVERYTHING).live == ()
        assert load_run(root, again.run().id).table("predictions").to_arrow().num_rows > 0
