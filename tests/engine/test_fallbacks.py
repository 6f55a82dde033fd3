"""What workers tell of the host's work comes to the driver, once, and by stage."""

from __future__ import annotations

from typing import Any

from distributed import Client

from treadle.engine.backend import HOST, Backend
from treadle.engine.context import Context
from treadle.engine.fallbacks import told


def work(number: int, backend: Backend) -> int:
    backend.fell_back("tables.0 (window)", "no kernel")
    if number == 3:
        backend.fell_back("tables.1 (join)", "no memory")
    return number


def test_what_workers_tell_is_known_once_when_their_results_are(client: Client) -> None:
    first = Backend("cuda").of_stage("run-1", "etl")
    second = Backend("cuda").of_stage("run-1", "features")
    assert client.gather([client.submit(work, n, first, pure=False) for n in range(5)]) == list(range(5))
    assert told(client, first.topic) == ["tables.0 (window): no kernel", "tables.1 (join): no memory"]
    assert told(client, second.topic) == []
    client.submit(work, 0, second, pure=False).result()
    assert told(client, second.topic) == ["tables.0 (window): no kernel"]


def test_on_the_cpu_and_in_the_driver_nothing_is_told(client: Client) -> None:
    assert Backend().of_stage("run-2", "etl") == Backend()
    there = Backend("cuda").of_stage("run-2", "etl")
    there.fell_back("here", "in the driver")
    assert told(client, there.topic) == []


def test_what_the_driver_knows_is_told_beside_it(client: Client) -> None:
    nothing: Any = None
    for backend in (Backend("cuda").of_stage("run-3", "train"), HOST):
        context = Context(nothing, nothing, backend, client, nothing, "run-3")
        context.fell_back("lightgbm", "no code")
    assert told(client, "treadle/run-3/train") == ["lightgbm: no code"]
    assert told(client, "") == []
