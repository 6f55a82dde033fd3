"""What a client does, as steps that need no network: one truth for `Client` and `AsyncClient`.

An operation is a generator. It yields what it wants to be done, is sent the outcome, and is thrown
the faults of connections; `connection.py` and `async_connection.py` do what it wants. So paths,
documents, retries and reconnecting are written once.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx


@dataclass(frozen=True)
class Call:
    """A request; the outcome is its httpx.Response."""

    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    json: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    wait: float = 0.0
    """Seconds that the service takes on purpose, besides those it has to answer."""
    stream: bool = False
    """Whether the body is read by `Read`."""
    answers: frozenset[int] = frozenset()
    """Statuses of errors that are answers here."""


@dataclass(frozen=True)
class Read:
    """More of the body of the last streamed call; the outcome is bytes, none at its end."""


@dataclass(frozen=True)
class Pause:
    """Nothing for some seconds."""

    seconds: float


@dataclass(frozen=True)
class Give:
    """Hands an item to whoever iterates."""

    item: Any


@dataclass(frozen=True)
class Done:
    """The operation has ended with this."""

    value: Any


type Step = Call | Read | Pause | Give
type Steps[T] = Generator[Step, Any, T]


def advanced(steps: Steps[Any], outcome: Any = None, fault: httpx.TransportError | None = None) -> Step | Done:
    """The next step after the outcome, or the fault, of the one before."""
    try:
        return steps.throw(fault) if fault is not None else steps.send(outcome)
    except StopIteration as end:
        return Done(end.value)
