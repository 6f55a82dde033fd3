"""Does the steps of an operation over HTTP, and waits as long as they ask for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx

from treadle.jobs.client.steps import Call, Done, Give, Pause, Read, Step, Steps, advanced
from treadle.jobs.client.target import Target


class Connection:
    """A pool of connections to a service. Threads may share it."""

    def __init__(self, target: Target) -> None:
        self._timeout = target.timeout
        self._http = httpx.Client(**target.options())

    def close(self) -> None:
        self._http.close()

    def run[T](self, steps: Steps[T]) -> T:
        """Does an operation to its end, and returns what it returns."""
        walk = _Walk(self._http, self._timeout)
        try:
            step = advanced(steps)
            while not isinstance(step, Done):
                step = advanced(steps, *walk.outcome(step))
            value: T = step.value
            return value
        finally:
            walk.close()

    def each(self, steps: Steps[None]) -> Iterator[Any]:
        """The items that an operation gives, as they come."""
        walk = _Walk(self._http, self._timeout)
        try:
            step = advanced(steps)
            while not isinstance(step, Done):
                if isinstance(step, Give):
                    yield step.item
                step = advanced(steps, *walk.outcome(step))
        finally:
            walk.close()


class _Walk:
    """One operation: at most one body is open at a time."""

    def __init__(self, http: httpx.Client, timeout: float) -> None:
        self._http, self._timeout = http, timeout
        self._open: httpx.Response | None = None
        self._chunks: Iterator[bytes] = iter(())

    def outcome(self, step: Step) -> tuple[Any, httpx.TransportError | None]:
        """What came of a step: its outcome, or the fault of the connection."""
        try:
            match step:
                case Call():
                    return self._sent(step), None
                case Read():
                    return next(self._chunks, b""), None
                case Pause():
                    time.sleep(step.seconds)
        except httpx.TransportError as fault:
            return None, fault
        return None, None

    def _sent(self, call: Call) -> httpx.Response:
        self.close()
        response = self._http.send(request_of(self._http, call, self._timeout), stream=call.stream)
        if call.stream:
            self._open, self._chunks = response, response.iter_bytes()
            if response.is_error:
                response.read()
        return response

    def close(self) -> None:
        if self._open is not None:
            self._open.close()


def request_of(http: httpx.Client | httpx.AsyncClient, call: Call, timeout: float) -> httpx.Request:
    """The HTTP request of a call."""
    return http.build_request(
        call.method,
        call.path,
        params=dict(call.params),
        json=call.json,
        headers=dict(call.headers),
        timeout=httpx.Timeout(timeout, read=timeout + call.wait),
    )
