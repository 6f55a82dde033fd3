"""What the host did of a job on GPUs: workers tell it as it happens, the driver asks at the end of each stage.

It travels as events of the cluster (`distributed`, "structured logs"), beside results: a worker that dies later
has told it, and functions of a partition need not return it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distributed import Client

_TOLD: set[tuple[str, str]] = set()
"""What this process told already: of a thousand partitions that fall back for one reason, one line is enough."""
_LOCK = threading.Lock()
_LISTENERS: list[list[str]] = []
"""Who listens in this process."""


def tell(topic: str, text: str) -> None:
    """On a worker: tells the driver once. Elsewhere, where nobody asks, nothing."""
    from distributed import get_worker

    with _LOCK:
        for heard in _LISTENERS:
            heard.append(text)
        if not topic or (topic, text) in _TOLD:
            return
        _TOLD.add((topic, text))
    try:
        worker = get_worker()
    except ValueError:
        return
    worker.log_event(topic, text)


@contextlib.contextmanager
def listening() -> Iterator[list[str]]:
    """What is told in this process meanwhile, where there is no cluster that would."""
    heard: list[str] = []
    with _LOCK:
        _LISTENERS.append(heard)
    try:
        yield heard
    finally:
        with _LOCK:
            _LISTENERS.remove(heard)


def told(client: Client, topic: str) -> list[str]:
    """What all workers told under a topic, each text once, in order."""
    return sorted({text for _, text in client.get_events(topic)})
