"""A bell that wakes whoever waits for something to happen, on threads and in coroutines."""

from __future__ import annotations

import asyncio
import contextlib
import threading


class Bell:
    """Counts its rings; who waits gives the count that it has seen, so that no ring is missed."""

    def __init__(self) -> None:
        self.count = 0
        self._rung = threading.Condition()
        self._listeners: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    def ring(self) -> None:
        """From any thread."""
        with self._rung:
            self.count += 1
            self._rung.notify_all()
            for loop, event in self._listeners:
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    loop.call_soon_threadsafe(event.set)

    def wait(self, seen: int, seconds: float) -> int:
        """The count, when it is another than `seen` or the time is up."""
        with self._rung:
            self._rung.wait_for(lambda: self.count != seen, seconds)
            return self.count

    async def heard(self, seen: int, seconds: float) -> int:
        """As `wait`, in a coroutine."""
        listener = (asyncio.get_running_loop(), asyncio.Event())
        with self._rung:
            if self.count != seen:
                return self.count
            self._listeners.add(listener)
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(listener[1].wait(), seconds)
        finally:
            with self._rung:
                self._listeners.discard(listener)
        return self.count
