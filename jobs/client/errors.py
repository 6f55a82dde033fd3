"""What can go wrong between a client and the service, and with a job that it waits for.

A request that came to nothing is a `ServiceError` (exit status 2). `JobFailed` is what became of
a job (exit status 1), `StillRunning` that the time to wait for it is up (exit status 124).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from treadle.errors import RequestError, TreadleError

if TYPE_CHECKING:
    from treadle.jobs.service.states import State
    from treadle.jobs.service.views import JobView


class ServiceError(RequestError):
    """The service did not do what it was asked for; `status` is its HTTP status, None when it did not answer."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.repeated = False
        """Whether an earlier try of the same request may have reached the service."""


class ServiceUnreachable(ServiceError):
    """No service answers at the address, or it was too busy each time that it was asked."""


class Refused(ServiceError):
    """The token is missing or not known, or does not allow this (401, 403)."""


class NotFound(ServiceError):
    """There is no such job, table or schedule (404)."""


class Conflict(ServiceError):
    """The job's state, or an earlier submission with the same id, does not allow it (409)."""


class SpecRefused(ServiceError):
    """The service finds mistakes in the spec or in an option (422): `problems` names all of them."""

    def __init__(self, message: str, problems: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(message, 422)
        self.problems = tuple(problems)
        """Each with `path`, `message` and `value`."""


class JobFailed(TreadleError):
    """The job came to another end than success: `state` and `reason` say which, `view` is all that is known."""

    def __init__(self, view: JobView) -> None:
        super().__init__(f"Job {view.id} {_ENDS[view.state.value]}: {view.reason}")
        self.view = view
        self.state: State = view.state
        self.reason: str = view.reason


class StillRunning(TreadleError, TimeoutError):
    """The time to wait is up. The job goes on: wait again, or cancel it."""

    def __init__(self, view: JobView) -> None:
        super().__init__(f"Job {view.id} is still {view.state.value}, and the time to wait is up; it goes on.")
        self.view = view


_ENDS = {
    "failed": "failed",
    "cancelled": "was cancelled",
    "timed_out": "took too long",
    "lost": "was lost",
}
