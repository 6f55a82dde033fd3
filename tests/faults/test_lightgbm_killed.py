"""Workers that are killed while LightGBM trains over them, in whole jobs: the outcome is the same."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, LocalCluster

import treadle
from tests.conftest import two_workers
from tests.faults.conftest import Spec, assert_same_outcome
from treadle.jobs.run import Run

pytest.importorskip("lightgbm")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
LOST = "lightgbm: a worker was lost during training, attempt 1; trained again from the start"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with two_workers(tmp_path_factory.mktemp("dask")) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def rows_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers so small that one does not hold the rows would not hold their libraries."""
    monkeypatch.setattr("treadle.engine.training_place.WORKER_SHARE", 1e-6)
    monkeypatch.setattr("treadle.engine.lightgbm_training.BINNED_SHARE", 1e5)


def job(spec: Spec, cluster: LocalCluster) -> Spec:
    models = [{"name": "lightgbm", "params": {"n_estimators": 150}}]
    return {**spec, "models": models, "cluster": {"profile": "address", "address": cluster.scheduler_address}}


@pytest.fixture(scope="module")
def expected(spec: Spec, cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The outcome when nothing goes wrong."""
    with pytest.MonkeyPatch.context() as patch:
        rows_do_not_fit.__wrapped__(patch)  # type: ignore[attr-defined]
        run = treadle.run(job(spec, cluster), root=str(tmp_path_factory.mktemp("undisturbed")))
    assert run.manifest["warnings"] == []
    return run


@pytest.mark.parametrize("which", [(0,), (1,), (0, 1)], ids=["first", "second", "both"])
@pytest.mark.parametrize("delay", [0.0, 0.7])
def test_a_worker_killed_in_training(
    spec: Spec, cluster: LocalCluster, expected: Run, tmp_path: Path, which: tuple[int, ...], delay: float
) -> None:
    killed: list[int] = []
    with Client(cluster.scheduler_address) as client:
        client.wait_for_workers(2, timeout=60)
        workers = [pid for _, pid in sorted(client.run(os.getpid).items())]

    def kill() -> None:
        for place in which:
            os.kill(workers[place], signal.SIGKILL)
            killed.append(workers[place])

    def listener(event: Mapping[str, Any]) -> None:
        if not killed and event.get("note") == "lightgbm: in training on 2 workers":
            killed.append(0)
            threading.Timer(delay, kill).start()

    run = treadle.run(job(spec, cluster), root=str(tmp_path), listener=listener)
    assert len(killed) == 1 + len(which)
    assert run.manifest["warnings"] == [LOST]
    assert_same_outcome(run, expected)
