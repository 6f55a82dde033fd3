"""How often somebody may do something."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

CLIENTS = 10_000
"""Those whose pace is remembered."""


class Pace:
    """So many a minute of each client, and a tenth of them at once."""

    def __init__(self, a_minute: float, clock: Callable[[], float]) -> None:
        self._a_second = a_minute / 60
        self._burst = max(a_minute / 10, 1.0)
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allows(self, client: str) -> bool:
        """Whether one more is allowed now; it counts when it is."""
        now = self._clock()
        left, seen = self._left.pop(client, (self._burst, now))
        left = min(self._burst, left + (now - seen) * self._a_second)
        allowed = left >= 1
        self._left[client] = (left - 1 if allowed else left, now)
        if len(self._left) > CLIENTS:
            self._left.popitem(last=False)
        return allowed
