"""The operations of the HTTP API, as steps: requests, retries, reconnecting, and what answers mean."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from treadle.errors import RequestError, did_you_mean, listed
from treadle.jobs.client.answers import busy, error_of, is_untrusted, parsed, parsed_json, unreachable
from treadle.jobs.client.errors import Conflict, NotFound, ServiceError, StillRunning
from treadle.jobs.client.policy import BUSY, Policy, retry_after
from treadle.jobs.client.steps import Call, Give, Pause, Read, Steps
from treadle.jobs.client.streams import Lines, ServerSentEvents
from treadle.jobs.client.target import Target
from treadle.jobs.service.views import (
    ClusterView,
    Health,
    JobDetails,
    JobPage,
    JobView,
    Retry,
    Schedule,
    ScheduleView,
    Submission,
)

WAIT = 30.0
"""Seconds that the service is asked to wait at a time."""
PAGE = 500
"""Jobs that are asked for at a time when all of them are wanted: the most the service gives."""
GATEWAY = frozenset({502, 504})
"""What a proxy says when it did not get, or has lost, the service's answer."""
LOG_SIZE = "X-Log-Size"
"""Header with the bytes that a log has, of which an answer may hold some."""
BREATH = 0.2
"""Seconds between two questions that the service answers at once."""


@dataclass(frozen=True)
class Api:
    """A service, and how often it is asked again."""

    target: Target
    policy: Policy

    def _reliably(self, call: Call, policy: Policy | None = None, deadline: float | None = None) -> Steps[Any]:
        """The response to a call, tried again after faults; everything that is called so may be done twice."""
        retries, tried, repeated = (policy or self.policy).retries, 0, False
        while True:
            tried += 1
            asked, failure = None, None
            try:
                response: httpx.Response = yield call
            except httpx.TransportError as fault:
                failure = unreachable(self.target, fault, tried)
                failure.__cause__ = fault
                if is_untrusted(fault) or isinstance(fault, httpx.LocalProtocolError | httpx.UnsupportedProtocol):
                    raise failure from fault
                repeated |= not isinstance(fault, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
            else:
                if response.is_success or response.status_code in call.answers:
                    return response
                if response.status_code not in BUSY | GATEWAY:
                    error = error_of(response, self.target)
                    error.repeated = repeated
                    raise error
                failure = busy(response, self.target, tried)
                repeated |= response.status_code in GATEWAY
                asked = retry_after(response.headers.get("Retry-After"))
            pause = (policy or self.policy).delay(tried, asked)
            if tried > retries or (deadline is not None and time.monotonic() + pause > deadline):
                raise failure
            yield Pause(pause)

    def _document(self, model: Any, call: Call, policy: Policy | None = None) -> Steps[Any]:
        return parsed(model, (yield from self._reliably(call, policy)), self.target)

    # jobs

    def submit(self, submission: Submission) -> Steps[JobView]:
        body = submission.model_dump(mode="json")
        return (yield from self._document(JobView, Call("POST", "/v1/jobs", json=body)))

    def job(self, job_id: str) -> Steps[JobDetails]:
        return (yield from self._document(JobDetails, Call("GET", _path(job_id))))

    def find(self, start: str) -> Steps[JobView]:
        """The job with this id, or the only one whose id starts so."""
        try:
            found: JobDetails = yield from self.job(start)
            return found
        except NotFound:
            ids: dict[str, JobView] = {}
            yield from self._pages({"limit": PAGE}, lambda view: ids.setdefault(view.id, view))
        near = [name for name in ids if name.startswith(start)]
        if len(near) == 1:
            return ids[near[0]]
        if near:
            raise RequestError(f"{len(near)} jobs start with '{start}': [{listed(near)}]. Give more of the id.")
        raise NotFound(
            f"There is no job '{start}' at {self.target.url}. Newest: [{listed(ids, 5)}].{did_you_mean(start, ids)}",
            404,
        )

    def jobs(self, wanted: Mapping[str, Any], limit: int | None) -> Steps[None]:
        """Gives jobs, the newest first, at most `limit` of them."""
        given, cursor = 0, None
        while limit is None or given < limit:
            size = min(PAGE, PAGE if limit is None else limit - given)
            page = yield from self._page({**wanted, "limit": size}, cursor)
            for view in page.jobs:
                yield Give(view)
            given, cursor = given + len(page.jobs), page.next
            if cursor is None:
                return

    def _pages(self, wanted: Mapping[str, Any], taken: Callable[[JobView], Any]) -> Steps[None]:
        cursor = None
        while True:
            page = yield from self._page(wanted, cursor)
            for view in page.jobs:
                taken(view)
            cursor = page.next
            if cursor is None:
                return

    def _page(self, wanted: Mapping[str, Any], cursor: str | None) -> Steps[JobPage]:
        params = {**wanted, **({"cursor": cursor} if cursor else {})}
        return (yield from self._document(JobPage, Call("GET", "/v1/jobs", params)))

    def cancel(self, job_id: str) -> Steps[JobView]:
        return (yield from self._document(JobView, Call("POST", f"{_path(job_id)}/cancel")))

    def retry(self, job_id: str, fresh: bool) -> Steps[JobView]:
        body = Retry(fresh=fresh).model_dump()
        try:
            return (yield from self._document(JobView, Call("POST", f"{_path(job_id)}/retry", json=body)))
        except Conflict as conflict:
            view = yield from self.job(job_id)
            if not conflict.repeated or view.state.is_terminal:
                raise
            return view  # an earlier try came through, and only its answer was lost

    def wait(self, job_id: str, timeout: float | None) -> Steps[JobView]:
        """The job when it is done. StillRunning when that takes longer than `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            asked = time.monotonic()
            seconds = WAIT if deadline is None else min(WAIT, max(deadline - asked, 0.0))
            call = Call("GET", f"{_path(job_id)}/wait", {"timeout": f"{seconds:.3f}"}, wait=seconds)
            response = yield from self._reliably(call, self.policy.patient, deadline)
            view = parsed(JobView, response, self.target)
            if view.state.is_terminal:
                return view
            if deadline is not None and time.monotonic() >= deadline:
                raise StillRunning(view)
            if time.monotonic() - asked < seconds / 2:
                yield Pause(BREATH)

    # what a job says

    def log(self, job_id: str, offset: int = 0) -> Steps[bytes]:
        """The log from a byte on, which the service gives in parts of a size that it chooses."""
        parts: list[bytes] = []
        size: int | None = None
        while True:
            params = {"offset": offset, "follow": "false"}
            response = yield from self._reliably(Call("GET", f"{_path(job_id)}/logs", params))
            part: bytes = response.content
            parts.append(part)
            offset += len(part)
            # As long as it was at first: it may grow faster than it is asked for.
            size = int(response.headers.get(LOG_SIZE, "0")) if size is None else size
            if not part or offset >= size:
                return b"".join(parts)

    def follow_log(self, job_id: str) -> Steps[None]:
        """Gives the lines of a log until the job is done, over as many connections as it takes."""
        lines, offset, faults = Lines(), 0, 0
        while True:
            params = {"offset": offset, "follow": "true"}
            call = Call("GET", f"{_path(job_id)}/logs", params, stream=True)
            yield from self._reliably(call, self.policy.patient)
            cut: httpx.TransportError | None = None
            try:
                while chunk := (yield Read()):
                    offset, faults = offset + len(chunk), 0
                    for line in lines.feed(chunk):
                        yield Give(line)
            except httpx.TransportError as fault:
                cut = fault
            view = yield from self._document(JobDetails, Call("GET", _path(job_id)), self.policy.patient)
            if view.state.is_terminal:
                for line in [*lines.feed((yield from self.log(job_id, offset))), *lines.rest()]:
                    yield Give(line)
                return
            faults = yield from self._again(cut, faults)

    def events(self, job_id: str, follow: bool) -> Steps[None]:
        """Gives the events of a job from its first; with `follow` until it is done."""
        last, faults = "", 0
        while True:
            headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last} if last else {})}
            params = {"follow": "true" if follow else "false"}
            call = Call("GET", f"{_path(job_id)}/events", params, headers=headers, stream=True)
            yield from self._reliably(call, self.policy.patient)
            parser, cut = ServerSentEvents(), None
            try:
                while chunk := (yield Read()):
                    faults = 0
                    for event in parser.feed(chunk):
                        last = event.id or last
                        yield Give(event)
                        if event.kind == "end":
                            return
            except httpx.TransportError as fault:
                cut = fault
            if cut is None and not follow:
                return
            faults = yield from self._again(cut, faults)

    def _again(self, cut: httpx.TransportError | None, faults: int) -> Steps[int]:
        """A breath before a stream is opened again; the number of times in a row that it brought nothing."""
        if isinstance(cut, httpx.ReadTimeout):  # nothing was said for a while, as of a long stage
            return faults
        if faults >= self.policy.patient.retries:
            raise unreachable(self.target, cut or httpx.ReadError("it ends every stream at once"), faults + 1)
        yield Pause(self.policy.delay(faults + 1))
        return faults + 1

    # results

    def manifest(self, job_id: str) -> Steps[dict[str, Any]]:
        return parsed_json((yield from self._reliably(Call("GET", f"{_path(job_id)}/manifest"))), self.target)

    def table(self, job_id: str, name: str, columns: list[str] | None) -> Steps[bytes]:
        """A table of the job's run, as an Arrow IPC stream."""
        params = {} if columns is None else {"columns": columns}
        call = Call("GET", f"{_path(job_id)}/tables/{quote(name, safe='')}", params)
        return (yield from self._reliably(call)).content

    # the service

    def plan(self, spec: Mapping[str, Any]) -> Steps[dict[str, Any]]:
        call = Call("POST", "/v1/plan", json={"spec": spec}, wait=WAIT)
        return parsed_json((yield from self._reliably(call)), self.target)

    def cluster(self) -> Steps[ClusterView]:
        return (yield from self._document(ClusterView, Call("GET", "/v1/cluster")))

    def health(self) -> Steps[Health]:
        return (yield from self._document(Health, Call("GET", "/health", answers=frozenset({503}))))

    def schedules(self) -> Steps[list[ScheduleView]]:
        response = yield from self._reliably(Call("GET", "/v1/schedules"))
        found = parsed_json(response, self.target).get("schedules")
        if not isinstance(found, list):
            raise ServiceError(f"{self.target.url} answered no list of schedules; is it a Treadle service?")
        return [ScheduleView.model_validate(one, extra="ignore") for one in found]

    def schedule(self, schedule: Schedule) -> Steps[ScheduleView]:
        call = Call("PUT", f"/v1/schedules/{quote(schedule.name, safe='')}", json=schedule.model_dump(mode="json"))
        return (yield from self._document(ScheduleView, call))

    def unschedule(self, name: str) -> Steps[None]:
        try:
            yield from self._reliably(Call("DELETE", f"/v1/schedules/{quote(name, safe='')}"))
        except NotFound as missing:
            if not missing.repeated:
                raise


def _path(job_id: str) -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}"
