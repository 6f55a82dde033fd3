"""How soon a real service answers."""

from __future__ import annotations

import http.client
import json
import statistics
import time
from pathlib import Path

import httpx

from tests.jobs.service.served import Served, small_spec, until


def test_submissions_on_one_connection_do_not_wait_for_acknowledgements_of_packets(tmp_path: Path) -> None:
    """Where small packets are held back (Nagle's algorithm), an answer takes 40 ms more, however idle the machine."""
    # Of a scheduler that is not there: jobs are taken, and none is started.
    service = Served(tmp_path, "--scheduler", "tcp://127.0.0.1:9")
    try:
        service.start(wait=False)
        until(lambda: answers(service), 60, lambda: service.said)
        body = json.dumps({"spec": small_spec("pace")})
        connection = http.client.HTTPConnection("127.0.0.1", service.port)
        took = []
        for _ in range(60):
            begun = time.perf_counter()
            connection.request("POST", "/v1/jobs", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            took.append(time.perf_counter() - begun)
            assert answer.status == 201
        connection.close()
    finally:
        service.end()
    # Not the median: the machine may be busy. The first ones are acknowledged at once by the kernel.
    assert statistics.quantiles(took[10:], n=4)[0] < 0.035


def answers(service: Served) -> bool:
    try:
        return service.http.get("/health").status_code == 503
    except httpx.TransportError:
        return False
