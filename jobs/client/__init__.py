"""The job service from Python: `Client` and `AsyncClient`, their jobs, and what can go wrong."""

from __future__ import annotations

from treadle.jobs.client.async_client import AsyncClient, AsyncJob
from treadle.jobs.client.client import Client, Job
from treadle.jobs.client.errors import (
    Conflict,
    JobFailed,
    NotFound,
    Refused,
    ServiceError,
    ServiceUnreachable,
    SpecRefused,
    StillRunning,
)
from treadle.jobs.client.streams import Event

__all__ = [
    "AsyncClient", "AsyncJob", "Client", "Conflict", "Event", "Job", "JobFailed", "NotFound", "Refused",
    "ServiceError", "ServiceUnreachable", "SpecRefused", "StillRunning",
]  # fmt: skip
