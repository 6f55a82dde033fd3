"""Clients that send too much, too slowly or too often: they are refused, and keep nobody else out."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn

from tests.jobs.service.inside import Inside, inside
from tests.jobs.service.served import START_SECONDS, free_port, raw, until
from treadle.jobs.service import serve
from treadle.jobs.service.http import guards
from treadle.jobs.service.pace import CLIENTS, Pace


@contextlib.contextmanager
def listening(one: Inside) -> Iterator[int]:
    """The app behind the service's own protocol and options, on a port of loopback."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(one.app, port=port, **serve._options(one.service.settings)))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started, START_SECONDS)
        yield port
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def impatient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A port of a service with less patience than usual."""
    monkeypatch.setattr(serve, "HEAD_SECONDS", 1.0)
    monkeypatch.setattr(guards, "BODY_SECONDS", 1.0)
    monkeypatch.setattr(serve, "CONNECTIONS", 20)
    with inside(tmp_path, max_body=10_000) as one, listening(one) as port:
        yield port


HEAD = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def test_bodies_that_are_too_large_are_refused(impatient: int) -> None:
    declared = raw(impatient, HEAD + b"Content-Length: 10001\r\nConnection: close\r\n\r\n")
    assert declared.split()[1] == b"413"
    huge = raw(impatient, HEAD + b"Content-Length: " + b"9" * 19 + b"\r\nConnection: close\r\n\r\n")
    assert huge.split()[1] in (b"400", b"413")
    chunked = [
        HEAD + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
        *[b"1000\r\n" + b"x" * 4096 + b"\r\n"] * 3,
    ]
    assert raw(impatient, *chunked).split()[1] == b"413"
    both = raw(impatient, HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    assert both.split()[1] == b"400"
    for wrong in (b"-1", b"2,3", b"+2", b"0x2"):
        assert raw(impatient, HEAD + b"Content-Length: " + wrong + b"\r\n\r\n{}").split()[1] == b"400"


def test_a_body_that_is_shorter_or_longer_than_it_says_is_not_waited_for(impatient: int) -> None:
    begun = time.monotonic()
    assert raw(impatient, HEAD + b"Content-Length: 100\r\n\r\n{}").split()[1] == b"408"
    longer = raw(impatient, HEAD + b"Content-Length: 2\r\n\r\n{}GET /v1/jobs HTTP/1.1\r\nHost: evil.example\r\n\r\n")
    assert longer.split()[1] == b"422"
    assert b"HTTP/1.1 400" in longer  # the rest is another request, which is judged by itself
    assert time.monotonic() - begun < 10


@pytest.mark.slow
def test_slow_clients_are_hung_up_on(impatient: int) -> None:
    drips: dict[str, tuple[bytes, ...]] = {
        "silence": (),
        "a head that stops": (b"GET /health HTTP/1.1\r\nHo",),
        "a head in drips": (b"GET /health HTTP/1.1\r\n", *[b"X: y\r\n"] * 20),
        "empty lines": (b"GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\n\r\n", *[b"\r\n"] * 20),
        "a body in drips": (HEAD + b"Content-Length: 100\r\n\r\n", *[b" "] * 20),
    }
    for name, parts in drips.items():
        begun = time.monotonic()
        raw(impatient, *parts, pause=0.2 if len(parts) > 1 else 0.0)
        assert time.monotonic() - begun < 6, name


def test_an_endless_head_is_not_kept(impatient: int) -> None:
    with socket.create_connection(("127.0.0.1", impatient), timeout=20) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nX: ")
        with pytest.raises(ConnectionError):
            connection.sendall(b"x" * 2**25)


def test_floods_of_connections_do_not_keep_others_out(impatient: int) -> None:
    url = f"http://127.0.0.1:{impatient}/v1/jobs"
    slow_body = HEAD + b"Content-Length: 100\r\n\r\n{"
    with contextlib.ExitStack() as flood:
        for number in range(100):
            one = flood.enter_context(socket.create_connection(("127.0.0.1", impatient)))
            one.sendall(slow_body if number % 2 else b"GET /")
            if number % 10 == 0:
                assert httpx.get(url, timeout=5).status_code == 200, number
        assert httpx.get(url, timeout=5).status_code == 200


def test_bad_bytes_do_no_harm(impatient: int) -> None:
    for text in (b"\0" * 100, b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/9.9\r\n\r\n", b"GET \xff HTTP/1.1\r\n\r\n",
                 b"GET /v1/jobs/%ff%fe HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
                 b"GET http://evil.example/v1/jobs HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
                 b"GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\n"
                 b"Sec-WebSocket-Key: eA==\r\nSec-WebSocket-Version: 13\r\n\r\n"):  # fmt: skip
        answer = raw(impatient, text)
        assert not answer or answer.split()[1] in (b"200", b"400", b"404", b"422"), (text, answer)
    assert httpx.get(f"http://127.0.0.1:{impatient}/v1/jobs").status_code == 200


def test_a_client_that_asks_too_often_is_told_when_to_come_again(tmp_path: Path) -> None:
    with inside(tmp_path, requests_a_minute=60) as one:
        answers = [one.ask("GET", "/v1/jobs") for _ in range(8)]
    assert [answer.status_code for answer in answers] == [200] * 6 + [429] * 2
    assert int(answers[-1].headers["Retry-After"]) >= 1


def test_the_pace_is_each_clients_own_and_comes_back() -> None:
    now = 0.0
    pace = Pace(60, lambda: now)
    assert sum(pace.allows("a") for _ in range(100)) == 6
    assert pace.allows("b")
    now += 3
    assert sum(pace.allows("a") for _ in range(100)) == 3
    for number in range(20_000):
        pace.allows(f"other-{number}")
    assert len(pace._left) <= CLIENTS
