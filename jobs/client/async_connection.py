"""As `connection.py`, for programs that use asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx

from treadle.jobs.client.connection import request_of
from treadle.jobs.client.steps import Call, Done, Give, Pause, Read, Step, Steps, advanced
from treadle.jobs.client.target import Target


class AsyncConnection:
    """A pool of connections to a service. Tasks of one event loop may share it."""

    def __init__(self, target: Target) -> None:
        self._timeout = target.timeout
        self._http = httpx.AsyncClient(**target.options())

    async def close(self) -> None:
        await self._http.aclose()

    async def run[T](self, steps: Steps[T]) -> T:
        """Does an operation to its end, and returns what it returns."""
        walk = _Walk(self._http, self._timeout)
        try:
            step = advanced(steps)
            while not isinstance(step, Done):
                step = advanced(steps, *await walk.outcome(step))
            value: T = step.value
            return value
        finally:
            await walk.close()

    async def each(self, steps: Steps[None]) -> AsyncIterator[Any]:
        """The items that an operation gives, as they come."""
        walk = _Walk(self._http, self._timeout)
        try:
            step = advanced(steps)
            while not isinstance(step, Done):
                if isinstance(step, Give):
                    yield step.item
                step = advanced(steps, *await walk.outcome(step))
        finally:
            await walk.close()


class _Walk:
    """One operation: at most one body is open at a time."""

    def __init__(self, http: httpx.AsyncClient, timeout: float) -> None:
        self._http, self._timeout = http, timeout
        self._open: httpx.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None

    async def outcome(self, step: Step) -> tuple[Any, httpx.TransportError | None]:
        """What came of a step: its outcome, or the fault of the connection."""
        try:
            match step:
                case Call():
                    return await self._sent(step), None
                case Read():
                    return await anext(self._chunks, b"") if self._chunks else b"", None
                case Pause():
                    await asyncio.sleep(step.seconds)
        except httpx.TransportError as fault:
            return None, fault
        return None, None

    async def _sent(self, call: Call) -> httpx.Response:
        await self.close()
        response = await self._http.send(request_of(self._http, call, self._timeout), stream=call.stream)
        if call.stream:
            self._open, self._chunks = response, response.aiter_bytes()
            if response.is_error:
                await response.aread()
        return response

    async def close(self) -> None:
        if self._open is not None:
            await self._open.aclose()
