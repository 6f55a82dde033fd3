"""When a request is tried again, and how long a client waits before."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

BUSY = frozenset({429, 503})
"""Statuses that say: not now."""
LONGEST = 8.0
"""Seconds between two tries, unless the service asks for more."""
LONGEST_ASKED = 60.0
"""Seconds that a service may ask for."""
FIRST = 0.25


@dataclass(frozen=True)
class Policy:
    """How often a request is tried again after a fault of the connection or a busy service."""

    retries: int = 5

    @property
    def patient(self) -> Policy:
        """For waiting and following, which are to outlive a restart of the service."""
        return replace(self, retries=5 * self.retries)

    def delay(self, tried: int, asked: float | None = None) -> float:
        """Seconds to wait after `tried` tries: doubled each time, shortened by chance up to a half.

        The chance keeps clients apart that lost the same service. No less than the service `asked`.
        """
        longest = min(LONGEST, FIRST * 2.0 ** min(tried - 1, 30))
        return max(longest * random.uniform(0.5, 1), min(asked or 0.0, LONGEST_ASKED))


def retry_after(value: str | None) -> float | None:
    """Seconds of a header Retry-After, which is a number or a date; None when it is neither."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            when = parsedate_to_datetime(value)
        except ValueError:
            return None
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        seconds = (when - datetime.now(UTC)).total_seconds()
    return max(seconds, 0.0) if math.isfinite(seconds) else None
