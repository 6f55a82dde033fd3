"""Tasks whose workers die again and again, or leave others waiting: an end with a message, and never a hang."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import dask
import pytest
from distributed import Client, Future

from treadle.cluster.launch import open_cluster
from treadle.cluster.profiles import Local
from treadle.engine import recovery
from treadle.engine.backend import Backend
from treadle.engine.context import Context
from treadle.engine.events import Events
from treadle.engine.job import Data, Job
from treadle.engine.recovery import WorkerLost, persistently
from treadle.engine.store import Store
from treadle.errors import TreadleError

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        open_cluster(Local(workers=2, threads=1, memory="1GB")) as client,
    ):
        yield client


@pytest.fixture
def context(client: Client, tmp_path: Path) -> Iterator[Context]:
    store = Store(str(tmp_path))
    events = Events(store, "run")
    client.wait_for_workers(2, timeout=60)
    yield Context(Job(name="lost", data=Data(path="none")), store, Backend(), client, events, "run", stage="features")
    events.close()


def test_a_task_that_kills_its_workers_ends_in_a_message(context: Context) -> None:
    with pytest.raises(TreadleError, match="features: 2 workers died over the same partition, most likely for want of"):
        context.gather(context.submit(os._exit, [1]))


def test_all_workers_die_at_once(context: Context) -> None:
    """The tasks are done by the workers that replace them."""
    tasks = context.submit(time.sleep, [0.3] * 6)
    for pid in context.client.run(os.getpid).values():
        os.kill(pid, signal.SIGKILL)
    assert context.gather(tasks) == [None] * 6


@pytest.mark.slow
def test_a_task_that_waits_for_a_dead_worker_is_ended(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """What XGBoost's tasks do when one of them dies before they have found each other."""
    monkeypatch.setattr(recovery, "GRACE_SECONDS", 0.5)
    attempts: list[list[str]] = []

    def submit(workers: list[str]) -> list[Future]:
        attempts.append(workers)
        first = len(attempts) == 1
        waits, dies = (time.sleep, os._exit) if first else (abs, abs)
        return [
            context.client.submit(waits, 600 if first else 41, workers=[workers[0]], pure=False),
            context.client.submit(dies, 1, workers=[workers[1]], pure=False),
        ]

    told: list[int] = []
    started = time.monotonic()
    assert persistently(context, submit, told.append) == 41
    assert time.monotonic() - started < 60
    assert told == [1]
    assert not set(attempts[0]) & set(attempts[1])
    assert len(attempts[1]) == 2
    assert not context.client.processing()[attempts[1][0]]


def test_workers_that_die_in_every_attempt(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "ATTEMPTS", 2)

    def submit(workers: list[str]) -> list[Future]:
        return [context.client.submit(os._exit, 1, workers=[workers[0]], pure=False)]

    told: list[int] = []
    with pytest.raises(WorkerLost, match="a worker died in each of 2 attempts, most likely for want of memory"):
        persistently(context, submit, told.append)
    assert told == [1]


def test_a_mistake_is_not_tried_again(context: Context) -> None:
    def submit(workers: list[str]) -> list[Future]:
        return [context.client.submit(int, "x", workers=[worker], pure=False) for worker in workers]

    told: list[int] = []
    with pytest.raises(ValueError, match="invalid literal"):
        persistently(context, submit, told.append)
    assert told == []
