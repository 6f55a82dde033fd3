"""Submitting jobs, looking at them, and having them stopped or tried again."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

from fastapi import APIRouter, Body, Path, Query, Response
from fastapi.concurrency import run_in_threadpool

from treadle.errors import RequestError, TreadleError
from treadle.jobs.service.http.callers import Here, Reader, Submitter
from treadle.jobs.service.http.problems import RESPONSES
from treadle.jobs.service.service import Service
from treadle.jobs.service.states import State
from treadle.jobs.service.views import Document, JobDetails, JobPage, JobView, Retry, Submission

router = APIRouter(prefix="/v1", tags=["jobs"], responses=RESPONSES)

JobId = Annotated[str, Path(max_length=200, pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$")]
CHECK_SECONDS = 5.0
"""Between looks at a job that is waited for, if no bell rings."""


class PlanRequest(Document):
    """A spec whose plan is wanted."""

    spec: dict[str, Any]


@router.post("/jobs", status_code=201, responses={200: {"model": JobView, "description": "It was known"}})
def submit(submission: Submission, service: Here, caller: Submitter, response: Response) -> JobView:
    """Queues a job. It is on disk when this is answered; 200 instead of 201 when the submission was known."""
    view, new = service.submit(submission, caller.name)
    response.headers["Location"] = f"/v1/jobs/{view.id}"
    if new:
        service.access.note(caller.name, "submit", view.id, view.name)
    else:
        response.status_code = 200
    return view


@router.get("/jobs")
def jobs(
    service: Here,
    _caller: Reader,
    state: Annotated[list[State] | None, Query(max_length=10)] = None,
    name: Annotated[str | None, Query(max_length=200)] = None,
    user: Annotated[str | None, Query(max_length=128)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(max_length=20)] = None,
) -> JobPage:
    """Jobs, the newest first."""
    return service.store.page(state or (), name, user, limit, cursor)


@router.get("/jobs/{job}")
def job(job: JobId, service: Here, _caller: Reader) -> JobDetails:
    """A job with its spec and the steps of its life."""
    return service.store.details(job)


@router.get("/jobs/{job}/wait")
async def wait(
    job: JobId,
    service: Here,
    _caller: Reader,
    timeout: Annotated[float, Query(ge=0, le=60, allow_inf_nan=False)] = 30.0,
) -> JobView:
    """The job as soon as it has ended, or when the seconds are up."""
    deadline = time.monotonic() + timeout
    while True:
        seen = service.bell.count
        view = await run_in_threadpool(service.store.view, job)
        left = deadline - time.monotonic()
        if view.state.is_terminal or left <= 0 or service.closing.is_set():
            return view
        await service.bell.heard(seen, min(left, CHECK_SECONDS))


@router.post("/jobs/{job}/cancel", responses={202: {"model": JobView, "description": "It is being stopped"}})
def cancel(job: JobId, service: Here, caller: Submitter, response: Response) -> JobView:
    """Has a job stopped."""
    view = service.cancel(job, caller.name)
    service.access.note(caller.name, "cancel", job, view.state)
    if not view.state.is_terminal:
        response.status_code = 202
    return view


@router.post("/jobs/{job}/retry")
def retry(job: JobId, service: Here, caller: Submitter, how: Annotated[Retry | None, Body()] = None) -> JobView:
    """Queues a job again that did not succeed; it goes on from its last finished stage."""
    view = service.retry(job, caller.name, (how or Retry()).fresh)
    service.access.note(caller.name, "retry", job, "queued")
    return view


@router.post("/plan")
async def plan(request: PlanRequest, service: Here, _caller: Submitter) -> dict[str, Any]:
    """What a job would do: stages, what is cached, partitions, memory."""
    order = await run_in_threadpool(service.plan_order, request.spec)
    said: dict[str, Any] = json.loads(await run_in_threadpool(_copied, service, order) or "{}")
    if "plan" in said:
        planned: dict[str, Any] = said["plan"]
        return planned
    kind = RequestError if said.get("fault") == "spec" else TreadleError
    raise kind(said.get("error", "The plan was not made; the service's log may say why."))


def _copied(service: Service, order: str) -> bytes:
    """What a copy of the nursery prints of a plan."""
    with service.dispatcher.nursery.read("plan", order) as output:
        return output.read()
